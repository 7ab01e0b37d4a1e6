"""How many agents a pool should have, and which go first.

Owns the sizing rule, its hysteresis and the choice of victims. Sizes follow from waiting work that lacks nothing but
room, and from busy slots. Refuses to create or delete anything, and to look at single Tasks.
"""

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from taskdist.api import Reason
from taskdist.core.matching import Demand
from taskdist.core.model import Key, Pool
from taskdist.core.roster import AgentRecord

# Sums of fractions of agents may miss a whole number by this much: an agent is not added for rounding.
EPSILON = 1e-6


@dataclass(frozen=True, slots=True)
class Target:
    """The size a pool should have by the work there is: within its bounds, and why."""

    replicas: int
    reason: Reason
    message: str


def in_turn(demands: Iterable[Demand]) -> list[Demand]:
    """Order demands as they choose pools: the least flexible first."""
    return sorted(demands, key=lambda demand: (len(demand.candidates), demand.candidates))


class Layout:
    """Pools by number, and the demands in the order in which they choose: what `work` goes through each time."""

    __slots__ = ("_most", "demands", "slots")

    def __init__(self, pools: Mapping[Key, Pool], demands: Iterable[Demand]) -> None:
        self.slots = [pool.slots for pool in pools.values()]
        numbers = {key: number for number, key in enumerate(pools)}
        # Of each: its pools as (number, Tasks at once, maximum), and the one with which stays what none has room for.
        self.demands: list[tuple[Demand, list[tuple[int, int, float]], tuple[int, int]]] = []
        for demand in demands:
            found = [(numbers[key], at_once, float(pools[key].maximum)) for key, at_once in demand.candidates]
            growing = [each for each in demand.candidates if pools[each[0]].elastic] or demand.candidates[:1]
            self.demands.append((demand, found, (numbers[growing[-1][0]], growing[-1][1])))
        # For each elastic pool the demands that stay with it, and what their pools could do at once if each had all.
        self._most = [
            [
                (each[0], sum(most * at_once for _, at_once, most in each[1]))
                for each in self.demands
                if each[2][0] == at
            ]
            for at, pool in enumerate(pools.values())
            if pool.elastic
        ]

    @property
    def overfull(self) -> bool:
        """Whether each elastic pool wants more than its maximum for sure, as what waits is more than all could do."""
        for found in self._most:
            for demand, most in found:
                if demand.tasks > most:
                    break
            else:
                return False
        return True


def work(layout: Layout, busy: Sequence[int]) -> list[float]:
    """Return for each pool the agents that its busy slots and its part of the waiting work fill.

    Waiting work counts for the first of its pools that has room below its maximum, what is over for the next; what
    none has room for stays with the last that may grow. The demands choose in the order given.
    """
    load = [taken / slots for taken, slots in zip(busy, layout.slots, strict=True)]
    for demand, candidates, last in layout.demands:
        left = float(demand.tasks)
        if not left:
            continue
        for number, at_once, maximum in candidates:
            room = (maximum - load[number]) * at_once
            if room >= left:
                load[number] += left / at_once
                break
            if room > 0:
                load[number] = maximum
                left -= room
        else:
            load[last[0]] += left / last[1]
    return load


def agents(load: float) -> int:
    """Return the whole agents that hold this load."""
    return ceil(load - EPSILON)


def target(pool: Pool, wanted: int) -> Target:
    """Clamp the agents that the work fills to the pool's bounds."""
    if not pool.elastic:
        return Target(pool.minimum, Reason.FIXED_SIZE, f"replicas is {pool.minimum}.")
    if wanted > pool.maximum:
        return Target(
            pool.maximum,
            Reason.AT_MAXIMUM,
            f"Work for {wanted} agents; maxReplicas is {pool.maximum}. Raise it to serve the work sooner.",
        )
    if wanted < pool.minimum or wanted == 0:
        return Target(
            max(wanted, pool.minimum),
            Reason.AT_MINIMUM if pool.minimum else Reason.IDLE,
            f"Work for {wanted} agents; minReplicas is {pool.minimum}.",
        )
    return Target(wanted, Reason.WORK_WAITING, f"Waiting and running Tasks fill {wanted} agents of {pool.slots} slots.")


class Sizing:
    """The size a pool is given over time: up at once, down after the surplus has held for the delay.

    An elastic pool gets the largest size wanted within the last `scale_down_delay` seconds.
    """

    __slots__ = ("_wanted", "desired", "message", "reason")

    def __init__(self) -> None:
        self.desired: int | None = None
        self.reason = Reason.PROGRESSING
        self.message = ""
        # Sizes wanted of late, falling, each with the last moment at which it was; the last one is wanted now.
        self._wanted: deque[tuple[Target, float]] = deque()

    def step(self, pool: Pool, wanted: Target, existing: int, now: float) -> bool:
        """Take the size wanted now into account; return whether the desired size changed."""
        history = self._wanted
        if not pool.elastic:
            history.clear()
        elif self.desired is None and existing > wanted.replicas:
            # First sight, perhaps after a change of leader: what exists counts as wanted until now.
            history.append((Target(existing, Reason.PROGRESSING, f"{existing} agents exist. {wanted.message}"), now))
        elif history:
            history[-1] = (history[-1][0], now)
        while history and history[-1][0].replicas <= wanted.replicas:
            history.pop()
        history.append((wanted, now))
        while len(history) > 1 and now - history[0][1] >= pool.scale_down_delay:
            history.popleft()
        former, chosen = self.desired, history[0][0]
        self.desired = min(chosen.replicas, pool.maximum) if pool.elastic else chosen.replicas
        self.reason, self.message = chosen.reason, chosen.message
        return self.desired != former

    @property
    def settled(self) -> bool:
        """Whether the size is what is wanted now, so that the passing of time changes nothing."""
        return len(self._wanted) == 1

    def wake(self, pool: Pool) -> float | None:
        """When the largest size wanted of late will have lapsed."""
        return self._wanted[0][1] + pool.scale_down_delay if len(self._wanted) > 1 else None


def at_once(desired: int) -> int:
    """How many outdated agents of a pool of this size are replaced at a time: a quarter, and one at least."""
    return max(1, desired // 4) if desired else 0


def surge(desired: int, outdated: int, leaving: int) -> int:
    """How many agents are added before as many outdated ones go: so no work ever lacks its agents.

    `leaving`: outdated ones that finish what they hold; they count as being replaced until they are gone.
    """
    return max(0, min(at_once(desired) - leaving, outdated))


def victims(idle: Iterable[AgentRecord], busy: Iterable[AgentRecord], surplus: int) -> list[AgentRecord]:
    """Choose who goes: agents that never came up or are not ready, latest first, then the longest idle, then `busy`.

    Outdated ones go before all others, in the same order. The caller gives busy ones only where they may be drained;
    those with least to finish go first.
    """
    chosen = sorted(
        idle, key=lambda agent: (agent.ready, agent.idle_since if agent.ready else -agent.created, agent.uid)
    )
    chosen += sorted(busy, key=lambda agent: (agent.busy, agent.uid))
    chosen.sort(key=lambda agent: not agent.outdated)
    return chosen[:surplus]


def pardons(draining: Iterable[AgentRecord], shortage: int) -> list[AgentRecord]:
    """Choose which draining agents stay after all: those at work first, then the last to become idle."""
    chosen = [agent for agent in draining if agent.ready]
    return sorted(chosen, key=lambda agent: (not agent.leases, -agent.idle_since, agent.uid))[:shortage]
