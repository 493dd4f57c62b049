"""An MQTT client on paho-mqtt: it subscribes, then publishes, and says what the broker says.

Its parameter is JSON: the version (3 is MQTT 3.1.1), the transport, the topics and the quality to subscribe with, what to
publish, how many messages to wait for, and the password.
"""

import json
import queue
from urllib.parse import urlsplit

import paho.mqtt.client as mqtt
from paho.mqtt.enums import CallbackAPIVersion, MQTTProtocolVersion
from stack import PARAMETERS, PATIENCE, READY, say

options = json.loads(PARAMETERS[0])
is_websocket = options.get("transport") == "mqtt_ws"
version = MQTTProtocolVersion.MQTTv5 if options["version"] == 5 else MQTTProtocolVersion.MQTTv311
client = mqtt.Client(
    CallbackAPIVersion.VERSION2,
    client_id=options.get("client", ""),
    protocol=version,
    transport="websockets" if is_websocket else "tcp",
)
client.username_pw_set("token", options.get("password", READY["token"]))
# The callbacks run in paho's own thread.
happened = queue.Queue()


def wait(kind):
    """The next thing that happened, which has to be of this kind."""
    found, value = happened.get(timeout=PATIENCE)
    assert found == kind, (found, value)
    return value


def properties(message):
    """The properties of MQTT 5 that a message has."""
    if version != MQTTProtocolVersion.MQTTv5:
        return None
    return {
        "contentType": getattr(message.properties, "ContentType", None),
        "text": getattr(message.properties, "PayloadFormatIndicator", 0) == 1,
        "user": dict(getattr(message.properties, "UserProperty", [])),
    }


client.on_connect = lambda client, data, flags, reason, properties: happened.put(("connect", reason))
client.on_subscribe = lambda client, data, number, reasons, properties: happened.put(("subscribe", reasons))
client.on_publish = lambda client, data, number, reason, properties: happened.put(("publish", reason))
client.on_message = lambda client, data, message: happened.put(("message", message))

url = urlsplit(READY["mqtt_ws" if is_websocket else "mqtt"])
client.connect(url.hostname, url.port)
client.loop_start()
reason = wait("connect")
say(connected=not reason.is_failure, reason=str(reason))
if reason.is_failure:
    client.loop_stop()
    raise SystemExit
if options.get("topics"):
    client.subscribe([(topic, options["qos"]) for topic in options["topics"]])
    say(granted=[reason.value for reason in wait("subscribe")])
for publish in options.get("publish", []):
    client.publish(publish["topic"], publish["payload"], qos=1)
    wait("publish")
    say(published=publish["topic"])
for _ in range(options.get("messages", 0)):
    message = wait("message")
    say(
        message={
            "topic": message.topic,
            "quality": message.qos,
            "retain": message.retain,
            "properties": properties(message),
            "event": json.loads(message.payload),
        }
    )
client.disconnect()
client.loop_stop()
