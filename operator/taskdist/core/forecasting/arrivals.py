"""Arrival rates of work by level: how much is going to overtake a waiting Task.

Owns decaying sums of arrivals by class of Tasks and level, over blocks of time: the sum of the blocks gives the rate,
the sum of their squares its variance. Blocks tell a batch from a stream: a thousand Tasks at once are one event, which
may or may not come again (index of dispersion: Cox and Lewis, "The Statistical Analysis of Series of Events", 1966).
Arrivals are counted in slots and priced when asked for, by what is known of their type then. Refuses to keep what has
dried up.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import exp, sqrt
from typing import Final

from taskdist.core.fleet.equivalence import Shape
from taskdist.core.model import EMERGENCY, Key
from taskdist.core.primitives.inflow import LEAST_SPAN, WINDOW

# Arrivals are averaged over `WINDOW` seconds, in blocks of so many.
BLOCK: Final = 5.0
FADE: Final = exp(-BLOCK / WINDOW)
# By age in blocks; what is older counts for nothing.
FADES: Final = tuple(FADE**age for age in range(round(10 * WINDOW / BLOCK)))
# The last Tasks of a tenant of which it is kept how soon after their coming they had to start.
SLACKS: Final = 16


@dataclass(frozen=True, slots=True)
class Load:
    """Work that arrives, in slot-seconds a second, with its variance over one second. `doubt`: the variance of its
    mean, as service times are estimates."""

    work: float = 0.0
    variance: float = 0.0
    doubt: float = 0.0

    @property
    def error(self) -> float:
        """Return the variance of the mean: of the rate, averaged over a window, and of the service times."""
        return self.variance / WINDOW + self.doubt


NO_LOAD: Final = Load()


class Flow:
    """The arrival rate of one shape, or of one tenant, at one level: in slots, as fading sums over blocks of time."""

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
        age = number - self.number
        fade = 0.0 if age >= len(FADES) else FADES[age if age > 0 else 0]
        mean = (self.slots + self.block) * fade / blocks
        variance = (self.squares + self.block * self.block) * fade / blocks - mean * mean
        return mean / BLOCK, variance / BLOCK if variance > 0.0 else 0.0


class TenantFlow:
    """The arrivals of one tenant at one level, and how soon each of the last had to start."""

    __slots__ = ("flow", "slacks")

    def __init__(self, number: int) -> None:
        self.flow = Flow(number)
        self.slacks: deque[float] = deque(maxlen=SLACKS)


@dataclass(frozen=True, slots=True)
class TenantRate:
    """The arrival rate of one tenant at one level, as of now.

    `slots` a second, their variance over a second, and the slacks of some of its Tasks.
    """

    slots: float = 0.0
    variance: float = 0.0
    slacks: tuple[float, ...] = ()


# (name of the queue, tenant), as the shares of a band are called.
Owner = tuple[str, str]
# By queue and type: the mean seconds that a slot is held, and the variance of that mean.
Price = Callable[[Key, str], tuple[float, float]]
Prospect = tuple[list[Load], list[dict[str, float]]]


class Arrivals:
    """Recent arrivals by shape and level, and by tenant: the rates at which forecasts expect more."""

    def __init__(self) -> None:
        self._shapes: dict[Shape, list[Flow | None]] = {}
        self._tenants: dict[tuple[int, Owner], TenantFlow] = {}
        self._begun: int | None = None
        # What `from_level` said in the present block.
        self._asked_at = 0
        self._answers: dict[tuple[Key, ...], Prospect] = {}
        self._sweep_at = 1024

    def add(self, level: int, shape: Shape, owner: Owner, slack: float, at: float) -> None:
        """Count a Task that came at this level; `slack` is how many seconds after its coming it had to start."""
        number = int(at // BLOCK)
        if self._begun is None or number < self._begun:
            self._begun = number
        flows = self._shapes.get(shape)
        tenant = self._tenants.get((level, owner))
        if flows is None or tenant is None:
            if len(self._shapes) + len(self._tenants) >= self._sweep_at:
                self._sweep(number)
            flows = self._shapes.setdefault(shape, [None] * (EMERGENCY + 1))
            tenant = self._tenants.setdefault((level, owner), TenantFlow(number))
        flow = flows[level]
        if flow is None:
            flow = flows[level] = Flow(number)
        slots = shape.need.slots
        flow.add(slots, number)
        tenant.flow.add(slots, number)
        tenant.slacks.append(slack)

    def from_level(self, pools: tuple[Key, ...], now: float, price: Price) -> Prospect:
        """Return the load of these pools from each level up, and the mean seconds that a slot of what comes is held, by
        level and name of the queue.

        What is known at the beginning of a block is good enough for all of it: many may ask at once.
        """
        number = int(now // BLOCK)
        if number != self._asked_at:
            self._asked_at = number
            self._answers.clear()
        found = self._answers.get(pools)
        if found is None:
            found = self._answers[pools] = self._from_level(pools, now, price)
        return found

    def _from_level(self, pools: Iterable[Key], now: float, price: Price) -> Prospect:
        loads, seconds = [Load()], [dict[str, float]() for _ in range(EMERGENCY + 1)]
        if self._begun is None:
            return loads * (EMERGENCY + 2), seconds
        mine, number, blocks = frozenset(pools), int(now // BLOCK), self._blocks(now)
        parts: dict[tuple[Key, ...], float] = {}
        # By level, queue and type: classes of one type share its price and the error of that.
        rates: list[dict[tuple[Key, str], tuple[float, float]]] = [{} for _ in seconds]
        whole: list[dict[Key, float]] = [{} for _ in seconds]
        for shape, flows in self._shapes.items():
            # Its work spreads over all pools that may take it.
            part = parts.get(shape.pools)
            if part is None:
                shared = sum(pool in mine for pool in shape.pools)
                part = parts[shape.pools] = shared / len(shape.pools) if shared else 0.0
            if not part:
                continue
            key = (shape.queue_key, shape.need.type)
            for level, flow in enumerate(flows):
                if flow is not None:
                    slots, variance = flow.rate(number, blocks)
                    others, varies = rates[level].get(key, (0.0, 0.0))
                    rates[level][key] = (others + slots * part, varies + variance * part * part)
                    whole[level][shape.queue_key] = whole[level].get(shape.queue_key, 0.0) + slots
        prices = {key: price(*key) for key in dict.fromkeys(key for each in rates for key in each)}
        for level in range(EMERGENCY, -1, -1):
            work: dict[Key, float] = {}
            for key, (slots, _) in rates[level].items():
                (queue, _), (price_of_slot, _) = key, prices[key]
                work[queue] = work.get(queue, 0.0) + slots * price_of_slot
            seconds[level] = {"/".join(queue): work[queue] / slots for queue, slots in whole[level].items() if slots}
            loads.append(_priced(rates[level], prices, loads[-1]))
        return loads[::-1], seconds

    def beside(self, level: int, now: float) -> dict[Owner, TenantRate]:
        """Return the arrival rates at this level, by owner."""
        if self._begun is None:
            return {}
        number, blocks = int(now // BLOCK), self._blocks(now)
        return {
            owner: TenantRate(*tenant.flow.rate(number, blocks), tuple(tenant.slacks))
            for (at, owner), tenant in self._tenants.items()
            if at == level
        }

    def taking(self, level: int, now: float, amount: Callable[[Shape], float]) -> Load:
        """Return what comes above this level, in units of what a Task of each shape takes of some limit."""
        if self._begun is None:
            return Load()
        number, blocks = int(now // BLOCK), self._blocks(now)
        work = variance = 0.0
        for shape, flows in self._shapes.items():
            each = amount(shape) / shape.need.slots
            for flow in flows[level + 1 :] if each else ():
                if flow is not None:
                    slots, varies = flow.rate(number, blocks)
                    work += slots * each
                    variance += varies * each * each
        return Load(work, variance)

    def above(self, level: int, owner: Owner, now: float) -> Load:
        """Return what comes of one tenant above this level, in slots."""
        if self._begun is None:
            return Load()
        number, blocks = int(now // BLOCK), self._blocks(now)
        work = variance = 0.0
        for higher in range(level + 1, EMERGENCY + 1):
            tenant = self._tenants.get((higher, owner))
            if tenant is not None:
                slots, varies = tenant.flow.rate(number, blocks)
                work, variance = work + slots, variance + varies
        return Load(work, variance)

    def _blocks(self, now: float) -> float:
        """Return how many blocks the window holds by now, in weights that fade."""
        assert self._begun is not None
        passed = max(LEAST_SPAN / BLOCK, int(now // BLOCK) - self._begun + 1.0)
        return (1.0 - exp(-passed * BLOCK / WINDOW)) / (1.0 - FADE)

    def _sweep(self, number: int) -> None:
        oldest = number - 10 * WINDOW / BLOCK
        for shape in [
            shape for shape, flows in self._shapes.items() if all(not flow or flow.number < oldest for flow in flows)
        ]:
            del self._shapes[shape]
        for key in [key for key, tenant in self._tenants.items() if tenant.flow.number < oldest]:
            del self._tenants[key]
        self._sweep_at = max(1024, 2 * (len(self._shapes) + len(self._tenants)))


def _priced(
    rates: dict[tuple[Key, str], tuple[float, float]], prices: dict[tuple[Key, str], tuple[float, float]], above: Load
) -> Load:
    """Return the load of these arrivals and of those above. Errors of one type at several levels add up in full."""
    work = noise = error = 0.0
    for key, (slots, variance) in rates.items():
        seconds, doubt = prices[key]
        work += slots * seconds
        noise += variance * seconds * seconds
        error += slots * slots * doubt
    noise += above.variance
    return Load(above.work + work, noise, float(error + 2.0 * sqrt(error * above.doubt) + above.doubt))
