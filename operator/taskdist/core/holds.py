"""Room for large Tasks: an agent kept from others until one that needs much at once fits.

A Task that has waited `hold_after` for room on one agent gets the agent on which it is expected to fit first. That
agent takes nothing else but what is expected to end before then (backfill, as in Lifka: The ANL/IBM SP Scheduling
System, JSSPP 1995; a promise to the first in order only, which is its EASY variant). One hold for a pool at a time, so
that large Tasks do not stop the small. Refuses to grant: it says what is held and what may go there meanwhile.
"""

from collections.abc import Callable, Iterable, Iterator
from math import inf

from taskdist.core.fleet import Fleet
from taskdist.core.model import Key
from taskdist.core.roster import AgentRecord
from taskdist.core.waiting import TaskRecord


class Hold:
    """An agent that is held for a Task, which is expected to fit there by `fits_at`."""

    __slots__ = ("agent", "fits_at", "record")

    def __init__(self, record: TaskRecord, agent: AgentRecord, fits_at: float) -> None:
        self.record = record
        self.agent = agent
        self.fits_at = fits_at


# When each Task that an agent holds is expected to end.
Ends = Callable[[AgentRecord], Iterable[tuple[str, float]]]
# Whether a limit holds the Task, for longer than it takes a token to come.
Limited = Callable[[TaskRecord, float], bool]


def needs_much(record: TaskRecord) -> bool:
    """Whether room for the Task may be there in all and yet on no agent."""
    return record.task.slots > 1 or bool(record.task.resources)


class Holds:
    """All holds, and the Tasks that have waited long enough for one."""

    def __init__(self, fleet: Fleet, ends: Ends, limited: Limited) -> None:
        self._fleet = fleet
        self._ends = ends
        self._limited = limited
        self._by_pool: dict[Key, Hold] = {}
        self._impatient: dict[str, TaskRecord] = {}

    def __bool__(self) -> bool:
        return bool(self._by_pool or self._impatient)

    def __iter__(self) -> Iterator[Hold]:
        return iter(list(self._by_pool.values()))

    def ask(self, record: TaskRecord) -> None:
        """The Task has waited long enough."""
        self._impatient[record.task.uid] = record

    def agent_for(self, record: TaskRecord) -> AgentRecord | None:
        """Return the agent that is held for the Task."""
        return next((hold.agent for hold in self._by_pool.values() if hold.record is record), None)

    def let_go(self, now: float) -> bool:
        """Let go what is held in vain; return whether anything was."""
        found = False
        for pool, hold in list(self._by_pool.items()):
            agent, record = hold.agent, hold.record
            if (
                record.entry is None
                or not _may_serve(agent, record)
                or agent.pool != pool
                or self._limited(record, now)
            ):
                del self._by_pool[pool]
                found = True
                # One that died is forgotten.
                if self._fleet.agents.get(agent.uid) is agent:
                    self._fleet.change(agent, now, _free)
        return found

    def make(self, now: float) -> None:
        """Hold what the first of the impatient need."""
        for uid, record in list(self._impatient.items()):
            if record.entry is None:
                del self._impatient[uid]
        if not self._impatient:
            return
        served = {hold.record.task.uid for hold in self._by_pool.values()}
        for record in sorted(self._impatient.values(), key=lambda each: (-each.level, each.place())):
            if record.task.uid not in served and not self._limited(record, now):
                self._hold(record, now)

    def _hold(self, record: TaskRecord, now: float) -> None:
        profile = record.shape.profile
        if profile is None:
            return
        best: tuple[float, str, AgentRecord] | None = None
        for kind in {roster.kind for roster in profile.rosters}:
            if kind.offer.pool in self._by_pool:
                continue
            for agent in kind.members.values():
                if agent.open:
                    found = (self._fits_at(record, agent, now), agent.uid, agent)
                    if best is None or found[:2] < best[:2]:
                        best = found
        if best is None or best[0] == inf:
            return
        agent = best[2]
        assert agent.pool is not None
        self._by_pool[agent.pool] = Hold(record, agent, best[0])
        self._fleet.change(agent, now, _keep)

    def _fits_at(self, record: TaskRecord, agent: AgentRecord, now: float) -> float:
        """Return when the Task is expected to fit on the agent, infinity if never."""
        task = record.task
        if has_room(agent, record):
            return now
        slots, free = agent.slots - agent.busy, dict(agent.resources_free)
        for uid, end in sorted(self._ends(agent), key=lambda each: (each[1], each[0])):
            held, resources = agent.leases[uid]
            slots += held
            for name, amount in resources:
                free[name] = free.get(name, 0) + amount
            if slots >= task.slots and all(free.get(name, 0) >= amount for name, amount in task.resources):
                return max(now, end)
        return inf


def has_room(agent: AgentRecord, record: TaskRecord) -> bool:
    return agent.slots - agent.busy >= record.task.slots and agent.fits(record.task.resources)


def _may_serve(agent: AgentRecord, record: TaskRecord) -> bool:
    """Whether the agent may take the Task once it fits: its queue may have been paused since, its pool gone."""
    shape, kind = record.shape, agent.kind
    return agent.holdable and shape.closed is None and kind is not None and bool(shape.serving >> kind.number & 1)


def _keep(agent: AgentRecord) -> None:
    agent.kept = True


def _free(agent: AgentRecord) -> None:
    agent.kept = False
