"""DynamoDB as boto3 sees it: the rows of a message and of its subscriber, and the conditions that the log stands on."""

from botocore.exceptions import ClientError
from stack import PARAMETERS, READY, Subscriber, client, error, post, say

(channel,) = PARAMETERS
tables = client("dynamodb")
log, registry = READY["resources"]["LogTable"], READY["resources"]["RegistryTable"]


def attempt(name, call, **arguments):
    try:
        call(**arguments)
        say(attempt=name, error=None)
    except ClientError as failure:
        reasons = [reason["Code"] for reason in failure.response.get("CancellationReasons", [])]
        item = failure.response.get("Item")
        say(attempt=name, error=error(failure), reasons=reasons, item=item)


# What a message leaves behind.
subscriber = Subscriber(channel)
status, answer = post(
    ('{"channel":"%s","id":"stored","data":{"total":12}}' % channel).encode(), {"content-type": "application/json"}
)
(result,) = answer["results"]
say(status=status, result=result)
subscriber.message()

entries = tables.query(
    TableName=log,
    ConsistentRead=True,
    KeyConditionExpression="pk = :pk",
    ExpressionAttributeValues={":pk": {"S": f"L#{channel}#{result['epoch']}"}},
)
say(entries=[{"sk": entry["sk"]["S"], "n": entry["n"]["N"], "lives": "exp" in entry} for entry in entries["Items"]])
head = tables.get_item(TableName=registry, Key={"pk": {"S": f"H#{channel}"}, "sk": {"S": "H"}}, ConsistentRead=True)
say(head={name: head["Item"][name] for name in ("epoch", "listed")})
rows = tables.query(
    TableName=registry,
    KeyConditionExpression="pk = :pk AND begins_with(sk, :sk)",
    ExpressionAttributeValues={":pk": {"S": f"S#{channel}#0"}, ":sk": {"S": "c#"}},
)
say(subscribers=rows["Count"])
subscriber.close()

# What every writer relies on.
for name, table in (("log", log), ("registry", registry)):
    schema = tables.describe_table(TableName=table)["Table"]["KeySchema"]
    ttl = tables.describe_time_to_live(TableName=table)["TimeToLiveDescription"]
    say(table=name, keys=[key["AttributeName"] for key in schema], ttl=ttl["AttributeName"], status=ttl["TimeToLiveStatus"])


def item(sk, **attributes):
    return {"pk": {"S": "test"}, "sk": {"S": sk}, **attributes}


absent = "attribute_not_exists(pk)"
attempt("put", tables.put_item, TableName=log, Item=item("1", owner={"S": "me"}), ConditionExpression=absent)
attempt(
    "put again",
    tables.put_item,
    TableName=log,
    Item=item("1", owner={"S": "you"}),
    ConditionExpression=absent,
    ReturnValuesOnConditionCheckFailure="ALL_OLD",
)
found = tables.get_item(TableName=log, Key=item("1"), ConsistentRead=True)
say(owner=found["Item"]["owner"]["S"])


def put(table, sk):
    return {"Put": {"TableName": table, "Item": item(sk), "ConditionExpression": absent}}


attempt("transact", tables.transact_write_items, TransactItems=[put(log, "2"), put(registry, "2")])
attempt("transact again", tables.transact_write_items, TransactItems=[put(log, "2"), put(registry, "3")])
half = tables.get_item(TableName=registry, Key=item("3"), ConsistentRead=True)
say(half_written="Item" in half)
