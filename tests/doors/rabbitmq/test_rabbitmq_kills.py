"""A RabbitMQ source on a real broker: process, broker and API server fail at any moment, and no message is lost."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from typing import Any

import aiormq
import pytest
from pamqp.commands import Basic

from rabbitmq import RabbitMQ
from taskdist.kube import SECRETS, TASKSOURCES, Obj, Unanswered
from taskdist.sources.connecting import connect
from taskdist.sources.keeper import Sources
from taskdist.sources.metrics import SourceMetrics
from taskdist.sources.running import Brokers
from unit.sources.world import Api, Queues, World

KEYS = 20


def poison(number: int) -> bool:
    return number % 50 == 49


async def publish(url: str, queue: str, numbers: range) -> None:
    """Make queue, exchange and dead letters, and publish with confirms."""
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        await channel.exchange_declare(f"{queue}-dead", durable=True)
        for name in (queue, f"{queue}-dead"):
            await channel.queue_declare(name, durable=True)
        await channel.queue_bind(f"{queue}-dead", f"{queue}-dead", queue)
        for number in numbers:
            body = b"odd" if poison(number) else json.dumps({"number": number, "key": number % KEYS}).encode()
            properties = Basic.Properties(message_id=str(number), delivery_mode=2)
            await channel.basic_publish(body, routing_key=queue, properties=properties)


async def dead(url: str, queue: str) -> list[tuple[int, str]]:
    """The dead letters: their numbers, and why."""
    found = []
    async with aiormq.connect(url) as connection:
        channel = await connection.channel()
        while (message := await channel.basic_get(f"{queue}-dead", no_ack=True)).message_count is not None:
            properties = message.header.properties
            found.append((int(properties.message_id or ""), str((properties.headers or {})["x-taskdist-reason"])))
    return found


@pytest.mark.parametrize(
    ("messages", "kills"),
    [pytest.param(2000, 4, id="some"), pytest.param(100_000, 100, id="many", marks=pytest.mark.long)],
)
async def test_nothing_is_lost_or_made_twice_however_often_a_part_is_killed(
    messages: int, kills: int, rabbitmq: RabbitMQ, capsys: pytest.CaptureFixture[str]
) -> None:
    seed, begun, queue = random.randrange(10**6), time.monotonic(), f"orders{messages}"
    rng, api = random.Random(seed), Api()
    await publish(rabbitmq.url, queue, range(messages))
    login = {name: base64.b64encode(b"guest").decode() for name in ("username", "password")}
    api.put(SECRETS, {"metadata": {"namespace": "ns", "name": "login"}, "data": login})
    world = World()
    spec: Obj = {
        "rabbitmq": {
            "host": "127.0.0.1",
            "port": rabbitmq.port,
            "tls": False,
            "queue": queue,
            "secretName": "login",
            "deadLetterExchange": f"{queue}-dead",
        },
        "task": {"queue": "q", "type": "t", "orderingKey": "{$.key}"},
    }
    metadata: dict[str, Any] = {"namespace": "ns", "name": "s", "uid": "u", "generation": 1}
    source = api.put(TASKSOURCES, {"metadata": metadata, "spec": spec})
    failures: list[BaseException] = []

    def begin() -> Sources:
        brokers = Brokers(Queues(api), time.monotonic, connect)
        made: Any = api
        process = Sources(
            made, SourceMetrics(), lambda: True, failures.append, world.clock.now, asyncio.sleep, brokers=brokers
        )
        process.seen(dict(source))
        return process

    process = begin()
    try:
        for _ in range(kills):
            await asyncio.sleep(rng.random() * 2)
            match rng.randrange(3):
                case 0:
                    await process.close()
                    process = begin()
                case 1:
                    await asyncio.to_thread(rabbitmq.kill)
                    await asyncio.to_thread(rabbitmq.start)
                case _:
                    api.fail("create", lambda _: Unanswered("lost"), after=rng.random() < 0.5)
                    await asyncio.sleep(rng.random())
                    api.errors.clear()
        sound = messages - sum(poison(number) for number in range(messages))
        async with asyncio.timeout(120 + messages / 200):
            while len(api.created) < sound or api.objects[str(TASKSOURCES), "ns", "s"]["status"]["backlog"]["messages"]:
                assert not failures, f"seed {seed}"
                await asyncio.sleep(0.1)
    finally:
        await process.close()
    numbers = [each["spec"]["payload"]["number"] for each in api.created]
    assert sorted(numbers) == [number for number in range(messages) if not poison(number)], f"seed {seed}"
    for key in range(KEYS):
        order = [number for number in numbers if number % KEYS == key]
        assert order == sorted(order), f"key {key}, seed {seed}"
    told = await dead(rabbitmq.url, queue)
    assert {number for number, _ in told} == {number for number in range(messages) if poison(number)}, f"seed {seed}"
    assert {reason for _, reason in told} == {"NotJson"}
    with capsys.disabled():
        print(f"\n{messages} messages, {kills} kills in {time.monotonic() - begun:.0f} s (seed {seed})")
