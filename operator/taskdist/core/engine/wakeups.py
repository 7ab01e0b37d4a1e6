"""When time alone changes something for a Task: its start time, its next level, the end of its wait.

A heap with lazy deletion: dead entries are dropped once they are more than half. Knows nothing of what is due.
"""

from heapq import heapify, heappop, heappush
from math import inf

from taskdist.core.ordering.lines import TaskRecord


class Wakeup:
    """When something is due for a Task. It is dead once its record has another stamp."""

    __slots__ = ("at", "record", "stamp")

    def __init__(self, at: float, stamp: int, record: TaskRecord) -> None:
        self.at = at
        self.stamp = stamp
        self.record = record

    @property
    def live(self) -> bool:
        return self.record.alarm == self.stamp

    def __lt__(self, other: "Wakeup") -> bool:
        return self.at < other.at if self.at != other.at else self.stamp < other.stamp


class Wakeups:
    """The next time at which something is due for each Task, and the earliest of all Tasks.

    Each record knows when, and by which entry, so that nothing has to be looked up.
    """

    __slots__ = ("_heap", "_live", "_stamp")

    def __init__(self) -> None:
        self._heap: list[Wakeup] = []
        self._live = 0
        self._stamp = 0

    def set(self, record: TaskRecord, at: float) -> None:
        """Set the Task's alarm, in place of its last one. An infinite time clears it."""
        if record.due == at:
            return
        self.clear(record)
        if at < inf:
            self._stamp += 1
            self._live += 1
            record.alarm, record.due = self._stamp, at
            heappush(self._heap, Wakeup(at, self._stamp, record))
            if len(self._heap) > 64 + 2 * self._live:
                self._heap = [entry for entry in self._heap if entry.live]
                heapify(self._heap)

    def clear(self, record: TaskRecord) -> None:
        if record.alarm:
            record.alarm, record.due = 0, inf
            self._live -= 1

    def next(self) -> float | None:
        """Return the earliest time, None if nothing is set."""
        heap = self._heap
        while heap:
            entry = heap[0]
            if entry.live:
                return entry.at
            heappop(heap)
        return None

    def due(self, now: float) -> list[TaskRecord]:
        """Take and return the Tasks for which something is due by now."""
        heap = self._heap
        found: list[TaskRecord] = []
        while heap and heap[0].at <= now:
            entry = heappop(heap)
            if entry.live:
                self.clear(entry.record)
                found.append(entry.record)
        return found
