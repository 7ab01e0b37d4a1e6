"""The timers of a leadership: when it has something to do.

A timer is never cancelled: what it wakes looks whether there still is anything to do.
"""

import heapq
import math
from enum import Enum, auto
from typing import NamedTuple


class TimerKind(Enum):
    """Kinds of timers, by what is to be done when one is due."""

    ADVANCE = auto()  # look at the Task again
    LEASE = auto()  # a lease of the Task may have run out; the mark is its attempt
    LIMIT = auto()  # an attempt may have passed a limit of its own; the mark is the attempt
    REASON = auto()  # why the Task waits may be worth a write; the mark is its count of waits
    REASONS = auto()  # reasons may be written again
    RECOVERED = auto()  # what a former leader may have sent unrecorded has run out
    ORPHAN = auto()  # read again a Task that an agent speaks of; the mark is the pause


class Timer(NamedTuple):
    """A timer that is due. `uid` is that of its Task, empty if it is about none; `kind` says what `mark` means."""

    kind: TimerKind
    uid: str
    mark: int


class _Entry(NamedTuple):
    """A timer in the heap. No two have the same number, so that timers themselves are never compared."""

    at: float
    number: int
    timer: Timer


class Timers:
    """A heap of due times, the earliest first; of equal ones the one that was added first."""

    def __init__(self) -> None:
        self._heap: list[_Entry] = []
        self._count = 0

    def add(self, at: float, kind: TimerKind, uid: str = "", mark: int = 0) -> None:
        """Have it taken at `at`. What is no number is never due: it would hide all that stands behind it."""
        if math.isnan(at):
            return
        self._count += 1
        heapq.heappush(self._heap, _Entry(at, self._count, Timer(kind, uid, mark)))

    def due(self, now: float) -> Timer | None:
        """Take the next one that is due."""
        if self._heap and self._heap[0].at <= now:
            return heapq.heappop(self._heap).timer
        return None

    def next(self) -> float | None:
        return self._heap[0].at if self._heap else None
