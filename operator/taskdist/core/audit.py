"""Whether the books agree with each other: counts, capacity, indices. Reads all, changes nothing."""

from collections import Counter
from collections.abc import Iterator, Mapping
from math import inf

from taskdist.core.fleet import Fleet
from taskdist.core.masks import bits
from taskdist.core.matching import Catalogue
from taskdist.core.model import Key
from taskdist.core.records import TaskRecord
from taskdist.core.waiting import WaitingIndex


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
        *_lines(tasks, catalogue),
        *_profiles(waiting, catalogue),
        *_leases(tasks, fleet),
        *_rosters(fleet, catalogue),
    ]


def _conservation(
    tasks: Mapping[str, TaskRecord], counts: Mapping[tuple[Key, int], tuple[int, int]], outstanding: int
) -> Iterator[str]:
    if outstanding != len(tasks):
        yield f"accepted − ended is {outstanding}, but {len(tasks)} Tasks are known"
    real: dict[tuple[Key, int], list[int]] = {}
    for uid, record in tasks.items():
        if (record.agent is not None) + (record.gate is not None) + (record.line is not None) != 1:
            yield f"Task {uid} does not stand in exactly one place"
        key = (record.task.queue_key, record.task.priority)
        real.setdefault(key, [0, 0])[record.agent is not None] += 1
    found = {key: (waiting, leased) for key, (waiting, leased) in real.items()}
    if found != dict(counts):
        yield f"queue counts are {dict(counts)}, but Tasks give {found}"


def _lines(tasks: Mapping[str, TaskRecord], catalogue: Catalogue) -> Iterator[str]:
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
        if sum(line.live for line in shape.lines.values()) != shape.eligible:
            yield f"shape {shape.key} has lines of another length than its count"
        for line in shape.lines.values():
            if sum(1 for _ in line.tasks()) != line.live or not line.live:
                yield f"a line of shape {shape.key} has lost count"
            if (line.group is not None) != (shape.profile is not None and line.parked is None):
                yield f"a line of shape {shape.key} is in a group although closed, or not although open"
        if (shape.profile is None) != (shape.closed is not None):
            yield f"shape {shape.key} has a profile although closed, or none although open"
        if shape.demand is not None:
            demand[id(shape.demand)] += sum(line.live for line in shape.lines.values() if line.blocker is None)
    for each in catalogue.demands.values():
        if each.tasks != demand[id(each)]:
            yield f"demand {each.candidates} counts {each.tasks} Tasks, not {demand[id(each)]}"


def _profiles(waiting: WaitingIndex, catalogue: Catalogue) -> Iterator[str]:
    expected = 0
    used: Counter[int] = Counter()
    for shape in catalogue.shapes.values():
        if shape.profile is not None:
            used[shape.profile.number] += 1
            if any(line.blocker is None for line in shape.lines.values()):
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
        if agent.soonest != min((end for end, _, _, _ in agent.leases.values()), default=inf):
            yield f"agent {uid} is expected to end something at {agent.soonest}, by its leases at another time"
        if agent.busy != sum(slots for _, _, slots, _ in agent.leases.values()):
            yield f"agent {uid} counts {agent.busy} busy slots"
        if agent.offer is not None:
            free = Counter(dict(agent.offer.resources))
            for _, _, _, resources in agent.leases.values():
                free.subtract(dict(resources))
            if any(agent.resources_free.get(name, 0) != amount for name, amount in free.items()):
                yield f"agent {uid} counts {agent.resources_free} free, not {dict(free)}"
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
        here = [agent for agent in kind.members.values() if agent.open]
        taken = sum(min(agent.busy, kind.offer.slots) for agent in here)
        if (kind.open, kind.taken) != (len(here), taken):
            yield f"agent class {kind.number} counts {kind.open} open agents with {kind.taken} slots busy"
        for roster in kind.rosters.values():
            free |= roster.servable
            expected = {
                agent.uid
                for agent in kind.members.values()
                if agent.open and agent.busy < min(roster.slots, agent.cap) and agent.fits(roster.resources)
            }
            if {agent.uid for agent in roster.agents()} != expected:
                yield f"roster {roster.leaf} lists other agents than have room"
            if roster.room != max((a.slots - a.busy for a in kind.members.values() if a.uid in expected), default=0):
                yield f"roster {roster.leaf} says {roster.room} free slots"
    if fleet.free.union != free:
        yield f"the mask of free profiles is {list(bits(fleet.free.union))}, not {list(bits(free))}"
