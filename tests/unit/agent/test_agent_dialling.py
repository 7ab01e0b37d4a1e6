"""How an agent dials: what fails is told at once, what hangs does not hold it up, and news are worth a quick try."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.peer import until
from agents.server import LinkPeer, link_peer
from taskdist.agent import transport
from taskdist.agent.logs import make_logger
from taskdist.agent.supervisor import LinkLost, Supervisor
from taskdist.agent.transport import Endpoint, GrpcConnector
from taskdist.protocol.messages import Hello
from taskdist.protocol.settings import AgentSettings


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[LinkPeer]:
    async with link_peer(tmp_path) as made:
        made.write_token(time.time() + 3600)
        yield made


def connector(peer: LinkPeer, port: int | None = None) -> GrpcConnector:
    endpoint = Endpoint(f"127.0.0.1:{port or peer.port}", peer.ca_file, peer.token_file, "localhost")
    return GrpcConnector(endpoint, make_logger())


@asynccontextmanager
async def frozen(port: int = 0) -> AsyncIterator[int]:
    """A program that listens and never answers, as one does that was stopped."""
    # As gRPC makes it: one of another family would get all connections instead of every other one.
    with socket.socket(socket.AF_INET6) as listener:
        listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listener.bind(("::ffff:127.0.0.1", port))
        listener.listen(100)
        yield listener.getsockname()[1]


async def test_a_refused_dial_is_told_at_once(peer: LinkPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 600.0)
    monkeypatch.setattr(transport, "BESIDE_SECONDS", 600.0)
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        with pytest.raises(LinkLost, match="connection failed"):
            await asyncio.wait_for(connector(peer, closed.getsockname()[1]).connect(), 30)


async def test_a_dial_that_hangs_is_given_up(peer: LinkPeer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 0.3)
    monkeypatch.setattr(transport, "BESIDE_SECONDS", 0.05)
    async with frozen() as port:
        with pytest.raises(LinkLost, match="no TLS connection"):
            await asyncio.wait_for(connector(peer, port).connect(), 30)


async def test_a_replica_that_hangs_does_not_keep_an_agent_from_the_other(
    peer: LinkPeer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "CONNECT_SECONDS", 600.0)
    monkeypatch.setattr(transport, "BESIDE_SECONDS", 0.01)
    monkeypatch.setattr(transport, "MOST_DIALS", 100)
    async with frozen(peer.port):  # the system gives each connection to one of the two
        for number in range(4):
            session = await asyncio.wait_for(connector(peer).connect(), 30)
            session.send(Hello(1, f"agent-{number}", 1, 1.0))
            await session.receive()
            await session.close()


class Nobody:
    """A connector that never connects, for reasons of a script; the last one stays."""

    def __init__(self, *reasons: str) -> None:
        self.reasons = list(reasons)
        self.tried: list[str] = []

    async def connect(self) -> Any:
        why = self.reasons.pop(0) if len(self.reasons) > 1 else self.reasons[0]
        self.tried.append(why)
        raise LinkLost(why)


async def test_each_try_waits_longer_until_there_is_news(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    plain = asyncio.sleep

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await plain(0)

    dead = "UNAVAILABLE: this replica does not lead, operator-1 does"
    new = "UNAVAILABLE: this replica does not lead, operator-2 does"
    script = Nobody(*["refused", dead] * 10, new, *["refused", new] * 3)
    supervisor = Supervisor(Any, Any, script, make_logger())  # type: ignore[arg-type]
    linking = asyncio.create_task(supervisor._keep_linked())
    monkeypatch.setattr(asyncio, "sleep", sleep)
    async with asyncio.timeout(10):
        while len(script.tried) < 27:
            await plain(0)
    linking.cancel()
    monkeypatch.undo()
    assert max(waits) <= AgentSettings().redial_seconds
    assert min(waits[10:20]) > 0.4, "what is known already is no news"
    assert waits[20] <= 0.1, "another one leads: it is dialled at once"
    await until(linking.done, "the end")
