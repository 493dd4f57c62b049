// After an unsubscribe nothing comes any more, while another subscription of the connection goes on.

import { connect, parameters, publish, say } from './stack.mjs';

const [left, kept] = parameters;

const connection = await connect();
await connection.ask({ action: 'subscribe', channel: left });
await connection.ask({ action: 'subscribe', channel: kept });
await publish({ channel: left, data: 'before' });
say({ message: await connection.message() });
say({ unsubscribed: await connection.ask({ action: 'unsubscribe', channel: left }) });
await publish({ channel: left, data: 'after' });
await publish({ channel: kept, data: 'kept' });
say({ message: await connection.message() });
await connection.close();
