"""What holds a Task, taken away as the core names it: an oracle for explanations.

Plays a copy of a core (made by telling it all again) forward: what the explanation names is lifted, ended, added or
waited for, by the command that it gives where that changes an object. Then the Task goes, or another reason is shown.
"""

import json
import shlex
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from builders import NAMESPACE
from taskdist.api import Phase, Priority, Reason
from taskdist.core import Core, order
from taskdist.core.decisions import Assign, Decision, Explanation, Fail, Spill
from taskdist.core.events import (
    AgentReady,
    Event,
    PodSeen,
    PoolApplied,
    QueueApplied,
    TaskGone,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import REGION, ZONE, Agent, Pool, Queue, Quota, Task

# Ended already, or yet to be recorded so: there is nothing to lift.
OVER = frozenset(
    {Reason.WAITED_TOO_LONG, Reason.DEADLINE_HOPELESS, Reason.QUEUE_FULL, Reason.DEPENDENCY_FAILED, Reason.SKIPPED}
)


class Unblocked(Exception):
    """The Task has started, or ended."""


class Oracle:
    """One waiting Task of a copy of a core. `tell` and `decide` also keep what the state is by now."""

    def __init__(
        self,
        core: Core,
        uid: str,
        now: float,
        queues: dict[tuple[str, str], Queue],
        pools: dict[tuple[str, str], Pool],
        waiting: dict[str, Task],
        leased: dict[str, Task],
    ) -> None:
        self.core, self.uid, self.now = core, uid, now
        self.queues, self.pools = dict(queues), dict(pools)
        self.tasks = {**waiting, **leased}
        self.leased = set(leased)
        self.made = 0
        self.story: list[str] = []

    def run(self) -> None:
        """Take away what is named until the Task goes; fail if that leads nowhere."""
        try:
            self.decide()
            for _ in range(3 * len(self.tasks) + 30):
                found = self.core.explain(self.uid, self.now)
                assert found is not None, self.story
                self.story.append(f"{found.reason}: {found.message} → {found.command or found.unblock}")
                if found.reason in OVER:
                    return
                self.take_away(found)
                self.decide()
        except Unblocked:
            return
        raise AssertionError("\n".join(self.story))

    @property
    def task(self) -> Task:
        return self.tasks[self.uid]

    def tell(self, event: Event) -> None:
        match event:
            case QueueApplied(queue):
                self.queues[queue.key] = queue
            case PoolApplied(pool):
                self.pools[pool.key] = pool
            case TaskWaiting(task) | TaskLeased(task, _):
                self.tasks[task.uid] = task
            case TaskGone(uid):
                self.tasks.pop(uid, None)
                self.leased.discard(uid)
        self.core.handle(event, self.now)

    def decide(self) -> None:
        decisions: list[Decision] = self.core.decide(self.now)
        for decision in decisions:
            if isinstance(decision, Assign | Fail | Spill) and decision.task_uid == self.uid:
                raise Unblocked
            if isinstance(decision, Assign):
                self.leased.add(decision.task_uid)

    def take_away(self, found: Explanation) -> None:
        if found.command and self.obey(shlex.split(found.command)):
            return
        task, queue = self.task, self.queues.get(self.task.queue_key)
        match found.reason:
            case Reason.SUSPENDED:
                self.tell(TaskWaiting(replace(task, suspended=False)))
            case Reason.SCHEDULED | Reason.BACKING_OFF:
                self.tell(TaskWaiting(replace(task, not_before=0.0)))
            case Reason.RECOVERING | Reason.DUPLICATE:
                self.tell(TaskWaiting(task))
            case Reason.DEPENDENCY | Reason.DEPENDENCY_NOT_FOUND | Reason.DEPENDENCY_CYCLE:
                self.tell(TaskWaiting(replace(task, parents=())))
            case Reason.AFFINITY_WAIT:
                assert task.placement is not None
                self.tell(TaskWaiting(replace(task, placement=replace(task.placement, wait=0.0))))
            case Reason.OUT_OF_TURN:
                self.end(lambda each: f"the turn of {each.name};" in found.message)
            case Reason.KEY_IN_USE:
                self.end(
                    lambda each: _key(each) == _key(task) and (each.uid in self.leased or self.waits_no_longer(each))
                )
            case Reason.QUEUE_NOT_FOUND:
                pools = tuple(name for _, name in self.pools) or ("p",)
                self.tell(QueueApplied(Queue(*task.queue_key, pools=pools)))
            case Reason.POOL_NOT_FOUND:
                names = [task.pool] if task.pool is not None else _named(found.message)
                for name in names:
                    self.tell(PoolApplied(Pool(NAMESPACE, name, 64, maximum=9)))
            case Reason.QUOTA_EXCEEDED:
                assert queue is not None
                self.tell(QueueApplied(self.without_quota(queue, found.message)))
            case Reason.BUDGET_SHORT | Reason.BUDGET_NOT_FOUND:
                self.tell(
                    TaskWaiting(
                        replace(task, budgets=tuple(b for b in task.budgets if f"{b[0]}/{b[1]}" not in found.message))
                    )
                )
            case _:
                self.add_agent(task)

    def waits_no_longer(self, other: Task) -> bool:
        """Nobody holds the key: then the others that want it go first."""
        held = any(_key(self.tasks[uid]) == _key(other) for uid in self.leased if uid in self.tasks)
        return not held and other.uid != self.uid

    def end(self, which: Callable[[Task], bool]) -> None:
        found = [each for each in self.tasks.values() if which(each) and each.uid != self.uid]
        assert found, "\n".join(["who is named is not there", *self.story])
        for each in found:
            self.tell(TaskGone(each.uid, Phase.CANCELLED))

    def add_agent(self, task: Task) -> None:
        """One more agent that can do all, in a pool that may serve the Task: of its name, if it asks for one."""
        queue = self.queues.get(task.queue_key)
        names = [task.pool] if task.pool is not None else list(queue.pools) if queue is not None else []
        if order.is_emergency(queue or Queue(*task.queue_key), task):
            names += [name for _, name in self.pools]
        for route in queue.routes if queue is not None else ():
            names += [name for step in route.steps for name in step.pools]
        self.made += 1
        labels = _labels(task)
        for name in dict.fromkeys(names):
            pool = self.pools.get((NAMESPACE, name))
            if pool is None:
                continue
            pool = replace(pool, cost_per_hour=0.0, quality=1.0, slow_start=0.0, breaker=None)
            # One that has more than it needs would drain what is added.
            pool = replace(pool, minimum=99, maximum=99)
            self.tell(PoolApplied(pool))
            uid = f"new-{self.made}-{name}"
            own = task.agent if task.agent is not None else uid
            self.tell(PodSeen(uid, NAMESPACE, own, name, self.now))
            agent = Agent(
                uid,
                NAMESPACE,
                own,
                name,
                64,
                (("mem", 64),),
                frozenset({"gpu", "io"}),
                None,
                tuple(sorted(labels.items())),
            )
            self.tell(AgentReady(agent))

    def without_quota(self, queue: Queue, message: str) -> Queue:
        if "level Emergency" in message:
            return replace(queue, emergency_leased=99)
        if message.startswith("Queue"):
            return replace(queue, quota=Quota(waiting=queue.quota.waiting))
        return replace(queue, tenant_quota=Quota(waiting=queue.tenant_quota.waiting))

    def obey(self, words: list[str]) -> bool:
        """Do what the command would; False for one that only shows something."""
        if words[:2] == ["taskdist", "resume"]:
            self.tell(TaskWaiting(replace(self.task, suspended=False)))
            return True
        if words[:2] == ["kubectl", "scale"]:
            self.add_agent(self.task)
            return True
        if words[:2] != ["kubectl", "patch"]:
            return False
        kind, name, spec = words[2], words[3], json.loads(words[-1])["spec"]
        if kind.startswith("tasks."):
            assert name == self.task.name
            fields = dict(spec)
            if "priority" in fields:
                fields["priority"] = Priority(fields["priority"]).level
                assert fields["priority"] != self.task.priority
            self.tell(TaskWaiting(replace(self.task, **fields)))
            return True
        if kind.startswith("agentpools."):
            assert set(spec) == {"scaling"}
            self.add_agent(self.task)
            return True
        queue = self.queues[NAMESPACE, name]
        self.tell(QueueApplied(_patched(queue, spec)))
        return True


def _patched(queue: Queue, spec: dict[str, Any]) -> Queue:
    """Only what commands change."""
    for name, value in spec.items():
        match name, value:
            case "paused", bool():
                queue = replace(queue, paused=value)
            case "reclaim", str():
                queue = replace(queue, reclaim=type(queue.reclaim)(value))
            case "quota", {"perTenant": dict(bounds)}:
                queue = replace(queue, tenant_quota=replace(queue.tenant_quota, **bounds))
            case "quota", dict(bounds):
                queue = replace(queue, quota=replace(queue.quota, **bounds))
            case "tenants", {"emergencyLeased": int(most)}:
                queue = replace(queue, emergency_leased=most)
            case "rate", {"queue": {"perSecond": float()}}:
                queue = replace(queue, rate=None)  # twice as fast: wait for it here no longer
            case "rate", {"perTenant": {"perSecond": float()}}:
                queue = replace(queue, tenant_rate=None)
            case _:
                raise AssertionError(f"a command that is not known: {name} {value}")
    return queue


def _labels(task: Task) -> dict[str, str]:
    """Labels of an agent where the Task may run, and would rather."""
    labels: dict[str, str] = {}
    if task.placement is not None:
        for preference in task.placement.preferred[:1]:
            labels |= {each.key: min(each.values) for each in preference.selector}
        for key, places in ((ZONE, task.placement.zones), (REGION, task.placement.regions)):
            if places:
                labels[key] = places[0]
    for each in task.selector:
        if each.operator == "In":
            labels[each.key] = min(each.values)
        elif each.operator == "Exists":
            labels.setdefault(each.key, "x")
        else:
            labels.pop(each.key, None)
    return labels


def _key(task: Task) -> tuple[object, ...]:
    return (task.queue_key, task.concurrency_key)


def _named(message: str) -> list[str]:
    """The pools that a message names."""
    return message.partition(" names pool")[2].lstrip("s").partition(":")[0].strip().split(", ")
