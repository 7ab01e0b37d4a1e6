"""Random numbers that belong to a purpose and a number, not to the moment at which they are drawn.

The n-th number of a purpose is the same whatever else was drawn before it, in whichever order. So variants of a
scenario, in which Tasks start in different orders, see the same arrivals, services and failures (common random
numbers), and their differences are the policies' alone. SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom
Number Generators, OOPSLA 2014) used as a counter-based generator. Refuses to know distributions.
"""

from hashlib import blake2b

_MASK = (1 << 64) - 1
_GAMMA = 0x9E3779B97F4A7C15
_HALF_OPEN = 2.0**-53


class Chance:
    """Uniform numbers of one purpose, by their number."""

    __slots__ = ("_key",)

    def __init__(self, seed: int, *purpose: str) -> None:
        name = "\0".join((str(seed), *purpose))
        self._key = int.from_bytes(blake2b(name.encode(), digest_size=8).digest(), "big")

    def __call__(self, number: int) -> float:
        """Return the number's uniform: above 0 and below 1, so that every quantile is finite."""
        z = (self._key + number * _GAMMA) & _MASK
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
        return (((z ^ (z >> 31)) >> 12) + 0.5) * 2 * _HALF_OPEN


class Sequence:
    """The uniforms of one purpose one after the other: for processes that draw as many as they need."""

    __slots__ = ("_chance", "_drawn")

    def __init__(self, seed: int, *purpose: str) -> None:
        self._chance = Chance(seed, *purpose)
        self._drawn = 0

    def __call__(self) -> float:
        self._drawn += 1
        return self._chance(self._drawn)
