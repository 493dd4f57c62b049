// Reads streams with the package `eventsource`, which connects again by itself, and says every request and every event.
//
// Its parameter is JSON: the query, the way of the token (`query` or `header`), the names of events to listen to beside those
// without one, and how many messages and planned ends to wait for.

import { EventSource } from 'eventsource';
import { parameters, ready, say } from './stack.mjs';

const { query, way = 'query', names = [], messages = 0, ends = 0 } = JSON.parse(parameters[0]);

const token = way === 'query' ? `&token=${ready.token}` : '';
const seen = { messages: 0, ends: 0 };

const source = new EventSource(`${ready.stream}sse?${query}${token}`, {
  fetch: (input, init) => {
    say({ request: { last_event_id: init.headers['Last-Event-ID'] ?? null } });
    const headers = way === 'header' ? { ...init.headers, Authorization: `Bearer ${ready.token}` } : init.headers;
    return fetch(input, { ...init, headers });
  },
});

function tell(event, name) {
  say({ event: { name, id: event.lastEventId, data: JSON.parse(event.data) } });
  seen.messages += name.startsWith('carillon.') ? 0 : 1;
  seen.ends += name === 'carillon.end' ? 1 : 0;
  if (seen.messages >= messages && seen.ends >= ends) {
    source.close();
    say({ closed: true });
  }
}

source.onmessage = (event) => tell(event, '');
for (const name of ['carillon.subscribed', 'carillon.gap', 'carillon.error', 'carillon.end', ...names]) {
  source.addEventListener(name, (event) => tell(event, name));
}
source.onerror = ({ code = null }) => {
  say({ error: { status: code, over: source.readyState === EventSource.CLOSED } });
};
