"""The operator's end, first half: what becomes of each Task and its attempts, and what is written of it.

Level-triggered: every input changes what is known of a Task, then `_advance` looks at all that is known and asks for
the one next thing. At most one write or read of a Task is under way, so an answer is never confused with another.
Each rule of the lease protocol is a small method of its own.
"""

from taskdist.api import Delivery, Dispatch, Phase, Reason, Reclaim
from taskdist.api.task import MAX_PAYLOAD_BYTES
from taskdist.core import Core
from taskdist.core.decisions import Fail, Retry
from taskdist.core.events import AgentDrained, AttemptFailed, TaskGone, TaskHeld, TaskLeased, TaskWaiting
from taskdist.core.model import Agent, Key, Pool, Queue
from taskdist.protocol import status
from taskdist.protocol.books import LIVE, UNHEARD, Ask, Ending, Entry, Lease, Orphan, Session, Stage, Timers
from taskdist.protocol.messages import Cancel, Final, Grant, Hello, LeaseName, Result, ToAgent, Verdict
from taskdist.protocol.observations import (
    Action,
    Conflict,
    DeletePod,
    Gone,
    Notice,
    NotSent,
    Now,
    PodRecord,
    ReadTask,
    Refused,
    Send,
    TaskRecord,
    Unknown,
    WriteOutcome,
    WriteStatus,
    Written,
)
from taskdist.protocol.settings import LeaderSettings


class Attempts:
    """State of a leadership, and the life of its Tasks."""

    def __init__(self, core: Core, epoch: int, settings: LeaderSettings | None = None) -> None:
        self.core = core
        self.epoch = epoch
        self._settings = settings or LeaderSettings()
        self._over = False
        self._takeover = 0.0
        self._out: list[Action] = []
        self._token = 0
        self._asks: dict[int, str] = {}
        self._queues: dict[Key, Queue] = {}
        self._pools: dict[Key, Pool] = {}
        self._pods: dict[str, PodRecord] = {}
        self._tasks: dict[str, Entry] = {}
        self._finals: set[str] = set()
        self._leases: dict[str, dict[str, Entry]] = {}  # by pod uid, by Task uid
        self._sessions: dict[int, Session] = {}
        self._by_pod: dict[str, Session] = {}
        self._draining: set[str] = set()
        self._orphans: dict[str, Orphan] = {}
        self._recovered = False  # nothing is decided before all that stands is known
        self._deferred: list[DeletePod] = []
        self._recovering: set[str] = set()  # Tasks that a former leader may have sent without recording it
        self._timers = Timers()
        self._last_hello: dict[str, Hello] = {}  # of each pod's last confirmed session
        self._heard: set[str] = set()  # pods whose agent was confirmed by this leadership
        self._told: dict[str, Agent] = {}  # agents that the core has for ready
        self._sure_until = float("inf")
        self._reason_slot = self._reason_timer = 0.0  # when the next reason may be written, and the last wake for it
        self._reason_line: dict[str, int] = {}  # Tasks whose reason is to be written, the first come first
        self._last = Now(0.0, 0.0)

    # --- small things ---

    def _send(self, pod: str, message: ToAgent) -> bool:
        session = self._by_pod.get(pod)
        if session is None:
            return False
        self._out.append(Send(session.id, message))
        return True

    def _final(self, pod: str, name: LeaseName, verdict: Verdict, message: str = "") -> None:
        """The final reply. Without a session none is given: the agent says it again when it is back."""
        self._send(pod, Final(name, verdict, message))

    def _queue(self, record: TaskRecord) -> Queue:
        """The Task's queue, or default rules: Tasks outlive their queue."""
        key = record.task.queue_key
        return self._queues.get(key) or Queue(*key)

    def _lazy(self, queue: Queue) -> bool:
        return queue.dispatch is Dispatch.LAZY and queue.delivery is not Delivery.AT_MOST_ONCE

    def _notice(self, entry: Entry, reason: Reason, message: str, lease: LeaseName | None = None) -> None:
        task = entry.record.task
        self._out.append(Notice(task.uid, task.namespace, task.name, reason, message, lease=lease))

    def _later(self, entry: Entry, seconds: float, now: Now) -> None:
        entry.not_until = now.boot + seconds
        self._timers.add(entry.not_until, "advance", entry.uid)

    def _write(self, entry: Entry, ask: Ask, patch: status.Status, body: bytes | None = None) -> None:
        self._token += 1
        self._asks[self._token] = entry.uid
        entry.asked = ask
        task, version = entry.record.task, entry.record.resource_version
        self._out.append(WriteStatus(self._token, task.uid, task.namespace, task.name, version, patch, body))

    def _read(self, entry: Entry, ask: Ask) -> None:
        self._token += 1
        self._asks[self._token] = entry.uid
        entry.asked = ask
        task = entry.record.task
        self._out.append(ReadTask(self._token, task.uid, task.namespace, task.name))

    def _learn(self, entry: Entry, record: TaskRecord) -> None:
        """Older views of the same Task are ignored."""
        if self._is_newer(entry, record):
            entry.record = record

    def _is_newer(self, entry: Entry, record: TaskRecord) -> bool:
        return record.resource_version > entry.record.resource_version

    # --- the core's view ---

    def _core_waiting(self, entry: Entry, now: Now) -> None:
        task = entry.record.task
        if entry.core == "waiting" and entry.told == task:
            return
        if entry.core != "waiting":
            entry.waits += 1
            entry.noted = None
            self._timers.add(now.boot + 1.0, "reason", entry.uid, entry.waits)
        entry.core, entry.told = "waiting", task
        self.core.handle(TaskWaiting(task), now.wall)

    def _core_held(self, entry: Entry, reason: Reason, now: Now) -> None:
        task = entry.record.task
        if entry.core != "held" or entry.told != task:
            entry.core, entry.told = "held", task
            self.core.handle(TaskHeld(task, reason), now.wall)

    def _core_leased(self, entry: Entry, agent_uid: str, now: Now) -> None:
        entry.core = "leased"
        self.core.handle(TaskLeased(entry.record.task, agent_uid), now.wall)

    def _set_lease(self, entry: Entry, lease: Lease) -> None:
        entry.lease = lease
        self._leases.setdefault(lease.agent_uid, {})[entry.uid] = entry

    def _drop_lease(self, entry: Entry) -> None:
        """Forget the lease; the caller tells the core what the Task is instead, then `_check_drained`."""
        lease = entry.lease
        if lease is None:
            return
        entry.lease = None
        of_agent = self._leases.get(lease.agent_uid, {})
        of_agent.pop(entry.uid, None)
        if not of_agent:
            self._leases.pop(lease.agent_uid, None)

    def _check_drained(self, pod: str, now: Now) -> None:
        """Drain, then no lease held, then delete."""
        if pod in self._draining and self._holds_nothing(pod):
            self._draining.discard(pod)
            self.core.handle(AgentDrained(pod), now.wall)

    def _holds_nothing(self, pod: str) -> bool:
        return pod not in self._leases

    def _forget(self, entry: Entry, now: Now, *, final: bool) -> None:
        """The Task is terminal or deleted, and nothing of it runs."""
        pod = entry.lease.agent_uid if entry.lease else ""
        self._drop_lease(entry)
        del self._tasks[entry.uid]
        self._recovering.discard(entry.uid)
        if final:
            self._finals.add(entry.uid)
        if entry.core:
            self.core.handle(TaskGone(entry.uid), now.wall)
        if pod:
            self._check_drained(pod, now)

    # --- the one next thing ---

    def _advance(self, entry: Entry, now: Now) -> None:
        if self._over or entry.asked is not None or entry.uid not in self._tasks:
            return
        if entry.record.epoch > self.epoch:
            self._over = True  # a newer leader has written: this one is from the past
            return
        if now.boot < entry.not_until:
            return
        if entry.gone:
            self._advance_gone(entry, now)
        elif entry.record.phase.terminal:
            self._advance_terminal(entry, now)
        elif entry.reread:
            self._read(entry, Ask.REREAD)
        elif entry.outcome is not None:
            self._advance_outcome(entry, entry.outcome, now)
        elif entry.ending is not None:
            self._write_ending(entry, entry.ending, now)
        elif entry.lease is None:
            self._place(entry, now)
        else:
            self._advance_lease(entry, entry.lease, now)

    def _advance_gone(self, entry: Entry, now: Now) -> None:
        """A deleted Task is terminal; its slots stay held until its agent confirms the stop or the lease ends."""
        if entry.outcome is not None:
            if not self._sure_it_is_gone(entry):
                self._read(entry, Ask.IS_GONE)
                return
            self._final(entry.outcome_pod, entry.outcome.lease, Verdict.GONE, "the Task was deleted")
            self._forget(entry, now, final=False)
        elif self._may_still_run(entry):
            self._ask_to_stop(entry, Reason.CANCELLED, "the Task was deleted", now)
        else:
            if entry.ending is not None and entry.ending.reply is not None and entry.lease is not None:
                self._final(entry.lease.agent_uid, entry.ending.reply, Verdict.GONE, "the Task was deleted")
            self._forget(entry, now, final=False)

    def _sure_it_is_gone(self, entry: Entry) -> bool:
        return entry.gone_sure

    def _may_still_run(self, entry: Entry) -> bool:
        return entry.lease is not None and entry.lease.stage in LIVE and entry.ending is None

    def _advance_terminal(self, entry: Entry, now: Now) -> None:
        record, outcome, ending = entry.record, entry.outcome, entry.ending
        if outcome is not None:
            ours = entry.outcome_tried and record.attempt == outcome.lease.attempt and record.phase is Phase.SUCCEEDED
            self._final(entry.outcome_pod, outcome.lease, Verdict.ACCEPTED if ours else Verdict.ALREADY_FINAL)
        elif ending is not None:
            if ending.reply is not None and entry.lease is not None:
                verdict = Verdict.ACCEPTED if record.phase is ending.phase else Verdict.ALREADY_FINAL
                self._final(entry.lease.agent_uid, ending.reply, verdict, ending.message)
        elif self._may_still_run(entry):
            self._ask_to_stop(entry, Reason.CANCELLED, "the Task has ended", now)
            return
        self._forget(entry, now, final=True)

    # --- outcomes ---

    def _advance_outcome(self, entry: Entry, outcome: Result, now: Now) -> None:
        if not self._acceptable(entry, outcome.lease, entry.outcome_pod):
            self._final(entry.outcome_pod, outcome.lease, Verdict.STALE, "a newer attempt was granted")
            entry.outcome = None
            self._advance(entry, now)
            return
        lease = entry.lease
        mine = lease is not None and lease.name == outcome.lease
        if lease is not None and not mine:
            self._take_back(entry, now)  # planned, not written: the late result ends the Task instead
            lease = None
        if lease is None:
            self._core_held(entry, Reason.RECOVERING, now)
        entry.outcome_tried = True
        record = entry.record
        agent = (lease.agent_name, lease.agent_uid, lease.pool) if lease is not None else self._agent_of(entry)
        patch = status.ended(
            Phase.SUCCEEDED,
            outcome.lease.attempt,
            self.epoch,
            reason=Reason.COMPLETED,
            message="",
            wall=now.wall,
            failures=record.failures,
            agent=agent,
            assigned_at=lease.assigned_at if lease is not None else None,
            started_at=lease.started_at if lease is not None else None,
            last_progress=lease.progress if lease is not None else None,
        )
        self._write(entry, Ask.OUTCOME, patch, outcome.body)

    def _agent_of(self, entry: Entry) -> tuple[str, str, str] | None:
        session = self._by_pod.get(entry.outcome_pod)
        if session is None:
            return None
        return session.identity.pod_name, session.identity.pod_uid, session.identity.pool

    def _acceptable(self, entry: Entry, name: LeaseName, pod: str) -> bool:
        """A result is accepted while no newer attempt was granted, and only from the agent that the lease names."""
        lease, record = entry.lease, entry.record
        if lease is not None and lease.name == name:
            return lease.agent_uid == pod
        if lease is not None and lease.stage is not Stage.PLANNED:
            return False
        if name.attempt == record.attempt:
            return record.agent_uid == pod and name.epoch <= record.epoch
        return self._unrecorded(entry, name, pod)

    def _unrecorded(self, entry: Entry, name: LeaseName, pod: str) -> bool:
        """Whether it may be a lease that a former leader sent without recording it (Lazy)."""
        record, session = entry.record, self._by_pod.get(pod)
        queue = self._queue(record)
        return (
            self._lazy(queue)
            and record.phase is Phase.PENDING
            and name.attempt == record.attempt + 1
            and record.epoch <= name.epoch < self.epoch
            and session is not None
            and session.identity.namespace == record.task.namespace
            and (session.identity.pool in queue.pools or session.identity.pool == record.task.pool)
        )

    # --- ends ---

    def _attempt_over(
        self,
        entry: Entry,
        reason: Reason,
        message: str,
        now: Now,
        *,
        retryable: bool = True,
        counted: bool = True,
        reply: LeaseName | None = None,
        delay: float = 0.0,
    ) -> None:
        """The present attempt ended without a result: nothing of it runs any more."""
        lease = entry.lease
        if lease is None or entry.ending is not None:
            return
        unwritten = lease.stage in UNHEARD and not lease.recorded
        if unwritten and lease.stage is not Stage.WRITING:
            self._take_back(entry, now)
            self._advance(entry, now)
            return
        started = self._may_have_run(lease)
        lease.stage = Stage.OVER
        record = entry.record
        if entry.gone or record.phase.terminal:
            self._advance(entry, now)
            return
        note = status.attempt_record(lease.name.attempt, reason, message, lease.agent_name, now.wall)
        if record.cancel:
            entry.ending = Ending(
                Phase.CANCELLED, Reason.CANCELLED, "cancelled while it was assigned", attempt=note, reply=reply
            )
        else:
            entry.ending = self._verdict(
                entry, AttemptFailed(entry.uid, reason, message, retryable, counted, started), now
            )
            entry.ending.attempt, entry.ending.reply = note, reply
            if delay and entry.ending.phase is Phase.PENDING:
                entry.ending.not_before = max(entry.ending.not_before or 0.0, now.wall + delay)
        self._advance(entry, now)

    def _may_have_run(self, lease: Lease) -> bool:
        """Under at-most-once, whatever may have run is never tried again."""
        return lease.stage not in UNHEARD

    def _verdict(self, entry: Entry, failed: AttemptFailed, now: Now) -> Ending:
        decided = self.core.handle(failed, now.wall)
        for decision in decided:
            if isinstance(decision, Retry):
                not_before = decision.not_before if decision.not_before > now.wall else None
                return Ending(Phase.PENDING, decision.reason, decision.message, decision.failures, not_before)
            if isinstance(decision, Fail):
                return Ending(Phase.FAILED, decision.reason, decision.message, decision.failures)
        raise AssertionError(f"the core gave no answer to a failed attempt of {entry.uid}")

    def _write_ending(self, entry: Entry, ending: Ending, now: Now) -> None:
        lease, record = entry.lease, entry.record
        if record.cancel and ending.phase is Phase.PENDING:
            ending.phase, ending.reason, ending.message = Phase.CANCELLED, Reason.CANCELLED, "cancelled"
        attempt = max(record.attempt, lease.name.attempt if lease is not None else 0)
        attempts = status.with_attempt(record.attempts, ending.attempt)
        if ending.phase is Phase.PENDING:
            patch = status.waiting(
                attempt,
                self.epoch,
                reason=ending.reason,
                message=ending.message,
                failures=record.failures if ending.failures is None else ending.failures,
                not_before=ending.not_before,
                attempts=attempts,
                agent_uid=lease.agent_uid if lease is not None else record.agent_uid,
            )
        else:
            patch = status.ended(
                ending.phase,
                attempt,
                self.epoch,
                reason=ending.reason,
                message=ending.message,
                wall=now.wall,
                failures=ending.failures,
                attempts=attempts,
                agent=(lease.agent_name, lease.agent_uid, lease.pool) if lease is not None else None,
                assigned_at=lease.assigned_at if lease is not None else None,
                started_at=lease.started_at if lease is not None else None,
                last_progress=lease.progress if lease is not None else None,
            )
        self._write(entry, Ask.ENDING, patch)

    # --- without a lease ---

    def _place(self, entry: Entry, now: Now) -> None:
        """Nothing holds the Task: it waits, ends, or status shows an assignment that is not in the books."""
        record = entry.record
        if record.phase is Phase.ASSIGNED:
            self._adopt_seen(entry, now)
        elif record.cancel:
            self._core_held(entry, Reason.CANCELLED, now)
            entry.ending = Ending(Phase.CANCELLED, Reason.CANCELLED, "cancelled while it waited")
            self._advance(entry, now)
        elif record.payload_bytes > MAX_PAYLOAD_BYTES:
            self._core_held(entry, Reason.PAYLOAD_TOO_LARGE, now)
            entry.ending = Ending(
                Phase.FAILED,
                Reason.PAYLOAD_TOO_LARGE,
                f"spec.payload is {record.payload_bytes} bytes of JSON, at most {MAX_PAYLOAD_BYTES} are sent: "
                "store the data elsewhere and pass a reference",
            )
            self._advance(entry, now)
        elif entry.uid in self._recovering:
            self._core_held(entry, Reason.RECOVERING, now)
        else:
            self._core_waiting(entry, now)

    def _adopt_seen(self, entry: Entry, now: Now) -> None:
        """An assignment seen in status that the core does not hold is sent under its own name or reclaimed."""
        record = entry.record
        name = LeaseName(entry.uid, record.attempt, record.epoch)
        queue = self._queue(record)
        lease = self._new_lease(entry, name, record.agent_uid, record.agent_name, record.pool, queue)
        lease.recorded, lease.assigned_at = True, record.assigned_at
        self._recovering.discard(entry.uid)
        self._set_lease(entry, lease)
        self._core_leased(entry, lease.agent_uid, now)
        if name.epoch == self.epoch:
            lease.stage = Stage.UNSENT  # an own write that landed late: what is not known to stand is never sent
            lease.until = now.boot + lease.lease_seconds
            self._time_lease(entry, lease)
            if self._fits(lease):
                self._advance(entry, now)
            else:
                self._attempt_over(entry, Reason.GIVEN_BACK, "its agent has other work by now", now, counted=False)
            return
        lease.stage = Stage.FOREIGN
        lease.until = self._foreign_until(lease)
        session = self._by_pod.get(lease.agent_uid)
        if self._confirmed_dead(lease.agent_uid):
            self._attempt_over(entry, Reason.AGENT_LOST, "its agent was gone when a new leader took over", now)
        elif session is not None:
            self._settle(entry, lease, session, now)
        else:
            self._time_lease(entry, lease)

    def _fits(self, lease: Lease) -> bool:
        """Whether the agent has room for what the core had taken back."""
        session = self._by_pod.get(lease.agent_uid)
        taken = sum(entry.record.task.slots for entry in self._leases[lease.agent_uid].values())
        return session is not None and taken <= session.slots

    def _foreign_until(self, lease: Lease) -> float:
        """A former leader's lease goes on, on hold, for at most hold seconds after the takeover."""
        if lease.reclaim is Reclaim.FAST:
            return self._takeover + self._settings.fast_takeover_seconds
        return self._takeover + self._settings.beyond(max(lease.hold_seconds, lease.lease_seconds))

    def _confirmed_dead(self, pod: str) -> bool:
        """The lists at takeover hold every pod that may live."""
        record = self._pods.get(pod)
        return pod not in self._by_pod and (record is None or record.ended)

    def _new_lease(self, entry: Entry, name: LeaseName, agent: str, agent_name: str, pool: str, queue: Queue) -> Lease:
        return Lease(
            name,
            agent,
            agent_name,
            pool,
            entry.record.task.queue_key,
            queue.lease_seconds,
            queue.hold_seconds,
            queue.reclaim,
            queue.delivery,
            self._lazy(queue),
        )

    # --- with a lease ---

    def _advance_lease(self, entry: Entry, lease: Lease, now: Now) -> None:
        record = entry.record
        if lease.stage is Stage.PLANNED and record.phase is Phase.ASSIGNED:
            self._take_back(entry, now)
            self._advance(entry, now)
            return
        stop = self._stop_reason(entry, lease)
        if stop is not None:
            if lease.stage in UNHEARD:
                self._attempt_over(entry, stop, "stopped before it was sent", now, counted=False)
            else:
                self._ask_to_stop(entry, stop, "the Task was cancelled" if record.cancel else "suspended", now)
        elif lease.stage is Stage.PLANNED:
            self._begin(entry, lease, now)
        elif lease.stage is Stage.UNSENT:
            self._offer(entry, lease, None, now)
        elif lease.stage is Stage.SENT:
            self._keep_record(entry, lease, now)

    def _stop_reason(self, entry: Entry, lease: Lease) -> Reason | None:
        if entry.record.cancel:
            return Reason.CANCELLED
        if entry.record.task.suspended and not (lease.delivery is Delivery.AT_MOST_ONCE and self._may_have_run(lease)):
            return Reason.SUSPENDED
        return None

    def _begin(self, entry: Entry, lease: Lease, now: Now) -> None:
        """Strict: written before it is sent. Lazy: sent, and recorded if it still runs a little later."""
        if lease.agent_uid not in self._by_pod or entry.record.attempt >= lease.name.attempt:
            self._take_back(entry, now)
            self._advance(entry, now)
            return
        lease.assigned_at = now.wall
        if lease.lazy:
            lease.stage = Stage.UNSENT
            lease.until = now.boot + lease.lease_seconds
            self._time_lease(entry, lease)
            self._read(entry, Ask.PAYLOAD)
            return
        lease.stage = Stage.WRITING
        self._write(entry, Ask.ASSIGN, self._assignment(lease))

    def _assignment(self, lease: Lease) -> status.Status:
        return status.assigned(
            lease.name.attempt,
            lease.name.epoch,
            agent=lease.agent_name,
            agent_uid=lease.agent_uid,
            pool=lease.pool,
            message=lease.message,
            wall=lease.assigned_at,
        )

    def _offer(self, entry: Entry, lease: Lease, payload: bytes | None, now: Now) -> None:
        """Send the grant if the agent is there; else it waits for the agent as long as its lease would have run."""
        session = self._by_pod.get(lease.agent_uid)
        if session is None:
            if self._confirmed_dead(lease.agent_uid):
                self._attempt_over(
                    entry, Reason.GIVEN_BACK, "its agent was gone before it was sent", now, counted=False
                )
            return
        if payload is None:
            self._read(entry, Ask.PAYLOAD)
            return
        task = entry.record.task
        lease.stage = Stage.SENT
        lease.until = self._bound(lease, session.ping_receipt)
        lease.progress_at = now.boot + self._settings.progress_seconds
        self._time_lease(entry, lease)
        if lease.lazy and not lease.recorded:
            lease.record_at = now.boot + self._settings.lazy_record_seconds
            self._timers.add(lease.record_at, "advance", entry.uid)
        grant = Grant(
            lease=lease.name,
            namespace=task.namespace,
            name=task.name,
            type=task.type,
            slots=task.slots,
            ping_boot=session.ping_boot,
            lease_seconds=lease.lease_seconds,
            hold_seconds=lease.hold_seconds,
            resources=task.resources,
            payload=payload,
        )
        self._out.append(Send(session.id, grant))

    def _bound(self, lease: Lease, receipt: float) -> float:
        """The operator counts from its receipt of the ping, which is never before the agent's sending, and a margin."""
        return receipt + self._settings.beyond(lease.lease_seconds)

    def _keep_record(self, entry: Entry, lease: Lease, now: Now) -> None:
        """Record what a Lazy queue sent and still runs, and progress now and then."""
        if lease.lazy and not lease.recorded:
            if now.boot >= lease.record_at:
                self._write(entry, Ask.RECORD, self._assignment(lease))
        elif lease.progress_due and lease.progress is not None and now.boot >= lease.progress_at:
            lease.progress_due = False
            lease.progress_at = now.boot + self._settings.progress_seconds
            self._write(entry, Ask.NOTE, status.progressed(lease.progress))

    def _ask_to_stop(self, entry: Entry, reason: Reason, message: str, now: Now) -> None:
        """Once asked, the lease is not renewed any more: so the end comes in any case."""
        lease = entry.lease
        if lease is None or lease.cancelling is not None or lease.stage is not Stage.SENT:
            return
        lease.cancelling = reason
        self._send(lease.agent_uid, Cancel(lease.name, reason, message))

    def _take_back(self, entry: Entry, now: Now) -> None:
        """The assumption does not stand, and nothing of it was sent. What the Task is instead is for `_advance`."""
        lease = entry.lease
        if lease is None:
            return
        self._drop_lease(entry)
        if not entry.gone:
            self._core_held(entry, Reason.RECOVERING, now)
        self._check_drained(lease.agent_uid, now)

    # --- time of leases ---

    def _time_lease(self, entry: Entry, lease: Lease) -> None:
        if not lease.timed:
            lease.timed = True
            self._timers.add(lease.until, "lease", entry.uid, lease.name.attempt)

    def _lease_timer(self, entry: Entry, attempt: int, now: Now) -> None:
        lease = entry.lease
        if lease is None or lease.name.attempt != attempt or not lease.timed:
            return
        lease.timed = False
        if lease.stage is Stage.OVER or lease.stage in (Stage.PLANNED, Stage.WRITING):
            return
        if now.boot < lease.until:
            self._time_lease(entry, lease)
        elif lease.stage is Stage.UNSENT:
            self._attempt_over(entry, Reason.GIVEN_BACK, "its agent did not come back to take it", now, counted=False)
        else:
            self._lease_ended(entry, lease, now)

    def _lease_ended(self, entry: Entry, lease: Lease, now: Now) -> None:
        if lease.reclaim is Reclaim.CONFIRMED and self._waits_for_death(lease):
            pod = self._pods.get(lease.agent_uid)
            if pod is not None:
                message = "its agent is silent, and its queue waits for confirmed death: the pod is deleted"
                self._out.append(DeletePod(pod.uid, pod.namespace, pod.name, Reason.AGENT_LOST, message))
                self._notice(entry, Reason.AGENT_LOST, message, lease.name)
            lease.until = now.boot + self._settings.delete_again_seconds
            self._time_lease(entry, lease)
            return
        stopped = lease.cancelling
        if stopped is not None:
            self._attempt_over(entry, stopped, "its lease ended after it was asked to stop", now, counted=False)
            return
        message = f"no word from its agent for the {lease.lease_seconds:g} s of its lease"
        self._attempt_over(entry, Reason.LEASE_EXPIRED, message, now)

    def _waits_for_death(self, lease: Lease) -> bool:
        return lease.agent_uid in self._pods

    # --- answers to writes ---

    def _written(self, entry: Entry, ask: Ask, outcome: WriteOutcome, now: Now) -> None:
        """Take in what became of a write."""
        match outcome:
            case Written(record) | Conflict(record):
                self._learn(entry, record)
            case Unknown(record) if record is not None:
                self._learn(entry, record)
            case Gone():
                entry.gone = entry.gone_sure = True
            case _:
                pass
        match ask:
            case Ask.ASSIGN:
                self._assign_written(entry, outcome, now)
            case Ask.RECORD:
                self._record_written(entry, outcome, now)
            case Ask.OUTCOME:
                self._outcome_written(entry, outcome, now)
            case Ask.ENDING:
                self._ending_written(entry, outcome, now)
            case _ if isinstance(outcome, Unknown | NotSent | Refused):
                self._later(entry, self._settings.retry_seconds, now)
            case _:
                pass
        self._advance(entry, now)

    def _assign_written(self, entry: Entry, outcome: WriteOutcome, now: Now) -> None:
        lease = entry.lease
        if lease is None or lease.stage is not Stage.WRITING:
            return
        match outcome:
            case Written(_, payload):
                lease.recorded, lease.stage = True, Stage.UNSENT
                lease.until = now.boot + lease.lease_seconds
                self._time_lease(entry, lease)
                if self._stop_reason(entry, lease) is None and not entry.gone and entry.outcome is None:
                    self._offer(entry, lease, payload, now)
            case Conflict() | Gone():
                self._assign_conflict(entry, now)
            case Refused(message):
                self._take_back(entry, now)
                self._notice(entry, Reason.CREATE_REFUSED, f"the API server refuses the assignment: {message}")
                self._later(entry, self._settings.refused_seconds, now)
            case Unknown():
                self._assign_unknown(entry, now)
            case NotSent():
                lease.stage = Stage.PLANNED
                self._later(entry, self._settings.retry_seconds, now)

    def _assign_conflict(self, entry: Entry, now: Now) -> None:
        """A conflict takes the assumption back."""
        self._take_back(entry, now)

    def _assign_unknown(self, entry: Entry, now: Now) -> None:
        """It may land late. Nothing is sent; the Task is read again, and whatever shows then or later is adopted.

        A second write on the same version cannot stand beside the first: one of them conflicts.
        """
        self._take_back(entry, now)
        entry.reread = True
        self._later(entry, self._settings.retry_seconds, now)

    def _record_written(self, entry: Entry, outcome: WriteOutcome, now: Now) -> None:
        lease = entry.lease
        if lease is None:
            return
        match outcome:
            case Written():
                lease.recorded = True
            case Refused(message):
                self._notice(entry, Reason.CREATE_REFUSED, f"the API server refuses the record: {message}", lease.name)
                lease.record_at = now.boot + self._settings.refused_seconds
                self._timers.add(lease.record_at, "advance", entry.uid)
            case Unknown() | NotSent():
                lease.record_at = now.boot + self._settings.retry_seconds
                self._timers.add(lease.record_at, "advance", entry.uid)
            case _:
                if (entry.record.attempt, entry.record.epoch) == lease.name[1:]:
                    lease.recorded = True

    def _outcome_written(self, entry: Entry, outcome: WriteOutcome, now: Now) -> None:
        result = entry.outcome
        if result is None:
            return
        match outcome:
            case Refused(message, too_large):
                self._result_refused(entry, result, message, too_large, now)
            case Unknown() | NotSent():
                self._later(entry, self._settings.retry_seconds, now)
            case _:
                pass

    def _result_refused(self, entry: Entry, result: Result, message: str, too_large: bool, now: Now) -> None:
        """Refused for good: the Task ends as failed with that reason, without the body."""
        entry.outcome = None
        reason = Reason.RESULT_TOO_LARGE if too_large else Reason.RESULT_REFUSED
        entry.ending = Ending(Phase.FAILED, reason, f"the API server refuses the result: {message}", reply=result.lease)
        if entry.lease is None:
            entry.ending.reply = None
            self._final(entry.outcome_pod, result.lease, Verdict.ACCEPTED, entry.ending.message)
        else:
            entry.lease.stage = Stage.OVER
        self._notice(entry, reason, entry.ending.message, result.lease)

    def _ending_written(self, entry: Entry, outcome: WriteOutcome, now: Now) -> None:
        ending, lease = entry.ending, entry.lease
        if ending is None:
            return
        match outcome:
            case Written(record) if not record.phase.terminal:
                entry.ending = None
                self._drop_lease(entry)
                if lease is not None:
                    if ending.reply is not None:
                        self._final(lease.agent_uid, ending.reply, Verdict.ACCEPTED)
                    if not entry.gone and entry.outcome is None:
                        self._place(entry, now)
                    self._check_drained(lease.agent_uid, now)
            case Refused(message):
                self._notice(entry, ending.reason, f"the API server refuses the end of the attempt: {message}")
                self._later(entry, self._settings.refused_seconds, now)
            case Unknown() | NotSent():
                self._later(entry, self._settings.retry_seconds, now)
            case _:
                pass

    # --- the other half ---

    def _settle(self, entry: Entry, lease: Lease, session: Session, now: Now, same: bool = False) -> None:
        raise AssertionError("the half that knows sessions settles leases")
