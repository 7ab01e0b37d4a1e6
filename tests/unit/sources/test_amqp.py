"""The session with a broker, byte by byte: what is said, what is understood, and what no publisher can break."""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pamqp.frame
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pamqp import commands
from pamqp.header import ContentHeader

from taskdist.api import SourceReason
from taskdist.brokers import amqp_frames
from taskdist.brokers.amqp import Login
from taskdist.brokers.amqp_frames import UNREADABLE, mended
from taskdist.intake.message import Poison, PoisonReason
from taskdist.sources import amqp
from taskdist.sources.amqp import Address, AmqpSession, dead_properties, message_of, open_session
from taskdist.sources.broker import Delivery, NotPublished, Told, Trouble, Waiting
from unit.sources.amqp_peer import Peer

NOW = datetime(2026, 1, 1, tzinfo=UTC)
ODD = Poison(PoisonReason.NOT_JSON, "the body is no JSON")
Properties = commands.Basic.Properties


def address(port: int = 5672, **fields: Any) -> Address:
    given: dict[str, Any] = {
        "host": "127.0.0.1",
        "port": port,
        "virtual_host": "/",
        "username": "user",
        "password": "p:/@ß",
        "tls": None,
        "queue": "orders",
        "prefetch": 5,
        "dead_letter_exchange": "dead",
        "dead_letter_routing_key": "orders",
        "source": "ns/s",
    }
    given |= fields
    login = {name: given.pop(name) for name in ("host", "port", "virtual_host", "username", "password", "tls")}
    return Address(Login(**login, name="ns/s"), **given)


@dataclass
class Open:
    """A session, its peer, and what it told."""

    peer: Peer
    session: AmqpSession
    arrived: list[Delivery] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    _stir: asyncio.Event = field(default_factory=asyncio.Event)

    def tell(self, delivery: Delivery) -> None:
        self.arrived.append(delivery)
        self._stir.set()

    def end(self, why: str) -> None:
        self.lost.append(why)
        self._stir.set()

    async def until(self, arrived: int = 0, lost: bool = False) -> None:
        async with asyncio.timeout(10):
            while len(self.arrived) < arrived or (lost and not self.lost):
                self._stir.clear()
                await self._stir.wait()


@pytest.fixture
async def opened() -> AsyncIterator[Open]:
    async with Peer() as peer:
        found = Open(peer, None)  # type: ignore[arg-type]
        found.session = await open_session(address(peer.port), Told(found.tell, found.end), lambda: NOW)
        yield found
        await found.session.close()


async def test_it_logs_in_looks_bounds_what_is_in_hand_and_consumes_alone(opened: Open) -> None:
    await opened.session.consume()
    told = {each.name: each for each in opened.peer.told}
    assert opened.peer.login == "\0user\0p:/@ß"
    assert told["Connection.Open"].virtual_host == "/"
    assert told["Queue.Declare"].passive
    assert told["Exchange.Declare"].passive
    assert told["Basic.Qos"].prefetch_count == 5
    consumed = told["Basic.Consume"]
    assert (consumed.queue, consumed.exclusive, consumed.no_ack) == ("orders", True, False)


async def test_messages_come_in_order_and_are_acknowledged_or_given_back(opened: Open) -> None:
    await opened.session.consume()
    for number in range(20):
        opened.peer.deliver(str(number).encode(), Properties(message_id=f"m{number}", headers={"a": number}))
    await opened.until(arrived=20)
    assert [each.message.id for each in opened.arrived] == [f"m{number}" for number in range(20)]
    assert [each.tag for each in opened.arrived] == list(range(1, 21))
    first = opened.arrived[0].message
    assert (first.body, first.headers, first.key, first.time) == (b"0", {"a": 0}, "key", NOW)
    await opened.session.acknowledge(2)
    await opened.session.give_back(3)
    (ack,) = await opened.peer.heard("Basic.Ack")
    (nack,) = await opened.peer.heard("Basic.Nack")
    assert (ack.delivery_tag, ack.multiple) == (2, False)
    assert (nack.delivery_tag, nack.multiple, nack.requeue) == (3, False, True)


async def test_what_is_handed_over_while_it_pauses_is_not_lost(opened: Open) -> None:
    await opened.session.consume()
    opened.peer.deliver(b"", Properties(message_id="late"))
    await opened.session.pause()
    await opened.until(arrived=1)
    await opened.session.consume()
    assert len(await opened.peer.heard("Basic.Consume", 2)) == 2


async def test_a_dead_letter_is_published_with_its_reason_and_confirmed(opened: Open) -> None:
    await opened.session.consume()
    opened.peer.deliver(b"x" * 300_000, Properties(message_id="m", user_id="u", expiration="1", headers={"a": 1}))
    await opened.until(arrived=1)
    await opened.session.dead_letter(opened.arrived[0], ODD)
    ((header, body),) = opened.peer.published
    assert body == b"x" * 300_000
    properties = header.properties
    assert (properties.message_id, properties.delivery_mode) == ("m", 2)
    assert properties.user_id in (None, "")
    assert properties.expiration in (None, "")
    assert properties.headers == {
        "a": 1,
        "x-taskdist-reason": "NotJson",
        "x-taskdist-message": "the body is no JSON",
        "x-taskdist-queue": "orders",
        "x-taskdist-source": "ns/s",
    }
    (publish,) = await opened.peer.heard("Basic.Publish")
    assert (publish.exchange, publish.routing_key, publish.mandatory) == ("dead", "orders", True)


async def test_a_dead_letter_that_reaches_no_queue_is_told_and_the_session_goes_on(opened: Open) -> None:
    await opened.session.consume()
    opened.peer.deliver(b"x", Properties(message_id="m"))
    await opened.until(arrived=1)
    opened.peer.unroutable = True
    with pytest.raises(NotPublished, match="no queue is bound to the exchange dead"):
        await opened.session.dead_letter(opened.arrived[0], ODD)
    assert await opened.session.backlog() == Waiting(7)
    assert opened.lost == []


async def test_a_queue_that_is_gone_ends_the_session_with_a_reason(opened: Open) -> None:
    await opened.session.consume()
    opened.peer.missing.add("orders")
    with pytest.raises(Trouble, match="no 'orders'"):
        await opened.session.backlog()
    opened.peer.cancel_consumer()
    await opened.until(lost=True)
    assert "was queue orders deleted" in opened.lost[0]


async def test_a_connection_that_is_cut_is_told_once_and_every_call_says_so(opened: Open) -> None:
    await opened.session.consume()
    opened.peer.cut()
    await opened.until(lost=True)
    for call in (opened.session.acknowledge(1), opened.session.consume(), opened.session.backlog()):
        with pytest.raises(Trouble):
            await call


@pytest.mark.parametrize("missing", ["orders", "dead"])
async def test_what_is_not_there_is_told_at_once(missing: str) -> None:
    async with Peer() as peer:
        peer.missing.add(missing)
        with pytest.raises(Trouble, match=f"no '{missing}'") as caught:
            await open_session(address(peer.port), Told(lambda _: None, lambda _: None))
        assert caught.value.reason is SourceReason.BROKER_UNREACHABLE


async def test_what_the_broker_says_as_it_closes_the_connection_is_told() -> None:
    async with Peer() as peer:
        peer.missing.add("none")
        with pytest.raises(Trouble, match="vhost none not found"):
            await open_session(address(peer.port, virtual_host="none"), Told(lambda _: None, lambda _: None))


async def test_nobody_there_is_told() -> None:
    async with Peer() as peer:
        port = peer.port
    with pytest.raises(Trouble):
        await open_session(address(port), Told(lambda _: None, lambda _: None))


# -- what a publisher may write ----------------------------------------------------------------------------------------


def header(payload: bytes, flags: int, size: int = 1) -> bytes:
    """A frame with these properties, of whatever bytes."""
    content = struct.pack(">HHQH", 60, 0, size, flags) + payload
    return struct.pack(">BHI", 2, 1, len(content)) + content + b"\xce"


def nested(depth: int) -> bytes:
    table = b""
    for _ in range(depth):
        table = b"\x01aF" + struct.pack(">I", len(table)) + table
    return struct.pack(">I", len(table)) + table


HOSTILE = {
    "an id that is no text": header(b"\x01\xff", 128),
    "a time beyond all years": header(b"\xff" * 8, 64),
    "a table that is cut off": header(b"\xff\xff\xff\xff", 8192),
    "a table of a type that is none": header(b"\x00\x00\x00\x03\x01a?", 8192),
    "tables a thousand deep": header(nested(1500), 8192),
}


@pytest.mark.parametrize("name", HOSTILE)
async def test_properties_that_cannot_be_read_stop_nothing_behind_them(opened: Open, name: str) -> None:
    await opened.session.consume()
    opened.peer.deliver_raw(b"x", HOSTILE[name])
    opened.peer.deliver(b"y", Properties(message_id="good"))
    await opened.until(arrived=2)
    odd, good = opened.arrived
    assert odd.unreadable is not None
    assert "its properties cannot be read" in str(odd.unreadable)
    assert (good.unreadable, good.message.id) == (None, "good")
    await opened.session.dead_letter(odd, odd.unreadable)
    assert opened.peer.published[0][1] == b"x"
    assert opened.lost == []


async def test_a_routing_key_that_is_no_text_is_read_with_question_marks(opened: Open) -> None:
    await opened.session.consume()
    frame = pamqp.frame.marshal(ContentHeader(0, 0, Properties(message_id="m")), 1)
    opened.peer.deliver_raw(b"", frame, b"a\xff\xfeb")
    await opened.until(arrived=1)
    assert opened.arrived[0].message.key == "a??b"


async def test_a_delivery_mode_that_is_none_is_read(opened: Open) -> None:
    await opened.session.consume()
    opened.peer.deliver_raw(b"x", header(b"\x09", 4096))
    await opened.until(arrived=1)
    assert opened.arrived[0].message.properties["deliveryMode"] == 9


async def test_a_body_that_is_too_much_beside_others_is_left_out_until_they_are_gone(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(amqp_frames, "MOST_BYTES", 100)
    monkeypatch.setattr(amqp_frames, "SMALL_BYTES", 10)
    monkeypatch.setattr(amqp_frames, "READ_FACTOR", 0)
    await opened.session.consume()
    for size in (80, 80, 10, 20):
        opened.peer.deliver(b"x" * size, Properties(message_id="m", headers={"a": 1}))
    await opened.until(arrived=4)
    assert [(len(each.message.body), each.crowded) for each in opened.arrived] == [
        (80, False),
        (0, True),
        (10, False),
        (0, True),
    ]
    await opened.session.give_back(2)
    await opened.session.acknowledge(1)
    opened.peer.deliver(b"x" * 80, Properties())
    await opened.until(arrived=5)
    assert not opened.arrived[4].crowded


async def test_of_a_body_beyond_all_bounds_the_dead_letter_says_so(
    opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (amqp_frames, amqp):
        monkeypatch.setattr(module, "MOST_BYTES", 100)
    monkeypatch.setattr(amqp_frames, "SMALL_BYTES", 10)
    monkeypatch.setattr(amqp_frames, "READ_FACTOR", 0)
    await opened.session.consume()
    opened.peer.deliver(b"x" * 101, Properties(message_id="m"))
    await opened.until(arrived=1)
    (odd,) = opened.arrived
    assert odd.unreadable is not None
    assert (odd.unreadable.reason, odd.crowded) == (PoisonReason.TOO_LARGE, False)
    await opened.session.dead_letter(odd, odd.unreadable)
    ((header, body),) = opened.peer.published
    assert (header.properties.message_id, body) == ("m", b"")
    assert sorted(header.properties.headers or {}) == [
        "x-taskdist-message",
        "x-taskdist-queue",
        "x-taskdist-reason",
        "x-taskdist-source",
    ]


async def test_large_properties_take_room_as_bodies_do(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp_frames, "MOST_BYTES", 10_000)
    monkeypatch.setattr(amqp_frames, "SMALL_BYTES", 4_000)
    await opened.session.consume()
    large = {"large": "x" * 200}
    for headers in (large, large, {}):
        opened.peer.deliver(b"x", Properties(headers=dict(headers)))
    await opened.until(arrived=3)
    assert [(each.crowded, each.message.headers) for each in opened.arrived] == [
        (False, large),
        (True, {}),
        (False, {}),
    ]
    await opened.session.give_back(2)
    for tag in (1, 3):
        await opened.session.acknowledge(tag)
    opened.peer.deliver(b"x", Properties(headers=dict(large)))
    await opened.until(arrived=4)
    assert not opened.arrived[3].crowded


async def test_a_frame_beyond_all_bounds_ends_the_session_and_takes_no_memory(opened: Open) -> None:
    await opened.session.consume()
    opened.peer.send(struct.pack(">BHI", 3, 1, 2**32 - 1))
    await opened.until(lost=True)
    assert len(opened.lost) == 1


@pytest.mark.parametrize("garbage", [b"HTTP/1.1 400 Bad Request\r\n\r\n", b"\xff" * 64, b"AMQP\0\1\0\0", b""])
async def test_a_broker_that_answers_garbage_is_told(garbage: bytes) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(garbage)
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Trouble):
            await open_session(address(port), Told(lambda _: None, lambda _: None))


async def test_a_broker_that_says_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp, "CONNECT_SECONDS", 0.05)
    ended = asyncio.Event()

    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await ended.wait()
        writer.close()

    server = await asyncio.start_server(silent, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(Trouble):
            await open_session(address(port), Told(lambda _: None, lambda _: None))
        ended.set()


async def test_a_broker_that_reads_nothing_more_holds_nobody_up(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(amqp, "ANSWER_SECONDS", 0.05)

    async def never(*_: Any, **__: Any) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(opened.session._channel, "basic_ack", never)
    with pytest.raises(Trouble):
        await opened.session.acknowledge(1)


@given(st.binary(max_size=40), st.integers(0, 65_535).map(lambda flags: flags & ~1))
def test_whatever_the_header_holds_the_library_can_read_what_is_left(payload: bytes, flags: int) -> None:
    frame = mended(header(payload, flags, size=5))
    _, channel, found = pamqp.frame.unmarshal(frame)
    assert isinstance(found, ContentHeader)
    assert (channel, found.body_size) == (1, 5)


def test_frames_that_can_be_read_are_left_as_they_are() -> None:
    for method in (commands.Basic.Deliver("c", 1, False, "", "k"), commands.Channel.OpenOk(), ContentHeader(0, 3)):
        frame = pamqp.frame.marshal(method, 3)
        assert mended(frame) == frame


def test_header_values_become_json() -> None:
    deep: Any = 1
    for _ in range(40):
        deep = [deep]
    headers = {
        "bytes": b"\x00\xff",
        "time": NOW,
        "decimal": Decimal("1.5"),
        "nan": float("nan"),
        "list": [True, None, {"a": 2}],
        "deep": deep,
    }
    message = message_of(b"", Properties(headers=headers, timestamp=NOW, app_id="a"), "x", "k", NOW)
    assert {name: value for name, value in message.headers.items() if name != "deep"} == {
        "bytes": "AP8=",
        "time": "2026-01-01T00:00:00Z",
        "decimal": "1.5",
        "nan": None,
        "list": [True, None, {"a": 2}],
    }
    assert str(message.headers["deep"]).count("[") <= 17
    assert message.properties == {
        "timestamp": "2026-01-01T00:00:00Z",
        "appId": "a",
        "exchange": "x",
        "routingKey": "k",
    }
    assert message.id is None


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        pytest.param({"CC": ["elsewhere"], "BCC": ["too"], "a": 1}, {"a": 1}, id="routing is left out"),
        pytest.param({"a": object()}, {}, id="what cannot be written is left out"),
        pytest.param({"a": "x" * 200_000}, {}, id="what is too large is left out"),
        pytest.param({UNREADABLE: "why"}, {UNREADABLE: "why"}, id="that it could not be read is kept"),
    ],
)
def test_a_dead_letter_can_always_be_written(headers: dict[str, Any], kept: dict[str, Any]) -> None:
    made = dead_properties(Properties(headers=headers, priority=3), ODD, address(), 131_072 - 8)
    assert {name: value for name, value in (made.headers or {}).items() if name not in OURS} == kept
    assert made.priority == 3


OURS = ("x-taskdist-reason", "x-taskdist-message", "x-taskdist-queue", "x-taskdist-source")


@pytest.mark.parametrize(
    ("host", "virtual_host", "expected"),
    [
        pytest.param("h", "/", "amqp://user:p%3A%2F%40%C3%9F@h:5672/?", id="the default"),
        pytest.param("h", "a/b", "amqp://user:p%3A%2F%40%C3%9F@h:5672/a%2Fb?", id="with a slash"),
        pytest.param("::1", "a b", "amqp://user:p%3A%2F%40%C3%9F@[::1]:5672/a%20b?", id="an address"),
    ],
)
def test_the_address_is_quoted(host: str, virtual_host: str, expected: str) -> None:
    assert str(address(host=host, virtual_host=virtual_host).login.url).startswith(expected)
