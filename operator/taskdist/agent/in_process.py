"""An executor on threads of the supervisor's own process: opt-in, for Python handlers that share a large state.

Nothing here can be killed: a handler that ignores its cancel runs on, and one that crashes takes the agent with it. So
it says that it is not fenced. A lease is reported as stopped when its handler really has ended, not before.
"""

import asyncio
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from taskdist.agent import parents
from taskdist.agent.attempt import Paced
from taskdist.agent.invoke import bounded, invoke
from taskdist.agent.outcomes import Cancelled, Failed, Outcome, Returned
from taskdist.agent.sdk import Agent, Context
from taskdist.agent.vital import vital
from taskdist.agent.work import Offered, StartError, WorkEvents
from taskdist.agent.worker import load
from taskdist.api import Reason
from taskdist.protocol.messages import Grant, LeaseName, by_value


@dataclass(eq=False, slots=True)
class _Job:
    grant: Grant
    context: Context
    reports: Paced
    said: tuple[float, str] | None = None  # the latest report that the event loop has not taken yet


class InProcess:
    """An executor that calls the handlers of `target` on `slots` threads."""

    def __init__(self, target: str, slots: int, *, agent: str = "") -> None:
        self._target = target
        self._slots = slots
        self._name = agent
        self._agent = Agent()
        self._events: WorkEvents | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._queue: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._jobs: dict[LeaseName, _Job] = {}
        self._saying = threading.Lock()

    async def open(self, events: WorkEvents) -> Offered:
        self._events = events
        self._loop = asyncio.get_running_loop()
        try:
            self._agent = await asyncio.to_thread(load, self._target)
        except Exception as error:
            raise StartError(f"{type(error).__name__}: {error}") from error
        for number in range(self._slots):
            threading.Thread(target=self._work, name=f"taskdist-handler-{number}", daemon=True).start()
        return Offered(types=tuple(sorted(self._agent.handlers)), fenced=False)

    def start(self, grant: Grant, _deadline: float) -> None:
        lease = grant.lease
        context = Context(
            task=grant.name,
            namespace=grant.namespace,
            uid=lease.task_uid,
            attempt=lease.attempt,
            type=grant.type,
            report=lambda fraction, message: self._report(job, fraction, message),
            agent=self._name,
            parents=parents.encode(grant.parents),
        )
        assert self._events is not None
        reports = Paced(vital(self._events.broke, partial(self._events.progress, lease)))
        job = _Job(grant, context, reports)
        self._jobs[lease] = job
        self._queue.put(job)

    def fence(self, lease: LeaseName, deadline: float) -> None:
        """There is nothing that could keep a fence."""

    def cancel(self, lease: LeaseName, reason: str) -> None:
        job = self._jobs.get(lease)
        if job is not None:
            job.context.cancel(reason or "cancelled")

    def kill(self, lease: LeaseName) -> None:
        self.cancel(lease, "killed")

    async def close(self) -> None:
        for lease in list(self._jobs):
            self.cancel(lease, "the agent ends")
        for _ in range(self._slots):
            self._queue.put(None)

    # --- on the threads ---

    def _work(self) -> None:
        with asyncio.Runner() as runner:
            while (job := self._queue.get()) is not None:
                if job.context.cancel_reason:
                    self._tell(job, Cancelled())
                    continue
                self._call(self._tell_started, job)
                try:
                    outcome = invoke(self._agent, by_value(job.grant.payload), job.context, runner)
                except BaseException as error:
                    outcome = Failed(Reason.HANDLER_ERROR, bounded(f"{type(error).__name__}: {error}"))
                self._tell(job, outcome)

    def _report(self, job: _Job, fraction: float, message: str) -> None:
        with self._saying:
            waits = job.said is not None
            job.said = (fraction, message)
        if not waits:
            self._call(self._tell_progress, job)

    def _tell(self, job: _Job, outcome: Outcome) -> None:
        self._call(self._ended, job, outcome)

    def _call(self, function: Callable[..., None], *arguments: object) -> None:
        assert self._loop is not None
        assert self._events is not None
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(vital(self._events.broke, function), *arguments)

    # --- on the event loop ---

    def _tell_started(self, job: _Job) -> None:
        if self._events is not None:
            self._events.started(job.grant.lease)

    def _tell_progress(self, job: _Job) -> None:
        with self._saying:
            said, job.said = job.said, None
        if said is not None and job.grant.lease in self._jobs:
            job.reports.put(*said)

    def _ended(self, job: _Job, outcome: Outcome) -> None:
        lease = job.grant.lease
        self._jobs.pop(lease, None)
        job.reports.drop()
        assert self._events is not None
        used = job.context.usage
        if isinstance(outcome, Returned):
            self._events.finished(lease, outcome.body, used)
        elif isinstance(outcome, Failed):
            self._events.failed(lease, outcome, used)
        else:
            self._events.stopped(lease)
