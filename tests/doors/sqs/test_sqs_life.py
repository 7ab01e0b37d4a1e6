"""An SQS source with a server of SQS, the real API server and operator; any of them killed or cut off at any moment."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from source_room import (
    KEYS,
    POISON,
    SECRET,
    Room,
    each_message_is_one_task,
    grant,
    histories,
    message,
    room,
    tasks_come_as_fast_as_the_api_server_takes_them,
)
from sqs_server import REGION, Server
from taskdist.local.stack import Stack

pytestmark = pytest.mark.timeout(3600)

# What a message of SQS can be: a text that is not empty, of 256 KiB at most.
CARRIED = {
    body: said
    for body, said in POISON.items()
    if body and len(body) <= 256 * 1024 and body.decode("utf-8", "replace").isprintable() and said != "NotText"
}


class SqsDoor:
    """The server, as `source_room` wants it. Its queues are in order, by the key of the messages."""

    poison = CARRIED

    def __init__(self, server: Server) -> None:
        self._server = server
        self._queues: dict[str, tuple[str, str]] = {}
        self.start, self.kill = server.relay.start, server.relay.kill

    def prepare(self, name: str) -> None:
        self._queues[name] = self._server.queue(f"{name}.fifo"), self._server.queue(f"{name}-dead.fifo")

    def spec(self, name: str) -> dict[str, Any]:
        queue, dead = self._queues[name]
        sqs = {
            "queueUrl": queue,
            "region": REGION,
            "endpoint": self._server.endpoint,
            "secretName": SECRET,
            "visibilitySeconds": 10,
            "deadLetterQueueUrl": dead,
        }
        return {"sqs": sqs}

    def secret(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "test", "AWS_SECRET_ACCESS_KEY": "test"}

    def publish(self, name: str, numbers: range) -> None:
        client = self._server.client()
        for start in range(0, len(numbers), 10):
            entries = [
                {
                    "Id": str(number),
                    "MessageBody": message(number, CARRIED).decode(),
                    "MessageGroupId": str(number % KEYS),
                    "MessageDeduplicationId": str(number),
                    "MessageAttributes": {"number": {"DataType": "Number", "StringValue": str(number)}},
                }
                for number in numbers[start : start + 10]
            ]
            assert not client.send_message_batch(QueueUrl=self._queues[name][0], Entries=entries).get("Failed")

    def dead_letters(self, name: str) -> list[tuple[int, str]]:
        client, found = self._server.client(), list[tuple[int, str]]()
        url = self._queues[name][1]
        while letters := client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, MessageAttributeNames=["All"]
        ).get("Messages"):
            for letter in letters:
                said = {key: value["StringValue"] for key, value in letter["MessageAttributes"].items()}
                number = int(said["number"])
                assert letter["Body"].encode() == message(number, CARRIED)
                found.append((number, said["x-taskdist-reason"]))
                client.delete_message(QueueUrl=url, ReceiptHandle=letter["ReceiptHandle"])
        return found


@pytest.fixture(name="room")
def _room(stack: Stack, elasticmq: Server) -> Iterator[Room]:
    grant(stack)
    with room(stack, SqsDoor(elasticmq)) as made:
        yield made


def test_what_is_carried_is_poison_of_most_kinds() -> None:
    assert set(CARRIED.values()) == {"NotJson", "NothingThere", "WrongType", "TooLarge"}


@histories(10_000)
def test_each_message_is_one_task_whatever_is_killed(
    room: Room, messages: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = each_message_is_one_task(room, messages, kills)
    with capsys.disabled():
        print(f"\n{said}")


@pytest.mark.long
def test_it_creates_tasks_as_fast_as_the_api_server_takes_them(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    said = tasks_come_as_fast_as_the_api_server_takes_them(room)
    with capsys.disabled():
        print(f"\n{said}")
