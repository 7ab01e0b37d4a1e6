"""Whether the books agree with each other: counts, capacity, indices. Reads all, changes nothing.

`findings` is the whole audit, which counts anew from all Tasks at once: tests run it after each step. `Inspection`
does in many small steps what can be told of one Task, shape, agent or pool alone: production runs it all the time.
"""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import inf

from taskdist.core.agents.roster import AgentClass, AgentRecord
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.fleet.equivalence import Shape
from taskdist.core.fleet.fleet import Fleet
from taskdist.core.model import Key
from taskdist.core.ordering.index import WaitingIndex
from taskdist.core.ordering.lines import Line, TaskRecord
from taskdist.core.primitives.bitsets import bits


def findings(
    tasks: Mapping[str, TaskRecord],
    counts: Mapping[tuple[Key, int], tuple[int, int]],
    outstanding: int,
    waiting: WaitingIndex,
    catalogue: Catalogue,
    fleet: Fleet,
) -> list[str]:
    """Return every broken invariant in words, none when all is sound."""
    return [
        *_conservation(tasks, counts, outstanding),
        *_lines(tasks, waiting, catalogue),
        *_profiles(waiting, catalogue),
        *_leases(tasks, fleet),
        *_rosters(fleet, catalogue),
    ]


def _conservation(
    tasks: Mapping[str, TaskRecord], counts: Mapping[tuple[Key, int], tuple[int, int]], outstanding: int
) -> Iterator[str]:
    if outstanding != len(tasks):
        yield f"accepted − ended is {outstanding}, but {len(tasks)} Tasks are known"
    waiting: Counter[tuple[Key, int]] = Counter()
    leased: Counter[tuple[Key, int]] = Counter()
    for uid, record in tasks.items():
        yield from _place(uid, record)
        key = (record.task.queue_key, record.task.priority)
        waiting[key] += record.agent is None
        leased[key] += record.agent is not None
    found = {key: (waiting[key], leased[key]) for key in waiting}
    if found != dict(counts):
        yield f"queue counts are {dict(counts)}, but Tasks give {found}"


def _lines(tasks: Mapping[str, TaskRecord], waiting: WaitingIndex, catalogue: Catalogue) -> Iterator[str]:
    entered: Counter[int] = Counter()
    total: Counter[int] = Counter()
    gated: Counter[tuple[int, str]] = Counter()
    for record in tasks.values():
        if record.agent is None:
            total[id(record.shape)] += 1
            entered[id(record.shape)] += record.line is not None
            if record.gate is not None:
                gated[id(record.shape), record.gate.value] += 1
        if catalogue.shapes.get(record.shape.key) is not record.shape and record.agent is None:
            yield f"Task {record.task.uid} is of a forgotten shape"
    demand: Counter[int] = Counter()
    for shape in catalogue.shapes.values():
        if shape.tasks != total[id(shape)] or shape.eligible != entered[id(shape)]:
            real = f"{total[id(shape)]}/{entered[id(shape)]}"
            yield f"shape {shape.key} counts {shape.tasks}/{shape.eligible} Tasks, not {real}"
        for gate, number in shape.gated.items():
            if number != gated[id(shape), gate.value]:
                yield f"shape {shape.key} counts {number} Tasks held by {gate}"
        lines = waiting.lines(shape)
        yield from _shape(shape, lines)
        for line in lines:
            yield from _line(line)
        if shape.demand is not None:
            demand[id(shape.demand)] += sum(line.live for line in lines if line.blocker is None)
    for each in catalogue.demands.values():
        if each.tasks != demand[id(each)]:
            yield f"demand {each.candidates} counts {each.tasks} Tasks, not {demand[id(each)]}"


def _profiles(waiting: WaitingIndex, catalogue: Catalogue) -> Iterator[str]:
    expected = 0
    used: Counter[int] = Counter()
    for shape in catalogue.shapes.values():
        if shape.profile is not None:
            used[shape.profile.number] += 1
            if any(line.blocker is None for line in waiting.lines(shape)):
                expected |= 1 << shape.profile.number
    if waiting.profiles != expected:
        yield f"the mask of waiting profiles is {waiting.profiles:b}, not {expected:b}"
    numbers = {profile.number: profile.shapes for profile in catalogue.profiles.values()}
    if len(numbers) != len(catalogue.profiles) or numbers != dict(used):
        yield f"profiles are used by {dict(used)} shapes, but count {numbers}"
    yield from waiting.findings()


def _leases(tasks: Mapping[str, TaskRecord], fleet: Fleet) -> Iterator[str]:
    held: dict[str, set[str]] = {}
    for uid, record in tasks.items():
        if record.agent is not None:
            held.setdefault(record.agent.uid, set()).add(uid)
            if fleet.agents.get(record.agent.uid) is not record.agent:
                yield f"Task {uid} is leased to an agent that was forgotten"
    for uid, agent in fleet.agents.items():
        if set(agent.leases) != held.get(uid, set()):
            yield f"agent {uid} holds {sorted(agent.leases)}, Tasks say {sorted(held.get(uid, set()))}"
        yield from _agent(uid, agent)
    for key, members in fleet.pools.items():
        mine = {uid: agent for uid, agent in fleet.agents.items() if agent.pool == key}
        if mine.keys() != members.agents.keys() or members.busy != sum(agent.busy for agent in mine.values()):
            yield f"pool {key} counts other agents or busy slots than it has"
        if members.counted != sum(agent.counted for agent in mine.values()):
            yield f"pool {key} counts {members.counted} agents that stay"
        if members.idle.keys() != {uid for uid, agent in mine.items() if agent.counted and not agent.leases}:
            yield f"pool {key} holds other agents for idle than are"
        if members.outdated.keys() != {uid for uid, agent in mine.items() if agent.counted and agent.outdated}:
            yield f"pool {key} holds other agents for outdated than are"
        if members.draining.keys() != {uid for uid, agent in mine.items() if agent.leaving}:
            yield f"pool {key} holds other agents for draining than are"


def _rosters(fleet: Fleet, catalogue: Catalogue) -> Iterator[str]:
    free = 0
    for kind in catalogue.classes.values():
        yield from _class(kind)
        for roster in kind.rosters.values():
            free |= roster.servable
    if fleet.free.union != free:
        yield f"the mask of free profiles is {list(bits(fleet.free.union))}, not {list(bits(free))}"


# --- what can be told of one alone ---


def _place(uid: str, record: TaskRecord) -> Iterator[str]:
    if (record.agent is not None) + (record.gate is not None) + (record.line is not None) != 1:
        yield f"Task {uid} does not stand in exactly one place"


def _shape(shape: Shape, lines: list[Line]) -> Iterator[str]:
    if sum(line.live for line in lines) != shape.eligible:
        yield f"shape {shape.key} has lines of another length than its count"
    for line in lines:
        if (line.group is not None) != (shape.profile is not None and line.parked is None):
            yield f"a line of shape {shape.key} is in a group although closed, or not although open"
    if (shape.profile is None) != (shape.closed is not None):
        yield f"shape {shape.key} has a profile although closed, or none although open"


def _line(line: Line) -> Iterator[str]:
    if sum(1 for _ in line.tasks()) != line.live or not line.live:
        yield f"a line of shape {line.shape.key} has lost count"


def _agent(uid: str, agent: AgentRecord) -> Iterator[str]:
    if agent.soonest != min((lease.ends for lease in agent.leases.values()), default=inf):
        yield f"agent {uid} is expected to end something at {agent.soonest}, by its leases at another time"
    if agent.busy != sum(lease.slots for lease in agent.leases.values()):
        yield f"agent {uid} counts {agent.busy} busy slots"
    if agent.reported is not None:
        free = Counter(dict(agent.reported.resources))
        for lease in agent.leases.values():
            free.subtract(dict(lease.resources))
        if any(agent.resources_free.get(name, 0) != amount for name, amount in free.items()):
            yield f"agent {uid} counts {agent.resources_free} free, not {dict(free)}"


def _class(kind: AgentClass) -> Iterator[str]:
    here = [agent for agent in kind.members.values() if agent.open]
    taken = sum(min(agent.busy, kind.offer.slots) for agent in here)
    if (kind.open, kind.busy_slots) != (len(here), taken):
        yield f"agent class {kind.number} counts {kind.open} open agents with {kind.busy_slots} slots busy"
    for roster in kind.rosters.values():
        expected = {
            agent.uid
            for agent in kind.members.values()
            if agent.open and agent.busy < min(roster.slots, agent.cap) and agent.fits(roster.resources)
        }
        if {agent.uid for agent in roster.agents()} != expected:
            yield f"roster {roster.leaf} lists other agents than have room"
        if roster.room != max((a.slots - a.busy for a in kind.members.values() if a.uid in expected), default=0):
            yield f"roster {roster.leaf} says {roster.room} free slots"


def _task(uid: str, record: TaskRecord, waiting: WaitingIndex, catalogue: Catalogue, fleet: Fleet) -> Iterator[str]:
    """Whether the places that the Task's record names know of the Task."""
    yield from _place(uid, record)
    agent, line, shape = record.agent, record.line, record.shape
    if agent is not None and (fleet.agents.get(agent.uid) is not agent or uid not in agent.leases):
        yield f"Task {uid} is leased to an agent that does not know of it"
    if agent is None and catalogue.shapes.get(shape.key) is not shape:
        yield f"Task {uid} is of a forgotten shape"
    if line is not None and not waiting.has(line):
        yield f"Task {uid} stands in a forgotten line"


def _sums(
    tasks: int, counts: Mapping[tuple[Key, int], tuple[int, int]], outstanding: int, catalogue: Catalogue, fleet: Fleet
) -> Iterator[str]:
    """Whether numbers of Tasks that are counted in several places agree."""
    waiting = sum(waiting for waiting, _ in counts.values())
    leased = sum(leased for _, leased in counts.values())
    shaped = sum(shape.tasks for shape in catalogue.shapes.values())
    held = sum(len(agent.leases) for agent in fleet.agents.values())
    if (outstanding, waiting + leased) != (tasks, tasks):
        yield f"{tasks} Tasks are known, {outstanding} have not ended, {waiting} wait and {leased} are leased"
    if waiting != shaped:
        yield f"{waiting} Tasks wait by their queues, {shaped} by their shapes"
    if leased != held:
        yield f"{leased} Tasks are leased by their queues, {held} by their agents"


class Inspection:
    """The audit in small steps: one round looks at each Task, shape, agent and class of agents once.

    Between two steps everything may change, so a step only judges what can be told of one of them alone, and sums that
    are kept apart of each other. What is gone when its turn comes is passed over.
    """

    def __init__(self, tasks: dict[str, TaskRecord], waiting: WaitingIndex, catalogue: Catalogue, fleet: Fleet) -> None:
        self._tasks = tasks
        self._waiting = waiting
        self._catalogue = catalogue
        self._fleet = fleet
        self._uids: list[str] = []
        self._shapes: list[Shape] = []
        self._lines: list[Line] = []
        self._agents: list[str] = []
        self._classes: list[AgentClass] = []
        self._found: list[str] = []
        self.running = False

    def begin(self, counts: Mapping[tuple[Key, int], tuple[int, int]], outstanding: int) -> None:
        """Begin a round; the sums are compared at once."""
        self.running = True
        self._found = [*_sums(len(self._tasks), counts, outstanding, self._catalogue, self._fleet)]
        self._uids = list(self._tasks)
        self._shapes = list(self._catalogue.shapes.values())
        self._agents = list(self._fleet.agents)
        self._classes = list(self._catalogue.classes.values())

    def step(self, most: int) -> list[str] | None:
        """Look at about so many things. Return all that the round found once it is over, None before.

        A line is counted at once, however long it is.
        """
        found = self._found
        while most > 0:
            if self._uids:
                uid = self._uids.pop()
                record = self._tasks.get(uid)
                if record is not None:
                    found += _task(uid, record, self._waiting, self._catalogue, self._fleet)
                most -= 1
            elif self._shapes:
                shape = self._shapes.pop()
                if self._catalogue.shapes.get(shape.key) is shape:
                    lines = self._waiting.lines(shape)
                    found += _shape(shape, lines)
                    self._lines += lines
                most -= 1
            elif self._lines:
                line = self._lines.pop()
                if self._waiting.has(line):
                    found += _line(line)
                    most -= len(line.heap)
                most -= 1
            elif self._agents:
                uid = self._agents.pop()
                agent = self._fleet.agents.get(uid)
                if agent is not None:
                    found += _agent(uid, agent)
                    most -= len(agent.leases)
                most -= 1
            elif self._classes:
                kind = self._classes.pop()
                if self._catalogue.classes.get(kind.offer) is kind:
                    found += _class(kind)
                    most -= len(kind.members) * (1 + len(kind.rosters))
                most -= 1
            else:
                self.running = False
                return found
        return None
