"""Independent checkers: the core's promises by brute force, from the events and decisions alone.

Nothing here uses the core's indices. The mirror keeps what happened as plain values and tries every Task on every
agent, which is slow and plain on purpose.
"""

from dataclasses import dataclass, field

from taskdist.api import OrderPolicy
from taskdist.core import events
from taskdist.core.decisions import Assign, Decision, DeletePod, Drain, Scale, Undrain
from taskdist.core.model import TOP, Agent, Key, Pool, Queue, Requirement, Task


@dataclass
class Mirror:
    """What is so after the events and decisions so far."""

    queues: dict[Key, Queue] = field(default_factory=dict)
    pools: dict[Key, Pool] = field(default_factory=dict)
    waiting: dict[str, Task] = field(default_factory=dict)
    held: set[str] = field(default_factory=set)
    leased: dict[str, tuple[Task, str]] = field(default_factory=dict)
    agents: dict[str, Agent] = field(default_factory=dict)
    ready: set[str] = field(default_factory=set)
    pods: dict[str, Key] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    draining: set[str] = field(default_factory=set)
    deleting: set[str] = field(default_factory=set)
    desired: dict[Key, int] = field(default_factory=dict)

    def take(self, event: events.Event) -> None:
        match event:
            case events.QueueApplied(queue):
                self.queues[queue.key] = queue
            case events.QueueDeleted(key):
                self.queues.pop(key, None)
            case events.PoolApplied(pool):
                self.pools[pool.key] = pool
            case events.PoolDeleted(key):
                self.pools.pop(key, None)
                self.desired.pop(key, None)
            case events.TaskWaiting(task):
                self._lift(task.uid)
                self.waiting[task.uid] = task
            case events.TaskHeld(task, _):
                self._lift(task.uid)
                self.waiting[task.uid] = task
                self.held.add(task.uid)
            case events.TaskLeased(task, agent_uid):
                self._lift(task.uid)
                self.leased[task.uid] = (task, agent_uid)
            case events.TaskGone(uid):
                self._lift(uid)
            case events.PodSeen(uid, namespace, _, pool, _):
                self.pods[uid] = (namespace, pool)
            case events.PodGone(uid):
                self.gone.add(uid)
                self.ready.discard(uid)
            case events.AgentReady(agent):
                self.agents[agent.uid] = agent
                self.ready.add(agent.uid)
            case events.AgentNotReady(uid):
                self.ready.discard(uid)
            case events.AttemptFailed() | events.AgentDrained():
                pass

    def _lift(self, uid: str) -> None:
        self.waiting.pop(uid, None)
        self.held.discard(uid)
        self.leased.pop(uid, None)

    # What each agent has.

    def busy(self, uid: str) -> int:
        return sum(task.slots for task, agent in self.leased.values() if agent == uid)

    def free(self, uid: str) -> tuple[int, dict[str, int]]:
        agent = self.agents[uid]
        resources = dict(agent.resources)
        for task, holder in self.leased.values():
            if holder == uid:
                for name, amount in task.resources:
                    resources[name] = resources.get(name, 0) - amount
        return agent.slots - self.busy(uid), resources

    def idle(self, uid: str) -> bool:
        return all(agent != uid for _, agent in self.leased.values())

    # Who may run where.

    def eligible(self, task: Task, now: float) -> bool:
        queue = self.queues.get(task.queue_key)
        return (
            queue is not None
            and not queue.paused
            and not task.suspended
            and task.not_before <= now
            and task.uid not in self.held
        )

    def level(self, task: Task, now: float) -> int:
        """The level with what waiting adds: one for each step, up to Critical."""
        queue = self.queues.get(task.queue_key) or Queue(*task.queue_key)
        if queue.policy is not OrderPolicy.PRIORITY:
            return min(queue.level, TOP)
        if task.priority >= TOP or not queue.aging_step:
            return task.priority
        return min(TOP, task.priority + max(0, int((now - task.created) // queue.aging_step)))

    def open(self, uid: str) -> bool:
        return uid in self.ready and uid not in self.draining | self.deleting | self.gone

    def suits(self, task: Task, uid: str) -> bool:
        """Whether the agent may run the Task, were it idle and open."""
        queue, agent = self.queues[task.queue_key], self.agents[uid]
        pools = queue.pools if task.pool is None else (task.pool,)
        return (
            agent.pool in pools
            and agent.namespace == task.namespace
            and agent.pool_key in self.pools
            and (agent.types is None or task.type in agent.types)
            and task.skills <= agent.skills
            and all(_meets(dict(agent.labels), requirement) for requirement in task.selector)
            and (agent.fenced or queue.allows_unfenced)
        )

    def could_start(self, task: Task, uid: str, now: float) -> bool:
        if not (self.eligible(task, now) and self.open(uid) and self.suits(task, uid)):
            return False
        slots, resources = self.free(uid)
        return slots >= task.slots and all(resources.get(name, 0) >= amount for name, amount in task.resources)

    # Decisions.

    def apply(self, decision: Decision, now: float) -> list[str]:
        """Take a decision over; return what it breaks."""
        match decision:
            case Assign():
                return self._assign(decision, now)
            case Scale(pool, replicas):
                self.desired[pool] = replicas
                bounds = self.pools[pool]
                if not bounds.minimum <= replicas <= bounds.maximum:
                    return [f"pool {pool} is scaled to {replicas}, outside its bounds"]
            case Drain(uid):
                self.draining.add(uid)
                pool = self._pool_of(uid)
                if pool is not None and pool.elastic and not self.idle(uid):
                    return [f"agent {uid} of an elastic pool is drained although busy"]
            case Undrain(uid):
                broken = [] if uid in self.draining - self.deleting else [f"agent {uid} was not draining"]
                self.draining.discard(uid)
                return broken
            case DeletePod(uid):
                self.deleting.add(uid)
                if not self.idle(uid):
                    return [f"pod {uid} is deleted although it holds a lease"]
        return []

    def _assign(self, decision: Assign, now: float) -> list[str]:
        uid, agent = decision.task_uid, decision.agent_uid
        task = self.waiting.get(uid)
        if task is None:
            return [f"Task {uid} is assigned although it does not wait"]
        broken = []
        if not self.could_start(task, agent, now):
            broken.append(f"Task {uid} is assigned to agent {agent}, which may not or cannot take it")
        for other in self.waiting.values():
            if self.level(other, now) > self.level(task, now) and self.could_start(other, agent, now):
                broken.append(f"Task {uid} overtakes {other.uid} on agent {agent}")
        fraction = self.busy(agent) / self.agents[agent].slots
        for rival in self.ready:
            if self.could_start(task, rival, now) and self.busy(rival) / self.agents[rival].slots < fraction:
                broken.append(f"Task {uid} goes to {agent}, although {rival} is less busy")
        del self.waiting[uid]
        self.leased[uid] = (task, agent)
        return broken

    def _pool_of(self, uid: str) -> Pool | None:
        key = self.agents[uid].pool_key if uid in self.agents else self.pods.get(uid)
        return None if key is None else self.pools.get(key)

    # What must hold whenever the core has nothing more to say.

    def at_rest(self, now: float) -> list[str]:
        """Return what is wrong if the core decides nothing further."""
        return [
            f"Task {task.uid} waits although agent {uid} could start it"
            for task in self.waiting.values()
            for uid in self.ready
            if self.could_start(task, uid, now)
        ]

    def position(self, task: Task, now: float) -> tuple[int, int]:
        """Return the bounds of its position, whatever shares say: behind all of a higher level, before all of lower."""
        pools, level = self.pools_of(task), self.level(task, now)
        levels = [
            self.level(other, now)
            for other in self.waiting.values()
            if other.uid != task.uid and self.eligible(other, now) and pools & self.pools_of(other)
        ]
        return 1 + sum(each > level for each in levels), 1 + sum(each >= level for each in levels)

    def pools_of(self, task: Task) -> set[Key]:
        queue = self.queues.get(task.queue_key)
        names = (task.pool,) if task.pool is not None else queue.pools if queue is not None else ()
        return {(task.namespace, name) for name in names if (task.namespace, name) in self.pools}


def _meets(labels: dict[str, str], requirement: Requirement) -> bool:
    value = labels.get(requirement.key)
    return {
        "In": value is not None and value in requirement.values,
        "NotIn": value is None or value not in requirement.values,
        "Exists": value is not None,
        "DoesNotExist": value is None,
    }[requirement.operator]
