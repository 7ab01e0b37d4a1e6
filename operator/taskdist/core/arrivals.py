"""How much work comes at which level: what a Task that waits is going to be passed by.

Owns decaying sums of arrivals by class of Tasks and level, over blocks of time: the sum of the blocks gives the rate,
the sum of their squares its variance. Blocks tell a batch from a stream: a thousand Tasks at once are one event, which
may or may not come again (index of dispersion: Cox and Lewis, "The Statistical Analysis of Series of Events", 1966).
Arrivals are counted in slots and priced when asked for, by what is known of their type then. Refuses to keep what has
dried up.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import exp

from taskdist.core.matching import Shape
from taskdist.core.model import EMERGENCY, Key

# Arrivals are averaged over about so many seconds,
WINDOW = 300.0
# in blocks of so many. The first `SETTLED` of them say little of what is usual.
BLOCK = 5.0
SETTLED = 24.0
FADE = exp(-BLOCK / WINDOW)


@dataclass(frozen=True, slots=True)
class Load:
    """Work that arrives: slot-seconds a second, the variance of that over one second, and that of its mean, which is
    an estimate."""

    work: float = 0.0
    variance: float = 0.0
    error: float = 0.0


class Flow:
    """Slots asked for by what arrives of one class at one level."""

    __slots__ = ("block", "number", "slots", "squares")

    def __init__(self, number: int) -> None:
        self.number = number
        self.block = self.slots = self.squares = 0.0

    def add(self, slots: int, number: int) -> None:
        if number < self.number:
            # Heard of late.
            faded = slots * FADE ** (self.number - number)
            self.slots += faded
            self.squares += faded * slots
            return
        if number > self.number:
            fade = FADE ** (number - self.number)
            self.slots = (self.slots + self.block) * fade
            self.squares = (self.squares + self.block * self.block) * fade
            self.block, self.number = 0.0, number
        self.block += slots

    def rate(self, number: int, blocks: float) -> tuple[float, float]:
        """Return slots a second and their variance, in block `number` of a window that holds so many blocks."""
        fade = FADE ** max(0, number - self.number)
        mean = (self.slots + self.block) * fade / blocks
        squares = (self.squares + self.block * self.block) * fade / blocks
        return mean / BLOCK, max(0.0, squares - mean * mean) / BLOCK


class Arrivals:
    """All that comes."""

    def __init__(self) -> None:
        self._levels: dict[int, dict[Shape, Flow]] = {}
        self._begun: int | None = None
        self._flows = 0
        self._sweep_at = 1024

    def add(self, level: int, shape: Shape, at: float) -> None:
        """A Task of this class came at this level, then."""
        number = int(at // BLOCK)
        flows = self._levels.get(level)
        if flows is None:
            flows = self._levels[level] = {}
        if self._begun is None or number < self._begun:
            self._begun = number
        flow = flows.get(shape)
        if flow is None:
            if self._flows >= self._sweep_at:
                self._sweep(number)
            flow = flows[shape] = Flow(number)
            self._flows += 1
        flow.add(shape.need.slots, number)

    def above(self, pools: Iterable[Key], now: float, price: Callable[[Key, str], tuple[float, float]]) -> list[Load]:
        """Return by level what comes at higher ones and may take of these pools.

        `price` says for a queue and type how many seconds a slot is held, and the variance of that mean.
        """
        if self._begun is None:
            return [Load()] * (EMERGENCY + 1)
        mine, number = frozenset(pools), int(now // BLOCK)
        # How many blocks the window holds by now, in weights that fade.
        blocks = (1.0 - FADE ** max(SETTLED, number - self._begun + 1)) / (1.0 - FADE)
        # By queue and type: classes of one type share its price and the error of that.
        rates: dict[tuple[Key, str], tuple[float, float]] = {}
        found = [Load()]
        for level in range(EMERGENCY, 0, -1):
            for shape, flow in self._levels.get(level, {}).items():
                # Its work spreads over all pools that may take it.
                if shared := sum(pool in mine for pool in shape.pools):
                    part = shared / len(shape.pools)
                    key = (shape.queue_key, shape.need.type)
                    slots, variance = flow.rate(number, blocks)
                    sums = rates.get(key, (0.0, 0.0))
                    rates[key] = (sums[0] + slots * part, sums[1] + variance * part * part)
            found.append(_priced(rates, price))
        return found[::-1]

    def _sweep(self, number: int) -> None:
        for flows in self._levels.values():
            for shape in [shape for shape, flow in flows.items() if number - flow.number > 10 * WINDOW / BLOCK]:
                del flows[shape]
        self._flows = sum(map(len, self._levels.values()))
        self._sweep_at = max(1024, 2 * self._flows)


def _priced(
    rates: dict[tuple[Key, str], tuple[float, float]], price: Callable[[Key, str], tuple[float, float]]
) -> Load:
    work = noise = error = 0.0
    for (queue, type), (slots, variance) in rates.items():
        seconds, doubt = price(queue, type)
        work += slots * seconds
        noise += variance * seconds * seconds
        error += slots * slots * doubt
    return Load(work, noise, noise / WINDOW + error)
