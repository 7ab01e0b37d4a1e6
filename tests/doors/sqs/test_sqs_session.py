"""A session with a server of SQS: what is handed over, kept, given back, deleted and put away."""

from __future__ import annotations

import asyncio
import json
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from patience import until
from sqs_server import REGION, Server
from taskdist.api import SourceReason
from taskdist.brokers.sqs import Login
from taskdist.intake.message import Poison, PoisonReason
from taskdist.sources.broker import Delivery, Told, Trouble, Waiting
from taskdist.sources.sqs import SqsSession, open_session
from taskdist.sources.sqs_access import Address


@pytest.fixture(name="sqs", params=["moto", "elasticmq"])
def _sqs(request: pytest.FixtureRequest) -> Server:
    server: Server = request.getfixturevalue(request.param)
    return server


POISON = Poison(PoisonReason.NOT_JSON, "the body is no JSON")
LOGIN = Login("test", "test")


@dataclass
class Heard:
    """What a session told."""

    deliveries: list[Delivery] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)

    @property
    def told(self) -> Told:
        return Told(self.deliveries.append, self.lost.append, self._withdraw)

    def _withdraw(self, tags: Iterable[int]) -> None:
        self.withdrawn += tags

    def has(self, count: int) -> bool:
        """Whether so many were handed over, or more."""
        return len(self.deliveries) >= count

    def bodies(self) -> list[str]:
        return [each.message.body.decode() for each in self.deliveries]


class Room:
    """A queue of a test's own, and one for its dead letters."""

    def __init__(self, server: Server, fifo: bool = False) -> None:
        name, end = secrets.token_hex(6), ".fifo" if fifo else ""
        self.client = server.client()
        self.endpoint = server.endpoint
        self.dead = server.queue(f"{name}-dead{end}")
        arn = self.client.get_queue_attributes(QueueUrl=self.dead, AttributeNames=["QueueArn"])["Attributes"][
            "QueueArn"
        ]
        policy = json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": 2})
        self.queue = server.queue(f"{name}{end}", RedrivePolicy=policy)

    def address(self, **changes: Any) -> Address:
        given: dict[str, Any] = {
            "queue": self.queue,
            "region": REGION,
            "endpoint": self.endpoint,
            "login": LOGIN,
            "prefetch": 64,
            "visibility": 10,
            "dead_letters": self.dead,
            "source": "ns/s",
        }
        return Address(**(given | changes))

    def send(self, *bodies: str, group: str | None = None, **more: Any) -> None:
        for body in bodies:
            order = {} if group is None else {"MessageGroupId": group, "MessageDeduplicationId": secrets.token_hex(8)}
            self.client.send_message(QueueUrl=self.queue, MessageBody=body, **order, **more)

    def left(self) -> tuple[int, int]:
        """How many may be received, and how many are hidden."""
        told = self.client.get_queue_attributes(QueueUrl=self.queue, AttributeNames=["All"])["Attributes"]
        return int(told["ApproximateNumberOfMessages"]), int(told["ApproximateNumberOfMessagesNotVisible"])

    def letters(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.client.receive_message(
            QueueUrl=self.dead, MaxNumberOfMessages=10, MessageAttributeNames=["All"], AttributeNames=["All"]
        ).get("Messages", [])
        return found

    @asynccontextmanager
    async def session(self, heard: Heard, **changes: Any) -> AsyncIterator[SqsSession]:
        session = await open_session(self.address(**changes), heard.told)
        try:
            yield session
        finally:
            await session.close()


async def eventually(what: Callable[[], Any]) -> None:
    await asyncio.to_thread(until, what, "it is so")


async def test_messages_are_handed_over_with_what_they_have_and_deleted_once_acknowledged(sqs: Server) -> None:
    room, heard = Room(sqs), Heard()
    room.send("{}", MessageAttributes={"tenant": {"DataType": "String", "StringValue": "acme"}})
    room.send(*map(str, range(11)))
    async with room.session(heard) as session:
        await session.consume()
        await eventually(partial(heard.has, 12))
        first = next(each for each in heard.deliveries if each.message.body == b"{}")
        assert first.message.headers == {"tenant": "acme"}
        assert (first.message.id, first.group) == (first.raw["MessageId"], None)
        assert await session.backlog() == Waiting(0)
        for each in heard.deliveries:
            await session.acknowledge(each.tag)
        await eventually(lambda: room.left() == (0, 0))
    assert not heard.lost


async def test_what_is_in_hand_at_the_end_can_be_received_at_once(sqs: Server) -> None:
    room, heard = Room(sqs), Heard()
    room.send("a", "b")
    async with room.session(heard) as session:
        await session.consume()
        await eventually(partial(heard.has, 2))
        assert room.left() == (0, 2)
        await session.acknowledge(heard.deliveries[0].tag)
    assert room.left() == (1, 0)


async def test_what_comes_after_a_pause_is_given_back_and_the_oldest_is_remembered(sqs: Server) -> None:
    room, heard = Room(sqs), Heard()
    room.send("a")
    async with room.session(heard) as session:
        await session.consume()
        await eventually(partial(heard.has, 1))
        await session.pause()
        await session.give_back(heard.deliveries[0].tag)
        await eventually(lambda: room.left() == (1, 0))
        found = await session.backlog()
        assert found.oldest == heard.deliveries[0].message.time
        assert len(heard.deliveries) == 1


async def test_no_more_are_in_hand_than_are_prefetched(sqs: Server) -> None:
    room, heard = Room(sqs), Heard()
    room.send("a", "b", "c")
    async with room.session(heard, prefetch=2) as session:
        await session.consume()
        await eventually(partial(heard.has, 2))
        assert room.left() == (1, 2)
        await session.acknowledge(heard.deliveries[0].tag)
        await eventually(partial(heard.has, 3))


async def test_what_is_in_hand_stays_hidden_beyond_its_visibility(sqs: Server) -> None:
    room, heard = Room(sqs), Heard()
    room.send("a")
    async with room.session(heard, visibility=3) as session:
        await session.consume()
        await eventually(partial(heard.has, 1))
        # It comes once more where it is not extended; and then it is the same one, and not handed over again.
        end = time.monotonic() + 7
        await eventually(lambda: room.left() != (0, 1) or time.monotonic() > end)
        assert room.left() == (0, 1)
        await session.acknowledge(heard.deliveries[0].tag)
        await eventually(lambda: room.left() == (0, 0))
    assert len(heard.deliveries) == 1


async def test_a_queue_in_order_gives_groups_in_their_order(sqs: Server) -> None:
    room, heard = Room(sqs, fifo=True), Heard()
    for number in range(4):
        room.send(f"a{number}", group="a")
        room.send(f"b{number}", group="b")
    async with room.session(heard) as session:
        await session.consume()
        for number in range(8):
            await eventually(partial(heard.has, number + 1))
            await session.acknowledge(heard.deliveries[number].tag)
        await eventually(lambda: room.left() == (0, 0))
    for group in "ab":
        assert [each for each in heard.bodies() if each[0] == group] == [f"{group}{number}" for number in range(4)]
    assert {each.group for each in heard.deliveries} == {"a", "b"}


async def test_a_dead_letter_lies_with_its_reason_in_its_group(sqs: Server) -> None:
    room, heard = Room(sqs, fifo=True), Heard()
    room.send("odd", group="g", MessageAttributes={"tenant": {"DataType": "String", "StringValue": "acme"}})
    async with room.session(heard) as session:
        await session.consume()
        await eventually(partial(heard.has, 1))
        await session.dead_letter(heard.deliveries[0], POISON)
        await session.dead_letter(heard.deliveries[0], POISON)
        await session.acknowledge(heard.deliveries[0].tag)
        await eventually(lambda: room.left() == (0, 0))
    (letter,) = room.letters()
    assert (letter["Body"], letter["Attributes"]["MessageGroupId"]) == ("odd", "g")
    said = {name: value["StringValue"] for name, value in letter["MessageAttributes"].items()}
    assert (said["x-taskdist-reason"], said["tenant"]) == ("NotJson", "acme")
    assert said["x-taskdist-id"] == heard.deliveries[0].message.id


async def test_without_dead_letters_the_redrive_policy_puts_it_away(sqs: Server) -> None:
    room, heard = Room(sqs), Heard()
    room.send("odd")
    async with room.session(heard, dead_letters=None, visibility=1) as session:
        await session.consume()
        for number in range(2):
            await eventually(partial(heard.has, number + 1))
            await session.dead_letter(heard.deliveries[number], POISON)
            await session.acknowledge(heard.deliveries[number].tag)
        await eventually(lambda: [each["Body"] for each in room.letters()] == ["odd"])
    assert not heard.lost


@pytest.mark.parametrize(
    ("changes", "reason", "words"),
    [
        pytest.param({"queue": "none"}, SourceReason.BROKER_UNREACHABLE, "there is no queue", id="no such queue"),
        pytest.param(
            {"dead_letters": "none"}, SourceReason.BROKER_UNREACHABLE, "there is no queue", id="no dead letters"
        ),
        pytest.param(
            {"endpoint": "http://127.0.0.1:9"}, SourceReason.BROKER_UNREACHABLE, "does not answer", id="nobody"
        ),
    ],
)
async def test_what_is_not_there_is_told_at_once(
    sqs: Server, changes: dict[str, Any], reason: SourceReason, words: str
) -> None:
    room = Room(sqs)
    for name in ("queue", "dead_letters"):
        if name in changes:
            changes = changes | {name: f"{room.queue}-{changes[name]}"}
    with pytest.raises(Trouble, match=words) as caught:
        await open_session(room.address(**changes), Heard().told)
    assert caught.value.reason is reason


async def test_dead_letters_that_are_the_queue_itself_are_refused_however_it_is_written(sqs: Server) -> None:
    room = Room(sqs)
    other = room.queue.replace("127.0.0.1", "localhost")
    with pytest.raises(Trouble, match="is the queue itself, so that") as caught:
        await open_session(room.address(dead_letters=other), Heard().told)
    assert caught.value.reason is SourceReason.DEAD_LETTERS_REFUSED


async def test_a_queue_that_could_lose_poison_is_refused(sqs: Server) -> None:
    room = Room(sqs)
    plain = sqs.queue(secrets.token_hex(6))
    with pytest.raises(Trouble, match="has no redrive policy: give it one") as caught:
        await open_session(room.address(queue=plain, dead_letters=None), Heard().told)
    assert caught.value.reason is SourceReason.DEAD_LETTERS_REFUSED


async def test_a_cut_network_ends_the_session_and_no_message_is_lost(sqs: Server) -> None:
    room, heard = Room(sqs), Heard()
    room.send("a")
    async with room.session(heard) as session:
        await session.consume()
        await eventually(partial(heard.has, 1))
        sqs.relay.kill()
        try:
            await eventually(lambda: heard.lost)
        finally:
            sqs.relay.start()
    assert room.left() in ((0, 1), (1, 0))
