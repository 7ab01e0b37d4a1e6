"""The receiver that is an exchange of RabbitMQ: what is published, what answers mean, and who is dialled."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import SinkReason
from taskdist.brokers.amqp import Login
from taskdist.outgoing.addresses import PUBLIC_ONLY, Allowed, parse_allowed
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End
from taskdist.sinks import rabbitmq
from taskdist.sinks.broker import PAUSE_SECONDS
from taskdist.sinks.rabbitmq import RabbitMQReceiver
from taskdist.sinks.receiver import NotTold, Trouble
from unit.sources.amqp_peer import Peer

HERE = parse_allowed(("127.0.0.1",))
BODY = json.dumps({"id": "u.0.failed", "type": "dev.taskdist.task.failed", "data": {"queue": "orders"}}).encode()
END = End("u.0.failed", "team", "t", "u", 7, "u", "", BODY)


class Desk:
    """A receiver, its broker and a clock."""

    def __init__(self, peer: Peer, allowed: Allowed = HERE, routing_key: str | None = None) -> None:
        self.now = 0.0
        self.logins = 0
        self.trouble: Trouble | None = None
        self.peer = peer
        self.receiver = RabbitMQReceiver(self._login, allowed, "ends", routing_key, lambda: self.now)

    async def _login(self) -> Login:
        self.logins += 1
        if self.trouble is not None:
            raise self.trouble
        return Login("127.0.0.1", self.peer.port, "/", "user", "secret-and-wrong", None, "team/s")

    async def refused(self, end: End = END) -> NotTold:
        with pytest.raises(NotTold) as caught:
            await self.receiver.tell(end)
        assert "secret-and-wrong" not in str(caught.value)
        return caught.value


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    async with Peer() as peer:
        made = Desk(peer)
        yield made
        await made.receiver.close()


async def test_an_end_is_published_to_be_kept_and_counts_once_it_is_confirmed(desk: Desk) -> None:
    await desk.receiver.tell(END)
    ((header, body),) = desk.peer.published
    assert body == BODY
    told = header.properties
    assert (told.message_id, told.content_type, told.delivery_mode) == (END.id, "application/cloudevents+json", 2)
    (published,) = await desk.peer.heard("Basic.Publish")
    assert (published.exchange, published.routing_key, published.mandatory) == ("ends", "orders.failed", True)


async def test_many_ends_share_a_connection(desk: Desk) -> None:
    await asyncio.gather(*(desk.receiver.tell(replace(END, id=f"u{number}")) for number in range(50)))
    assert len(desk.peer.published) == 50
    assert desk.peer.names().count("Connection.Open") == desk.logins == 1


async def test_the_routing_key_may_be_named() -> None:
    async with Peer() as peer:
        desk = Desk(peer, routing_key="all")
        await desk.receiver.tell(END)
        assert (await peer.heard("Basic.Publish"))[0].routing_key == "all"
        await desk.receiver.close()


async def test_a_message_that_reaches_no_queue_is_not_told(desk: Desk) -> None:
    desk.peer.unroutable = True
    refused = await desk.refused()
    assert refused.failure is Failure.FAILED
    assert "no queue is bound to the exchange ends for the key orders.failed" in str(refused)
    desk.peer.unroutable = False
    await desk.receiver.tell(END)
    assert desk.logins == 1


async def test_a_full_queue_is_waited_for(desk: Desk) -> None:
    desk.peer.full = True
    assert (await desk.refused()).failure is Failure.UNAVAILABLE
    desk.peer.full = False
    await desk.receiver.tell(END)
    assert desk.logins == 1


async def test_a_broker_that_confirms_nothing_is_left_and_dialled_anew(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rabbitmq, "ANSWER_SECONDS", 0.05)
    desk.peer.silent = True
    refused = await desk.refused()
    assert (refused.failure, refused.reason) == (Failure.UNAVAILABLE, SinkReason.BROKER_UNREACHABLE)
    monkeypatch.setattr(rabbitmq, "ANSWER_SECONDS", 20)
    desk.peer.silent = False
    await desk.receiver.tell(END)
    assert (desk.logins, len(desk.peer.published)) == (2, 1)


async def test_a_connection_that_is_lost_is_opened_anew(desk: Desk) -> None:
    desk.peer.silent = True
    telling = asyncio.create_task(desk.refused())
    await desk.peer.heard("Basic.Publish")
    desk.peer.cut()
    assert (await telling).failure is Failure.UNAVAILABLE
    desk.peer.silent = False
    await desk.receiver.tell(END)
    assert desk.logins == 2


async def test_an_exchange_that_is_not_there_is_told_and_asked_for_no_more_often_than_once_a_second(
    desk: Desk,
) -> None:
    desk.peer.missing.add("ends")
    for _ in range(5):
        refused = await desk.refused()
        assert (refused.failure, refused.reason) == (Failure.UNAVAILABLE, SinkReason.BROKER_UNREACHABLE)
        assert "no 'ends'" in str(refused)
    assert desk.logins == 1
    desk.now += PAUSE_SECONDS
    await desk.refused()
    assert desk.logins == 2
    desk.peer.missing.clear()
    desk.now += PAUSE_SECONDS
    await desk.receiver.tell(END)


async def test_a_secret_that_is_unusable_is_read_again(desk: Desk) -> None:
    desk.trouble = Trouble(SinkReason.SECRET_UNUSABLE, "there is no Secret login: create it")
    assert (await desk.refused()).reason is SinkReason.SECRET_UNUSABLE
    desk.trouble = None
    desk.now += PAUSE_SECONDS
    await desk.receiver.tell(END)


@pytest.mark.parametrize("allowed", [PUBLIC_ONLY, parse_allowed(("other.svc", "10.0.0.0/8"))])
async def test_an_address_that_is_not_allowed_is_not_dialled(allowed: Allowed) -> None:
    async with Peer() as peer:
        desk = Desk(peer, allowed)
        refused = await desk.refused()
        assert (refused.failure, refused.reason) == (Failure.UNAVAILABLE, SinkReason.ADDRESS_REFUSED)
        assert peer.told == []


async def test_a_cancelled_try_leaves_the_connection_to_the_others(desk: Desk) -> None:
    desk.peer.silent = True
    telling = asyncio.create_task(desk.receiver.tell(END))
    await desk.peer.heard("Basic.Publish")
    telling.cancel()
    done: Any = await asyncio.gather(telling, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    desk.peer.silent = False
    await desk.receiver.tell(replace(END, id="other"))
    assert desk.logins == 1
