"""Random numbers that belong to a purpose and a number, not to the moment at which they are drawn.

The n-th number of a purpose is the same whatever else was drawn before it, in whichever order. So variants of a
scenario, in which Tasks start in different orders, see the same arrivals, services and failures (common random
numbers), and their differences are the policies' alone. The core's SplitMix64 is used as a counter-based generator.
Refuses to know distributions.
"""

from taskdist.core.primitives.hashing import GAMMA, hashed, scatter

_HALF_OPEN = 2.0**-53


class Chance:
    """Uniform numbers of one purpose, by their number."""

    __slots__ = ("_key",)

    def __init__(self, seed: int, *purpose: str) -> None:
        # One step back, as `scatter` takes one: number n is n steps from the purpose's hash.
        self._key = hashed(str(seed), *purpose) - GAMMA

    def __call__(self, number: int) -> float:
        """Return the number's uniform: above 0 and below 1, so that every quantile is finite."""
        return ((scatter(self._key + number * GAMMA) >> 12) + 0.5) * 2 * _HALF_OPEN


class Sequence:
    """The uniforms of one purpose one after the other: for processes that draw as many as they need."""

    __slots__ = ("_chance", "_drawn")

    def __init__(self, seed: int, *purpose: str) -> None:
        self._chance = Chance(seed, *purpose)
        self._drawn = 0

    def __call__(self) -> float:
        self._drawn += 1
        return self._chance(self._drawn)
