"""The operator's end of the lease protocol: one leadership, from its takeover to its end.

Owns the books of one epoch: which Tasks wait, who holds which lease until when, what is being written and read. It
drives a core of its own and turns what it decides into writes and messages, in the order that keeps the promises. It
does no I/O and reads no clock; a new leadership is a new `Leader` with a new `Core`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial

from taskdist.api import BreakerState, Phase
from taskdist.core.decisions import Assign, BreakerTurned, Decision, DeletePod, Drain, Fail, Scale, Spill, Undrain
from taskdist.core.events import PodGone, PodSeen, PoolApplied, PoolDeleted, QueueApplied, QueueDeleted
from taskdist.core.model import Key, Pool, Queue
from taskdist.protocol import messages, status
from taskdist.protocol.books import Ask, Entry, Lease, Orphan, Stage
from taskdist.protocol.messages import AgentIdentity, FromAgent, Hello, Hold, LeaseName
from taskdist.protocol.noted import Noted
from taskdist.protocol.observations import (
    Action,
    Found,
    Gone,
    Now,
    PodRecord,
    PoolNotice,
    ReadFailed,
    ReadOutcome,
    ScalePool,
    Send,
    TaskRecord,
    WriteOutcome,
)
from taskdist.protocol.observations import DeletePod as DeletePodAction
from taskdist.protocol.settings import LeaderSettings

# How often a leader whose sure time has passed asks whether it was renewed since.
LAPSED_SECONDS = 0.25

__all__ = ["Leader", "LeaderSettings", "LeaderStats"]


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


class Leader(Noted):
    """One leadership. All methods return what is to be done now, in order.

    Feed the recovery lists first: queues, pools, pods (listed after the Tasks, so that a pod that is absent is gone),
    then `recover`. Once a newer leader is seen or renewal fails, every method returns nothing.
    """

    @property
    def over(self) -> bool:
        """Whether this leadership has ended: nothing will be decided, written or renewed any more."""
        return self._over

    # --- leadership ---

    def leading_until(self, boot: float) -> None:
        """This leadership is sure to last until this boot time; an input after it waits for the next such word.

        A process that was frozen so notices before it acts, whoever tells it first.
        """
        self._sure_until = boot

    def renewal_failing(self, now: Now) -> list[Action]:
        """The leadership cannot be renewed: tell each agent to hold, once, and do nothing any more."""
        if self._over:
            return []
        self._say_hold()
        self._over = True
        return self._take()

    def _say_hold(self) -> None:
        for session in self._by_pod.values():
            self._out.append(Send(session.id, Hold(self.epoch)))

    def recover(self, tasks: Iterable[TaskRecord], now: Now) -> list[Action]:
        """Take over what a consistent list shows. Strict: what is unassigned there is handed out at once."""
        return self._input(partial(self._on_recover, tasks), now)

    def _on_recover(self, tasks: Iterable[TaskRecord], now: Now) -> None:
        self._takeover, self._recovered = now.boot, True
        longest = 0.0
        tasks = list(tasks)
        self._lineage.listed(tasks)
        for record in tasks:
            self._duplicates.seen(record)
            uid = record.task.uid
            if record.phase.terminal:
                self._finals.add(uid)
                continue
            entry = self._tasks[uid] = Entry(record)
            queue = self._queue(record)
            if self._may_run_unrecorded(record, queue):
                self._recovering.add(uid)
                longest = max(longest, queue.hold_seconds, queue.lease_seconds)
            if record.deleting:
                entry.gone = True
        for pod in self._pods.values():
            for record in () if pod.dead else pod.still_held:
                self._adopt_held(record, now)
        for entry in list(self._tasks.values()):
            self._advance(entry, now)
        self._taken_over = True
        self._dead_before.clear()
        for uid in self._pods:
            self._finish_removal(uid)
        if self._recovering:
            self._timers.add(now.boot + self._settings.beyond(longest), "recovered", "")
            self._release_recovered(now)
        else:
            self._lost_unheard.clear()

    def _may_run_unrecorded(self, record: TaskRecord, queue: Queue) -> bool:
        """Lazy: status may not show what a former leader sent."""
        return self._lazy(queue, record) and not record.phase.terminal and record.phase.value == "Pending"

    # --- the cluster ---

    def queue_applied(self, queue: Queue, now: Now) -> list[Action]:
        return self._input(partial(self._on_queue_applied, queue), now)

    def _on_queue_applied(self, queue: Queue, now: Now) -> None:
        self._queues[queue.key] = queue
        self.core.handle(QueueApplied(queue), now.wall)

    def queue_deleted(self, key: Key, now: Now) -> list[Action]:
        return self._input(partial(self._on_queue_deleted, key), now)

    def _on_queue_deleted(self, key: Key, now: Now) -> None:
        self._queues.pop(key, None)
        self.core.handle(QueueDeleted(key), now.wall)

    def pool_applied(self, pool: Pool, now: Now) -> list[Action]:
        return self._input(partial(self._on_pool_applied, pool), now)

    def _on_pool_applied(self, pool: Pool, now: Now) -> None:
        self._pools[pool.key] = pool
        self.core.handle(PoolApplied(pool), now.wall)
        for session in list(self._by_pod.values()):
            if (session.identity.namespace, session.identity.pool) == pool.key:
                self._refresh(session.pod, now)

    def pool_deleted(self, key: Key, now: Now) -> list[Action]:
        return self._input(partial(self._on_pool_deleted, key), now)

    def _on_pool_deleted(self, key: Key, now: Now) -> None:
        self._pools.pop(key, None)
        self.core.handle(PoolDeleted(key), now.wall)
        for session in list(self._by_pod.values()):
            if (session.identity.namespace, session.identity.pool) == key:
                self._refresh(session.pod, now)

    def task_observed(self, record: TaskRecord, now: Now) -> list[Action]:
        return self._input(partial(self._on_task_observed, record), now)

    def _on_task_observed(self, record: TaskRecord, now: Now) -> None:
        self._observe(record, now)

    def _observe(self, record: TaskRecord, now: Now) -> None:
        uid = record.task.uid
        if uid in self._finals or not self._exhume(record):
            return
        entry = self._tasks.get(uid)
        if entry is None:
            self._see(record)
            if record.phase.terminal:
                self._unread.discard(uid)
                self._finals.add(uid)
                return
            entry = self._tasks[uid] = Entry(record)
        elif not self._is_newer(entry, record):
            return
        else:
            self._learn(entry, record)
        entry.aside = False
        entry.gone = entry.gone or record.deleting
        self._advance(entry, now)
        if entry.asked is None:
            self._unread.discard(uid)

    def knows(self, uid: str) -> bool:
        """Whether this Task is in the books."""
        return uid in self._tasks or self._is_over(uid)

    def task_set_aside(self, uid: str, now: Now) -> list[Action]:
        """The Task is there, in a state that cannot be read: it is looked at again once it is observed."""
        return self._input(partial(self._on_task_set_aside, uid), now)

    def _on_task_set_aside(self, uid: str, now: Now) -> None:
        if self._is_over(uid):
            return
        self._unread.add(uid)
        if (entry := self._tasks.get(uid)) is not None:
            entry.aside = True
            self._advance(entry, now)

    def task_deleted(self, uid: str, now: Now) -> list[Action]:
        return self._input(partial(self._on_task_deleted, uid), now)

    def _on_task_deleted(self, uid: str, now: Now) -> None:
        self._finals.discard(uid)
        self._unread.discard(uid)
        self._dead.pop(uid, None)
        entry = self._tasks.get(uid)
        if entry is not None:
            entry.gone = True
            self._advance(entry, now)
        else:
            self._lineage.deleted(uid)
            self._duplicates.deleted(uid)

    def pod_observed(self, pod: PodRecord, now: Now) -> list[Action]:
        return self._input(partial(self._on_pod_observed, pod), now)

    def _on_pod_observed(self, pod: PodRecord, now: Now) -> None:
        self._pods[pod.uid] = pod
        self._lost.pop(pod.uid, None)
        self._lost_unheard.discard(pod.uid)
        if pod.going or pod.ended:
            self.core.handle(PodGone(pod.uid), now.wall)
        else:
            seen = PodSeen(pod.uid, pod.namespace, pod.name, pod.pool, pod.created, pod.template, pod.trouble)
            self.core.handle(seen, now.wall)
        if pod.ended and pod.dead:
            self._agent_dead(pod.uid, "its agent's pod has ended", now)
            self._release_recovered(now)
        elif self._container_ended(pod):
            self._agent_dead(pod.uid, "its agent's container has ended", now)
        else:
            self._refresh(pod.uid, now)
        self._finish_removal(pod.uid)

    def pod_gone(self, uid: str, now: Now) -> list[Action]:
        """The pod is no more, and its agent is known to have ended."""
        return self._input(partial(self._on_pod_gone, uid), now)

    def _on_pod_gone(self, uid: str, now: Now) -> None:
        self._pods.pop(uid, None)
        self._lost.pop(uid, None)
        self._lost_unheard.discard(uid)
        self._draining.discard(uid)
        self._removing.discard(uid)
        if not self._taken_over:
            self._dead_before.add(uid)
        self._agent_dead(uid, "its agent's pod is gone", now)
        self._heard.discard(uid)
        self._last_confirmed.pop(uid, None)
        self.core.handle(PodGone(uid), now.wall)
        self._release_recovered(now)

    def pod_lost(self, uid: str, now: Now) -> list[Action]:
        """The pod is out of sight: its label was taken, it was deleted by force, or its end was not seen."""
        return self._input(partial(self._on_pod_lost, uid), now)

    def _on_pod_lost(self, uid: str, now: Now) -> None:
        pod = self._pods.pop(uid, None)
        self._removing.discard(uid)
        if pod is not None and uid not in self._heard and (self._recovering or not self._taken_over):
            self._lost_unheard.add(uid)
        if uid not in self._leases:
            self._draining.discard(uid)  # one that holds anything may come back, and drains on
        elif pod is not None:
            self._lost[uid] = pod
        self._forget_lost(uid)
        self._refresh(uid, now)
        self.core.handle(PodGone(uid), now.wall)
        self._release_recovered(now)

    def pod_absent(self, uid: str, now: Now) -> list[Action]:
        """A pod that was to be deleted does not exist: what waits for its end waits no longer than for its lease's."""
        return self._input(partial(self._on_pod_absent, uid), now)

    def _on_pod_absent(self, uid: str, now: Now) -> None:
        self._lost.pop(uid, None)

    # --- the link ---

    def connected(self, session: int, identity: AgentIdentity, hello: Hello, now: Now) -> list[Action]:
        return self._input(partial(self._on_connected, session, identity, hello), now)

    def _on_connected(self, session: int, identity: AgentIdentity, hello: Hello, now: Now) -> None:
        self._connect(session, identity, hello, now)

    def received(self, session: int, message: FromAgent, now: Now) -> list[Action]:
        return self._input(partial(self._on_received, session, message), now)

    def _on_received(self, session: int, message: FromAgent, now: Now) -> None:
        known = self._sessions.get(session)
        if known is not None:
            self._hear(known, message, now)

    def disconnected(self, session: int, now: Now) -> list[Action]:
        return self._input(partial(self._on_disconnected, session), now)

    def _on_disconnected(self, session: int, now: Now) -> None:
        known = self._sessions.pop(session, None)
        if known is not None:
            self._disconnect(known, now)

    # --- answers ---

    def write_done(self, token: int, outcome: WriteOutcome, now: Now) -> list[Action]:
        return self._input(partial(self._on_write_done, token, outcome), now)

    def _on_write_done(self, token: int, outcome: WriteOutcome, now: Now) -> None:
        uid = self._asks.pop(token, "")
        entry = self._tasks.get(uid)
        if entry is not None and entry.asked is not None:
            ask, entry.asked = entry.asked, None
            self._written(entry, ask, outcome, now)

    def read_done(self, token: int, outcome: ReadOutcome, now: Now) -> list[Action]:
        return self._input(partial(self._on_read_done, token, outcome), now)

    def _on_read_done(self, token: int, outcome: ReadOutcome, now: Now) -> None:
        if (orphan := self._orphan_reads.pop(token, None)) is not None:
            self._orphan_read(orphan, outcome, now)
            return
        entry = self._tasks.get(self._asks.pop(token, ""))
        if entry is not None and entry.asked is not None:
            ask, entry.asked = entry.asked, None
            self._read_answer(entry, ask, outcome, now)

    def _read_answer(self, entry: Entry, ask: Ask, outcome: ReadOutcome, now: Now) -> None:
        lease = entry.lease
        match outcome:
            case ReadFailed():
                self._later(entry, self._settings.retry_seconds, now)
            case Gone():
                entry.gone = entry.gone_sure = True
            case Found(record, payload, parents):
                self._learn(entry, record)
                if not record.deleting:
                    entry.gone = False
                else:
                    entry.gone = entry.gone_sure = True
                if ask is Ask.PAYLOAD and lease is not None and self._to_be_sent(entry, lease):
                    if self._still_wanted(entry.record, lease):
                        self._offer(entry, lease, payload, now, parents)
                    else:
                        self._take_back(entry, now)
        self._advance(entry, now)

    def _to_be_sent(self, entry: Entry, lease: Lease) -> bool:
        """Whether nothing has come between; what has, `_advance` deals with."""
        waits = not entry.gone and entry.outcome is None and entry.record.phase in (Phase.PENDING, Phase.ASSIGNED)
        return waits and lease.stage is Stage.UNSENT and self._stop_reason(entry, lease) is None

    def _still_wanted(self, record: TaskRecord, lease: Lease) -> bool:
        """Whether what was read still is what the lease was made for."""
        if lease.recorded:
            return (record.attempt, record.epoch) == (lease.name.attempt, lease.name.epoch)
        return record.attempt < lease.name.attempt

    def _orphan_read(self, orphan: Orphan, outcome: ReadOutcome, now: Now) -> None:
        if isinstance(outcome, ReadFailed):
            self._put_off_orphan(orphan, now)
            return
        del self._orphans[orphan.pod, orphan.name]
        if isinstance(outcome, Gone) or self._forgotten(outcome.record):
            self._tell_gone(orphan.pod, orphan.name, orphan.outcome)
            return
        self._observe(outcome.record, now)
        session = self._by_pod.get(orphan.pod)
        if session is None:
            return
        session.strangers.discard(orphan.name)
        if orphan.outcome is not None:
            self._hear(session, orphan.outcome, now)
        elif self._mine(session, orphan.name) is None:
            self._listed(session, orphan.name, now)
        if orphan.name not in session.strangers:
            self._stranger_gone(session, orphan.name, now)

    def _forgotten(self, record: TaskRecord) -> bool:
        """Whether the Task is being deleted and over here: taken in, it would be forgotten and read again for ever."""
        uid = record.task.uid
        return record.deleting and not (record.phase.terminal or uid in self._tasks or uid in self._unread)

    # --- time ---

    def tick(self, now: Now) -> list[Action]:
        if not self._may_act(now):
            self._last = now
            return []
        return self._input(self._on_tick, now)

    def _on_tick(self, now: Now) -> None:
        while (due := self._timers.due(now.boot)) is not None:
            self._fire(*due, now)

    def _fire(self, kind: str, uid: str, mark: int, now: Now) -> None:
        if kind == "recovered":
            self._end_recovery(now)
        elif kind == "reasons":
            self._write_reasons(now)
        elif kind == "orphan":
            self._read_orphan(self._orphan_pauses.pop(mark))
        elif (entry := self._tasks.get(uid)) is None:
            return
        elif kind == "advance":
            self._advance(entry, now)
        elif kind == "lease":
            self._lease_timer(entry, mark, now)
        elif kind == "limit":
            self._limit_timer(entry, mark, now)
        elif kind == "reason" and mark == entry.waits:
            self._look_at_reason(entry, now)

    def next_wake(self) -> float | None:
        """Return the boot time by which `tick` must be called, None if only an input changes anything."""
        if self._over:
            return None
        if self._late or self._last.boot >= self._sure_until:
            return self._last.boot + LAPSED_SECONDS
        wakes = [] if (due := self._timers.next()) is None else [due]
        if (wall := self.core.next_wake()) is not None:
            wakes.append(self._last.boot + max(0.0, wall - self._last.wall))
        return min(wakes, default=None)

    # --- decisions ---

    def _input(self, step: Callable[[Now], None], now: Now) -> list[Action]:
        """Deal with an input, unless it came after this leadership's sure time: then it waits, as if still under way.

        Dealt with late, it only makes leases count longer; dropped, its answer would be missed for ever.
        """
        if self._over:
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
        return not self._over and now.boot < self._sure_until

    def _decided(self, now: Now) -> list[Action]:
        """Let the core decide on what is new, and return all that is to be done."""
        self._last = now
        self._look_again(now)
        while self._recovered and self._may_act(now) and (decisions := self.core.decide(now.wall)):
            for decision in decisions:
                self._carry_out(decision, now)
            self._look_again(now)
        if self._over:
            self._out.clear()
        return self._take()

    def _take(self) -> list[Action]:
        out, self._out = self._out, []
        return out

    def _carry_out(self, decision: Decision, now: Now) -> None:
        match decision:
            case Assign():
                self._assign(decision, now)
            case Fail():
                self._end_waiting(decision, now)
            case Spill():
                self._spill(decision, now)
            case Scale(pool, replicas, reason, message):
                self._out.append(ScalePool(*pool, replicas, reason, message))
            case Drain(agent_uid=pod):
                self._draining.add(pod)
                self._send(pod, messages.Drain())
                self._check_drained(pod, now)
            case Undrain(agent_uid=pod):
                self._draining.discard(pod)
                self._send(pod, messages.Drain(undo=True))
            case DeletePod(uid, namespace, name, reason, message):
                self._delete(DeletePodAction(uid, namespace, name, reason, message, self.epoch))
            case BreakerTurned(pool=key, state=state, reason=reason, message=message):
                self._out.append(PoolNotice(*key, reason, message, state is not BreakerState.CLOSED))
            case _:
                raise AssertionError(f"not a decision of the core's own: {decision}")

    def _assign(self, decision: Assign, now: Now) -> None:
        entry = self._tasks[decision.task_uid]
        record = entry.record
        name = LeaseName(entry.uid, record.attempt + 1, self.epoch)
        lease = self._new_lease(
            entry, name, decision.agent_uid, decision.agent_name, decision.pool, self._terms(record)
        )
        lease.message = decision.message
        lease.route = status.route(decision.rule, decision.step, decision.pool, decision.strategy, decision.score)
        entry.core = "leased"
        self._set_lease(entry, lease)
        self._advance(entry, now)

    # --- numbers ---

    def live(self) -> Iterator[tuple[TaskRecord, bool]]:
        """Yield each Task that is not over, and whether an agent holds it."""
        for entry in self._tasks.values():
            yield entry.record, entry.core == "leased"

    def stats(self) -> LeaderStats:
        leases: Counter[Key] = Counter()
        for of_agent in self._leases.values():
            leases.update(entry.record.task.queue_key for entry in of_agent.values())
        counted = sum(waiting + leased for waiting, leased in self.core.queue_counts().values())
        placed = gone = dead = unknown = 0
        for entry in self._tasks.values():
            unknown += entry.lease is not None and entry.lease.stage is Stage.DOUBTED
            if entry.core:
                placed += 1
                gone += entry.gone
            elif entry.record.phase is Phase.DEAD_LETTERED and not entry.gone:
                dead += 1
        accounted = counted - gone + dead + len(self._dead) + len(self._finals)
        return LeaderStats(dict(leases), len(self._by_pod), unknown, accounted, placed - counted)
