"""When a waiting Task would start, as things are and after a change: the real core played forward from a snapshot.

The snapshot is the events that bring a core to it, the same that answer why a Task waits. From there, attempts take
as long as ended ones of their type took, drawn anew in each of several runs; both courses of a run draw the same, so
that they differ by the change alone. No Task comes in and no agent fails: an answer is as good as that. Refuses to
read a clock or a cluster, and to change anything.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from heapq import heappop, heappush
from math import inf, log1p, nextafter

from taskdist.api import view as shapes
from taskdist.api.view import Changes, ExpectedStart, WhatIf
from taskdist.core import Core, events
from taskdist.core.decisions import Assign, Decision, DeletePod, Drain, Fail, Retry, Scale, Spill, Undrain
from taskdist.core.limits.levels import Level
from taskdist.core.model import Agent, Key, Pool, Queue, Task
from taskdist.core.primitives.service_times import Estimate, quantile
from taskdist.protocol import explanations
from taskdist.simulation.chance import Chance
from taskdist.simulation.figures import percentile

RUNS = 30
TASKS = 60_000
"""Where very many Tasks wait there are fewer runs, so that all together play so many; but not under five."""
FEWEST = 3
"""So many runs are played of each, whatever time there is."""
HORIZON = 30 * 86_400.0
"""What is not started after so many seconds counts as not started at all."""
LIKELY = 20
"""How many attempts stand for what is known by mean and variance alone."""
START_SECONDS = 10.0
"""How long a new agent takes to be ready, if nothing better is known."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A moment. `since` says when the attempts that run began, by the Task's uid (wall clock, seconds); `services`
    how long ended attempts took, by queue and type; `levels` what was left of queues' rates and budgets, which count
    as full where they are not told."""

    now: float
    events: Sequence[events.Event]
    since: Mapping[str, float] = field(default_factory=dict)
    services: Mapping[tuple[Key, str], Sequence[float]] = field(default_factory=dict)
    levels: Mapping[Key, Sequence[Level]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Change:
    """What would be different: the Task's level, the pool that it names, how many agents more a pool has (by name).

    `more` are agents of the first pool that the Task may use then.
    """

    priority: int | None = None
    pool: str | None = None
    agents: Mapping[str, int] = field(default_factory=dict)
    more: int = 0

    @classmethod
    def of(cls, told: Changes) -> "Change":
        """The change that is asked about."""
        level = None if told.priority is None else told.priority.level
        return cls(level, told.pool, dict(told.agents), told.more_agents)


class NotPlayed(ValueError):
    """The change makes no sense of this snapshot. The message says why."""


@dataclass(frozen=True, slots=True)
class Course:
    """When the Task would start (wall clock, seconds): the median of the runs in which it does, and 80% of them.

    `started` is the part of the runs in which it starts at all; without any, there is no time.
    """

    start: float | None
    interval: tuple[float, float] | None
    started: float

    def told(self) -> shapes.Course:
        """Return the course in the form in which it is sent."""
        start = None
        if self.start is not None and self.interval is not None:
            at, earliest, latest = (explanations.moment(each) for each in (self.start, *self.interval))
            start = ExpectedStart(at=at, earliest=earliest, latest=latest)
        return shapes.Course(expected_start=start, starts=round(self.started, 3))


@dataclass(frozen=True, slots=True)
class Comparison:
    """As things are, and after the change."""

    before: Course
    after: Course
    runs: int

    def told(self) -> WhatIf:
        """The answer, in the form in which it is sent."""
        return WhatIf(as_it_is=self.before.told(), changed=self.after.told(), runs=self.runs)


def what_if(
    snapshot: Snapshot,
    uid: str,
    change: Change,
    *,
    runs: int | None = None,
    seed: int = 1,
    start_seconds: float = START_SECONDS,
    go_on: Callable[[], bool] = lambda: True,
) -> Comparison:
    """Play forward with and without the change, until the Task starts or nothing can happen any more.

    Args:
        runs: how many, of each; else by how many Tasks wait.
        go_on: asked before each run but the first `FEWEST`: whether there is time for more.

    Raises:
        NotPlayed: no waiting Task has this uid, or no pool of its namespace the name of one that is to have agents.
    """
    task = next((each.task for each in snapshot.events if isinstance(each, _WAITS) and each.task.uid == uid), None)
    if task is None:
        raise NotPlayed("the Task waits no longer: a what-if is for Tasks that wait")
    pools = {each.pool.key for each in snapshot.events if isinstance(each, events.PoolApplied)}
    change = _with_more(change, task, snapshot)
    for name in (*change.agents, *(() if change.pool is None else (change.pool,))):
        if (task.namespace, name) not in pools:
            raise NotPlayed(f"{name}: no such AgentPool in the namespace")
    waiting = sum(isinstance(each, _WAITS) for each in snapshot.events)
    if runs is None:
        runs = max(5, min(RUNS, TASKS // waiting))
    changed = replace(snapshot, events=[_changed(each, task, change) for each in snapshot.events])
    before: list[float] = []
    after: list[float] = []
    for run in range(runs):
        if run >= FEWEST and not go_on():
            break
        before.append(_Forward(snapshot, seed, run, start_seconds).until(uid))
        after.append(_Forward(changed, seed, run, start_seconds).until(uid))
    return Comparison(_course(before), _course(after), len(before))


def likely(known: Estimate) -> list[float]:
    """Return how long attempts may take of which mean and variance alone are known, in seconds: lognormal, evenly."""
    # Imported where it is needed: it brings much along.
    from statistics import NormalDist

    # Of a single observation nothing says how they vary: it is taken to be as much as with an exponential.
    variance = known.mean**2 if known.count < 2 else known.variance
    at = ((number + 0.5) / LIKELY for number in range(LIKELY))
    return [quantile(known.mean, variance, NormalDist().inv_cdf(each)) for each in at]


def _with_more(change: Change, task: Task, snapshot: Snapshot) -> Change:
    """Raises NotPlayed."""
    if not change.more:
        return change
    named = change.pool or task.pool
    queues = (each.queue for each in snapshot.events if isinstance(each, events.QueueApplied))
    of = next((each for each in queues if each.key == task.queue_key), None)
    pools = (named,) if named else () if of is None else of.pools
    if not pools:
        raise NotPlayed("no pool is known that may run it: say which one, as in agents.POOL=+3")
    first = pools[0]
    return replace(change, agents={**change.agents, first: change.agents.get(first, 0) + change.more}, more=0)


_WAITS = (events.TaskWaiting, events.TaskHeld)


def _changed(event: events.Event, task: Task, change: Change) -> events.Event:
    if isinstance(event, _WAITS) and event.task.uid == task.uid:
        made = replace(
            event.task,
            priority=event.task.priority if change.priority is None else change.priority,
            pool=event.task.pool if change.pool is None else change.pool,
        )
        return replace(event, task=made)
    if isinstance(event, events.PoolApplied) and event.pool.namespace == task.namespace:
        more = change.agents.get(event.pool.name, 0)
        pool = event.pool
        return events.PoolApplied(
            replace(pool, minimum=max(0, pool.minimum + more), maximum=max(0, pool.maximum + more))
        )
    return event


def _course(starts: Sequence[float]) -> Course:
    found = sorted(each for each in starts if each < inf)
    if not found:
        return Course(None, None, 0.0)
    return Course(percentile(found, 0.5), (percentile(found, 0.1), percentile(found, 0.9)), len(found) / len(starts))


class _Forward:
    """One run from the snapshot on."""

    def __init__(self, snapshot: Snapshot, seed: int, run: int, start_seconds: float) -> None:
        self._snapshot = snapshot
        self._now = snapshot.now
        self._core = Core()
        self._seed, self._run = seed, run
        self._start_seconds = start_seconds
        self._queues: dict[Key, Queue] = {}
        self._pools: dict[Key, Pool] = {}
        # By uid: Tasks, and of agents the pool, the Tasks they hold, and whether they are to go.
        self._tasks: dict[str, Task] = {}
        self._agents: dict[str, Key] = {}
        self._held: dict[str, set[str]] = {}
        self._draining: set[str] = set()
        self._made = 0
        # Time, number (so that equal times keep their order), event of the core, agent that it ends an attempt on.
        self._heap: list[tuple[float, int, events.Event, str]] = []
        self._pushed = 0

    def until(self, uid: str) -> float:
        """Return when the Task starts; infinite if it does not."""
        for event in self._snapshot.events:
            self._begin(event)
        for key, levels in self._snapshot.levels.items():
            self._core.recall_levels(key, levels)
        while True:
            for decision in self._core.decide(self._now):
                if isinstance(decision, Assign) and decision.task_uid == uid:
                    return self._now
                if isinstance(decision, Fail) and decision.task_uid == uid:
                    return inf
                self._carry_out(decision)
            wake = self._core.next_wake()
            # What time alone was to bring was said just now: strictly later, or it would stand still.
            at = inf if wake is None else wake if wake > self._now else nextafter(self._now, inf)
            if self._heap and self._heap[0][0] < at:
                at = self._heap[0][0]
            if at > self._snapshot.now + HORIZON:
                return inf
            self._now = at
            while self._heap and self._heap[0][0] <= at:
                _, _, event, agent = heappop(self._heap)
                if agent and isinstance(event, events.TaskGone):
                    self._held[agent].discard(event.uid)
                self._core.handle(event, at)
                if agent in self._draining and not self._held[agent]:
                    self._core.handle(events.AgentDrained(agent), at)

    def _later(self, at: float, event: events.Event, agent: str = "") -> None:
        self._pushed += 1
        heappush(self._heap, (max(at, self._now), self._pushed, event, agent))

    def _begin(self, event: events.Event) -> None:
        """Tell the core what is there, and plan what comes of it."""
        match event:
            case events.QueueApplied(queue):
                self._queues[queue.key] = queue
            case events.PoolApplied(pool):
                self._pools[pool.key] = pool
            case events.PodSeen(uid):
                self._agents[uid] = (event.namespace, event.pool)
            case events.TaskWaiting(task):
                self._tasks[task.uid] = task
            case events.TaskHeld(task):
                self._tasks[task.uid] = task
                # Whatever it waits for outside is over by then.
                self._later(self._now + self._queue(task).hold_seconds, events.TaskWaiting(task))
            case events.TaskLeased(task, agent_uid):
                self._tasks[task.uid] = task
                self._runs(task, agent_uid, self._snapshot.since.get(task.uid, self._now))
        self._core.handle(event, self._now)

    def _queue(self, task: Task) -> Queue:
        return self._queues.get(task.queue_key) or Queue(*task.queue_key)

    def _runs(self, task: Task, agent: str, since: float) -> None:
        self._held.setdefault(agent, set()).add(task.uid)
        self._later(since + self._service(task, max(0.0, self._now - since)), events.TaskGone(task.uid), agent)

    def _service(self, task: Task, elapsed: float) -> float:
        """How long the attempt takes in all, given that it ran for so long already."""
        uniform = Chance(self._seed, "what-if", task.uid)(self._run)
        seen = self._snapshot.services.get((task.queue_key, task.type), ())
        longer = [each for each in seen if each > elapsed]
        if longer:
            return sorted(longer)[int(uniform * len(longer))]
        # Longer than any that ended, or none did: memoryless, with the mean that is known.
        mean = sum(seen) / len(seen) if seen else self._queue(task).expected_service
        return elapsed - mean * log1p(-uniform)

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Assign(uid, agent_uid):
                self._runs(self._tasks[uid], agent_uid, self._now)
            case Fail(uid, phase=phase):
                self._core.handle(events.TaskGone(uid, phase), self._now)
            case Spill(uid, queue):
                task = self._tasks[uid] = replace(self._tasks[uid], queue=queue)
                self._core.handle(events.TaskWaiting(task), self._now)
            case Scale(key, replicas):
                staying = sum(pool == key and uid not in self._draining for uid, pool in self._agents.items())
                for _ in range(replicas - staying):
                    self._make(self._pools[key])
            case Drain(uid):
                self._draining.add(uid)
                if not self._held.get(uid):
                    self._core.handle(events.AgentDrained(uid), self._now)
            case Undrain(uid):
                self._draining.discard(uid)
            case DeletePod(uid):
                self._agents.pop(uid, None)
                self._draining.discard(uid)
                self._core.handle(events.PodGone(uid), self._now)
            case Retry():
                raise AssertionError("no attempt fails here, so none is tried again")

    def _make(self, pool: Pool) -> None:
        self._made += 1
        uid = name = f"{pool.name}-new-{self._made}"
        self._agents[uid] = pool.key
        self._core.handle(events.PodSeen(uid, pool.namespace, name, pool.name, self._now, pool.template), self._now)
        agent = Agent(uid, pool.namespace, name, pool.name, pool.slots, pool.resources, pool.skills, labels=pool.labels)
        self._later(self._now + self._start_seconds, events.AgentReady(agent))
