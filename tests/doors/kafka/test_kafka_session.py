"""A session on a real broker: what is read, what is committed, and what a group's changes do to both."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from itertools import count
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.record import default_records

from kafka_broker import PASSWORD, USER, Kafka
from taskdist.api import Sasl
from taskdist.brokers import kafka as connections
from taskdist.brokers.kafka import Login
from taskdist.intake.message import Poison, PoisonReason
from taskdist.sources.broker import Delivery, NotPublished, Told, Trouble
from taskdist.sources.kafka import Address, KafkaSession, open_session

_numbers = count()
ODD = Poison(PoisonReason.NOT_JSON, "the body is no JSON")


def login(bootstrap: str) -> Login:
    return Login((bootstrap,), None, None, "", "", "ns/s")


async def address(kafka: Kafka, partitions: int = 1, **fields: Any) -> Address:
    """Topics of a test's own, and how to read them."""
    topic = f"t{next(_numbers)}"
    await kafka.topic(topic, partitions)
    await kafka.topic(f"{topic}-dead")
    made = Address(login(kafka.address), (topic,), topic, True, 8, f"{topic}-dead", "ns/s")
    return replace(made, **fields)


@asynccontextmanager
async def producer(kafka: Kafka, **options: Any) -> AsyncIterator[AIOKafkaProducer]:
    made = AIOKafkaProducer(bootstrap_servers=kafka.address, acks="all", **options)
    await made.start()
    try:
        yield made
    finally:
        await made.stop()


async def publish(kafka: Kafka, where: Address, numbers: Iterable[int], partition: int = 0) -> None:
    async with producer(kafka) as made:
        for number in numbers:
            await made.send_and_wait(where.topics[0], str(number).encode(), partition=partition)


async def read(kafka: Kafka, topic: str, expected: int) -> list[Any]:
    """Read as many messages as lie in a topic."""
    reader = AIOKafkaConsumer(topic, bootstrap_servers=kafka.address, auto_offset_reset="earliest")
    await reader.start()
    try:
        async with asyncio.timeout(30):
            return [await reader.getone() for _ in range(expected)]
    finally:
        await reader.stop()


async def committed(kafka: Kafka, where: Address, partition: int = 0) -> int | None:
    reader = AIOKafkaConsumer(bootstrap_servers=kafka.address, group_id=where.group, enable_auto_commit=False)
    await reader.start()
    try:
        found: int | None = await reader.committed(TopicPartition(where.topics[0], partition))
        return found
    finally:
        await reader.stop()


@dataclass
class Member:
    """A consumer that does with messages what the test says."""

    arrived: list[Delivery] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    withdrawn: list[int] = field(default_factory=list)
    session: KafkaSession = field(init=False, repr=False)

    @property
    def bodies(self) -> list[int]:
        return [int(each.message.body) for each in self.arrived]

    @property
    def told(self) -> Told:
        return Told(self.arrived.append, self.lost.append, self.withdrawn.extend)

    async def acknowledge(self, *numbers: int) -> None:
        for each in self.arrived:
            if int(each.message.body) in numbers:
                await self.session.acknowledge(each.tag)


@asynccontextmanager
async def member(where: Address) -> AsyncIterator[Member]:
    made = Member()
    made.session = await open_session(where, made.told)
    try:
        await made.session.consume()
        yield made
    finally:
        await made.session.close()
        await until(lambda: not connections._ending)
    assert not made.lost


async def until(true: Callable[[], Any]) -> None:
    async with asyncio.timeout(30):
        while not true():  # noqa: ASYNC110  what is awaited has no event
            await asyncio.sleep(0.02)


async def until_awaited(true: Callable[[], Awaitable[Any]]) -> None:
    async with asyncio.timeout(30):
        while not await true():  # noqa: ASYNC110
            await asyncio.sleep(0.1)


async def test_only_what_is_dealt_with_from_the_start_on_is_committed(kafka: Kafka) -> None:
    where = await address(kafka)
    await publish(kafka, where, range(6))
    async with member(where) as one:
        await until(lambda: len(one.arrived) == 6)
        assert one.bodies == list(range(6))
        await one.acknowledge(0, 1, 3, 4, 5)
    assert await committed(kafka, where) == 2
    async with member(where) as two:
        await until(lambda: len(two.arrived) == 4)
        assert two.bodies == [2, 3, 4, 5]
        assert [each.message.id for each in two.arrived] == [each.message.id for each in one.arrived[2:]]
        await two.acknowledge(2, 3, 4, 5)
        await until_awaited(lambda: _is(committed(kafka, where), 6))


async def _is(asked: Awaitable[Any], expected: Any) -> bool:
    return bool(await asked == expected)


async def test_no_more_are_in_hand_than_allowed_and_none_come_while_paused(kafka: Kafka) -> None:
    where = await address(kafka, prefetch=4)
    await publish(kafka, where, range(10))
    async with member(where) as one:
        await until(lambda: len(one.arrived) == 4)
        assert (await one.session.backlog()).messages == 6
        await one.session.pause()
        await one.acknowledge(0, 1, 2, 3)
        await until_awaited(lambda: _is(committed(kafka, where), 4))
        waiting = await one.session.backlog()
        assert (len(one.arrived), waiting.messages) == (4, 6)
        await one.session.consume()
        await until(lambda: len(one.arrived) == 8)
        assert one.bodies == list(range(8))


async def test_while_paused_the_age_of_the_first_that_waits_is_known(kafka: Kafka) -> None:
    where = await address(kafka)
    made = Member()
    made.session = await open_session(where, made.told)
    try:
        await publish(kafka, where, range(3))
        await until_awaited(lambda: _known(made.session))
        assert not made.arrived
    finally:
        await made.session.close()


async def _known(session: KafkaSession) -> bool:
    waiting = await session.backlog()
    return waiting.oldest is not None and waiting.messages == 3


async def test_what_is_given_back_comes_again_in_its_order(kafka: Kafka) -> None:
    where = await address(kafka)
    await publish(kafka, where, range(3))
    async with member(where) as one:
        await until(lambda: len(one.arrived) == 3)
        await one.session.pause()
        for tag in (3, 1, 2):
            await one.session.give_back(tag)
        assert (await one.session.backlog()).messages == 3
        one.arrived.clear()
        await one.session.consume()
        await until(lambda: len(one.arrived) == 3)
        assert one.bodies == [0, 1, 2]


async def test_partitions_are_shared_and_nobody_has_what_another_has(kafka: Kafka) -> None:
    where = await address(kafka, partitions=2, prefetch=100)
    for partition in range(2):
        await publish(kafka, where, range(partition * 10, partition * 10 + 3), partition)
    async with member(where) as one:
        await until(lambda: len(one.arrived) == 6)
        await one.acknowledge(0, 10)
        at_work = {each.tag for each in one.arrived} - {
            each.tag for each in one.arrived if int(each.message.body) in (0, 10)
        }
        async with member(where) as two:
            await until(lambda: one.withdrawn)
            assert set(one.withdrawn) == at_work
            # One of each is ended while the other member waits; the others are given up.
            await one.acknowledge(1, 11)
            for each in one.arrived:
                if int(each.message.body) in (2, 12):
                    await one.session.give_back(each.tag)
            before = len(one.arrived)
            await until(lambda: len(one.arrived) - before == 1 and len(two.arrived) == 1)
            assert sorted([*one.bodies[before:], *two.bodies]) == [2, 12]


async def test_a_group_that_begins_with_the_latest_passes_nothing_over_afterwards(kafka: Kafka) -> None:
    where = await address(kafka, from_earliest=False)
    await publish(kafka, where, range(3))
    async with member(where):
        await until_awaited(lambda: _is(committed(kafka, where), 3))
    await publish(kafka, where, range(3, 5))
    async with member(where) as two:
        await until(lambda: len(two.arrived) == 2)
        assert two.bodies == [3, 4]


class Odd(str):
    """A name of a header that is no text on the wire."""

    def encode(self, *_: Any) -> bytes:
        return b"\xff"


async def test_a_message_that_the_library_cannot_read_stops_nobody(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The broker takes any bytes for the name of a header; aiokafka reads text only, and no further in that batch."""
    where = await address(kafka, partitions=2, prefetch=20)
    topic = where.topics[0]
    # The compiled builder takes no other kind of text.
    for module in ("message_accumulator", "producer"):
        builder = default_records._DefaultRecordBatchBuilderPy
        monkeypatch.setattr(f"aiokafka.producer.{module}.DefaultRecordBatchBuilder", builder)
    async with producer(kafka, linger_ms=200) as made:
        sent = [
            await made.send(topic, b"1", partition=0, headers=[(Odd() if number == 3 else "a", b"")])
            for number in range(5)
        ]
        await asyncio.gather(*sent)
        for partition in (0, 1):
            await made.send_and_wait(topic, b"1", partition=partition)
    async with member(where) as one:
        await until(lambda: len(one.arrived) == 7)
        found = sorted((each.raw.partition, each.raw.offset, each.unreadable is not None) for each in one.arrived)
        assert found == [*((0, number, number in (3, 4)) for number in range(6)), (1, 0, False)]
        for each in one.arrived:
            await one.session.acknowledge(each.tag)
        await until_awaited(lambda: _is(committed(kafka, where), 6))


async def test_a_dead_letter_has_what_the_message_had_and_why(kafka: Kafka) -> None:
    where = await address(kafka)
    async with producer(kafka) as made:
        await made.send_and_wait(where.topics[0], b"body", b"key", headers=[("a", b"1"), ("b", None)])
        await made.send_and_wait(where.topics[0], None, b"key")
    async with member(where) as one:
        await until(lambda: len(one.arrived) == 2)
        for each in one.arrived:
            await one.session.dead_letter(each, ODD)
    first, second = await read(kafka, where.dead_letter_topic, 2)
    assert (first.key, first.value) == (b"key", b"body")
    assert dict(first.headers) == {
        "a": b"1",
        "b": None,
        "x-taskdist-reason": b"NotJson",
        "x-taskdist-message": b"the body is no JSON",
        "x-taskdist-source": b"ns/s",
        "x-taskdist-topic": where.topics[0].encode(),
        "x-taskdist-partition": b"0",
        "x-taskdist-offset": b"0",
    }
    assert (second.key, second.value) == (b"key", None)


async def test_a_dead_letter_that_has_grown_too_large_tells_where_the_message_is(kafka: Kafka) -> None:
    where = await address(kafka)
    async with producer(kafka, max_request_size=2**21) as made:
        await made.send_and_wait(where.topics[0], b"x" * (2**20 - 100), b"key")
    async with member(where) as one:
        await until(lambda: len(one.arrived) == 1)
        await one.session.dead_letter(one.arrived[0], ODD)
    (letter,) = await read(kafka, where.dead_letter_topic, 1)
    assert (letter.value, dict(letter.headers)["x-taskdist-body"]) == (b"", b"left out")


@pytest.mark.parametrize("codec", ["gzip", "snappy", "lz4", "zstd"])
async def test_every_codec_is_read(kafka: Kafka, codec: str) -> None:
    where = await address(kafka)
    async with producer(kafka, compression_type=codec) as made:
        await made.send_and_wait(where.topics[0], b"7" * 50)
    async with member(where) as one:
        await until(lambda: one.arrived)
        assert one.arrived[0].message.body == b"7" * 50


async def test_a_topic_that_is_not_there_is_named(kafka: Kafka) -> None:
    where = await address(kafka)
    for wrong in (replace(where, topics=("nowhere",)), replace(where, dead_letter_topic="nowhere")):
        with pytest.raises(Trouble, match="topic nowhere is not there"):
            await open_session(wrong, Member().told)


async def test_a_broker_that_is_not_there_is_named() -> None:
    where = Address(login("127.0.0.1:1"), ("t",), "g", True, 8, "d", "ns/s")
    with pytest.raises(Trouble, match=r"127\.0\.0\.1"):
        await open_session(where, Member().told)


async def test_a_dead_letter_that_no_broker_takes_is_told(kafka: Kafka, monkeypatch: pytest.MonkeyPatch) -> None:
    where = await address(kafka)
    await publish(kafka, where, [1])
    async with member(where) as one:
        await until(lambda: one.arrived)
        monkeypatch.setattr(connections, "ANSWER_SECONDS", 2)
        one.session._address = replace(where, dead_letter_topic="nowhere")
        with pytest.raises(NotPublished, match="topic nowhere"):
            await one.session.dead_letter(one.arrived[0], ODD)


@pytest.mark.parametrize("sasl", list(Sasl))
async def test_a_password_lets_in_over_tls_and_what_is_wrong_is_said(kafka: Kafka, sasl: Sasl) -> None:
    plain = await address(kafka)
    await publish(kafka, plain, [7])
    right = Login(
        (f"127.0.0.1:{kafka.secure_port}",),
        ssl.create_default_context(cafile=str(kafka.authority.certificate)),
        str(sasl),
        USER,
        PASSWORD,
        "ns/s",
    )
    async with member(replace(plain, login=right)) as one:
        await until(lambda: one.arrived)
        await one.session.dead_letter(one.arrived[0], ODD)
    for wrong, words in (
        (replace(right, password="other"), "[Aa]uthentication failed"),
        (replace(right, tls=ssl.create_default_context()), "certificate verify failed"),
    ):
        with pytest.raises(Trouble, match=words):
            await open_session(replace(plain, login=wrong), Member().told)


async def commit(kafka: Kafka, where: Address, offset: int) -> None:
    consumer = AIOKafkaConsumer(bootstrap_servers=kafka.address, group_id=where.group, enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(where.topics[0], 0)
        consumer.assign([partition])
        await consumer.commit({partition: offset})
    finally:
        await consumer.stop()


async def test_what_was_deleted_before_it_was_read_is_passed_over(kafka: Kafka) -> None:
    where = await address(kafka, from_earliest=False)
    await publish(kafka, where, range(5))
    await commit(kafka, where, 1)
    await kafka.delete(where.topics[0], 0, 3)
    async with member(where) as one:
        await until(lambda: len(one.arrived) == 2)
        assert one.bodies == [3, 4]


@pytest.mark.parametrize(
    ("from_earliest", "expected"), [(True, [0, 1, 2, 3]), (False, [3])], ids=["Earliest", "Latest"]
)
async def test_an_offset_beyond_the_end_begins_anew(kafka: Kafka, from_earliest: bool, expected: list[int]) -> None:
    where = await address(kafka, from_earliest=from_earliest)
    await publish(kafka, where, range(3))
    await commit(kafka, where, 100)
    async with member(where) as one:
        await until_awaited(lambda: _is(committed(kafka, where), expected[0]))
        await publish(kafka, where, [3])
        await until(lambda: len(one.arrived) == len(expected))
        assert one.bodies == expected
