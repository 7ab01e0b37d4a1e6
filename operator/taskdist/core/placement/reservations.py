"""Reservations: an agent is kept free for a large Task, so that small ones do not fill it for ever.

A Task that has waited `hold_after` for room on one agent gets the agent reserved on which it should fit first. That
agent takes nothing else but what should end before then (backfilling, as in Lifka: The ANL/IBM SP Scheduling System,
JSSPP 1995; a promise to the first in order only, which is its EASY variant). One reservation for a pool at a time, so
that large Tasks do not stop the small. Grants nothing itself.
"""

from collections.abc import Callable, Container, Iterator
from heapq import heapify, heappop, heappush
from math import inf
from typing import Final, NamedTuple

from taskdist.core.agents.roster import FOR_ALL, RESERVED, AgentRecord, Resources
from taskdist.core.fleet.equivalence import Profile
from taskdist.core.fleet.fleet import Fleet
from taskdist.core.model import Key
from taskdist.core.ordering.lines import TaskRecord
from taskdist.core.primitives.bitsets import has


class Reservation:
    """An agent that is reserved for a Task, which is expected to fit there by `fits_at`."""

    __slots__ = ("agent", "fits_at", "pool", "record")

    def __init__(self, record: TaskRecord, pool: Key, agent: AgentRecord, fits_at: float) -> None:
        self.record = record
        self.pool = pool
        self.agent = agent
        self.fits_at = fits_at


# The most Tasks that are tried for a reservation in one look.
MOST_APPLICANTS: Final = 64
# Seconds until the next look where no agent could be reserved.
AGAIN: Final = 1.0
# Whether a limit holds the Task, for longer than it takes a token to come.
Limited = Callable[[TaskRecord, float], bool]


class RoomNeeded(NamedTuple):
    """What alone decides which agent can be reserved: the agent classes that may serve, as bits, and the room."""

    serving: int
    slots: int
    resources: Resources


class Applicant:
    """A Task that applies for a reservation, at its place in the order when it was entered."""

    __slots__ = ("level", "place", "uid")

    def __init__(self, record: TaskRecord) -> None:
        self.level = record.level
        self.place = record.place()
        self.uid = record.task.uid

    def stands_so(self, record: TaskRecord) -> bool:
        """Whether the Task still has this place in the order."""
        return self.level == record.level and self.place.compare(record.place()) == 0

    def __lt__(self, other: "Applicant") -> bool:
        return self.level > other.level if self.level != other.level else self.place.compare(other.place) < 0


def needs_much(record: TaskRecord) -> bool:
    """Whether the Task may find no agent with room for it although there is room enough in all."""
    return record.task.slots > 1 or bool(record.task.resources)


class Reservations:
    """Reserves agents for large Tasks that waited `hold_after` seconds, one in a pool at a time."""

    def __init__(self, fleet: Fleet, limited: Limited) -> None:
        self._fleet = fleet
        self._limited = limited
        self._by_pool: dict[Key, Reservation] = {}
        self._impatient: dict[str, TaskRecord] = {}
        # Those in order. An entry is dead if its Task is gone, or stands elsewhere by now.
        self._order: list[Applicant] = []
        # Until then no agent is found that could be reserved, if the fleet's version is still the one seen.
        self._nothing_before = 0.0
        self._seen = -1
        # The needs that were looked for in vain at the last look. Nothing but what begins a new look changes that.
        self._vain: set[RoomNeeded] = set()

    def __bool__(self) -> bool:
        return bool(self._by_pool or self._impatient)

    def __iter__(self) -> Iterator[Reservation]:
        return iter(list(self._by_pool.values()))

    def ask(self, record: TaskRecord) -> None:
        """Apply for a reservation: the Task has waited long enough."""
        self._impatient[record.task.uid] = record
        profile = record.shape.profile
        if profile is not None and _room_needed(profile) not in self._vain:
            self._nothing_before = 0.0
        self._push(record)

    def forget(self, record: TaskRecord) -> None:
        """Forget a Task that does not wait for room any more. If it comes back, its wait begins anew.

        `let_go` ends its reservation, unless the Task stands in a line again by then.
        """
        self._impatient.pop(record.task.uid, None)

    def rise(self, record: TaskRecord) -> None:
        """Move an applicant whose level or chain has changed."""
        if record.task.uid in self._impatient:
            self._push(record)

    def _push(self, record: TaskRecord) -> None:
        heappush(self._order, Applicant(record))
        if len(self._order) > 64 + 2 * len(self._impatient):
            self._order = [Applicant(each) for each in self._impatient.values()]
            heapify(self._order)

    def let_go(self, now: float) -> bool:
        """End reservations that are in vain; return whether there were any. One of an agent without room may stay."""
        found = False
        for reservation in list(self._by_pool.values()):
            agent, record = reservation.agent, reservation.record
            if agent.busy >= agent.slots and agent.ready and record.line is not None:
                continue
            if (
                record.line is None
                or not _may_serve(agent, record)
                or agent.pool != reservation.pool
                or self._limited(record, now)
            ):
                del self._by_pool[reservation.pool]
                found = True
                self._nothing_before = 0.0
                # One that died is forgotten.
                if self._fleet.agents.get(agent.uid) is agent:
                    self._fleet.change(agent, now, _release)
        return found

    def make(self, now: float) -> None:
        """Reserve agents for the first applicants. Where none could be reserved, look again after a while."""
        if not self._impatient or len(self._by_pool) >= len(self._fleet.pools):
            return
        if now >= self._nothing_before or self._fleet.version != self._seen:
            self._nothing_before, self._seen = now + AGAIN, self._fleet.version
            served = {reservation.record.task.uid for reservation in self._by_pool.values()}
            self._vain = vain = set[RoomNeeded]()
            looked: dict[str, TaskRecord] = {}
            while len(looked) < MOST_APPLICANTS and len(self._by_pool) < len(self._fleet.pools):
                record = self._next(looked)
                if record is None:
                    break
                looked[record.task.uid] = record
                profile = record.shape.profile
                if profile is None or record.task.uid in served:
                    continue
                need = _room_needed(profile)
                if need in vain:
                    continue
                if not self._limited(record, now) and not self._reserve_for(record, profile, now):
                    vain.add(need)
            for record in looked.values():
                heappush(self._order, Applicant(record))

    def _next(self, looked: Container[str]) -> TaskRecord | None:
        """Take out and return the next applicant, in order, that was not looked at."""
        while self._order:
            entry = heappop(self._order)
            record = self._impatient.get(entry.uid)
            if record is None or entry.uid in looked:
                continue
            if record.line is None:
                del self._impatient[entry.uid]
            elif not entry.stands_so(record):
                heappush(self._order, Applicant(record))
            else:
                return record
        return None

    def _reserve_for(self, record: TaskRecord, profile: Profile, now: float) -> bool:
        """Reserve the agent on which the Task fits first, in a pool without a reservation; return whether it did."""
        fits_at = inf
        best: AgentRecord | None = None
        for kind in {roster.kind for roster in profile.rosters}:
            if kind.offer.pool in self._by_pool:
                continue
            for agent in kind.members.values():
                # Nothing fits before the first of what it holds has ended, unless there is room now.
                if agent.open and agent.reservable and (agent.soonest <= fits_at or has_room(agent, record)):
                    at = self._fits_at(record, agent, now)
                    if best is None or at < fits_at or (at == fits_at and agent.uid < best.uid):
                        fits_at, best = at, agent
        if best is None or fits_at == inf:
            return False
        agent = best
        assert agent.pool is not None
        self._by_pool[agent.pool] = Reservation(record, agent.pool, agent, fits_at)
        self._fleet.change(agent, now, _reserve)
        return True

    @staticmethod
    def _fits_at(record: TaskRecord, agent: AgentRecord, now: float) -> float:
        """Return when the Task is expected to fit on the agent, infinity if never."""
        task = record.task
        if has_room(agent, record):
            return now
        wanted, needed = task.resources, task.slots - agent.slots + agent.busy
        free = dict(agent.resources_free) if wanted else {}
        for lease in sorted(agent.leases.values(), key=lambda each: (each.ends, each.uid)):
            needed -= lease.slots
            if wanted:
                for name, amount in lease.resources:
                    free[name] = free.get(name, 0) + amount
            if needed <= 0 and all(free.get(name, 0) >= amount for name, amount in wanted):
                return max(now, lease.ends)
        return inf


def _room_needed(profile: Profile) -> RoomNeeded:
    return RoomNeeded(profile.key.serving, profile.key.slots, profile.key.resources)


def has_room(agent: AgentRecord, record: TaskRecord) -> bool:
    return agent.slots - agent.busy >= record.task.slots and agent.fits(record.task.resources)


def _may_serve(agent: AgentRecord, record: TaskRecord) -> bool:
    """Whether the agent may take the Task once it fits: its queue may have been paused since, its pool gone."""
    shape, kind = record.shape, agent.kind
    return agent.reservable and shape.closed is None and kind is not None and has(shape.serving, kind.number)


def _reserve(agent: AgentRecord) -> None:
    agent.availability = RESERVED


def _release(agent: AgentRecord) -> None:
    agent.availability = FOR_ALL
