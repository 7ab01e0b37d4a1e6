"""One Task followed as it changes: a stream of its rows, each as soon as its agent has said something.

A reader gets the latest there is, not each step: nothing is kept for it but one mark that there is news. Who reads too
slowly for that is cut off. Each look is paced as any question, and rights are asked for again and again.
"""

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager

import structlog
from aiohttp import web

from taskdist.api import Phase
from taskdist.api.meta import Model
from taskdist.api.view import StreamEnd, TaskRow
from taskdist.controller.view.pace import Pace
from taskdist.controller.view.problems import Problem, only
from taskdist.controller.view.server import Question
from taskdist.controller.view.tasks import Tasks, row

MOST_STREAMS = 100
MOST_OF_ONE = 8
# So many streams wait for a look at a time: the rest of the line is for questions.
LOOKS_AT_ONCE = 16
HEARTBEAT_SECONDS = 15.0
# How long one line may take to be taken by its reader.
SLOW_SECONDS = 10.0
# How soon a stream says something again: what comes faster is told as one.
LEAST_SECONDS = 0.2
# How long to let be where too many ask.
BUSY_SECONDS = 1.0
_log = structlog.get_logger("taskdist.view")


class Followers:
    """Who is to hear that something of a Task has changed."""

    def __init__(self) -> None:
        self._news: dict[str, set[asyncio.Event]] = {}
        self._of: Counter[str] = Counter()

    def touched(self, uid: str) -> None:
        """Something of the Task may be other than it was. Called for each event, so that it does next to nothing."""
        for news in self._news.get(uid, ()):
            news.set()

    @contextmanager
    def follow(self, caller: str, uid: str) -> Iterator[asyncio.Event]:
        """Give what is set at each change, until left. Raises Problem where too many follow, in all or of this one."""
        if self._of.total() >= MOST_STREAMS or self._of[caller] >= MOST_OF_ONE:
            raise Problem(429, "too many streams are open: end one, or ask again", retry_after=5)
        news = asyncio.Event()
        self._of[caller] += 1
        self._news.setdefault(uid, set()).add(news)
        try:
            yield news
        finally:
            self._news[uid].discard(news)
            if not self._news[uid]:
                del self._news[uid]
            self._of[caller] -= 1
            if not self._of[caller]:
                del self._of[caller]


class Following:
    """Answers with streams.

    Args:
        still: whether who asked may still see this. Raises Problem.
    """

    def __init__(
        self, tasks: Tasks, followers: Followers, pace: Pace, still: Callable[[Question], Awaitable[None]]
    ) -> None:
        self._tasks = tasks
        self._followers = followers
        self._pace = pace
        self._still = still
        self._looks = asyncio.Semaphore(LOOKS_AT_ONCE)

    async def answer(self, question: Question) -> web.StreamResponse:
        """Tell the Task as it is and as it changes, until it is over. Raises Problem before the stream begins."""
        name, caller = _task(question.query), question.caller.username
        first = await self._pace.step(caller, lambda: self._row(question.namespace, name))
        with self._followers.follow(caller, first.uid) as news:
            response = web.StreamResponse(
                headers={"Content-Type": "text/event-stream", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
            )
            await response.prepare(question.request)
            try:
                await self._tell(question, response, first, news)
            except TimeoutError:
                _log.info("a reader of progress was too slow and is cut off", caller=caller, task=name)
                if question.request.transport is not None:
                    question.request.transport.abort()
                raise ConnectionResetError("the reader was too slow") from None
        return response

    async def _tell(self, question: Question, response: web.StreamResponse, seen: TaskRow, news: asyncio.Event) -> None:
        loop = asyncio.get_running_loop()
        await _say(response, "task", seen)
        asked_at = loop.time()
        try:
            while not Phase(seen.phase).settled:
                if await _within(news, HEARTBEAT_SECONDS):
                    await asyncio.sleep(LEAST_SECONDS)
                else:
                    await _write(response, b": nothing new\n\n")
                # By the clock: an agent that has much to say keeps no right alive.
                if loop.time() >= asked_at + HEARTBEAT_SECONDS:
                    await self._still(question)
                    asked_at = loop.time()
                news.clear()
                if (found := await self._again(question, seen)) is None:
                    news.set()
                elif found.model_copy(update={"age": seen.age}) != seen:
                    seen = found
                    await _say(response, "task", seen)
            why = f"it is {seen.phase}"
        except Problem as problem:
            why = str(problem)
        await _say(response, "end", StreamEnd(reason=why))
        await response.write_eof()

    async def _again(self, question: Question, seen: TaskRow) -> TaskRow | None:
        """Look at the Task; None where too many ask just now. Raises Problem where there is nothing to be seen."""
        caller, namespace = question.caller.username, question.namespace
        try:
            async with self._looks:
                found = await self._pace.step(caller, lambda: self._row(namespace, seen.name))
        except Problem as problem:
            if problem.status != 429:
                raise
            await asyncio.sleep(BUSY_SECONDS)
            return None
        if found.uid != seen.uid:
            raise Problem(404, "it was deleted, and another was made under its name")
        return found

    def _row(self, namespace: str, name: str) -> TaskRow:
        return row(self._tasks.seen(namespace, name), self._tasks.now())


def _task(query: Mapping[str, str]) -> str:
    """Whom to follow. Raises Problem."""
    only(query, "task")
    if not query.get("task"):
        raise Problem(400, "say which one: ?task=NAME")
    return query["task"]


async def _within(news: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await news.wait()
    except TimeoutError:
        return False


async def _say(response: web.StreamResponse, event: str, told: Model) -> None:
    body = told.model_dump_json(by_alias=True, exclude_none=True)
    await _write(response, f"event: {event}\ndata: {body}\n\n".encode())


async def _write(response: web.StreamResponse, data: bytes) -> None:
    async with asyncio.timeout(SLOW_SECONDS):
        await response.write(data)
