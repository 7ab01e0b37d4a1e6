"""The core's state machine: takes events, gives decisions.

What each event changes, and the order of the steps of a decision. The engine's other files: `task_states` (where each
Task stands), `due` (what time brings), `cycle` (the next Task and its agent), `retry` (what follows a failure),
`wakeups`, `learning` and `audit`. Refuses I/O, clocks and chance: the same events at the same times give the same
decisions.
"""

from collections.abc import Callable, Iterable
from sys import maxsize
from typing import Any, Final

from taskdist.api import Phase, Reason
from taskdist.core import events, order
from taskdist.core.agents.performance import PoolPerformance, TypePerformance, weakest
from taskdist.core.agents.roster import DRAINED, DRAINING, AgentRecord
from taskdist.core.decisions import Decision, Explanation, Retry, Undrain
from taskdist.core.engine import audit
from taskdist.core.engine.cycle import Cycle
from taskdist.core.engine.due import DueChanges
from taskdist.core.engine.learning import Learning
from taskdist.core.engine.retry import after_failure
from taskdist.core.engine.task_states import TaskStates
from taskdist.core.explaining import reasons
from taskdist.core.explaining.bottlenecks import Holdups, holdups
from taskdist.core.fleet.fleet import differs
from taskdist.core.forecasting.expected_start import with_outlook
from taskdist.core.limits.levels import Level
from taskdist.core.model import Key, Queue, Task
from taskdist.core.ordering.line_limits import LineLimits
from taskdist.core.primitives.service_times import Estimate
from taskdist.core.views import AgentState, AgentView, BreakerView, Outside, PoolView

# What a queue says of order: if any of it changes, its Tasks stand elsewhere.
_ORDER: Final = (
    "policy",
    "level",
    "critical_path_first",
    "aging_step",
    "max_queue_seconds",
    "hold_after",
    "on_hopeless",
    "timeouts",
    "routes",
)

# Named once: compiled code finds a constant at once, the member of a class by asking the class.
SUCCEEDED: Final = Phase.SUCCEEDED
DEAD_LETTERED: Final = Phase.DEAD_LETTERED
# A pod that is younger than this when it is first seen is new, in seconds.
NEW: Final = 5.0


class Core:
    """Which agent runs which Task and when, what follows a failure, how large pools are, and why a Task waits."""

    def __init__(self) -> None:
        states = self._states = TaskStates()
        self._arrivals = states.arrivals
        self._catalogue = states.catalogue
        self._counts = states.counts
        self._dependencies = states.dependencies
        self._estimates = states.estimates
        self._fleet = states.fleet
        self._held = states.held
        self._reservations = states.reservations
        self._limits = states.limits
        self._parking = states.parking
        self._performance = states.performance
        self._tasks = states.tasks
        self._verdicts = states.verdicts
        self._waiting = states.waiting
        self._wakeups = states.wakeups
        self._due = DueChanges(states)
        self._probation = self._due.probation
        self._cycle = Cycle(states)
        self._learning = Learning(states, self._probation)
        self._strategies = self._cycle.strategies
        self._autoscaler = self._cycle.autoscaler
        self._ended = 0
        self._inspection = audit.Inspection(self._tasks, self._waiting, self._catalogue, self._fleet)
        # When a decision was cut short by its limit: there is more to say at once.
        self._cut_at: float | None = None
        # Whether nothing has come since all was said: only time can bring something new.
        self._at_rest = False
        self._handlers: dict[type[Any], Callable[[Any, float], list[Decision] | None]] = {
            events.QueueApplied: self._queue_applied,
            events.QueueDeleted: self._queue_deleted,
            events.BacklogSeen: self._backlog_seen,
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
        self._at_rest = False
        return self._handlers[type(event)](event, now) or []

    def _queue_applied(self, event: events.QueueApplied, now: float) -> None:
        former, queue = self._catalogue.queue(event.queue.key), event.queue
        self._catalogue.apply_queue(queue)
        if former.routes != queue.routes:
            self._strategies.forget(queue.key)
        self._parking.open(self._limits.apply_queue(queue))
        self._limits.fill_buckets(queue.key, now)
        self._rules_changed(former, queue, now)

    def _queue_deleted(self, event: events.QueueDeleted, now: float) -> None:
        former = self._catalogue.queue(event.key)
        self._catalogue.drop_queue(event.key)
        self._strategies.forget(event.key)
        self._parking.open(self._limits.drop_queue(event.key))
        self._rules_changed(former, self._catalogue.queue(event.key), now)

    def _backlog_seen(self, event: events.BacklogSeen, _now: float) -> None:
        self._autoscaler.backlogs.tell(event.queue, event.source, event.messages, event.until, event.oldest)

    def _rules_changed(self, former: Queue, queue: Queue, now: float) -> None:
        """Move the queue's waiting Tasks to where its present rules put them."""
        if any(getattr(former, name) != getattr(queue, name) for name in _ORDER):
            records = [each for each in self._tasks.values() if each.task.queue_key == queue.key]
            moving = {each for each in records if each.agent is None and not each.held and each.ending is None}
            # All before the first stands anew, so that no line of theirs outlives the rules of its share.
            for record in records:
                if record in moving:
                    self._states.take_out(record, now)
            for record in records:
                moves = record in moving
                if moves:
                    record.shape = self._catalogue.shape_of(record.task, relaxed=record.relaxed)
                self._states.rank(record)
                self._states.heed_dependants(record)
                if moves:
                    self._states.stand(record, now)
                elif record.ending is not None and record.task.parents:
                    # Until its end is recorded it may go on: it lends its parents what its queue says now.
                    self._dependencies.add(record.task, order.base_level(queue, record.task))
            self._states.dependencies_changed(now)
        self._waiting.reweigh(queue)
        if former.concurrency_limit != queue.concurrency_limit:
            self._parking.keys_free(queue.key, now)

    def _pool_applied(self, event: events.PoolApplied, now: float) -> None:
        former = self._catalogue.pools.get(event.pool.key)
        self._catalogue.apply_pool(event.pool)
        if former is None or former.template != event.pool.template:
            self._fleet.made_from(event.pool.key, event.pool.template)
        self._probation.changed(former, event.pool, now)

    def _pool_deleted(self, event: events.PoolDeleted, now: float) -> None:
        self._catalogue.drop_pool(event.key)
        self._autoscaler.forget(event.key, now)
        self._probation.dropped(event.key, now)
        self._performance.forget(event.key)

    def _task_waiting(self, event: events.TaskWaiting, now: float) -> None:
        self._states.stand(self._states.record(event.task, now), now)
        if self._dependencies:
            self._states.dependencies_changed(now)

    def _task_held(self, event: events.TaskHeld, now: float) -> None:
        record = self._states.record(event.task, now)
        if event.task.parents:
            # Whatever it waits for, it is not its parents: it does not lift them.
            self._dependencies.remove(event.task.uid)
            self._states.dependencies_changed(now)
        record.held = True
        self._held[event.task.namespace] += 1
        self._states.gate(record, event.reason)

    def _task_leased(self, event: events.TaskLeased, now: float) -> None:
        record = self._states.record(event.task, now, over=True)
        record.fresh = False
        self._limits.grant(record.task, now, token=False)
        first = self._limits.first_in_turn(record.task)
        if first is not None:
            self._states.try_again(first, now)
        self._states.lease(record, self._fleet.obtain(event.agent_uid, now), now + self._states.service(record), now)
        self._states.dependencies_changed(now)

    def _task_gone(self, event: events.TaskGone, now: float) -> None:
        record = self._tasks.get(event.uid)
        if record is not None:
            if event.phase is SUCCEEDED and record.agent is not None:
                self._learning.ended(record, record.agent, True, now)
            self._states.take_out(record, now)
            del self._tasks[event.uid]
            record.fresh = False
            self._ended += 1
            if record.task.parents:
                self._dependencies.remove(event.uid)
            self._states.leave(record, now)
        if self._dependencies:
            if event.phase is not DEAD_LETTERED:
                self._states.parent_over(event.uid, event.phase, now)
            self._states.dependencies_changed(now)

    def _task_ended(self, event: events.TaskEnded, now: float) -> None:
        self._states.parent_over(event.uid, event.phase, now)

    def _attempt_failed(self, event: events.AttemptFailed, now: float) -> list[Decision] | None:
        record = self._tasks.get(event.uid)
        if record is None:
            return None
        decision = after_failure(record.task, self._catalogue.queue(record.task.queue_key), event, now)
        put_off = isinstance(decision, Retry) and decision.put_off > 0.0
        # That it is throttled says nothing against the agent.
        if event.counted and not put_off and record.agent is not None and not record.failed:
            self._learning.ended(record, record.agent, False, now)
        record.failed = True
        return [decision]

    def _attempt_used(self, event: events.AttemptUsed, now: float) -> None:
        record = self._tasks.get(event.uid)
        if record is not None and record.agent is not None:
            self._parking.open(self._limits.budgets.correct(record.task, event.used, now))

    def _pod_seen(self, event: events.PodSeen, now: float) -> None:
        agent = self._fleet.obtain(event.uid, now)

        def seen(agent: AgentRecord) -> None:
            agent.starting = agent.starting or (not agent.pod_seen and now - event.created < NEW)
            agent.pod_seen, agent.gone = True, False
            agent.namespace, agent.name, agent.created = event.namespace, event.name, event.created
            agent.template, agent.outdated, agent.trouble = event.template, outdated, event.trouble

        key = (event.namespace, event.pool)
        pool = self._catalogue.pools.get(key)
        outdated = pool is not None and differs(event.template, pool.template)
        known = (agent.pod_seen and not agent.gone, agent.created, agent.template, agent.outdated, agent.trouble)
        if known != (True, event.created, event.template, outdated, event.trouble):
            self._fleet.change(agent, now, seen)
        if agent.pool != key:
            self._fleet.belong(agent, key, now)

    def _pod_gone(self, event: events.PodGone, now: float) -> None:
        agent = self._fleet.agents.get(event.uid)
        if agent is not None:
            self._fleet.gone(agent, now)

    def _agent_ready(self, event: events.AgentReady, now: float) -> None:
        agent = self._fleet.obtain(event.agent.uid, now)
        self._fleet.connect(agent, event.agent, now)
        if agent.starting:
            self._fleet.started(agent, now)
        self._probation.came(agent, now)

    def _agent_not_ready(self, event: events.AgentNotReady, now: float) -> None:
        agent = self._fleet.agents.get(event.uid)
        if agent is not None and agent.ready:

            def not_ready(agent: AgentRecord) -> None:
                agent.ready = False

            self._fleet.change(agent, now, not_ready)

    def _agent_drained(self, event: events.AgentDrained, _now: float) -> None:
        agent = self._fleet.agents.get(event.uid)
        if agent is not None and agent.departure is DRAINING:
            agent.departure = DRAINED

    # Decisions.

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        """Say what should happen now: first who runs what, best first, then how pools change.

        At most `limit` decisions; if it cut them short, `next_wake` is not in the future.
        """
        decisions: list[Decision] = []
        if self._at_rest and ((wake := self.next_wake()) is None or now < wake):
            return decisions
        most = limit if limit is not None else maxsize
        # 1. Let time pass: gates open, levels rise, waits expire, rates refill; full queues turn away what came.
        self._due.apply(now)
        # 2. Say which Tasks end without having run, and which agents their circuit breakers shut or try again.
        complete = self._tell_endings(decisions, most) and self._probation.tell(decisions, most)
        while complete:
            # 3. Place: the first Task in order that no limit holds gets the best agent with room, until none fits.
            # 4. Backfill agents that are reserved for a large Task with what ends before that Task could start.
            complete = self._cycle.place(decisions, most, now) and self._cycle.backfill(decisions, most, now)
            # 5. End reservations in vain and rouse agents that rest: what they have room for is placed (3).
            if not complete or self._release(now, anew=bool(decisions)):
                continue
            # 6. Size the pools: only once all that fits is placed is waiting work a lack of room.
            changes = self._size(most - len(decisions), now)
            decisions += changes
            complete = len(decisions) < most
            # 7. An agent that is kept after all may take of what waits (3); else all is said.
            if not any(isinstance(change, Undrain) for change in changes):
                break
        self._cut_at = None if complete else now
        self._at_rest = complete
        return decisions

    def _tell_endings(self, decisions: list[Decision], most: int) -> bool:
        """Add the decisions that end Tasks which have not run. Return False if `most` cut them short."""
        while self._verdicts:
            if len(decisions) >= most:
                return False
            verdict = self._verdicts.popleft()
            record = self._tasks.get(verdict.task_uid)
            if record is not None and record.ending is verdict:
                decisions.append(verdict)
        return True

    def _release(self, now: float, anew: bool) -> bool:
        """End reservations that are in vain, if any work was placed `anew`, and rouse agents that rest; return whether
        there were any."""
        released = anew and bool(self._reservations) and self._reservations.let_go(now)
        return (self._autoscaler.rests and self._autoscaler.rouse(self._waiting.profiles, now)) or released

    def _size(self, most: int, now: float) -> list[Decision]:
        """Return how pools change for waiting Tasks that no limit holds: at most `most` decisions.

        A Task that only time keeps from its budgets counts, as long as an agent has room for it: were that agent to go,
        others would take of the budgets, and the agent would be called back for it at once.
        """
        claimed = self._cycle.claimed_demands()
        for demand in claimed:
            demand.tasks += 1
        changes = self._autoscaler.decide(now, self._waiting.profiles, self._held, most, self._cycle.set_all_aside)
        for demand in claimed:
            demand.tasks -= 1
        return changes

    def next_wake(self) -> float | None:
        """Return when `decide` could say something new without an event: a gate opens by time, a surplus has held."""
        times = (
            self._cut_at,
            self._wakeups.next(),
            self._limits.next_due(),
            self._probation.next_due(),
            self._autoscaler.wake(),
        )
        return min((time for time in times if time is not None), default=None)

    def learn(self, task: Task, seconds: float | None) -> None:
        """Learn from a Task of before this life: it came and, if `seconds` is given, succeeded within so long.

        It is not a Task to this core; what is expected of its like is all that changes.
        """
        self._at_rest = False
        self._learning.came(task, seconds)

    def recall(self, pool: Key, told: Iterable[TypePerformance]) -> None:
        """Restore the performance of types from the pool's status."""
        self._at_rest = False
        self._performance.recall(pool, told)

    def recall_levels(self, queue: Key, told: Iterable[Level]) -> None:
        """Restore what was left of the queue's rates and budgets from its status, once its Tasks are known."""
        self._at_rest = False
        self._limits.recall(queue, told)

    # Views.

    def levels(self, queue: Key, now: float) -> tuple[Level, ...]:
        """Return what is left of the queue's rates and budgets."""
        return self._limits.levels(queue, now)

    def all_levels(self, now: float) -> dict[Key, tuple[Level, ...]]:
        """Return by queue what is left of its rates and budgets; queues without any are left out."""
        return {key: found for key in self._catalogue.queues if (found := self._limits.levels(key, now))}

    def explain(self, uid: str, now: float) -> Explanation | None:
        """Say why the Task waits, its position and when it is expected to start; None if it does not wait.

        The position costs a look at the lines that compete with it; `why` does without.
        """
        found, record = self.why(uid, now), self._tasks.get(uid)
        if found is None or record is None:
            return found
        return with_outlook(
            found,
            record,
            self._catalogue,
            self._limits,
            self._line_limits(now),
            self._estimates,
            self._arrivals,
            now,
        )

    def why(self, uid: str, now: float) -> Explanation | None:
        """Say why the Task waits, without its position; None if it does not wait. The cost is that of one decision."""
        record = self._tasks.get(uid)
        if record is None or record.agent is not None:
            return None
        return reasons.why(record, self._catalogue, self._limits, self._dependencies, self._reservations, now)

    def waiting_by_reason(self, now: float) -> dict[tuple[Key, Reason], int]:
        """Count waiting Tasks by queue and the reason that `explain` gives, each class of like Tasks at once."""
        return reasons.by_reason(self._catalogue, self._line_limits(now), self._reservations)

    def holdups(self, now: float) -> tuple[Holdups, Holdups]:
        """Return what holds waiting Tasks, and for how long in all: by queue, and by pool that could serve them."""
        return holdups(self._catalogue, self._line_limits(now), self._reservations, now)

    def _line_limits(self, now: float) -> LineLimits:
        return LineLimits(self._waiting, self._limits, self._tasks, now)

    def queue_counts(self) -> dict[Key, tuple[int, int]]:
        """Return by queue how many Tasks wait and how many are leased. Queues without Tasks are left out."""
        found: dict[Key, tuple[int, int]] = {}
        for (key, _), here in self._counts.items():
            if here.waiting or here.leased:
                waiting, leased = found.get(key, (0, 0))
                found[key] = (waiting + here.waiting, leased + here.leased)
        return found

    def service_time(self, queue: Key, type: str) -> Estimate | None:
        """Return how long attempts of this type hold their slots, as was observed; None if nothing was."""
        return self._estimates.of(queue, type)

    def waiting_outside(self, queue: Key) -> int:
        """Return how many messages wait at sources for the queue, as they said lately."""
        return self._autoscaler.backlogs.waiting(queue)

    def outside(self, queue: Key) -> Outside | None:
        """Return what waits at sources for the queue, as they said lately; None if nothing does."""
        return self._autoscaler.backlogs.outside(queue)

    def pool_view(self, key: Key) -> PoolView:
        """Return the pool as it is now. For an unknown pool: what is left of it, and 0 desired."""
        return self._autoscaler.view(key)

    def breakers(self, pool: Key) -> tuple[BreakerView, ...]:
        """Return the circuit breakers of the pool's agents that are not closed."""
        return self._probation.breakers(pool)

    def performance(self, pool: Key) -> PoolPerformance:
        """Return the performance of the pool's agents, and of types there. Costs a look at each agent."""
        conducts = [
            (agent.name, agent.conduct)
            for agent in self._fleet.members(pool).agents.values()
            if agent.conduct is not None and not agent.gone
        ]
        held = sum([conduct.held for _, conduct in conducts], 0.0)
        accepted = sum([conduct.accepted for _, conduct in conducts], 0.0)
        efficiency = accepted / held if held > 0.0 else 1.0
        return PoolPerformance(efficiency, self._performance.of(pool), weakest(conducts))

    def agent_states(self) -> dict[Key, dict[AgentState, int]]:
        """Return by pool how many agents are in each state."""
        return self._fleet.states()

    def agents(self, pool: Key) -> list[AgentView]:
        """Return the pool's agents as they are, by name. Costs a look at each."""
        return self._fleet.views(pool)

    def level_counts(self) -> dict[tuple[Key, int], tuple[int, int]]:
        """Return by queue and by the Tasks' own level how many wait and how many are leased."""
        return {key: (each.waiting, each.leased) for key, each in self._counts.items() if each.waiting or each.leased}

    def inspect(self, most: int) -> list[str] | None:
        """Audit about `most` things more; return the findings once a round is over, None before.

        It sees less than `audit`, which counts anew from all Tasks at once, and never takes long.
        """
        if not self._inspection.running:
            self._inspection.begin(self.level_counts(), self._states.accepted - self._ended)
            return None
        return self._inspection.step(most)

    def audit(self) -> list[str]:
        """Compare the books with each other; return what does not hold, nothing when sound. Costs a full pass."""
        outstanding = self._states.accepted - self._ended
        counted = ((each.task, each.agent is not None) for each in self._tasks.values() if each.counted)
        return [
            *audit.findings(self._tasks, self.level_counts(), outstanding, self._waiting, self._catalogue, self._fleet),
            *self._limits.findings(counted),
            *self._dependencies.findings(),
            *self._probation.findings(),
        ]
