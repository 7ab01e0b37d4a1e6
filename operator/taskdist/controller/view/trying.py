"""What-ifs of the leader: a change is played on a copy of what it knows, in a process of its own.

The dispatch loop gives the copy alone, in short steps at the view's pace. The process gives way to it, may take so much
time and memory, and ends with the question: also when who asked is gone. Few are played at once.
"""

import asyncio
import contextlib
import json
import pickle
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import TypeVar

import structlog
from aiohttp import web
from pydantic import ValidationError

from taskdist.api import Phase
from taskdist.api.view import Changes, WhatIf
from taskdist.controller.view.copying import Copy, Part, Piece, written
from taskdist.controller.view.pace import Pace
from taskdist.controller.view.problems import Problem, only
from taskdist.controller.view.server import Question, as_json
from taskdist.controller.view.tasks import Tasks, first_part
from taskdist.protocol.operator import Leader
from taskdist.simulation.what_if import Change

MOST_AT_ONCE = 2
MOST_TASKS = 20_000
# In all, from the question to its answer.
SECONDS = 20
# Of one. So many Tasks take some 130 MB.
MEMORY_BYTES = 256 * 1024 * 1024
# How long one step of a copy takes about.
STEP_SECONDS = 0.002
AGAIN_SECONDS = 2
ELSEWHERE = "play it where you are, from the cluster's objects"
_log = structlog.get_logger("taskdist.view")

T = TypeVar("T")


class Trying:
    """Answers what-ifs."""

    def __init__(self, tasks: Tasks, pace: Pace, clock: Callable[[], float] = time.perf_counter) -> None:
        self._tasks = tasks
        self._pace = pace
        self._clock = clock
        self._of: Counter[str] = Counter()

    async def answer(self, question: Question) -> web.StreamResponse:
        """Say when the Task would start as things are, and changed. Raises Problem."""
        only(question.query)
        changes = _changes(question.body)
        with self._place(question.caller.username):
            try:
                async with asyncio.timeout(SECONDS):
                    told = await self._tried(question, changes)
            except TimeoutError:
                raise Problem(
                    503,
                    f"it is not played to its end within {SECONDS} s here: {ELSEWHERE}",
                    retry_after=SECONDS,
                ) from None
        return as_json(told)

    @contextlib.contextmanager
    def _place(self, caller: str) -> Iterator[None]:
        if self._of.total() >= MOST_AT_ONCE or self._of[caller]:
            raise Problem(429, "too many what-ifs are played: ask again", retry_after=AGAIN_SECONDS)
        self._of[caller] += 1
        try:
            yield
        finally:
            del self._of[caller]

    async def _tried(self, question: Question, changes: Changes) -> WhatIf:
        caller, namespace = question.caller.username, question.namespace
        leader = self._tasks.leader()

        def still() -> Leader:
            if self._tasks.leader() is not leader:
                raise Problem(421, "another leadership has begun meanwhile: ask again")
            return leader

        def begun() -> tuple[str, float, Copy]:
            uid = self._waits(namespace, question.name)
            now = self._tasks.now()
            return uid, now, Copy(still(), namespace, now)

        uid, now, copy = await self._pace.step(caller, begun)
        change = Change.of(changes)
        head = (uid, now, (change.priority, change.pool, change.agents, change.more))
        async with _process() as process:
            assert process.stdin is not None
            assert process.stdout is not None
            process.stdin.write(pickle.dumps(head))
            pieces = copy.pieces()
            more = True
            while more:
                data, more = await self._pace.step(caller, lambda: self._step(still, pieces))
                if copy.tasks > MOST_TASKS:
                    raise Problem(503, f"more than {MOST_TASKS} Tasks wait or run here: {ELSEWHERE}")
                process.stdin.write(data)
                # Where it has ended already, it says why.
                with contextlib.suppress(ConnectionError):
                    await process.stdin.drain()
            process.stdin.close()
            said = await process.stdout.read()
        still()
        return _told(said)

    def _waits(self, namespace: str, name: str) -> str:
        """The uid of the Task, which waits. Raises Problem."""
        seen = self._tasks.seen(namespace, name)
        if seen.phase is not Phase.PENDING:
            raise Problem(409, f"task {name} is {seen.phase}: a what-if is for Tasks that wait")
        if seen.record.array is None:
            return seen.record.task.uid
        # Of an array it is played when the first chunk that waits would start.
        part = first_part(self._tasks.leader(), seen.record)
        if part is None:
            raise Problem(409, f"no chunk of task {name} waits: a what-if is for Tasks that wait")
        return part.uid

    def _step(self, still: Callable[[], Leader], pieces: Iterator[Piece]) -> tuple[bytes, bool]:
        """Go on with the copy for a moment. Return what there is to send, and whether there is more."""
        still()
        part, until = Part(), self._clock() + STEP_SECONDS / 2
        for number, piece in enumerate(pieces):
            piece(part)
            # Writing takes about as long.
            if number % 16 == 15 and self._clock() >= until:
                return written(part), True
        return written(part), False


@asynccontextmanager
async def _process() -> AsyncIterator[asyncio.subprocess.Process]:
    """The process that plays, until left: whatever it does then, it is ended."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-P",
        "-m",
        "taskdist.controller.view.playing",
        str(SECONDS),
        str(MEMORY_BYTES),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
        await asyncio.shield(process.wait())


def _changes(body: bytes) -> Changes:
    """Raises Problem."""
    try:
        changes = Changes.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        where = ".".join(str(part) for part in first["loc"])
        raise Problem(400, f"{where[:200]}: {first['msg']}" if where else str(first["msg"])) from None
    if changes.none:
        raise Problem(400, "say what would be different: priority, pool, agents (a number by pool), or moreAgents")
    return changes


def _told(said: bytes) -> WhatIf:
    """Raises Problem."""
    try:
        told = json.loads(said)
    except ValueError:
        # It was killed, or failed without a word.
        _log.warning("a what-if was not played to its end")
        told = {"failed": "it was not played to its end"}
    if "refused" in told:
        raise Problem(400, told["refused"])
    if "failed" in told:
        raise Problem(503, f"{told['failed']}: {ELSEWHERE}")
    return WhatIf.model_validate(told["answer"])
