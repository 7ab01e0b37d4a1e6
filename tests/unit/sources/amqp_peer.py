"""A peer that speaks AMQP 0-9-1, as far as a source asks: what it says is what a broker would, byte by byte.

It decides nothing: a test tells it what to hand over and what to refuse. How a real broker behaves is for tests/doors.
"""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Any, Self

import pamqp.frame
from pamqp import commands, constants
from pamqp.base import Frame as Method
from pamqp.body import ContentBody
from pamqp.header import ContentHeader, ProtocolHeader

Frame = Any
SERVER: Any = {"capabilities": {"publisher_confirms": True, "basic.nack": True, "consumer_cancel_notify": True}}


class Peer:
    """`async with Peer() as peer:`; `told` is each method it got, by its name."""

    def __init__(self) -> None:
        self.told: list[Frame] = []
        self.published: list[tuple[ContentHeader, bytes]] = []
        self.missing: set[str] = set()
        self.unroutable = False
        self.full = False
        self.silent = False
        self.login = ""
        self.port = 0
        self._writer: asyncio.StreamWriter | None = None
        self._writers: list[asyncio.StreamWriter] = []
        self._channel = 0
        self._tag = 0
        self._confirmed: dict[int, int] = {}
        self._consumer = ""
        self._changed = asyncio.Condition()
        self._tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self._server.close()
        for writer in self._writers:
            writer.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def names(self) -> list[str]:
        return [each.name for each in self.told]

    async def heard(self, name: str, count: int = 1) -> list[Frame]:
        """Wait until so many methods of this name were got; return them."""
        async with asyncio.timeout(10), self._changed:
            await self._changed.wait_for(lambda: self.names().count(name) >= count)
        return [each for each in self.told if each.name == name]

    def deliver(self, body: bytes, properties: commands.Basic.Properties, routing_key: str = "key") -> None:
        self.deliver_raw(body, pamqp.frame.marshal(ContentHeader(0, len(body), properties), self._channel), routing_key)

    def deliver_raw(self, body: bytes, header: bytes, routing_key: str | bytes = "key") -> None:
        """Hand over a message whose header frame is this."""
        self._tag += 1
        method = commands.Basic.Deliver(self._consumer, self._tag, False, "exchange", "@@")
        frame = pamqp.frame.marshal(method, self._channel)
        key = routing_key if isinstance(routing_key, bytes) else routing_key.encode()
        payload = frame[7:-1].replace(b"\x02@@", bytes([len(key)]) + key)
        self.send(frame[:3] + len(payload).to_bytes(4, "big") + payload + frame[-1:])
        self.send(header)
        if body:
            self.send(pamqp.frame.marshal(ContentBody(body), self._channel))

    def send(self, frame: bytes) -> None:
        assert self._writer is not None
        self._writer.write(frame)

    def cancel_consumer(self) -> None:
        self.send(pamqp.frame.marshal(commands.Basic.Cancel(self._consumer, True), self._channel))

    def cut(self) -> None:
        if self._writer is not None:
            self._writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        self._writer = writer
        self._writers.append(writer)
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            await reader.readexactly(len(ProtocolHeader().marshal()))
            self._answer(0, commands.Connection.Start(server_properties=SERVER))
            publish: dict[int, tuple[ContentHeader, bytes]] = {}
            self._confirmed.clear()
            while True:
                head = await reader.readexactly(7)
                frame = head + await reader.readexactly(int.from_bytes(head[3:]) + 1)
                _, channel, method = pamqp.frame.unmarshal(frame)
                if isinstance(method, ContentHeader):
                    publish[channel] = (method, b"")
                elif isinstance(method, ContentBody):
                    publish[channel] = (publish[channel][0], publish[channel][1] + bytes(method.value or b""))
                if channel in publish and len(publish[channel][1]) == publish[channel][0].body_size:
                    self._take(channel, *publish.pop(channel))
                if isinstance(method, Method):
                    async with self._changed:
                        self.told.append(method)
                        self._changed.notify_all()
                    self._react(channel, method)

    def _take(self, channel: int, header: ContentHeader, body: bytes) -> None:
        number = self._confirmed[channel] = self._confirmed.get(channel, 0) + 1
        if self.silent:
            return
        if self.full:
            self._answer(channel, commands.Basic.Nack(number, False, False))
            return
        if self.unroutable:
            self._answer(channel, commands.Basic.Return(312, "NO_ROUTE", "dead", "orders"))
            self.send(pamqp.frame.marshal(header, channel))
            self.send(pamqp.frame.marshal(ContentBody(body), channel))
        else:
            self.published.append((header, body))
        self._answer(channel, commands.Basic.Ack(number, False))

    def _answer(self, channel: int, method: Frame) -> None:
        self.send(pamqp.frame.marshal(method, channel))

    def _react(self, channel: int, method: Frame) -> None:
        reply: Frame = None
        match method:
            case commands.Connection.StartOk():
                self.login = str(method.response)
                reply = commands.Connection.Tune(2047, constants.FRAME_MAX_SIZE, 60)
            case commands.Connection.Open() if method.virtual_host in self.missing:
                reply = commands.Connection.Close(530, f"NOT_ALLOWED - vhost {method.virtual_host} not found", 10, 40)
            case commands.Connection.Open():
                reply = commands.Connection.OpenOk()
            case commands.Connection.Close():
                reply = commands.Connection.CloseOk()
            case commands.Channel.Open():
                reply = commands.Channel.OpenOk()
            case commands.Channel.Close():
                reply = commands.Channel.CloseOk()
            case commands.Confirm.Select():
                reply = commands.Confirm.SelectOk()
            case commands.Basic.Qos():
                reply = commands.Basic.QosOk()
            case commands.Queue.Declare() if method.queue not in self.missing:
                reply = commands.Queue.DeclareOk(method.queue, 7, 0)
            case commands.Exchange.Declare() if method.exchange not in self.missing:
                reply = commands.Exchange.DeclareOk()
            case commands.Queue.Declare() | commands.Exchange.Declare():
                name = method.queue if isinstance(method, commands.Queue.Declare) else method.exchange
                reply = commands.Channel.Close(404, f"NOT_FOUND - no '{name}'", 50, 10)
            case commands.Basic.Consume():
                self._channel = channel
                # The tag that the client chose.
                self._consumer = str(method.consumer_tag)
                reply = commands.Basic.ConsumeOk(self._consumer)
            case commands.Basic.Cancel():
                reply = commands.Basic.CancelOk(str(method.consumer_tag))
        if reply is not None:
            self._answer(channel, reply)
