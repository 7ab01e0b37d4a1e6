"""What a sink sends to a server of SQS, as another client finds it there."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest

from sqs_server import REGION, Server
from taskdist.api import SinkReason
from taskdist.brokers.sqs import Access, Login
from taskdist.outgoing.addresses import parse_allowed
from taskdist.outgoing.ends import End
from taskdist.sinks.broker import PAUSE_SECONDS
from taskdist.sinks.receiver import NotTold
from taskdist.sinks.sqs import MOST_BYTES, Dial, SqsReceiver, group_of

HERE = parse_allowed(("127.0.0.1",))


@pytest.fixture(name="sqs", params=["moto", "elasticmq"])
def _sqs(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


class Room:
    """A queue of a test's own, and a receiver for it."""

    def __init__(self, server: Server, end: str = ".fifo") -> None:
        self.client = server.client()
        self.name = f"{secrets.token_hex(6)}{end}"
        self.queue = server.queue(self.name)
        self.now = 0.0
        self._server = server

    @asynccontextmanager
    async def receiver(self, queue: str | None = None) -> AsyncIterator[SqsReceiver]:
        async def access(dial: Dial) -> Access:
            return Access(REGION, self._server.endpoint, Login("test", "test"), "team/s", 4, dial)

        made = SqsReceiver(access, HERE, queue or self.queue, lambda: self.now)
        yield made
        await made.close()

    def taken(self) -> list[dict[str, Any]]:
        """All messages, taken out."""
        found = list[dict[str, Any]]()
        while messages := self.client.receive_message(
            QueueUrl=self.queue,
            MaxNumberOfMessages=10,
            MessageAttributeNames=["All"],
            MessageSystemAttributeNames=["All"],
        ).get("Messages"):
            for each in messages:
                found.append(each)
                self.client.delete_message(QueueUrl=self.queue, ReceiptHandle=each["ReceiptHandle"])
        return found


def end(number: int = 0, key: str = "orders/7", result: str = "three") -> End:
    body = json.dumps({"id": f"u{number}.0.succeeded", "data": {"name": f"t{number}", "result": result}})
    return End(f"u{number}.0.succeeded", "team", f"t{number}", f"u{number}", number, key, "", body.encode())


async def test_ends_lie_in_their_groups_in_order_and_one_that_is_told_again_lies_there_once(sqs: Server) -> None:
    room, keys = Room(sqs), ("orders/7", "schl\u00fcssel", "")
    async with room.receiver() as receiver:
        for number in range(6):
            await receiver.tell(end(number, keys[number % 3]))
        await receiver.tell(end(0, keys[0]))
    found = room.taken()
    assert len(found) == 6
    for number, key in enumerate(keys):
        ours = [each for each in found if each["Attributes"]["MessageGroupId"] == group_of(key)]
        assert [each["Body"].encode() for each in ours] == [end(number).body, end(number + 3).body]
    for each in found:
        assert each["Attributes"]["MessageDeduplicationId"] == json.loads(each["Body"])["id"]
        assert each["MessageAttributes"]["content-type"]["StringValue"] == "application/cloudevents+json"


async def test_a_queue_without_order_takes_ends_too(sqs: Server) -> None:
    room = Room(sqs, end="")
    async with room.receiver() as receiver:
        await receiver.tell(end())
    assert [each["Body"].encode() for each in room.taken()] == [end().body]


async def test_the_largest_message_is_taken_and_a_larger_one_without_its_result(sqs: Server) -> None:
    room = Room(sqs)
    most = end(1, result="x" * (MOST_BYTES - len(end(1, result="").body)))
    async with room.receiver() as receiver:
        await receiver.tell(most)
        await receiver.tell(replace(end(2), body=end(2, result="x" * MOST_BYTES).body))
    first, second = sorted((each["Body"] for each in room.taken()), key=len, reverse=True)
    assert (first.encode(), len(first)) == (most.body, MOST_BYTES)
    assert json.loads(second)["data"] == {"name": "t2", "resultOmitted": True}


async def test_a_queue_that_is_not_there_is_named_and_waited_for(sqs: Server) -> None:
    room = Room(sqs)
    room.client.delete_queue(QueueUrl=room.queue)
    async with room.receiver() as receiver:
        with pytest.raises(NotTold, match="there is no queue") as caught:
            await receiver.tell(end())
        assert caught.value.reason is SinkReason.BROKER_UNREACHABLE
        room.client.create_queue(QueueName=room.name, Attributes={"FifoQueue": "true"})
        room.now += PAUSE_SECONDS
        await receiver.tell(end())
    assert len(room.taken()) == 1


async def test_a_server_that_is_cut_off_is_told_once_it_is_back(sqs: Server) -> None:
    room = Room(sqs)
    async with room.receiver() as receiver:
        await receiver.tell(end(1))
        sqs.relay.kill()
        try:
            with pytest.raises(NotTold, match="does not answer") as caught:
                await receiver.tell(end(2))
        finally:
            sqs.relay.start()
        assert caught.value.reason is SinkReason.BROKER_UNREACHABLE
        room.now += PAUSE_SECONDS
        await receiver.tell(end(2))
    assert [json.loads(each["Body"])["data"]["name"] for each in room.taken()] == ["t1", "t2"]
