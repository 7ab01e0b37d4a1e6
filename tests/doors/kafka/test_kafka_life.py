"""A Kafka source with the real broker, API server and operator, any of them killed at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition

from kafka_broker import Kafka
from patience import until
from source_room import (
    HISTORIES,
    KEYS,
    POISON,
    Room,
    each_message_is_one_task,
    grant,
    message,
    room,
    tasks_come_as_fast_as_the_api_server_takes_them,
)
from taskdist.local.stack import Stack

PARTITIONS = 4
LARGEST = 4_000_000

pytestmark = pytest.mark.timeout(3600)


class KafkaDoor:
    """The broker, as `source_room` wants it."""

    poison = POISON

    def __init__(self, broker: Kafka) -> None:
        self._broker = broker
        self.start, self.kill = broker.start, broker.kill

    def spec(self, name: str) -> dict[str, Any]:
        kafka = {
            "bootstrap": [self._broker.address],
            "topics": [name],
            "group": name,
            "tls": False,
            "deadLetterTopic": f"{name}-dead",
        }
        return {"kafka": kafka}

    def secret(self) -> dict[str, str]:
        return {}

    def prepare(self, name: str) -> None:
        asyncio.run(self._broker.topic(name, PARTITIONS, LARGEST))
        asyncio.run(self._broker.topic(f"{name}-dead", 1, LARGEST))

    def publish(self, name: str, numbers: range) -> None:
        # By its key a message has its partition, and so its order.
        self.send(name, ((str(number % KEYS), message(number), number) for number in numbers))

    def send(self, name: str, messages: Iterable[tuple[str, bytes, int]]) -> None:
        """Publish these: key, body and number."""

        async def published() -> None:
            producer = AIOKafkaProducer(
                bootstrap_servers=self._broker.address, enable_idempotence=True, max_request_size=LARGEST
            )
            await producer.start()
            try:
                sent = []
                for key, body, number in messages:
                    headers = [("number", str(number).encode())]
                    sent.append(await producer.send(name, body, key.encode(), headers=headers))
                await asyncio.gather(*sent)
            finally:
                await producer.stop()

        asyncio.run(published())

    def dead_letters(self, name: str) -> list[tuple[int, str]]:
        async def got() -> list[tuple[int, str]]:
            reader = AIOKafkaConsumer(bootstrap_servers=self._broker.address, auto_offset_reset="earliest")
            await reader.start()
            try:
                partition, found = TopicPartition(f"{name}-dead", 0), []
                reader.assign([partition])
                end = (await reader.end_offsets([partition]))[partition]
                while await reader.position(partition) < end:
                    letter = await reader.getone()
                    headers = dict(letter.headers)
                    number = int(headers["number"])
                    assert letter.value == message(number)
                    found.append((number, headers["x-taskdist-reason"].decode()))
                return found
            finally:
                await reader.stop()

        return asyncio.run(got())


@pytest.fixture(name="room")
def _room(stack: Stack, kafka: Kafka) -> Iterator[Room]:
    grant(stack)
    with room(stack, KafkaDoor(kafka)) as made:
        yield made


@HISTORIES
def test_each_message_is_one_task_whatever_is_killed(
    room: Room, messages: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = each_message_is_one_task(room, messages, kills)
    with capsys.disabled():
        print(f"\n{said}")


def test_large_messages_take_no_more_memory_than_the_chart_gives(room: Room) -> None:
    door, name, count = room.broker, room.namespace, 60
    assert isinstance(door, KafkaDoor)
    room.make_source()
    door.send(name, [(str(number % KEYS), b"x" * 3_900_000, number) for number in range(count)])
    door.publish(name, range(49))
    room.start_sources()
    until(lambda: room.count() == 49, "what is behind them becomes Tasks", 120)
    until(lambda: room.backlog() == 0, "nothing is left")
    assert room.peak_memory() < room.memory_limit()


def test_it_creates_tasks_as_fast_as_the_api_server_takes_them(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    said = tasks_come_as_fast_as_the_api_server_takes_them(room)
    with capsys.disabled():
        print(f"\n{said}")
