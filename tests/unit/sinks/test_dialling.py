"""Connections of libraries that dial by themselves: which addresses are dialled."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from typing import Any

import pytest

from taskdist.outgoing.addresses import PUBLIC_ONLY, Allowed, parse_allowed
from taskdist.sinks.dialling import AddressRefused, guarded


class Site:
    """A server on this machine, which names stand for."""

    def __init__(self) -> None:
        self.port = 0
        self.names: dict[str, list[str]] = {}
        self.dialled = 0

    async def connect(self, host: str) -> None:
        _, writer = await asyncio.open_connection(host, self.port)
        writer.close()


@pytest.fixture
async def site(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    made = Site()

    def taken(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        made.dialled += 1
        writer.close()

    server = await asyncio.start_server(taken, "127.0.0.1", 0)
    made.port = server.sockets[0].getsockname()[1]
    plain = asyncio.get_running_loop().getaddrinfo

    async def found(host: Any, port: Any, **options: Any) -> Any:
        if host not in made.names:
            return await plain(host, port, **options)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in made.names[host]]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", found)
    yield made
    server.close()
    await server.wait_closed()


HERE = parse_allowed(("127.0.0.0/8",))
REFUSED = [
    pytest.param("127.0.0.1", [], PUBLIC_ONLY, id="the machine itself"),
    pytest.param("broker.svc", ["127.0.0.1"], parse_allowed(("broker.svc",)), id="by a name that is allowed"),
    pytest.param("broker.svc", ["169.254.169.254"], parse_allowed(("broker.svc",)), id="a cloud's metadata"),
    pytest.param("broker.example.com", ["10.0.0.1"], PUBLIC_ONLY, id="the cluster"),
]


@pytest.mark.parametrize(("host", "addresses", "allowed"), REFUSED)
async def test_what_is_not_allowed_is_not_dialled(
    site: Site, host: str, addresses: list[str], allowed: Allowed
) -> None:
    if addresses:
        site.names[host] = addresses
    with guarded(allowed, plain=False), pytest.raises(AddressRefused):
        await site.connect(host)
    assert site.dialled == 0


async def test_of_the_addresses_of_a_name_those_that_are_allowed_are_dialled(site: Site) -> None:
    site.names["broker.svc"] = ["169.254.169.254", "127.0.0.2", "127.0.0.1"]
    with guarded(HERE, plain=True):
        await site.connect("broker.svc")


async def test_tasks_that_are_begun_within_are_held_to_it_and_those_without_are_not(site: Site) -> None:
    asked, done = asyncio.Event(), asyncio.Event()

    async def later() -> None:
        await asked.wait()
        with pytest.raises(AddressRefused):
            await site.connect("127.0.0.1")
        done.set()

    with guarded(PUBLIC_ONLY, plain=False):
        task = asyncio.create_task(later())
    await site.connect("127.0.0.1")
    asked.set()
    await task
    assert done.is_set()


async def test_what_can_be_read_on_its_way_goes_to_what_is_allowed_only(site: Site) -> None:
    site.names["broker.example.com"] = ["93.184.216.34"]
    with guarded(PUBLIC_ONLY, plain=True), pytest.raises(AddressRefused):
        await site.connect("broker.example.com")
