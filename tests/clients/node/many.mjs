// Opens many connections in a process of its own, subscribes each to one channel, and counts what each receives.
//
// It says how many are subscribed, and after the first message how many have it. When every one has it, it listens for a second
// more, because a repeat would come behind the first.

import { setTimeout as pause } from 'node:timers/promises';
import { connect, parameters, say } from './stack.mjs';

const [channel, clients, atOnce] = [parameters[0], Number(parameters[1]), Number(parameters[2])];
const received = new Array(clients).fill(0);
const connections = [];
let opened = 0;
let subscribed = 0;

/** Tells how far it has come, so that whoever waits knows it is not stuck. */
function progress() {
  subscribed += 1;
  if (subscribed % 250 === 0 && subscribed < clients) {
    say({ progress: subscribed });
  }
}

async function open() {
  while (opened < clients) {
    const number = opened;
    opened += 1;
    const connection = await connect();
    connections.push(connection);
    const reply = await connection.ask({ action: 'subscribe', channel });
    if (!reply.ok) {
      throw new Error(JSON.stringify(reply));
    }
    progress();
    (async () => {
      for (;;) {
        await connection.message();
        received[number] += 1;
      }
    })();
  }
}

await Promise.all(Array.from({ length: atOnce }, open));
say({ subscribed });

let before = -1;
for (;;) {
  const have = received.filter((count) => count > 0).length;
  if (have !== before) {
    say({ have });
    before = have;
  }
  if (have === clients) {
    break;
  }
  await pause(100);
}
await pause(1000);
say({ once: received.filter((count) => count === 1).length, more: received.filter((count) => count > 1).length });
connections.forEach((connection) => connection.socket.terminate());
process.exit(0);
