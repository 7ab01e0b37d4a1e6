"""A sink of Kafka with the real broker, API server and operator, any of them killed at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition

from door_rights import grant
from kafka_broker import Kafka
from sink_room import HISTORIES, Room, each_end_is_told, room
from taskdist.local.stack import Stack

pytestmark = pytest.mark.timeout(3600)

PARTITIONS = 3


class KafkaTarget:
    """The broker, as `sink_room` wants it: a topic of several partitions."""

    def __init__(self, broker: Kafka) -> None:
        self._broker = broker
        self.start, self.kill = broker.start, broker.kill

    def spec(self, name: str) -> dict[str, Any]:
        kafka = {"bootstrap": [self._broker.address], "topic": name, "tls": False}
        return {"kafka": kafka, "retry": {"maxSeconds": 2}}

    def secret(self) -> dict[str, str]:
        return {}

    def prepare(self, name: str) -> None:
        asyncio.run(self._broker.topic(name, PARTITIONS))

    def taken(self, name: str) -> list[dict[str, Any]]:
        async def got() -> list[dict[str, Any]]:
            reader = AIOKafkaConsumer(bootstrap_servers=self._broker.address, auto_offset_reset="earliest")
            await reader.start()
            try:
                found = []
                for number in range(PARTITIONS):
                    partition = TopicPartition(name, number)
                    reader.assign([partition])
                    end = (await reader.end_offsets([partition]))[partition]
                    while await reader.position(partition) < end:
                        message = await reader.getone()
                        event = json.loads(message.value)
                        assert message.key.decode() == event["partitionkey"]
                        found.append(event)
                return found
            finally:
                await reader.stop()

        return asyncio.run(got())


@pytest.fixture(name="room")
def _room(stack: Stack, kafka: Kafka) -> Iterator[Room]:
    grant(stack, "sinks")
    with room(stack, KafkaTarget(kafka)) as made:
        yield made


@HISTORIES
def test_each_end_is_told_whatever_is_killed(
    room: Room, ends: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = each_end_is_told(room, ends, kills)
    with capsys.disabled():
        print(f"\n{said}")
