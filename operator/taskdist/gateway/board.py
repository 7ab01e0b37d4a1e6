"""All Tasks as the gateway sees them: one watch, whoever waits.

Short rows stay in memory, payloads and results do not: a result goes straight to those who wait for it. Owns who waits
for what. Refuses to know who may see it.
"""

import asyncio
import time
from bisect import bisect_left, bisect_right, insort
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskdist.api import Phase, Priority
from taskdist.client.states import SETTLED, phase_of, status_of
from taskdist.kube import Added, Aside, Deleted, Obj, as_object, name_of, namespace_of, uid_of, version_of
from taskdist.kube import Change as Told

Key = tuple[str, str]
RATE_SECONDS = 60.0
"""How far back it is looked to say how fast a queue's Tasks end."""
LOOKED_AT_ONCE = 1000
"""Rows that are looked at before others have their turn."""
BACKLOG = 1000
"""Changes that a slow reader may lag behind before it is cut off."""
WHOLE_BACKLOG = 100
"""The same for a reader that wants payloads and results, which are kept for it until it has read them."""
GRAVES = 10_000
"""Deletions that are remembered, so that a stream that is taken up again misses none."""


@dataclass(frozen=True, slots=True)
class Row:
    """What is kept of a Task."""

    uid: str
    namespace: str
    name: str
    version: str
    labels: dict[str, str]
    queue: str
    type: str
    priority: str
    tenant: str
    phase: str
    reason: str
    message: str
    pool: str
    agent: str
    attempt: int
    created_at: str | None
    deadline: str | None
    assigned_at: str | None
    finished_at: str | None
    progress: dict[str, Any] | None
    done: str = ""

    @property
    def settled(self) -> bool:
        return self.phase in SETTLED


@dataclass(slots=True)
class Seen:
    """A row, and until those who wait have had it, the object that it is of."""

    row: Row
    full: Obj | None


def row_of(obj: Obj) -> Row:
    """Return what is kept of this Task, whatever a newer or older release has written on it."""
    metadata, spec, status = obj["metadata"], as_object(obj.get("spec")), status_of(obj)
    attempt, progress = status.get("attempt"), status.get("progress")
    return Row(
        uid=uid_of(obj),
        namespace=namespace_of(obj),
        name=name_of(obj),
        version=version_of(obj),
        labels={str(key): str(value) for key, value in as_object(metadata.get("labels")).items()},
        queue=str(spec.get("queue") or ""),
        type=str(spec.get("type") or ""),
        priority=str(spec.get("priority") or Priority.NORMAL),
        tenant=str(spec.get("tenant") or namespace_of(obj)),
        phase=phase_of(obj),
        reason=str(status.get("reason") or ""),
        message=str(status.get("message") or ""),
        pool=str(status.get("pool") or ""),
        agent=str(status.get("agent") or ""),
        attempt=attempt if isinstance(attempt, int) else 0,
        created_at=metadata.get("creationTimestamp"),
        deadline=spec.get("deadline"),
        assigned_at=status.get("assignedAt"),
        finished_at=status.get("finishedAt"),
        progress=progress if isinstance(progress, dict) else None,
        done=str(as_object(status.get("array")).get("done") or ""),
    )


def seen(obj: Obj) -> Seen:
    """The informer's transform: what is kept, and for a moment the whole of it."""
    return Seen(row_of(obj), obj)


class Overrun(Exception):
    """A reader was too slow, and has missed changes."""


class Expired(Exception):
    """It is not known any more what has happened since the version that a reader has seen."""


class Change(NamedTuple):
    """A Task that is there, has changed, or is gone. `full` is the whole of it, for a stream that wants it."""

    row: Row
    gone: bool
    full: Obj | None = None


class Stream:
    """Changes for one reader, in order."""

    def __init__(self, wants: Callable[[Row], bool], whole: bool) -> None:
        self.wants = wants
        self.whole = whole
        self._changes: deque[Change] = deque()
        self._ready = asyncio.Event()
        self._overrun = False

    def put(self, change: Change) -> None:
        if len(self._changes) >= (WHOLE_BACKLOG if self.whole else BACKLOG):
            self._overrun = True
        else:
            self._changes.append(change if self.whole else change._replace(full=None))
        self._ready.set()

    async def next(self, seconds: float) -> Change | None:
        """Return the next change; None if there is none for so long. Raises Overrun."""
        if not self._changes and not self._overrun:
            self._ready.clear()
            try:
                async with asyncio.timeout(seconds):
                    await self._ready.wait()
            except TimeoutError:
                return None
        if self._changes:
            return self._changes.popleft()
        raise Overrun


@dataclass(slots=True)
class _Namespace:
    names: list[str] = field(default_factory=list)  # in order
    streams: dict[Stream, None] = field(default_factory=dict)


class Board:
    """Rows by name, who waits for which, and how fast queues' Tasks end."""

    def __init__(self, told: Callable[[str], str | None], clock: Callable[[], float] = time.monotonic) -> None:
        """
        Args:
            told: up to which version of the API server a namespace is told here; None if it is not watched.
        """
        self._told = told
        self._clock = clock
        self._rows: dict[Key, Row] = {}
        self._namespaces: dict[str, _Namespace] = {}
        self._waiters: dict[str, set[asyncio.Future[Obj | None]]] = {}
        self._ends: dict[Key, deque[float]] = {}
        self._pending: Counter[Key] = Counter()
        self._graves: deque[tuple[int, Row]] = deque()
        # From which version on all deletions are remembered: since the beginning, and where it is a later one. An empty
        # name stands for all namespaces.
        self._first: dict[str, int] = {}
        self._floors: dict[str, int] = {}
        self._begun = False

    # -- what the watch tells --------------------------------------------------------------------------------------

    def begin(self, namespaces: Sequence[str] = ()) -> None:
        """Take note that all Tasks of these namespaces are there; none named: of all."""
        self._first = {each: _number(self._told(each) or "") for each in namespaces or ("",)}
        self._begun = True

    def hear(self, event: Told[Seen] | Aside) -> None:
        """Take in a change: the informer's `on_event`."""
        if isinstance(event, Aside):
            return
        if isinstance(event, Deleted):
            self._gone(event.old.row, event.old.full, event.seen)
            return
        now, before = event.new, None if isinstance(event, Added) else event.old.row
        self._put(now.row, now.full)
        if now.row.settled and (before is None or not before.settled):
            if before is not None:
                self._ended(now.row)
            self._tell_waiters(now.row.uid, now.full)
        now.full = None

    def _put(self, row: Row, full: Obj | None) -> None:
        key = (row.namespace, row.name)
        space = self._namespaces.setdefault(row.namespace, _Namespace())
        known = self._rows.get(key)
        if known is None:
            insort(space.names, row.name)
        else:
            self._count(known, -1)
        self._count(row, 1)
        self._rows[key] = row
        _publish(space, Change(row, False, full))

    def _gone(self, row: Row, full: Obj | None, seen: bool) -> None:
        if seen:
            self._graves.append((_number(row.version), row))
            if len(self._graves) > GRAVES:
                version, oldest = self._graves.popleft()
                self._raise_floor(oldest.namespace, version)
        elif self._begun:
            # When it went nobody has heard: whoever comes back has to list again.
            self._raise_floor(row.namespace, _number(self._told(row.namespace) or "") + 1)
        key = (row.namespace, row.name)
        space = self._namespaces.get(row.namespace)
        known = self._rows.get(key)
        if space is not None and known is not None and known.uid == row.uid:
            self._count(known, -1)
            del self._rows[key]
            del space.names[bisect_left(space.names, row.name)]
            _publish(space, Change(row, True, full))
            self._forget(row.namespace)
        # It may have ended and been deleted while nobody looked: its last state says so.
        self._tell_waiters(row.uid, full if row.settled else None)

    def _floor(self, namespace: str) -> int:
        first = self._first.get(namespace, self._first.get("", 0))
        return max(first, self._floors.get(namespace, 0))

    def _raise_floor(self, namespace: str, version: int) -> None:
        self._floors[namespace] = max(version, self._floors.get(namespace, 0))

    def _count(self, row: Row, by: int) -> None:
        if row.phase == Phase.PENDING:
            self._pending[row.namespace, row.queue] += by
            if not self._pending[row.namespace, row.queue]:
                del self._pending[row.namespace, row.queue]

    def queue_gone(self, key: Key) -> None:
        """Forget how fast the Tasks of a queue ended: it is deleted."""
        self._ends.pop(key, None)

    def _forget(self, namespace: str) -> None:
        space = self._namespaces[namespace]
        if not space.names and not space.streams:
            del self._namespaces[namespace]

    def _tell_waiters(self, uid: str, obj: Obj | None) -> None:
        for waiter in self._waiters.pop(uid, ()):
            if not waiter.done():
                waiter.set_result(obj)

    def _ended(self, row: Row) -> None:
        ends = self._ends.setdefault((row.namespace, row.queue), deque(maxlen=100_000))
        ends.append(self._clock())
        self._recent(ends)

    # -- what callers ask ------------------------------------------------------------------------------------------

    def find(self, namespace: str, name: str) -> Row | None:
        return self._rows.get((namespace, name))

    @property
    def begun(self) -> bool:
        """Whether all Tasks are in view."""
        return self._begun

    @property
    def rows(self) -> int:
        """How many Tasks are in view."""
        return len(self._rows)

    def phases(self) -> Counter[str]:
        """How many Tasks there are in each phase."""
        return Counter(row.phase for row in self._rows.values())

    async def page(
        self, namespace: str, wants: Callable[[Row], bool], limit: int, after: str
    ) -> tuple[list[Row], str | None]:
        """Return up to `limit` rows behind the name `after`, by name, and where to go on; None at the end.

        Names that come and go while it is read are seen or not, as in any list that is read page by page.
        """
        found: list[Row] = []
        for looked, row in enumerate(self._after(namespace, after), 1):
            if wants(row):
                if len(found) == limit:
                    return found, found[-1].name
                found.append(row)
            if looked % LOOKED_AT_ONCE == 0:
                await asyncio.sleep(0)
        return found, None

    def _after(self, namespace: str, after: str) -> Iterator[Row]:
        while (space := self._namespaces.get(namespace)) is not None:
            # Looked up anew each time: the names may have changed meanwhile.
            at = bisect_right(space.names, after) if after else 0
            if at == len(space.names):
                return
            after = space.names[at]
            yield self._rows[namespace, after]

    def wait(self, uid: str) -> "asyncio.Future[Obj | None]":
        """Return what the Task will be once it has settled; None: it was deleted before."""
        waiter: asyncio.Future[Obj | None] = asyncio.get_running_loop().create_future()
        waiters = self._waiters.setdefault(uid, set())
        waiters.add(waiter)

        def dropped(_: "asyncio.Future[Obj | None]") -> None:
            waiters.discard(waiter)
            if not waiters and self._waiters.get(uid) is waiters:
                del self._waiters[uid]

        waiter.add_done_callback(dropped)
        return waiter

    @property
    def waiting(self) -> int:
        """How many wait for a Task."""
        return sum(map(len, self._waiters.values()))

    def version(self, namespace: str) -> str | None:
        """Return up to which version of the API server the namespace is told; None if it is not watched."""
        return self._told(namespace)

    async def follow(
        self, namespace: str, wants: Callable[[Row], bool], *, heartbeat: float, since: str = "", whole: bool = False
    ) -> AsyncGenerator[Change | None, None]:
        """Yield what is there, by name, then each change as it comes; None where nothing came for `heartbeat` seconds.

        Args:
            since: a version: only what has changed or gone after it. Raises Expired where that is not known any more.
            whole: with the whole Task, where it changes.

        Raises Overrun.
        """
        if since and (not self._begun or _number(since) < self._floor(namespace)):
            raise Expired
        stream = Stream(wants, whole)
        space = self._namespaces.setdefault(namespace, _Namespace())
        space.streams[stream] = None
        seen = _number(since)
        try:
            gone = [row for version, row in self._graves if since and version > seen and row.namespace == namespace]
            there = [self._rows[namespace, name] for name in space.names]
            for change in [Change(row, True) for row in gone] + [Change(row, False) for row in there]:
                if wants(change.row) and (change.gone or not since or _number(change.row.version) > seen):
                    yield change
            while True:
                yield await stream.next(heartbeat)
        finally:
            del space.streams[stream]
            if self._namespaces.get(namespace) is space:
                self._forget(namespace)

    def pending(self, namespace: str, queue: str) -> int:
        """Return how many Tasks of the queue wait."""
        return self._pending[namespace, queue]

    def ends_per_second(self, namespace: str, queue: str) -> float:
        """Return how fast Tasks of the queue have ended lately."""
        ends = self._ends.get((namespace, queue))
        if ends is None:
            return 0.0
        self._recent(ends)
        return len(ends) / RATE_SECONDS

    def _recent(self, ends: deque[float]) -> None:
        while ends and ends[0] <= self._clock() - RATE_SECONDS:
            ends.popleft()


def _publish(space: _Namespace, change: Change) -> None:
    for stream in space.streams:
        if stream.wants(change.row):
            stream.put(change)


def _number(version: str) -> int:
    """Versions are compared as numbers, as the informer does; one that is none counts as from before everything."""
    return int(version) if version.isdecimal() and len(version) < 20 else 0
