"""The rim between the work and the link: whatever ran the work, what cannot be carried does not go on the link."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from agents.peer import Peer, until
from taskdist.agent.logs import make_logger
from taskdist.agent.outcomes import Failed
from taskdist.agent.supervisor import EXIT_BROKEN, Supervisor
from taskdist.agent.transport import fault
from taskdist.agent.work import Offered, WorkEvents
from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.messages import Failure, Grant, LeaseName, Ping, Progress, Result, Started
from taskdist.protocol.settings import AgentSettings, Capabilities


class Scripted:
    """Work that ends as it is told by the test."""

    def __init__(self) -> None:
        self.events: WorkEvents | None = None

    async def open(self, events: WorkEvents) -> Offered:
        self.events = events
        return Offered(None, fenced=True)

    def start(self, grant: Grant, deadline: float) -> None:
        assert self.events is not None
        self.events.started(grant.lease)

    def fence(self, lease: LeaseName, deadline: float) -> None: ...

    def cancel(self, lease: LeaseName, reason: str) -> None:
        self.kill(lease)

    def kill(self, lease: LeaseName) -> None:
        assert self.events is not None
        self.events.stopped(lease)

    async def close(self) -> None: ...


class Bench:
    def __init__(self) -> None:
        self.peer, self.work = Peer(), Scripted()
        settings = AgentSettings(farewell_seconds=0.2)
        self.supervisor = Supervisor(
            lambda offered: AgentEnd("test", Capabilities(slots=4, types=None, fenced=True), settings),
            self.work,
            self.peer,
            make_logger(agent="test"),
            settings=settings,
        )
        self.running = asyncio.create_task(self.supervisor.run())

    async def grant(self, type: str, uid: str = "") -> LeaseName:
        """Return once the work runs."""
        lease = self.peer.grant(type, uid=uid)
        await self.peer.wait_for(Started, lease)
        return lease

    @property
    def events(self) -> WorkEvents:
        assert self.work.events is not None
        return self.work.events


@asynccontextmanager
async def bench() -> AsyncIterator[Bench]:
    made = Bench()
    await until(lambda: not made.supervisor.not_ready(), "the agent is ready")
    await made.peer.wait_for(Ping)
    try:
        yield made
    finally:
        if not made.running.done():
            made.supervisor.stop(0)
            made.supervisor.stop(0)
        await asyncio.wait_for(made.running, 20)


REFUSED = {
    "too large": (b'{"x":"%s"}' % (b"y" * MAX_RESULT_BYTES), Reason.RESULT_TOO_LARGE, "at most"),
    "no object": (b"[]", Reason.RESULT_REFUSED, "JSON list"),
    "no JSON": (b"nonsense", Reason.RESULT_REFUSED, "Expecting value"),
    "no UTF-8": (b'{"x":"\xff"}', Reason.RESULT_REFUSED, "utf-8"),
    "half a pair": (b'{"x":"\\ud800"}', Reason.RESULT_REFUSED, "x: it holds half a surrogate pair"),
    "too deep": (b'{"x":' * 10_000, Reason.RESULT_REFUSED, "deeper than"),
    "beyond 64 bits": (b'{"a":{"b":[0,18446744073709551615]}}', Reason.RESULT_REFUSED, "a.b[1]: the whole number"),
    "beyond a double": (b'{"x":1e999}', Reason.RESULT_REFUSED, "beyond what a double holds"),
}


async def test_a_result_that_cannot_be_kept_fails_its_attempt_and_nothing_else() -> None:
    async with bench() as b:
        for name, (body, reason, says) in REFUSED.items():
            lease = await b.grant("t", uid=f"uid-{name}".replace(" ", "-"))
            b.events.finished(lease, body)
            failure = await b.peer.wait_for(Failure, lease)
            assert (failure.reason, failure.retryable) == (reason, False), name
            assert says in failure.message, name
            assert not fault(failure), name
        lease = await b.grant("t", uid="fine")
        b.events.finished(lease, b'{"x":null}')
        assert (await b.peer.wait_for(Result, lease)).body == b'{"x":null}'


@pytest.mark.parametrize(
    "used", [{"\ud800": 1}, {"a\n": 1}, {"q/b": float("nan")}, {"q/b": 10**400}, {1: 1}, [1], {"q/b": True}]
)
async def test_a_report_of_budgets_that_cannot_be_told_costs_no_result(used: Any) -> None:
    async with bench() as b:
        lease = await b.grant("t")
        b.events.finished(lease, b"{}", used)
        result = await b.peer.wait_for(Result, lease)
        assert result.used == ()
        assert not fault(result)


async def test_texts_with_half_a_pair_and_without_end_are_carried() -> None:
    async with bench() as b:
        lease = await b.grant("t", uid="a")
        b.events.progress(lease, 0.5, "\ud800")
        assert not fault(await b.peer.wait_for(Progress, lease))
        b.events.failed(lease, Failed(Reason.HANDLER_ERROR, "\udfff" + "x" * 2_000_000))
        assert not fault(await b.peer.wait_for(Failure, lease))


@pytest.mark.parametrize("after", [30.0, 1e300])
async def test_when_to_try_again_is_carried(after: float) -> None:
    async with bench() as b:
        lease = await b.grant("t")
        b.events.failed(lease, Failed(Reason.THROTTLED, "busy", True, after))
        failure = await b.peer.wait_for(Failure, lease)
        assert failure.retry_after == after
        assert not fault(failure)


async def test_a_part_that_fails_for_good_ends_the_agent() -> None:
    async with bench() as b:
        b.events.broke(RuntimeError("as asked"))
        assert await asyncio.wait_for(b.running, 20) == EXIT_BROKEN
