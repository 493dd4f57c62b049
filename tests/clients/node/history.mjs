// Publishes a few messages and reads them back page by page.

import { connect, parameters, publish, say } from './stack.mjs';

const [channel, count, limit] = parameters;

for (let number = 1; number <= Number(count); number += 1) {
  await publish({ channel, data: number });
}

const connection = await connect();
let from;
do {
  const page = await connection.ask({ action: 'history', channel, limit: Number(limit), from });
  say({ page });
  from = page.next;
} while (from);
await connection.close();
