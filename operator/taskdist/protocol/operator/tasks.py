"""The next step of each Task: the hub of the operator's end.

Level-triggered: every input changes what is known of a Task, then `advance` looks at all that is known and asks for the
one next thing. How that is done stands in the part that owns it.
"""

from taskdist.api import Phase, Reason
from taskdist.core import Core
from taskdist.protocol import still_held
from taskdist.protocol.messages import Verdict
from taskdist.protocol.observations import AnnotatePod, Now, ObservedTask
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.arrays import Arrays
from taskdist.protocol.operator.books import Deletion, Ending, LeaseStage, Purpose, TaskEntry
from taskdist.protocol.operator.core_view import CoreView
from taskdist.protocol.operator.dead_letters import DeadLetters
from taskdist.protocol.operator.dependents import Dependents
from taskdist.protocol.operator.endings import Endings
from taskdist.protocol.operator.lease_clock import LeaseClock
from taskdist.protocol.operator.lease_reconciler import LeaseReconciler
from taskdist.protocol.operator.leases import Leases
from taskdist.protocol.operator.outcomes import Outcomes
from taskdist.protocol.operator.presence import Presence
from taskdist.protocol.operator.removals import Removals
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.takeover import Takeover
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings


class Tasks:
    """Takes each Task its next step, whatever the input was.

    Every input changes what is known of a Task; `advance` then looks at all of it and calls the one part whose turn it
    is. It composes the parts that deal with Tasks, and is the `Whole` that they may ask.
    """

    def __init__(
        self,
        core: Core,
        state: State,
        out: Actions,
        removals: Removals,
        presence: Presence,
        settings: LeaderSettings,
        rules: Rules,
    ) -> None:
        self._state = state
        self._out = out
        self._rules = rules
        view = self.view = CoreView(core, state, out, removals, rules)
        endings = self.endings = Endings(core, state, out, view, self, rules)
        clock = self.clock = LeaseClock(state, out, endings, settings, rules)
        leases = self.leases = Leases(state, out, view, endings, clock, presence, self, settings, rules)
        self.dependents = Dependents(state, out, view, self)
        self._outcomes = Outcomes(state, out, view, endings, leases, self, rules)
        self.letters = DeadLetters(state, out, view, endings, clock, settings, rules)
        self.arrays = Arrays(state, view, endings, self.letters, self.dependents, self)
        self.reconciler = LeaseReconciler(state, out, endings, clock, presence, self, settings, rules)
        self.takeover = Takeover(
            state, out, view, removals, endings, clock, leases, self.reconciler, self, settings, rules
        )

    # --- what is seen of them ---

    def observe(self, record: ObservedTask, now: Now) -> None:
        """A Task is there, new or changed."""
        uid = record.task.uid
        if uid in self._state.finals or (uid in self._state.dead and not self.letters.reopen(record)):
            return
        entry = self._state.tasks.get(uid)
        if entry is None:
            self._see(record)
            if record.phase.terminal:
                self._state.unread.discard(uid)
                self._state.finals.add(uid)
                return
            entry = self._state.tasks[uid] = TaskEntry(record)
        elif not self._is_newer(entry, record):
            return
        else:
            self.learn(entry, record)
        entry.aside = False
        if record.deleting:
            entry.note_deletion()
        self.advance(entry, now)
        if entry.under_way is None:
            self._state.unread.discard(uid)

    def learn(self, entry: TaskEntry, record: ObservedTask) -> None:
        """A view of the Task has come with an answer. Older views of the same Task are ignored."""
        if self._is_newer(entry, record):
            entry.record = record
            self._see(record)
            if record.array is not None:
                self.arrays.sync(entry)
                self._state.arrays_again[entry.uid] = None

    def _is_newer(self, entry: TaskEntry, record: ObservedTask) -> bool:
        return record.resource_version > entry.record.resource_version or not self._rules.newer_views_only

    def _see(self, record: ObservedTask) -> None:
        """A Task is new or changed: others may depend on it, or on its key."""
        self._state.lineage.seen(record)
        if record.idempotency is not None:
            self._state.duplicates.seen(record)

    def set_aside(self, uid: str, now: Now) -> None:
        """The Task is there, in a state that cannot be read: it is looked at again once it is observed."""
        if self._state.is_over(uid):
            return
        self._state.unread.add(uid)
        if (entry := self._state.tasks.get(uid)) is not None:
            entry.aside = True
            self.advance(entry, now)

    def deleted(self, uid: str, now: Now) -> None:
        """The API server has the Task no more."""
        self._state.finals.discard(uid)
        self._state.unread.discard(uid)
        self._state.dead.pop(uid, None)
        entry = self._state.tasks.get(uid)
        if entry is not None:
            entry.note_deletion()
            self.advance(entry, now)
        else:
            self._state.lineage.deleted(uid)
            self._state.duplicates.deleted(uid)

    # --- the one next thing ---

    def advance(self, entry: TaskEntry, now: Now) -> None:
        """Look at all that is known of the Task, and ask for the one next thing."""
        if self._state.over or entry.under_way is not None or entry.uid not in self._state.tasks:
            return
        if entry.record.epoch > self._state.epoch:
            self._state.over = True  # a newer leader has written: this one is from the past
            return
        if now.boot < entry.not_until:
            return
        if entry.record.array is not None:
            self.arrays.advance(entry, now)
            return
        if entry.part is not None and not self.arrays.lets(entry, entry.part, now):
            return
        if entry.aside and entry.deletion is Deletion.NONE:
            self._leave_aside(entry, now)
            return
        if entry.deletion is not Deletion.NONE:
            self._advance_gone(entry, now)
        elif entry.record.phase.terminal:
            self._advance_terminal(entry, now)
        elif entry.record.phase is Phase.DEAD_LETTERED:
            self.letters.advance(entry, now)
        elif entry.outcome is not None:
            self._outcomes.advance(entry, entry.outcome, now)
        elif entry.ending is not None:
            self.endings.write(entry, entry.ending, now)
        elif entry.lease is None:
            self.place(entry, now)
        else:
            self.leases.advance(entry, entry.lease, now)

    def place(self, entry: TaskEntry, now: Now) -> None:
        """Nothing holds the Task: it waits, ends, or status shows an assignment that is not in the books."""
        record = entry.record
        if entry.part is not None and not self.arrays.keeps(entry, entry.part, now):
            return
        if record.phase is Phase.ASSIGNED:
            self.takeover.adopt_seen(entry, now)
        elif record.cancel:
            self.view.held(entry, Reason.CANCELLED, now)
            entry.ending = Ending(Phase.CANCELLED, Reason.CANCELLED, "cancelled while it waited")
            self.advance(entry, now)
        elif record.fault is not None:
            self.view.held(entry, record.fault.reason, now)
            entry.ending = Ending(Phase.FAILED, *record.fault)
            self.advance(entry, now)
        elif entry.uid in self._state.recovering:
            self.view.held(entry, Reason.RECOVERING, now)
        elif record.idempotency is not None and (original := self._state.duplicates.original(entry.uid)) is not None:
            self.dependents.follow(entry, original, now)
        else:
            self.view.waiting(entry, now)
            if record.task.parents:
                self.dependents.keep_pins(entry, now)

    def _leave_aside(self, entry: TaskEntry, now: Now) -> None:
        """Its present state cannot be read: nothing is begun or written. A lease goes on, and its outcome waits."""
        if entry.lease is not None and entry.lease.stage is LeaseStage.PLANNED:
            self.view.take_back(entry, now)
        if entry.lease is None:
            self.view.held(entry, Reason.UNREADABLE, now)

    def _advance_gone(self, entry: TaskEntry, now: Now) -> None:
        """A deleted Task is terminal; its slots stay held until its agent confirms the stop or the lease ends.

        One that a former leader assigned may run yet, as long as the API server has it.
        """
        if entry.lease is None and entry.record.phase is Phase.ASSIGNED and self._state.stood_at_takeover(entry):
            self.takeover.adopt_seen(entry, now)
            if entry.uid not in self._state.tasks:
                return
        if entry.outcome is not None:
            if entry.deletion is not Deletion.SURE and self._rules.read_before_gone:
                self._out.read(entry, Purpose.IS_GONE)
                return
            self._out.final(entry.outcome_pod, entry.outcome.lease, Verdict.GONE, "the Task was deleted")
            self.view.forget(entry, now, final=False)
        elif entry.may_still_run and self._rules.deleted_holds_slots:
            self._note_held(entry)
            self.clock.ask_to_stop(entry, Reason.CANCELLED, "the Task was deleted")
        else:
            if entry.ending is not None and entry.ending.reply is not None:
                self._out.final(entry.ending.reply_to, entry.ending.reply, Verdict.GONE, "the Task was deleted")
            self.view.forget(entry, now, final=False)

    def _note_held(self, entry: TaskEntry) -> None:
        """Have the next leader know of keys that are not free though their Task is gone."""
        lease, record = entry.lease, entry.record
        pod = self._state.pods.get(lease.agent_uid) if lease is not None else None
        if lease is None or pod is None or entry.noted_on or not still_held.holds_keys(record):
            return
        entry.noted_on = pod.uid
        value = still_held.written(record, lease.name, lease.pool, lease.lease_seconds, lease.hold_seconds)
        self._out.add(AnnotatePod(pod.uid, pod.namespace, pod.name, still_held.annotation(entry.uid), value))

    def _advance_terminal(self, entry: TaskEntry, now: Now) -> None:
        """The Task has ended: what runs of it is asked to stop, then it is forgotten."""
        if entry.may_still_run and entry.outcome is None:
            self.clock.ask_to_stop(entry, Reason.CANCELLED, "the Task has ended")
            return
        self.endings.answer(entry)
        self.view.forget(entry, now, final=True)
