"""The publish queue: single messages and batches are published; a body that never can be ends in the dead-letter queue."""

import json

from stack import PARAMETERS, READY, Subscriber, client, say

(channel,) = PARAMETERS
subscriber = Subscriber(channel)
queues = client("sqs")
publish = READY["resources"]["PublishQueue"]
dead = READY["resources"]["PublishDeadLetterQueue"]

sent = queues.send_message(QueueUrl=publish, MessageBody=json.dumps({"channel": channel, "data": "single"}))
say(message=subscriber.message(), message_id=sent["MessageId"])

bodies = {
    "list": json.dumps([{"channel": channel, "data": "a"}, {"channel": channel, "data": "b"}]),
    "malformed": "this is no JSON",
    "refused": json.dumps({"channel": "not//a channel", "data": "never"}),
    "good": json.dumps({"channel": channel, "id": "mine", "data": "c"}),
}
entries = [{"Id": name, "MessageBody": body} for name, body in bodies.items()]
answer = queues.send_message_batch(QueueUrl=publish, Entries=entries)
say(sent=sorted(entry["Id"] for entry in answer["Successful"]), failed=answer.get("Failed", []))
for _ in range(3):
    say(message=subscriber.message())
subscriber.close()

given_up = set()
while len(given_up) < 2:
    answer = queues.receive_message(QueueUrl=dead, WaitTimeSeconds=20, MaxNumberOfMessages=10)
    for message in answer.get("Messages", []):
        given_up.update(name for name, body in bodies.items() if body == message["Body"])
        queues.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
say(given_up=sorted(given_up))

try:
    queues.send_message(QueueUrl=publish + "-not", MessageBody="{}")
except queues.exceptions.QueueDoesNotExist as failure:
    say(unknown=failure.response["ResponseMetadata"]["HTTPStatusCode"])
