"""The supervisor: drives the agent's end of the protocol between the link, the work and the clock.

It runs no user code and decides nothing: what may run, and until when, is the protocol's word. What it owns is that
the word is carried out on time: it acts on CLOCK_BOOTTIME, looks at the clock before it believes any news, and tells
the executor each lease's end, so that a second line can keep the fence should this process be late.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from taskdist.agent.boot_timer import BootTimer
from taskdist.agent.invoke import bounded
from taskdist.agent.outcomes import Failed
from taskdist.agent.results import refusal
from taskdist.agent.usage import Used, tidy
from taskdist.agent.vital import vital
from taskdist.agent.work import Executor, Offered, StartError
from taskdist.common.backoff import Backoff
from taskdist.common.boottime import boottime
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.agent.work import AgentAction, CancelWork, Disconnect, Exit, KillWork, SendUp, StartWork
from taskdist.protocol.messages import Body, FromAgent, LeaseName, Refused, ToAgent, Welcome
from taskdist.protocol.settings import AgentSettings

FIRST_REDIAL_SECONDS = 0.1
# A wake that is due already is not due again at once: what it waits for may need a moment.
SHORTEST_WAKE_SECONDS = 0.005

# How an agent's process ends; docs/agents.md has them. What is wrong in a call is 2, as for every command.
EXIT_OK = 0
EXIT_CANNOT_START = 1
EXIT_USAGE = 2
EXIT_REFUSED = 3
EXIT_BROKEN = 4


class LinkLost(Exception):
    """There is no session, or none any more; the text says why."""


class Connection(Protocol):
    """A stream to the operator, on which one session is held."""

    def send(self, message: FromAgent) -> None:
        """Queue a message; never waits. Messages go out in order."""

    async def receive(self) -> ToAgent:
        """Return the next message. Raises LinkLost."""

    async def close(self, *, flush: bool = False) -> None:
        """End the session; with `flush`, first send what is queued, within bounds."""


class Connector(Protocol):
    """Opens connections to the operator."""

    async def connect(self) -> Connection:
        """Open a connection. Raises LinkLost."""


class Supervisor:
    """The agent's process: carries out what the protocol's end decides.

    Args:
        make_end: builds the protocol's end, once it is known what the executor can take.
        settings: times of the agent's end.
        backoff: the pauses between dials.
    """

    def __init__(
        self,
        make_end: Callable[[Offered], AgentEnd],
        executor: Executor,
        connector: Connector,
        log: FilteringBoundLogger,
        *,
        settings: AgentSettings | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._make_end = make_end
        self._executor = executor
        self._connector = connector
        self._log = log
        self._settings = settings or AgentSettings()
        self._backoff = backoff or Backoff(FIRST_REDIAL_SECONDS, self._settings.redial_seconds)
        self._random = random.Random()
        self._end: AgentEnd | None = None
        self._session: Connection | None = None
        self._conversation: asyncio.Task[str] | None = None
        self._timer = BootTimer()
        self._actions: deque[AgentAction] = deque()
        self._acting = False
        self._fences: dict[LeaseName, float] = {}
        self._kill_margins: dict[LeaseName, float] = {}
        self._exit_code = EXIT_OK
        self._exit: asyncio.Future[str] | None = None
        self._stopping: float | None = None
        self._welcomed = False  # in the present session, or in the last one
        self._refusal = ""  # why the last session was refused

    async def run(self) -> int:
        """Run until told to stop; return the exit code of the process."""
        loop = asyncio.get_running_loop()
        self._exit = loop.create_future()
        linking: asyncio.Task[None] | None = None
        try:
            opening = asyncio.create_task(self._executor.open(self))
            await _first(opening, self._exit)
            if not opening.done():
                opening.cancel()
                return self._exit_code
            try:
                offered = opening.result()
            except StartError as error:
                self._log.error("the agent cannot start", error=str(error))
                return EXIT_CANNOT_START
            self._end = self._make_end(offered)
            self._log.info("agent started", types=offered.types, fenced=offered.fenced)
            loop.add_reader(self._timer.fd, vital(self.broke, self._woken))
            linking = asyncio.create_task(self._keep_linked())
            await _first(linking, self._exit)
            if linking.done():
                linking.result()
            self._log.info("agent ends", why=self._exit.result())
            return self._exit_code
        finally:
            loop.remove_reader(self._timer.fd)
            if linking is not None:
                linking.cancel()
                await asyncio.wait({linking})
            await self._executor.close()
            self._timer.close()

    def stop(self, grace: float) -> None:
        """Take no new work, finish within `grace` seconds what can be, give back the rest, end. Again: end now."""
        if self._stopping is not None:
            self._leave("told to stop twice")
        elif self._end is None:
            self._leave("told to stop before it started")
        else:
            self._log.info("stopping", grace_seconds=grace, leases=len(self._end.leases))
            self._stopping = grace
            self._act(self._end.stop_requested(boottime(), grace))

    def not_ready(self) -> str:
        """Why no work can come now; empty while it can."""
        if self._end is None:
            return "the handlers are being loaded"
        if self._stopping is not None:
            return "the agent is stopping"
        if self._end.ready:
            return ""
        if self._session is not None and self._welcomed:
            return "the agent is draining"
        return self._refusal or "not connected to the operator"

    # --- the link ---

    async def _keep_linked(self) -> None:
        attempt = 0
        said: set[str] = set()
        while True:
            try:
                session = await self._connector.connect()
            except LinkLost as lost:
                why = str(lost)
            else:
                why = await self._hold(session)
                if self._welcomed:
                    said.clear()
            if why not in said:
                # Something has changed: another replica leads, say. The same again is not worth a line each time.
                self._log.warning("no session with the operator", why=why)
                said.add(why)
                attempt = 0
            await asyncio.sleep(self._backoff.wait(attempt, self._random))
            attempt += 1

    async def _hold(self, session: Connection) -> str:
        """Hold one session until it is over; return why it is."""
        end = self._protocol
        self._session, self._welcomed = session, False
        self._conversation = asyncio.create_task(self._converse(session))
        flush = False
        try:
            self._act(end.connected(boottime()))
            await asyncio.wait({self._conversation})
            return "the session was given up" if self._conversation.cancelled() else self._conversation.result()
        except asyncio.CancelledError:
            # The agent ends in order: what was said last must still arrive.
            flush = True
            raise
        finally:
            self._session = None
            self._act(end.disconnected(boottime()))
            # Closed before the conversation is cancelled: that would cut off what is to be flushed.
            await session.close(flush=flush)
            self._conversation.cancel()

    async def _converse(self, session: Connection) -> str:
        try:
            while True:
                message = await session.receive()
                if session is not self._session:
                    return "closed"  # what comes while the session is flushed comes too late
                if isinstance(message, Welcome):
                    self._welcomed, self._refusal = True, ""
                elif isinstance(message, Refused):
                    self._refused(message)
                self._act(self._protocol.received(message, boottime()))
        except LinkLost as lost:
            return str(lost)

    def _refused(self, refused: Refused) -> None:
        why = f"refused by the operator: {refused.reason}: {refused.message}"
        if why != self._refusal:
            # The same again is not worth a line each time.
            self._log.error("refused by the operator", reason=refused.reason, message=refused.message)
        self._refusal = why

    # --- what the protocol asks for ---

    @property
    def _protocol(self) -> AgentEnd:
        assert self._end is not None
        return self._end

    def _act(self, actions: Iterable[AgentAction]) -> None:
        """Carry out actions in order; what they bring about at once comes after them."""
        self._actions.extend(actions)
        if self._acting:
            return
        self._acting = True
        try:
            while self._actions:
                self._carry_out(self._actions.popleft())
        finally:
            self._acting = False
        self._settle()

    def _carry_out(self, action: AgentAction) -> None:
        match action:
            case SendUp():
                if self._session is not None:
                    self._session.send(action.message)
            case StartWork():
                grant = action.grant
                until = self._protocol.lease_ends.get(grant.lease)
                if until is None:
                    return  # over before it began
                # Half-way between the protocol's own kill and the lease's end: the second line comes second.
                self._kill_margins[grant.lease] = margin = self._settings.kill(grant.lease_seconds) / 2
                self._fences[grant.lease] = until - margin
                self._log.info("task starts", **_about(grant.lease), task=grant.name, namespace=grant.namespace)
                self._executor.start(grant, until - margin)
            case CancelWork():
                self._log.info("task is cancelled", **_about(action.lease), reason=action.reason, why=action.message)
                self._executor.cancel(action.lease, action.message or action.reason)
            case KillWork():
                self._log.warning("task is killed", **_about(action.lease))
                self._executor.kill(action.lease)
            case Disconnect():
                if not self._refusal:  # that was said
                    self._log.warning("session given up", why=action.reason)
                if self._conversation is not None:
                    self._conversation.cancel()
            case Exit():
                self._exit_code = EXIT_REFUSED if action.refused else self._exit_code
                self._leave(action.message)

    def _leave(self, why: str) -> None:
        if self._exit is not None and not self._exit.done():
            self._exit.set_result(why)

    def _settle(self) -> None:
        """Pass on what the actions changed: each lease's end, and when to look at the clock next."""
        end = self._protocol
        ends = end.lease_ends
        for lease in self._fences.keys() - ends.keys():
            del self._fences[lease], self._kill_margins[lease]
        for lease, until in ends.items():
            if lease in self._fences and self._fences[lease] != until - self._kill_margins[lease]:
                self._fences[lease] = until - self._kill_margins[lease]
                self._executor.fence(lease, self._fences[lease])
        wake = end.next_wake()
        self._timer.set(None if wake is None else max(wake, boottime() + SHORTEST_WAKE_SECONDS))

    def _woken(self) -> None:
        self._timer.clear()
        self._act(self._protocol.tick(boottime()))

    def broke(self, error: BaseException) -> None:
        """End the agent, and its work with it: what goes on without one of its parts keeps no promise."""
        self._log.error("a part of the agent failed; the agent ends", exc_info=error)
        self._exit_code = EXIT_BROKEN
        self._leave(f"a part of it failed: {type(error).__name__}")

    # --- what the work tells ---

    def started(self, lease: LeaseName) -> None:
        self._act(self._protocol.started(lease, boottime()))

    def progress(self, lease: LeaseName, fraction: float, message: str) -> None:
        self._act(self._protocol.progress(lease, fraction, message, boottime()))

    def finished(self, lease: LeaseName, body: Body, used: Any = None) -> None:
        """Pass a result on, once it is sure that the link and the Task's status can carry it."""
        refused = refusal(body) if isinstance(body, bytes) else None
        if refused is not None:
            self.failed(lease, Failed(*refused, retryable=False), used)
            return
        self._log.info("task finished", **_about(lease), bytes=len(body) if isinstance(body, bytes) else body.size)
        self._act(self._protocol.finished(lease, body, boottime(), self._used(lease, used)))

    def failed(self, lease: LeaseName, failed: Failed, used: Any = None) -> None:
        reason, retryable = failed.reason, failed.retryable
        message = bounded(failed.message)  # whatever ran it: it is logged, and kept until it is answered
        self._log.warning("task failed", **_about(lease), reason=reason, message=message, retryable=retryable)
        boot = boottime()
        # The clock first: what the second line of the fence killed did not crash, its time was over.
        self._act(self._protocol.tick(boot))
        told = self._used(lease, used)
        self._act(self._protocol.failed(lease, reason, message, retryable, boot, told, failed.retry_after))

    def stopped(self, lease: LeaseName) -> None:
        self._log.info("task stopped", **_about(lease))
        self._act(self._protocol.stopped(lease, boottime()))

    def _used(self, lease: LeaseName, told: Any) -> Used:
        used, wrong = tidy(told)
        if wrong:
            self._log.warning("what the handler used of budgets cannot be told", **_about(lease), why=wrong)
        return used


async def _first(*waited: "asyncio.Future[Any]") -> None:
    await asyncio.wait(waited, return_when=asyncio.FIRST_COMPLETED)


def _about(lease: LeaseName) -> dict[str, str | int]:
    return {"uid": lease.task_uid, "attempt": lease.attempt, "epoch": lease.epoch}
