"""One container as a process: start, probe, restart with back-off, stop within the grace.

Owns the life of a container from its start until it has ended for good, and its entry in the pod's status. It knows
nothing of volumes, of the API server, or of other containers. Processes that the container started end with it,
whatever session they moved to, as they would with a PID namespace.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from taskdist.common.backoff import Backoff
from taskdist.kube import Obj
from taskdist.local import probes, processes
from taskdist.local.environment import Invocation, Missing
from taskdist.local.podstatus import Container, timestamp

# Names the file of a container's last words: where a container runtime would mount one of its own.
LAST_WORDS = "TASKDIST_TERMINATION_LOG"
# Bytes of a container's last words that its status shows.
MOST_LAST_WORDS = 4096


@dataclass(frozen=True)
class Restarts:
    """Seconds before a restart; from the first again after `forget` of running."""

    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.2, most=10.0))
    forget: float = 30.0


class Stop:
    """The order to stop: given once, it may be tightened, never loosened."""

    def __init__(self) -> None:
        self.ordered = asyncio.Event()
        self._deadline = float("inf")
        self._tightened = asyncio.Event()

    def within(self, seconds: float) -> None:
        """Everything is to have ended `seconds` from now."""
        deadline = asyncio.get_running_loop().time() + max(0.0, seconds)
        if deadline < self._deadline:
            self._deadline = deadline
            self._tightened.set()
        self.ordered.set()

    async def overdue(self) -> None:
        """Returns once the grace is over."""
        loop = asyncio.get_running_loop()
        while (left := self._deadline - loop.time()) > 0:
            self._tightened.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if left == float("inf") else left):
                    await self._tightened.wait()

    async def sleep(self, seconds: float) -> bool:
        """Sleep; True, at once, if the order to stop comes."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self.ordered.wait()
        return self.ordered.is_set()


class Life:
    """Runs one container until it has ended for good."""

    def __init__(
        self,
        spec: Obj,
        status: Container,
        *,
        prepare: Callable[[], Invocation],
        translate: Callable[[str], str],
        directory: Path,
        log: Path,
        mark: str,
        address: str,
        restart: Callable[[int], bool],
        grace: float,
        stop: Stop,
        changed: Callable[[], None],
        session: aiohttp.ClientSession,
        restarts: Restarts,
    ) -> None:
        self._spec = spec
        self.status = status
        self._prepare = prepare
        self._translate = translate
        self._directory = directory
        self._log = log
        self._last_words = log.with_name(f"{log.name}.last-words")
        self._mark = mark
        self._address = address
        self._restart = restart
        self._grace = grace
        self._stop = stop
        self._changed = changed
        self._session = session
        self._restarts = restarts
        self._unhealthy = asyncio.Event()
        self._invocation: Invocation | None = None

    async def run(self) -> None:
        """Returns when the container has ended and will not be started again."""
        failures = 0
        loop = asyncio.get_running_loop()
        while not self._stop.ordered.is_set():
            began = loop.time()
            try:
                self._invocation = self._prepare()
            except Missing as missing:
                self.status.wait("CreateContainerConfigError", str(missing))
                self._changed()
                await self._stop.sleep(self._restarts.backoff.full(2))
                continue
            await self._once()
            ended = self.status.terminated
            assert ended is not None
            self._changed()
            if self._stop.ordered.is_set() or not self._restart(int(ended["exitCode"])):
                return
            failures = 0 if loop.time() - began > self._restarts.forget else failures
            delay = self._restarts.backoff.full(failures)
            failures += 1
            self.status.wait("CrashLoopBackOff", f"back-off {delay:g} s restarting container {self.status.name}")
            self._changed()
            if await self._stop.sleep(delay):
                self.status.state, self.status.last_state = self.status.last_state, {}
                return
            self.status.restarts += 1

    async def _once(self) -> None:
        """From start to end, once."""
        self._unhealthy.clear()
        self._last_words.unlink(missing_ok=True)
        try:
            process = self._start()
        except OSError as error:
            self.status.end(128, timestamp(), "StartError", f"{error}")
            return
        self.status.run(f"process://{process.pid}-{secrets.token_hex(4)}", timestamp())
        probing = asyncio.create_task(self._probe())
        exit_code = asyncio.create_task(processes.wait(process))
        try:
            await self._until_end(process, exit_code)
        finally:
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            if process.poll() is None:  # Cancelled: the node itself is going down.
                process.kill()
            await asyncio.gather(exit_code, return_exceptions=True)
            await processes.kill_tree(self._mark, process.pid)
        self.status.end(process.returncode, timestamp(), message=self._read_last_words())

    def _read_last_words(self) -> str:
        """What the container left for its status to show, as the kubelet bounds it."""
        try:
            with self._last_words.open("rb") as file:
                return file.read(MOST_LAST_WORDS).decode("utf-8", "replace")
        except OSError:
            return ""

    async def _until_end(self, process: subprocess.Popen[bytes], exit_code: asyncio.Task[int]) -> None:
        stopping = asyncio.create_task(self._stop.ordered.wait())
        unhealthy = asyncio.create_task(self._unhealthy.wait())
        overdue: asyncio.Task[None] | None = None
        try:
            await asyncio.wait({exit_code, stopping, unhealthy}, return_when=asyncio.FIRST_COMPLETED)
            if exit_code.done():
                return
            self.status.ready = False
            self._changed()
            limit = self._stop if stopping.done() else self._own_limit()
            overdue = asyncio.create_task(limit.overdue())
            await self._before_stop(exit_code, overdue)
            if process.poll() is None:
                process.terminate()
            await asyncio.wait({exit_code, overdue}, return_when=asyncio.FIRST_COMPLETED)
            if not exit_code.done():
                process.kill()
            await exit_code
        finally:
            for task in (stopping, unhealthy, overdue):
                if task is not None:
                    task.cancel()

    def _own_limit(self) -> Stop:
        """A restart for bad health has its grace from now; a later order to stop the pod does not lengthen it."""
        limit = Stop()
        limit.within(self._grace)
        return limit

    async def _before_stop(self, exit_code: asyncio.Task[int], overdue: asyncio.Task[None]) -> None:
        hook = (self._spec.get("lifecycle") or {}).get("preStop") or {}
        if (action := hook.get("exec")) is not None:
            with contextlib.suppress(OSError):
                process = self._start([self._translate(word) for word in action.get("command") or ()])
                done = asyncio.create_task(processes.wait(process))
                await asyncio.wait({done, exit_code, overdue}, return_when=asyncio.FIRST_COMPLETED)
                if not done.done():
                    os.killpg(process.pid, signal.SIGKILL)
                await done
        elif (action := hook.get("sleep")) is not None:
            await asyncio.wait({exit_code, overdue}, timeout=float(action["seconds"]))

    def _start(self, command: list[str] | None = None, log: Path | None = None) -> subprocess.Popen[bytes]:
        assert self._invocation is not None
        env = self._invocation.env
        if LAST_WORDS in env:
            # The path in it is the container's own, and processes here share one file system.
            env = {**env, LAST_WORDS: str(self._last_words)}
        return processes.start(
            command or self._invocation.command,
            env=env,
            mark=self._mark,
            log=log or self._log,
            cwd=self._directory,
        )

    def _start_quietly(self, command: list[str]) -> subprocess.Popen[bytes]:
        """A probe's output is not the container's."""
        return self._start([self._translate(word) for word in command], Path(os.devnull))

    async def _probe(self) -> None:
        """Startup first; readiness and liveness once it has passed."""
        if (startup := self._spec.get("startupProbe")) is not None and not await self._started(startup):
            self._unhealthy.set()
            return
        self.status.started = True
        readiness, liveness = self._spec.get("readinessProbe"), self._spec.get("livenessProbe")
        self.status.ready = readiness is None
        self._changed()
        async with asyncio.TaskGroup() as group:
            if readiness is not None:
                group.create_task(self._watch(readiness, self._set_ready))
            if liveness is not None:
                group.create_task(self._watch(liveness, self._set_alive))

    async def _started(self, probe: Obj) -> bool:
        tally = probes.ProbeTally.of(probe)
        await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
        while True:
            if (verdict := tally.add(not await self._check(probe))) is not None:
                return verdict
            await asyncio.sleep(float(probe.get("periodSeconds") or 10))

    async def _watch(self, probe: Obj, act: Callable[[bool], None]) -> None:
        tally = probes.ProbeTally.of(probe)
        await asyncio.sleep(float(probe.get("initialDelaySeconds") or 0))
        while True:
            before = tally.verdict
            verdict = tally.add(not await self._check(probe))
            if verdict is not None and verdict != before:
                act(verdict)
            await asyncio.sleep(float(probe.get("periodSeconds") or 10))

    async def _check(self, probe: Obj) -> str:
        try:
            return await probes.check(probe, self._spec, self._address, self._start_quietly, self._session)
        except Missing as missing:
            return str(missing)

    def _set_ready(self, verdict: bool) -> None:
        if self.status.running and self.status.ready != verdict:
            self.status.ready = verdict
            self._changed()

    def _set_alive(self, verdict: bool) -> None:
        if not verdict:
            self._unhealthy.set()
