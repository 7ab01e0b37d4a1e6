"""Parking: Tasks that a limit holds leave the order until the limit opens, each under exactly one blocker.

A limit on all Tasks of a tenant in a queue parks the tenant's whole share; one on slots or amounts parks a group of it,
or a line. So a limit costs as much as there are tenants, levels and profiles behind it, not as there are Tasks.

A concurrency key parks single Tasks. When it opens, the first of each tenant and profile may try: whatever else holds
that one holds the others of its profile, too. One that finds the key taken again is parked again.

Knows nothing of what the limits are.
"""

from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING

from taskdist.api import OrderPolicy
from taskdist.core.fleet.equivalence import Budgets, Profile, Shape
from taskdist.core.model import EMERGENCY, Key, Task
from taskdist.core.order import Place
from taskdist.core.ordering.fair_sharing import Share
from taskdist.core.ordering.index import WaitingIndex
from taskdist.core.ordering.lines import Group, Line, TaskRecord

if TYPE_CHECKING:
    from taskdist.core.limits.blockers import Blocker


class _ParkedTask:
    """A parked Task among those of its key: higher levels first, then those that can still meet their deadline.

    It is dead once its record has another stamp.
    """

    __slots__ = ("late", "level", "place", "record", "stamp")

    def __init__(self, level: int, late: bool, place: Place, stamp: int, record: TaskRecord) -> None:
        self.level = level
        self.late = late
        self.place = place
        self.stamp = stamp
        self.record = record

    @property
    def live(self) -> bool:
        return self.record.parked == self.stamp

    def __lt__(self, other: "_ParkedTask") -> bool:
        if self.level != other.level:
            return self.level > other.level
        if self.late != other.late:
            return other.late
        order = self.place.compare(other.place)
        return order < 0 if order else self.stamp < other.stamp


# (namespace, queue, concurrency key)
_Key = tuple[str, str, str]


class _Whole:
    """The shares, groups and lines that are parked under one limit."""

    __slots__ = ("_most", "groups", "lines", "shares")

    def __init__(self) -> None:
        # With the pools that may be used there.
        self.shares: list[tuple[Share[Group, Line], tuple[Key, ...]]] = []
        self.lines: list[Line] = []
        self.groups: list[Group] = []
        self._most = 64

    def trim(self) -> None:
        """Forget lines and groups without Tasks: new ones may take their place again and again."""
        if len(self.lines) + len(self.groups) > self._most:
            self.lines = [line for line in self.lines if line.live]
            self.groups = [group for group in self.groups if group.lines]
            self._most = max(64, 2 * (len(self.lines) + len(self.groups)))


class _Single:
    """The Tasks that are parked one by one under a concurrency key, by shape and tenant."""

    __slots__ = ("lines", "live")

    def __init__(self) -> None:
        self.lines: dict[tuple[Shape, str], list[_ParkedTask]] = {}
        self.live = 0


class Parking:
    """All that is parked, by the limit that holds it."""

    def __init__(self, waiting: WaitingIndex, unpark: Callable[[TaskRecord, float], None]) -> None:
        """`unpark(record, now)` lets a Task try."""
        self._waiting = waiting
        self._unpark = unpark
        self._wholes: dict[Blocker, _Whole] = {}
        self._singles: dict[_Key, _Single] = {}
        self._stamp = 0
        # Whether Tasks may have come into other profiles since they were parked.
        self._moved = False

    def add(self, record: TaskRecord, blocker: "Blocker", now: float, alone: bool = False) -> None:
        """Park the Task, taken from the index before, or all that the blocker holds with it. `alone`: a budget has not
        enough for Tasks of its class, but may have for others of its group."""
        if not blocker.whole:
            record.blocker = blocker
            single = self._singles.get(_key(record))
            if single is None:
                single = self._singles[_key(record)] = _Single()
            single.live += 1
            self._push(single, record, now)
            return
        whole = self._wholes.get(blocker)
        if whole is None:
            whole = self._wholes[blocker] = _Whole()
        line = record.line
        assert line is not None
        assert line.share is not None, "what is found stands in a line that has a share"
        whole.trim()
        # Queues with an order of their own have one share for all tenants, and emergencies have one for all queues.
        shared = blocker.tenant is not None and line.shape.queue.policy is not OrderPolicy.PRIORITY
        if blocker.by_budgets and not alone:
            whole.groups.append(self._waiting.park_group(line, blocker))
        elif alone or shared or record.level >= EMERGENCY:
            self._waiting.park(line, blocker)
            whole.lines.append(line)
        elif blocker.by_slots and record.task.slots > 1:
            # A Task of one slot that is held leaves no room for any other.
            whole.groups.append(self._waiting.park_group(line, blocker))
        else:
            whole.shares.append((self._waiting.park_share(line, blocker), line.shape.pools))

    def _push(self, single: _Single, record: TaskRecord, now: float) -> None:
        self._stamp += 1
        late = record.hopeless_from < now
        record.parked = self._stamp
        entry = _ParkedTask(record.level, late, record.place(), self._stamp, record)
        heap = single.lines.setdefault((record.shape, record.task.tenant), [])
        heappush(heap, entry)
        if len(heap) > 16 + 2 * single.live:
            heap[:] = [entry for entry in heap if entry.live]
            heapify(heap)

    def move(self, record: TaskRecord, now: float) -> None:
        """Move a parked Task whose level or chain has changed."""
        assert record.blocker is not None
        if record.blocker.open(now):
            # Another one tries already, which it may have to go before.
            self.leave(record)
            record.trying = True
            self._unpark(record, now)
        else:
            self._push(self._singles[_key(record)], record, now)

    def leave(self, record: TaskRecord) -> None:
        """Forget a Task that leaves the place where it was parked."""
        if record.parked:
            record.blocker, record.parked = None, 0
            single = self._singles[_key(record)]
            single.live -= 1
            if not single.live:
                del self._singles[_key(record)]

    def open(self, blockers: Iterable["Blocker"]) -> None:
        """Let what is parked under these limits go on. Keys say so by `key_free`."""
        for blocker in blockers:
            whole = self._wholes.pop(blocker, None)
            if whole is not None:
                for share, pools in whole.shares:
                    self._waiting.unpark_share(share, pools)
                for line in whole.lines:
                    self._waiting.unpark(line)
                for group in whole.groups:
                    self._waiting.unpark_group(group, blocker)

    def moved(self) -> None:
        """Note that Tasks may have another profile than when they were parked."""
        self._moved = bool(self._singles)

    def regroup(self, now: float) -> None:
        """Where a profile has split, let the first Task of each part try, if its key is free."""
        if self._moved:
            self._moved = False
            for key in list(self._singles):
                self._try(key, now, closed=False)

    def key_free(self, task: Task, now: float) -> None:
        """Let the first Tasks behind the Task's key try: it gave the key back, or went without using it."""
        if task.concurrency_key is not None and self._singles:
            self._try((task.namespace, task.queue, task.concurrency_key), now)

    def keys_free(self, queue: Key, now: float) -> None:
        """Let Tasks behind the queue's keys try: keys may be held more often than before."""
        for key in [key for key in self._singles if key[:2] == queue]:
            self._try(key, now)

    def _try(self, key: _Key, now: float, closed: bool = True) -> None:
        """Let the first of each tenant, profile and set of amounts try. `closed` False: only if the key is free."""
        single = self._singles.get(key)
        if single is None:
            return
        firsts: dict[tuple[Shape | Profile, str, Budgets], _ParkedTask] = {}
        for line, heap in list(single.lines.items()):
            entry = self._head(single, heap, now)
            if entry is None:
                del single.lines[line]
                continue
            # What is closed may open by itself.
            shape, tenant = line
            kind = (shape.profile or shape, tenant, shape.budgets)
            first = firsts.get(kind)
            if first is None or entry < first:
                firsts[kind] = entry
        for entry in firsts.values():
            record = entry.record
            if closed or (record.blocker is not None and record.blocker.open(now)):
                record.blocker, record.parked, record.trying = None, 0, True
                single.live -= 1
                self._unpark(record, now)
        if not single.live:
            del self._singles[key]

    def _head(self, single: _Single, heap: list[_ParkedTask], now: float) -> _ParkedTask | None:
        """Return the entry of the line's first Task; None if it has none."""
        while heap:
            entry = heap[0]
            record = entry.record
            if entry.live:
                if entry.late or record.hopeless_from >= now:
                    return entry
                # Too late by now: it goes after those that can still make it.
                heappop(heap)
                self._push(single, record, now)
            else:
                heappop(heap)
        return None

    def records(self) -> Iterator[TaskRecord]:
        """Yield the Tasks that are parked one by one."""
        for single in self._singles.values():
            for heap in single.lines.values():
                yield from (entry.record for entry in heap if entry.live)


def _key(record: TaskRecord) -> _Key:
    task = record.task
    assert task.concurrency_key is not None, "only keys hold single Tasks"
    return (task.namespace, task.queue, task.concurrency_key)
