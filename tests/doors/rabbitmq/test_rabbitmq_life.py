"""A RabbitMQ source with the real broker, API server and operator, any of them killed at any moment."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import aiormq
import pytest
from aiormq.abc import AbstractChannel
from pamqp.commands import Basic

from patience import until
from rabbitmq import RabbitMQ
from source_room import (
    HISTORIES,
    POISON,
    SECRET,
    Room,
    each_message_is_one_task,
    grant,
    message,
    room,
    tasks_come_as_fast_as_the_api_server_takes_them,
)
from taskdist.local.stack import Stack

pytestmark = pytest.mark.timeout(3600)


class RabbitDoor:
    """The broker, as `source_room` wants it."""

    poison = POISON

    def __init__(self, broker: RabbitMQ) -> None:
        self._broker = broker
        self.start, self.kill = broker.start, broker.kill

    def spec(self, name: str) -> dict[str, Any]:
        rabbitmq = {
            "host": "127.0.0.1",
            "port": self._broker.port,
            "tls": False,
            "queue": name,
            "secretName": SECRET,
            "deadLetterExchange": f"{name}-dead",
        }
        return {"rabbitmq": rabbitmq}

    def secret(self) -> dict[str, str]:
        return {"username": "guest", "password": "guest"}

    def ask(self, what: Callable[[AbstractChannel], Awaitable[Any]]) -> Any:
        async def asked() -> Any:
            async with aiormq.connect(self._broker.url) as connection:
                return await what(await connection.channel())

        return asyncio.run(asked())

    def prepare(self, name: str) -> None:
        async def declared(channel: AbstractChannel) -> None:
            await channel.exchange_declare(f"{name}-dead", durable=True)
            for queue in (name, f"{name}-dead"):
                await channel.queue_declare(queue, durable=True)
            await channel.queue_bind(f"{name}-dead", f"{name}-dead", name)

        self.ask(declared)

    def publish(self, name: str, numbers: range) -> None:
        async def published(channel: AbstractChannel) -> None:
            confirmed = []
            for number in numbers:
                properties = Basic.Properties(message_id=str(number), delivery_mode=2, priority=number % 256)
                sent = channel.basic_publish(message(number), routing_key=name, properties=properties)
                confirmed.append(asyncio.ensure_future(sent))
                if len(confirmed) == 100 or number == numbers[-1]:
                    await asyncio.gather(*confirmed)
                    confirmed.clear()

        self.ask(published)

    def dead_letters(self, name: str) -> list[tuple[int, str]]:
        async def got(channel: AbstractChannel) -> list[tuple[int, str]]:
            found = []
            while (letter := await channel.basic_get(f"{name}-dead", no_ack=True)).message_count is not None:
                properties = letter.header.properties
                number = int(properties.message_id or "")
                assert letter.body == message(number)
                found.append((number, str((properties.headers or {})["x-taskdist-reason"])))
            return found

        letters: list[tuple[int, str]] = self.ask(got)
        return letters


@pytest.fixture(name="room")
def _room(stack: Stack, rabbitmq: RabbitMQ) -> Iterator[Room]:
    grant(stack)
    with room(stack, RabbitDoor(rabbitmq)) as made:
        yield made


@HISTORIES
def test_each_message_is_one_task_whatever_is_killed(
    room: Room, messages: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = each_message_is_one_task(room, messages, kills)
    with capsys.disabled():
        print(f"\n{said}")


def test_large_messages_take_no_more_memory_than_the_chart_gives(room: Room) -> None:
    door, name = room.broker, room.namespace
    assert isinstance(door, RabbitDoor)
    room.make_source()
    body, count = b"x" * 8 * 2**20, 24

    async def published(channel: AbstractChannel) -> None:
        for number in range(count):
            properties = Basic.Properties(message_id=str(number), delivery_mode=2)
            await channel.basic_publish(body, routing_key=name, properties=properties)

    async def got(channel: AbstractChannel) -> int:
        letter = await channel.basic_get(f"{name}-dead", no_ack=True)
        assert letter.body == body
        return int(letter.message_count or 0) + 1

    door.ask(published)
    door.publish(name, range(49))
    room.start_sources()
    until(lambda: room.count() == 49, "what is behind them becomes Tasks", 120)
    until(lambda: room.backlog() == 0, "nothing is left")
    assert door.ask(got) == count
    assert room.peak_memory() < room.memory_limit()


def test_it_creates_tasks_as_fast_as_the_api_server_takes_them(room: Room, capsys: pytest.CaptureFixture[str]) -> None:
    said = tasks_come_as_fast_as_the_api_server_takes_them(room)
    with capsys.disabled():
        print(f"\n{said}")
