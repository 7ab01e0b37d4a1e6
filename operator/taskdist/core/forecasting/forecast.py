"""When a waiting Task is expected to start: the work before it, divided by the rate at which its agents release slots.

Owns the model. A Task waits for a backlog W of slot-seconds: what goes before it, and the first release after that. The
c slots of its agents work it off at c slot-seconds a second, less the rate at which work arrives that goes before it
all the same (higher levels). So the wait is a delay busy period (Conway, Maxwell and Miller, "Theory of Scheduling",
1967, chapter 8; Cobham's priority queue is the case of Poisson arrivals), with c slots taken as one server of speed c,
as in the heavy-traffic limit of G/G/c (Kingman 1962, Köllerström 1974):

    mean      E W ÷ d                      with d = c − λ·E[S]
    variance  (Var W + T·v) ÷ d²           over the mean wait T, where v is the variance of λ·S over a second

W is a sum of many service times: its variance is the sum of theirs, and its means are known only as well as they were
observed. A Task that waiting lifts is passed by fewer from then on: d holds for one level at a time. The 80% interval
is that of a gamma distribution with this mean and variance, which is exact for M/M/c (the k-th departure of c busy
exponential servers has an Erlang distribution).

Refuses to know Tasks, agents and clocks: amounts in, seconds out.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Final

from taskdist.core.forecasting.arrivals import Load
from taskdist.core.forecasting.overtaking import NO_PASSING, Passing
from taskdist.core.primitives.service_times import MEMORY, TENTH, Estimate

# What arrivals leave of the slots is not known better than this: a wait without end is not forecast.
LEAST_LEFT: Final = 0.05
# Nobody plans by what lies farther off, and times beyond some thousand years cannot be written.
FARTHEST: Final = 10 * 365.25 * 86_400
# Of the work ahead, so much must be of types that were observed.
LEAST_SEEN: Final = 0.5


@dataclass(frozen=True, slots=True)
class Backlog:
    """Work in slot-seconds. `variance`: of the sum; `error`: of its mean, which is an estimate; `seen`: how much of it
    is of observed types."""

    tasks: float = 0.0
    work: float = 0.0
    variance: float = 0.0
    error: float = 0.0
    seen: float = 0.0

    def __add__(self, other: "Backlog") -> "Backlog":
        return Backlog(
            self.tasks + other.tasks,
            self.work + other.work,
            self.variance + other.variance,
            self.error + other.error,
            self.seen + other.seen,
        )


def doubt(known: Estimate) -> float:
    """Return the variance of the estimate's mean. The first attempts to end are the short ones: they say less."""
    if known.count < 2:
        return known.mean**2
    # That of n observations; n weighted ones that fade are worth some 2n.
    return known.variance / (known.count / 2 if known.count < MEMORY else 2 * MEMORY - 1)


def backlog(tasks: float, slots: int, default: float, known: Estimate | None) -> Backlog:
    """Return the work of `tasks` Tasks of one type. A type without observations counts as exponential."""
    if known is None:
        work = tasks * slots * default
        return Backlog(tasks, work, tasks * (slots * default) ** 2, work * work, 0.0)
    work = tasks * slots * known.mean
    return Backlog(tasks, work, tasks * slots**2 * known.variance, (tasks * slots) ** 2 * doubt(known), work)


@dataclass(frozen=True, slots=True)
class Forecast:
    """Seconds from now: the mean, and the 80% interval."""

    mean: float
    low: float
    high: float


def forecast(
    ahead: Backlog,
    own: Backlog,
    capacity: float,
    phases: Sequence[tuple[float, Load]],
    passing: Passing = NO_PASSING,
) -> Forecast | None:
    """Return when a Task with this work ahead of it starts; None where too little of the work is of observed types.

    `own` is the work of the Task itself: the first release after all ahead of it have started takes about as long.
    `capacity` are the slots of the agents that may run it. `phases` are, for one level after the other, until when the
    Task stands there (seconds from now; the last one is infinite) and what comes above it then; `passing` is what comes
    at its own level and goes first.
    """
    if capacity <= 0 or ahead.seen + own.seen < LEAST_SEEN * (ahead.work + own.work):
        return None
    work = ahead.work + own.work
    if work <= 0:
        # Its like takes no time that could be measured.
        return Forecast(0.0, 0.0, 0.0)

    def spare(seconds: float) -> float:
        """What is left of the capacity by then, once all that goes first is served: it starts when that is not
        negative."""
        above = sum(load.work * lasts for load, lasts in _lasting(phases, seconds))
        return max(LEAST_LEFT * capacity * seconds, capacity * seconds - above - passing.work(seconds)) - work

    mean = _root(spare, work / capacity)
    # The variance of the time to the first release is that of an exponential.
    variance = ahead.variance + ahead.error + own.work**2 + passing.variance(mean)
    for load, lasts in _lasting(phases, mean):
        variance += load.variance * lasts + load.error * lasts**2
    # At the speed at which work goes down when its turn comes, as far as that can be told.
    drain = max((spare(1.1 * mean) - spare(0.9 * mean)) / (0.2 * mean), LEAST_LEFT * capacity)
    found = gamma_interval(mean, variance / drain**2)
    return found if found.high <= FARTHEST else None


def _lasting(phases: Sequence[tuple[float, Load]], seconds: float) -> Iterator[tuple[Load, float]]:
    """Yield each load with how long it lasts within the next `seconds`."""
    begun = 0.0
    for until, load in phases:
        if seconds > begun:
            yield load, min(seconds, until) - begun
        begun = until


def _root(spare: Callable[[float], float], least: float) -> float:
    """Return where the function, negative at first, comes to zero: bracketed by doubling, then halved."""
    low, high = least, least
    while spare(high) < 0:
        low, high = high, 2 * high
    for _ in range(20):
        middle = (low + high) / 2
        if spare(middle) < 0:
            low = middle
        else:
            high = middle
    return high


def gamma_interval(mean: float, variance: float) -> Forecast:
    """Return the mean and the 80% interval of a gamma distribution (Wilson and Hilferty, 1931: its cube root is nearly
    normal)."""
    if mean <= 0 or variance <= 0:
        return Forecast(mean, mean, mean)
    # Beyond this much spread the approximation fails, and the interval says no more than "nobody knows" anyway.
    shape = max(0.5, mean * mean / variance)
    middle, spread = 1 - 1 / (9 * shape), TENTH / (3 * sqrt(shape))
    low, high = max(0.0, middle - spread) ** 3, max(0.0, middle + spread) ** 3
    return Forecast(mean, mean * low, mean * high)
