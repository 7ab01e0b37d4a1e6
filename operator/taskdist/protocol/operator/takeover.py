"""Takeover of what a former leader left: Tasks, assignments in status, leases that it sent and did not record.

Its leases go on, on hold, until their agents announce them or their time is over.
"""

from collections.abc import Iterable

from taskdist.api import Phase, Reason, Reclaim
from taskdist.core.model import Queue
from taskdist.protocol.messages import LeaseName
from taskdist.protocol.observations import Now, ObservedTask
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import Deletion, Lease, LeaseStage, Session, TaskEntry
from taskdist.protocol.operator.core_view import CoreView
from taskdist.protocol.operator.endings import Endings
from taskdist.protocol.operator.lease_clock import LeaseClock
from taskdist.protocol.operator.lease_reconciler import LeaseReconciler
from taskdist.protocol.operator.leases import Leases
from taskdist.protocol.operator.removals import Removals
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.operator.whole import Whole
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings


class Takeover:
    """Takes over what a former leader left: Tasks, assignments in status, leases that it sent unrecorded.

    Its leases go on, on hold, until their agents announce them or their time is over. What may run unrecorded is waited
    for before it is decided on.
    """

    def __init__(
        self,
        state: State,
        out: Actions,
        view: CoreView,
        removals: Removals,
        endings: Endings,
        clock: LeaseClock,
        leases: Leases,
        reconciler: LeaseReconciler,
        whole: Whole,
        settings: LeaderSettings,
        rules: Rules,
    ) -> None:
        self._state = state
        self._out = out
        self._view = view
        self._removals = removals
        self._endings = endings
        self._clock = clock
        self._leases = leases
        self._reconciler = reconciler
        self._whole = whole
        self._settings = settings
        self._rules = rules

    # --- the lists ---

    def recover(self, tasks: Iterable[ObservedTask], now: Now) -> None:
        """Take over what a consistent list shows. Strict: what is unassigned there is handed out at once."""
        self._state.takeover, self._state.recovered = now.boot, True
        longest = 0.0
        tasks = list(tasks)
        self._state.lineage.listed(tasks)
        for record in tasks:
            self._state.duplicates.seen(record)
            uid = record.task.uid
            if record.phase.terminal:
                self._state.finals.add(uid)
                continue
            entry = self._state.tasks[uid] = TaskEntry(record)
            queue = self._state.queue_of(record)
            if self._may_run_unrecorded(record, queue):
                self._state.recovering.add(uid)
                longest = max(longest, queue.hold_seconds, queue.lease_seconds)
            if record.deleting:
                entry.deletion = Deletion.SEEN
        for pod in self._state.pods.values():
            for record in () if pod.dead else pod.still_held:
                self._adopt_held(record, now)
        for entry in list(self._state.tasks.values()):
            self._whole.advance(entry, now)
        self._state.taken_over = True
        self._state.dead_before.clear()
        for uid in self._state.pods:
            self._removals.finish_removal(uid)
        if self._state.recovering:
            self._state.timers.add(now.boot + self._settings.beyond(longest), TimerKind.RECOVERED)
            self.release_recovered(now)
        else:
            self._state.lost_unheard.clear()

    def _may_run_unrecorded(self, record: ObservedTask, queue: Queue) -> bool:
        """Return whether a former leader may have sent it though status does not show that (Lazy)."""
        return self._state.is_lazy(queue, record) and record.phase is Phase.PENDING

    # --- leases ---

    def adopt_seen(self, entry: TaskEntry, now: Now) -> None:
        """An assignment seen in status that the core does not hold is sent under its own name or reclaimed."""
        record = entry.record
        name = record.lease_name
        if name.epoch == self._state.epoch and not self._rules.late_assignment_is_adopted:
            return
        terms = record.terms or self._leases.terms_of_old(record)
        if not self._rules.former_lease_keeps_its_terms:
            terms = self._leases.terms(record)
        lease = self._leases.new(entry, name, record.agent_uid, record.agent_name, record.pool, terms)
        lease.recorded, lease.assigned_at = True, record.assigned_at
        self._state.recovering.discard(entry.uid)
        self._view.set_lease(entry, lease)
        self._view.leased(entry, lease.agent_uid, now)
        session = self._state.by_pod.get(lease.agent_uid)
        if name.epoch == self._state.epoch or (self._landed_late(entry) and not (session and name in session.listed)):
            lease.stage = LeaseStage.UNSENT  # what is not known to stand is never sent
            message = "it was assigned by a write that came late, and what it took may be another's by now"
            self._endings.attempt_over(entry, Reason.GIVEN_BACK, message, now, counted=False)
            return
        lease.stage = LeaseStage.FOREIGN
        lease.until = self._foreign_until(lease)
        if not self._state.taken_over and self._state.confirmed_dead(lease.agent_uid):
            message = "its agent was gone when a new leader took over"
            self._endings.attempt_over(entry, Reason.AGENT_LOST, message, now, died=lease.agent_uid)
        elif session is not None:
            self._reconciler.reconcile(entry, lease, session, now)
        else:
            self._clock.start(entry, lease)

    def _landed_late(self, entry: TaskEntry) -> bool:
        """Return whether a former leader's assignment is in no list of the takeover.

        That leader could not send it any more: it only sends what it knows to be recorded, and its leadership was over
        by then.
        """
        terms = entry.record.terms
        return not self._state.stood_at_takeover(entry) and terms is not None and terms.recorded_first

    def _foreign_until(self, lease: Lease) -> float:
        """Return until when a former leader's lease may run: on hold, for at most hold seconds after the takeover."""
        if not self._rules.takeover_waits:
            return self._state.takeover
        if lease.reclaim is Reclaim.FAST:
            return self._state.takeover + self._settings.fast_takeover_seconds
        return self._state.takeover + self._settings.beyond(max(lease.hold_seconds, lease.lease_seconds))

    def _adopt_held(self, record: ObservedTask, now: Now) -> None:
        """A former leader noted what a Task holds that was deleted while it ran: its agent may be stopping it yet."""
        uid = record.task.uid
        if (
            uid in self._state.tasks
            or uid in self._state.finals
            or record.terms is None
            or record.epoch > self._state.epoch
        ):
            return
        entry = self._state.tasks[uid] = TaskEntry(record, deletion=Deletion.SURE, noted_on=record.agent_uid)
        self._state.duplicates.seen(record)
        name = record.lease_name
        lease = self._leases.new(entry, name, record.agent_uid, record.agent_name, record.pool, record.terms)
        lease.recorded, lease.stage = True, LeaseStage.FOREIGN
        lease.until = self._foreign_until(lease)
        self._view.set_lease(entry, lease)
        self._view.leased(entry, lease.agent_uid, now)
        self._clock.start(entry, lease)

    def adopt_unrecorded(self, entry: TaskEntry, name: LeaseName, session: Session, now: Now) -> None:
        """A former leader sent it without recording it (Lazy): it is recorded now."""
        who = session.identity
        lease = self._leases.new(entry, name, who.pod_uid, who.pod_name, who.pool, self._leases.terms(entry.record))
        lease.stage, lease.acknowledged = LeaseStage.SENT, True
        lease.assigned_at, lease.record_at = now.wall, now.boot
        lease.progress_at = now.boot + self._settings.first_progress_seconds
        self._reconciler.as_held(lease, session)
        lease.until = self._clock.bound(lease, session.ping_receipt)
        self._state.recovering.discard(entry.uid)
        self._endings.void(entry)
        self._view.set_lease(entry, lease)
        self._view.leased(entry, who.pod_uid, now)
        self._clock.start(entry, lease)
        self._whole.advance(entry, now)

    # --- what may have been sent unrecorded ---

    def release_recovered(self, now: Now) -> None:
        """Tasks that wait for a former leader's unrecorded leases wait no longer than for the last live agent."""
        if not self._state.recovering or not self._all_heard():
            return
        self.end_recovery(now)

    def _all_heard(self) -> bool:
        """Return whether each agent that may hold a former leader's lease has said so. Out of sight is not dead."""
        if self._state.lost_unheard and self._rules.unseen_is_waited_for:
            return False
        return all(uid in self._state.heard or pod.dead for uid, pod in self._state.pods.items())

    def end_recovery(self, now: Now) -> None:
        """Nothing that a former leader sent unrecorded can still come to light."""
        self._state.lost_unheard.clear()
        uids, self._state.recovering = self._state.recovering, set()
        for uid in sorted(uids):
            if (entry := self._state.tasks.get(uid)) is not None:
                self._whole.advance(entry, now)
        deferred, self._state.deferred = self._state.deferred, []
        for action in deferred:
            if action.uid in self._state.leases:
                self._state.removing.discard(action.uid)  # it is not idle: it goes once it holds nothing
            else:
                self._out.add(action)
