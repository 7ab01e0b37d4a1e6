"""The agents and pods: what each offers, what it holds, whether new work may go there.

Owns the accounting of slots and named resources, and keeps the rosters of free agents right. Leases stand where they
were granted, on agents unknown, silent or gone too, so that an agent that comes back has the right room. Refuses to
decide anything.
"""

from collections import Counter
from collections.abc import Callable
from math import inf
from typing import Final, NamedTuple

from taskdist.core.agents.roster import AgentClass, AgentRecord, Lease, PoolMembers, Resources, Roster
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.model import Agent, Key, Task
from taskdist.core.primitives.bitsets import OrTree
from taskdist.core.views import AgentState, AgentView

# The last starts over which the time that agents take to start is averaged.
STARTS: Final = 20
# Before any did.
USUAL_START: Final = 10.0


class StartTimes(NamedTuple):
    """The mean time that agents of a pool took to start lately, in seconds, and of how many starts."""

    mean: float
    starts: int


NO_STARTS: Final = StartTimes(0.0, 0)


class Fleet:
    """All agents and pods."""

    def __init__(self) -> None:
        self.agents: dict[str, AgentRecord] = {}
        self.pools: dict[Key, PoolMembers] = {}
        # By pool: the seconds from a pod's creation to its agent being ready.
        self.starts: dict[Key, StartTimes] = {}
        # Those that rest and have a slot free, by the number of their class.
        self.roomy: dict[int, dict[str, AgentRecord]] = {}
        # Grows whenever an agent comes, goes or becomes another, whatever it holds.
        self.version = 0
        # By roster: the profiles of which it could take a Task now.
        self.free = OrTree()
        self._catalogue: Catalogue | None = None
        # Times are taken relative to the first one seen: small numbers keep their digits.
        self._origin: float | None = None

    def bind(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    @property
    def origin(self) -> float | None:
        """When the first agent or pod was heard of."""
        return self._origin

    def resized(self, roster: Roster) -> None:
        self.free[roster.leaf] = roster.servable

    def members(self, pool: Key) -> PoolMembers:
        found = self.pools.get(pool)
        return found if found is not None else PoolMembers()

    def obtain(self, uid: str, now: float) -> AgentRecord:
        agent = self.agents.get(uid)
        if agent is None:
            if self._origin is None:
                self._origin = now
            agent = self.agents[uid] = AgentRecord(uid, now)
        return agent

    # Leases.

    def lease(self, agent: AgentRecord, task: Task, ends: float, now: float) -> None:
        """Let the agent hold the Task. `ends`: when its attempt is expected to end."""
        slots, resources = task.slots, task.resources
        agent.leases[task.uid] = Lease(ends, task.uid, slots, resources)
        agent.soonest = min(agent.soonest, ends)
        if resources:
            _take(agent, resources)
        self._book(agent, slots, now)
        if agent.home is not None and len(agent.leases) == 1:
            agent.home.idle.pop(agent.uid, None)

    def release(self, agent: AgentRecord, task_uid: str, now: float) -> None:
        lease = agent.leases.pop(task_uid)
        if lease.ends <= agent.soonest:
            agent.soonest = min([other.ends for other in agent.leases.values()], default=inf)
        if lease.resources:
            _give_back(agent, lease.resources)
        self._book(agent, -lease.slots, now)
        if not agent.leases:
            agent.idle_since = now
            if agent.home is not None and agent.counted:
                agent.home.idle[agent.uid] = agent
            self._forget_if_void(agent)

    def _book(self, agent: AgentRecord, slots: int, now: float) -> None:
        """Change the agent's busy slots by `slots`, and move it within its rosters."""
        if now > agent.since:
            agent.book_busy_time(now)
        before = agent.busy
        busy = agent.busy = before + slots
        if agent.home is not None:
            agent.home.busy += slots
        kind = agent.kind
        if kind is None:
            return
        if agent.resting:
            self._note_room(agent, agent.counted and busy < agent.slots)
        self._weigh(agent)
        if agent.open_in is None:
            return
        most = kind.offer.slots
        kind.busy_slots += (busy if busy < most else most) - (before if before < most else most)
        for roster in agent.rosters:
            roster.leave(before)
        agent.rosters.clear()
        agent.stamp += 1
        for roster in kind.rosters.values():
            roster.join(agent)
            self.free[roster.leaf] = roster.servable

    def _note_room(self, agent: AgentRecord, room: bool) -> None:
        """Note whether the resting agent has room."""
        kind = agent.kind
        if kind is None:
            return
        there = self.roomy.get(kind.number)
        if room:
            if there is None:
                there = self.roomy[kind.number] = {}
            there[agent.uid] = agent
        elif there is not None:
            there.pop(agent.uid, None)
            if not there:
                del self.roomy[kind.number]

    def states(self) -> dict[Key, dict[AgentState, int]]:
        """Return by pool how many agents are in each state."""
        return {key: dict(Counter(map(_state, members.agents.values()))) for key, members in self.pools.items()}

    def views(self, pool: Key) -> list[AgentView]:
        """Return the pool's agents as they are, by name."""
        found = [_view(agent) for agent in self.members(pool).agents.values()]
        return sorted(found, key=lambda each: (each.name, each.uid))

    # What agents are and offer.

    def change(self, agent: AgentRecord, now: float, what: Callable[[AgentRecord], None]) -> None:
        """Apply a change of anything but leases, and move the agent to where it belongs then."""
        former, pool = agent.kind, agent.pool
        self._leave(agent, now)
        what(agent)
        self._enter(agent)
        if former is not None and former is not agent.kind:
            self._resize(former)
        self._forget_if_void(agent)
        self._count(pool)
        if agent.pool != pool:
            self._count(agent.pool)

    def _count(self, pool: Key | None) -> None:
        if pool is not None:
            members = self.pools.get(pool)
            self._bound.count(pool, members.counted if members is not None else 0)

    def renamed(self, agent: AgentRecord) -> None:
        """Enrol the agent anew: Tasks have begun, or ceased, to ask for it by its name."""
        self.change(agent, agent.since, self._enrol)

    def connect(self, agent: AgentRecord, reported: Agent, now: float) -> None:
        """Take in what the agent has reported: it is connected and ready."""

        def what(agent: AgentRecord) -> None:
            if not agent.ready:
                agent.idle_since = now
            self._belong(agent, reported.pool_key)
            agent.namespace, agent.name = reported.namespace, reported.name
            agent.ready = True
            if agent.reported != reported:
                agent.reported, agent.slots = reported, reported.slots
                agent.resources_free = dict(reported.resources)
                for lease in agent.leases.values():
                    _take(agent, lease.resources)
                self._enrol(agent)

        self.change(agent, now, what)

    def started(self, agent: AgentRecord, now: float) -> None:
        """Learn how long the agent took to start, if its pod was seen from its creation on."""
        seconds = now - agent.created
        if agent.starting and agent.pool is not None and seconds > 0.0:
            known = self.starts.get(agent.pool, NO_STARTS)
            count = min(known.starts + 1, STARTS)
            self.starts[agent.pool] = StartTimes(known.mean + (seconds - known.mean) / count, count)
        agent.starting = False

    def start_seconds(self, pool: Key) -> float:
        """Return how long an agent of the pool takes to start."""
        known = self.starts.get(pool)
        return USUAL_START if known is None else known.mean

    def gone(self, agent: AgentRecord, now: float) -> None:
        """Take in that the pod is gone, or out of sight. Its leases stand; what it offered no longer speaks for its
        pool."""

        def what(agent: AgentRecord) -> None:
            agent.gone, agent.ready = True, False
            self._bound.dismiss(agent)
            agent.reported = None  # should it come back, its next offer enrols it anew, even if it is the same

        self.change(agent, now, what)

    def relabelled(self) -> None:
        """Enrol every agent anew."""
        for agent in list(self.agents.values()):
            if agent.kind is not None:
                self.change(agent, agent.since, self._enrol)

    def made_from(self, pool: Key, template: str) -> None:
        """Adopt the template from which the pool's agents are made from now on."""
        for agent in list(self.members(pool).agents.values()):
            outdated = differs(agent.template, template)
            if agent.outdated != outdated:
                self.change(agent, agent.since, _outdate if outdated else _update)

    def belong(self, agent: AgentRecord, pool: Key, now: float) -> None:
        self.change(agent, now, lambda agent: self._belong(agent, pool))

    def _enrol(self, agent: AgentRecord) -> None:
        # Weighed first: enrolling may found a roster, which takes the agent in at once.
        self._weigh(agent)
        self._bound.enrol(agent)

    def _weigh(self, agent: AgentRecord) -> None:
        """Work out the agent's order among agents of the same busy fraction: all those gather busy time at one rate."""
        fraction = agent.busy / agent.slots if agent.slots else 0.0
        agent.weight = agent.busy_seconds - fraction * (agent.since - (self._origin or 0.0))

    def _resize(self, kind: AgentClass) -> None:
        for roster in kind.rosters.values():
            self.resized(roster)

    @property
    def _bound(self) -> Catalogue:
        assert self._catalogue is not None, "a fleet is bound to its catalogue before the first event"
        return self._catalogue

    def _belong(self, agent: AgentRecord, pool: Key) -> None:
        if agent.pool == pool:
            return
        self._part(agent)
        agent.pool = pool
        members = agent.home = self.pools.setdefault(pool, PoolMembers())
        members.agents[agent.uid] = agent
        members.busy += agent.busy

    def _part(self, agent: AgentRecord) -> None:
        if agent.pool is None:
            return
        members = self.pools[agent.pool]
        del members.agents[agent.uid]
        members.busy -= agent.busy
        if not members.agents:
            del self.pools[agent.pool]
        agent.pool = agent.home = None

    def _leave(self, agent: AgentRecord, now: float) -> None:
        """Take the agent out of every index. Always followed by `_enter`."""
        self.version += 1
        if agent.resting:
            self._note_room(agent, False)
        members = agent.home
        if members is not None:
            if agent.counted:
                members.counted -= 1
                members.ready -= agent.ready
                members.idle.pop(agent.uid, None)
                members.outdated.pop(agent.uid, None)
                members.resting.pop(agent.uid, None)
                if agent.failing:
                    del members.failing[agent.uid]
                    self._bound.failing.pop(agent.uid, None)
            elif agent.leaving:
                del members.draining[agent.uid]
        self._vacate(agent, now)

    def _enter(self, agent: AgentRecord) -> None:
        members = agent.home
        if members is not None:
            if agent.counted:
                members.counted += 1
                members.ready += agent.ready
                if not agent.leases:
                    members.idle[agent.uid] = agent
                if agent.outdated:
                    members.outdated[agent.uid] = agent
                if agent.resting:
                    members.resting[agent.uid] = agent
                    self._note_room(agent, agent.busy < agent.slots)
                if agent.failing:
                    members.failing[agent.uid] = agent
                    self._bound.failing[agent.uid] = agent
            elif agent.leaving:
                members.draining[agent.uid] = agent
        self._occupy(agent)

    def _vacate(self, agent: AgentRecord, now: float) -> None:
        """Book its busy time and take it out of its rosters. Always followed by `_occupy`."""
        agent.book_busy_time(now)
        busy = agent.busy
        kind = agent.open_in
        if kind is not None:
            kind.open -= 1
            kind.busy_slots -= min(busy, kind.offer.slots)
            agent.open_in = None
        for roster in agent.rosters:
            roster.leave(busy)
        agent.rosters.clear()
        agent.stamp += 1

    def _occupy(self, agent: AgentRecord) -> None:
        """Put it into the rosters where it has room now."""
        kind = agent.kind
        if kind is None:
            return
        self._weigh(agent)
        joins = agent.open
        if joins:
            kind.open += 1
            kind.busy_slots += min(agent.busy, kind.offer.slots)
            agent.open_in = kind
        for roster in kind.rosters.values():
            if joins and roster not in agent.rosters:
                roster.join(agent)
            self.free[roster.leaf] = roster.servable

    def _forget_if_void(self, agent: AgentRecord) -> None:
        """Drop the record of an agent that neither exists nor holds anything."""
        if agent.leases or ((agent.pod_seen or agent.ready) and not agent.gone):
            return
        former = agent.kind
        self._leave(agent, agent.since)
        self._bound.dismiss(agent)
        self._part(agent)
        del self.agents[agent.uid]
        if former is not None:
            self._resize(former)


def _state(agent: AgentRecord) -> AgentState:
    if agent.gone:
        return AgentState.GONE
    if agent.departing:
        return AgentState.DRAINING
    if agent.ready:
        return AgentState.BUSY if agent.leases else AgentState.IDLE
    return AgentState.NOT_READY if agent.reported is not None else AgentState.STARTING


def _view(agent: AgentRecord) -> AgentView:
    conduct = agent.conduct
    return AgentView(
        agent.uid,
        agent.name,
        _state(agent),
        agent.slots,
        agent.busy,
        agent.breaker,
        0 if conduct is None else conduct.attempts,
        None if conduct is None or not conduct.paces else conduct.pace,
        None if conduct is None else conduct.success,
    )


def differs(made_from: str, template: str) -> bool:
    """Whether an agent made from the one template is outdated where the other is wanted."""
    return bool(made_from and template) and made_from != template


def _outdate(agent: AgentRecord) -> None:
    agent.outdated = True


def _update(agent: AgentRecord) -> None:
    agent.outdated = False


def _take(agent: AgentRecord, resources: Resources) -> None:
    free = agent.resources_free
    for name, amount in resources:
        free[name] = free.get(name, 0) - amount


def _give_back(agent: AgentRecord, resources: Resources) -> None:
    free = agent.resources_free
    for name, amount in resources:
        free[name] = free.get(name, 0) + amount
