// Publishes over WebSocket: to its own subscription, a second time under the same id, and with no id at all.

import { connect, parameters, say } from './stack.mjs';

const [channel] = parameters;

const connection = await connect();
say({ subscribed: await connection.ask({ action: 'subscribe', channel }) });

const event = { id: 'order-1', source: '/shop', type: 'order.placed', data: { total: 12 } };
say({ published: await connection.ask({ action: 'publish', channel, event }) });
say({ published: await connection.ask({ action: 'publish', channel, event }) });
say({ published: await connection.ask({ action: 'publish', channel, event: { data: 'plain' } }) });

say({ message: await connection.message() });
say({ message: await connection.message() });
await connection.close();
