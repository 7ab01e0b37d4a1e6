"""Counts priority inversions in a recorded run, by trying every class of waiting Tasks at every start.

A start of Task j on agent a is an inversion if just before it some eligible Task of a higher level waited that passes
all filters for a and demands at most what was free there. Nothing of the core's indices is used: levels, gates and
what is free follow from the log, and only the filters, which are the rule itself, are shared.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from heapq import heappop, heappush

from taskdist.core.agents.filters import Need, Offer, covers, need_of, offer_of, refusal
from taskdist.core.fleet.routes import NONE, route_of
from taskdist.core.model import EMERGENCY, Key, Task
from taskdist.simulation.gates import Gates, Name
from taskdist.simulation.levels import Levels, base
from taskdist.simulation.record import AgentLife, Record, Step, TaskLife

SLACK = 1e-6
"""Seconds by which a lift may be felt earlier or later: moments of aging are sums of times, which are not exact."""


@dataclass(frozen=True, slots=True)
class Inversion:
    """A start that a waiting Task of a higher level could have had."""

    at: float
    started: TaskLife
    overtaken: TaskLife
    agent: AgentLife


# All that decides whether an agent may run a Task and what it takes of it; whether it may use any pool; its gates; the
# number of its route.
_Class = tuple[Key, str | None, Need, bool, Name, int]


class _Waiting:
    """Tasks of one class that wait and that nothing of their own holds."""

    __slots__ = ("by_base", "lifted")

    def __init__(self) -> None:
        # By level at creation, oldest first: aging keeps that order, so the first is of the highest level. Entries of
        # Tasks that left stay until they come first.
        self.by_base: dict[int, list[tuple[float, int, TaskLife]]] = {}
        # Those whose level follows from others', too, and those whose pools follow from how long they waited.
        self.lifted: dict[str, TaskLife] = {}


class Checker:
    """What waits and what is free, as the log says."""

    def __init__(self, record: Record, levels: Levels, gates: Gates) -> None:
        self._record = record
        self._levels = levels
        self._gates = gates
        self._classes: dict[_Class, _Waiting] = {}
        # By uid: the number of the wait in which a Task is; it stands in a class while this is set.
        self._standing: dict[str, int] = {}
        # By uid: from when on nothing of its own held a Task in its last wait.
        self._since: dict[str, float] = {}
        # By uid: until when only agents will do that the Task prefers.
        self._patience: dict[str, float] = {}
        self._gated: list[tuple[float, int, TaskLife]] = []
        # Tasks that wait for their turn or for others, by uid.
        self._held: dict[str, TaskLife] = {}
        self._waits: dict[str, int] = {}
        # How often each Task has begun to wait.
        self._seen: dict[str, int] = {}
        self._stamp = 0
        self._free: dict[str, int] = {}
        self._resources: dict[str, dict[str, int]] = {}
        self._offers: dict[str, Offer] = {}
        self._passes: dict[tuple[_Class, Offer], bool] = {}
        # By pool: when its agents were made, of those that never went.
        self._sizes: dict[str, list[float]] | None = None

    def found(self) -> Iterator[Inversion]:
        """Yield each start that is an inversion, with a Task that it overtook."""
        for at, step, life, agent in self._record.log:
            while self._gated and self._gated[0][0] <= at:
                opened, number, due = heappop(self._gated)
                if self._waits.get(due.task.uid) == number:
                    self._admit(due, opened)
            if step is Step.STARTS and agent is not None:
                self._withdraw(life)
                overtaken = None if self._reserved(life, at) else self._overtaken(life, agent, at)
                if overtaken is not None:
                    yield Inversion(at, life, overtaken, agent)
                self._take(agent, life.task, 1)
            elif step is Step.STOPS and agent is not None:
                self._take(agent, life.task, -1)
            elif step is Step.ENDS:
                self._withdraw(life)
            self._gates.follow(at, step, life)
            if step is Step.WAITS:
                self._wait(life, at)
            elif step is Step.ENDS and self._held:
                for each in [each for each in self._held.values() if not self._gates.own(each)]:
                    self._admit(each, at)

    def _wait(self, life: TaskLife, at: float) -> None:
        uid = life.task.uid
        self._stamp += 1
        self._waits[uid] = self._stamp
        self._patience.pop(uid, None)
        seen = self._seen.get(uid, 0)
        self._seen[uid] = seen + 1
        opens = life.eligible[seen]
        if opens <= at:
            self._admit(life, at)
        else:
            heappush(self._gated, (opens, self._stamp, life))

    def _class(self, task: Task, patient: bool) -> _Class:
        queue = self._gates.queue(task)
        anywhere = base(task, queue) == EMERGENCY
        need, route = need_of(task, queue.allows_unfenced, patient), route_of(queue, task)
        return task.queue_key, task.pool, need, anywhere, self._gates.group(task), route

    def _admit(self, life: TaskLife, at: float) -> None:
        task = life.task
        if self._gates.individual(task) and self._gates.own(life):
            self._held[task.uid] = life
            return
        self._held.pop(task.uid, None)
        self._since[task.uid] = at
        number = self._standing[task.uid] = self._waits[task.uid]
        kind = self._class(task, self._patient(life, number, at))
        waiting = self._classes.setdefault(kind, _Waiting())
        if self._levels.lifts or kind[5] != NONE:
            waiting.lifted[task.uid] = life
        else:
            line = waiting.by_base.setdefault(base(task, self._gates.queue(task)), [])
            heappush(line, (task.created, number, life))

    def _patient(self, life: TaskLife, number: int, at: float) -> bool:
        """Whether the Task waits for an agent that it prefers; it is admitted anew when that is over. Where it stood
        as patient it stays: there it could have started as well."""
        placement = life.task.placement
        if placement is None or not placement.waits:
            return False
        until = self._patience.setdefault(life.task.uid, at + placement.wait)
        if at >= until:
            return False
        heappush(self._gated, (until, number, life))
        return True

    def _withdraw(self, life: TaskLife) -> None:
        uid = life.task.uid
        self._waits.pop(uid, None)
        self._held.pop(uid, None)
        if self._standing.pop(uid, None) is not None:
            for patient in (False, True):
                waiting = self._classes.get(self._class(life.task, patient))
                if waiting is not None:
                    waiting.lifted.pop(uid, None)

    def _reserved(self, started: TaskLife, at: float) -> bool:
        """Whether an agent may have been held for the Task: it needs much at once and had waited for long.

        Others are gated by that hold, whatever their level.
        """
        task = started.task
        queue = self._gates.queue(task)
        much = task.slots > 1 or bool(task.resources)
        return much and queue.hold_after > 0 and at - self._since[task.uid] >= queue.hold_after - SLACK

    def _overtaken(self, started: TaskLife, agent: AgentLife, at: float) -> TaskLife | None:
        own = self._levels(started, at + SLACK)
        for kind, waiting in self._classes.items():
            found = next(
                (
                    life
                    for life in self._first(waiting)
                    if self._levels(life, at - SLACK) > own and self._open(kind, life, agent, at)
                ),
                None,
            )
            if (
                found is not None
                and self._may(kind, agent)
                and self._fits(kind[2], agent)
                and not self._gates.shut(found.task, at)
            ):
                return found
        return None

    def _open(self, kind: _Class, life: TaskLife, agent: AgentLife, at: float) -> bool:
        """Whether a step of the Task's route that has the agent's pool was open for sure."""
        if kind[5] == NONE or kind[3]:
            return True
        route = self._gates.queue(life.task).routes[kind[5]]
        opens, last = self._since[life.task.uid], 0
        for number, step in enumerate(route.steps[1:], 1):
            opens += step.after
            if opens > at - SLACK:
                break
            last = number
        while last + 1 < len(route.steps) and not any(
            self._may_grow(kind, name, at) for step in route.steps[: last + 1] for name in step.pools
        ):
            last += 1
        return any(agent.pool in step.pools for step in route.steps[: last + 1])

    def _may_grow(self, kind: _Class, name: str, at: float) -> bool:
        """Whether the pool could perhaps get another agent: which ones were to go is not in the log."""
        pool = self._record.pools.get((kind[0][0], name))
        if pool is None or not pool.elastic:
            return False
        if self._sizes is None:
            self._sizes = {}
            for life in self._record.agents:
                if life.gone is None:
                    self._sizes.setdefault(life.pool, []).append(life.born)
        return sum(born < at - SLACK for born in self._sizes.get(name, ())) < pool.maximum

    def _first(self, waiting: _Waiting) -> Iterable[TaskLife]:
        """Some of the Tasks, among them one of the highest level."""
        if waiting.lifted:
            yield from waiting.lifted.values()
        for line in waiting.by_base.values():
            while line and self._standing.get(line[0][2].task.uid) != line[0][1]:
                heappop(line)
            if line:
                yield line[0][2]

    def _may(self, kind: _Class, agent: AgentLife) -> bool:
        offer = self._offers.get(agent.uid)
        if offer is None:
            offer = self._offers[agent.uid] = offer_of(agent.agent, self._record.pools.get(agent.agent.pool_key))
        known = self._passes.get((kind, offer))
        if known is None:
            (namespace, name), pool, need, anywhere, _, route = kind
            queue = self._record.queues.get((namespace, name))
            pools = () if queue is None or queue.paused else queue.pools if pool is None else (pool,)
            if pools and queue is not None and route != NONE:
                pools = queue.routes[route].pools
            if (anywhere or need.agent is not None) and pools and pool is None:
                pools = tuple(name for _, name in self._record.pools)
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


def inversions(record: Record) -> list[Inversion]:
    """Return the starts that are inversions."""
    return list(Checker(record, Levels(record), Gates(record)).found())
