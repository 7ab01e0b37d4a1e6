"""The messages of agents: that work started, got on, ended or stopped, and what they offer.

An agent can only speak of its own leases. What follows from an outcome is not decided here.
"""

from taskdist.api import Phase, Reason
from taskdist.core import Core
from taskdist.core.events import AttemptUsed
from taskdist.protocol import status
from taskdist.protocol.messages import (
    Capacity,
    Draining,
    Failure,
    FromAgent,
    Hello,
    LeaseName,
    Ping,
    Progress,
    Renew,
    Result,
    Started,
    Stopped,
    Verdict,
)
from taskdist.protocol.observations import CloseSession, Gone, Now, ObservedTask, ReadFailed, ReadOutcome, Send
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import LIVE, UNHEARD, Deletion, Lease, LeaseStage, Orphan, Session, TaskEntry
from taskdist.protocol.operator.orphans import Orphans
from taskdist.protocol.operator.presence import Presence
from taskdist.protocol.operator.sessions import Sessions
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.tasks import Tasks
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.rules import Rules


class Inbox:
    """Takes in each message of an agent, and changes what is known of its lease.

    What an agent says of another's lease counts for nothing. A Task that is not known here is read before the agent
    hears "no such Task".
    """

    def __init__(
        self,
        core: Core,
        state: State,
        out: Actions,
        presence: Presence,
        tasks: Tasks,
        orphans: Orphans,
        sessions: Sessions,
        rules: Rules,
    ) -> None:
        self._core = core
        self._state = state
        self._out = out
        self._presence = presence
        self._tasks = tasks
        self._endings = tasks.endings
        self._clock = tasks.clock
        self._orphans = orphans
        self._sessions = sessions
        self._rules = rules

    def hear(self, session: Session, message: FromAgent, now: Now) -> None:
        """Take in what an agent says in a session that was welcomed."""
        if not session.confirmed:
            if isinstance(message, Ping):
                session.ping_boot, session.ping_receipt = message.boot, now.boot
            self._sessions.confirm(session, now)
            if not session.confirmed:
                return
        if isinstance(message, Result | Failure | Stopped) and message.lease in session.strangers:
            self._sessions.stranger_gone(session, message.lease, now)
        match message:
            case Ping():
                self._ping(session, message, now)
            case Started(name, since):
                if (lease := self._state.own_lease(session, name)) is not None:
                    lease.acknowledged = True
                    self._clock.note_start(lease, since, now)
                    self._clock.watch(name.task_uid, lease)
            case Progress():
                self._progress(session, message, now)
            case Result():
                self._result(session, message, now)
            case Failure():
                self._failure(session, message, now)
            case Stopped():
                self._stopped(session, message, now)
            case Draining():
                session.leaving = True
                self._presence.refresh(session.pod, now)
            case Capacity():
                session.slots, session.resources = message.slots, message.resources
                self._presence.refresh(session.pod, now)
            case Hello():
                self._state.sessions.pop(session.id, None)
                self._out.add(CloseSession(session.id, "a session has one hello"))
                self._sessions.disconnect(session, now)

    def _ping(self, session: Session, message: Ping, now: Now) -> None:
        """Renew the agent's leases, but for those that are to end."""
        session.ping_boot, session.ping_receipt = message.boot, now.boot
        names = []
        for entry in self._state.leases.get(session.pod, {}).values():
            lease = entry.lease
            if lease is not None and lease.stage is LeaseStage.SENT and lease.cancelling is None and not entry.ending:
                names.append(lease.name)
                lease.until = max(lease.until, self._clock.bound(lease, now.boot))
        self._out.add(Send(session.id, Renew(self._state.epoch, message.boot, tuple(names))))

    def _progress(self, session: Session, message: Progress, now: Now) -> None:
        """Keep a report of progress: it is written now and then."""
        lease = self._state.own_lease(session, message.lease)
        if lease is None or lease.stage is not LeaseStage.SENT:
            return
        lease.reported_boot = now.boot
        lease.progress = status.progress(message.fraction, message.message, now.wall)
        if not lease.progress_due:
            lease.progress_due = True
            self._state.timers.add(lease.progress_at, TimerKind.ADVANCE, message.lease.task_uid)

    def _entry_of(self, session: Session, outcome: Result | Failure) -> TaskEntry | None:
        """Return the Task in the books that the outcome is of; None if there is none, and what follows is arranged."""
        name = outcome.lease
        entry = self._state.tasks.get(name.task_uid)
        if entry is None and self._state.is_over(name.task_uid):
            self._out.final(session.pod, name, Verdict.ALREADY_FINAL, "the Task has ended")
        elif entry is None:
            self._orphans.speak_of(session, name, outcome)
        return entry

    def _result(self, session: Session, message: Result, now: Now) -> None:
        """Take a result that may be accepted, and answer any other at once."""
        name = message.lease
        entry = self._entry_of(session, message)
        if entry is None:
            return
        if entry.outcome is not None:
            if (entry.outcome.lease, entry.outcome_pod) != (name, session.pod):
                self._out.final(session.pod, name, Verdict.STALE, "another result is being accepted")
            return
        if self._state.own_lease(session, name) is None and not self._may_come_late(entry, name, session):
            self._out.final(session.pod, name, Verdict.STALE, "a newer attempt was granted, or another agent holds it")
            return
        entry.outcome, entry.outcome_pod = message, session.pod
        entry.outcome_start = self._clock.start_of(entry.record.assigned_at, message.since_start, now)
        if message.used and (lease := self._state.own_lease(session, name)) is not None:
            self._note_use(entry, lease, message.used, now)
        self._tasks.advance(entry, now)

    def _note_use(self, entry: TaskEntry, lease: Lease, used: tuple[tuple[str, int], ...], now: Now) -> None:
        """Tell the core what the attempt used of budgets, as its agent says.

        An agent can only speak of its own attempt: what is stale is not asked. A name alone is a budget of the Task's
        queue.
        """
        if lease.stage in UNHEARD:
            return
        task = entry.record.task
        names = {name: (queue, name) for queue, name, _ in task.budgets if queue == task.queue}
        names |= {f"{queue}/{name}": (queue, name) for queue, name, _ in task.budgets}
        known = tuple((*names[name], amount) for name, amount in used if name in names)
        if known:
            self._core.handle(AttemptUsed(entry.uid, known), now.wall)
        if unknown := ", ".join(name for name, _ in used if name not in names):
            text = f"attempt {lease.name.attempt} says what it used of {unknown}, of which the Task takes nothing"
            self._out.notice(entry, Reason.BUDGET_NOT_FOUND, text, lease.name)

    def _may_come_late(self, entry: TaskEntry, name: LeaseName, session: Session) -> bool:
        """Return whether a result of a lease that is over may still be accepted: nothing newer is known to be granted.

        The Task's next step has the last word.
        """
        lease = entry.lease
        if not self._rules.stale_results_are_refused:
            return True
        if lease is not None and lease.stage not in UNHEARD:
            return False
        return name.attempt == entry.record.attempt or self._state.maybe_unrecorded(entry, name, session.pod)

    def _failure(self, session: Session, message: Failure, now: Now) -> None:
        """The attempt failed: its agent gets the final reply once that is written."""
        name = message.lease
        entry = self._entry_of(session, message)
        if entry is None:
            return
        lease = self._state.own_lease(session, name)
        if lease is None or lease.stage not in LIVE or entry.outcome is not None:
            if entry.ending is None or entry.ending.reply != name:
                self._out.final(session.pod, name, Verdict.STALE, "the attempt was over")
            return
        if entry.deletion is not Deletion.NONE:
            self._out.final(session.pod, name, Verdict.GONE, "the Task was deleted")
        elif entry.record.phase not in (Phase.PENDING, Phase.ASSIGNED):
            self._out.final(session.pod, name, Verdict.ALREADY_FINAL, "the Task has ended")
        if message.since_start:
            self._clock.note_start(lease, message.since_start, now)
        if message.used:
            self._note_use(entry, lease, message.used, now)
        text = status.clip(message.message)
        self._endings.attempt_over(
            entry, message.reason, text, now, retryable=message.retryable, reply=name, put_off=message.retry_after
        )

    def _stopped(self, session: Session, message: Stopped, now: Now) -> None:
        """Nothing of the attempt runs any more, and it left no outcome."""
        lease = self._state.own_lease(session, message.lease)
        entry = self._state.tasks.get(message.lease.task_uid)
        if lease is None or entry is None or lease.stage not in LIVE or entry.outcome is not None:
            return
        text = status.clip(message.message)
        if lease.cancelling is not None:
            self._endings.over_as_asked(entry, lease.cancelling, text or "stopped", now)
        elif not message.ran and not lease.acknowledged:
            lease.stage = LeaseStage.UNSENT  # no user code ran: not even at-most-once minds another try
            delay = 0.0 if session.leaving else 1.0
            lease.recorded = lease.recorded or not lease.lazy
            self._endings.attempt_over(entry, Reason.GIVEN_BACK, text or "refused", now, counted=False, delay=delay)
        elif session.leaving or session.pod in self._state.draining:
            self._endings.attempt_over(entry, Reason.GIVEN_BACK, text or "given back", now, counted=False)
        else:
            self._endings.attempt_over(entry, Reason.LEASE_EXPIRED, text or "stopped by its agent", now)

    def orphan_read(self, orphan: Orphan, outcome: ReadOutcome, now: Now) -> None:
        """A Task that an agent speaks of was read: what it said is heard now."""
        if isinstance(outcome, ReadFailed):
            self._orphans.put_off(orphan, now)
            return
        self._orphans.found_out(orphan)
        if isinstance(outcome, Gone) or self._forgotten(outcome.record):
            self._orphans.tell_gone(orphan.pod, orphan.name, orphan.outcome)
            return
        self._tasks.observe(outcome.record, now)
        session = self._state.by_pod.get(orphan.pod)
        if session is None:
            return
        session.strangers.discard(orphan.name)
        if orphan.outcome is not None:
            self.hear(session, orphan.outcome, now)
        elif self._state.own_lease(session, orphan.name) is None:
            self._sessions.listed(session, orphan.name, now)
        if orphan.name not in session.strangers:
            self._sessions.stranger_gone(session, orphan.name, now)

    def _forgotten(self, record: ObservedTask) -> bool:
        """Return whether the Task is being deleted and over here: taken in, it would be read again for ever."""
        uid = record.task.uid
        return record.deleting and not (record.phase.terminal or uid in self._state.tasks or uid in self._state.unread)
