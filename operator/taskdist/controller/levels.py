"""Fill levels of rates and budgets in a queue's status: told coarsely, as each change costs a write.

A level that only time changes is known to who reads it: what comes back a second stands beside it. So it is told anew
where it is another than that says, and at most every `EVERY` seconds for a queue. How many statuses are written over
all is bounded by who looks at them.
"""

from collections.abc import Iterable
from typing import NamedTuple

from taskdist.core.limits.levels import TENANT, Level
from taskdist.core.model import Key

EVERY = 10.0
TOLERANCE = 0.05
"""Of the capacity, and at least one."""


class ToldLevels:
    """The levels of each queue as its status tells them."""

    def __init__(self) -> None:
        self._told: dict[Key, tuple[Level, ...]] = {}

    def due(self, key: Key, levels: tuple[Level, ...], now: float) -> tuple[Level, ...]:
        """Return what is to be told of the queue: what was told last, until it is wrong and another write is due."""
        told = self._told.get(key)
        return told if told is not None and not self._due(told, levels, now) else levels

    def told(self, key: Key, levels: tuple[Level, ...]) -> None:
        """Status says this of the queue now."""
        self._told[key] = levels

    def forget(self, key: Key) -> None:
        self._told.pop(key, None)

    @staticmethod
    def _due(told: tuple[Level, ...], levels: tuple[Level, ...], now: float) -> bool:
        if told and 0.0 <= now - told[0].at < EVERY and _rules(told) == _rules(levels):
            return False
        return _bounds(told) != _bounds(levels) or any(
            abs(new.level - old.expected(now)) > max(1.0, TOLERANCE * new.capacity)
            for old, new in zip(told, levels, strict=True)
        )


class _Bound(NamedTuple):
    """The limit that a level belongs to, with its numbers."""

    name: str
    capacity: int
    per_second: float


def _rules(levels: Iterable[Level]) -> list[_Bound]:
    """The limits of the queue's spec: which tenants are told of changes as these come and go."""
    return [each for each in _bounds(levels) if not each.name.startswith(f"{TENANT}/")]


def _bounds(levels: Iterable[Level]) -> list[_Bound]:
    return [_Bound(each.name, each.capacity, each.per_second) for each in levels]
