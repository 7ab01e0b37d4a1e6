"""How many agents a pool should have, and which go first.

Owns the sizing rule, its hysteresis and the choice of victims. Sizes follow from waiting work that lacks nothing but
room, and from busy slots; where Tasks may wait for a while, by the formulas of `staffing`. Refuses to create or delete
anything, and to look at single Tasks.
"""

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from math import ceil
from typing import Final, NamedTuple

from taskdist.api import Reason
from taskdist.core.agents.roster import AgentRecord
from taskdist.core.fleet.equivalence import Demand
from taskdist.core.model import ZONE, Key, Pool
from taskdist.core.scaling.staffing import Haste, Usual, for_arrivals, for_backlog

# Sums of fractions of agents may miss a whole number by this much: an agent is not added for rounding.
EPSILON: Final = 1e-6


@dataclass(frozen=True, slots=True)
class TargetSize:
    """The size that a pool should have for its work, within its bounds, and why."""

    replicas: int
    reason: Reason
    message: str


def least_flexible_first(demands: Iterable[Demand]) -> list[Demand]:
    """Order demands as they choose pools: those with the fewest pools first."""
    return sorted(demands, key=lambda demand: (len(demand.candidates), demand.candidates))


class PoolOption(NamedTuple):
    """A pool, by its number, that a demand may choose, and how many of its Tasks one agent there runs at once."""

    number: int
    at_once: int


class DemandPools(NamedTuple):
    """A demand with its pools: the first that may grow, and the last, with which stays what none has room for."""

    demand: Demand
    options: list[PoolOption]
    first: PoolOption
    last: PoolOption


class Layout:
    """Pools by number, and the demands in the order in which they choose: what `work` goes through each time.

    Of its pools a demand chooses the one first where a place costs least, of those that cost the same the first named.
    """

    __slots__ = ("_most", "demands", "pools", "slots", "timed")

    def __init__(self, pools: Mapping[Key, Pool], demands: Iterable[Demand]) -> None:
        self.pools = list(pools.values())
        self.slots = [pool.slots for pool in pools.values()]
        # Whether any pool has a target for how long Tasks wait.
        self.timed = any(pool.target_queue > 0.0 for pool in pools.values())
        numbers = {key: number for number, key in enumerate(pools)}
        self.demands: list[DemandPools] = []
        for demand in demands:
            candidates = sorted(demand.candidates, key=lambda each: pools[each.pool].cost_per_hour / each.at_once)
            found = [PoolOption(numbers[key], at_once) for key, at_once in candidates]
            growing = [each for each in found if self.pools[each.number].elastic] or found[:1]
            self.demands.append(DemandPools(demand, found, growing[0], growing[-1]))
        # For each elastic pool the demands that stay with it, and what their pools could do at once if each had all.
        self._most = [
            [
                (each.demand, sum(self.pools[number].maximum * at_once for number, at_once in each.options))
                for each in self.demands
                if each.last.number == at
            ]
            for at, pool in enumerate(pools.values())
            if pool.elastic
        ]

    @property
    def overfull(self) -> bool:
        """Whether each elastic pool surely wants more than its maximum: more waits than all could do."""
        if self.timed:
            return False
        for found in self._most:
            for demand, most in found:
                if demand.startable > most:
                    break
            else:
                return False
        return True


def work(layout: Layout, busy: Sequence[int], most: Sequence[int]) -> list[float]:
    """Return for each pool the agents that its busy slots and its part of the waiting work fill.

    Waiting work counts for the first of its pools that has room below what it may have, what is over for the next; what
    none has room for stays with the last that may grow. The demands choose in the order given. `most`: how many agents
    each pool may have now.
    """
    load = [taken / slots for taken, slots in zip(busy, layout.slots, strict=True)]
    for demand, candidates, _, last in layout.demands:
        left = float(demand.startable)
        if not left:
            continue
        for number, at_once in candidates:
            room = (most[number] - load[number]) * at_once
            if room >= left:
                load[number] += left / at_once
                break
            if room > 0:
                load[number] = float(most[number])
                left -= room
        else:
            load[last.number] += left / last.at_once
    return load


class PoolWork:
    """One pool's part of busy, waiting and coming work, in agents; and how long each takes on average."""

    __slots__ = ("_coming_seconds", "_coming_tasks", "_seconds", "busy", "coming", "rate", "waiting")

    def __init__(self, busy: float) -> None:
        self.busy = busy
        self.waiting = self.coming = self.rate = 0.0
        # Waiting and coming agents' worth of Tasks times their seconds, and how many Tasks are being served of those
        # that come.
        self._seconds = self._coming_seconds = self._coming_tasks = 0.0

    def wait(self, room: float, service: float) -> None:
        self.waiting += room
        self._seconds += room * service

    def come(self, room: float, service: float, tasks: float) -> None:
        self.coming += room
        self._coming_seconds += room * service
        self._coming_tasks += tasks

    def at_least(self, target: float, start: float, starting: float) -> float:
        """Return the agents that let all that waits now start within the target."""
        service = self._seconds / self.waiting if self.waiting > 0.0 else self.coming_service
        return for_backlog(self.busy, self.waiting, service, target, start, self.rate, starting)

    def usual(self, target: float) -> float:
        """Return the agents with which arrivals seldom wait longer than the target."""
        if self.coming <= 0.0:
            return 0.0
        return for_arrivals(self._coming_tasks, self.coming_service, target) * self.coming / self._coming_tasks

    @property
    def coming_service(self) -> float:
        return self._coming_seconds / self.coming if self.coming > 0.0 else 0.0


def pool_work(
    layout: Layout, busy: Sequence[int], most: Sequence[int], starts: Sequence[float], now: float
) -> list[PoolWork]:
    """Divide the work among the pools as `work` does; a pool with a target may take on more than it can start at once.

    What usually comes is divided in the same way; what comes at present is for the first that may grow. `starts`: how
    many seconds an agent of each takes to start.
    """
    found = [PoolWork(taken / slots) for taken, slots in zip(busy, layout.slots, strict=True)]
    for demand, candidates, first, last in layout.demands:
        service, left, coming = demand.service, float(demand.startable), demand.inflow.load(now)
        found[first.number].rate += demand.inflow.rate(now) / first.at_once
        demand.inflow.look_ahead(starts[first.number])
        for number, at_once in candidates:
            part, target, maximum = found[number], layout.pools[number].target_queue, most[number]
            longer = 1.0 + target / service if service > 0.0 else 1.0
            taken = min(left, max(0.0, maximum * longer - part.busy - part.waiting) * at_once)
            part.wait(taken / at_once, service)
            left -= taken
            taken = min(coming, max(0.0, maximum - part.coming) * at_once)
            part.come(taken / at_once, service, taken)
            coming -= taken
        found[last.number].wait(left / last.at_once, service)
        found[last.number].come(coming / last.at_once, service, coming)
    return found


def agents(load: float) -> int:
    """Return the whole agents that hold this load."""
    return ceil(load - EPSILON)


def target(pool: Pool, wanted: int, most: int) -> TargetSize:
    """Clamp the wanted agents to the pool's bounds; `most` is how many it may have now, of its maximum."""
    if not pool.elastic:
        return TargetSize(pool.minimum, Reason.FIXED_SIZE, f"replicas is {pool.minimum}.")
    if wanted > most < pool.maximum:
        return TargetSize(
            most,
            Reason.PODS_FAILING,
            f"Work for {wanted} agents, but pods of the pool do not come up: it is not grown before they do.",
        )
    if wanted > pool.maximum:
        return TargetSize(
            pool.maximum,
            Reason.AT_MAXIMUM,
            f"Work for {wanted} agents; maxReplicas is {pool.maximum}. Raise it to serve the work sooner.",
        )
    if wanted < pool.minimum or wanted == 0:
        return TargetSize(
            max(wanted, pool.minimum),
            Reason.AT_MINIMUM if pool.minimum else Reason.IDLE,
            f"Work for {wanted} agents; minReplicas is {pool.minimum}.",
        )
    message = f"Waiting and running Tasks fill {wanted} agents of {pool.slots} slots."
    if pool.target_queue > 0.0:
        message = f"{wanted} agents of {pool.slots} slots let Tasks start within {pool.target_queue:g} s."
    return TargetSize(wanted, Reason.WORK_WAITING, message)


class _Wanted(NamedTuple):
    """A size that was wanted, and the last moment at which it was."""

    target: TargetSize
    until: float


class _Lately:
    """A sliding-window minimum or maximum of target sizes (monotonic queue). The last one is wanted now."""

    __slots__ = ("_history", "_least")

    def __init__(self, least: bool) -> None:
        self._history: deque[_Wanted] = deque()
        self._least = least

    def __len__(self) -> int:
        return len(self._history)

    def clear(self) -> None:
        self._history.clear()

    def add(self, wanted: TargetSize, now: float) -> None:
        """Add the size that is wanted from now on; the one before was wanted until now."""
        history = self._history
        if history:
            history[-1] = _Wanted(history[-1].target, now)
        while history and self._supersedes(wanted, history[-1].target):
            history.pop()
        history.append(_Wanted(wanted, now))

    def _supersedes(self, wanted: TargetSize, former: TargetSize) -> bool:
        """Whether the former size no longer matters, as this one was wanted later."""
        return former.replicas >= wanted.replicas if self._least else former.replicas <= wanted.replicas

    def lapse(self, delay: float, now: float) -> TargetSize:
        """Drop sizes last wanted `delay` ago or longer; return the extreme of the rest."""
        history = self._history
        while len(history) > 1 and now - history[0].until >= delay:
            history.popleft()
        return history[0].target

    def lapses(self, delay: float) -> float | None:
        """Return when the present extreme lapses, if no other size is wanted until then."""
        return self._history[0].until + delay if len(self._history) > 1 else None


class Sizing:
    """The size of one pool over time: it follows the need up and down once that has held for the delays.

    An elastic pool grows to the least size wanted within the last `scale_up_delay` seconds, and has the largest one
    that it was to have within the last `scale_down_delay`.
    """

    __slots__ = ("_least", "_most", "desired", "haste", "message", "reason", "usual")

    def __init__(self) -> None:
        self.desired: int | None = None
        self.reason = Reason.PROGRESSING
        self.message = ""
        self.haste = Haste()
        self.usual = Usual()
        self._least = _Lately(True)
        self._most = _Lately(False)

    def step(self, pool: Pool, wanted: TargetSize, existing: int, now: float) -> bool:
        """Take the size wanted now into account; return whether the desired size changed."""
        former = self.desired
        if not pool.elastic:
            self._least.clear()
            self._most.clear()
        elif former is None and existing > wanted.replicas:
            # First sight, perhaps after a change of leader: what exists counts as wanted until now.
            message = f"{existing} agents exist. {wanted.message}"
            self._most.add(TargetSize(existing, Reason.PROGRESSING, message), now)
        elif former is None and pool.scale_up_delay > 0.0:
            self._least.add(TargetSize(max(existing, pool.minimum), Reason.PROGRESSING, "The pool is new."), now)
        chosen = self._stabilized(pool, wanted, former, now) if pool.elastic else wanted
        self._most.add(chosen, now)
        chosen = self._most.lapse(pool.scale_down_delay, now)
        self.desired = min(chosen.replicas, pool.maximum) if pool.elastic else chosen.replicas
        self.reason, self.message = chosen.reason, chosen.message
        return self.desired != former

    def _stabilized(self, pool: Pool, wanted: TargetSize, former: int | None, now: float) -> TargetSize:
        """The size wanted now, or what is less and was wanted for long enough; never less than there are to be."""
        if pool.scale_up_delay <= 0.0:
            self._least.clear()
            return wanted
        self._least.add(wanted, now)
        least = self._least.lapse(pool.scale_up_delay, now)
        there = max(pool.minimum, min(former or 0, pool.maximum))
        if wanted.replicas <= there or least.replicas >= wanted.replicas:
            return wanted
        if least.replicas > there:
            return least
        waits = f"{wanted.message} They have to be needed for {pool.scale_up_delay:g} s before agents are added."
        return TargetSize(there, wanted.reason, waits)

    @property
    def stable(self) -> bool:
        """Whether the size is what is wanted now: then time alone changes nothing."""
        return len(self._most) == 1 and len(self._least) <= 1

    def wake(self, pool: Pool) -> float | None:
        """Return when the size that counts lapses."""
        times = (self._most.lapses(pool.scale_down_delay), self._least.lapses(pool.scale_up_delay))
        return min((at for at in times if at is not None), default=None)


def at_once(desired: int) -> int:
    """Return how many outdated agents of a pool of this size are replaced at a time: a quarter, and at least one."""
    return max(1, desired // 4) if desired else 0


def surge(desired: int, outdated: int, leaving: int) -> int:
    """Return how many agents are added before as many outdated ones go, so that no work ever lacks its agents.

    `leaving`: outdated ones that finish what they hold; they count as being replaced until they are gone.
    """
    return max(0, min(at_once(desired) - leaving, outdated))


def victims(
    idle: Iterable[AgentRecord], busy: Iterable[AgentRecord], surplus: int, zones: Mapping[str, int]
) -> list[AgentRecord]:
    """Choose the agents that go: first those not ready, latest first, then idle ones, then `busy`.

    Of the idle ones, each time the one goes whose zone has most agents left, of those the longest idle. Outdated ones
    go before all others, in the same order. `zones`: how many of the pool's agents are in each. The caller gives busy
    ones only where they may be drained; those with least to finish go first.
    """
    left = Counter(zones)
    chosen = sorted(
        idle, key=lambda agent: (agent.ready, agent.idle_since if agent.ready else -agent.created, agent.uid)
    )
    chosen += sorted(busy, key=lambda agent: (agent.busy, agent.uid))
    chosen.sort(key=lambda agent: not agent.outdated)
    if len(left) < 2 or len(chosen) <= surplus:
        return chosen[:surplus]
    going: list[AgentRecord] = []
    for (_, ready, at_work), group in groupby(chosen, lambda each: (each.outdated, each.ready, bool(each.leases))):
        # By zone, each in order. Agents that are not ready, or at work, count as one zone.
        lines: dict[str, deque[AgentRecord]] = {}
        for agent in group:
            lines.setdefault(zone(agent) if ready and not at_work else "", deque()).append(agent)
        while lines and len(going) < surplus:
            fullest = max(lines, key=lambda name: (left[name], -lines[name][0].idle_since, name))
            agent = lines[fullest].popleft()
            if not lines[fullest]:
                del lines[fullest]
            left[zone(agent)] -= 1
            going.append(agent)
    return going


def zone(agent: AgentRecord) -> str:
    """Return the zone that the agent reports, empty if it reports none."""
    for key, value in agent.reported.labels if agent.reported is not None else ():
        if key == ZONE:
            return value
    return ""


def pardons(draining: Iterable[AgentRecord], shortage: int) -> list[AgentRecord]:
    """Choose which draining agents stay after all: those at work first, then the last to become idle."""
    chosen = [agent for agent in draining if agent.ready]
    return sorted(chosen, key=lambda agent: (not agent.leases, -agent.idle_since, agent.uid))[:shortage]
