"""Times at which something is due, at most one for each name or Task.

Owns heaps that forget by leaving entries dead and drop them when they are the half. Refuses to know what is due.
"""

from heapq import heapify, heappop, heappush
from math import inf
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from taskdist.core.records import TaskRecord

# (when, stamp, record). Dead unless its record still bears the stamp.
Alarm = tuple[float, int, "TaskRecord"]


class Alarms:
    """By name: when."""

    __slots__ = ("_heap", "live")

    def __init__(self) -> None:
        # By name: when.
        self.live: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self.live)

    def set(self, name: str, at: float) -> None:
        if self.live.get(name) == at:
            return
        self.live[name] = at
        heappush(self._heap, (at, name))
        if len(self._heap) > 64 + 2 * len(self.live):
            self._heap = [(at, name) for name, at in self.live.items()]
            heapify(self._heap)

    def clear(self, name: str) -> None:
        self.live.pop(name, None)

    def next(self) -> float | None:
        """Return the earliest time, None if nothing is set."""
        heap, live = self._heap, self.live
        while heap:
            at, name = heap[0]
            if live.get(name) == at:
                return at
            heappop(heap)
        return None

    def due(self, now: float) -> str | None:
        """Take and return the next that is due by now, earliest first; None if none is."""
        if not self._heap or self._heap[0][0] > now:
            return None
        at = self.next()
        if at is None or at > now:
            return None
        name = heappop(self._heap)[1]
        del self.live[name]
        return name


class Watch:
    """For Tasks: when. Each record knows when and by which entry, so that there is nothing to look up."""

    __slots__ = ("_heap", "_live", "_stamp")

    def __init__(self) -> None:
        self._heap: list[Alarm] = []
        self._live = 0
        self._stamp = 0

    def set(self, record: "TaskRecord", at: float) -> None:
        """Something is due for the Task then; if that is infinite, nothing is."""
        if record.due == at:
            return
        self.clear(record)
        if at < inf:
            self._stamp += 1
            self._live += 1
            record.alarm, record.due = self._stamp, at
            heappush(self._heap, (at, self._stamp, record))
            if len(self._heap) > 64 + 2 * self._live:
                self._heap = [entry for entry in self._heap if entry[2].alarm == entry[1]]
                heapify(self._heap)

    def clear(self, record: "TaskRecord") -> None:
        if record.alarm:
            record.alarm, record.due = 0, inf
            self._live -= 1

    def next(self) -> float | None:
        """Return the earliest time, None if nothing is set."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if entry[2].alarm == entry[1]:
                return entry[0]
            heappop(heap)
        return None

    def due(self, now: float) -> "list[TaskRecord]":
        """Take and return those for which something is due by now."""
        heap = self._heap
        found: list[TaskRecord] = []
        while heap and heap[0][0] <= now:
            entry = heappop(heap)
            record = entry[2]
            if record.alarm == entry[1]:
                self.clear(record)
                found.append(record)
        return found
