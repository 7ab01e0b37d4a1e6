"""The performance of agents: service times, failure rates, and how much of their time becomes accepted work.

Three kinds of fading averages: of each agent; of each type on each class of agents, for routing; and of each type in
each pool, which the pool's status keeps over a restart. Of too many types, those seen longest ago are forgotten.
Holds no agent back.
"""

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from heapq import nsmallest
from math import log, sqrt
from typing import Final

from taskdist.core.agents.circuit_breaker import Votes
from taskdist.core.model import Key
from taskdist.core.primitives.service_times import MEMORY, TENTH, Estimate, quantile

# The most types that are remembered of one class or pool, and that a pool's status tells.
TYPES_OF_ONE: Final = 1000
TOLD: Final = 32
# Agents of a pool that are told.
WEAKEST: Final = 8
# The pace of a class at a type is averaged over so many attempts. It is believed once its standard error is below a
# quarter of a step, so that classes as good as alike are not told apart by chance.
PACE_MEMORY: Final = 1000
PACE_STEP: Final = log(1.2)
SURE: Final = PACE_STEP / 4
# A quantile is not judged by fewer attempts.
TO_JUDGE: Final = 10


def nine_in_ten(mean: float, variance: float) -> float:
    """Return the 90th percentile of a lognormal with this mean and variance, in seconds."""
    return quantile(mean, variance, TENTH)


class Conduct:
    """The performance of one agent, over `MEMORY` attempts or so.

    `pace`: how long it takes, as a multiple of what is expected of the type; `success`: the share of its attempts that
    succeeded. `accepted` and `held` are averages of slot-seconds, so that long attempts weigh more in `efficiency`.
    """

    __slots__ = ("accepted", "attempts", "held", "pace", "paces", "success")

    def __init__(self) -> None:
        self.attempts = 0
        self.success = 0.0
        self.paces = 0
        self.pace = 1.0
        self.accepted = 0.0
        self.held = 0.0

    def add(self, succeeded: bool, ratio: float, work: float, held: float) -> None:
        """Add an attempt: `ratio` is its time over the expected one; `work` and `held` are slot-seconds at its class's
        speed."""
        if self.attempts < MEMORY:
            self.attempts += 1
        weight = 1.0 / self.attempts
        self.held += weight * (held - self.held)
        if succeeded:
            self.success += weight * (1.0 - self.success)
            self.accepted += weight * (work - self.accepted)
            if self.paces < MEMORY:
                self.paces += 1
            self.pace += (ratio - self.pace) / self.paces
        else:
            self.success -= weight * self.success
            self.accepted -= weight * self.accepted

    @property
    def efficiency(self) -> float:
        """Accepted work ÷ (slot-seconds × speed); about 1 for an agent of its class's speed that never fails."""
        return self.accepted / self.held if self.held > 0.0 else 1.0


class Track:
    """The performance of one agent class at one type: seconds lately, and its pace in steps of a fifth once `sure`."""

    __slots__ = ("_paces", "_spread", "pace", "seconds", "sure", "swiftness")

    def __init__(self) -> None:
        self.seconds = Estimate()
        self.pace = 1.0
        self._spread = 0.0
        self._paces = 0
        self.sure = False
        self.swiftness = 0

    def add(self, seconds: float, ratio: float) -> None:
        self.seconds.add(seconds)
        if self._paces < PACE_MEMORY:
            self._paces += 1
        difference = ratio - self.pace
        step = difference / self._paces
        self.pace += step
        self._spread += (difference * (ratio - self.pace) - self._spread) / self._paces
        if self._paces >= TO_JUDGE and self.pace > 0.0:
            self.sure = self._spread < self._paces * (SURE * self.pace) ** 2
            if self.sure:
                self.swiftness = round(log(self.pace) / PACE_STEP)


class TypeBook:
    """The performance of one pool at one type. `attempts` counts all that ended, `success` is their share lately."""

    __slots__ = ("attempts", "seconds", "success", "votes")

    def __init__(self) -> None:
        self.attempts = 0
        self.success = 0.0
        self.seconds = Estimate()
        # How the pool's agents did at it last.
        self.votes = Votes()

    def add(self, seconds: float | None, succeeded: bool) -> None:
        self.attempts += 1
        weight = 1.0 / (self.attempts if self.attempts < MEMORY else MEMORY)
        if succeeded:
            self.success += weight * (1.0 - self.success)
            if seconds is not None:
                self.seconds.add(seconds)
        else:
            self.success -= weight * self.success


@dataclass(frozen=True, slots=True)
class TypePerformance:
    """The performance of a pool at one type, as its status shows it: attempts that ended, seconds of those that
    succeeded, and their share.

    `mean` and `deviation` are in seconds and 0 where none has succeeded.
    """

    type: str
    attempts: int
    mean: float
    deviation: float
    success: float


@dataclass(frozen=True, slots=True)
class AgentPerformance:
    """The performance of one agent, as its pool's status shows it; see `Conduct`."""

    name: str
    attempts: int
    success: float
    pace: float
    efficiency: float


@dataclass(frozen=True, slots=True)
class PoolPerformance:
    """The performance of a pool's agents, as its status shows it. `efficiency`: that of all of them together."""

    efficiency: float = 1.0
    types: tuple[TypePerformance, ...] = ()
    weakest: tuple[AgentPerformance, ...] = ()


def weakest(conducts: Iterable[tuple[str, Conduct]]) -> tuple[AgentPerformance, ...]:
    """Return the `WEAKEST` agents of least efficiency, least first, among agents with enough attempts to judge."""
    least = nsmallest(
        WEAKEST,
        (
            AgentPerformance(name, conduct.attempts, conduct.success, conduct.pace, conduct.efficiency)
            for name, conduct in conducts
            if conduct.attempts >= TO_JUDGE
        ),
        key=lambda each: (each.efficiency, each.name),
    )
    return tuple(least)


class Performance:
    """The performance of each pool at each type."""

    def __init__(self, types: int = TYPES_OF_ONE) -> None:
        self._types = types
        self._pools: dict[Key, OrderedDict[str, TypeBook]] = {}

    def book(self, pool: Key, type: str) -> TypeBook:
        """Return the book of the type in the pool, begun if there is none."""
        books = self._pools.get(pool)
        if books is None:
            books = self._pools[pool] = OrderedDict()
        found = books.get(type)
        if found is None:
            if len(books) >= self._types:
                books.popitem(last=False)
            found = books[type] = TypeBook()
        else:
            books.move_to_end(type)
        return found

    def known(self, pools: Iterable[Key], type: str) -> Estimate | None:
        """Return the service time of the type in the first of these pools that ever succeeded at it."""
        for pool in pools:
            books = self._pools.get(pool)
            if books is not None:
                found = books.get(type)
                if found is not None and found.seconds.count:
                    return found.seconds
        return None

    def forget(self, pool: Key) -> None:
        self._pools.pop(pool, None)

    def of(self, pool: Key) -> tuple[TypePerformance, ...]:
        """Return the `TOLD` types with the most attempts, in the order of their names."""
        books = self._pools.get(pool) or OrderedDict()
        found = [
            TypePerformance(name, book.attempts, book.seconds.mean, sqrt(book.seconds.variance), book.success)
            for name, book in books.items()
        ]
        most = sorted(found, key=lambda each: (-each.attempts, each.type))[:TOLD]
        return tuple(sorted(most, key=lambda each: each.type))

    def recall(self, pool: Key, told: Iterable[TypePerformance]) -> None:
        """Restore what was known before a restart. Types that were observed since then stay as they are."""
        for each in told:
            book = self.book(pool, each.type)
            if book.attempts:
                continue
            book.attempts, book.success = each.attempts, float(each.success)
            if each.mean > 0.0:
                book.seconds.restore(min(MEMORY, each.attempts), each.mean, each.deviation**2)
