"""A sink of RabbitMQ with the real broker, API server and operator, any of them killed at any moment."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel

from door_rights import grant
from rabbitmq import RabbitMQ
from sink_room import HISTORIES, SECRET, Room, each_end_is_told, room, what_a_sink_holds_stays
from taskdist.local.stack import Stack

pytestmark = pytest.mark.timeout(3600)


class RabbitTarget:
    """The broker, as `sink_room` wants it: an exchange with one queue that takes all."""

    def __init__(self, broker: RabbitMQ) -> None:
        self._broker = broker
        self._taken: list[dict[str, Any]] = []
        self.start, self.kill = broker.start, broker.kill

    def spec(self, name: str) -> dict[str, Any]:
        rabbitmq = {
            "host": "127.0.0.1",
            "port": self._broker.port,
            "tls": False,
            "exchange": name,
            "secretName": SECRET,
        }
        return {"rabbitmq": rabbitmq, "retry": {"maxSeconds": 2}}

    def secret(self) -> dict[str, str]:
        return {"username": "guest", "password": "guest"}

    def prepare(self, name: str) -> None:
        async def declared(channel: AbstractChannel) -> None:
            await channel.exchange_declare(name, exchange_type="topic", durable=True)
            await channel.queue_declare(name, durable=True)
            await channel.queue_bind(name, name, "*.cancelled")

        self._ask(declared)

    def taken(self, name: str) -> list[dict[str, Any]]:
        async def got(channel: AbstractChannel) -> None:
            while (message := await channel.basic_get(name, no_ack=True)).message_count is not None:
                properties, event = message.header.properties, json.loads(message.body)
                assert (properties.message_id, properties.delivery_mode) == (event["id"], 2)
                self._taken.append(event)

        self._ask(got)
        return self._taken

    def _ask(self, what: Callable[[AbstractChannel], Awaitable[Any]]) -> None:
        async def asked() -> None:
            async with aiormq.connect(self._broker.url) as connection:
                await what(await connection.channel())

        asyncio.run(asked())


@pytest.fixture(name="room")
def _room(stack: Stack, rabbitmq: RabbitMQ) -> Iterator[Room]:
    grant(stack, "sinks")
    with room(stack, RabbitTarget(rabbitmq)) as made:
        yield made


@HISTORIES
def test_each_end_is_told_whatever_is_killed(
    room: Room, ends: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = each_end_is_told(room, ends, kills)
    with capsys.disabled():
        print(f"\n{said}")


def test_what_a_sink_holds_is_not_deleted_before_it_is_told_or_its_time_is_over(room: Room) -> None:
    what_a_sink_holds_stays(room)
