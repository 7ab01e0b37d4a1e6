"""How Tasks end, for all who wait, by one watch: however many wait, the API server serves one stream.

A hub is of one queue, so that the stream holds what others submit as little as may be. It begins when the first waits
and ends some seconds after the last. Who registers before a Task is created misses nothing and costs no request. Of a
Task that was there before, or that the stream may have passed by, it is looked once how it stands: few are read, many
are listed. So it is again when the stream cannot be taken up where it broke (410): what is not there then is gone.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field

from taskdist.client.backend import Backend
from taskdist.client.changes import AGAIN, is_lasting
from taskdist.client.errors import TaskdistError, TaskGone, of_kube
from taskdist.client.states import phase_of, settled
from taskdist.kube import TASKS, ApiError, KubeError, Obj, WatchEvent, name_of, uid_of

FEW = 8
"""So many Tasks are read one by one; more are listed."""
GATHER_SECONDS = 0.01
"""How long those who come to wait are collected before it is looked how they stand."""
FIRST_TRIES = 4
"""How often it is tried to begin; once it has, it is tried for ever."""
LINGER_SECONDS = 10.0
"""How long the watch goes on without anybody who waits: the next may come at once."""


@dataclass(eq=False, slots=True)
class Waiter:
    """One who waits for one Task."""

    name: str
    end: asyncio.Future[Obj]
    uid: str = ""
    """Empty until the Task is created."""
    seen: list[WatchEvent] = field(default_factory=list)
    """What the stream told before the uid was known."""
    start: int = 0
    """Which start of the stream it was there for."""
    since: str = ""
    """The version in which it was seen: what is older is no news."""
    heard: Callable[[Obj], None] | None = None
    """Told of each change before the end."""


class Hub:
    """Those who wait for Tasks of one queue."""

    def __init__(self, backend: Backend, queue: str, linger: float = LINGER_SECONDS) -> None:
        self._backend = backend
        self._fields = f"spec.queue={queue}"
        self._linger = linger
        self._waiters: dict[str, set[Waiter]] = {}
        self._unknown: set[Waiter] = set()
        self._version = ""
        self._watching = asyncio.Event()
        self._main: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None
        self._last: asyncio.Task[None] | None = None
        self._stop: asyncio.TimerHandle | None = None
        self._starts = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiters.values()))

    @contextlib.asynccontextmanager
    async def expecting(self, name: str, heard: Callable[[Obj], None] | None = None) -> AsyncIterator[Waiter]:
        """A waiter for a Task that is about to be created under this name; `created` says that it is.

        `heard` is told of each change that is seen until it is settled.
        """
        waiter = self._add(name)
        waiter.heard = heard
        try:
            await self._started(waiter)
            yield waiter
        finally:
            self._remove(waiter)

    def created(self, waiter: Waiter, obj: Obj) -> None:
        """The Task is there: it was made now, or was found under its idempotency key."""
        waiter.uid = uid_of(obj)
        _settle(waiter, obj)
        for event in waiter.seen:
            if uid_of(event.object) == waiter.uid:
                _take(waiter, event)
        waiter.seen.clear()
        if waiter.start != self._starts and not waiter.end.done():
            self._look(waiter)

    async def end(self, obj: Obj) -> Obj:
        """The Task once it is settled. `obj` is how it was last seen. Raises TaskGone, TaskdistError."""
        if settled(obj):
            return obj
        waiter = self._add(name_of(obj), uid_of(obj))
        waiter.since = str(obj["metadata"].get("resourceVersion") or "")
        try:
            # As new as what the stream has told: then what comes next will be told, too.
            if not (self._watching.is_set() and _at_least(obj, self._version)):
                self._look(waiter)
            await self._started(waiter)
            return await waiter.end
        finally:
            self._remove(waiter)

    async def close(self) -> None:
        """End the watch. Those who still wait get an error."""
        self._fail(TaskdistError("the client was closed"))
        self._ended()
        tasks = [each for each in (self._last, self._looking) if each is not None]
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # Who waits.

    def _add(self, name: str, uid: str = "") -> Waiter:
        waiter = Waiter(name, asyncio.get_running_loop().create_future(), uid)
        # What nobody has asked for any more is no news.
        waiter.end.add_done_callback(lambda end: end.cancelled() or end.exception())
        self._waiters.setdefault(name, set()).add(waiter)
        if self._stop is not None:
            self._stop.cancel()
            self._stop = None
        if self._main is None or self._main.done():
            self._watching.clear()
            self._starts += 1
            self._main = asyncio.get_running_loop().create_task(self._run())
        waiter.start = self._starts
        return waiter

    def _remove(self, waiter: Waiter) -> None:
        waiter.end.cancel()
        self._unknown.discard(waiter)
        others = self._waiters.get(waiter.name, set())
        others.discard(waiter)
        if not others:
            self._waiters.pop(waiter.name, None)
        if not self._waiters and self._main is not None and self._stop is None:
            self._stop = asyncio.get_running_loop().call_later(self._linger, self._ended)

    def _ended(self) -> None:
        if self._stop is not None:
            self._stop.cancel()
            self._stop = None
        if self._main is not None:
            self._main.cancel()
            self._last, self._main = self._main, None

    async def _started(self, waiter: Waiter) -> None:
        """Return once the watch has begun; or nothing will come of it, which the waiter then says."""
        begun = asyncio.ensure_future(self._watching.wait())
        try:
            await asyncio.wait((begun, waiter.end), return_when=asyncio.FIRST_COMPLETED)
        finally:
            begun.cancel()
        if waiter.end.done() and not waiter.end.cancelled() and (error := waiter.end.exception()):
            raise error

    # The stream.

    async def _run(self) -> None:
        try:
            await self._stream()
        except Exception as error:
            # Nobody else would tell those who wait.
            self._fail(error)

    async def _stream(self) -> None:
        failures, begun = 0, False
        self._version = ""
        while True:
            try:
                if not self._version:
                    # Where the stream begins. What happened before is looked for apart. No selector: for want of one
                    # that fits, the API server would read all Tasks.
                    self._version = (await self._backend.list(TASKS, most=1)).resource_version
                told = False
                async with self._backend.watch(TASKS, self._version, fields=self._fields) as events:
                    begun = True
                    self._watching.set()
                    async for event in events:
                        failures, told = 0, True
                        self._hear(event)
                if not told:
                    await asyncio.sleep(AGAIN.first)
            except KubeError as error:
                if isinstance(error, ApiError) and error.is_gone:
                    self._version = ""
                    self._starts += 1
                    self._watching.clear()
                    self._look(*(each for waiters in self._waiters.values() for each in waiters if each.uid))
                elif is_lasting(error) or (not begun and failures >= FIRST_TRIES):
                    raise
                await asyncio.sleep(AGAIN.full(failures))
                failures += 1

    def _hear(self, event: WatchEvent) -> None:
        metadata = event.object.get("metadata") or {}
        self._version = str(metadata.get("resourceVersion") or self._version)
        waiters = self._waiters.get(str(metadata.get("name"))) if event.type != "BOOKMARK" else None
        for waiter in list(waiters or ()):
            if not waiter.uid:
                waiter.seen.append(event)
            elif waiter.uid == uid_of(event.object) and _at_least(event.object, waiter.since, unknown=True):
                _take(waiter, event)

    def _fail(self, error: Exception) -> None:
        said = of_kube(error) if isinstance(error, KubeError) else error
        for waiters in list(self._waiters.values()):
            for waiter in waiters:
                if not waiter.end.done():
                    waiter.end.set_exception(said)

    # How those stand that the stream may have passed by.

    def _look(self, *waiters: Waiter) -> None:
        self._unknown.update(waiters)
        if self._unknown and (self._looking is None or self._looking.done()):
            self._looking = asyncio.get_running_loop().create_task(self._looked())

    async def _looked(self) -> None:
        failures = 0
        while self._unknown:
            await self._watching.wait()
            await asyncio.sleep(GATHER_SECONDS if not failures else AGAIN.full(failures - 1))
            asked, self._unknown = self._unknown, set()
            try:
                if len(asked) <= FEW:
                    await asyncio.gather(*(self._read(each) for each in asked))
                else:
                    await self._listed(asked)
                failures = 0
            except KubeError as error:
                if is_lasting(error):
                    self._fail(error)
                    return
                self._unknown |= {each for each in asked if not each.end.done()}
                failures += 1

    async def _read(self, waiter: Waiter) -> None:
        try:
            obj = await self._backend.get(TASKS, waiter.name)
        except ApiError as error:
            if not error.is_not_found:
                raise
            _gone(waiter, "it was deleted, and how it ended was not seen")
            return
        if uid_of(obj) != waiter.uid:
            _gone(waiter, "it was deleted, and another was made under its name")
        _settle(waiter, obj)

    async def _listed(self, asked: set[Waiter]) -> None:
        names: dict[str, list[Waiter]] = {}
        for waiter in asked:
            names.setdefault(waiter.name, []).append(waiter)
        there: set[Waiter] = set()
        async for page in self._backend.pages(TASKS, fields=self._fields):
            for obj in page.items:
                for waiter in names.get(name_of(obj), ()):
                    if uid_of(obj) == waiter.uid:
                        there.add(waiter)
                        _settle(waiter, obj)
        for waiter in asked - there:
            _gone(waiter, "it was deleted, and how it ended was not seen")


def _take(waiter: Waiter, event: WatchEvent) -> None:
    _settle(waiter, event.object)
    if event.type == "DELETED":
        _gone(waiter, f"it was deleted while it was {phase_of(event.object)}")


def _settle(waiter: Waiter, obj: Obj) -> None:
    if waiter.end.done():
        return
    if settled(obj):
        waiter.end.set_result(obj)
    elif waiter.heard is not None:
        waiter.heard(obj)


def _gone(waiter: Waiter, how: str) -> None:
    if not waiter.end.done():
        waiter.end.set_exception(TaskGone(f"task {waiter.name} is gone: {how}"))


def _at_least(obj: Obj, version: str, *, unknown: bool = False) -> bool:
    """Whether the object is as new as this version; `unknown` is the answer where a version is no number."""
    own = str(obj["metadata"].get("resourceVersion") or "")
    return int(own) >= int(version) if own.isdecimal() and version.isdecimal() else unknown
