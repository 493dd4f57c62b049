"""boto3 publishes over IoT Core's HTTP data plane. Its parameters are topics, each with its payload."""

from botocore.exceptions import ClientError
from stack import PARAMETERS, client, error, say

iot = client("iot-data")
for topic, payload in zip(PARAMETERS[::2], PARAMETERS[1::2]):
    try:
        answer = iot.publish(topic=topic, qos=1, contentType="application/json", payload=payload.encode())
        say(published=topic, status=answer["ResponseMetadata"]["HTTPStatusCode"])
    except ClientError as failure:
        say(refused=topic, error=error(failure))
