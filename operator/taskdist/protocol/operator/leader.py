"""The operator's end of the lease protocol: one leadership, from its takeover to its end.

Owns the books of one epoch: which Tasks wait, who holds which lease until when, what is being written and read. It
drives a core of its own and turns what it decides into writes and messages, in the order that keeps the promises. It
does no I/O and reads no clock; a new leadership is a new `Leader` with a new `Core`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial

from taskdist.api import BreakerState, Phase
from taskdist.core import Core, decisions
from taskdist.core.events import BacklogSeen, PoolApplied, PoolDeleted, QueueApplied, QueueDeleted
from taskdist.core.model import Key, Pool, Queue
from taskdist.protocol.backlogs import BACKLOG_SECONDS, SeenBacklog
from taskdist.protocol.messages import AgentIdentity, FromAgent, Hello, Hold
from taskdist.protocol.observations import (
    Action,
    Now,
    ObservedPod,
    ObservedTask,
    PoolNotice,
    ReadOutcome,
    RemovePod,
    ScalePool,
    Send,
    WriteOutcome,
)
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.answers import Answers
from taskdist.protocol.operator.books import CoreState, Deletion, LeaseStage, TaskEntry
from taskdist.protocol.operator.inbox import Inbox
from taskdist.protocol.operator.orphans import Orphans
from taskdist.protocol.operator.pods import Pods
from taskdist.protocol.operator.presence import Presence
from taskdist.protocol.operator.removals import Removals
from taskdist.protocol.operator.sessions import Sessions
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.tasks import Tasks
from taskdist.protocol.operator.timers import Timer, TimerKind
from taskdist.protocol.operator.wait_reasons import WaitReasons
from taskdist.protocol.rules import ALL, Rules
from taskdist.protocol.settings import LeaderSettings
from taskdist.protocol.task_status import ARRAYS_SKILL

# How often a leader whose sure time has passed asks whether it was renewed since.
LAPSED_SECONDS = 0.25


@dataclass(frozen=True, slots=True)
class LeaderStats:
    """Numbers for metrics.

    `accounted`: Tasks that wait, are leased or have ended, without those that were deleted and run yet: as many as the
    API server has. `conservation_error`: Tasks in the books less Tasks in the core; anything but 0 is a bug.
    """

    leases: dict[Key, int]
    sessions: int
    unknown_writes: int
    accounted: int
    conservation_error: int


class Leader:
    """One leadership. Each method is an input: it returns the actions to do now, in order.

    Feed the recovery lists first: queues, pools, pods (listed after the Tasks, so that a pod that is absent is gone),
    then `recover`. Once a newer leader is seen or renewal fails, every input returns nothing.
    """

    def __init__(
        self,
        core: Core,
        epoch: int,
        settings: LeaderSettings | None = None,
        leadership: str = "",
        rules: Rules = ALL,
    ) -> None:
        """Lead in this epoch with a core of its own, which is new.

        Args:
            core: decides; nobody else tells it of anything.
            epoch: the number of the leadership; only grows.
            settings: times and bounds.
            leadership: random; it tells this leadership from another of the same epoch.
            rules: all of them, but in tests.
        """
        settings = settings or LeaderSettings()
        self.core = core
        self.state = State(epoch, leadership)
        self._rules = rules
        self._sure_until = float("inf")
        self._late: list[Callable[[Now], None]] = []  # inputs that came after that
        self._last = Now(0.0, 0.0)
        out = self._out = Actions(self.state, rules)
        self._removals = Removals(core, self.state, out, rules)
        self._presence = Presence(core, self.state, out, settings, rules)
        tasks = self._tasks = Tasks(core, self.state, out, self._removals, self._presence, settings, rules)
        self._answers = Answers(self.state, out, self._removals, tasks, settings, rules)
        self._pods = Pods(core, self.state, self._removals, self._presence, tasks, rules)
        self._orphans = Orphans(self.state, out, settings, rules)
        self._sessions = Sessions(self.state, out, self._presence, tasks, self._orphans, settings, rules)
        self._inbox = Inbox(core, self.state, out, self._presence, tasks, self._orphans, self._sessions, rules)
        self._reasons = WaitReasons(core, self.state, out, settings)

    @property
    def epoch(self) -> int:
        """The number of this leadership."""
        return self.state.epoch

    @property
    def over(self) -> bool:
        """Whether this leadership has ended: nothing will be decided, written or renewed any more."""
        return self.state.over

    # --- leadership ---

    def leading_until(self, boot: float) -> None:
        """This leadership is sure to last until this boot time; an input after it waits for the next such word.

        So a process that was frozen notices before it acts, whatever input comes first.
        """
        if self._rules.unsure_leader_waits:
            self._sure_until = boot

    def renewal_failing(self, now: Now) -> list[Action]:  # noqa: ARG002 - as each input, it says when it came
        """The leadership cannot be renewed: tell each agent to hold, once, and do nothing any more."""
        if self.state.over:
            return []
        for session in self.state.by_pod.values() if self._rules.hold_is_said else ():
            self._out.add(Send(session.id, Hold(self.epoch)))
        self.state.over = True
        return self._out.take()

    def recover(self, tasks: Iterable[ObservedTask], now: Now) -> list[Action]:
        """Take over what a consistent list shows. Strict: what is unassigned there is handed out at once."""
        return self._input(partial(self._tasks.takeover.recover, tasks), now)

    # --- the cluster ---

    def queue_applied(self, queue: Queue, now: Now) -> list[Action]:
        """A queue is there, new or changed."""
        return self._input(partial(self._on_queue_applied, queue), now)

    def _on_queue_applied(self, queue: Queue, now: Now) -> None:
        self.state.queues[queue.key] = queue
        self.core.handle(QueueApplied(queue), now.wall)

    def queue_deleted(self, key: Key, now: Now) -> list[Action]:
        """A queue is no more."""
        return self._input(partial(self._on_queue_deleted, key), now)

    def _on_queue_deleted(self, key: Key, now: Now) -> None:
        self.state.queues.pop(key, None)
        self.core.handle(QueueDeleted(key), now.wall)

    def backlog_seen(self, told: SeenBacklog, now: Now) -> list[Action]:
        """A source has said how many messages wait at it for a queue. That counts until it is too old."""
        return self._input(partial(self._on_backlog_seen, told), now)

    def _on_backlog_seen(self, told: SeenBacklog, now: Now) -> None:
        until = now.wall + BACKLOG_SECONDS
        self.core.handle(BacklogSeen(told.queue, told.source, told.messages, until, told.oldest), now.wall)

    def pool_applied(self, pool: Pool, now: Now) -> list[Action]:
        """A pool is there, new or changed."""
        return self._input(partial(self._on_pool_applied, pool), now)

    def _on_pool_applied(self, pool: Pool, now: Now) -> None:
        self.state.pools[pool.key] = pool
        # Whether an agent takes chunks of items it says itself; no pool forbids it.
        self.core.handle(PoolApplied(replace(pool, skills=pool.skills | {ARRAYS_SKILL})), now.wall)
        for session in list(self.state.by_pod.values()):
            if (session.identity.namespace, session.identity.pool) == pool.key:
                self._presence.refresh(session.pod, now)

    def pool_deleted(self, key: Key, now: Now) -> list[Action]:
        """A pool is no more."""
        return self._input(partial(self._on_pool_deleted, key), now)

    def _on_pool_deleted(self, key: Key, now: Now) -> None:
        self.state.pools.pop(key, None)
        self.core.handle(PoolDeleted(key), now.wall)
        for session in list(self.state.by_pod.values()):
            if (session.identity.namespace, session.identity.pool) == key:
                self._presence.refresh(session.pod, now)

    def task_observed(self, record: ObservedTask, now: Now) -> list[Action]:
        """A Task is there, new or changed. Older views than the last are ignored."""
        return self._input(partial(self._tasks.observe, record), now)

    def knows(self, uid: str) -> bool:
        """Whether this Task is in the books."""
        return uid in self.state.tasks or self.state.is_over(uid)

    def task_set_aside(self, uid: str, now: Now) -> list[Action]:
        """The Task is there, in a state that cannot be read: it is looked at again once it is observed."""
        return self._input(partial(self._tasks.set_aside, uid), now)

    def task_deleted(self, uid: str, now: Now) -> list[Action]:
        """A Task is no more."""
        return self._input(partial(self._tasks.deleted, uid), now)

    def pod_observed(self, pod: ObservedPod, now: Now) -> list[Action]:
        """A pool's pod is there, new or changed."""
        return self._input(partial(self._pods.observed, pod), now)

    def pod_gone(self, uid: str, now: Now) -> list[Action]:
        """The pod is no more, and its agent is known to have ended."""
        return self._input(partial(self._pods.gone, uid), now)

    def pod_lost(self, uid: str, now: Now) -> list[Action]:
        """The pod is out of sight: its label was taken, it was deleted by force, or its end was not seen."""
        return self._input(partial(self._pods.lost, uid), now)

    def pod_absent(self, uid: str, now: Now) -> list[Action]:
        """A pod that was to be deleted does not exist: what waits for its end waits no longer than for its lease's."""
        return self._input(lambda _: self._pods.absent(uid), now)

    # --- the link ---

    def connected(self, session: int, identity: AgentIdentity, hello: Hello, now: Now) -> list[Action]:
        """A stream has opened, and this is its hello. `session` is a number that only grows."""
        return self._input(partial(self._sessions.connect, session, identity, hello), now)

    def received(self, session: int, message: FromAgent, now: Now) -> list[Action]:
        """A message came on this stream."""
        return self._input(partial(self._on_received, session, message), now)

    def _on_received(self, session: int, message: FromAgent, now: Now) -> None:
        known = self.state.sessions.get(session)
        if known is not None:
            self._inbox.hear(known, message, now)

    def disconnected(self, session: int, now: Now) -> list[Action]:
        """The stream has ended."""
        return self._input(partial(self._on_disconnected, session), now)

    def _on_disconnected(self, session: int, now: Now) -> None:
        known = self.state.sessions.pop(session, None)
        if known is not None:
            self._sessions.disconnect(known, now)

    # --- answers ---

    def write_done(self, token: int, outcome: WriteOutcome, now: Now) -> list[Action]:
        """A write that was asked for under this token was answered."""
        return self._input(partial(self._answers.write_done, token, outcome), now)

    def read_done(self, token: int, outcome: ReadOutcome, now: Now) -> list[Action]:
        """A read that was asked for under this token was answered."""
        return self._input(partial(self._on_read_done, token, outcome), now)

    def _on_read_done(self, token: int, outcome: ReadOutcome, now: Now) -> None:
        if (orphan := self._orphans.answered(token)) is not None:
            self._inbox.orphan_read(orphan, outcome, now)
        else:
            self._answers.read_done(token, outcome, now)

    # --- time ---

    def tick(self, now: Now) -> list[Action]:
        """Do what is due by now."""
        if not self._may_act(now):
            self._last = now
            return []
        return self._input(self._on_tick, now)

    def _on_tick(self, now: Now) -> None:
        while (due := self.state.timers.due(now.boot)) is not None:
            self._fire(due, now)

    def _fire(self, timer: Timer, now: Now) -> None:
        match timer.kind:
            case TimerKind.RECOVERED:
                self._tasks.takeover.end_recovery(now)
            case TimerKind.REASONS:
                self._reasons.write(now)
            case TimerKind.ORPHAN:
                self._orphans.read_again(timer.mark)
            case kind:
                if (entry := self.state.tasks.get(timer.uid)) is not None:
                    self._fire_of_task(kind, entry, timer.mark, now)

    def _fire_of_task(self, kind: TimerKind, entry: TaskEntry, mark: int, now: Now) -> None:
        match kind:
            case TimerKind.ADVANCE:
                self._tasks.advance(entry, now)
            case TimerKind.LEASE:
                self._tasks.clock.lease_due(entry, mark, now)
            case TimerKind.LIMIT:
                self._tasks.clock.limit_due(entry, mark, now)
            case TimerKind.REASON:
                self._reasons.look(entry, mark, now)
            case _:
                raise AssertionError(f"not a timer of a Task: {kind}")

    def next_wake(self) -> float | None:
        """Return the boot time by which `tick` must be called, None if only an input changes anything."""
        if self.state.over:
            return None
        if self._late or self._last.boot >= self._sure_until:
            return self._last.boot + LAPSED_SECONDS
        wakes = [] if (due := self.state.timers.next()) is None else [due]
        if (wall := self.core.next_wake()) is not None:
            wakes.append(self._last.boot + max(0.0, wall - self._last.wall))
        return min(wakes, default=None)

    # --- decisions ---

    def _input(self, step: Callable[[Now], None], now: Now) -> list[Action]:
        """Deal with an input, unless it came after this leadership's sure time: then it waits, as if still under way.

        Dealt with late, it only makes leases count longer; dropped, its answer would be missed for ever.
        """
        if self.state.over:
            return []
        if not self._may_act(now):
            self._late.append(step)
            self._last = now
            return []
        late, self._late = self._late, []
        for each in (*late, step):
            each(now)
        return self._decided(now)

    def _may_act(self, now: Now) -> bool:
        """Whether this leadership lasts: a leader that cannot renew does nothing, and so does one that was frozen."""
        return not self.state.over and now.boot < self._sure_until

    def _decided(self, now: Now) -> list[Action]:
        """Let the core decide on what is new, and return all that is to be done."""
        self._last = now
        self._look_again(now)
        while self._may_decide() and self._may_act(now) and (decided := self.core.decide(now.wall)):
            for decision in decided:
                self._carry_out(decision, now)
            self._look_again(now)
        if self.state.wishing:
            self._answers.commits.write(now)
        if self.state.over:
            self._out.drop()
        return self._out.take()

    def _look_again(self, now: Now) -> None:
        """Have those Tasks looked at for which another Task has changed."""
        if self.state.lineage.again or self.state.duplicates.again:
            self._tasks.dependents.look_again(now)
        while self.state.arrays_again:
            entry = self.state.tasks.get(uid := next(iter(self.state.arrays_again)))
            del self.state.arrays_again[uid]
            if entry is not None:
                self._tasks.advance(entry, now)

    def _may_decide(self) -> bool:
        return self.state.recovered or not self._rules.recovery_comes_first

    def _carry_out(self, decision: decisions.Decision, now: Now) -> None:
        """Turn a decision of the core into writes, messages and other actions."""
        match decision:
            case decisions.Assign():
                self._tasks.leases.assign(decision, now)
            case decisions.Fail():
                self._tasks.endings.fail(decision, now)
            case decisions.Spill():
                self._tasks.endings.spill(decision, now)
            case decisions.Scale(pool, replicas, reason, message):
                self._out.add(ScalePool(*pool, replicas, reason, message))
            case decisions.Drain():
                self._removals.begin(decision, now)
            case decisions.Undrain(agent_uid=pod):
                self._removals.undo(pod)
            case decisions.DeletePod(uid, namespace, name, reason, message):
                self._removals.delete(RemovePod(uid, namespace, name, reason, message, self.state.epoch))
            case decisions.BreakerTurned(pool=key, state=state, reason=reason, message=message):
                self._out.add(PoolNotice(*key, reason, message, state is not BreakerState.CLOSED))
            case _:
                raise AssertionError(f"not a decision of the core's own: {decision}")

    # --- what others may ask ---

    def dead_letters(self) -> dict[Key, int]:
        """Return by queue how many dead letters there are. Queues without are left out."""
        return self._tasks.letters.counts()

    def live(self) -> Iterator[tuple[ObservedTask, bool]]:
        """Yield each Task that is not over, and whether an agent holds it."""
        for entry in self.state.tasks.values():
            yield entry.record, entry.core is CoreState.LEASED

    def stats(self) -> LeaderStats:
        """Return the numbers of this moment."""
        leases: Counter[Key] = Counter()
        for of_agent in self.state.leases.values():
            leases.update(entry.record.task.queue_key for entry in of_agent.values())
        counted = sum(waiting + leased for waiting, leased in self.core.queue_counts().values())
        placed = gone = dead = unknown = arrays = parts = 0
        for entry in self.state.tasks.values():
            unknown += entry.lease is not None and entry.lease.stage is LeaseStage.DOUBTED
            if entry.part is not None:
                placed += entry.core is not CoreState.ABSENT
                parts += entry.core is not CoreState.ABSENT
            elif entry.core is not CoreState.ABSENT:
                placed += 1
                gone += entry.deletion is not Deletion.NONE
            elif entry.record.phase is Phase.DEAD_LETTERED and entry.deletion is Deletion.NONE:
                dead += 1
            elif entry.record.array is not None and entry.deletion is Deletion.NONE:
                arrays += 1
        accounted = counted - parts + arrays - gone + dead + len(self.state.dead) + len(self.state.finals)
        return LeaderStats(dict(leases), len(self.state.by_pod), unknown, accounted, placed - counted)
