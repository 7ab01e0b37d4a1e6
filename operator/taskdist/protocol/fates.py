"""The operator's end, third part: what becomes of Tasks that wait, and of dead letters.

The core decides that a waiting Task ends, or waits in another queue; here that is written if it is still the Task that
the core saw. A dead letter is out of the core and out of the books: only its version is kept, until a newer view of it
asks for something, and what that is follows from the view alone, so that a write without an answer is just looked at
again.
"""

from collections import Counter

from taskdist.api import Phase, Reason
from taskdist.core.decisions import Fail, Spill
from taskdist.core.events import TaskGone
from taskdist.core.model import Key
from taskdist.protocol import status
from taskdist.protocol.books import LIVE, Ask, Ending, Entry, Grave, Stage
from taskdist.protocol.leases import Leases
from taskdist.protocol.messages import Verdict
from taskdist.protocol.observations import NotSent, Now, Refused, TaskRecord, Unknown, WriteOutcome, Written


class Fates(Leases):
    """Ends without an attempt, moves between queues, redrives."""

    # --- what the core decides of a Task that waits ---

    def _end_waiting(self, decision: Fail, now: Now) -> None:
        ending = Ending(decision.phase, decision.reason, decision.message, decision.failures, deaths=decision.deaths)
        self._decide_waiting(decision.task_uid, ending, now)

    def _spill(self, decision: Spill, now: Now) -> None:
        ending = Ending(Phase.PENDING, decision.reason, decision.message, spill_to=decision.queue)
        self._decide_waiting(decision.task_uid, ending, now)

    def _decide_waiting(self, uid: str, ending: Ending, now: Now) -> None:
        entry = self._tasks[uid]
        if entry.lease is not None or entry.ending is not None:
            return  # more was known here than to the core: it hears of it once that is written
        ending.on = entry.record.task
        entry.ending = ending
        self._advance(entry, now)

    def _still_decided(self, entry: Entry, ending: Ending) -> bool:
        """Whether the Task is what the core decided on: waiting, and unchanged."""
        return ending.on is None or (entry.record.phase is Phase.PENDING and entry.record.task == ending.on)

    def _may_be_sent(self, entry: Entry) -> bool:
        """Whether a former leader may have sent it without recording it (Lazy)."""
        return entry.uid in self._recovering

    def _void(self, entry: Entry) -> None:
        """The decision is no more; what the Task is instead, the core hears from `_place`."""
        entry.ending = entry.told = None

    def _write_spill(self, entry: Entry, ending: Ending) -> None:
        patch = status.spilled(ending.spill_to, self.epoch, reason=ending.reason, message=ending.message)
        self._write(entry, Ask.ENDING, patch)

    # --- what cannot be read ---

    def _leave_aside(self, entry: Entry, now: Now) -> None:
        """Its present state cannot be read: nothing is begun or written. A lease goes on, and its outcome waits."""
        if entry.lease is not None and entry.lease.stage is Stage.PLANNED:
            self._take_back(entry, now)
        if entry.lease is None:
            self._core_held(entry, Reason.UNREADABLE, now)

    # --- dead letters ---

    def dead_letters(self) -> dict[Key, int]:
        """Return by queue how many dead letters there are. Queues without are left out."""
        return dict(Counter(grave.queue for grave in self._dead.values()))

    def _advance_dead(self, entry: Entry, now: Now) -> None:
        """It holds nothing, and waits for a redrive, a cancel or its deletion."""
        if self._runs_yet(entry):
            self._ask_to_stop(entry, Reason.CANCELLED, "the Task is a dead letter", now)
            return
        self._answer_ended(entry)
        entry.outcome = entry.ending = None
        self._leave_core(entry, now)
        record = entry.record
        if record.cancel:
            self._write(entry, Ask.REDRIVE, self._cancelled_dead(record, now))
        elif self._to_redrive(record):
            why = f" ({record.reason})" if record.reason else ""
            message = f"Redriven: it waits again as if it had never failed. It was a dead letter{why}."
            patch = status.redriven(self.epoch, record.redrive, message=message, wall=now.wall)
            self._write(entry, Ask.REDRIVE, patch)
        else:
            self._bury(entry)

    def _runs_yet(self, entry: Entry) -> bool:
        return entry.lease is not None and entry.lease.stage in LIVE and entry.ending is None and entry.outcome is None

    def _to_redrive(self, record: TaskRecord) -> bool:
        return record.redrive > record.redrives

    def _cancelled_dead(self, record: TaskRecord, now: Now) -> status.Status:
        return status.ended(
            Phase.CANCELLED,
            record.attempt,
            self.epoch,
            reason=Reason.CANCELLED,
            message="cancelled as a dead letter",
            wall=now.wall,
            redrives=1,  # it was one: its condition is to say that it is no more
        )

    def _leave_core(self, entry: Entry, now: Now) -> None:
        pod = entry.lease.agent_uid if entry.lease is not None else ""
        self._drop_lease(entry)
        self._recovering.discard(entry.uid)
        if entry.core:
            entry.core, entry.told = "", None
            self.core.handle(TaskGone(entry.uid, Phase.DEAD_LETTERED), now.wall)
        if pod:
            self._check_drained(pod, now)

    def _bury(self, entry: Entry) -> None:
        del self._tasks[entry.uid]
        self._dead[entry.uid] = Grave(entry.record.resource_version, entry.record.task.queue_key)

    def _exhume(self, record: TaskRecord) -> bool:
        """Whether this view of a dead letter is newer than what is known; it is then looked at as any Task."""
        grave = self._dead.get(record.task.uid)
        if grave is None:
            return True
        if not self._is_newer_than(grave, record):
            return False
        del self._dead[record.task.uid]
        return True

    def _is_newer_than(self, grave: Grave, record: TaskRecord) -> bool:
        return record.resource_version > grave.resource_version

    def _redrive_written(self, entry: Entry, outcome: WriteOutcome, now: Now) -> None:
        match outcome:
            case Written(record) if record.phase is Phase.PENDING:
                self._notice(entry, Reason.REDRIVEN, "a dead letter that waits again, as asked", warning=False)
            case Refused(message):
                self._notice(entry, Reason.REDRIVEN, f"the API server refuses to redrive or cancel it: {message}")
                self._later(entry, self._settings.refused_seconds, now)
            case Unknown() | NotSent():
                self._later(entry, self._settings.retry_seconds, now)
            case _:
                pass

    # --- what agents hear of a Task that is over ---

    def _answer_ended(self, entry: Entry) -> None:
        record, outcome, ending = entry.record, entry.outcome, entry.ending
        if outcome is not None:
            ours = entry.outcome_tried and record.attempt == outcome.lease.attempt and record.phase is Phase.SUCCEEDED
            self._final(entry.outcome_pod, outcome.lease, Verdict.ACCEPTED if ours else Verdict.ALREADY_FINAL)
        elif ending is not None and ending.reply is not None:
            verdict = Verdict.ACCEPTED if record.phase is ending.phase else Verdict.ALREADY_FINAL
            self._final(ending.reply_to, ending.reply, verdict, ending.message)
