// What the scripts share: where the stack is, one JSON line for each fact, and a `ws` client that matches replies to requests.
// A script says what a stock client saw; the test that runs it judges.

import { readFileSync } from 'node:fs';
import WebSocket from 'ws';

const [, , readyFile, ...rest] = process.argv;

/** Where the stack is: the content of its ready file. */
export const ready = JSON.parse(readFileSync(readyFile, 'utf8'));

/** The script's own arguments. */
export const parameters = rest;

/** Prints a fact. */
export function say(fact) {
  console.log(JSON.stringify(fact));
}

/** Publishes over HTTP and gives what became of the message. */
export async function publish(message) {
  const response = await fetch(`${ready.publish}publish`, {
    method: 'POST',
    headers: { authorization: `Bearer ${ready.token}`, 'content-type': 'application/json' },
    body: JSON.stringify(message),
  });
  if (!response.ok) {
    throw new Error(`HTTP status ${response.status}: ${await response.text()}`);
  }
  return (await response.json()).results[0];
}

/** Opens a connection; the token goes into the header unless said otherwise. */
export function connect({ url = ready.websocket, protocols = [], headers = { authorization: `Bearer ${ready.token}` } } = {}) {
  return new Promise((resolve, reject) => {
    const socket = new WebSocket(url, protocols, { headers });
    const connection = new Connection(socket);
    socket.once('open', () => resolve(connection));
    socket.once('error', reject);
  });
}

/** A connection whose replies and messages can be awaited. */
export class Connection {
  #replies = new Map();
  #messages = [];
  #waiting = [];
  #requests = 0;

  constructor(socket) {
    this.socket = socket;
    socket.on('message', (data) => this.#take(JSON.parse(data.toString())));
  }

  /** Sends a request and resolves with its reply. */
  ask(request) {
    this.#requests += 1;
    const ref = String(this.#requests);
    this.socket.send(JSON.stringify({ ...request, ref }));
    return new Promise((resolve) => this.#replies.set(ref, resolve));
  }

  /** The next message of any subscription: `{channel, epoch, offset, event}`. */
  message() {
    const message = this.#messages.shift();
    return message ? Promise.resolve(message) : new Promise((resolve) => this.#waiting.push(resolve));
  }

  /** Closes in order and resolves with the code that came back. */
  close() {
    return new Promise((resolve) => {
      this.socket.once('close', (code) => resolve(code));
      this.socket.close(1000);
    });
  }

  #take(frame) {
    if (frame.type === 'reply') {
      this.#replies.get(frame.ref)?.(frame);
      this.#replies.delete(frame.ref);
    } else if (frame.type === 'events') {
      const { channel, epoch } = frame;
      frame.events.forEach(({ offset, event }) => this.#deliver({ channel, epoch, offset, event }));
    } else {
      say({ unexpected: frame });
    }
  }

  #deliver(message) {
    const waiting = this.#waiting.shift();
    if (waiting) {
      waiting(message);
    } else {
      this.#messages.push(message);
    }
  }
}
