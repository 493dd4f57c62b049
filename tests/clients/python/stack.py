"""What the scripts share: where the stack is, one JSON line for each fact, boto3 clients, and HTTP by the standard library.

A script says what a stock client saw; the test that runs it judges.
"""

import json
import sys
import urllib.error
import urllib.request

import boto3
from botocore.config import Config
from websockets.sync.client import connect as connect_websocket

with open(sys.argv[1], encoding="utf-8") as file:
    READY = json.load(file)

PARAMETERS = sys.argv[2:]

# How long a frame may take, in seconds. Only a failing script waits that long.
PATIENCE = 30


def say(**fact):
    """Prints a fact."""
    print(json.dumps(fact), flush=True)


def client(service, endpoint=None):
    """A boto3 client of the stack. It shows the first answer: it tries nothing a second time."""
    return boto3.client(
        service,
        endpoint_url=endpoint or READY["aws"],
        region_name=READY["region"],
        aws_access_key_id="AKIDTEST",
        aws_secret_access_key="secret",
        config=Config(retries={"total_max_attempts": 1}),
    )


def error(failure):
    """What a caller of boto3 can tell of a failure."""
    return {
        "class": type(failure).__name__,
        "code": failure.response["Error"]["Code"],
        "status": failure.response["ResponseMetadata"]["HTTPStatusCode"],
    }


def post(body, headers):
    """Sends bytes to POST /publish and gives the status and the JSON of the answer."""
    headers = {"authorization": f"Bearer {READY['token']}", **headers}
    request = urllib.request.Request(f"{READY['publish']}publish", data=body, headers=headers, method="POST")
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as answer:
        return answer.code, json.load(answer)


class Subscriber:
    """A WebSocket client on a channel."""

    def __init__(self, channel):
        self.socket = connect_websocket(
            READY["websocket"], additional_headers={"authorization": f"Bearer {READY['token']}"}, proxy=None
        )
        self.messages = []
        self.socket.send(json.dumps({"action": "subscribe", "ref": "1", "channel": channel}))
        frame = self.frame()
        assert frame["type"] == "reply" and frame["ok"], frame

    def frame(self):
        """The next frame."""
        return json.loads(self.socket.recv(timeout=PATIENCE))

    def message(self):
        """The next message: offset and event."""
        while not self.messages:
            frame = self.frame()
            assert frame["type"] == "events", frame
            self.messages = frame["events"]
        return self.messages.pop(0)

    def close(self):
        """Closes in order."""
        self.socket.close()
