"""Answers to writes and reads: the one place where their outcomes are taken in.

An answer that tells nothing (not sent, unknown) is followed by another try. Nothing is ever concluded from silence.
"""

from taskdist.api import Phase, Reason
from taskdist.core.events import AttemptFailed
from taskdist.protocol import status
from taskdist.protocol.messages import Result, Verdict
from taskdist.protocol.observations import (
    Conflict,
    Found,
    Gone,
    NotSent,
    Now,
    ObservedTask,
    ReadFailed,
    ReadOutcome,
    Unknown,
    WriteOutcome,
    WriteRefused,
    Written,
)
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.array_commits import ArrayCommits
from taskdist.protocol.operator.books import Deletion, Ending, Lease, LeaseStage, Purpose, TaskEntry
from taskdist.protocol.operator.removals import Removals
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.tasks import Tasks
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings


class Answers:
    """Takes in the outcomes of writes and reads, and has the Task's next step taken.

    An answer that does not tell (no answer, not sent) is followed by another try, never by a conclusion.
    """

    def __init__(
        self, state: State, out: Actions, removals: Removals, tasks: Tasks, settings: LeaderSettings, rules: Rules
    ) -> None:
        self._state = state
        self._out = out
        self._removals = removals
        self._tasks = tasks
        self.commits = ArrayCommits(state, out, tasks.arrays, settings, self._taken_in)
        self._view = tasks.view
        self._endings = tasks.endings
        self._leases = tasks.leases
        self._letters = tasks.letters
        self._settings = settings
        self._rules = rules

    # --- to reads ---

    def read_done(self, token: int, outcome: ReadOutcome, now: Now) -> None:
        """Take in what a read brought."""
        if (answered := self._out.answered(token)) is None:
            return
        entry, purpose = answered
        lease, whole = entry.lease, self._state.tasks[entry.holder]
        match outcome:
            case ReadFailed():
                self._state.put_off(entry, self._settings.retry_seconds, now)
            case Gone():
                entry.deletion = whole.deletion = Deletion.SURE
            case Found(record, payload, parents):
                self._tasks.learn(whole, record)
                entry.deletion = whole.deletion = Deletion.SURE if record.deleting else Deletion.NONE
                if purpose is Purpose.PAYLOAD and lease is not None and self._to_be_sent(entry, lease):
                    if self._still_wanted(entry.record, lease):
                        self._leases.send(entry, lease, payload, now, parents)
                    else:
                        self._view.take_back(entry, now)
        if whole is not entry:
            self._state.arrays_again[whole.uid] = None
        self._tasks.advance(entry, now)

    def _to_be_sent(self, entry: TaskEntry, lease: Lease) -> bool:
        """Return whether the Task still is as it was when its payload was asked for."""
        waits = (
            entry.deletion is Deletion.NONE
            and entry.outcome is None
            and entry.record.phase in (Phase.PENDING, Phase.ASSIGNED)
        )
        return waits and lease.stage is LeaseStage.UNSENT and self._leases.stop_reason(entry, lease) is None

    def _still_wanted(self, record: ObservedTask, lease: Lease) -> bool:
        """Return whether the Task that was read still is the one that the lease was made for."""
        if lease.recorded:
            return record.lease_name == lease.name
        return record.attempt < lease.name.attempt

    # --- to writes ---

    def write_done(self, token: int, outcome: WriteOutcome, now: Now) -> None:
        """Take in what became of a write."""
        if (answered := self._out.answered(token)) is None:
            return
        entry, purpose = answered
        match outcome:
            case Written(record):
                self._tasks.learn(entry, record)
            case Conflict(record):
                if record.resource_version <= entry.written_on:
                    # What stands is no newer than what the write was for: at once it would only end the same.
                    self._state.put_off(entry, self._settings.retry_seconds, now)
                self._tasks.learn(entry, record)
            case Unknown(record) if record is not None:
                self._tasks.learn(entry, record)
            case Gone():
                entry.deletion = Deletion.SURE
            case _:
                pass
        self._taken_in(entry, purpose, outcome, now)

    def _taken_in(self, entry: TaskEntry, purpose: Purpose, outcome: WriteOutcome, now: Now) -> None:
        """Have what was asked for follow from what became of the write."""
        match purpose:
            case Purpose.COMMIT:
                self.commits.answered(entry, outcome, now)
            case Purpose.ASSIGN:
                self._assign_written(entry, outcome, now)
            case Purpose.RECORD:
                self._record_written(entry, outcome, now)
            case Purpose.OUTCOME:
                self._outcome_written(entry, outcome, now)
            case Purpose.ENDING:
                self._ending_written(entry, outcome, now)
            case Purpose.REDRIVE:
                self._letters.written(entry, outcome, now)
            case _ if isinstance(outcome, Unknown | NotSent | WriteRefused):
                self._state.put_off(entry, self._settings.retry_seconds, now)
            case _:
                pass
        self._tasks.advance(entry, now)

    def _assign_written(self, entry: TaskEntry, outcome: WriteOutcome, now: Now) -> None:
        """The write of an assignment was answered: only one that stands is sent."""
        lease = entry.lease
        if lease is None or lease.stage is not LeaseStage.WRITING:
            return
        match outcome:
            case Written(_, payload, parents):
                self._leases.stands(entry, lease, now)
                wanted = (
                    self._leases.stop_reason(entry, lease) is None
                    and entry.deletion is Deletion.NONE
                    and entry.outcome is None
                )
                if wanted and parents is not None:
                    self._leases.send(entry, lease, payload, now, parents)
            case Conflict() if self._leases.shows(entry, lease):
                self._leases.stands(entry, lease, now)  # an earlier sending landed, and the Task was changed since
            case Conflict() | Unknown() if self._is_believed(outcome):
                lease.stage = LeaseStage.UNSENT
            case Conflict() | Gone():
                self._view.take_back(entry, now)  # nothing is on its way any more
            case WriteRefused(message):
                self._view.take_back(entry, now)
                self._out.notice(entry, Reason.CREATE_REFUSED, f"the API server refuses the assignment: {message}")
                self._state.put_off(entry, self._settings.refused_seconds, now)
            case Unknown():
                self._assign_unknown(entry, lease, now)
            case NotSent():
                lease.stage = LeaseStage.DOUBTED if lease.doubted else LeaseStage.PLANNED
                self._state.put_off(entry, self._settings.retry_seconds, now)

    def _is_believed(self, outcome: Conflict | Unknown) -> bool:
        """Whether an answer that does not show the assignment is taken for one that does: never, with all rules on."""
        if isinstance(outcome, Conflict):
            return not self._rules.conflict_takes_back
        return not self._rules.unknown_is_doubted

    def _assign_unknown(self, entry: TaskEntry, lease: Lease, now: Now) -> None:
        """It may stand, or land late: nothing is sent, and nothing that it took is free, until that is known."""
        if not self._rules.doubt_keeps_what_it_took:
            self._view.take_back(entry, now)
            return
        lease.stage, lease.doubted = LeaseStage.DOUBTED, True
        self._state.put_off(entry, self._settings.retry_seconds, now)

    def _record_written(self, entry: TaskEntry, outcome: WriteOutcome, now: Now) -> None:
        """The write that records what was sent before (Lazy) was answered."""
        lease = entry.lease
        if lease is None:
            return
        match outcome:
            case Written():
                lease.recorded = True
            case WriteRefused(message):
                self._out.notice(
                    entry, Reason.CREATE_REFUSED, f"the API server refuses the record: {message}", lease.name
                )
                lease.record_at = now.boot + self._settings.refused_seconds
                self._state.timers.add(lease.record_at, TimerKind.ADVANCE, entry.uid)
            case Unknown() | NotSent():
                lease.record_at = now.boot + self._settings.retry_seconds
                self._state.timers.add(lease.record_at, TimerKind.ADVANCE, entry.uid)
            case _:
                if entry.record.lease_name == lease.name:
                    lease.recorded = True

    def _outcome_written(self, entry: TaskEntry, outcome: WriteOutcome, now: Now) -> None:
        """The write of a result was answered. Where it stands, the Task's next step tells the agent."""
        result = entry.outcome
        if result is None:
            return
        match outcome:
            case WriteRefused(message, too_large) if self._rules.refusal_is_final:
                self._result_refused(entry, result, message, too_large, now)
            case WriteRefused() | Unknown() | NotSent():
                self._state.put_off(entry, self._settings.retry_seconds, now)
            case _:
                pass

    def _result_refused(self, entry: TaskEntry, result: Result, message: str, too_large: bool, now: Now) -> None:
        """Refused for good: the Task ends as failed with that reason, without the body."""
        entry.outcome = None
        reason = Reason.RESULT_TOO_LARGE if too_large else Reason.RESULT_REFUSED
        said = status.clip(f"the API server refuses the result: {message}")
        ending = self._endings.after_failure(entry, AttemptFailed(entry.uid, reason, said, retryable=False), now)
        lease = entry.lease if entry.lease is not None and entry.lease.name == result.lease else None
        agent, started_at = (lease.agent_name, lease.started_at) if lease is not None else ("", entry.outcome_start)
        ending.attempt = status.attempt_record(result.lease.attempt, reason, said, agent, now.wall, started_at)
        ending.reply, ending.reply_to = result.lease, entry.outcome_pod
        ending.spent = self._endings.spent(entry, result.lease, now)
        entry.ending = ending
        if lease is not None:
            lease.stage = LeaseStage.OVER
        self._out.notice(entry, reason, said, result.lease)

    def _ending_written(self, entry: TaskEntry, outcome: WriteOutcome, now: Now) -> None:
        """The write of an attempt's or Task's end was answered: what waits again is told to the core."""
        ending, lease = entry.ending, entry.lease
        if ending is None:
            return
        match outcome:
            case Written(record) if record.phase is Phase.PENDING:
                entry.ending = entry.told = None
                self._view.drop_lease(entry)
                if lease is not None:
                    if ending.reply is not None:
                        self._out.final(ending.reply_to, ending.reply, Verdict.ACCEPTED)
                    if entry.deletion is Deletion.NONE and entry.outcome is None:
                        self._tasks.place(entry, now)
                    self._removals.check(lease.agent_uid, now)
            case Written(record) if record.phase is ending.phase:
                self._tell_end(entry, ending)
            case WriteRefused(message):
                self._out.notice(entry, ending.reason, f"the API server refuses the end of the attempt: {message}")
                self._state.put_off(entry, self._settings.refused_seconds, now)
            case Unknown() | NotSent():
                self._state.put_off(entry, self._settings.retry_seconds, now)
            case _:
                pass

    def _tell_end(self, entry: TaskEntry, ending: Ending) -> None:
        """Record an Event for an end that nothing else tells of: no attempt ran, or a person is to act."""
        if ending.phase is Phase.DEAD_LETTERED:
            text = f"a dead letter ({ending.reason}): raise spec.redrive to let it wait again. {ending.message}"
            self._out.notice(entry, Reason.DEAD_LETTERED, text)
        elif ending.phase is Phase.FAILED and (ending.on is not None or entry.record.fault is not None):
            self._out.notice(entry, ending.reason, ending.message)
