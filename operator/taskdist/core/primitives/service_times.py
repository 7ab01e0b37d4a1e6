"""Service times: how long attempts hold their slots, estimated for each type of Task from what was observed.

Owns a moving average and variance per (queue, type). The first `MEMORY` observations count alike, so that the average
finds its level at once; from then on each new one has the weight 1/MEMORY, so that it follows a change within some
MEMORY attempts while its own error stays at a tenth of the spread of single attempts: √(w ÷ (2 − w)) for weight w.
Both are brought forward one by one as in T. Finch, "Incremental calculation of weighted mean and variance" (2009).

Refuses to grow with users' words: of more than `TYPES` types, those observed longest ago are forgotten.
"""

from collections import OrderedDict
from math import exp, log1p, sqrt
from typing import Final

# (namespace, name) of a queue.
QueueKey = tuple[str, str]

MEMORY: Final = 50
TYPES: Final = 10_000
# A tenth of the standard normal distribution lies below its negative, and 80% between the two.
TENTH: Final = 1.2816


def quantile(mean: float, variance: float, z: float) -> float:
    """Return the quantile of a lognormal with this mean and variance, in seconds, at `z` of the standard normal."""
    if mean <= 0.0:
        return 0.0
    spread = log1p(variance / mean**2)
    return mean * exp(z * sqrt(spread) - spread / 2)


class Estimate:
    """The service time of one type: mean and variance in seconds, and of how many observations (`MEMORY` at most)."""

    __slots__ = ("count", "forgotten", "mean", "variance")

    def __init__(self) -> None:
        # It was dropped from the table of types: whoever holds a reference asks again.
        self.forgotten = False
        self.count = 0
        self.mean = 0.0
        self.variance = 0.0

    def add(self, seconds: float) -> None:
        if self.count < MEMORY:
            self.count += 1
        weight = 1.0 / self.count
        difference = seconds - self.mean
        step = weight * difference
        self.mean += step
        self.variance = (1.0 - weight) * (self.variance + difference * step)

    def restore(self, count: int, mean: float, variance: float) -> None:
        """Start from what was known before."""
        self.count, self.mean, self.variance = count, float(mean), float(variance)

    @property
    def quickest(self) -> float:
        """Seconds that one attempt in ten stays below, were they lognormal with this mean and variance.

        Of a single observation nothing says how they vary: it is taken to be as much as with an exponential.
        """
        return quantile(self.mean, self.mean**2 if self.count < 2 else self.variance, -TENTH)


class Estimates:
    """Service times by queue and type; the types seen longest ago are forgotten."""

    def __init__(self, types: int = TYPES) -> None:
        self._types = types
        self._known: OrderedDict[tuple[QueueKey, str], Estimate] = OrderedDict()

    def __len__(self) -> int:
        return len(self._known)

    def expected(self, queue: QueueKey, type: str, declared: float) -> float:
        """Return the seconds that an attempt of this type takes on average; what is `declared` before any was seen."""
        found = self._known.get((queue, type))
        return declared if found is None else found.mean

    def of(self, queue: QueueKey, type: str) -> Estimate | None:
        """Return what was observed of the type, None if nothing was. Good until it is `forgotten`."""
        return self._known.get((queue, type))

    def begin(self, queue: QueueKey, type: str, like: Estimate) -> Estimate:
        """Start the estimate of a type that was not observed here from one that was made elsewhere."""
        found = self._enter((queue, type))
        found.restore(like.count, like.mean, like.variance)
        return found

    def observe(self, queue: QueueKey, type: str, seconds: float) -> None:
        """Add an observation: an attempt of this type held its slots for so many seconds."""
        key = (queue, type)
        found = self._known.get(key)
        if found is None:
            found = self._enter(key)
        else:
            self._known.move_to_end(key)
        found.add(seconds)

    def _enter(self, key: tuple[QueueKey, str]) -> Estimate:
        if len(self._known) >= self._types:
            _, oldest = self._known.popitem(last=False)
            oldest.forgotten = True
        found = self._known[key] = Estimate()
        return found
