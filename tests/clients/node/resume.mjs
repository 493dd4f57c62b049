// Is cut without a goodbye, misses messages, comes back with its last position and gets what it missed.

import { once } from 'node:events';
import { connect, parameters, publish, say } from './stack.mjs';

const [channel] = parameters;

const first = await connect();
await first.ask({ action: 'subscribe', channel });
await publish({ channel, data: 'seen' });
const seen = await first.message();
say({ message: seen });
first.socket.terminate();
await once(first.socket, 'close');

for (const data of ['missed 1', 'missed 2', 'missed 3']) {
  await publish({ channel, data });
}

const second = await connect();
const since = { epoch: seen.epoch, offset: seen.offset };
say({ resumed: await second.ask({ action: 'subscribe', channel, since }) });
for (let received = 0; received < 3; received += 1) {
  say({ message: await second.message() });
}
await publish({ channel, data: 'live' });
say({ message: await second.message() });
await second.close();
