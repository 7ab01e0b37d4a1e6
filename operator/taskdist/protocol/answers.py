"""The operator's end, fifth part: what became of a write, and what follows from that.

The one place where a write's outcome is believed. An answer that says nothing (not sent, unknown) is followed by
another try; nothing is ever concluded from silence.
"""

from taskdist.api import Phase, Reason
from taskdist.core.events import AttemptFailed
from taskdist.protocol import status
from taskdist.protocol.attempts import Attempts
from taskdist.protocol.books import Ask, Ending, Entry, Stage
from taskdist.protocol.messages import Result, Verdict
from taskdist.protocol.observations import (
    Conflict,
    Gone,
    NotSent,
    Now,
    Refused,
    Unknown,
    WriteOutcome,
    Written,
)


class Answers(Attempts):
    """Takes in the answers to writes."""

    # --- answers to writes ---

    def _written(self, entry: Entry, ask: Ask, outcome: WriteOutcome, now: Now) -> None:
        """Take in what became of a write."""
        match outcome:
            case Written(record):
                self._learn(entry, record)
            case Conflict(record):
                if record.resource_version <= entry.asked_version:
                    # What stands is no newer than what the write was for: at once it would only end the same.
                    self._later(entry, self._settings.retry_seconds, now)
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
            case Ask.REDRIVE:
                self._redrive_written(entry, outcome, now)
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
            case Written(_, payload, parents):
                self._stands(entry, lease, now)
                wanted = self._stop_reason(entry, lease) is None and not entry.gone and entry.outcome is None
                if wanted and parents is not None:
                    self._offer(entry, lease, payload, now, parents)
            case Conflict() if self._shows(entry, lease):
                self._stands(entry, lease, now)  # an earlier sending landed, and the Task was changed since
            case Conflict() | Gone():
                self._assign_conflict(entry, now)
            case Refused(message):
                self._take_back(entry, now)
                self._notice(entry, Reason.CREATE_REFUSED, f"the API server refuses the assignment: {message}")
                self._later(entry, self._settings.refused_seconds, now)
            case Unknown():
                self._assign_unknown(entry, now)
            case NotSent():
                lease.stage = Stage.DOUBTED if lease.doubted else Stage.PLANNED
                self._later(entry, self._settings.retry_seconds, now)

    def _assign_conflict(self, entry: Entry, now: Now) -> None:
        """Somebody else wrote, and nothing is on its way any more: a conflict takes the assumption back."""
        self._take_back(entry, now)

    def _assign_unknown(self, entry: Entry, now: Now) -> None:
        """It may stand, or land late: nothing is sent, and nothing that it took is free, until that is known."""
        if entry.lease is not None:
            entry.lease.stage, entry.lease.doubted = Stage.DOUBTED, True
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
        said = status.clip(f"the API server refuses the result: {message}")
        ending = self._verdict(entry, AttemptFailed(entry.uid, reason, said, retryable=False), now)
        lease = entry.lease if entry.lease is not None and entry.lease.name == result.lease else None
        agent, started_at = (lease.agent_name, lease.started_at) if lease is not None else ("", entry.outcome_start)
        ending.attempt = status.attempt_record(result.lease.attempt, reason, said, agent, now.wall, started_at)
        ending.reply, ending.reply_to = result.lease, entry.outcome_pod
        ending.spent = self._spent(entry, result.lease, now)
        entry.ending = ending
        if lease is not None:
            lease.stage = Stage.OVER
        self._notice(entry, reason, said, result.lease)

    def _ending_written(self, entry: Entry, outcome: WriteOutcome, now: Now) -> None:
        ending, lease = entry.ending, entry.lease
        if ending is None:
            return
        match outcome:
            case Written(record) if record.phase is Phase.PENDING:
                entry.ending = entry.told = None
                self._drop_lease(entry)
                if lease is not None:
                    if ending.reply is not None:
                        self._final(ending.reply_to, ending.reply, Verdict.ACCEPTED)
                    if not entry.gone and entry.outcome is None:
                        self._place(entry, now)
                    self._check_drained(lease.agent_uid, now)
            case Written(record) if record.phase is ending.phase:
                self._tell_end(entry, ending)
            case Refused(message):
                self._notice(entry, ending.reason, f"the API server refuses the end of the attempt: {message}")
                self._later(entry, self._settings.refused_seconds, now)
            case Unknown() | NotSent():
                self._later(entry, self._settings.retry_seconds, now)
            case _:
                pass

    def _tell_end(self, entry: Entry, ending: Ending) -> None:
        """Of a failed attempt there was an Event: one more is worth it where none ran, or a person is to act."""
        if ending.phase is Phase.DEAD_LETTERED:
            text = f"a dead letter ({ending.reason}): raise spec.redrive to let it wait again. {ending.message}"
            self._notice(entry, Reason.DEAD_LETTERED, text)
        elif ending.phase is Phase.FAILED and (ending.on is not None or entry.record.fault is not None):
            self._notice(entry, ending.reason, ending.message)
