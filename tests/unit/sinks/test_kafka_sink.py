"""The receiver that is a topic of Kafka: what is sent, and what the library's errors mean."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    MessageSizeTooLargeError,
    OutOfOrderSequenceNumber,
    TopicAuthorizationFailedError,
)

from taskdist.api import SinkReason
from taskdist.brokers.kafka import Login
from taskdist.outgoing.addresses import PUBLIC_ONLY, Allowed, parse_allowed
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End
from taskdist.sinks import kafka
from taskdist.sinks.broker import PAUSE_SECONDS
from taskdist.sinks.dialling import AddressRefused
from taskdist.sinks.kafka import KafkaReceiver
from taskdist.sinks.receiver import NotTold

HERE = parse_allowed(("127.0.0.1",))
END = End("u.0.succeeded", "team", "t", "u", 7, "orders/7", "", b'{"id": "u.0.succeeded"}')


class Cluster:
    """What producers do, in memory."""

    def __init__(self) -> None:
        self.topics = {"ends"}
        self.sent: list[tuple[str, bytes, bytes, Any]] = []
        self.made: list[dict[str, Any]] = []
        self.stopped = 0
        self.on_start: Callable[[], Any] = lambda: None
        self.on_send: Callable[[], Any] = lambda: None

    def producer(self, **options: Any) -> Producer:
        self.made.append(options)
        return Producer(self)


class Producer:
    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.client = self

    async def start(self) -> None:
        if (error := self.cluster.on_start()) is not None:
            raise error

    async def stop(self) -> None:
        self.cluster.stopped += 1

    async def fetch_all_metadata(self) -> Producer:
        return self

    def topics(self) -> set[str]:
        return self.cluster.topics

    async def send_and_wait(self, topic: str, value: bytes, key: bytes, *, headers: Any) -> None:
        if isinstance(happens := self.cluster.on_send(), asyncio.Event):
            await happens.wait()
        elif happens is not None:
            raise happens
        self.cluster.sent.append((topic, value, key, headers))


class Desk:
    """A receiver, its cluster and a clock."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, allowed: Allowed = HERE) -> None:
        self.cluster = Cluster()
        monkeypatch.setattr(kafka, "AIOKafkaProducer", self.cluster.producer)
        self.now = 0.0
        self.receiver = KafkaReceiver(self._login, allowed, "ends", lambda: self.now)

    async def _login(self) -> Login:
        return Login(("127.0.0.1:1",), None, None, "", "", "team/s")

    async def refused(self) -> NotTold:
        with pytest.raises(NotTold) as caught:
            await self.receiver.tell(END)
        return caught.value


@pytest.fixture
def desk(monkeypatch: pytest.MonkeyPatch) -> Desk:
    return Desk(monkeypatch)


async def test_an_end_is_sent_under_its_key_to_all_replicas_and_once(desk: Desk) -> None:
    await desk.receiver.tell(END)
    headers = [("content-type", b"application/cloudevents+json")]
    assert desk.cluster.sent == [("ends", END.body, b"orders/7", headers)]
    (options,) = desk.cluster.made
    assert (options["acks"], options["enable_idempotence"]) == ("all", True)
    await desk.receiver.close()
    assert desk.cluster.stopped == 1


FAILURES = [
    pytest.param(MessageSizeTooLargeError(), Failure.REJECTED, "23 bytes", id="too large"),
    pytest.param(KafkaTimeoutError(), Failure.UNAVAILABLE, "", id="no leader in time"),
    pytest.param(TopicAuthorizationFailedError("ends"), Failure.UNAVAILABLE, "ends", id="not granted"),
    pytest.param(OutOfOrderSequenceNumber(), Failure.UNAVAILABLE, "", id="a producer that lost count"),
    pytest.param(OSError("no route"), Failure.UNAVAILABLE, "no route", id="the network"),
]


@pytest.mark.parametrize(("error", "failure", "words"), FAILURES)
async def test_a_producer_that_failed_is_replaced(desk: Desk, error: Exception, failure: Failure, words: str) -> None:
    desk.cluster.on_send = lambda: error
    refused = await desk.refused()
    assert refused.failure is failure
    assert words in str(refused)
    desk.cluster.on_send = lambda: None
    await desk.receiver.tell(END)
    assert (len(desk.cluster.made), desk.cluster.stopped) == (2, 1)


async def test_a_cluster_that_acknowledges_nothing_is_left(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kafka, "ANSWER_SECONDS", 0.05)
    silence = asyncio.Event()
    desk.cluster.on_send = lambda: silence
    refused = await desk.refused()
    assert (refused.failure, refused.reason) == (Failure.UNAVAILABLE, SinkReason.BROKER_UNREACHABLE)
    assert desk.cluster.stopped == 1


async def test_a_topic_that_is_not_there_is_told_and_asked_for_no_more_often_than_once_a_second(desk: Desk) -> None:
    desk.cluster.topics.clear()
    for _ in range(3):
        assert "topic ends is not there" in str(await desk.refused())
    assert (len(desk.cluster.made), desk.cluster.stopped) == (1, 1)
    desk.cluster.topics.add("ends")
    desk.now += PAUSE_SECONDS
    await desk.receiver.tell(END)


async def test_why_no_broker_is_reached_is_told(desk: Desk) -> None:
    desk.cluster.on_start = KafkaConnectionError
    refused = await desk.refused()
    assert refused.reason is SinkReason.BROKER_UNREACHABLE
    assert str(refused).startswith("127.0.0.1:1: ")


@pytest.mark.parametrize("allowed", [PUBLIC_ONLY, parse_allowed(("10.0.0.0/8",))])
async def test_an_address_that_is_not_allowed_is_not_dialled(monkeypatch: pytest.MonkeyPatch, allowed: Allowed) -> None:
    desk = Desk(monkeypatch, allowed)
    # As the library says it: it logs why, and asking once more dials again.
    desk.cluster.on_start = KafkaConnectionError
    assert (await desk.refused()).reason is SinkReason.ADDRESS_REFUSED
    desk.now += PAUSE_SECONDS
    desk.cluster.on_start = AddressRefused
    assert (await desk.refused()).reason is SinkReason.ADDRESS_REFUSED
