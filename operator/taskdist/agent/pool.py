"""An executor of worker processes: warm before work comes, each the leader of a process group of its own.

A worker runs one attempt at a time and is used again after it, unless it was killed, crashed, spoke nonsense, or holds
something of the attempt yet.
The fence's two lines meet here: the supervisor's kill, and the deadline that the warden is told *before* work starts.
A lease is reported as ended only when nothing of it runs: of a worker that died, its whole group is dead first.
"""

import asyncio
import os
import socket
import subprocess
from collections import deque
from dataclasses import dataclass, field
from enum import Enum, auto

from structlog.typing import FilteringBoundLogger

from taskdist.agent import frames, parents, said
from taskdist.agent.outcomes import Cancelled, Failed, Returned
from taskdist.agent.place import Place, died_at
from taskdist.agent.processes import (
    children,
    describe_exit,
    group_alive,
    kill_group,
    kill_strangers,
    module_environment,
    python_module,
)
from taskdist.agent.vital import vital, vital_task
from taskdist.agent.warden import Warden
from taskdist.agent.work import Offered, StartError, WorkEvents
from taskdist.api import Reason
from taskdist.common.backoff import Backoff
from taskdist.protocol.messages import Grant, LeaseName, array_uid, by_value

# Workers that are kept idle beyond those that work, as far as there are slots: starting one takes a tenth of a second.
SPARE_WORKERS = 8
# Seconds between attempts to start a worker after one could not start: doubled up to the second.
RESPAWN = Backoff(first=0.5, most=15.0)
# The reader sees the end of a dead worker's socket at once, unless a process that fled its group holds it.
LAST_WORDS_SECONDS = 1.0
DEATH_POLL_SECONDS = 0.002


@dataclass(eq=False, slots=True)
class _Job:
    grant: Grant
    deadline: float
    serial: int = 0
    killed: bool = False
    # How it ended, where that is told only when its worker is dead.
    end: said.Ended | None = None


class _WorkerStage(Enum):
    """Stages of a worker process."""

    STARTING = auto()  # the user's module is being imported
    READY = auto()  # it runs attempts, one after the other
    RETIRED = auto()  # it holds something of an attempt yet: it is killed, and counts no more


@dataclass(eq=False, slots=True)
class _Worker:
    process: "subprocess.Popen[bytes]"
    pidfd: int
    died: asyncio.Event = field(default_factory=asyncio.Event)
    writer: asyncio.StreamWriter | None = None
    stage: _WorkerStage = _WorkerStage.STARTING
    complaint: str = ""
    job: _Job | None = None
    place: Place = field(kw_only=True)

    @property
    def group(self) -> int:
        return self.process.pid


class WorkerPool:
    """An executor of worker processes. `mode` and `target` say what they run: `module`, `command`.

    `adopts_orphans`: this process is the parent of all that its workers leave behind, and of nothing else but what
    this pool starts; so any child that is not known may be killed.
    """

    def __init__(
        self,
        mode: str,
        target: list[str],
        slots: int,
        log: FilteringBoundLogger,
        *,
        agent: str = "",
        adopts_orphans: bool = False,
    ) -> None:
        self._mode = mode
        self._target = target
        self._slots = slots
        self._log = log
        self._agent = agent
        self._adopts_orphans = adopts_orphans
        self._workers: dict[int, _Worker] = {}
        self._idle: list[_Worker] = []
        self._waiting: deque[_Job] = deque()
        self._jobs: dict[LeaseName, _Worker | None] = {}
        self._serial = 0
        self._attending: set[asyncio.Task[None]] = set()
        self._closing = False
        self._types: asyncio.Future[tuple[str, ...] | None] | None = None
        self._failed_starts = 0  # since a worker was last ready
        self._respawn: asyncio.TimerHandle | None = None
        self._warden: Warden | None = None
        self._warden_pidfd = -1
        self._events: WorkEvents | None = None

    async def open(self, events: WorkEvents) -> Offered:
        self._events = events
        self._post_warden()
        self._types = asyncio.get_running_loop().create_future()
        self._fill()
        # Commands get one payload and return one result: items are for handlers.
        return Offered(types=await self._types, fenced=True, arrays=self._mode == "module")

    def start(self, grant: Grant, deadline: float) -> None:
        self._serial += 1
        job = _Job(grant, deadline, self._serial)
        self._jobs[grant.lease] = None
        self._waiting.append(job)
        self._hand_out()
        self._fill()

    def fence(self, lease: LeaseName, deadline: float) -> None:
        worker = self._jobs.get(lease)
        if worker is not None:
            self._guard.fence(worker.group, deadline)
            return
        for job in self._waiting:
            if job.grant.lease == lease:
                job.deadline = deadline

    def cancel(self, lease: LeaseName, reason: str) -> None:
        if lease not in self._jobs:
            return
        worker = self._jobs[lease]
        if worker is None:
            self._drop_waiting(lease)
        elif worker.writer is not None and worker.job is not None:
            head = {"kind": "cancel", "serial": worker.job.serial, "reason": reason or "cancelled"}
            worker.writer.write(frames.encode(head))

    def kill(self, lease: LeaseName) -> None:
        if lease not in self._jobs:
            return
        worker = self._jobs[lease]
        if worker is None:
            self._drop_waiting(lease)
        elif worker.job is not None:
            worker.job.killed = True
            kill_group(worker.group)

    async def close(self) -> None:
        self._closing = True
        if self._respawn is not None:
            self._respawn.cancel()
        for worker in self._workers.values():
            kill_group(worker.group)
        if self._attending:
            await asyncio.wait(set(self._attending))
        if self._warden is not None:
            self._dismiss_warden(self._warden)

    @property
    def warden_pid(self) -> int:
        return self._guard.pid

    @property
    def worker_pids(self) -> list[int]:
        return list(self._workers)

    # --- the warden ---

    def _post_warden(self) -> None:
        self._warden = Warden()
        self._warden_pidfd = os.pidfd_open(self._warden.pid)
        asyncio.get_running_loop().add_reader(self._warden_pidfd, vital(self._told.broke, self._saw_warden_die))

    def _dismiss_warden(self, warden: Warden) -> None:
        asyncio.get_running_loop().remove_reader(self._warden_pidfd)
        os.close(self._warden_pidfd)
        # It ends at once at the end of its input; waiting for it takes a millisecond.
        warden.close()

    def _saw_warden_die(self) -> None:
        """What it guarded ends, since nothing would end it should this process be late; a new one guards the rest."""
        self._log.error("the warden died: the work it guarded ends")
        self._dismiss_warden(self._guard)
        for worker in self._workers.values():
            kill_group(worker.group)
        self._post_warden()

    # --- workers come and go ---

    @property
    def _guard(self) -> Warden:
        assert self._warden is not None
        return self._warden

    @property
    def _told(self) -> WorkEvents:
        assert self._events is not None
        return self._events

    def _fill(self) -> None:
        """Start workers until those that work, those that work waits for and the spare ones are there."""
        if self._closing or self._respawn is not None:
            return
        wanted = min(self._slots, len(self._jobs) + SPARE_WORKERS)
        while sum(worker.stage is not _WorkerStage.RETIRED for worker in self._workers.values()) < wanted:
            self._spawn()

    def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        place, items = Place.create()
        try:
            process = subprocess.Popen(
                [
                    *python_module("taskdist.agent.worker"),
                    str(theirs.fileno()),
                    str(items),
                    str(os.getpid()),
                    self._mode,
                    *self._target,
                ],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), items],
                process_group=0,
                env=module_environment(TASKDIST_WORKER="1"),
            )
        finally:
            theirs.close()
            os.close(items)
        self._guard.watch(process.pid)
        worker = _Worker(process, os.pidfd_open(process.pid), place=place)
        self._workers[process.pid] = worker
        loop = asyncio.get_running_loop()
        loop.add_reader(worker.pidfd, vital(self._told.broke, self._saw_death), worker)
        task = vital_task(self._told.broke, self._attend(worker, ours))
        self._attending.add(task)
        task.add_done_callback(self._attending.discard)

    def _saw_death(self, worker: _Worker) -> None:
        asyncio.get_running_loop().remove_reader(worker.pidfd)
        # Before the leader is reaped: until then its number is the group's, and nobody else's.
        kill_group(worker.group)
        if worker in self._idle:
            self._idle.remove(worker)
        worker.died.set()

    async def _attend(self, worker: _Worker, sock: socket.socket) -> None:
        """Live with one worker from its start to its burial."""
        reader, worker.writer = await asyncio.open_connection(sock=sock)
        listening = vital_task(self._told.broke, self._listen(worker, reader))
        await worker.died.wait()
        await asyncio.wait([listening], timeout=LAST_WORDS_SECONDS)
        listening.cancel()
        worker.writer.close()
        await self._bury(worker)
        self._after_death(worker)

    async def _listen(self, worker: _Worker, reader: asyncio.StreamReader) -> None:
        while True:
            try:
                heard = said.read(await frames.read(reader))
            except (asyncio.IncompleteReadError, OSError):
                break  # it is dead
            except (EOFError, ValueError, RecursionError) as error:
                worker.complaint = f"the worker process said what no worker says ({str(error)[:200]}), and was ended"
                self._log.error("a worker speaks nonsense", worker=worker.group, error=str(error)[:200])
                break
            self._heard(worker, heard)
        # Dead, or no worker of ours any more: either way it must not go on.
        kill_group(worker.group)

    async def _bury(self, worker: _Worker) -> None:
        """Wait until nothing of the worker's group, or of what fled from it, runs."""
        worker.process.wait()
        os.close(worker.pidfd)
        while group_alive(worker.group):  # noqa: ASYNC110 - the kernel tells of a leader's end, not of a group's
            await asyncio.sleep(DEATH_POLL_SECONDS)
        if self._adopts_orphans:
            while True:
                # Scanned on a thread (it takes milliseconds); compared here, where no child can start meanwhile.
                found = await asyncio.to_thread(children)
                if not kill_strangers(found - self._known(), wait=False):
                    break
                await asyncio.sleep(DEATH_POLL_SECONDS)
        self._guard.forget(worker.group)

    def _known(self) -> set[int]:
        return {self._guard.pid, *self._workers}

    def _after_death(self, worker: _Worker) -> None:
        del self._workers[worker.group]
        how = worker.complaint or f"the worker process {describe_exit(worker.process.returncode)}"
        job, worker.job = worker.job, None
        if worker.stage is _WorkerStage.STARTING:
            self._could_not_start(how)
        if job is not None:
            lease = job.grant.lease
            del self._jobs[lease]
            if job.end is not None:
                self._tell_end(lease, job.end)
            elif job.killed:
                self._told.stopped(lease)
            else:
                self._log.warning("worker died", task=job.grant.name, attempt=lease.attempt, how=how)
                self._tell_end(lease, said.Ended(job.serial, died_at(job.grant, worker.place, how)))
        worker.place.close()
        self._fill()

    def _could_not_start(self, how: str) -> None:
        if self._closing:
            return
        self._log.error("worker could not start", how=how)
        if self._types is not None and not self._types.done():
            self._types.set_exception(StartError(how))
            return
        while self._waiting:
            job = self._waiting.popleft()
            del self._jobs[job.grant.lease]
            self._told.failed(job.grant.lease, Failed(Reason.HANDLER_CRASHED, f"a worker could not start: {how}"))
        pause = RESPAWN.full(self._failed_starts)
        self._failed_starts += 1
        if self._respawn is None:
            self._respawn = asyncio.get_running_loop().call_later(pause, vital(self._told.broke, self._try_again))

    def _try_again(self) -> None:
        self._respawn = None
        self._fill()

    # --- work ---

    def _hand_out(self) -> None:
        while self._waiting and self._idle:
            job = self._waiting.popleft()
            worker = self._idle.pop()
            assert worker.writer is not None
            worker.job = job
            grant = job.grant
            self._jobs[grant.lease] = worker
            # The fence first: between the two lines the supervisor may freeze.
            self._guard.fence(worker.group, job.deadline)
            head = {
                "kind": "start",
                "serial": job.serial,
                "type": grant.type,
                "task": grant.name,
                "namespace": grant.namespace,
                "uid": array_uid(grant.lease.task_uid),
                "attempt": grant.lease.attempt,
                "agent": self._agent,
                "parents": parents.encode(grant.parents).decode("utf-8", "replace"),
            }
            body = by_value(grant.payload)
            if (chunk := grant.chunk) is not None:
                head["chunk"] = {"spans": chunk.spans, "count": chunk.count, "sizes": [len(p) for p in chunk.payloads]}
                body = b"".join(chunk.payloads) or body
            worker.writer.write(frames.encode(head, body))

    def _drop_waiting(self, lease: LeaseName) -> None:
        self._waiting = deque(job for job in self._waiting if job.grant.lease != lease)
        del self._jobs[lease]
        self._told.stopped(lease)

    def _heard(self, worker: _Worker, heard: said.Said) -> None:
        match heard:
            case said.Ready(types):
                if worker.stage is _WorkerStage.STARTING:
                    worker.stage = _WorkerStage.READY
                self._failed_starts = 0
                if self._types is not None and not self._types.done():
                    self._types.set_result(types)
                if worker.job is None and worker not in self._idle:
                    self._rest(worker)
                return
            case said.Broken(message):
                worker.complaint = message
                return
        job = worker.job
        if job is None or heard.serial != job.serial or job.killed or job.end is not None:
            return
        lease = job.grant.lease
        match heard:
            case said.WorkStarted():
                self._told.started(lease)
            case said.WorkProgress(_, fraction, message):
                self._told.progress(lease, fraction, message)
            case said.Ended():
                self._ended(worker, job, heard)

    def _ended(self, worker: _Worker, job: _Job, end: said.Ended) -> None:
        """A worker that is clean is used again. Of another the end is told once nothing of it runs any more."""
        if end.left:
            self._log.warning(
                "a worker is replaced: the attempt left something in it", task=job.grant.name, left=end.left
            )
            job.end, worker.stage = end, _WorkerStage.RETIRED
            kill_group(worker.group)
            return
        worker.job = None
        del self._jobs[job.grant.lease]
        self._guard.free(worker.group)
        self._rest(worker)
        self._tell_end(job.grant.lease, end)
        self._fill()

    def _tell_end(self, lease: LeaseName, end: said.Ended) -> None:
        match end.outcome:
            case Returned(body):
                self._told.finished(lease, body, end.used)
            case Failed() as failed:
                self._told.failed(lease, failed, end.used)
            case Cancelled():
                self._told.stopped(lease)

    def _rest(self, worker: _Worker) -> None:
        """The worker has nothing to do: it takes what waits, or waits itself."""
        self._idle.append(worker)
        self._hand_out()
