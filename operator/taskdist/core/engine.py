"""The core's state machine: takes events, gives decisions.

Owns where each Task stands (it waits, or it is leased to an agent) and the order of the steps of a decision. Order,
matching, accounting, retry, sizing and words are rooms of their own. Refuses I/O, clocks and chance: the same events
at the same times give the same decisions.
"""

from collections import Counter
from collections.abc import Callable
from heapq import heappop, heappush
from typing import Any

from taskdist.api import Reason
from taskdist.core import audit, events, explain
from taskdist.core.decisions import Assign, Decision, Explanation, Undrain
from taskdist.core.fleet import Fleet, differs
from taskdist.core.matching import Catalogue
from taskdist.core.model import Key, Task
from taskdist.core.resizing import Resizer
from taskdist.core.retry import after_failure
from taskdist.core.roster import AgentRecord
from taskdist.core.views import AgentState, PoolView
from taskdist.core.waiting import TaskRecord, WaitingIndex, rank

# (not before, uid, record): a timer is dead once its Task is no longer backing off until then.
Timer = tuple[float, str, int, TaskRecord]


class Core:
    """Which agent runs which Task and when, what follows a failure, how large pools are, and why a Task waits."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskRecord] = {}
        # By queue: how many wait, how many are leased.
        self._counts: dict[Key, list[int]] = {}
        # By namespace: how many Tasks wait for something outside, perhaps for an agent that was not heard of yet.
        self._held: Counter[str] = Counter()
        self._accepted = 0
        self._ended = 0
        self._timers: list[Timer] = []
        self._timer_stamp = 0
        self._waiting = WaitingIndex()
        self._fleet = Fleet()
        self._catalogue = Catalogue(self._waiting.rehome, self._fleet.resized, self._fleet.relabelled)
        self._fleet.bind(self._catalogue)
        self._resizer = Resizer(self._catalogue, self._fleet)
        # When a decision was cut short by its limit: there is more to say at once.
        self._cut_at: float | None = None
        self._handlers: dict[type[Any], Callable[[Any, float], list[Decision] | None]] = {
            events.QueueApplied: self._queue_applied,
            events.QueueDeleted: self._queue_deleted,
            events.PoolApplied: self._pool_applied,
            events.PoolDeleted: self._pool_deleted,
            events.TaskWaiting: self._task_waiting,
            events.TaskHeld: self._task_held,
            events.TaskLeased: self._task_leased,
            events.TaskGone: self._task_gone,
            events.AttemptFailed: self._attempt_failed,
            events.PodSeen: self._pod_seen,
            events.PodGone: self._pod_gone,
            events.AgentReady: self._agent_ready,
            events.AgentNotReady: self._agent_not_ready,
            events.AgentDrained: self._agent_drained,
        }

    # Events.

    def handle(self, event: events.Event, now: float) -> list[Decision]:
        """Take an event. Only `AttemptFailed` of a known Task is answered, by one `Retry` or `Fail`."""
        return self._handlers[type(event)](event, now) or []

    def _queue_applied(self, event: events.QueueApplied, now: float) -> None:
        self._catalogue.apply_queue(event.queue)

    def _queue_deleted(self, event: events.QueueDeleted, now: float) -> None:
        self._catalogue.drop_queue(event.key)

    def _pool_applied(self, event: events.PoolApplied, now: float) -> None:
        former = self._catalogue.pools.get(event.pool.key)
        self._catalogue.apply_pool(event.pool)
        if former is None or former.template != event.pool.template:
            self._fleet.made_from(event.pool.key, event.pool.template)

    def _pool_deleted(self, event: events.PoolDeleted, now: float) -> None:
        self._catalogue.drop_pool(event.key)
        self._resizer.forget(event.key)

    def _task_waiting(self, event: events.TaskWaiting, now: float) -> None:
        task = event.task
        record = self._record(task, now)
        if task.suspended:
            self._gate(record, Reason.SUSPENDED)
        elif task.not_before > now:
            self._gate(record, Reason.BACKING_OFF)
            self._timer_stamp += 1
            heappush(self._timers, (task.not_before, task.uid, self._timer_stamp, record))
        else:
            self._admit(record)

    def _task_held(self, event: events.TaskHeld, now: float) -> None:
        record = self._record(event.task, now)
        record.held = True
        self._held[event.task.namespace] += 1
        self._gate(record, event.reason)

    def _task_leased(self, event: events.TaskLeased, now: float) -> None:
        self._lease(self._record(event.task, now), self._fleet.obtain(event.agent_uid, now), now)

    def _task_gone(self, event: events.TaskGone, now: float) -> None:
        record = self._tasks.pop(event.uid, None)
        if record is not None:
            self._lift(record, now)
            self._ended += 1

    def _attempt_failed(self, event: events.AttemptFailed, now: float) -> list[Decision] | None:
        record = self._tasks.get(event.uid)
        if record is None:
            return None
        return [after_failure(record.task, self._catalogue.queue(record.task.queue_key), event, now)]

    def _pod_seen(self, event: events.PodSeen, now: float) -> None:
        agent = self._fleet.obtain(event.uid, now)

        def seen(agent: AgentRecord) -> None:
            agent.pod_seen = True
            agent.namespace, agent.name, agent.created = event.namespace, event.name, event.created
            agent.template, agent.outdated = event.template, outdated

        key = (event.namespace, event.pool)
        pool = self._catalogue.pools.get(key)
        outdated = pool is not None and differs(event.template, pool.template)
        known = (agent.pod_seen, agent.created, agent.template, agent.outdated)
        if known != (True, event.created, event.template, outdated):
            self._fleet.change(agent, now, seen)
        self._fleet.belong(agent, key, now)

    def _pod_gone(self, event: events.PodGone, now: float) -> None:
        agent = self._fleet.agents.get(event.uid)
        if agent is not None:
            self._fleet.gone(agent, now)

    def _agent_ready(self, event: events.AgentReady, now: float) -> None:
        self._fleet.offer(self._fleet.obtain(event.agent.uid, now), event.agent, now)

    def _agent_not_ready(self, event: events.AgentNotReady, now: float) -> None:
        agent = self._fleet.agents.get(event.uid)
        if agent is not None and agent.ready:

            def not_ready(agent: AgentRecord) -> None:
                agent.ready = False

            self._fleet.change(agent, now, not_ready)

    def _agent_drained(self, event: events.AgentDrained, now: float) -> None:
        agent = self._fleet.agents.get(event.uid)
        if agent is not None and agent.draining:
            agent.drained = True

    # Where a Task stands.

    def _record(self, task: Task, now: float) -> TaskRecord:
        """Return the Task's record with these values, standing nowhere: one of `_gate`, `_admit`, `_lease` follows."""
        record = self._tasks.get(task.uid)
        if record is None:
            self._accepted += 1
            record = self._tasks[task.uid] = TaskRecord(task, self._catalogue.shape_of(task))
        else:
            self._lift(record, now)
            record.task = task
            record.shape = self._catalogue.shape_of(task)
        return record

    def _lift(self, record: TaskRecord, now: float) -> None:
        """Take the Task from where it stands."""
        counts = self._counts[record.task.queue_key]
        if record.agent is not None:
            agent, record.agent = record.agent, None
            counts[1] -= 1
            self._fleet.release(agent, record.task.uid, now)
        else:
            counts[0] -= 1
            record.shape.tasks -= 1
            if record.gate is not None:
                record.shape.gated[record.gate] -= 1
                self._held[record.task.namespace] -= record.held
                record.gate, record.held = None, False
            else:
                self._withdraw(record)
        if not counts[0] and not counts[1]:
            del self._counts[record.task.queue_key]

    def _withdraw(self, record: TaskRecord) -> None:
        self._waiting.remove(record)
        record.shape.eligible -= 1
        if record.shape.demand is not None:
            record.shape.demand.tasks -= 1

    def _count(self, record: TaskRecord, column: int) -> None:
        self._counts.setdefault(record.task.queue_key, [0, 0])[column] += 1

    def _gate(self, record: TaskRecord, gate: Reason) -> None:
        self._count(record, 0)
        record.gate = gate
        record.shape.tasks += 1
        record.shape.gated[gate] += 1

    def _admit(self, record: TaskRecord) -> None:
        self._count(record, 0)
        record.shape.tasks += 1
        self._enter(record)

    def _enter(self, record: TaskRecord) -> None:
        record.shape.eligible += 1
        if record.shape.demand is not None:
            record.shape.demand.tasks += 1
        self._waiting.add(record)

    def _lease(self, record: TaskRecord, agent: AgentRecord, now: float) -> None:
        self._count(record, 1)
        record.agent = agent
        self._fleet.lease(agent, record.task, now)

    # Decisions.

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        """Say what should happen now: first who runs what, best first, then how pools change.

        At most `limit` decisions; if it cut them short, `next_wake` is not in the future.
        """
        self._end_back_offs(now)
        self._cut_at = None
        decisions: list[Decision] = []
        placing = True
        while placing:
            while (record := self._waiting.best(self._fleet.free.union)) is not None:
                if limit is not None and len(decisions) >= limit:
                    self._cut_at = now
                    return decisions
                decisions.append(self._assign(record, now))
            # Sizes are judged once all that fits is placed: only then is waiting work a lack of room.
            room = None if limit is None else limit - len(decisions)
            changes = self._resizer.decide(now, self._held, room)
            decisions += changes
            if room is not None and len(changes) >= room:
                self._cut_at = now
                return decisions
            # Who is kept after all can take of it at once.
            placing = any(isinstance(change, Undrain) for change in changes)
        return decisions

    def _assign(self, record: TaskRecord, now: float) -> Assign:
        profile = record.shape.profile
        assert profile is not None, "a Task of a closed shape was found"
        agent = profile.choose()
        assert agent.pool is not None
        message = f"Least busy of the agents that may run it: {agent.busy} of {agent.slots} slots."
        self._lift(record, now)
        self._lease(record, agent, now)
        return Assign(record.task.uid, agent.uid, agent.name, agent.pool[1], Reason.ASSIGNED, message)

    def _end_back_offs(self, now: float) -> None:
        while (timer := self._next_timer()) is not None and timer[0] <= now:
            record = heappop(self._timers)[3]
            record.shape.gated[Reason.BACKING_OFF] -= 1
            record.gate = None
            self._enter(record)

    def _next_timer(self) -> Timer | None:
        timers = self._timers
        while timers:
            at, uid, _, record = timers[0]
            if (
                record.gate is Reason.BACKING_OFF
                and not record.held
                and record.task.not_before == at
                and self._tasks.get(uid) is record
            ):
                return timers[0]
            heappop(timers)
        return None

    def next_wake(self) -> float | None:
        """When `decide` could say something new without an event: a back-off ends, a surplus has held."""
        timer = self._next_timer()
        times = [self._cut_at, timer[0] if timer is not None else None, self._resizer.wake()]
        return min((time for time in times if time is not None), default=None)

    # Views.

    def explain(self, uid: str, now: float) -> Explanation | None:
        """Say why the Task waits and how many are before it; None if it does not wait.

        The position costs a look at the Tasks that compete with it; `why` does without.
        """
        found, record = self.why(uid, now), self._tasks.get(uid)
        if found is None or record is None or record.entry is None or record.shape.closed:
            return found
        return Explanation(found.reason, found.message, found.unblock, self._position(record))

    def why(self, uid: str, now: float) -> Explanation | None:
        """Say why the Task waits, without its position; None if it does not wait. The cost is that of one decision."""
        record = self._tasks.get(uid)
        if record is None or record.agent is not None:
            return None
        if record.gate is not None:
            return explain.of_gate(record.task, record.gate, now)
        return explain.of_shape(record.shape, self._catalogue)

    def _position(self, record: TaskRecord) -> int:
        """Count from 1: the eligible Tasks before it that share a pool with it."""
        own, pools = rank(record.task), set(record.shape.pools)
        return 1 + sum(
            line.live if priority > record.task.priority else sum(rank(other.task) < own for other in line.tasks())
            for shape in self._catalogue.shapes.values()
            if shape.eligible and not shape.closed and not pools.isdisjoint(shape.pools)
            for priority, line in shape.lines.items()
            if priority >= record.task.priority
        )

    def waiting_by_reason(self, now: float) -> dict[tuple[Key, Reason], int]:
        """Count waiting Tasks by queue and the reason that `explain` gives, each class of like Tasks at once."""
        counted: dict[tuple[Key, Reason], int] = {}

        def add(queue: Key, reason: Reason, tasks: int) -> None:
            if tasks:
                counted[queue, reason] = counted.get((queue, reason), 0) + tasks

        for shape in self._catalogue.shapes.values():
            if shape.eligible:
                add(shape.queue_key, explain.of_shape(shape, self._catalogue).reason, shape.eligible)
            for gate, tasks in shape.gated.items():
                add(shape.queue_key, gate, tasks)
        return counted

    def queue_counts(self) -> dict[Key, tuple[int, int]]:
        """Return by queue how many Tasks wait and how many are leased. Queues without Tasks are left out."""
        return {key: (waiting, leased) for key, (waiting, leased) in self._counts.items()}

    def pool_view(self, key: Key) -> PoolView:
        """Return the pool as it is now. For an unknown pool: what is left of it, and 0 desired."""
        return self._resizer.view(key)

    def agent_uids_busy(self) -> dict[str, int]:
        """Return by agent how many of its slots are busy; agents that hold nothing are left out."""
        return {uid: agent.busy for uid, agent in self._fleet.agents.items() if agent.leases}

    def agent_states(self) -> dict[Key, dict[AgentState, int]]:
        """Return by pool how many agents are in each state."""
        return self._fleet.states()

    def audit(self) -> list[str]:
        """Compare the books with each other; return what does not hold, nothing when sound. Costs a full pass."""
        return audit.findings(
            self._tasks, self._counts, self._accepted - self._ended, self._waiting, self._catalogue, self._fleet
        )
