"""The publish function invoked directly: with an answer, without one, and with what it cannot publish."""

import json

from stack import PARAMETERS, Subscriber, client, say

(channel,) = PARAMETERS
subscriber = Subscriber(channel)
functions = client("lambda")


def invoke(payload, kind="RequestResponse"):
    answer = functions.invoke(FunctionName="PublishFunction", InvocationType=kind, Payload=json.dumps(payload))
    text = answer["Payload"].read()
    say(status=answer["StatusCode"], error=answer.get("FunctionError"), answer=json.loads(text) if text else None)


invoke({"channel": channel, "id": "direct-1", "data": "one"})
say(message=subscriber.message())
invoke([{"channel": channel, "data": "two"}, {"channel": channel, "data": "three"}])
say(message=subscriber.message())
say(message=subscriber.message())
invoke({"channel": channel, "data": "later"}, kind="Event")
say(message=subscriber.message())
invoke({"channel": "not//a channel", "data": "never"})
invoke("no message at all")
invoke({"Records": [{"EventSource": "aws:sns", "Sns": {"Message": "of another service"}}]})
invoke({"channel": channel, "data": "last"})
say(message=subscriber.message())
subscriber.close()

try:
    functions.invoke(FunctionName="NoFunction", Payload="{}")
except functions.exceptions.ResourceNotFoundException as failure:
    say(unknown=failure.response["ResponseMetadata"]["HTTPStatusCode"])
