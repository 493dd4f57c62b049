"""The @connections API: post to a client, describe it, close it, and every error."""

import json

from botocore.exceptions import ClientError
from stack import PARAMETERS, READY, Subscriber, client, error, say
from websockets.exceptions import ConnectionClosed

(channel,) = PARAMETERS
subscriber = Subscriber(channel)
connections = client("apigatewaymanagementapi", READY["management"])


def connection_id():
    """The only connection of this stack, as its row in the registry names it."""
    rows = client("dynamodb").scan(
        TableName=READY["resources"]["RegistryTable"],
        ConsistentRead=True,
        FilterExpression="begins_with(pk, :prefix) AND sk = :sk",
        ExpressionAttributeValues={":prefix": {"S": "C#"}, ":sk": {"S": "C"}},
    )
    (row,) = rows["Items"]
    return row["pk"]["S"].removeprefix("C#")


def refused(name, call, **arguments):
    try:
        say(refused=name, error=None, answer=str(call(**arguments)))
    except ClientError as failure:
        say(refused=name, error=error(failure))


connection = connection_id()

connections.post_to_connection(ConnectionId=connection, Data=json.dumps({"hello": "from boto3"}).encode())
say(posted=subscriber.frame())

described = connections.get_connection(ConnectionId=connection)
say(
    connected_at=described["ConnectedAt"].timestamp(),
    last_active_at=described["LastActiveAt"].timestamp(),
    source_ip=described["Identity"]["SourceIp"],
    user_agent=described["Identity"]["UserAgent"],
)

limit = 128 * 1024
connections.post_to_connection(ConnectionId=connection, Data=json.dumps("x" * (limit - 2)).encode())
say(largest=len(subscriber.frame()) + 2)
refused("too large", connections.post_to_connection, ConnectionId=connection, Data=b"x" * (limit + 1))

connections.delete_connection(ConnectionId=connection)
try:
    subscriber.frame()
except ConnectionClosed:
    say(closed=True)

for operation in ("post_to_connection", "get_connection", "delete_connection"):
    data = {"Data": b"{}"} if operation == "post_to_connection" else {}
    call = getattr(connections, operation)
    refused(f"closed {operation}", call, ConnectionId=connection, **data)
    refused(f"unknown {operation}", call, ConnectionId="L0SM9cOFvHcCIhw=", **data)
    refused(f"malformed {operation}", call, ConnectionId="no-connection", **data)
