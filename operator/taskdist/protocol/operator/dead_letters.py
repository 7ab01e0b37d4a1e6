"""Dead letters: Tasks that ran out of attempts, and wait for a person to redrive, cancel or delete them.

Until then a dead letter is out of the core and out of the books; only its version is kept. What is asked of it follows
from its newest view alone, so that after a write without an answer it is simply looked at again.
"""

from collections import Counter

from taskdist.api import Phase, Reason
from taskdist.core.model import Key
from taskdist.protocol import status
from taskdist.protocol.arrays.account import changes
from taskdist.protocol.observations import NotSent, Now, ObservedTask, Unknown, WriteOutcome, WriteRefused, Written
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import DeadLetter, Purpose, TaskEntry
from taskdist.protocol.operator.core_view import CoreView
from taskdist.protocol.operator.endings import Endings
from taskdist.protocol.operator.lease_clock import LeaseClock
from taskdist.protocol.operator.state import State
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings


class DeadLetters:
    """Redrives and cancels dead letters, and keeps no more of the others than their versions."""

    def __init__(
        self,
        state: State,
        out: Actions,
        view: CoreView,
        endings: Endings,
        clock: LeaseClock,
        settings: LeaderSettings,
        rules: Rules,
    ) -> None:
        self._state = state
        self._out = out
        self._view = view
        self._endings = endings
        self._clock = clock
        self._settings = settings
        self._rules = rules

    def counts(self) -> dict[Key, int]:
        """Return by queue how many dead letters there are. Queues without are left out."""
        return dict(Counter(letter.queue for letter in self._state.dead.values()))

    def advance(self, entry: TaskEntry, now: Now) -> None:
        """It holds nothing, and waits for a redrive, a cancel or its deletion."""
        if entry.may_still_run and entry.outcome is None:
            self._clock.ask_to_stop(entry, Reason.CANCELLED, "the Task is a dead letter")
            return
        self._endings.answer(entry)
        entry.outcome = entry.ending = None
        self._view.leave(entry, now)
        record = entry.record
        if record.cancel:
            self._out.write(entry, Purpose.REDRIVE, self._cancelled(record, now))
        elif self._to_redrive(record):
            why = f" ({record.reason})" if record.reason else ""
            message = f"Redriven: it waits again as if it had never failed. It was a dead letter{why}."
            patch = status.redriven(self._state.epoch, record.redrive, message=message, wall=now.wall)
            if not self._rules.redrive_resets_failures:
                del patch["failures"]
            if (array := record.array) is not None:
                patch["array"] = changes(array.account, array.account.redriven(), status.timestamp)
            self._out.write(entry, Purpose.REDRIVE, patch)
        else:
            self._put_away(entry)

    def _to_redrive(self, record: ObservedTask) -> bool:
        """Return whether a redrive was asked for that has not been done."""
        return record.redrive > record.redrives and self._rules.redrives_are_done

    def _cancelled(self, record: ObservedTask, now: Now) -> status.Status:
        return status.ended(
            Phase.CANCELLED,
            record.attempt,
            self._state.epoch,
            reason=Reason.CANCELLED,
            message="cancelled as a dead letter",
            wall=now.wall,
            redrives=1,  # it was one: its condition is to say that it is no more
        )

    def _put_away(self, entry: TaskEntry) -> None:
        """Keep of it only what tells newer views from older ones."""
        del self._state.tasks[entry.uid]
        self._state.arrays.pop(entry.uid, None)
        self._state.dead[entry.uid] = DeadLetter(entry.record.resource_version, entry.record.task.queue_key)

    def reopen(self, record: ObservedTask) -> bool:
        """Return whether this view of a dead letter is newer than what is known; then it is looked at as any Task."""
        letter = self._state.dead.get(record.task.uid)
        if letter is None:
            return True
        if not self._is_newer(letter, record):
            return False
        del self._state.dead[record.task.uid]
        return True

    def _is_newer(self, letter: DeadLetter, record: ObservedTask) -> bool:
        return record.resource_version > letter.resource_version or not self._rules.newer_letters_only

    def written(self, entry: TaskEntry, outcome: WriteOutcome, now: Now) -> None:
        """Take in what became of the write that redrives or cancels it."""
        match outcome:
            case Written(record) if record.phase is Phase.PENDING:
                self._out.notice(entry, Reason.REDRIVEN, "a dead letter that waits again, as asked", warning=False)
            case WriteRefused(message):
                self._out.notice(entry, Reason.REDRIVEN, f"the API server refuses to redrive or cancel it: {message}")
                self._state.put_off(entry, self._settings.refused_seconds, now)
            case Unknown() | NotSent():
                self._state.put_off(entry, self._settings.retry_seconds, now)
            case _:
                pass
