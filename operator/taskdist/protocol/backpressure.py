"""The door of each queue: whether it takes new Tasks. Pure.

A queue closes at a high mark and opens again at a lower one, so that its door does not swing with every Task. Owns
these marks. What refuses a Task at a closed door is the API server; what becomes of one that gets past it is the core's
word.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum

from taskdist.core.model import Key, Queue

# A quota has one bound and no lower mark of its own: below this part of it the door opens again.
REOPEN = 0.9


class Cause(Enum):
    """Causes that close a door."""

    DRAINED = "drained"
    OVERFLOW = "overflow"
    WAITING = "waiting"
    PAYLOAD = "payload"
    ARCHIVE = "archive"


@dataclass(frozen=True, slots=True)
class Mark:
    """Closed from `high` on, open again from `low` down."""

    cause: Cause
    high: int
    low: int


def marks(queue: Queue) -> tuple[Mark, ...]:
    """Return the marks that the queue's rules set; none for one that is never full."""

    def found() -> Iterator[Mark]:
        if queue.overflow is not None:
            # A low mark that is no lower than the high one would keep the door closed for ever.
            yield Mark(
                Cause.OVERFLOW, queue.overflow.high_water, min(queue.overflow.low_water, queue.overflow.high_water - 1)
            )
        for cause, bound in (
            (Cause.WAITING, queue.quota.waiting),
            (Cause.PAYLOAD, queue.quota.payload_bytes),
            (Cause.ARCHIVE, queue.archive_backlog),
        ):
            if bound is not None:
                yield Mark(cause, bound, min(int(bound * REOPEN), bound - 1))

    return tuple(found())


def closed_by(
    queue: Queue, waiting: int, payload_bytes: int, before: frozenset[Cause], unarchived: int = 0
) -> frozenset[Cause]:
    """Say what keeps the door closed, empty if it is open; `before` is what did until now.

    Between its two marks each cause stays as it was.
    """
    causes = {Cause.DRAINED} if queue.drained else set()
    numbers = {Cause.PAYLOAD: payload_bytes, Cause.ARCHIVE: unarchived}
    for mark in marks(queue):
        there = numbers.get(mark.cause, waiting)
        if there >= mark.high or (mark.cause in before and there > mark.low):
            causes.add(mark.cause)
    return frozenset(causes)


def words(queue: Queue, causes: frozenset[Cause]) -> str:
    """Say why the door is closed and what to do, in numbers that do not change with every Task; empty if it is open."""
    if Cause.DRAINED in causes:
        return "spec.drained is true: name another queue, or set it to false."
    said, then = [], "Submit again later, name another queue, or raise the bound."
    for mark in marks(queue):
        if mark.cause in causes:
            match mark.cause:
                case Cause.OVERFLOW:
                    field, unit = "spec.overflow.highWater", "waiting"
                case Cause.WAITING:
                    field, unit = "spec.quota.waiting", "waiting"
                case Cause.ARCHIVE:
                    field, unit = "spec.archiveBacklog", "that wait for the archive"
                    then = f"Is the archive running? {then}"
                case _:
                    field, unit = "spec.quota.payloadBytes", "bytes of payload"
            said.append(f"{field} is {mark.high}; it opens again at {mark.low} {unit}.")
    return " ".join((*said, then)) if said else ""


class Doors:
    """The doors of all queues: which are closed, and by what."""

    def __init__(self) -> None:
        # Only queues that can be full or drained, or are not open.
        self._queues: dict[Key, Queue] = {}
        self._causes: dict[Key, frozenset[Cause]] = {}

    def restore(self, key: Key) -> None:
        """Status says that this queue takes no Tasks: until its low marks it goes on so, whatever closed it."""
        self._causes[key] = frozenset(Cause)

    def applied(self, queue: Queue) -> None:
        if marks(queue) or queue.drained or self._causes.get(queue.key):
            self._queues[queue.key] = queue
        else:
            self._queues.pop(queue.key, None)

    def dropped(self, key: Key) -> None:
        self._queues.pop(key, None)
        self._causes.pop(key, None)

    @property
    def watched(self) -> tuple[Key, ...]:
        """The queues whose numbers matter here."""
        return tuple(self._queues)

    def look(self, key: Key, waiting: int, payload_bytes: int, unarchived: int = 0) -> bool:
        """Take in a queue's numbers; return whether its door opened, closed, or is closed by something else now."""
        before = self._causes.get(key, frozenset())
        now = closed_by(self._queues[key], waiting, payload_bytes, before, unarchived)
        if now:
            self._causes[key] = now
        elif before:
            del self._causes[key]
            self.applied(self._queues[key])
        return now != before

    def closed(self, key: Key) -> str:
        """Say why the queue takes no Tasks; empty if it does."""
        queue = self._queues.get(key)
        return words(queue, self._causes.get(key, frozenset())) if queue is not None else ""
