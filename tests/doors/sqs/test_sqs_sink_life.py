"""A sink of SQS with a server of SQS, the real API server and operator; any killed or cut off at any moment."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from door_rights import grant
from sink_room import HISTORIES, SECRET, Room, each_end_is_told, room
from sqs_server import REGION, Server
from taskdist.local.stack import Stack

pytestmark = pytest.mark.timeout(3600)


class SqsTarget:
    """The server, as `sink_room` wants it: a queue in order."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._queues: dict[str, str] = {}
        self._taken: list[dict[str, Any]] = []
        self.start, self.kill = server.relay.start, server.relay.kill

    def prepare(self, name: str) -> None:
        self._queues[name] = self._server.queue(f"{name}.fifo")

    def spec(self, name: str) -> dict[str, Any]:
        sqs = {
            "queueUrl": self._queues[name],
            "region": REGION,
            "endpoint": self._server.endpoint,
            "secretName": SECRET,
        }
        return {"sqs": sqs, "retry": {"maxSeconds": 2}}

    def secret(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    def taken(self, name: str) -> list[dict[str, Any]]:
        client, url = self._server.client(), self._queues[name]
        while messages := client.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        ).get("Messages"):
            for message in messages:
                event, told = json.loads(message["Body"]), message["Attributes"]
                assert (told["MessageGroupId"], told["MessageDeduplicationId"]) == (event["partitionkey"], event["id"])
                self._taken.append(event)
            done = [{"Id": each["MessageId"], "ReceiptHandle": each["ReceiptHandle"]} for each in messages]
            client.delete_message_batch(QueueUrl=url, Entries=done)
        return self._taken


@pytest.fixture(name="room")
def _room(stack: Stack, elasticmq: Server) -> Iterator[Room]:
    grant(stack, "sinks")
    with room(stack, SqsTarget(elasticmq)) as made:
        yield made


@HISTORIES
def test_each_end_is_told_whatever_is_killed(
    room: Room, ends: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = each_end_is_told(room, ends, kills)
    with capsys.disabled():
        print(f"\n{said}")
