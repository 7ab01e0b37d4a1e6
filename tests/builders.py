"""Small builders that read like sentences: `make_task("a").queue("q").priority(5).build()`.

Each step returns a new builder, so that a half-built one can be shared between cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

from taskdist.api import Delivery, Dispatch, Reclaim, Strategy
from taskdist.core.model import (
    REGION,
    ZONE,
    Agent,
    Placement,
    Pool,
    Preference,
    Queue,
    Requirement,
    RetryPolicy,
    Task,
)

NAMESPACE = "ns"


@dataclass(frozen=True)
class TaskBuilder:
    """A Task named after its uid, of queue `q` and type `work`, created at 0."""

    task: Task

    def build(self) -> Task:
        return self.task

    def _with(self, **fields: object) -> TaskBuilder:
        return TaskBuilder(replace(self.task, **fields))  # type: ignore[arg-type]

    def named(self, uid: str) -> TaskBuilder:
        return self._with(uid=uid, name=uid)

    def queue(self, name: str) -> TaskBuilder:
        return self._with(queue=name)

    def type(self, name: str) -> TaskBuilder:
        return self._with(type=name)

    def priority(self, priority: int) -> TaskBuilder:
        return self._with(priority=priority)

    def created(self, at: float) -> TaskBuilder:
        return self._with(created=at)

    def pool(self, name: str | None) -> TaskBuilder:
        return self._with(pool=name)

    def slots(self, slots: int) -> TaskBuilder:
        return self._with(slots=slots)

    def resources(self, **amounts: int) -> TaskBuilder:
        return self._with(resources=tuple(sorted(amounts.items())))

    def stored(self) -> TaskBuilder:
        return self._with(objects=True)

    def skills(self, *skills: str) -> TaskBuilder:
        return self._with(skills=frozenset(skills))

    def selector(self, key: str, operator: str, *values: str) -> TaskBuilder:
        return self._with(selector=(*self.task.selector, Requirement(key, operator, frozenset(values))))

    def suspended(self, suspended: bool = True) -> TaskBuilder:
        return self._with(suspended=suspended)

    def failures(self, failures: int) -> TaskBuilder:
        return self._with(failures=failures)

    def not_before(self, at: float) -> TaskBuilder:
        return self._with(not_before=at)

    def placed(self, **fields: Any) -> TaskBuilder:
        """Fields of its placement."""
        return self._with(placement=replace(self.task.placement or Placement(), **fields))

    def prefers(self, key: str, value: str, weight: int = 1, wait: float = 0.0) -> TaskBuilder:
        """One more label that its agent should rather carry; how long it waits for one."""
        former = self.task.placement or Placement()
        preference = Preference(weight, (Requirement(key, "In", frozenset({value})),))
        return self.placed(preferred=(*former.preferred, preference), wait=wait)

    def sticky(self, key: str) -> TaskBuilder:
        return self._with(sticky_key=key)


def make_task(uid: str) -> TaskBuilder:
    return TaskBuilder(Task(uid, NAMESPACE, uid, "q", "work", 0.0))


@dataclass(frozen=True)
class QueueBuilder:
    """A queue served by pool `p`."""

    queue: Queue

    def build(self) -> Queue:
        return self.queue

    def _with(self, **fields: object) -> QueueBuilder:
        return QueueBuilder(replace(self.queue, **fields))  # type: ignore[arg-type]

    def pools(self, *names: str) -> QueueBuilder:
        return self._with(pools=names)

    def paused(self, paused: bool = True) -> QueueBuilder:
        return self._with(paused=paused)

    def reclaim(self, reclaim: Reclaim) -> QueueBuilder:
        return self._with(reclaim=reclaim)

    def delivery(self, delivery: Delivery) -> QueueBuilder:
        return self._with(delivery=delivery)

    def dispatch(self, dispatch: Dispatch) -> QueueBuilder:
        return self._with(dispatch=dispatch)

    def strategy(self, strategy: Strategy) -> QueueBuilder:
        return self._with(strategy=strategy)

    def retry(self, limit: int = 3, initial: float = 1.0, factor: float = 2.0, most: float = 300.0) -> QueueBuilder:
        return self._with(retry=RetryPolicy(limit, initial, factor, most))


def make_queue(name: str = "q") -> QueueBuilder:
    return QueueBuilder(Queue(NAMESPACE, name, ("p",)))


@dataclass(frozen=True)
class PoolBuilder:
    """A pool of one agent of one slot."""

    pool: Pool

    def build(self) -> Pool:
        return self.pool

    def _with(self, **fields: object) -> PoolBuilder:
        return PoolBuilder(replace(self.pool, **fields))  # type: ignore[arg-type]

    def slots(self, slots: int) -> PoolBuilder:
        return self._with(slots=slots)

    def resources(self, **amounts: int) -> PoolBuilder:
        return self._with(resources=tuple(sorted(amounts.items())))

    def skills(self, *skills: str) -> PoolBuilder:
        return self._with(skills=frozenset(skills))

    def labels(self, **labels: str) -> PoolBuilder:
        return self._with(labels=tuple(sorted(labels.items())))

    def fixed(self, replicas: int) -> PoolBuilder:
        return self._with(elastic=False, minimum=replicas, maximum=replicas)

    def worth(self, **fields: float) -> PoolBuilder:
        """Cost, watts and quality."""
        return self._with(**fields)

    def elastic(self, minimum: int, maximum: int, delay: float = 60.0) -> PoolBuilder:
        return self._with(elastic=True, minimum=minimum, maximum=maximum, scale_down_delay=delay)

    def made_from(self, template: str) -> PoolBuilder:
        """What its pods are made from."""
        return self._with(template=template)

    def target(self, seconds: float) -> PoolBuilder:
        return self._with(target_queue=seconds)

    def up_after(self, seconds: float) -> PoolBuilder:
        return self._with(scale_up_delay=seconds)

    def costs(self, an_hour: float) -> PoolBuilder:
        return self._with(cost_per_hour=an_hour)


def make_pool(name: str = "p") -> PoolBuilder:
    return PoolBuilder(Pool(NAMESPACE, name))


@dataclass(frozen=True)
class AgentBuilder:
    """An agent of pool `p` with one slot, named after its uid."""

    agent: Agent

    def build(self) -> Agent:
        return self.agent

    def _with(self, **fields: object) -> AgentBuilder:
        return AgentBuilder(replace(self.agent, **fields))  # type: ignore[arg-type]

    def pool(self, name: str) -> AgentBuilder:
        return self._with(pool=name)

    def slots(self, slots: int) -> AgentBuilder:
        return self._with(slots=slots)

    def resources(self, **amounts: int) -> AgentBuilder:
        return self._with(resources=tuple(sorted(amounts.items())))

    def stores(self) -> AgentBuilder:
        return self._with(objects=True)

    def skills(self, *skills: str) -> AgentBuilder:
        return self._with(skills=frozenset(skills))

    def types(self, types: Iterable[str] | None) -> AgentBuilder:
        return self._with(types=None if types is None else frozenset(types))

    def labels(self, **labels: str) -> AgentBuilder:
        return self._with(labels=tuple(sorted(labels.items())))

    def zone(self, zone: str, region: str = "r") -> AgentBuilder:
        return self._with(labels=((REGION, region), (ZONE, zone)))

    def fenced(self, fenced: bool) -> AgentBuilder:
        return self._with(fenced=fenced)


def make_agent(uid: str) -> AgentBuilder:
    return AgentBuilder(Agent(uid, NAMESPACE, uid, "p"))
