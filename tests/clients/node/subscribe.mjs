// Subscribes to a channel, says each message as it comes, and unsubscribes after as many as asked for.

import { connect, parameters, say } from './stack.mjs';

const [channel, count] = parameters;

const connection = await connect();
say({ subscribed: await connection.ask({ action: 'subscribe', channel }) });
for (let received = 0; received < Number(count); received += 1) {
  say({ message: await connection.message() });
}
say({ unsubscribed: await connection.ask({ action: 'unsubscribe', channel }) });
say({ closed: await connection.close() });
