"""The wire, on real sockets: what counts as sent, what is never repeated, whose credentials go along."""

from __future__ import annotations

import asyncio
import socket
import ssl
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from taskdist.kube import (
    Access,
    ApiError,
    ConfigurationError,
    Credentials,
    HttpTransport,
    OnBehalf,
    Request,
    Unanswered,
    Unreachable,
)
from taskdist.kube import transport as wire
from taskdist.link.ca import AuthoritySettings, rotate

OK = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"
NO = b"HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

Serve = Callable[[int, bytes, asyncio.StreamWriter], Awaitable[None]]


def chunk(data: bytes) -> bytes:
    return f"{len(data):x}\r\n".encode() + data + b"\r\n"


class Fixed(Credentials):
    """Credentials that say what they are told, and count how often they are asked."""

    def __init__(
        self, server: str, *tokens: str, max_age: float | None = None, tls: ssl.SSLContext | None = None
    ) -> None:
        super().__init__("unused")
        self.server, self.tokens, self.loads, self._max_age, self._trust = server, list(tokens), 0, max_age, tls

    @property
    def max_age(self) -> float | None:
        return self._max_age

    def load(self) -> Access:
        token = self.tokens[min(self.loads, len(self.tokens) - 1)] if self.tokens else ""
        self.loads += 1
        return Access(self.server, f"Bearer {token}" if token else None, self._trust, None, None, "default")


@asynccontextmanager
async def server(
    serve: Serve, *tokens: str, max_age: float | None = None
) -> AsyncIterator[tuple[HttpTransport, Fixed]]:
    """A server that does by hand what `serve` says to request number n, and a transport to it."""
    count = 0
    writers: list[asyncio.StreamWriter] = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal count
        writers.append(writer)
        while not writer.is_closing():
            try:
                head = await reader.readuntil(b"\r\n\r\n")
                for line in head.split(b"\r\n"):
                    if line.lower().startswith(b"content-length:"):
                        await reader.readexactly(int(line.split(b":")[1]))
            except (asyncio.IncompleteReadError, ConnectionError):
                break
            count += 1
            await serve(count, head, writer)
        writer.close()

    listener = await asyncio.start_server(handle, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    credentials = Fixed(f"http://127.0.0.1:{port}", *tokens, max_age=max_age)
    transport = HttpTransport(credentials)
    await transport.open()
    try:
        yield transport, credentials
    finally:
        await transport.close()
        listener.close()
        for writer in writers:
            writer.close()
        await listener.wait_closed()


async def test_an_exchange() -> None:
    async def serve(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
        assert b"Authorization: Bearer secret" in head
        assert b"Accept-Encoding: identity" in head
        assert head.startswith(b"PATCH /x?a=b%3Dc HTTP/1.1")
        writer.write(OK)

    async with server(serve, "secret") as (transport, _):
        answer = await transport.exchange(Request("PATCH", "/x", "a=b%3Dc", b"{}", "application/merge-patch+json"))
        assert (answer.status, answer.body) == (200, b"{}")


async def test_nobody_listens() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        transport = HttpTransport(Fixed(f"http://127.0.0.1:{held.getsockname()[1]}"))
        await transport.open()
        try:
            with pytest.raises(Unreachable):
                await transport.exchange(Request("GET", "/"))
            with pytest.raises(Unreachable):
                async with transport.stream(Request("GET", "/"), 5):
                    pass
        finally:
            await transport.close()


@pytest.mark.parametrize("method", ["GET", "PUT", "PATCH", "POST", "DELETE"])
async def test_a_connection_that_dies_after_the_request_is_not_tried_again(method: str) -> None:
    """Least of all by the HTTP library, which repeats PUT and DELETE of its own accord unless told otherwise."""
    seen = 0

    async def serve(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
        nonlocal seen
        seen = number
        if number == 1:
            writer.write(OK)
        else:
            writer.close()

    async with server(serve) as (transport, _):
        await transport.exchange(Request("GET", "/"))
        with pytest.raises(Unanswered):
            await transport.exchange(Request(method, "/", body=b"{}"))
    assert seen == 2


async def test_a_library_without_the_switch_for_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    closed: list[bool] = []

    class Other:
        async def close(self) -> None:
            closed.append(True)

    monkeypatch.setattr(aiohttp, "ClientSession", lambda **_: Other())
    with pytest.raises(RuntimeError, match="sending a PUT or DELETE twice"):
        await HttpTransport(Fixed("http://127.0.0.1:1")).open()
    assert closed == [True]


async def test_silence_is_unanswered_in_time() -> None:
    async def serve(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(3600)

    async with server(serve) as (transport, _):
        with pytest.raises(Unanswered):
            await asyncio.wait_for(transport.exchange(Request("PATCH", "/", body=b"{}", timeout=0.1)), 5)
        with pytest.raises(Unanswered):
            async with transport.stream(Request("GET", "/", timeout=0.1), 5):
                pass


async def test_half_an_answer_is_none() -> None:
    async def serve(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK[:-1])
        writer.close()

    async with server(serve) as (transport, _):
        with pytest.raises(Unanswered):
            await transport.exchange(Request("PUT", "/", body=b"{}"))


class TestCredentials:
    @staticmethod
    async def only_new(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(OK if b"Bearer new" in head else NO)

    async def test_a_401_loads_them_again_and_asks_once_more(self) -> None:
        async with server(self.only_new, "old", "new") as (transport, credentials):
            transport._loaded_at = -1e9
            assert (await transport.exchange(Request("POST", "/", body=b"{}"))).status == 200
            assert credentials.loads == 2

    async def test_a_stream_too(self) -> None:
        async with server(self.only_new, "old", "new") as (transport, _):
            transport._loaded_at = -1e9
            async with transport.stream(Request("GET", "/"), 5) as lines:
                assert [line async for line in lines] == []

    async def test_the_same_again_are_not_sent_twice(self) -> None:
        seen = 0

        async def serve(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal seen
            seen = number
            writer.write(NO)

        async with server(serve, "old", "old") as (transport, _):
            transport._loaded_at = -1e9
            assert (await transport.exchange(Request("GET", "/"))).status == 401
            assert seen == 1

    async def test_a_plugin_is_not_run_for_each_refusal(self) -> None:
        async with server(self.only_new, "old") as (transport, credentials):
            for _ in range(5):
                assert (await transport.exchange(Request("GET", "/"))).status == 401
            assert credentials.loads == 1

    async def test_a_request_does_not_wait_for_them_beyond_its_time(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with server(self.only_new, "old", "new", max_age=60) as (transport, credentials):
            go_on = threading.Event()
            monkeypatch.setattr(credentials, "load", go_on.wait)
            transport._loaded_at -= 61
            try:
                with pytest.raises(Unreachable, match="the credentials were not loaded in time"):
                    await asyncio.wait_for(transport.exchange(Request("POST", "/", body=b"{}", timeout=0.1)), 5)
                transport._loaded_at = time.monotonic() - 10
                refused = transport.exchange(Request("POST", "/", body=b"{}", timeout=0.3))
                assert (await asyncio.wait_for(refused, 5)).status == 401
            finally:
                go_on.set()

    async def test_a_token_that_rotates_is_read_again_unasked(self) -> None:
        async with server(self.only_new, "old", "new", max_age=60) as (transport, _):
            transport._loaded_at -= 61
            assert (await transport.exchange(Request("GET", "/"))).status == 200


class TestStreams:
    async def lines(self, *parts: bytes, end: str = "orderly", stall: float = 5.0) -> list[bytes]:
        async def serve(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED)
            for part in parts:
                writer.write(chunk(part))
                await writer.drain()
                await asyncio.sleep(0)
            if end == "orderly":
                writer.write(b"0\r\n\r\n")
            elif end == "cut":
                writer.close()
            else:
                await asyncio.sleep(3600)

        async with server(serve) as (transport, _), transport.stream(Request("GET", "/"), stall) as lines:
            return [line async for line in lines]

    async def test_lines_are_put_together_from_any_pieces(self) -> None:
        assert await self.lines(b"one\ntw", b"o\n\nthr", b"ee", b"\n") == [b"one", b"two", b"three"]

    async def test_a_line_may_be_long(self) -> None:
        long = b"x" * 3_000_000
        assert await self.lines(long, b"\nend\n") == [long, b"end"]

    async def test_a_rest_without_its_end_is_dropped(self) -> None:
        assert await self.lines(b"one\nhal") == [b"one"]

    async def test_a_cut_is_told(self) -> None:
        with pytest.raises(Unanswered):
            await self.lines(b"one\n", end="cut")

    async def test_silence_is_told(self) -> None:
        with pytest.raises(Unanswered):
            await asyncio.wait_for(self.lines(b"one\n", end="hang", stall=0.1), 5)

    async def test_an_error_status_is_raised_on_entering(self) -> None:
        async def serve(number: int, head: bytes, writer: asyncio.StreamWriter) -> None:
            body = b'{"kind":"Status","code":410,"reason":"Expired"}'
            writer.write(b"HTTP/1.1 410 Gone\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body))

        async with server(serve) as (transport, _):
            with pytest.raises(ApiError) as caught:
                async with transport.stream(Request("GET", "/"), 5):
                    pass
            assert caught.value.is_gone


async def test_a_request_of_somebody_else_carries_their_token_and_nothing_of_ours() -> None:
    heads: list[bytes] = []

    async def serve(_: int, head: bytes, writer: asyncio.StreamWriter) -> None:
        heads.append(head)
        writer.write(NO)

    async with server(serve, "ours", "renewed") as (transport, credentials):
        answer = await OnBehalf(transport, "theirs").exchange(Request("GET", "/x"))
    assert answer.status == 401
    # Ours are not loaded again for it, and it is not sent again with them.
    assert (len(heads), credentials.loads) == (1, 1)
    assert b"Bearer theirs" in heads[0]
    assert b"ours" not in heads[0]


async def test_a_certificate_of_ours_would_speak_for_us_whatever_token_goes_along() -> None:
    class Certified(Fixed):
        def load(self) -> Access:
            return Access("http://127.0.0.1:1", None, None, None, None, "default", certificate=True)

    transport = HttpTransport(Certified("unused"))
    await transport.open()
    try:
        with pytest.raises(ConfigurationError, match="client certificate"):
            OnBehalf(transport, "theirs")
    finally:
        await transport.close()


@pytest.fixture
def silent(tmp_path: Path) -> Iterator[Access]:
    """A TLS server that says the beginning of a stream, and no goodbye to who leaves."""
    state = rotate(None, ("localhost",), time.time(), AuthoritySettings())
    pair = tmp_path / "pair.pem"
    pair.write_bytes(state.serving.key + state.serving.certificate)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair)
    left = threading.Event()

    def serve(listener: socket.socket) -> None:
        near, _ = listener.accept()
        with context.wrap_socket(near, server_side=True) as caller:
            caller.recv(65536)
            caller.sendall(CHUNKED + chunk(b"one\n"))
            left.wait(30)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        serving = threading.Thread(target=serve, args=(listener,))
        serving.start()
        trust = ssl.create_default_context(cadata=state.bundle.decode())
        yield Access(f"https://localhost:{listener.getsockname()[1]}", None, trust, None, None, "default")
        left.set()
        serving.join()


async def test_a_stream_that_is_left_leaves_no_socket_behind(silent: Access, monkeypatch: pytest.MonkeyPatch) -> None:
    """Programs end their loop soon after they have closed their client."""
    opened: list[socket.socket] = []

    def recorded(address: Any) -> socket.socket:
        opened.append(make(address))
        return opened[-1]

    make = wire._socket
    monkeypatch.setattr(wire, "_socket", recorded)
    transport = HttpTransport(Fixed(silent.server, tls=silent.tls))
    await transport.open()
    async with transport.stream(Request("GET", "/"), 5) as lines:
        assert await anext(lines) == b"one"
    await transport.close()
    await asyncio.sleep(0)
    assert opened
    assert [each.fileno() for each in opened if each.fileno() != -1] == []
