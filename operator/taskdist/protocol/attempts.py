"""The operator's end, fourth part: what becomes of each Task, and what is written of it.

Level-triggered: every input changes what is known of a Task, then `_advance` looks at all that is known and asks for
the one next thing. Each rule of the lease protocol is a small method of its own.
"""

from taskdist.api import Delivery, Phase, Reason
from taskdist.core.cost import Spent, spent
from taskdist.core.decisions import Fail, Retry
from taskdist.core.events import AttemptFailed
from taskdist.protocol import status, still_held
from taskdist.protocol.books import LIVE, UNHEARD, Ask, Ending, Entry, Lease, Stage
from taskdist.protocol.fates import Fates
from taskdist.protocol.messages import LeaseName, Result, Verdict
from taskdist.protocol.observations import AnnotatePod, Now


class Attempts(Fates):
    """Outcomes, ends, deletions: the way of a Task to its one terminal phase."""

    # --- the one next thing ---

    def _advance(self, entry: Entry, now: Now) -> None:
        if self._over or entry.asked is not None or entry.uid not in self._tasks:
            return
        if entry.record.epoch > self.epoch:
            self._over = True  # a newer leader has written: this one is from the past
            return
        if now.boot < entry.not_until:
            return
        if entry.aside and not entry.gone:
            self._leave_aside(entry, now)
            return
        if entry.gone:
            self._advance_gone(entry, now)
        elif entry.record.phase.terminal:
            self._advance_terminal(entry, now)
        elif entry.record.phase is Phase.DEAD_LETTERED:
            self._advance_dead(entry, now)
        elif entry.outcome is not None:
            self._advance_outcome(entry, entry.outcome, now)
        elif entry.ending is not None:
            self._write_ending(entry, entry.ending, now)
        elif entry.lease is None:
            self._place(entry, now)
        else:
            self._advance_lease(entry, entry.lease, now)

    def _advance_gone(self, entry: Entry, now: Now) -> None:
        """A deleted Task is terminal; its slots stay held until its agent confirms the stop or the lease ends.

        One that a former leader assigned may run yet, as long as the API server has it.
        """
        if entry.lease is None and entry.record.phase is Phase.ASSIGNED and self._stood_at_takeover(entry):
            self._adopt_seen(entry, now)
            if entry.uid not in self._tasks:
                return
        if entry.outcome is not None:
            if not self._sure_it_is_gone(entry):
                self._read(entry, Ask.IS_GONE)
                return
            self._final(entry.outcome_pod, entry.outcome.lease, Verdict.GONE, "the Task was deleted")
            self._forget(entry, now, final=False)
        elif self._may_still_run(entry):
            self._note_held(entry)
            self._ask_to_stop(entry, Reason.CANCELLED, "the Task was deleted", now)
        else:
            if entry.ending is not None and entry.ending.reply is not None:
                self._final(entry.ending.reply_to, entry.ending.reply, Verdict.GONE, "the Task was deleted")
            self._forget(entry, now, final=False)

    def _note_held(self, entry: Entry) -> None:
        """Have the next leader know of keys that are not free though their Task is gone."""
        lease, record = entry.lease, entry.record
        pod = self._pods.get(lease.agent_uid) if lease is not None else None
        if lease is None or pod is None or entry.noted_on or not still_held.holds_keys(record):
            return
        entry.noted_on = pod.uid
        _, attempt, epoch = lease.name
        value = still_held.written(record, attempt, epoch, lease.pool, lease.lease_seconds, lease.hold_seconds)
        self._out.append(AnnotatePod(pod.uid, pod.namespace, pod.name, still_held.annotation(entry.uid), value))

    def _sure_it_is_gone(self, entry: Entry) -> bool:
        return entry.gone_sure

    def _may_still_run(self, entry: Entry) -> bool:
        return entry.lease is not None and entry.lease.stage in LIVE and entry.ending is None

    def _advance_terminal(self, entry: Entry, now: Now) -> None:
        if self._runs_yet(entry):
            self._ask_to_stop(entry, Reason.CANCELLED, "the Task has ended", now)
            return
        self._answer_ended(entry)
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
            # Planned, not written: the late result ends the Task instead. One in doubt keeps what it took: the write of
            # the result is on the same version, so that only one of them stands.
            if not self._in_doubt(entry, lease):
                self._take_back(entry, now)
            lease = None
        if entry.lease is None:
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
            taken=lease.route if lease is not None else None,
            assigned_at=lease.assigned_at if lease is not None else None,
            started_at=(lease.started_at if lease is not None else 0.0) or entry.outcome_start,
            last_progress=lease.progress if lease is not None else None,
            redrives=record.redrives,
            spent=self._spent(entry, outcome.lease, now),
        )
        self._write(entry, Ask.OUTCOME, patch, outcome.body)

    def _spent(self, entry: Entry, name: LeaseName, now: Now) -> Spent | None:
        """What the Task has cost with this attempt, which ends now; None where nothing is to be added.

        It is fixed with the attempt's end: that may be written more than once, and status may have it already.
        """
        lease, record, ending = entry.lease, entry.record, entry.ending
        if lease is not None and lease.name == name:
            if ending is not None:
                return ending.spent
            if record.phase is not Phase.ASSIGNED and record.attempt == name.attempt:
                return None  # a former leader's word of its end has come since, and counts it
            prices, agent_slots, since = lease.prices, lease.agent_slots, lease.assigned_at
        elif name.attempt <= record.attempt or (session := self._by_pod.get(entry.outcome_pod)) is None:
            return None  # it was over before, and counted
        else:
            # A former leader did not record it (Lazy): the start of its handler is all that is known.
            prices = self._pools.get((record.task.namespace, session.identity.pool))
            agent_slots, since = self._slots_of(session.pod, prices), entry.outcome_start
        if prices is None or not since:
            return None
        return spent(record.spent, prices, record.task.slots, agent_slots, now.wall - since)

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
        if lease is not None and self._granted(lease):
            return False
        if name.attempt == record.attempt:
            return record.agent_uid == pod and name.epoch <= record.epoch
        return self._unrecorded(entry, name, pod)

    def _granted(self, lease: Lease) -> bool:
        """Whether a newer attempt stands in status or was sent. One that is only meant gives way to a late result."""
        return lease.recorded or lease.stage not in UNHEARD

    def _unrecorded(self, entry: Entry, name: LeaseName, pod: str) -> bool:
        """Whether it may be a lease that a former leader sent without recording it (Lazy)."""
        record, session = entry.record, self._by_pod.get(pod)
        queue = self._queue(record)
        return (
            self._lazy(queue, record)
            and record.phase is Phase.PENDING
            and name.attempt == record.attempt + 1
            and record.epoch <= name.epoch < self.epoch
            and session is not None
            and session.identity.namespace == record.task.namespace
            and (
                session.identity.pool in queue.all_pools
                or session.identity.pool == record.task.pool
                or session.identity.pod_name == record.task.agent
            )
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
        died: str = "",
        put_off: float = 0.0,
    ) -> None:
        """The present attempt ended without a result: nothing of it runs any more."""
        lease = entry.lease
        if lease is None or entry.ending is not None:
            return
        unwritten = lease.stage in UNHEARD and not lease.recorded
        if unwritten and lease.stage not in (Stage.WRITING, Stage.DOUBTED):
            self._take_back(entry, now)
            if delay:
                self._later(entry, delay, now)
            self._advance(entry, now)
            return
        started = self._may_have_run(lease)
        lease.stage = Stage.OVER
        record = entry.record
        if entry.gone or record.phase not in (Phase.PENDING, Phase.ASSIGNED):
            self._advance(entry, now)
            return
        cost = self._spent(entry, lease.name, now)
        note = status.attempt_record(lease.name.attempt, reason, message, lease.agent_name, now.wall, lease.started_at)
        if record.cancel:
            entry.ending = Ending(Phase.CANCELLED, Reason.CANCELLED, "cancelled while it was assigned", attempt=note)
        else:
            entry.ending = self._verdict(
                entry,
                AttemptFailed(
                    entry.uid,
                    reason,
                    message,
                    retryable,
                    counted,
                    started,
                    died,
                    lease.delivery is Delivery.AT_MOST_ONCE,
                    put_off,
                ),
                now,
            )
            entry.ending.attempt = note
            counted = counted and not entry.ending.put_off
            if counted or entry.ending.phase is not Phase.PENDING:
                text = f"attempt {lease.name.attempt} on {lease.agent_name} failed: {message}"
                self._notice(entry, reason, text, lease.name)
            if delay and entry.ending.phase is Phase.PENDING:
                entry.ending.not_before = max(entry.ending.not_before or 0.0, now.wall + delay)
        entry.ending.reply, entry.ending.reply_to = reply, lease.agent_uid
        entry.ending.spent = cost
        self._advance(entry, now)

    def _verdict(self, entry: Entry, failed: AttemptFailed, now: Now) -> Ending:
        decided = self.core.handle(failed, now.wall)
        for decision in decided:
            if isinstance(decision, Retry):
                not_before = decision.not_before if decision.not_before > now.wall else None
                ending = Ending(Phase.PENDING, decision.reason, decision.message, decision.failures, not_before)
                ending.deaths, ending.put_off = decision.deaths, decision.put_off
                return ending
            if isinstance(decision, Fail):
                ending = Ending(decision.phase, decision.reason, decision.message, decision.failures)
                ending.deaths = decision.deaths
                return ending
        raise AssertionError(f"the core gave no answer to a failed attempt of {entry.uid}")

    def _write_ending(self, entry: Entry, ending: Ending, now: Now) -> None:
        lease, record = entry.lease, entry.record
        if not self._still_decided(entry, ending):
            self._void(entry)
            self._advance(entry, now)
            return
        if ending.on is not None and self._may_be_sent(entry):
            return  # looked at again once that is known
        if record.cancel and ending.phase in (Phase.PENDING, Phase.DEAD_LETTERED):
            ending.phase, ending.reason, ending.message = Phase.CANCELLED, Reason.CANCELLED, "cancelled"
        if ending.spill_to and ending.phase is Phase.PENDING:
            self._write_spill(entry, ending)
            return
        attempt = max(record.attempt, lease.name.attempt if lease is not None else 0)
        # A former leader's word of the same end may have come since, and have counted more of it.
        same = lease is not None and record.attempt == lease.name.attempt and record.phase is not Phase.ASSIGNED
        counted = same and record.epoch < self.epoch
        costs = None if counted else ending.spent
        attempts, dropped = status.with_attempt(record.attempts, ending.attempt, record.dropped_attempts)
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
                dropped=dropped,
                deaths=ending.deaths,
                spent=costs,
                put_off=ending.put_off,
            )
        else:
            dead = ending.phase is Phase.DEAD_LETTERED
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
                taken=lease.route if lease is not None else None,
                assigned_at=lease.assigned_at if lease is not None else None,
                started_at=lease.started_at if lease is not None else None,
                last_progress=lease.progress if lease is not None else None,
                dropped=dropped,
                deaths=ending.deaths,
                # As a dead letter it waits for what is asked of it from now on.
                redrives=max(record.redrive, record.redrives) if dead else record.redrives,
                spent=costs,
            )
        self._write(entry, Ask.ENDING, patch)
