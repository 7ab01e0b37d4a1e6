"""Which limits hold the Tasks of a line, counted by class: what explanations, metrics and forecasts ask.

Parking notes a limit only once a Task was tried, and none is tried while all agents are busy. So the limits themselves
are asked here, at any moment and without taking anything. All Tasks of a line are alike to them but for their
concurrency keys, of which only the full ones are looked at, and for the one whose turn it is at a rate.
"""

from collections.abc import Mapping
from typing import NamedTuple

from taskdist.core.fleet.equivalence import Shape
from taskdist.core.limits.blockers import Blocker, FullKey
from taskdist.core.limits.budgets import NotYet
from taskdist.core.limits.limits import Limits
from taskdist.core.model import EMERGENCY, Key
from taskdist.core.ordering.index import WaitingIndex
from taskdist.core.ordering.lines import KeyCount, Line, TaskRecord


class HeldPart(NamedTuple):
    """The Tasks of a line that one limit holds; `since` is the sum of the times at which they began to wait."""

    blocker: Blocker
    tasks: int
    since: float


class LineLimits:
    """What limits hold, line by line, at one moment."""

    def __init__(self, waiting: WaitingIndex, limits: Limits, records: Mapping[str, TaskRecord], now: float) -> None:
        """`records` are those of all Tasks, by uid."""
        self._waiting = waiting
        self._records = records
        self._limits = limits
        self._now = now
        # By queue: whether it has any quota or rate; and its full concurrency keys.
        self._limited: dict[Key, bool] = {}
        self._full: dict[Key, dict[str, FullKey]] = {}

    def lines(self, shape: Shape) -> list[Line]:
        """Return the lines in which the shape's eligible Tasks stand."""
        return self._waiting.lines(shape)

    def shared(self, line: Line) -> Blocker | None:
        """Return the limit that holds all Tasks of the line, or all of those whose concurrency key is free."""
        shape = line.shape
        limited = self._limited.get(shape.queue_key)
        # Most queues have no limit at all: then there is nothing to ask, however many lines there are.
        if limited is not None and not limited and not shape.budgets and line.level < EMERGENCY:
            return None
        first = line.first()
        if first is None:
            return None
        if limited is None:
            self._limited[shape.queue_key] = self._limits.limited(first.record.task)
        return self._limits.holding_all(first.record.task, line.level, self._now)

    def of(self, line: Line) -> list[HeldPart]:
        """Return by which limits how many of the line's Tasks are held; the others wait for room alone."""
        shared = self.shared(line)
        if shared is None and line.keys is None:
            return []
        if shared is not None and not shared.after_keys:
            return [HeldPart(shared, line.live, line.since)]
        found: list[HeldPart] = []
        tasks, since = line.live, line.since
        for full, count in self._by_key(line):
            found.append(HeldPart(full, count.tasks, count.since))
            tasks -= count.tasks
            since -= count.since
        if shared is None:
            return found
        first = self._in_turn(line, shared)
        if first is not None:
            own = self._limits.holding(first.task, line.level, self._now)
            # One that its key holds is counted by now.
            if not isinstance(own, FullKey):
                tasks -= 1
                since -= first.since
                if own is not None:
                    found.append(HeldPart(own, 1, first.since))
        if tasks:
            found.append(HeldPart(shared, tasks, since))
        return found

    def _in_turn(self, line: Line, shared: Blocker) -> TaskRecord | None:
        """Return the Task of the line whose claim the others wait for: it may start as soon as time has brought it."""
        claim = shared.claim if isinstance(shared, NotYet) else None
        record = None if claim is None else self._records.get(claim.uid)
        return record if record is not None and record.line is line else None

    def _by_key(self, line: Line) -> list[tuple[FullKey, KeyCount]]:
        """Return the full concurrency keys that Tasks of the line have, with how many do."""
        keys, queue = line.keys, line.shape.queue_key
        if not keys:
            return []
        full = self._full.get(queue)
        if full is None:
            full = self._full[queue] = {each.use.key: each for each in self._limits.full_keys(queue)}
        if len(keys) < len(full):
            return [(full[key], count) for key, count in keys.items() if key in full]
        return [(each, keys[key]) for key, each in full.items() if key in keys]
