"""The core's state machine: takes events, gives decisions.

Owns where each Task stands (it waits, or it is leased to an agent) and the order of the steps of a decision. Order,
matching, accounting, retry, sizing and words are rooms of their own. Refuses I/O, clocks and chance: the same events
at the same times give the same decisions.
"""

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator
from math import inf, nextafter
from sys import maxsize
from typing import Any, Final

from taskdist.api import OnHopeless, OnOverflow, Phase, Reason, Strategy
from taskdist.core import audit, events, explain, order
from taskdist.core.alarms import Watch
from taskdist.core.arrivals import Arrivals
from taskdist.core.blockers import Blocker
from taskdist.core.bottlenecks import Holdups, holdups
from taskdist.core.budgets import Short
from taskdist.core.decisions import Assign, Decision, Explanation, Fail, Spill, Undrain
from taskdist.core.dependencies import Dependencies
from taskdist.core.estimates import Estimate, Estimates
from taskdist.core.fleet import Fleet, differs
from taskdist.core.guard import Guard
from taskdist.core.holds import Holds, has_room, needs_much
from taskdist.core.limits import Limits
from taskdist.core.matching import Catalogue, Shape
from taskdist.core.model import TOP, Key, Queue, Route, Task
from taskdist.core.outlook import with_outlook
from taskdist.core.parking import Parking
from taskdist.core.performance import Conduct, Performance, PoolPerformance, TypePerformance, weakest
from taskdist.core.pickers import picker
from taskdist.core.resizing import Resizer
from taskdist.core.retry import after_failure
from taskdist.core.roster import AgentRecord
from taskdist.core.routes import opens_at, reached, taken
from taskdist.core.shares import Share
from taskdist.core.strategies import Strategies, strategy_of
from taskdist.core.views import AgentState, BreakerView, PoolView
from taskdist.core.waiting import Group, TaskRecord, WaitingIndex

# What a queue says of order: if any of it changes, its Tasks stand elsewhere.
_ORDER: Final = (
    "policy",
    "level",
    "critical_path_first",
    "aging_step",
    "max_queue_seconds",
    "on_hopeless",
    "timeouts",
    "routes",
)


# Named once: compiled code finds a constant at once, the member of a class by asking the class.
SUCCEEDED: Final = Phase.SUCCEEDED
DEAD_LETTERED: Final = Phase.DEAD_LETTERED
RUN: Final = OnHopeless.RUN
ADAPTIVE: Final = Strategy.ADAPTIVE
ASSIGNED: Final = Reason.ASSIGNED
# No name of a tenant.
ALL: Final = "/"
# A pod of less than so many seconds is new when it is first seen.
NEW: Final = 5.0


class Core:
    """Which agent runs which Task and when, what follows a failure, how large pools are, and why a Task waits."""

    def __init__(self) -> None:
        self._tasks: dict[str, TaskRecord] = {}
        # By queue and the Tasks' own level: how many wait, how many are leased. Records hold on to what counts them.
        self._counts: dict[tuple[Key, int], list[int]] = {}
        # By namespace: how many Tasks wait for something outside, perhaps for an agent that was not heard of yet.
        self._held: Counter[str] = Counter()
        self._accepted = 0
        self._ended = 0
        self._waiting = WaitingIndex(lambda key: self._catalogue.queue(key))
        self._fleet = Fleet()
        self._catalogue = Catalogue(
            self._waiting.rehome,
            self._waiting.redirect,
            self._fleet.resized,
            self._fleet.relabelled,
            self._fleet.renamed,
        )
        self._fleet.bind(self._catalogue)
        self._strategies = Strategies(self._fleet.agents, self._catalogue.pools, picker)
        self._resizer = Resizer(self._catalogue, self._fleet)
        self._guard = Guard(self._fleet, self._catalogue)
        self._performance = Performance()
        self._estimates = Estimates()
        self._arrivals = Arrivals()
        self._limits = Limits()
        self._parking = Parking(self._waiting, self._unpark)
        self._dependencies = Dependencies()
        # What time alone brings to Tasks.
        self._watch = Watch()
        self._holds = Holds(self._fleet, self._limited)
        # Tasks that ended without having run, as far as that was not said yet; Tasks that are new since `decide`.
        self._verdicts: deque[Fail | Spill] = deque()
        self._fresh: list[TaskRecord] = []
        self._begun = False
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
            events.TaskEnded: self._task_ended,
            events.AttemptFailed: self._attempt_failed,
            events.AttemptUsed: self._attempt_used,
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
        former, queue = self._catalogue.queue(event.queue.key), event.queue
        self._catalogue.apply_queue(queue)
        if former.routes != queue.routes:
            self._strategies.forget(queue.key)
        self._parking.open(self._limits.apply_queue(queue))
        self._limits.settle(queue.key, now)
        self._rules_changed(former, queue, now)

    def _queue_deleted(self, event: events.QueueDeleted, now: float) -> None:
        former = self._catalogue.queue(event.key)
        self._catalogue.drop_queue(event.key)
        self._strategies.forget(event.key)
        self._parking.open(self._limits.drop_queue(event.key))
        self._rules_changed(former, self._catalogue.queue(event.key), now)

    def _rules_changed(self, former: Queue, queue: Queue, now: float) -> None:
        """Let the queue's waiting Tasks stand where its present rules say."""
        if any(getattr(former, name) != getattr(queue, name) for name in _ORDER):
            for record in [each for each in self._tasks.values() if each.task.queue_key == queue.key]:
                moves = record.agent is None and not record.held and record.ending is None
                if moves:
                    self._lift(record, now)
                    record.shape = self._catalogue.shape_of(record.task, relaxed=record.relaxed)
                self._rank(record)
                self._heed_dependants(record)
                if moves:
                    self._stand(record, now)
                elif record.ending is not None and record.task.parents:
                    # Until its end is recorded it may go on: it lends its parents what its queue says now.
                    self._dependencies.add(record.task, order.base_level(queue, record.task))
            self._dependencies_changed(now)
        self._waiting.reweigh(queue)
        if former.concurrency_limit != queue.concurrency_limit:
            self._parking.keys_free(queue.key, now)

    def _pool_applied(self, event: events.PoolApplied, now: float) -> None:
        former = self._catalogue.pools.get(event.pool.key)
        self._catalogue.apply_pool(event.pool)
        if former is None or former.template != event.pool.template:
            self._fleet.made_from(event.pool.key, event.pool.template)
        self._guard.changed(former, event.pool, now)

    def _pool_deleted(self, event: events.PoolDeleted, now: float) -> None:
        self._catalogue.drop_pool(event.key)
        self._resizer.forget(event.key, now)
        self._guard.dropped(event.key, now)
        self._performance.forget(event.key)

    def _task_waiting(self, event: events.TaskWaiting, now: float) -> None:
        self._stand(self._record(event.task, now), now)
        if self._dependencies:
            self._dependencies_changed(now)

    def _task_held(self, event: events.TaskHeld, now: float) -> None:
        record = self._record(event.task, now)
        if event.task.parents:
            # Whatever it waits for, it is not its parents: it does not lift them.
            self._dependencies.remove(event.task.uid)
            self._dependencies_changed(now)
        record.held = True
        self._held[event.task.namespace] += 1
        self._gate(record, event.reason)

    def _task_leased(self, event: events.TaskLeased, now: float) -> None:
        record = self._record(event.task, now, over=True)
        record.fresh = False
        self._limits.grant(record.task, now, token=False)
        self._lease(record, self._fleet.obtain(event.agent_uid, now), now + self._service(record), now)
        self._dependencies_changed(now)

    def _task_gone(self, event: events.TaskGone, now: float) -> None:
        record = self._tasks.get(event.uid)
        if record is not None:
            if event.phase is SUCCEEDED and record.agent is not None:
                self._observe(record, record.agent, True, now)
            self._lift(record, now)
            del self._tasks[event.uid]
            record.fresh = False
            self._ended += 1
            if record.task.parents:
                self._dependencies.remove(event.uid)
            self._leave(record, now)
        if self._dependencies:
            if event.phase is not DEAD_LETTERED:
                self._parent_over(event.uid, event.phase, now)
            self._dependencies_changed(now)

    def _observe(self, record: TaskRecord, agent: AgentRecord, succeeded: bool, now: float) -> None:
        """An attempt ended: learn of its type, of its agent, and of the agents like that.

        When one that was found began is not known, so neither is how long it took.
        """
        task, shape, charge = record.task, record.shape, record.charge
        since = None if charge is None else charge.since
        seconds = None if charge is None else now - charge.since
        if seconds is not None:
            known, kind = self._estimate(shape), agent.kind
            ratio = seconds / known.mean if known is not None and known.mean > 0 else 1.0
            if succeeded and known is not None and kind is not None:
                kind.observed(shape.work, seconds, ratio)
            conduct = agent.conduct
            if conduct is None:
                conduct = agent.conduct = Conduct()
            speed = 1.0 if kind is None or kind.pace <= 0.0 else 1.0 / kind.pace
            conduct.add(succeeded, ratio, task.slots * seconds / (ratio or 1.0), task.slots * seconds * speed)
            if succeeded:
                self._estimates.observe(shape.queue_key, task.type, seconds)
        if agent.pool is not None:
            book = self._performance.book(agent.pool, task.type)
            book.add(seconds, succeeded)
            self._guard.ended(agent, task, book, not succeeded, since, now)

    def _leave(self, record: TaskRecord, now: float) -> None:
        """The waiting Task counts no more."""
        if record.counted:
            record.counted = False
            for uid in self._limits.leave(record.task):
                self._try_again(uid, now)

    def _task_ended(self, event: events.TaskEnded, now: float) -> None:
        self._parent_over(event.uid, event.phase, now)

    def _parent_over(self, uid: str, phase: Phase | None, now: float) -> None:
        for child in self._dependencies.ended(uid, phase):
            self._try_again(child, now)
        self._dependencies_changed(now)

    def _dependencies_changed(self, now: float) -> None:
        """Let Tasks stand where those that depend on them lift them, and those whose gate changed, before or behind."""
        for uid in self._dependencies.take_changed():
            record = self._tasks.get(uid)
            if record is not None:
                self._lifted(record, now)
        for uid in self._dependencies.take_regated():
            self._try_again(uid, now)

    def _lifted(self, record: TaskRecord, now: float) -> None:
        self._heed_dependants(record)
        self._rise(record, now)

    def _heed_dependants(self, record: TaskRecord) -> None:
        """Take over what the Tasks that wait for this one make of it."""
        uid = record.task.uid
        record.lift = self._dependencies.level(uid, 0)
        first = self._catalogue.queue(record.task.queue_key).critical_path_first
        record.chain = self._dependencies.chain(uid) if first else 0

    def _rise(self, record: TaskRecord, now: float) -> None:
        """The Task's level or chain may be another now."""
        queue = self._catalogue.queue(record.task.queue_key)
        if record.line is not None:
            level = record.level
            self._waiting.remove(record)
            self._enter_line(record, queue, now)
            self._holds.rise(record)
            if record.trying and record.level < level:
                # Others that wait for its key may go before it now.
                self._parking.key_free(record.task, now)
        elif record.blocker is not None:
            self._level(record, queue, now)
            self._parking.move(record, now)
        self._heed_time(record)

    def _try_again(self, uid: str, now: float) -> None:
        """What held the Task may hold it no more."""
        record = self._tasks.get(uid)
        if record is not None and record.agent is None and not record.held and record.ending is None:
            self._lift(record, now)
            self._stand(record, now)

    def _attempt_failed(self, event: events.AttemptFailed, now: float) -> list[Decision] | None:
        record = self._tasks.get(event.uid)
        if record is None:
            return None
        if event.counted and record.agent is not None and not record.failed:
            self._observe(record, record.agent, False, now)
        record.failed = True
        return [after_failure(record.task, self._catalogue.queue(record.task.queue_key), event, now)]

    def _attempt_used(self, event: events.AttemptUsed, now: float) -> None:
        record = self._tasks.get(event.uid)
        if record is not None and record.agent is not None:
            self._parking.open(self._limits.correct(record.task, event.used, now))

    def _pod_seen(self, event: events.PodSeen, now: float) -> None:
        agent = self._fleet.obtain(event.uid, now)

        def seen(agent: AgentRecord) -> None:
            agent.starting = agent.starting or (not agent.pod_seen and now - event.created < NEW)
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
        agent = self._fleet.obtain(event.agent.uid, now)
        self._fleet.offer(agent, event.agent, now)
        if agent.starting:
            self._fleet.started(agent, now)
        self._guard.came(agent, now)

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

    def _record(self, task: Task, now: float, over: bool = False) -> TaskRecord:
        """Return the Task's record with these values, standing nowhere: one of `_gate`, `_stand`, `_lease` follows.

        A lease that it had came to nothing if it has neither failed nor is `over`: its grant is as if it never was.
        """
        record = self._tasks.get(task.uid)
        if record is None:
            self._accepted += 1
            shape = self._catalogue.shape_of(task)
            record = self._tasks[task.uid] = TaskRecord(task, shape, self._counts_of(shape, task))
            record.since = min(now, task.created)
            self._limits.enter(task)
            self._rank(record)
            self._came(record)
        else:
            if record.agent is not None:
                record.since = now
            self._lift(record, now, over=over or record.failed)
            former = record.task
            if not record.counted:
                record.counted = True
                self._limits.enter(task)
            elif former is not task:
                for uid in self._limits.change(former, task):
                    self._try_again(uid, now)
            # Its class may have been forgotten while it was leased, even if nothing of it changed.
            record.shape = self._catalogue.shape_of(task, relaxed=record.relaxed)
            if former is not task:
                if former.queue != task.queue:
                    self._came(record)
                record.task = task
                record.counts = self._counts_of(record.shape, task)
                if (former.queue, former.deadline) != (task.queue, task.deadline):
                    self._rank(record)
        record.ending = None
        if self._dependencies:
            self._heed_dependants(record)
        return record

    def _came(self, record: TaskRecord) -> None:
        """The Task is new, or new in its queue."""
        if not record.fresh:
            record.fresh = True
            self._fresh.append(record)

    def _estimate(self, shape: Shape) -> Estimate | None:
        """Return what is known of the Tasks' type."""
        found = shape.estimate
        if found is None or found.forgotten:
            found = shape.estimate = self._estimates.of(shape.queue_key, shape.need.type)
            if found is None and (told := self._performance.known(shape.pools, shape.need.type)) is not None:
                found = shape.estimate = self._estimates.begin(shape.queue_key, shape.need.type, told)
        return found

    def _rank(self, record: TaskRecord) -> None:
        """Fix the Task's latest start, by what its type takes as far as is known now."""
        task, shape = record.task, record.shape
        queue, known = shape.queue, self._estimate(shape)
        mean = least = queue.expected_service
        if known is not None:
            mean = known.mean
            # Asked for a deadline only.
            least = mean if task.deadline is None else known.quickest
        record.latest_start = order.latest_start(queue, task, mean)
        record.hopeless_from = order.hopeless_from(queue, task, least)

    def _lift(self, record: TaskRecord, now: float, over: bool = True) -> None:
        """Take the Task from where it stands. `over` is False for a grant that did not come about."""
        task = record.task
        if record.agent is not None:
            agent, record.agent = record.agent, None
            record.counts[1] -= 1
            self._waiting.settle(record, now)
            self._fleet.release(agent, task.uid, now)
            record.failed = False
            if opened := self._limits.release(task, now) if over else self._limits.refund(task, now):
                self._parking.open(opened)
            if task.concurrency_key is not None:
                self._parking.key_free(task, now)
            record.eligible_since = -1.0
        else:
            record.counts[0] -= 1
            record.shape.tasks -= 1
            self._unwatch(record)
            if record.gate is not None:
                if record.blocker is None:
                    record.eligible_since = -1.0
                self._ungate(record, record.gate)
                self._held[task.namespace] -= record.held
                record.gate, record.held = None, False
                self._parking.leave(record)
            else:
                self._withdraw(record)
                if record.trying:
                    record.trying = False
                    self._parking.key_free(task, now)

    def _withdraw(self, record: TaskRecord) -> None:
        self._waiting.remove(record)
        shape = record.shape
        shape.eligible -= 1
        shape.eligible_since = shape.eligible_since - record.since if shape.eligible else 0.0
        if self._holds:
            self._holds.forget(record)

    def _counts_of(self, shape: Shape, task: Task) -> list[int]:
        key = (shape.queue_key, task.priority)
        found = self._counts.get(key)
        if found is None:
            found = self._counts[key] = [0, 0]
        return found

    def _stand(self, record: TaskRecord, now: float) -> None:
        """Put a waiting Task behind what holds it, or among those that may run."""
        queue = record.shape.queue
        self._expire(record, queue)
        self._place(record, queue, now)
        if record.ending is None:
            self._heed_time(record)

    def _place(self, record: TaskRecord, queue: Queue, now: float) -> None:
        task = record.task
        # One that is suspended waits for its parents all the same, and lifts them.
        held = self._dependencies.add(task, order.base_level(queue, task)) if task.parents else None
        if task.suspended:
            self._gate(record, Reason.SUSPENDED)
            return
        if held is not None:
            self._gate(record, held.reason)
            if held.phase is not None:
                self._verdict(record, Fail(task.uid, task.failures, held.reason, held.message, held.phase, task.deaths))
            return
        if task.not_before > now:
            self._gate(record, Reason.BACKING_OFF if task.failures or task.deaths else Reason.SCHEDULED)
            record.opens = task.not_before
        elif task.ordering_key is not None and not self._limits.in_turn(task):
            self._gate(record, Reason.OUT_OF_TURN)
        else:
            # A new one came when it was created, even if it is heard of only now.
            since = min(now, max(task.created, task.not_before)) if record.fresh else now
            if record.eligible_since < 0.0:
                record.eligible_since = since
            if record.shape.patient:
                self._be_patient(record, since, now)
            if record.shape.route is not None:
                self._take_step(record, record.shape.route, now)
            record.counts[0] += 1
            record.shape.tasks += 1
            self._enter(record, queue, now)
            share = None if record.line is None else record.line.share
            if share is not None and share.parent is not None:
                owner = (share.parent.key, share.key)
            else:
                owner = order.owner(queue, task)
            self._arrivals.add(record.level, record.shape, owner, record.latest_start - since, since)
            if self._catalogue.timed and record.shape.demand is not None:
                record.shape.demand.inflow.add(self._service(record), since)

    def _take_step(self, record: TaskRecord, route: Route, now: float) -> None:
        """Give the Task, which stands nowhere, the shape of the step that its wait has opened."""
        step = reached(route, record.eligible_since, now)
        if step != record.shape.step:
            record.shape = self._catalogue.shape_of(record.task, step, record.relaxed)
        record.moves = opens_at(route, step + 1, record.eligible_since)

    def _move_on(self, record: TaskRecord, route: Route, now: float) -> None:
        """The next step of its route opens to the waiting Task."""
        shape = record.shape
        if record.line is not None:
            self._withdraw(record)
        else:
            # Parked on its own: what holds it is found again there.
            assert record.gate is not None
            self._ungate(record, record.gate)
            self._parking.leave(record)
            record.gate = None
        shape.tasks -= 1
        self._take_step(record, route, now)
        record.shape.tasks += 1
        record.shape.eligible += 1
        record.shape.eligible_since += record.since
        self._enter_line(record, record.shape.queue, now)

    def _be_patient(self, record: TaskRecord, since: float, now: float) -> None:
        """Fix how long the Task waits for an agent that it prefers; if that is over, any will do."""
        placement = record.task.placement
        assert placement is not None, "a shape is patient for what its Tasks prefer"
        if record.patience == inf:
            record.patience = since + placement.wait
        if record.patience <= now:
            record.relaxed = True
            record.shape = self._catalogue.shape_of(record.task, relaxed=True)

    def _relax(self, record: TaskRecord, now: float) -> None:
        """The Task has waited long enough for an agent that it prefers."""
        self._lift(record, now)
        record.relaxed = True
        record.shape = self._catalogue.shape_of(record.task, relaxed=True)
        self._stand(record, now)

    def _expire(self, record: TaskRecord, queue: Queue) -> None:
        """Work out when the Task has waited too long."""
        task = record.task
        limit = task.waiting_limit if task.waiting_limit is not None else queue.timeouts.waiting
        record.expires = inf if limit is None or task.attempted else task.created + limit
        if task.deadline is not None and queue.on_hopeless is not RUN and not task.redriven:
            # At that time it can still be met.
            record.expires = min(record.expires, nextafter(record.hopeless_from, inf))

    def _heed_time(self, record: TaskRecord) -> None:
        """Watch for the first of what time brings the Task."""
        # Two by two, as that is compiled to a comparison.
        due = min(min(min(record.expires, record.opens), min(record.rises, record.impatient)), record.moves)
        if record.shape.patient and (record.line is not None or record.blocker is not None):
            due = min(due, record.patience)
        self._watch.set(record, due)

    def _unwatch(self, record: TaskRecord) -> None:
        record.expires = record.opens = record.rises = record.impatient = record.moves = inf
        self._watch.clear(record)

    def _verdict(self, record: TaskRecord, decision: Fail | Spill) -> None:
        """What is decided of a waiting Task stands until its `TaskGone` or `TaskWaiting`, whatever else happens."""
        record.ending = decision
        self._unwatch(record)
        self._verdicts.append(decision)

    def _gate(self, record: TaskRecord, gate: Reason) -> None:
        record.counts[0] += 1
        record.gate = gate
        record.shape.tasks += 1
        self._count_gated(record, gate)

    @staticmethod
    def _count_gated(record: TaskRecord, gate: Reason) -> None:
        shape = record.shape
        shape.gated[gate] += 1
        shape.gated_since[gate] = shape.gated_since.get(gate, 0.0) + record.since

    @staticmethod
    def _ungate(record: TaskRecord, gate: Reason) -> None:
        """It counts no more among those that this holds."""
        shape = record.shape
        shape.gated[gate] -= 1
        shape.gated_since[gate] = shape.gated_since[gate] - record.since if shape.gated[gate] else 0.0

    def _enter(self, record: TaskRecord, queue: Queue, now: float) -> None:
        record.shape.eligible += 1
        record.shape.eligible_since += record.since
        if queue.hold_after and needs_much(record):
            record.impatient = now + queue.hold_after
        self._enter_line(record, queue, now)

    def _enter_line(self, record: TaskRecord, queue: Queue, now: float) -> None:
        self._level(record, queue, now)
        self._waiting.add(record, now)

    def _level(self, record: TaskRecord, queue: Queue, now: float) -> None:
        """Work out the Task's level, and when it goes up by one."""
        task = record.task
        base = order.base_level(queue, task, record.lift)
        record.level = level = order.aged(queue, task, now, base)
        rises = level < TOP and order.ages(queue)
        record.rises = order.promotion(queue, task, level, base) if rises else inf

    def _unpark(self, record: TaskRecord, now: float) -> None:
        """A limit of the Task's own lets it try."""
        assert record.gate is not None
        self._ungate(record, record.gate)
        record.gate = None
        self._enter(record, record.shape.queue, now)
        self._heed_time(record)

    def _lease(self, record: TaskRecord, agent: AgentRecord, ends: float, now: float) -> None:
        record.counts[1] += 1
        record.agent = agent
        record.failed = False
        self._fleet.lease(agent, record.task, ends, now)
        if record.task.parents:
            self._dependencies.remove(record.task.uid)

    # Decisions.

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        """Say what should happen now: first who runs what, best first, then how pools change.

        At most `limit` decisions; if it cut them short, `next_wake` is not in the future.
        """
        self._bring_forward(now)
        self._cut_at = None
        decisions: list[Decision] = []
        most = limit if limit is not None else maxsize
        said = self._pronounce(decisions, most) and self._guard.tell(decisions, most)
        if not (said and self._place_and_size(decisions, most, now)):
            self._cut_at = now
        return decisions

    def _pronounce(self, decisions: list[Decision], most: int) -> bool:
        """Say what was decided of Tasks that are not to run. Return whether there was room to say it all."""
        while self._verdicts:
            if len(decisions) >= most:
                return False
            verdict = self._verdicts.popleft()
            record = self._tasks.get(verdict.task_uid)
            if record is not None and record.ending is verdict:
                decisions.append(verdict)
        return True

    def _place_and_size(self, decisions: list[Decision], most: int, now: float) -> bool:
        """Place all that fits, then judge the sizes of pools by what is left. Return whether all was said."""
        placing = True
        while placing:
            if not self._place_free(decisions, most, now):
                return False
            if self._holds:
                if not self._place_held(decisions, most, now):
                    return False
                placing = bool(decisions) and self._holds.let_go(now)
            else:
                placing = False
            if self._resizer.rests and self._resizer.rouse(self._waiting.profiles, now):
                placing = True
            # What is left of an agent that was let go is for all, before sizes are judged.
            if not placing:
                # Only once all that fits is placed is waiting work a lack of room.
                room = most - len(decisions)
                changes = self._resizer.decide(now, self._waiting.profiles, self._held, room, self._set_all_aside)
                decisions += changes
                if len(changes) >= room:
                    return False
                # Who is kept after all can take of it at once.
                placing = any(isinstance(change, Undrain) for change in changes)
        return True

    def _place_free(self, decisions: list[Decision], most: int, now: float) -> bool:
        """Give the slots that are free to the first Tasks that fit. Return whether there was room to say it all."""
        if self._holds:
            self._holds.let_go(now)
        more = True
        while more:
            if not self._place_open(decisions, most, now):
                return False
            # Who was set aside last may have taken the place of another's claim.
            more = bool(self._limits.claims) and self._let_claims_go(now)
        return True

    def _place_open(self, decisions: list[Decision], most: int, now: float) -> bool:
        """Do so while budgets keep nothing in vain, which each grant may change, as it takes room."""
        if self._limits.claims:
            self._let_claims_go(now)
        while (record := self._first(self._fleet.free.union, now, claims=True)) is not None:
            if len(decisions) >= most:
                return False
            decisions.append(self._assign(record, now))
            if self._limits.claims:
                self._let_claims_go(now)
        return True

    def _let_claims_go(self, now: float) -> bool:
        """Let go what budgets keep for Tasks that do not wait for them alone any more; return whether there is any."""
        found = False
        for uid in list(self._limits.claims):
            record = self._tasks.get(uid)
            if record is None or not self._claims_rightly(record, now):
                self._parking.open(self._limits.drop_claim(uid))
                found = True
        return found

    def _claims_rightly(self, record: TaskRecord, now: float) -> bool:
        """Whether the Task, which has a claim, has room, and nothing but budgets holds it."""
        profile = record.shape.profile
        if record.line is None or profile is None:
            return False
        room = self._fleet.free.union >> profile.number & 1
        return (
            bool(room)
            and self._limits.in_turn(record.task)
            and self._limits.claim_stands(record.task, record.level, now)
        )

    def _place_held(self, decisions: list[Decision], most: int, now: float) -> bool:
        """Give slots of agents that are held. Return whether there was room to say it all."""
        for record, agent in self._backfill(now):
            if len(decisions) >= most:
                return False
            decisions.append(self._assign(record, now, agent))
        return True

    def _first(self, free: int, now: float, claims: bool = False) -> TaskRecord | None:
        """Return the first Task in order, of those of the given profiles, that no limit holds; park those before it.

        `claims`: these are all profiles that have room, so that who waits for budgets alone gets a claim on them.
        """
        while (record := self._waiting.best(free, now)) is not None:
            if not self._set_aside(record, now, claims):
                return record
        return None

    def _set_aside(self, record: TaskRecord, now: float, claims: bool = False) -> bool:
        """Park the Task if a limit holds it, or let others be judged before it; return whether it is not to go yet."""
        if record.task.ordering_key is not None and not self._limits.in_turn(record.task):
            tried = record.trying
            self._park(record, Reason.OUT_OF_TURN)
            if tried:
                self._parking.key_free(record.task, now)
            return True
        blocker = self._limits.blocker(record.task, record.level, now, first=claims)
        if claims and record.task.budgets:
            rivals = self._rivals(record, blocker)
            if rivals:
                self._parking.open(rivals)
                return True
        if blocker is None:
            return False
        if not blocker.whole:
            self._park(record, blocker.reason)
        self._parking.add(record, blocker, now)
        return True

    def _rivals(self, record: TaskRecord, blocker: Blocker | None) -> list[Blocker]:
        """Return what is to open before the Task takes of its budgets, or is set aside because of them."""
        if blocker is None:
            return self._limits.rivals(record.task, record.level)
        claim = blocker.claim if isinstance(blocker, Short) else None
        first = None if claim is None or claim.uid == record.task.uid else self._tasks.get(claim.uid)
        if first is None or first.line is None or record.line is None or first.line.share is not record.line.share:
            return []
        # It came later and goes before: in their own share the order decides.
        return self._limits.drop_claim(first.task.uid) if record.before(first) else []

    def _set_all_aside(self, now: float) -> bool:
        """Park what limits hold, be there room or not, and leave out what quotas would not let start beside the rest:
        pools are not to grow for it. Return whether there was any."""
        found = False
        left: dict[str, dict[str, int]] = {}
        for share in self._waiting.tenants():
            while (record := self._waiting.first_of(share)) is not None and self._set_aside(record, now):
                found = True
            if (
                record is not None
                and self._limits.limited(record.task)
                and not order.is_emergency(record.shape.queue, record.task)
            ):
                found = self._leave_out(share, record.task, left) or found
        return found

    def _leave_out(self, share: Share[Group], task: Task, left: dict[str, dict[str, int]]) -> bool:
        """Count as excess what quotas have no room for. `left`: what they have room for, by queue of each tenant, and
        of the queue itself under the name of all, which no tenant has."""
        assert share.parent is not None, "a tenant's share is one of its queue's"
        name, tenant = share.parent.key, task.tenant
        rooms = left.get(name)
        if rooms is None:
            rooms = left[name] = {ALL: self._limits.room(task)[0]}
        own = rooms.get(tenant)
        if own is None:
            own = self._limits.room(task)[1]
        wanted = share.wanted
        taken = min(min(wanted, own), rooms[ALL])
        rooms[ALL] -= taken
        rooms[tenant] = own - taken
        excess = wanted - taken
        if not excess:
            return False
        for demand, tasks in share.demands.items():
            over = min(tasks, excess)
            demand.excess += over
            excess -= over
        return True

    def _backfill(self, now: float) -> Iterator[tuple[TaskRecord, AgentRecord]]:
        """Say what goes to agents that are held: whom they are held for, or what is expected to end before that."""
        self._holds.make(now)
        for hold in self._holds:
            agent, holder = hold.agent, hold.record
            while agent.kind is not None and agent.busy < agent.slots:
                if has_room(agent, holder) and self._may_go(holder, now):
                    yield holder, agent
                    break
                free = 0
                for roster in agent.kind.rosters.values():
                    if agent.fits(roster.resources):
                        free |= roster.masks[agent.slots - agent.busy]
                record = self._first(free, now)
                if record is None or now + self._service(record) > hold.fits_at:
                    break
                yield record, agent

    def _may_go(self, record: TaskRecord, now: float) -> bool:
        """Whether no limit holds the eligible Task."""
        task = record.task
        return self._limits.in_turn(task) and self._limits.blocker(task, record.level, now) is None

    def _limited(self, record: TaskRecord, now: float) -> bool:
        """Whether a limit holds the eligible Task that time alone does not open."""
        if not self._limits.in_turn(record.task):
            return True
        blocker = self._limits.blocker(record.task, record.level, now)
        return blocker is not None and blocker.opens_at(now) is None

    def _service(self, record: TaskRecord) -> float:
        """Return for how long an attempt of the Task is expected to hold its slots, in seconds."""
        known = self._estimate(record.shape)
        return record.shape.queue.expected_service if known is None else known.mean

    def _assign(self, record: TaskRecord, now: float, agent: AgentRecord | None = None) -> Assign:
        task, shape = record.task, record.shape
        strategy, score = strategy_of(shape, agent), 0.0
        if agent is None:
            profile = shape.profile
            assert profile is not None, "a Task of a closed shape was found"
            self._estimate(shape)
            left = inf if task.deadline is None else task.deadline - now
            if strategy is ADAPTIVE and task.placement is None and task.sticky_key is None:
                agent = profile.choose(shape, left)
                score = agent.busy / agent.slots
                message = f"Adaptive: quickest and least busy, {agent.busy} of {agent.slots} slots."
            else:
                choice = self._strategies.choose(task, shape, profile, left)
                agent, score, message = choice.agent, choice.score, choice.message
        else:
            message = "It has room there while the agent is held, as what needs much room at once waits for it."
        assert agent.pool is not None
        service = self._service(record)
        if self._catalogue.timed and not task.attempted and not self._limits.concerns(task):
            since = max(task.created, task.not_before)
            self._resizer.started(agent.pool, now - since, shape.demand)
        self._waiting.charge(record, agent.pool, service, now)
        charge, record.charge = record.charge, None
        record.trying = False
        self._lift(record, now)
        record.charge = charge
        record.relaxed, record.patience = False, inf
        self._limits.grant(task, now)
        if task.concurrency_key is not None and self._limits.key_open(task):
            self._parking.key_free(task, now)
        record.fresh = False
        self._lease(record, agent, now + service, now)
        pool = agent.pool[1]
        rule, step = taken(shape.route, pool)
        return Assign(task.uid, agent.uid, agent.name, pool, ASSIGNED, message, rule, step, strategy, score)

    def _park(self, record: TaskRecord, reason: Reason) -> None:
        self._withdraw(record)
        record.gate, record.trying = reason, False
        self._count_gated(record, reason)

    def _bring_forward(self, now: float) -> None:
        """Let happen what time alone brings, and judge the Tasks that came."""
        # What is there when this life begins was accepted in another one.
        if self._fresh:
            came, self._fresh = self._fresh, []
            fresh = []
            for record in came:
                if record.fresh:
                    record.fresh = False
                    fresh.append(record)
            if self._begun:
                self._turn_away(fresh, now)
        self._begun = True
        self._guard.due(now)
        if due := self._watch.due(now):
            self._ring(due, now)
        if opened := self._limits.due(now):
            self._parking.open(opened)

    def _ring(self, due: list[TaskRecord], now: float) -> None:
        """Let happen what is due for these Tasks: one kind after the other, each in the order of its times."""
        several = len(due) > 1
        if several:
            due.sort(key=lambda each: each.task.uid)
        expired = [each for each in due if each.expires <= now]
        if several:
            expired.sort(key=lambda each: each.expires)
        for record in expired:
            self._expired(record, now)
        opened = [each for each in due if each.opens <= now]
        if several:
            opened.sort(key=lambda each: each.opens)
        for record in opened:
            self._try_again(record.task.uid, now)
        risen = [each for each in due if each.rises <= now]
        if several:
            risen.sort(key=lambda each: each.rises)
        for record in risen:
            record.rises = inf
            self._rise(record, now)
        moved = [each for each in due if each.moves <= now]
        if several:
            moved.sort(key=lambda each: each.moves)
        for record in moved:
            record.moves = inf
            route = record.shape.route
            if route is not None and (record.line is not None or record.blocker is not None):
                self._move_on(record, route, now)
        for record in due:
            # Whatever else holds it by now holds it all the same.
            stands = record.line is not None or record.blocker is not None
            if stands and record.shape.patient and record.patience <= now:
                self._relax(record, now)
            if record.impatient <= now:
                record.impatient = inf
                self._holds.ask(record)
            self._heed_time(record)

    def _expired(self, record: TaskRecord, now: float) -> None:
        task = record.task
        queue = self._catalogue.queue(task.queue_key)
        phase = Phase.FAILED
        if task.deadline is not None and queue.on_hopeless is not RUN and now > record.hopeless_from:
            reason = Reason.DEADLINE_HOPELESS
            late = now - record.hopeless_from
            message = f"Its deadline cannot be met any more: it had to start {late:.1f} s ago, by what its type takes."
            if queue.on_hopeless is OnHopeless.DEAD_LETTER:
                phase = Phase.DEAD_LETTERED
        else:
            reason = Reason.WAITED_TOO_LONG
            message = f"It waited for {now - task.created:.0f} s without a start, longer than it or its queue allows."
        self._end(record, Fail(task.uid, task.failures, reason, message, phase, task.deaths), now)

    def _end(self, record: TaskRecord, decision: Fail | Spill, now: float) -> None:
        """The waiting Task is not handed out any more."""
        self._lift(record, now)
        self._gate(record, decision.reason)
        self._verdict(record, decision)

    def _turn_away(self, fresh: Iterable[TaskRecord], now: float) -> None:
        """Reject or spill what came into full queues past the API server's check: the newest first."""
        over = [each for each in fresh if each.agent is None and not each.held and self._too_many(each.task)]
        if not over:
            return
        for record in sorted(over, key=lambda each: (each.task.created, each.task.uid), reverse=True):
            task = record.task
            queue = self._catalogue.queue(task.queue_key)
            full = self._too_many(task)
            if full is None:
                continue
            # It makes room at once for those before it.
            self._leave(record, now)
            overflow = queue.overflow
            target = overflow.spill_to if overflow is not None and overflow.action is OnOverflow.SPILL else None
            if target is not None and not task.spilled and (task.namespace, target) in self._catalogue.queues:
                message = f"{full} It waits in queue {target} instead."
                self._end(record, Spill(task.uid, target, Reason.QUEUE_FULL, message), now)
            else:
                message = f"{full} Create the Task again once there is room."
                self._end(record, Fail(task.uid, 0, Reason.QUEUE_FULL, message), now)

    def _too_many(self, task: Task) -> str | None:
        return None if task.attempted else self._limits.over_waiting(task) or self._limits.over_payload(task)

    def next_wake(self) -> float | None:
        """When `decide` could say something new without an event: a gate opens by time, a surplus has held."""
        times = (
            self._cut_at,
            self._watch.next(),
            self._limits.next_due(),
            self._guard.next_due(),
            self._resizer.wake(),
        )
        return min((time for time in times if time is not None), default=None)

    def learn(self, task: Task, seconds: float | None) -> None:
        """Take in what was before this life: such a Task came, and unless None succeeded within so many seconds.

        It is not a Task to this core; what is expected of its like is all that changes.
        """
        queue, at = self._catalogue.queue(task.queue_key), max(task.created, task.not_before)
        latest_start = order.latest_start(queue, task, self._estimates.expected(queue, task.type))
        level, shape, owner = order.base_level(queue, task), self._catalogue.shape_of(task), order.owner(queue, task)
        self._arrivals.add(level, shape, owner, latest_start - at, at)
        if seconds is not None:
            self._estimates.observe(task.queue_key, task.type, seconds)

    def recall(self, pool: Key, told: Iterable[TypePerformance]) -> None:
        """Take in what the pool's status tells of its types: it was seen in a former life."""
        self._performance.recall(pool, told)

    # Views.

    def explain(self, uid: str, now: float) -> Explanation | None:
        """Say why the Task waits, its position and when it is expected to start; None if it does not wait.

        The position costs a look at the lines that compete with it; `why` does without.
        """
        found, record = self.why(uid, now), self._tasks.get(uid)
        if found is None or record is None:
            return found
        return with_outlook(found, record, self._catalogue, self._estimates, self._arrivals, now)

    def why(self, uid: str, now: float) -> Explanation | None:
        """Say why the Task waits, without its position; None if it does not wait. The cost is that of one decision."""
        record = self._tasks.get(uid)
        if record is None or record.agent is not None:
            return None
        return explain.why(record, self._catalogue, self._limits, self._dependencies, self._holds, now)

    def waiting_by_reason(self, now: float) -> dict[tuple[Key, Reason], int]:
        """Count waiting Tasks by queue and the reason that `explain` gives, each class of like Tasks at once."""
        return explain.by_reason(self._catalogue, self._holds)

    def holdups(self, now: float) -> tuple[Holdups, Holdups]:
        """Return what holds waiting Tasks, and for how long in all: by queue, and by pool that could serve them."""
        return holdups(self._catalogue, self._holds, now)

    def queue_counts(self) -> dict[Key, tuple[int, int]]:
        """Return by queue how many Tasks wait and how many are leased. Queues without Tasks are left out."""
        found: dict[Key, tuple[int, int]] = {}
        for (key, _), (waiting, leased) in self._counts.items():
            if waiting or leased:
                before = found.get(key, (0, 0))
                found[key] = (before[0] + waiting, before[1] + leased)
        return found

    def pool_view(self, key: Key) -> PoolView:
        """Return the pool as it is now. For an unknown pool: what is left of it, and 0 desired."""
        return self._resizer.view(key)

    def breakers(self, pool: Key) -> tuple[BreakerView, ...]:
        """Return the circuit breakers of the pool's agents that are not closed."""
        return self._guard.breakers(pool)

    def performance(self, pool: Key) -> PoolPerformance:
        """Return what was seen of the pool's agents and of types there. Costs a look at each agent."""
        conducts = [
            (agent.name, agent.conduct)
            for agent in self._fleet.members(pool).agents.values()
            if agent.conduct is not None and not agent.gone
        ]
        held = sum([conduct.held for _, conduct in conducts], 0.0)
        accepted = sum([conduct.accepted for _, conduct in conducts], 0.0)
        efficiency = accepted / held if held > 0.0 else 1.0
        return PoolPerformance(efficiency, self._performance.of(pool), weakest(conducts))

    def agent_uids_busy(self) -> dict[str, int]:
        """Return by agent how many of its slots are busy; agents that hold nothing are left out."""
        return {uid: agent.busy for uid, agent in self._fleet.agents.items() if agent.leases}

    def agent_states(self) -> dict[Key, dict[AgentState, int]]:
        """Return by pool how many agents are in each state."""
        return self._fleet.states()

    def level_counts(self) -> dict[tuple[Key, int], tuple[int, int]]:
        """Return by queue and level of the Tasks' own how many wait and how many are leased."""
        return {key: (waiting, leased) for key, (waiting, leased) in self._counts.items() if waiting or leased}

    def audit(self) -> list[str]:
        """Compare the books with each other; return what does not hold, nothing when sound. Costs a full pass."""
        outstanding = self._accepted - self._ended
        counted = ((each.task, each.agent is not None) for each in self._tasks.values() if each.counted)
        return [
            *audit.findings(self._tasks, self.level_counts(), outstanding, self._waiting, self._catalogue, self._fleet),
            *self._limits.findings(counted),
            *self._dependencies.findings(),
            *self._guard.findings(),
        ]
