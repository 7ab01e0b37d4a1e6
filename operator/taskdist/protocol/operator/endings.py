"""Ends of attempts and Tasks without a result, and what is written of them.

The core decides whether a Task is tried again, ends, or waits in another queue; here that is written if it is still the
Task that the core saw. What follows from a write's answer is not decided here.
"""

from taskdist.api import Delivery, Phase, Reason
from taskdist.core import Core
from taskdist.core.cost import Spent, spent
from taskdist.core.decisions import Fail, Retry, Spill
from taskdist.core.events import AttemptFailed
from taskdist.core.model import Pool
from taskdist.protocol import status
from taskdist.protocol.attempt_limits import TIMED_OUT
from taskdist.protocol.messages import LeaseName, Verdict
from taskdist.protocol.observations import Now, ObservedTask
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import UNHEARD, Deletion, Ending, Lease, LeaseStage, Purpose, TaskEntry
from taskdist.protocol.operator.core_view import CoreView
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.whole import Whole
from taskdist.protocol.rules import Rules

# Ways in which an attempt ends that may be due to what it worked on, and do not tell which item that was.
_OF_SOME_ITEM = TIMED_OUT | {Reason.AGENT_LOST, Reason.LEASE_EXPIRED}
# A Task ends so once it has failed so often as its queue allows.
_COUNTED_OUT = frozenset({Reason.RETRIES_EXHAUSTED, Reason.POISONED})


class Endings:
    """Ends attempts and Tasks without a result: asks the core what follows, and writes it.

    Owns what an attempt's end means (whether it counts, what it cost) and whether a decision still holds when it is
    written. It does not decide on retries, and does not read the answers to its writes.
    """

    def __init__(self, core: Core, state: State, out: Actions, view: CoreView, whole: Whole, rules: Rules) -> None:
        self._core = core
        self._state = state
        self._out = out
        self._view = view
        self._whole = whole
        self._rules = rules

    # --- of an attempt ---

    def attempt_over(
        self,
        entry: TaskEntry,
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
        """The present attempt ended without a result, and nothing of it runs any more.

        Args:
            entry: its Task.
            reason: why it ended; written with the attempt.
            message: the same for people.
            now: the time of the input.
            retryable: whether another try may fare better.
            counted: whether it counts as a failure.
            reply: the lease of the failure that its agent reported, which wants a final reply.
            delay: seconds before the next try, at least.
            died: uid of the pod whose death ended it.
            put_off: seconds after which its handler asked for another try.
        """
        lease = entry.lease
        if lease is None or entry.ending is not None:
            return
        unwritten = (lease.stage in UNHEARD or not self._rules.failures_are_recorded) and not lease.recorded
        if unwritten and lease.stage not in (LeaseStage.WRITING, LeaseStage.DOUBTED):
            self._view.take_back(entry, now)
            if delay:
                self._state.put_off(entry, delay, now)
            self._whole.advance(entry, now)
            return
        started = self.may_have_run(lease)
        lease.stage = LeaseStage.OVER
        record = entry.record
        if entry.deletion is not Deletion.NONE or record.phase not in (Phase.PENDING, Phase.ASSIGNED):
            self._whole.advance(entry, now)
            return
        cost = self.spent(entry, lease.name, now)
        note = status.attempt_record(lease.name.attempt, reason, message, lease.agent_name, now.wall, lease.started_at)
        if record.cancel:
            entry.ending = Ending(Phase.CANCELLED, Reason.CANCELLED, "cancelled while it was assigned", attempt=note)
        else:
            entry.ending = self.after_failure(
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
            _halve(entry, entry.ending, reason)
            entry.ending.attempt = note
            counted = counted and not entry.ending.put_off
            if counted or entry.ending.phase is not Phase.PENDING:
                text = f"attempt {lease.name.attempt} on {lease.agent_name} failed: {message}"
                self._out.notice(entry, reason, text, lease.name)
            if delay and entry.ending.phase is Phase.PENDING:
                entry.ending.not_before = max(entry.ending.not_before or 0.0, now.wall + delay)
        entry.ending.reply, entry.ending.reply_to = reply, lease.agent_uid
        entry.ending.spent = cost
        self._whole.advance(entry, now)

    def over_as_asked(self, entry: TaskEntry, reason: Reason, message: str, now: Now) -> None:
        """The attempt stopped as it was asked to. Only one that had passed a limit of its own counts as a failure."""
        self.attempt_over(entry, reason, message, now, counted=reason in TIMED_OUT)

    def may_have_run(self, lease: Lease) -> bool:
        """Return whether user code may have run. Under at-most-once such an attempt is never tried again."""
        return lease.stage not in UNHEARD and self._rules.at_most_once_is_kept

    def after_failure(self, entry: TaskEntry, failed: AttemptFailed, now: Now) -> Ending:
        """Ask the core what follows a failed attempt: another try, or the Task's end."""
        decided = self._core.handle(failed, now.wall)
        for decision in decided:
            if isinstance(decision, Retry):
                not_before = decision.not_before if decision.not_before > now.wall else None
                ending = Ending(Phase.PENDING, decision.reason, decision.message, decision.failures, not_before)
                ending.deaths, ending.put_off = decision.deaths, decision.put_off
                return ending
            if isinstance(decision, Fail):
                ending = Ending(decision.phase, decision.reason, decision.message, decision.failures)
                ending.deaths = decision.deaths
                _end_as_part(entry, ending)
                return ending
        raise AssertionError(f"the core gave no answer to a failed attempt of {entry.uid}")

    def spent(self, entry: TaskEntry, name: LeaseName, now: Now) -> Spent | None:
        """Return what the Task has cost with this attempt, which ends now; None where nothing is to be added.

        It is fixed with the attempt's end: that may be written more than once, and status may have it already.
        """
        lease, record, ending = entry.lease, entry.record, entry.ending
        if lease is not None and lease.name == name:
            if ending is not None and self._rules.cost_is_fixed_once:
                return ending.spent
            if record.phase is not Phase.ASSIGNED and record.attempt == name.attempt:
                return None  # a former leader's word of its end has come since, and counts it
            prices, agent_slots, since = lease.prices, lease.agent_slots, lease.assigned_at
        elif name.attempt <= record.attempt or (session := self._state.by_pod.get(entry.outcome_pod)) is None:
            return None  # it was over before, and counted
        else:
            # A former leader did not record it (Lazy): the start of its handler is all that is known.
            prices = self._state.pools.get((record.task.namespace, session.identity.pool))
            agent_slots, since = self._state.slots_of(session.pod, prices), entry.outcome_start
        return _with(record, prices, agent_slots, since, now)

    # --- of a Task that waits ---

    def fail(self, decision: Fail, now: Now) -> None:
        """The core has decided that a waiting Task ends."""
        ending = Ending(decision.phase, decision.reason, decision.message, decision.failures, deaths=decision.deaths)
        self._decide_waiting(decision.task_uid, ending, now)

    def spill(self, decision: Spill, now: Now) -> None:
        """The core has decided that a waiting Task waits in another queue."""
        ending = Ending(Phase.PENDING, decision.reason, decision.message, spill_to=decision.queue)
        self._decide_waiting(decision.task_uid, ending, now)

    def _decide_waiting(self, uid: str, ending: Ending, now: Now) -> None:
        entry = self._state.tasks.get(uid)
        if entry is None:
            return  # a blank of an array, dropped for what was decided of another one
        if entry.part is not None and not entry.part.stored:
            entry = self._state.arrays[entry.part.array].entry  # a blank stands for all of its array that waits
        _end_as_part(entry, ending)
        if entry.lease is not None or entry.ending is not None:
            return  # more was known here than to the core: it hears of it once that is written
        ending.on = entry.record.task
        entry.ending = ending
        self._whole.advance(entry, now)

    def void(self, entry: TaskEntry) -> None:
        """Drop the decision. With the Task's next step the core is told what the Task is instead."""
        entry.ending = entry.told = None

    # --- writing them ---

    def write(self, entry: TaskEntry, ending: Ending, now: Now) -> None:
        """Write what was decided, if it still is what was decided on."""
        lease, record = entry.lease, entry.record
        if not self._still_decided(entry, ending):
            self.void(entry)
            self._whole.advance(entry, now)
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
        counted = same and record.epoch < self._state.epoch
        costs = None if counted else ending.spent
        if costs is not None and lease is not None and not self._rules.cost_is_fixed_once:
            costs = _with(record, lease.prices, lease.agent_slots, lease.assigned_at, now)
        attempts, dropped = status.with_attempt(record.attempts, ending.attempt, record.dropped_attempts)
        if ending.phase is Phase.PENDING:
            patch = status.waiting(
                attempt,
                self._state.epoch,
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
            settled = ending.phase is Phase.DEAD_LETTERED and self._rules.letter_settles_redrives
            patch = status.ended(
                ending.phase,
                attempt,
                self._state.epoch,
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
                redrives=max(record.redrive, record.redrives) if settled else record.redrives,
                spent=costs,
            )
        self._out.write(entry, Purpose.ENDING, patch)

    def _still_decided(self, entry: TaskEntry, ending: Ending) -> bool:
        """Return whether the Task is what the core decided on: waiting, and unchanged."""
        if ending.on is None or not self._rules.decision_needs_its_task:
            return True
        waits = entry.record.phase is Phase.PENDING or entry.record.array is not None
        return waits and entry.record.task == ending.on

    def _may_be_sent(self, entry: TaskEntry) -> bool:
        """Return whether a former leader may have sent it without recording it (Lazy)."""
        return entry.uid in self._state.recovering and self._rules.end_waits_for_recovery

    def _write_spill(self, entry: TaskEntry, ending: Ending) -> None:
        patch = status.spilled(ending.spill_to, self._state.epoch, reason=ending.reason, message=ending.message)
        self._out.write(entry, Purpose.ENDING, patch)

    def answer(self, entry: TaskEntry) -> None:
        """The Task is over: send the final reply to an outcome or failure that waits for one."""
        record, outcome, ending = entry.record, entry.outcome, entry.ending
        if outcome is not None:
            ours = entry.outcome_tried and record.attempt == outcome.lease.attempt and record.phase is Phase.SUCCEEDED
            self._out.final(entry.outcome_pod, outcome.lease, Verdict.ACCEPTED if ours else Verdict.ALREADY_FINAL)
        elif ending is not None and ending.reply is not None:
            verdict = Verdict.ACCEPTED if record.phase is ending.phase else Verdict.ALREADY_FINAL
            self._out.final(ending.reply_to, ending.reply, verdict, ending.message)


def _end_as_part(entry: TaskEntry, ending: Ending) -> None:
    """A part is no dead letter: its array is, once all its items have ended."""
    if entry.part is not None and ending.phase is Phase.DEAD_LETTERED:
        ending.phase = Phase.FAILED


def _halve(entry: TaskEntry, ending: Ending, reason: Reason) -> None:
    """Of a part of several items that was lost or took too long nobody knows which item is at fault: none is counted.

    Queues that never try again what may have run, or not for this reason, are obeyed: then all have failed.
    """
    part, tried_again = entry.part, (ending.phase is Phase.PENDING or ending.reason in _COUNTED_OUT)
    if part is not None and len(part.items) > 1 and reason in _OF_SOME_ITEM and tried_again:
        ending.phase, ending.reason, ending.halved = Phase.CANCELLED, reason, True


def _with(record: ObservedTask, prices: Pool | None, agent_slots: int, since: float, now: Now) -> Spent | None:
    """What the Task has cost in all, with an attempt that began at `since` (wall clock); None if that is not known."""
    if prices is None or not since:
        return None
    return spent(record.spent, prices, record.task.slots, agent_slots, now.wall - since)
