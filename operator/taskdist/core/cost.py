"""What attempts cost: the part of an agent that they hold, for as long as they hold it.

One rule, for what a Task's status tells and for the figures of the simulator. Refuses to know why slots are held, and
what an agent costs while nobody holds them.
"""

from typing import Final, NamedTuple

from taskdist.core.model import Pool


class Spent(NamedTuple):
    """The cost of attempts so far, in their pools' currency, and their energy in Wh. None: no pool has told a price, or
    a power."""

    cost: float | None = None
    energy: float | None = None


NOTHING: Final = Spent()


def share(slot_seconds: float, slots: int, an_hour: float) -> float:
    """Return the cost of slot-seconds on an agent with `slots` slots.

    `an_hour` is the price of the whole agent for an hour, or its power in watts: then the cost is in Wh.
    """
    return slot_seconds / slots / 3600 * an_hour


def spent(before: Spent, pool: Pool, slots: int, agent_slots: int, seconds: float) -> Spent:
    """Return what is spent with one more attempt, which held `slots` slots of an agent of the pool for `seconds`."""
    slot_seconds = slots * max(0.0, seconds)
    return Spent(
        _more(before.cost, slot_seconds, agent_slots, pool.cost_per_hour),
        _more(before.energy, slot_seconds, agent_slots, pool.watts_busy),
    )


def _more(before: float | None, slot_seconds: float, agent_slots: int, an_hour: float) -> float | None:
    """Add the attempt's cost. A price of 0 means that the pool tells none."""
    if an_hour <= 0.0:
        return before
    return (before or 0.0) + share(slot_seconds, agent_slots, an_hour)
