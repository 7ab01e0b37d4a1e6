"""What strangers and hostile agents can take of the server: connections, time, and turns of its loop."""

import asyncio
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import replace

import grpc
import pytest

from agents.peer import until
from taskdist.link.session import BURST, RATE
from taskdist.protocol import messages as m
from unit.link.client import WAIT, hello
from unit.link.test_link_server import LEASE, Link, _pinging, serving


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    async with serving(ping_timeout=20.0) as made:  # nobody pings here
        yield made


async def test_a_pod_has_one_budget_for_all_its_sessions(link: Link) -> None:
    async with link.dial():
        throttle = link.server._throttles["uid-pod-a"]
        throttle.charge(1e6, time.monotonic())  # as after a flood
        async with link.dial("other"), link.dial():
            assert link.server._throttles["uid-pod-a"] is throttle
            assert throttle.left(time.monotonic()) < -1e5
            assert link.server._throttles["uid-pod-b"].left(time.monotonic()) > 0


async def test_a_hello_is_charged_by_the_leases_it_lists(link: Link) -> None:
    """Of those that are not known each is read from the API server."""
    names = tuple(m.LeaseName(f"{n:036}", 1, 1) for n in range(1000))
    spent = []
    for leases in ((), names):
        async with link.dial(greeted=False) as stream:
            asked = time.monotonic()
            await stream.say(replace(hello(), leases=leases))
            await stream.hear()
            (throttle,) = link.server._throttles.values()
            spent.append(BURST - throttle.left(asked))
        await until(lambda: not link.server._throttles, "the pod is forgotten once its budget is full")
    assert spent[0] < 50
    assert spent[1] > 1900


async def test_answers_to_pings_are_charged_by_their_length(link: Link) -> None:
    names = tuple(m.LeaseName(f"{n:036}", 1, 1) for n in range(1000))
    async with link.dial():
        (throttle,) = link.server._throttles.values()
        begun = time.monotonic()
        throttle.charge(BURST / 2, begun)  # so that there is room for what comes meanwhile
        before = throttle.left(begun)
        link.server.send(1, m.Renew(1, 1.0, names))
        link.server.send(
            1, m.Grant(LEASE, "ns", "t", "type", 1, 1.0, 15.0, 120.0, (), b'{"a":"' + b"x" * 65_000 + b'"}')
        )
        now = time.monotonic()
        assert 5 < before + (now - begun) * RATE - throttle.left(now) < 15
    await until(lambda: not link.server._throttles, "the pod is forgotten once its budget is full")


Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def _plain(port: int) -> Connection:
    return await asyncio.open_connection("127.0.0.1", port)


async def _half_a_greeting(port: int) -> Connection:
    reader, writer = await _plain(port)
    writer.write(bytes((22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3)) + b"a" * 14)  # a ClientHello of 512 bytes, it says
    return reader, writer


async def _tls(port: int) -> Connection:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    return await asyncio.open_connection("127.0.0.1", port, ssl=context)


async def _no_call(port: int) -> Connection:
    reader, writer = await _tls(port)
    writer.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes((0, 0, 0, 4, 0, 0, 0, 0, 0)))
    return reader, writer


async def _closed(connection: Connection) -> None:
    """Wait until the other end has closed the connection."""
    reader, writer = connection
    with suppress(ConnectionError):
        async with asyncio.timeout(WAIT):
            while await reader.read(4096):
                pass
    writer.close()


@pytest.mark.parametrize("greeting", [_plain, _half_a_greeting, _tls, _no_call])
async def test_a_stranger_that_does_not_come_to_a_call_is_cut(
    greeting: Callable[[int], Awaitable[Connection]],
) -> None:
    async with serving(greeting_seconds=0.5) as link, link.dial() as stream:
        pinging = asyncio.create_task(_pinging(stream))
        await _closed(await greeting(link.port))
        assert link.recorder.count("disconnected") == 0, "an agent with a session is not touched"
        pinging.cancel()


async def test_connections_beyond_the_bound_are_closed_and_make_room_when_they_go() -> None:
    async with serving(most_connections=8, ping_timeout=20.0) as link, link.dial():
        silent = [await _plain(link.port) for _ in range(20)]
        closed = [asyncio.create_task(_closed(each)) for each in silent]
        # The agent has one of the eight.
        await until(lambda: sum(each.done() for each in closed) >= 13, "those beyond the bound are closed")
        assert link.recorder.count("disconnected") == 0
        for _, writer in silent:
            writer.close()
        await asyncio.gather(*closed)
        async with asyncio.timeout(20):
            while not await _let_in(link, "other"):
                pass


async def _let_in(link: Link, pod: str) -> bool:
    """Dial once. A connection that was closed counts until gRPC has noticed, so an agent may have to dial again."""
    try:
        async with link.dial(pod):
            return link.server.session_count == 2
    except grpc.aio.AioRpcError as error:
        if error.code() is not grpc.StatusCode.UNAVAILABLE:
            raise
        return False
