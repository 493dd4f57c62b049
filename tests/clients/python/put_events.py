"""Events put on the event bus reach a subscriber of the channel that their detail names, in their order, and only those."""

import json

from stack import PARAMETERS, Subscriber, client, say

(channel,) = PARAMETERS
subscriber = Subscriber(channel)
events = client("events")


def put(detail):
    entry = {"Source": "shop", "DetailType": "order.placed", "Detail": json.dumps(detail)}
    answer = events.put_events(Entries=[entry])
    say(failed=answer["FailedEntryCount"], event_id=answer["Entries"][0]["EventId"])


put({"total": 1})
put({"channel": channel, "data": {"total": 2}})
say(message=subscriber.message())
put({"channel": channel, "id": "order-3", "type": "order.changed", "data": {"total": 3}})
say(message=subscriber.message())
put({"channel": channel, "total": 4})
say(message=subscriber.message())
subscriber.close()
