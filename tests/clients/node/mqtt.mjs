// An MQTT client on the package `mqtt`: it subscribes, then publishes, and says what the broker says.
//
// Its parameter is JSON: the version (4 is MQTT 3.1.1), the transport (`mqtt` or `mqtt_ws`), the topics and the quality to
// subscribe with, what to publish (a payload that is a number is as many letters), how many messages to wait for (nothing: it goes
// on until it is ended), and what goes into CONNECT.

import { connect } from 'mqtt';
import { parameters, ready, say } from './stack.mjs';

const {
  version,
  transport = 'mqtt',
  topics = [],
  qos = 1,
  publish = [],
  messages,
  client: clientId,
  clean = true,
  reconnect = 0,
  user: username = 'token',
  password = ready.token,
} = JSON.parse(parameters[0]);

const client = connect(ready[transport], {
  protocolVersion: version,
  clientId,
  clean,
  // Of MQTT 5; with 3.1.1 the broker says how long.
  properties: version === 5 && !clean ? { sessionExpiryInterval: 3600 } : undefined,
  reconnectPeriod: reconnect,
  username,
  password,
});

let isFirst = true;
let received = 0;

async function end() {
  await client.endAsync();
  say({ ended: true });
}

client.on('connect', async ({ sessionPresent: session }) => {
  say({ connected: { session } });
  if (!isFirst) {
    return;
  }
  isFirst = false;
  try {
    if (topics.length > 0) {
      await client.subscribeAsync(topics, { qos });
    }
    for (const { topic, payload } of publish) {
      await client.publishAsync(topic, typeof payload === 'number' ? 'x'.repeat(payload) : payload, { qos: 1 });
      say({ published: topic });
    }
    if (messages === 0) {
      await end();
    }
  } catch (error) {
    say({ failed: error.message });
  }
});

// As it comes: a retained message may follow before the package tells whoever subscribed.
client.on('packetreceive', ({ cmd, granted }) => {
  if (cmd === 'suback') {
    say({ granted });
  }
});

client.on('message', async (topic, payload, packet) => {
  const { qos: quality, retain, dup: again, properties: all = {} } = packet;
  const { contentType, payloadFormatIndicator: text, userProperties: user } = all;
  const properties = version === 5 ? { contentType, text, user } : undefined;
  say({ message: { topic, quality, retain, again, properties, event: JSON.parse(payload.toString()) } });
  received += 1;
  if (received === messages) {
    await end();
  }
});

// Of MQTT 5: why the broker ends the connection.
client.on('disconnect', ({ reasonCode }) => say({ disconnected: reasonCode }));
client.on('close', () => say({ closed: true }));
client.on('error', (error) => say({ error: error.code ?? error.message }));
