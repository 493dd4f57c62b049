"""The publish queue: single messages and batches are published; a body that never can be ends in the dead-letter queue."""

import json

from stack import PARAMETERS, PATIENCE, READY, Subscriber, client, say

(channel,) = PARAMETERS
subscriber = Subscriber(channel)
queues = client("sqs")
publish = READY["resources"]["PublishQueue"]
dead = READY["resources"]["PublishDeadLetterQueue"]

sent = queues.send_message(QueueUrl=publish, MessageBody=json.dumps({"channel": channel, "data": "single"}))
say(message=subscriber.message(), message_id=sent["MessageId"])

entries = [
    {"Id": "list", "MessageBody": json.dumps([{"channel": channel, "data": "a"}, {"channel": channel, "data": "b"}])},
    {"Id": "malformed", "MessageBody": "this is no JSON"},
    {"Id": "refused", "MessageBody": json.dumps({"channel": "not//a channel", "data": "c"})},
    {"Id": "good", "MessageBody": json.dumps({"channel": channel, "id": "d", "data": "d"})},
]
answer = queues.send_message_batch(QueueUrl=publish, Entries=entries)
say(sent=sorted(entry["Id"] for entry in answer["Successful"]), failed=answer.get("Failed", []))
for _ in range(3):
    say(message=subscriber.message())
subscriber.close()

# Each comes back four times before it is given up. Waiting for that would take minutes, so their visibility ends early.
left = {"this is no JSON", entries[2]["MessageBody"]}
while left:
    answer = queues.receive_message(QueueUrl=dead, WaitTimeSeconds=1, MaxNumberOfMessages=10)
    for message in answer.get("Messages", []):
        say(dead=message["Body"])
        left.discard(message["Body"])
        queues.delete_message(QueueUrl=dead, ReceiptHandle=message["ReceiptHandle"])
