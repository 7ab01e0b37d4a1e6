"""How much capacity keeps waits below a target: for what waits now, and for what is likely to come.

Owns two formulas, the sums that feed them, and how far a target is undercut. Amounts are in any one unit of capacity
(slots, agents), times in seconds.

*What waits* is a matter of Little's law (1961). N Tasks in a system, of which each is to spend at most T waiting and S
being served, leave it at a rate of N ÷ (S + T), which occupies N·S ÷ (S + T). Where what is busy now does not take in
all that waits within T, the rest needs capacity that is there only after the time D that an agent takes to start; from
then on each takes in one Task at once and 1 ÷ S a second: (n·S − B·T) ÷ (S + T − D) more than the B that are busy.
What comes until then comes at the present rate λ: N + D·(λ − (B + P ÷ 2) ÷ S) are there when it is, P of the capacity
being on its way. The largest of these counts.

*What comes* is a matter of square-root staffing. With an offered load a = λ·S, c = a + β·√a keeps all waiting below T
but for a part ε of it, if P(W > T) = P(W > 0) · exp(−(c − a)·T ÷ S) ≤ ε, where P(W > 0) = 1 ÷ (1 + β·Φ(β) ÷ φ(β))
(Halfin and Whitt, "Heavy-Traffic Limits for Queues with Many Exponential Servers", Operations Research 29, 1981; for
M/M/c the exponential is exact).

Refuses to know pools, agents and bounds.
"""

from collections import deque
from math import erf, exp, log, pi, sqrt
from typing import Final, NamedTuple

from taskdist.core.primitives.inflow import WINDOW

# The part of Tasks that may wait longer than the target.
LATE_PART: Final = 0.05
# Seconds between two looks at what time alone does to arrival rates.
INTERVAL: Final = 5.0
# How far the starts of one window move the logarithm of the factor. Fewer starts than `FEW` count as `FEW`.
GAIN: Final = 2.0
FEW: Final = 50.0
LEAST_PART: Final = 0.1
# The most standard deviations that are added to a load.
MOST_MARGIN: Final = 8.0


def for_backlog(
    busy: float, waiting: float, service: float, target: float, start: float, rate: float, starting: float
) -> float:
    """Return the capacity that lets all that waits now start within the target; at most one place for each.

    `start`: how long it takes until more capacity is there; `starting`: how much of it is on its way. `rate`: of Tasks
    that come, in capacity a second. Without a target, or where nothing is known of how long
    Tasks take: an own place for each.
    """
    if service <= 0.0:
        return busy + waiting
    there = busy + waiting
    # By how much what waits will have grown, or shrunk, when more capacity is there.
    growth = start * (rate - (busy + starting / 2.0) / service)
    needed = (there + max(0.0, growth)) * service / (service + target)
    short = waiting * service - busy * target
    if short > 0.0:
        needed = max(needed, busy + short / (service + max(0.0, target - start)))
    return min(there, needed)


class _Needed(NamedTuple):
    """A capacity that was needed, and the last moment at which it was."""

    capacity: float
    at: float


class Usual:
    """The highest capacity that arrivals needed lately: pools do not shrink below it.

    This holds for pools with a target that have work. Lately: within a `WINDOW`, or within twice as long as a Task
    takes if that is more.
    """

    __slots__ = ("_at", "_history")

    def __init__(self) -> None:
        # Falling.
        self._history: deque[_Needed] = deque()
        self._at = -1.0

    def due(self, now: float) -> bool:
        """Whether it has not been worked out for this time yet."""
        return now != self._at

    def add(self, capacity: float, service: float, now: float) -> None:
        history = self._history
        while history and history[-1].capacity <= capacity:
            history.pop()
        history.append(_Needed(capacity, now))
        while history[0].at < now - max(WINDOW, 2.0 * service):
            history.popleft()
        self._at = now

    @property
    def most(self) -> float:
        return self._history[0].capacity if self._history else 0.0


class Haste:
    """The factor on a pool's target that lets all but `LATE_PART` of its Tasks start within the target.

    The formulas take Tasks to start in the order of their coming. Where levels, deadlines or shares decide, some wait
    longer than that; so the target that they are given follows what is observed: each start that was late lowers it,
    each other one raises it, by such steps that it stands still where `LATE_PART` of them are late (Robbins and Monro,
    "A Stochastic Approximation Method", 1951). Never above the target, and never below a tenth of it.
    """

    __slots__ = ("_log",)

    def __init__(self) -> None:
        self._log = 0.0

    def started(self, late: bool, among: float) -> None:
        """Note that a Task started, late or not; `among` is how many start in a window."""
        step = GAIN / max(among, FEW)
        self._log += -step * (1.0 - LATE_PART) if late else step * LATE_PART
        self._log = min(0.0, max(self._log, log(LEAST_PART)))

    @property
    def part(self) -> float:
        return exp(self._log)


def for_arrivals(load: float, service: float, target: float) -> float:
    """Return the capacity with which at most `LATE_PART` of what comes at this load waits longer than the target."""
    if load <= 0.0 or service <= 0.0:
        return load
    root = sqrt(load)
    low, high = 0.0, MOST_MARGIN
    for _ in range(30):
        middle = (low + high) / 2.0
        if _late(middle, root, service, target) > LATE_PART:
            low = middle
        else:
            high = middle
    return load + high * root


def _late(beta: float, root: float, service: float, target: float) -> float:
    """Return the part of Tasks that waits longer than the target, with `beta` square roots of the load to spare."""
    density = exp(-beta * beta / 2.0) / sqrt(2.0 * pi)
    below = (1.0 + erf(beta / sqrt(2.0))) / 2.0
    return exp(-beta * root * target / service) / (1.0 + beta * below / density)
