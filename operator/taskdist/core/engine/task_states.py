"""Where each Task stands: it waits behind a gate, in a line or under a limit, or it is leased to an agent.

Owns the Tasks' records, and moves them so that the rooms which count and order Tasks agree. Which Task goes next, and
to which agent, is decided in `cycle`.
"""

from collections import Counter, deque
from math import inf, nextafter
from typing import Final

from taskdist.api import OnHopeless, Phase, Reason
from taskdist.core import order
from taskdist.core.agents.performance import Performance
from taskdist.core.agents.roster import AgentRecord
from taskdist.core.decisions import Fail, Spill
from taskdist.core.engine.wakeups import Wakeups
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.fleet.equivalence import Profile, Shape
from taskdist.core.fleet.fleet import Fleet
from taskdist.core.fleet.routes import opens_at, reached
from taskdist.core.forecasting.arrivals import Arrivals
from taskdist.core.limits.limits import Limits
from taskdist.core.model import TOP, Key, Queue, Route, Task
from taskdist.core.ordering.dependencies import Dependencies
from taskdist.core.ordering.index import WaitingIndex
from taskdist.core.ordering.lines import TaskCounts, TaskRecord
from taskdist.core.ordering.parking import Parking
from taskdist.core.placement.reservations import Reservations, needs_much
from taskdist.core.primitives.service_times import Estimate, Estimates

# Named once: compiled code finds a constant at once, the member of a class by asking the class.
RUN: Final = OnHopeless.RUN


def _until(task: Task) -> Reason:
    """Return what the Task's `not_before` comes from: its handler's wish, its back-off, or its spec."""
    if task.throttled:
        return Reason.THROTTLED
    return Reason.BACKING_OFF if task.failures or task.deaths else Reason.SCHEDULED


class TaskStates:
    """Moves each Task between its gate, its line, a limit and a lease, and keeps all counts of that."""

    def __init__(self) -> None:
        self.tasks: dict[str, TaskRecord] = {}
        # By queue and the Tasks' own level. Each record has a reference to its counts.
        self.counts: dict[tuple[Key, int], TaskCounts] = {}
        # By namespace: how many Tasks wait for something outside, perhaps for an agent that was not heard of yet.
        self.held: Counter[str] = Counter()
        self.accepted = 0
        self.waiting = WaitingIndex(lambda key: self.catalogue.queue(key))
        self.fleet = Fleet()
        self.catalogue = Catalogue(
            self._rehome,
            self.waiting.redirect,
            self.fleet.resized,
            self.fleet.relabelled,
            self.fleet.renamed,
        )
        self.fleet.bind(self.catalogue)
        self.performance = Performance()
        self.estimates = Estimates()
        self.arrivals = Arrivals()
        self.limits = Limits()
        self.parking = Parking(self.waiting, self._unpark)
        self.dependencies = Dependencies()
        # What time alone brings to Tasks.
        self.wakeups = Wakeups()
        self.reservations = Reservations(self.fleet, self._limited)
        # Tasks that ended without having run, as far as that was not said yet; Tasks that are new since `decide`.
        self.verdicts: deque[Fail | Spill] = deque()
        self.fresh: list[TaskRecord] = []

    def _rehome(self, shape: Shape, profile: Profile | None) -> None:
        """Put the shape's Tasks under this profile."""
        self.waiting.rehome(shape, profile)
        if shape.tasks:
            self.parking.moved()

    def record(self, task: Task, now: float, over: bool = False) -> TaskRecord:
        """Return the Task's record with these values, in no place yet: `gate`, `stand` or `lease` follows.

        A lease that it had came to nothing if it has neither failed nor is `over`: its grant is as if it never was.
        """
        record = self.tasks.get(task.uid)
        if record is None:
            self.accepted += 1
            shape = self.catalogue.shape_of(task)
            record = self.tasks[task.uid] = TaskRecord(task, shape, self._counts_of(shape, task))
            record.since = min(now, task.created)
            self._count_in(task, now)
            self.rank(record)
            self._came(record)
        else:
            if record.agent is not None:
                record.since = now
            self.take_out(record, now, over=over or record.failed)
            former = record.task
            if not record.counted:
                record.counted = True
                self._count_in(task, now)
            elif former is not task:
                for uid in self.limits.change(former, task):
                    self.try_again(uid, now)
            # Its class may have been forgotten while it was leased, even if nothing of it changed.
            record.shape = self.catalogue.shape_of(task, relaxed=record.relaxed)
            if former is not task:
                if former.queue != task.queue:
                    self._came(record)
                record.task = task
                record.counts = self._counts_of(record.shape, task)
                if (former.queue, former.deadline) != (task.queue, task.deadline):
                    self.rank(record)
        record.ending = None
        if self.dependencies:
            self.heed_dependants(record)
        return record

    def _count_in(self, task: Task, now: float) -> None:
        """Let the limits count the Task. A younger Task of its ordering key that had the turn goes behind it."""
        displaced = self.limits.enter(task)
        if displaced is not None:
            self.try_again(displaced, now)

    def _came(self, record: TaskRecord) -> None:
        """Note a Task that is new, or new in its queue."""
        if not record.fresh:
            record.fresh = True
            self.fresh.append(record)

    def estimate(self, shape: Shape) -> Estimate | None:
        """Return the service time of the shape's type, None if nothing was observed of it."""
        found = shape.estimate
        if found is None or found.forgotten:
            found = shape.estimate = self.estimates.of(shape.queue_key, shape.need.type)
            if found is None and (told := self.performance.known(shape.pools, shape.need.type)) is not None:
                found = shape.estimate = self.estimates.begin(shape.queue_key, shape.need.type, told)
        return found

    def rank(self, record: TaskRecord) -> None:
        """Fix the Task's latest start, by what its type takes as far as is known now."""
        task, shape = record.task, record.shape
        queue, known = shape.queue, self.estimate(shape)
        mean = least = queue.expected_service
        if known is not None:
            mean = known.mean
            # Asked for a deadline only.
            least = mean if task.deadline is None else known.quickest
        record.latest_start = order.latest_start(queue, task, mean)
        record.hopeless_from = order.hopeless_from(task, least)

    def service(self, record: TaskRecord) -> float:
        """Return for how long an attempt of the Task is expected to hold its slots, in seconds."""
        known = self.estimate(record.shape)
        return record.shape.queue.expected_service if known is None else known.mean

    def take_out(self, record: TaskRecord, now: float, over: bool = True) -> None:
        """Take the Task out of where it stands. `over` False: its grant did not come about."""
        task = record.task
        if record.agent is not None:
            agent, record.agent = record.agent, None
            record.counts.leased -= 1
            self.waiting.correct_charge(record, now)
            self.fleet.release(agent, task.uid, now)
            record.failed = False
            if opened := self.limits.release(task, now) if over else self.limits.refund(task, now):
                self.parking.open(opened)
            if task.concurrency_key is not None:
                self.parking.key_free(task, now)
            record.eligible_since = -1.0
        else:
            record.counts.waiting -= 1
            record.shape.tasks -= 1
            self._unwatch(record)
            if record.gate is not None:
                if record.blocker is None:
                    record.eligible_since = -1.0
                self._ungate(record, record.gate)
                self.held[task.namespace] -= record.held
                record.gate, record.held = None, False
                self.parking.leave(record)
            else:
                self.withdraw(record)
                if record.trying:
                    record.trying = False
                    self.parking.key_free(task, now)

    def withdraw(self, record: TaskRecord) -> None:
        self.waiting.remove(record)
        shape = record.shape
        shape.eligible -= 1
        shape.eligible_since = shape.eligible_since - record.since if shape.eligible else 0.0
        if self.reservations:
            self.reservations.forget(record)

    def _counts_of(self, shape: Shape, task: Task) -> TaskCounts:
        key = (shape.queue_key, task.priority)
        found = self.counts.get(key)
        if found is None:
            found = self.counts[key] = TaskCounts()
        return found

    def stand(self, record: TaskRecord, now: float) -> None:
        """Put a waiting Task behind what holds it, or among the eligible ones."""
        queue = record.shape.queue
        self._expire(record, queue)
        self._place(record, queue, now)
        if record.ending is None:
            self.heed_time(record)

    def _place(self, record: TaskRecord, queue: Queue, now: float) -> None:
        task = record.task
        # One that is suspended waits for its parents all the same, and lifts them.
        held = self.dependencies.add(task, order.base_level(queue, task)) if task.parents else None
        if task.suspended:
            self.gate(record, Reason.SUSPENDED)
            return
        if held is not None:
            self.gate(record, held.reason)
            if held.phase is not None:
                self.verdict(record, Fail(task.uid, task.failures, held.reason, held.message, held.phase, task.deaths))
            return
        if task.not_before > now:
            self.gate(record, _until(task))
            record.opens = task.not_before
        elif task.ordering_key is not None and not self.limits.in_turn(task):
            self.gate(record, Reason.OUT_OF_TURN)
        else:
            # A new one came when it was created, even if it is heard of only now.
            since = min(now, max(task.created, task.not_before)) if record.fresh else now
            if record.eligible_since < 0.0:
                record.eligible_since = since
            if record.shape.patient:
                self._be_patient(record, since, now)
            if record.shape.route is not None:
                self._take_step(record, record.shape.route, now)
            record.counts.waiting += 1
            record.shape.tasks += 1
            self._enter(record, queue, now)
            share = None if record.line is None else record.line.share
            if share is not None and share.parent is not None:
                owner = (share.parent.key, share.key)
            else:
                owner = order.owner(queue, task)
            self.arrivals.add(record.level, record.shape, owner, record.latest_start - since, since)
            if self.catalogue.timed and record.shape.demand is not None:
                record.shape.demand.inflow.add(self.service(record), since)

    def _take_step(self, record: TaskRecord, route: Route, now: float) -> None:
        """Give the Task, which stands nowhere, the shape of the step that its wait has opened."""
        step = reached(route, record.eligible_since, now)
        if step != record.shape.step:
            record.shape = self.catalogue.shape_of(record.task, step, record.relaxed)
        record.moves = opens_at(route, step + 1, record.eligible_since)

    def move_on(self, record: TaskRecord, route: Route, now: float) -> None:
        """Move the waiting Task to the next step of its route, which has opened."""
        shape = record.shape
        if record.line is not None:
            self.withdraw(record)
        else:
            # Parked on its own: what holds it is found again there.
            assert record.gate is not None
            self._ungate(record, record.gate)
            self.parking.leave(record)
            record.gate = None
        shape.tasks -= 1
        self._take_step(record, route, now)
        record.shape.tasks += 1
        record.shape.eligible += 1
        record.shape.eligible_since += record.since
        self._enter_line(record, record.shape.queue, now)

    def _be_patient(self, record: TaskRecord, since: float, now: float) -> None:
        """Fix how long the Task waits for an agent that it prefers. Once that is over, any agent will do."""
        placement = record.task.placement
        assert placement is not None, "a shape is patient for what its Tasks prefer"
        if record.patience == inf:
            record.patience = since + placement.wait
        if record.patience <= now:
            record.relaxed = True
            record.shape = self.catalogue.shape_of(record.task, relaxed=True)

    def relax(self, record: TaskRecord, now: float) -> None:
        """Let any agent do for the Task: it has waited long enough for one that it prefers."""
        self.take_out(record, now)
        record.relaxed = True
        record.shape = self.catalogue.shape_of(record.task, relaxed=True)
        self.stand(record, now)

    def _expire(self, record: TaskRecord, queue: Queue) -> None:
        """Work out when the Task has waited too long."""
        task = record.task
        limit = task.waiting_limit if task.waiting_limit is not None else queue.timeouts.waiting
        record.expires = inf if limit is None or task.attempted else task.created + limit
        if task.deadline is not None and queue.on_hopeless is not RUN and not task.redriven:
            # At that time it can still be met.
            record.expires = min(record.expires, nextafter(record.hopeless_from, inf))

    def heed_time(self, record: TaskRecord) -> None:
        """Set the Task's alarm for the first change that time alone brings it."""
        # Two by two, as that is compiled to a comparison.
        due = min(min(min(record.expires, record.opens), min(record.rises, record.impatient)), record.moves)
        if record.shape.patient and (record.line is not None or record.blocker is not None):
            due = min(due, record.patience)
        self.wakeups.set(record, due)

    def _unwatch(self, record: TaskRecord) -> None:
        record.expires = record.opens = record.rises = record.impatient = record.moves = inf
        self.wakeups.clear(record)

    def verdict(self, record: TaskRecord, decision: Fail | Spill) -> None:
        """Decide the end of a waiting Task. It stands until its `TaskGone` or `TaskWaiting`, whatever else happens."""
        record.ending = decision
        self._unwatch(record)
        self.verdicts.append(decision)

    def gate(self, record: TaskRecord, gate: Reason) -> None:
        record.counts.waiting += 1
        record.gate = gate
        record.shape.tasks += 1
        self.count_gated(record, gate)

    @staticmethod
    def count_gated(record: TaskRecord, gate: Reason) -> None:
        shape = record.shape
        shape.gated[gate] += 1
        shape.gated_since[gate] = shape.gated_since.get(gate, 0.0) + record.since

    @staticmethod
    def _ungate(record: TaskRecord, gate: Reason) -> None:
        """Stop counting the Task among those that this gate holds."""
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
        self.waiting.add(record, now)

    def _level(self, record: TaskRecord, queue: Queue, now: float) -> None:
        """Work out the Task's level, and when it goes up by one."""
        task = record.task
        base = order.base_level(queue, task, record.lift)
        record.level = level = order.aged(queue, task, now, base)
        rises = level < TOP and order.ages(queue)
        record.rises = order.promotion(queue, task, level, base) if rises else inf

    def _unpark(self, record: TaskRecord, now: float) -> None:
        """Let a Task try that was parked under its own key."""
        assert record.gate is not None
        self._ungate(record, record.gate)
        record.gate = None
        self._enter(record, record.shape.queue, now)
        self.heed_time(record)

    def lease(self, record: TaskRecord, agent: AgentRecord, ends: float, now: float) -> None:
        record.counts.leased += 1
        record.agent = agent
        record.failed = False
        self.fleet.lease(agent, record.task, ends, now)
        if record.task.parents:
            self.dependencies.remove(record.task.uid)

    def _limited(self, record: TaskRecord, now: float) -> bool:
        """Whether a limit holds the eligible Task that does not open by time alone."""
        if not self.limits.in_turn(record.task):
            return True
        blocker = self.limits.blocker(record.task, record.level, now)
        return blocker is not None and blocker.opens_at(now) is None

    def leave(self, record: TaskRecord, now: float) -> None:
        """Let the limits count the waiting Task no more."""
        if record.counted:
            record.counted = False
            for uid in self.limits.leave(record.task):
                self.try_again(uid, now)

    def parent_over(self, uid: str, phase: Phase | None, now: float) -> None:
        for child in self.dependencies.ended(uid, phase):
            self.try_again(child, now)
        self.dependencies_changed(now)

    def dependencies_changed(self, now: float) -> None:
        """Move Tasks whose dependants lift them otherwise than before, and Tasks whose gate has changed."""
        for uid in self.dependencies.take_changed():
            record = self.tasks.get(uid)
            if record is not None:
                self._lifted(record, now)
        for uid in self.dependencies.take_regated():
            self.try_again(uid, now)

    def _lifted(self, record: TaskRecord, now: float) -> None:
        self.heed_dependants(record)
        self.rise(record, now)

    def heed_dependants(self, record: TaskRecord) -> None:
        """Take over the level and the chain that the Tasks which wait for this one give it."""
        uid = record.task.uid
        record.lift = self.dependencies.level(uid, 0)
        first = self.catalogue.queue(record.task.queue_key).critical_path_first
        record.chain = self.dependencies.chain(uid) if first else 0

    def rise(self, record: TaskRecord, now: float) -> None:
        """Move the Task to where its level and chain put it now."""
        queue = self.catalogue.queue(record.task.queue_key)
        if record.line is not None:
            level = record.level
            self.waiting.remove(record)
            self._enter_line(record, queue, now)
            self.reservations.rise(record)
            if record.trying and record.level < level:
                # Others that wait for its key may go before it now.
                self.parking.key_free(record.task, now)
        elif record.blocker is not None:
            self._level(record, queue, now)
            self.parking.move(record, now)
        self.heed_time(record)

    def try_again(self, uid: str, now: float) -> None:
        """Place the waiting Task anew: what held it may hold it no more."""
        record = self.tasks.get(uid)
        if record is not None and record.agent is None and not record.held and record.ending is None:
            self.take_out(record, now)
            self.stand(record, now)
