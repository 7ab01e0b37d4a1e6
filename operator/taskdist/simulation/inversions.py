"""Counts priority inversions in a recorded run, by trying every class of waiting Tasks at every start.

A start of Task j on agent a is an inversion if just before it some eligible Task of a higher level waited that passes
all filters for a and demands at most what was free there. Nothing of the core's indices is used: what is free follows
from the log, and only the filters, which are the rule itself, are shared.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from taskdist.core.filters import Need, Offer, covers, need_of, refusal
from taskdist.core.model import Agent, Key, Task
from taskdist.simulation.record import AgentLife, Record, Step, TaskLife

Level = Callable[[TaskLife, float], int]
"""A Task's level from a moment on, as long as it waits: higher goes first."""


@dataclass(frozen=True, slots=True)
class Inversion:
    """A start that a waiting Task of a higher level could have had."""

    at: float
    started: TaskLife
    overtaken: TaskLife
    agent: AgentLife


def own_priority(life: TaskLife, at: float) -> int:
    """The level of Tasks whose priority is all that orders them."""
    return life.task.priority


# All that decides whether an agent may run a Task, and what it takes of it.
_Class = tuple[Key, str | None, Need]


class Checker:
    """What waits and what is free, as the log says."""

    def __init__(self, record: Record, level: Level) -> None:
        self._record = record
        self._level = level
        # Eligible Tasks by class and level; those whose gate opens later stand in `_gated` until then.
        self._eligible: dict[_Class, dict[str, TaskLife]] = {}
        self._counts: dict[_Class, Counter[int]] = {}
        self._levels: dict[str, int] = {}
        self._gated: list[tuple[float, int, TaskLife]] = []
        self._waits: dict[str, int] = {}
        # How often each Task has begun to wait.
        self._seen: dict[str, int] = {}
        self._free: dict[str, int] = {}
        self._resources: dict[str, dict[str, int]] = {}
        self._offers: dict[str, Offer] = {}
        self._passes: dict[tuple[_Class, Offer], bool] = {}

    def found(self) -> Iterator[Inversion]:
        """Yield each start that is an inversion, with the first Task that it overtook."""
        stamp = 0
        for at, step, life, agent in self._record.log:
            while self._gated and self._gated[0][0] <= at:
                _, number, due = heappop(self._gated)
                if self._waits.get(due.job.task.uid) == number:
                    self._admit(due, at)
            if step is Step.WAITS:
                stamp += 1
                self._waits[life.job.task.uid] = stamp
                seen = self._seen.get(life.job.task.uid, 0)
                self._seen[life.job.task.uid] = seen + 1
                opens = life.eligible[seen]
                if opens <= at:
                    self._admit(life, at)
                else:
                    heappush(self._gated, (opens, stamp, life))
            elif agent is not None and step is Step.STARTS:
                self._withdraw(life)
                overtaken = self._overtaken(life, agent, at)
                if overtaken is not None:
                    yield Inversion(at, life, overtaken, agent)
                self._take(agent, life.job.task, 1)
            elif agent is not None:
                self._take(agent, life.job.task, -1)

    def _class(self, task: Task) -> _Class:
        queue = self._record.queues.get(task.queue_key)
        return task.queue_key, task.pool, need_of(task, queue is not None and queue.allows_unfenced)

    def _admit(self, life: TaskLife, at: float) -> None:
        kind = self._class(life.job.task)
        level = self._levels[life.job.task.uid] = self._level(life, at)
        self._eligible.setdefault(kind, {})[life.job.task.uid] = life
        self._counts.setdefault(kind, Counter())[level] += 1

    def _withdraw(self, life: TaskLife) -> None:
        uid = life.job.task.uid
        self._waits.pop(uid, None)
        level = self._levels.pop(uid, None)
        if level is not None:
            kind = self._class(life.job.task)
            del self._eligible[kind][uid]
            counts = self._counts[kind]
            counts[level] -= 1
            if not counts[level]:
                del counts[level]

    def _overtaken(self, started: TaskLife, agent: AgentLife, at: float) -> TaskLife | None:
        own = self._level(started, at)
        for kind, counts in self._counts.items():
            if counts and max(counts) > own and self._may(kind, agent) and self._fits(kind[2], agent):
                return next(life for life in self._eligible[kind].values() if self._levels[life.job.task.uid] > own)
        return None

    def _may(self, kind: _Class, agent: AgentLife) -> bool:
        offer = self._offers.get(agent.uid)
        if offer is None:
            offer = self._offers[agent.uid] = _offer(agent.agent)
        known = self._passes.get((kind, offer))
        if known is None:
            (namespace, name), pool, need = kind
            queue = self._record.queues.get((namespace, name))
            pools = () if queue is None or queue.paused else queue.pools if pool is None else (pool,)
            known = self._passes[kind, offer] = agent.pool in pools and refusal(need, offer) is None
        return known

    def _fits(self, need: Need, agent: AgentLife) -> bool:
        resources = self._resources.get(agent.uid) or dict(agent.agent.resources)
        return need.slots <= self._free.get(agent.uid, agent.slots) and covers(resources.items(), need.resources)

    def _take(self, agent: AgentLife, task: Task, sign: int) -> None:
        self._free[agent.uid] = self._free.get(agent.uid, agent.slots) - sign * task.slots
        if task.resources:
            held = self._resources.setdefault(agent.uid, dict(agent.agent.resources))
            for name, amount in task.resources:
                held[name] = held.get(name, 0) - sign * amount


def _offer(agent: Agent) -> Offer:
    return Offer(agent.pool_key, agent.slots, agent.resources, agent.skills, agent.types, agent.labels, agent.fenced)


def inversions(record: Record, level: Level = own_priority) -> list[Inversion]:
    """Return the starts that are inversions."""
    return list(Checker(record, level).found())
