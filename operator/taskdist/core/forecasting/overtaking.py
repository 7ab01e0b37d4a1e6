"""The work that comes later than a Task at its own level and still starts before it.

Owns the model of overtaking. Of the same tenant, later Tasks overtake that have to start sooner. Of another tenant, or
another queue, as much overtakes as its share is entitled to before our turn and has arrived by then: what waits now
beyond that waits behind us, and arrivals are served first only as far as the entitlement is not used up (generalized
processor sharing: Parekh and Gallager 1993). What overtakes within our own tenant puts our turn off, and so lets more
of the others overtake.

Knows no Tasks: amounts in slot-seconds and virtual times in, slot-seconds out.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from taskdist.core.forecasting.arrivals import NO_LOAD, Load


@dataclass(frozen=True, slots=True)
class Rival:
    """A competing share: its `backlog`, what it is `entitled` to until our turn, and its arrivals (`load`)."""

    backlog: float
    entitled: float
    weight: float
    load: Load

    def served(self, seconds: float, delay: float) -> float:
        """Return how much of it is served before our turn: `seconds` from now, put off by `delay` of virtual time."""
        return min(self.backlog + self.load.work * seconds, max(0.0, self.entitled + delay * self.weight))

    def passed(self, seconds: float, delay: float) -> float:
        """Return how much of that was not already counted as ahead of us."""
        return self.served(seconds, delay) - self.served(0.0, 0.0)

    def limited(self, seconds: float, delay: float) -> bool:
        """Whether its share bounds it, so that more arrivals make no difference."""
        return self.served(seconds, delay) < self.backlog + self.load.work * seconds


@dataclass(frozen=True, slots=True)
class Passing:
    """The work that overtakes one Task. `reach`: seconds until its latest start; `slacks`: the same for others like it
    when they came. `tenants`: the others of its queue; `queues`: other queues."""

    load: Load = NO_LOAD
    reach: float = 0.0
    slacks: tuple[float, ...] = ()
    weight: float = 1.0
    tenants: Sequence[Rival] = ()
    queue_weight: float = 1.0
    queues: Sequence[Rival] = ()
    # The variance of what a tenant's running Tasks take, beyond what they were charged.
    running: float = 0.0

    def part(self, seconds: float) -> float:
        """Return the part of the next `seconds` in which arrivals of its own tenant go before it, on average."""
        if not self.slacks or seconds <= 0:
            return 0.0
        # One that comes after t seconds goes first if t + its slack is less than what we reach.
        times = sum(min(seconds, max(0.0, self.reach - slack)) for slack in self.slacks)
        return times / len(self.slacks) / seconds

    def work(self, seconds: float) -> float:
        """Return the work that overtakes it within so many seconds."""
        return sum(self._work(seconds))

    def _work(self, seconds: float) -> tuple[float, float]:
        own = self.load.work * seconds * self.part(seconds)
        ours = own + sum(each.passed(seconds, own / self.weight) for each in self.tenants)
        return ours, sum(each.passed(seconds, ours / self.queue_weight) for each in self.queues)

    def variance(self, seconds: float) -> float:
        """Return the variance of that work: of arrivals by chance, and of the rates, which are estimates."""
        part = self.part(seconds)
        found = part * seconds * self.load.variance + (part * seconds) ** 2 * self.load.error
        own = self.load.work * seconds * part
        ours, _ = self._work(seconds)
        for rivals, delay in ((self.tenants, own / self.weight), (self.queues, ours / self.queue_weight)):
            for rival in rivals:
                if not rival.limited(seconds, delay):
                    found += rival.load.variance * seconds + rival.load.error * seconds**2
        # Where shares decide, they are as uncertain as what runs: each is charged by an estimate until it has ended.
        tied = [each for each in self.tenants if each.limited(seconds, own / self.weight)]
        ratio = sum(each.weight for each in tied) / self.weight
        return found + self.running * (len(tied) + ratio * ratio)


NO_PASSING: Final = Passing()
