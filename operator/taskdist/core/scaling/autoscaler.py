"""Resizes pools: announces a new size, drains surplus agents, keeps a draining agent if work comes.

Owns the state of each pool's sizing and of its victims. The rules of size and choice are `sizing`'s.
"""

import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from math import inf
from typing import Final

from taskdist.api import Reason
from taskdist.core.agents.roster import (
    DELETING,
    DRAINED,
    DRAINING,
    FOR_ALL,
    RESTING,
    STAYS,
    AgentRecord,
    PoolMembers,
)
from taskdist.core.decisions import Decision, DeletePod, Drain, Scale, Undrain
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.fleet.equivalence import Demand
from taskdist.core.fleet.failing import allowed, told_of
from taskdist.core.fleet.fleet import Fleet
from taskdist.core.model import Key, Pool
from taskdist.core.scaling.backlog import Backlogs
from taskdist.core.scaling.sizing import (
    Layout,
    Sizing,
    agents,
    at_once,
    least_flexible_first,
    pardons,
    pool_work,
    surge,
    target,
    victims,
    work,
    zone,
)
from taskdist.core.scaling.staffing import INTERVAL
from taskdist.core.views import PoolView

# Where a pool has a target for how long Tasks wait and `MANY` or more do, all that happens within `BREATH` seconds is
# judged together: it is little beside what waits.
BREATH: Final = 0.25
MANY: Final = 1000


class _PoolState:
    """One pool at the last look: its rules, its sizing, and the size that it `wanted` then (None: do not compare).

    `most`: how many agents it might have then. `usual`: how many agents it mostly needs for what comes. `grown`: when
    one with a target was last said to grow.
    """

    __slots__ = ("grown", "key", "most", "pool", "sizing", "usual", "wanted")

    def __init__(self, pool: Pool, sizing: Sizing) -> None:
        self.key = pool.key
        self.pool = pool
        self.sizing = sizing
        self.wanted: int | None = None
        self.most = pool.maximum
        self.usual = sizing.usual
        self.grown = -inf


class Autoscaler:
    """Resizes all pools over time."""

    def __init__(self, catalogue: Catalogue, fleet: Fleet) -> None:
        self._catalogue = catalogue
        self._fleet = fleet
        self._nobody = PoolMembers()
        self.backlogs = Backlogs()
        self._sizes: dict[Key, Sizing] = {}
        # As of the catalogue's version `_seen`; the layout if any pool is elastic.
        self._seen = -1
        self._states: list[_PoolState] = []
        self._layout: Layout | None = None
        # The catalogue's and fleet's versions at which no pool changes for as long as all want more than they may have.
        self._still: tuple[int, int] | None = None
        # With a target: until when sizes that were judged are not judged again, and the versions of then.
        self._rests_until = -inf
        self._rested = (-1, -1)
        # When pools that have more agents than their work needs look again at what comes.
        self._look_again: float | None = None

    def forget(self, key: Key, now: float) -> None:
        """Forget a pool that is gone, and let its resting agents work."""
        self._sizes.pop(key, None)
        for agent in list(self._fleet.members(key).resting.values()):
            self._fleet.change(agent, now, _rouse)

    def decide(
        self, now: float, waiting: int, held: Mapping[str, int], limit: int | None, set_aside: Callable[[float], bool]
    ) -> list[Decision]:
        """Return how pools change, in at most `limit` decisions; what is left out comes up when asked again.

        `waiting`: the profiles that wait for room. `held`: by namespace, how many Tasks may be with an agent not heard
        of yet. `set_aside(now)` takes from the demands what no agent would help, and returns whether there was any; it
        is asked only before a pool grows.
        """
        decisions: list[Decision] = []
        room = sys.maxsize if limit is None else limit
        self._look_again = None
        version = (self._catalogue.version, self._fleet.version)
        overfull = False
        self.backlogs.lapse(now)
        if self._seen != self._catalogue.version or self.backlogs.changed:
            self._look()
        if self._layout is None or self._layout.overfull:
            if self._still == version:
                return decisions
            overfull = True
        if now < self._rests_until and self._rested == version:
            self._look_at(self._rests_until)
            return decisions
        self._still, self._rests_until = None, -inf
        members = [self._fleet.pools.get(state.key, self._nobody) for state in self._states]
        most = self._most(members)
        load = None
        if self._layout is not None:
            busy = [each.busy for each in members]
            for entry in self._layout.demands:
                entry.demand.excess = 0
            load = self._wanted(self._layout, busy, most, now)
            if self._grows(load) and set_aside(now):
                load = self._wanted(self._layout, busy, most, now)
        for number, state in enumerate(self._states):
            pool, sizing, here = state.pool, state.sizing, members[number]
            wanted = agents(load[number]) if load is not None and pool.elastic else 0
            still = wanted == state.wanted and most[number] == state.most and sizing.stable
            if still and here.counted <= (sizing.desired or 0) and not here.draining and not here.resting:
                continue
            if len(decisions) >= room:
                # Cut short before it was judged: it is no more at rest than it says.
                state.wanted = None
                return decisions
            state.wanted, state.most = wanted, most[number]
            former = sizing.desired or 0
            if sizing.step(pool, target(pool, wanted, most[number]), here.counted, now):
                if (sizing.desired or 0) > former and pool.target_queue > 0.0:
                    state.grown = now
                decisions.append(Scale(state.key, sizing.desired or 0, sizing.reason, sizing.message))
            unheard = held.get(pool.namespace, 0) > 0
            followed = self._follow(pool, sizing.desired or 0, here, unheard, waiting, now)
            decisions += islice(followed, room - len(decisions))
        if self._layout is not None and self._layout.timed and not decisions and self._many(self._layout):
            lapses = [at for state in self._states if (at := state.sizing.wake(state.pool)) is not None]
            self._rests_until = min([now + BREATH, *lapses])
            self._rested = (self._catalogue.version, self._fleet.version)
        # What was set aside meanwhile wants nothing now, and may soon: then a pool is no more at rest than it says.
        if overfull and not decisions and (self._layout is None or self._layout.overfull):
            stable = all(state.sizing.stable for state in self._states)
            if stable and all(
                each.counted <= (state.sizing.desired or 0) and not each.draining
                for state, each in zip(self._states, members, strict=True)
            ):
                self._still = version
        return decisions

    def _most(self, members: Sequence[PoolMembers]) -> list[int]:
        """Return for each pool the most agents that it may have now."""
        return [
            allowed(state.pool, state.sizing.desired or 0, each.ready, len(each.failing))
            for state, each in zip(self._states, members, strict=True)
        ]

    def _wanted(self, layout: Layout, busy: Sequence[int], most: Sequence[int], now: float) -> list[float]:
        """Return for each pool the agents that its work needs now."""
        if not layout.timed:
            return work(layout, busy, most)
        found: list[float] = []
        # Time counts in steps: between them only what happens changes anything.
        step = now // INTERVAL * INTERVAL
        starts = [self._fleet.start_seconds(state.key) for state in self._states]
        for state, part, start in zip(self._states, pool_work(layout, busy, most, starts, step), starts, strict=True):
            pool, desired = state.pool, float(state.sizing.desired or 0)
            here = self._fleet.members(state.key)
            aim = pool.target_queue * state.sizing.haste.part
            least = part.at_least(aim, start, max(0.0, float(here.counted - here.ready)))
            if pool.target_queue > 0.0 and desired > max(least, pool.minimum):
                # It grows for what waits; it shrinks only below what it would soon grow to again.
                if state.usual.due(step):
                    state.usual.add(part.usual(pool.target_queue), part.coming_service, step)
                if part.busy + part.waiting > 0.0:
                    least = max(least, min(desired, state.usual.most))
                    self._look_at(step + INTERVAL)
            elif least > desired and now < state.grown + BREATH and self._many(layout):
                # What comes within a moment is taken together: each growth costs a look at all that waits.
                least = desired
                self._look_at(state.grown + BREATH)
            found.append(least)
        return found

    @staticmethod
    def _many(layout: Layout) -> bool:
        return sum([entry.demand.tasks for entry in layout.demands]) >= MANY

    def _look_at(self, at: float) -> None:
        self._look_again = at if self._look_again is None else min(self._look_again, at)

    def started(self, pool: Key, seconds: float, demand: Demand | None) -> None:
        """Note after how many seconds a Task started that nothing but a lack of room held."""
        found, sizing = self._catalogue.pools.get(pool), self._sizes.get(pool)
        if found is not None and sizing is not None and demand is not None and found.target_queue > 0.0:
            sizing.haste.started(seconds > found.target_queue, demand.inflow.tasks)

    def _grows(self, load: Sequence[float]) -> bool:
        """Whether any pool should be larger than was last decided."""
        for state, wanted in zip(self._states, load, strict=True):
            desired = state.sizing.desired or 0
            if state.pool.elastic and desired < state.pool.maximum and agents(wanted) > desired:
                return True
        return False

    def _look(self) -> None:
        """Read the pools and demands anew: they have changed."""
        catalogue, pools = self._catalogue, self._catalogue.pools
        self._seen = catalogue.version
        self._states = [_PoolState(pool, self._sizes.setdefault(key, Sizing())) for key, pool in pools.items()]
        elastic = any(pool.elastic for pool in pools.values())
        # What is still to come in chooses last.
        outside = self.backlogs.demands(catalogue.queues, pools)
        demands = [*least_flexible_first(catalogue.demands.values()), *outside]
        self._layout = Layout(pools, demands) if elastic else None

    def _follow(
        self, pool: Pool, desired: int, members: PoolMembers, unheard: bool, waiting: int, now: float
    ) -> Iterator[Decision]:
        """Yield changes of the pool one by one, each booked as it is yielded: what nobody takes is not booked."""
        if members.draining and members.counted < desired:
            for agent in pardons(members.draining.values(), desired - members.counted):
                self._fleet.change(agent, now, _pardon)
                yield Undrain(agent.uid)
        elif members.counted > desired and (members.idle or members.outdated or not pool.elastic):
            yield from self._take_away(pool, members, members.counted - desired, unheard, now)
        if pool.target_queue > 0.0 or members.resting:
            self._rest(members, members.counted - desired if pool.target_queue > 0.0 else 0, waiting, now)
        for agent in [agent for agent in members.draining.values() if self._may_go(agent)]:
            self._fleet.change(agent, now, _doom)
            message = f"Pool {pool.name} needs fewer agents, and this one holds no Task."
            if agent.outdated:
                message = f"It was made from an older template of pool {pool.name}, and holds no Task."
            yield DeletePod(agent.uid, agent.namespace, agent.name, _why(pool, agent), message)

    def _take_away(
        self, pool: Pool, members: PoolMembers, surplus: int, unheard: bool, now: float
    ) -> Iterator[Decision]:
        # Under a new leader a silent pod may hold a lease that was not announced yet: errs towards keeping it.
        idle = [agent for agent in members.idle.values() if agent.ready or not unheard]
        # Busy ones of an elastic pool never; a fixed size is the user's word, so theirs finish and then go.
        at_work = [] if pool.elastic else [a for a in members.agents.values() if a.counted and a.leases]
        if members.outdated:
            room = at_once(members.counted - surplus)
            # Replacements that are on their way are no surplus yet.
            coming = sum(a.counted and not a.outdated and not a.ready for a in members.agents.values())
            surplus = max(0, surplus - min(room, coming))
            if pool.elastic:
                busy = sorted((a for a in members.outdated.values() if a.leases), key=lambda a: (a.busy, a.uid))
                at_work = busy[: max(0, room - _leaving(members))]
        zones = Counter(zone(agent) for agent in members.agents.values() if agent.counted)
        for agent in victims(idle, at_work, surplus, zones):
            self._fleet.change(agent, now, _condemn)
            if agent.ready or agent.leases:
                message = f"Pool {pool.name} has {surplus} agents more than it needs."
                if agent.outdated:
                    message = f"It was made from an older template of pool {pool.name}."
                yield Drain(agent.uid, _why(pool, agent), message)

    def _rest(self, members: PoolMembers, surplus: int, waiting: int, now: float) -> None:
        """Let `surplus` agents rest: they get nothing while others have room, so that they become idle and may go."""
        if surplus <= 0:
            for agent in list(members.resting.values()):
                self._fleet.change(agent, now, _rouse)
        elif len(members.resting) < surplus:
            # Whom waiting Tasks would rouse at once need not rest.
            at_work = [
                a
                for a in members.agents.values()
                if a.counted and a.ready and not a.resting and not a.reserved and not _asked_for(a, waiting)
            ]
            at_work.sort(key=lambda agent: (agent.busy, -agent.idle_since, agent.uid))
            for agent in at_work[: surplus - len(members.resting)]:
                self._fleet.change(agent, now, _rest)

    @property
    def rests(self) -> bool:
        """Whether any agent rests that has room."""
        return bool(self._fleet.roomy)

    def rouse(self, waiting: int, now: float) -> bool:
        """Rouse resting agents that have room for the given profiles. Return whether there were any."""
        found = False
        for there in list(self._fleet.roomy.values()) if waiting else ():
            agents_there = sorted(there.values(), key=lambda agent: agent.uid)
            if not _asked_for(agents_there[0], waiting):
                continue
            for agent in agents_there:
                if agent.kind is not None and not agent.reserved:
                    for roster in agent.kind.rosters.values():
                        if roster.masks[agent.slots - agent.busy] & waiting and agent.fits(roster.resources):
                            self._fleet.change(agent, now, _rouse)
                            found = True
                            break
        return found

    @staticmethod
    def _may_go(agent: AgentRecord) -> bool:
        """Whether its pod may be deleted: it holds nothing, and knows that it gets nothing, or is not connected."""
        return not agent.leases and (agent.departure is DRAINED or not agent.ready)

    def wake(self) -> float | None:
        """Return when a surplus will have held long enough."""
        times = [
            at
            for key, sizing in self._sizes.items()
            if (pool := self._catalogue.pools.get(key)) is not None and (at := sizing.wake(pool)) is not None
        ]
        for at in (self._look_again, self.backlogs.wake()):
            if at is not None:
                times.append(at)
        return min(times, default=None)

    def view(self, key: Key) -> PoolView:
        sizing = self._sizes.get(key) or Sizing()
        members = self._fleet.members(key)
        message = sizing.message
        if self._still is not None and self._layout is not None and sizing.reason is Reason.AT_MAXIMUM:
            # By how much it is too little is worked out when asked only.
            here = [self._fleet.members(state.key) for state in self._states]
            most_now = self._most(here)
            load = work(self._layout, [each.busy for each in here], most_now)
            for state, wanted, bound in zip(self._states, load, most_now, strict=True):
                if state.key == key:
                    message = target(state.pool, agents(wanted), bound).message
        present = [agent for agent in members.agents.values() if not agent.gone]
        ready = [agent for agent in present if agent.ready]
        return PoolView(
            key,
            sizing.desired or 0,
            sizing.reason,
            message,
            sum(agent.pod_seen for agent in present),
            len(ready),
            sum(agent.slots for agent in ready),
            members.busy,
            tuple(agent.uid for agent in present if agent.departing),
            surge(sizing.desired or 0, len(members.outdated), _leaving(members)),
            len(members.outdated),
            told_of(members.failing.values()),
        )


def _leaving(members: PoolMembers) -> int:
    """Outdated agents that were chosen to go and are not gone."""
    return sum(agent.outdated for agent in members.draining.values())


def _asked_for(agent: AgentRecord, waiting: int) -> bool:
    """Whether Tasks of these profiles could run there if all of its slots were free."""
    kind = agent.kind
    return kind is not None and any(roster.masks[kind.offer.slots] & waiting for roster in kind.rosters.values())


def _why(pool: Pool, agent: AgentRecord) -> Reason:
    if agent.outdated:
        return Reason.PROGRESSING
    return Reason.IDLE if pool.elastic else Reason.FIXED_SIZE


def _condemn(agent: AgentRecord) -> None:
    agent.departure = DRAINING
    if agent.resting:
        agent.availability = FOR_ALL


def _rest(agent: AgentRecord) -> None:
    agent.availability = RESTING


def _rouse(agent: AgentRecord) -> None:
    agent.availability = FOR_ALL


def _pardon(agent: AgentRecord) -> None:
    agent.departure = STAYS


def _doom(agent: AgentRecord) -> None:
    agent.departure = DELETING
