"""The server with real tokens and a real authority: a frozen agent, a new authority under connected agents."""

import asyncio
import contextlib
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest

from integration.link.conftest import Api
from taskdist.link.ca import DAY
from taskdist.link.keeper import CertificateKeeper
from taskdist.link.server import LinkServer
from taskdist.protocol import messages as m
from unit.link.client import dial, hello

TESTS = Path(__file__).parents[2]


@dataclass
class Loop:
    """Stands for the dispatch loop; notes when what happened."""

    server: LinkServer | None = None
    log: list[tuple[float, str, int, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def connected(self, session: int, identity: m.AgentIdentity, hello: m.Hello) -> None:
        self._note("connected", session, identity)
        assert self.server is not None
        self.server.send(session, m.Welcome(1, hello.slots))

    def received(self, session: int, message: m.FromAgent) -> None:
        self._note("received", session, message)

    def disconnected(self, session: int) -> None:
        self._note("disconnected", session, None)

    def _note(self, *what: Any) -> None:
        self.log.append((time.monotonic(), *what))
        self.changed.set()

    async def until(self, what: str, count: int = 1) -> float:
        """Wait until it happened so often; returns when it did."""
        async with asyncio.timeout(30):
            while len(found := [each for each in self.log if each[1] == what]) < count:
                self.changed.clear()
                await self.changed.wait()
        return found[count - 1][0]


@dataclass
class Operator:
    """The operator's side, composed as in production but for the dispatch loop."""

    api: Api
    ahead: float = 0.0  # how far the keeper's clock is ahead

    async def start(self) -> None:
        self.loop = Loop()
        self.keeper = CertificateKeeper(
            self.api, self.api, ["localhost", "127.0.0.1"], clock=lambda: time.time() + self.ahead
        )
        await self.keeper.refresh()
        self.server = LinkServer(self.loop, self.api.authenticator(), self.keeper, 0, host="127.0.0.1")
        self.loop.server = self.server
        self.port = await self.server.start()


@pytest.fixture
async def operator(api: Api) -> AsyncIterator[Operator]:
    operator = Operator(api)
    await operator.start()
    yield operator
    await operator.server.stop(1.0)


@pytest.fixture
async def peer(operator: Operator, tmp_path: Path) -> AsyncIterator[asyncio.subprocess.Process]:
    """An agent in a process of its own, connected."""
    api = operator.api
    uid = await api.pod("a", "p", await api.pool("p"))
    bundle = tmp_path / "ca.crt"
    bundle.write_bytes(await api.bundle())
    peer = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__).with_name("peer.py")),
        str(operator.port),
        str(bundle),
        await api.token("a", uid),
        env={**os.environ, "PYTHONPATH": f"{TESTS.parent / 'operator'}:{TESTS}"},
    )
    await operator.loop.until("connected")
    yield peer
    with contextlib.suppress(ProcessLookupError):
        peer.kill()
    await peer.wait()


async def test_a_frozen_agent_is_noticed_within_two_seconds(
    operator: Operator, peer: asyncio.subprocess.Process
) -> None:
    pinged = await operator.loop.until("received", 3)
    peer.send_signal(signal.SIGSTOP)
    noticed = await operator.loop.until("disconnected")
    # Bound: 2 s from the last sign of life; what is above it is this machine's own delay.
    assert noticed - pinged < 2.5


async def test_a_killed_agent_is_noticed_at_once(operator: Operator, peer: asyncio.subprocess.Process) -> None:
    await operator.loop.until("received")
    peer.kill()
    killed = time.monotonic()
    assert await operator.loop.until("disconnected") - killed < 1.0


async def test_a_deleted_pod_loses_its_session_and_gets_no_other(operator: Operator) -> None:
    api = operator.api
    uid = await api.pod("a", "p", await api.pool("p"))
    token, bundle = await api.token("a", uid), await api.bundle()
    async with dial(operator.port, bundle, token) as stream:
        await stream.say(hello())
        assert await stream.hear() == m.Welcome(1, 2)
        await api.delete_pod("a")
        operator.server.close_pod(uid, "the pod is deleted")
        assert await stream.status() == (grpc.StatusCode.PERMISSION_DENIED, "the pod is deleted")
    async with dial(operator.port, bundle, token) as stream:
        code, details = await stream.status()
        assert code is grpc.StatusCode.PERMISSION_DENIED
        assert "is deleted" in details


async def test_the_authority_is_replaced_under_connected_agents(api: Api) -> None:
    operator = Operator(api, ahead=-61 * DAY)
    await operator.start()
    keeper = operator.keeper
    try:
        first = await api.bundle()
        uid = await api.pod("a", "p", await api.pool("p"))
        other = await api.pod("b", "p", api.pools[api.namespace, "p"])
        operator.ahead = 0  # two months later: the next authority is due
        await keeper.refresh()
        both = await api.bundle()
        assert both.count(b"BEGIN CERTIFICATE") == 2
        async with dial(operator.port, first, await api.token("a", uid)) as stream:
            await stream.say(hello())
            assert await stream.hear() == m.Welcome(1, 2)

            operator.ahead = 299
            before = keeper.serving()
            await keeper.refresh()
            assert keeper.serving() == before

            operator.ahead = 305
            await keeper.refresh()
            assert keeper.serving() != before
            # Who read the bundle within the five minutes trusts the new authority; who did not, does not.
            async with dial(operator.port, both, await api.token("b", other)) as second:
                await second.say(hello())
                assert await second.hear() == m.Welcome(1, 2)
            async with dial(operator.port, first, await api.token("b", other)) as late:
                code, _ = await late.status()
                assert code is grpc.StatusCode.UNAVAILABLE

            operator.ahead = 700
            await keeper.refresh()
            assert (await api.bundle()).count(b"BEGIN CERTIFICATE") == 1
            operator.server.send(1, m.Drain())
            assert await stream.hear() == m.Drain()  # through all of it

        # Another operator goes on with what is stored.
        successor = CertificateKeeper(api, api, ["localhost", "127.0.0.1"], clock=lambda: time.time() + 700)
        await successor.refresh()
        assert successor.serving() == keeper.serving()
    finally:
        await operator.server.stop(1.0)
