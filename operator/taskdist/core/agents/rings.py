"""The members of a class of agents in a fixed order: by uid, or by where hashes of their names lie on a ring.

It is kept as members come and go, from the first time that a strategy asks for it. Knows nothing of free slots.
"""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Sequence
from heapq import merge
from typing import Final

from taskdist.core.primitives.hashing import points

# Points of one agent on the ring: with so many an agent's part of the ring is within an eighth of its share, 1 ÷ √64,
# as a rule.
POINTS: Final = 64
# The ring is kept in so many arcs, so that a new agent is entered into short lists.
_ARCS: Final = 256
_SHIFT: Final = 64 - 8

Point = tuple[int, str]


class Roll:
    """The members of a class sorted by uid, for strategies that take turns."""

    __slots__ = ("uids",)

    def __init__(self, uids: Iterable[str]) -> None:
        self.uids = sorted(uids)

    def add(self, uid: str) -> None:
        insort(self.uids, uid)

    def remove(self, uid: str) -> None:
        del self.uids[bisect_left(self.uids, uid)]

    def above(self, uid: str) -> Iterator[str]:
        for at in range(bisect_right(self.uids, uid), len(self.uids)):
            yield self.uids[at]

    def upto(self, uid: str) -> Iterator[str]:
        for at in range(bisect_right(self.uids, uid)):
            yield self.uids[at]


class HashRing:
    """A consistent-hash ring of agents, by their names (Karger et al., "Consistent hashing and random trees", STOC
    1997): a pod that replaces another under the same name takes over its keys."""

    __slots__ = ("_arcs", "_names")

    def __init__(self, members: Iterable[tuple[str, str]]) -> None:
        """`members`: uids and names."""
        self._arcs: list[list[Point]] = [[] for _ in range(_ARCS)]
        self._names: dict[str, str] = {}
        for uid, name in members:
            self._names[uid] = name
            for point in points(name, POINTS):
                self._arcs[point >> _SHIFT].append((point, uid))
        for arc in self._arcs:
            arc.sort()

    def add(self, uid: str, name: str) -> None:
        self._names[uid] = name
        for point in points(name, POINTS):
            insort(self._arcs[point >> _SHIFT], (point, uid))

    def remove(self, uid: str) -> None:
        for point in points(self._names.pop(uid), POINTS):
            arc = self._arcs[point >> _SHIFT]
            del arc[bisect_left(arc, (point, uid))]

    def above(self, point: int) -> Iterator[Point]:
        first = point >> _SHIFT
        arc = self._arcs[first]
        for at in range(bisect_left(arc, (point, "")), len(arc)):
            yield arc[at]
        for number in range(first + 1, _ARCS):
            yield from self._arcs[number]

    def upto(self, point: int) -> Iterator[Point]:
        last = point >> _SHIFT
        for number in range(last):
            yield from self._arcs[number]
        arc = self._arcs[last]
        for at in range(bisect_left(arc, (point, ""))):
            yield arc[at]


def round_from(rolls: Sequence[Roll], last: str) -> Iterator[str]:
    """Yield all uids once, from the first after `last` around to it."""
    if len(rolls) == 1:
        yield from rolls[0].above(last)
        yield from rolls[0].upto(last)
    else:
        yield from merge(*[roll.above(last) for roll in rolls])
        yield from merge(*[roll.upto(last) for roll in rolls])


def around(rings: Sequence[HashRing], point: int) -> Iterator[str]:
    """Yield uids as one meets them on the ring from a point on, each as often as it has places."""
    if len(rings) == 1:
        for _, uid in rings[0].above(point):
            yield uid
        for _, uid in rings[0].upto(point):
            yield uid
    else:
        for _, uid in merge(*[ring.above(point) for ring in rings]):
            yield uid
        for _, uid in merge(*[ring.upto(point) for ring in rings]):
            yield uid
