"""CloudEvents over HTTP in each content mode of the CloudEvents HTTP binding, and the messages that come of them."""

import base64
import json

from stack import PARAMETERS, Subscriber, post, say

(channel,) = PARAMETERS
subscriber = Subscriber(channel)


def event(**attributes):
    return {"specversion": "1.0", "source": "/shop", "type": "order.placed", "subject": channel, **attributes}


def publish(mode, body, headers):
    status, answer = post(body, headers)
    say(mode=mode, status=status, answer=answer)


def structured(mode, events, content_type):
    publish(mode, json.dumps(events).encode(), {"content-type": content_type})


structured(
    "structured",
    event(id="1", time="2026-11-24T10:00:00Z", data={"total": 1}, traceparent="00-trace"),
    "application/cloudevents+json; charset=utf-8",
)
say(message=subscriber.message())

structured(
    "batch",
    [event(id="2", data="two"), event(id="3", datacontenttype="image/png", data_base64=base64.b64encode(b"\x00\x01").decode())],
    "application/cloudevents-batch+json",
)
say(message=subscriber.message())
say(message=subscriber.message())

attributes = {f"ce-{name}": value for name, value in event(id="4").items()}
publish("binary", b'{"total": 4}', {**attributes, "content-type": "application/json"})
say(message=subscriber.message())

attributes["ce-id"] = "5"
publish("binary text", "f\u00fcnf".encode(), {**attributes, "content-type": "text/plain; charset=utf-8"})
say(message=subscriber.message())

attributes["ce-id"] = "6"
publish("binary bytes", b"\xff\x00", {**attributes, "content-type": "application/octet-stream"})
say(message=subscriber.message())

structured("repeated", event(id="1", data={"total": 1}), "application/cloudevents+json")
structured("no subject", {**event(id="7"), "subject": None}, "application/cloudevents+json")
structured("another version", {**event(id="8"), "specversion": "0.3"}, "application/cloudevents+json")
subscriber.close()
