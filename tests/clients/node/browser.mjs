// A page in headless Chromium that listens to one channel with the browser's own EventSource and WebSocket, and says what it sees.
//
// Its parameters are the browser's executable, a folder for its profile, the channel, and after how many messages on each to end.
// The browser is led over a pipe: when this script ends, however that comes about, the pipe closes and the browser ends too.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { parameters, ready, say } from './stack.mjs';

const [executable, profile, channel, messages] = parameters;

/** What runs in the page. */
function page({ stream, token, websocket, channel }) {
  const tell = (fact) => window.say(JSON.stringify(fact));
  const source = new EventSource(`${stream}sse?channel=${channel}&token=${token}`);
  source.onopen = () => tell({ sse: 'open' });
  source.onerror = () => tell({ sse: 'error', connecting: source.readyState === EventSource.CONNECTING });
  source.onmessage = ({ data }) => {
    const { epoch, offset, ...event } = JSON.parse(data);
    tell({ sse: 'message', epoch, offset, event });
  };
  for (const name of ['subscribed', 'gap', 'error', 'end']) {
    source.addEventListener(`carillon.${name}`, ({ data }) => tell({ sse: `carillon.${name}`, data: JSON.parse(data) }));
  }

  const socket = new WebSocket(websocket, ['carillon.v1', `bearer.${token}`]);
  socket.onopen = () => socket.send(JSON.stringify({ action: 'subscribe', channel, ref: '1' }));
  socket.onerror = () => tell({ websocket: 'error' });
  socket.onclose = ({ code }) => tell({ websocket: 'closed', code });
  socket.onmessage = ({ data }) => {
    const frame = JSON.parse(data);
    if (frame.type !== 'events') {
      tell({ websocket: frame.type, frame });
      return;
    }
    frame.events.forEach(({ offset, event }) => tell({ websocket: 'message', epoch: frame.epoch, offset, event }));
  };
}

/** A client of the DevTools protocol: JSON objects with a NUL after each. */
class DevTools {
  #calls = new Map();
  #unread = '';
  #number = 0;

  constructor(browser, listener) {
    this.input = browser.stdio[3];
    browser.stdio[4].setEncoding('utf8');
    browser.stdio[4].on('data', (text) => {
      const parts = (this.#unread + text).split('\0');
      this.#unread = parts.pop();
      parts.map((part) => JSON.parse(part)).forEach((message) => {
        if (message.id === undefined) {
          listener(message);
        } else {
          this.#calls.get(message.id)(message);
          this.#calls.delete(message.id);
        }
      });
    });
  }

  async call(method, params = {}, sessionId = undefined) {
    this.#number += 1;
    const id = this.#number;
    this.input.write(`${JSON.stringify({ id, method, params, sessionId })}\0`);
    const answer = await new Promise((resolve) => this.#calls.set(id, resolve));
    if (answer.error) {
      throw new Error(`${method}: ${JSON.stringify(answer.error)}`);
    }
    return answer.result;
  }
}

const { stream, token, websocket } = ready;
const configuration = JSON.stringify({ stream, token, websocket, channel });
// An origin of its own, so that the browser asks whether it may read the stream.
const server = createServer((request, response) => {
  response.setHeader('content-type', 'text/html; charset=utf-8');
  response.end(`<!doctype html><title>Carillon</title><script>(${page})(${configuration});</script>`);
});
server.listen(0, '127.0.0.1');
await once(server, 'listening');

const flags = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--no-proxy-server'];
const quiet = ['--disable-background-networking', '--disable-component-update', '--disable-sync', '--disable-dev-shm-usage'];
const browser = spawn(executable, [...flags, ...quiet, '--remote-debugging-pipe', `--user-data-dir=${profile}`], {
  stdio: ['ignore', 'ignore', 'inherit', 'pipe', 'pipe'],
});
const ended = once(browser, 'exit');

const received = { sse: 0, websocket: 0 };
let isOver = false;

async function end() {
  isOver = true;
  await devtools.call('Browser.close');
  const [status] = await ended;
  server.close();
  say({ browser: status });
}

const devtools = new DevTools(browser, ({ method, params }) => {
  if (method === 'Runtime.exceptionThrown') {
    say({ exception: params.exceptionDetails.exception?.description ?? params.exceptionDetails.text });
  } else if (method === 'Runtime.bindingCalled' && !isOver) {
    const fact = JSON.parse(params.payload);
    say(fact);
    Object.keys(received).filter((name) => fact[name] === 'message').forEach((name) => {
      received[name] += 1;
    });
    if (Object.values(received).every((count) => count >= Number(messages))) {
      end();
    }
  }
});

const { targetId } = await devtools.call('Target.createTarget', { url: 'about:blank' });
const { sessionId } = await devtools.call('Target.attachToTarget', { targetId, flatten: true });
await devtools.call('Runtime.enable', {}, sessionId);
await devtools.call('Runtime.addBinding', { name: 'say' }, sessionId);
await devtools.call('Page.navigate', { url: `http://127.0.0.1:${server.address().port}/` }, sessionId);
