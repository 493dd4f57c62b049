// Every way to present the token, and what happens without it.

import WebSocket from 'ws';
import { connect, ready, say } from './stack.mjs';

const { token, websocket } = ready;

const ways = {
  header: {},
  query: { url: `${websocket}?token=${token}`, headers: {} },
  subprotocol: { protocols: ['carillon.v1', `bearer.${token}`], headers: {} },
};

for (const [way, options] of Object.entries(ways)) {
  const connection = await connect(options);
  const reply = await connection.ask({ action: 'ping' });
  say({ way, protocol: connection.socket.protocol, ok: reply.ok, closed: await connection.close() });
}

const refusals = {
  none: {},
  'wrong header': { headers: { authorization: `Bearer ${'x'.repeat(token.length)}` } },
  'wrong query': { url: `${websocket}?token=${'x'.repeat(token.length)}` },
  'wrong subprotocol': { protocols: ['carillon.v1', `bearer.${'x'.repeat(token.length)}`] },
};

for (const [way, { url = websocket, protocols = [], headers = {} }] of Object.entries(refusals)) {
  const status = await new Promise((resolve) => {
    const socket = new WebSocket(url, protocols, { headers });
    socket.once('open', () => resolve('open'));
    socket.once('unexpected-response', (request, response) => {
      resolve(response.statusCode);
      request.destroy();
    });
    socket.once('error', () => {});
  });
  say({ way, status });
}
