"""Answers of a real broker to a session: encrypted or not, with the wrong password, without queue or exchange."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path
from typing import Any

import aiormq
import pytest
from pamqp.commands import Basic

from rabbitmq import RabbitMQ
from taskdist.brokers.amqp import Login
from taskdist.intake.message import Poison, PoisonReason
from taskdist.local.certificates import LocalAuthority
from taskdist.sources.amqp import Address, open_session
from taskdist.sources.broker import Delivery, NotPublished, Told, Trouble

QUEUE = "letters"


@pytest.fixture(scope="module", autouse=True)
def queue(rabbitmq: RabbitMQ) -> None:
    async def declare() -> None:
        async with aiormq.connect(rabbitmq.url) as connection:
            channel = await connection.channel()
            await channel.queue_declare(QUEUE, durable=True)
            # Nothing is bound to it.
            await channel.exchange_declare("letters-dead", durable=True)
            for number in range(3):
                await channel.basic_publish(
                    b"x", routing_key=QUEUE, properties=Basic.Properties(message_id=str(number), priority=255)
                )

    asyncio.run(declare())


def address(broker: RabbitMQ, **fields: Any) -> Address:
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": broker.port,
        "virtual_host": "/",
        "username": "guest",
        "password": "guest",
        "tls": None,
        "queue": QUEUE,
        "prefetch": 5,
        "dead_letter_exchange": "letters-dead",
        "dead_letter_routing_key": QUEUE,
        "source": "ns/s",
    }
    given |= fields
    login = {name: given.pop(name) for name in ("host", "port", "virtual_host", "username", "password", "tls")}
    return Address(Login(**login, name="ns/s"), **given)


NOBODY = Told(lambda _: None, lambda _: None)
WRONG = {
    "password": ({"password": "secret-and-wrong"}, "ACCESS_REFUSED"),
    "virtual host": ({"virtual_host": "none"}, "vhost none not found"),
    "queue": ({"queue": "none"}, "no queue 'none'"),
    "exchange": ({"dead_letter_exchange": "none"}, "no exchange 'none'"),
}


@pytest.mark.parametrize("name", WRONG)
async def test_what_is_wrong_is_told_and_no_secret_with_it(rabbitmq: RabbitMQ, name: str) -> None:
    fields, words = WRONG[name]
    with pytest.raises(Trouble, match=words) as caught:
        await open_session(address(rabbitmq, **fields), NOBODY)
    assert "secret-and-wrong" not in str(caught.value)


async def test_it_trusts_the_broker_by_its_authority_only(rabbitmq: RabbitMQ, tmp_path: Path) -> None:
    right = ssl.create_default_context(cafile=str(rabbitmq.authority.certificate))
    session = await open_session(address(rabbitmq, port=rabbitmq.tls_port, tls=right), NOBODY)
    assert (await session.backlog()).messages == 3
    await session.close()
    wrong = ssl.create_default_context(cafile=str(LocalAuthority(tmp_path).certificate))
    for port, context in ((rabbitmq.tls_port, wrong), (rabbitmq.port, right), (rabbitmq.tls_port, None)):
        with pytest.raises(Trouble):
            await open_session(address(rabbitmq, port=port, tls=context), NOBODY)


async def test_a_dead_letter_that_no_queue_takes_is_told_and_the_message_stays(rabbitmq: RabbitMQ) -> None:
    arrived: asyncio.Queue[Delivery] = asyncio.Queue()
    session = await open_session(address(rabbitmq), Told(arrived.put_nowait, lambda _: None))
    await session.consume()
    poison = Poison(PoisonReason.NOT_JSON, "the body is no JSON")
    for number in range(3):
        delivery = await asyncio.wait_for(arrived.get(), 10)
        assert (delivery.message.id, delivery.message.properties["priority"]) == (str(number), 255)
        with pytest.raises(NotPublished, match="no queue is bound"):
            await session.dead_letter(delivery, poison)
    await session.close()
    other = await open_session(address(rabbitmq), NOBODY)
    assert (await other.backlog()).messages == 3
    await other.close()
