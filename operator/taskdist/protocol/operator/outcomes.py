"""Results of agents: which one is accepted, and how it is written.

A late or forged one is refused by its lease's name. The final reply follows from the write's answer.
"""

from taskdist.api import Phase, Reason
from taskdist.protocol import status
from taskdist.protocol.messages import LeaseName, Result, Verdict
from taskdist.protocol.observations import Now
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import UNHEARD, Lease, Purpose, TaskEntry
from taskdist.protocol.operator.core_view import CoreView
from taskdist.protocol.operator.endings import Endings
from taskdist.protocol.operator.leases import Leases
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.whole import Whole
from taskdist.protocol.rules import Rules


class Outcomes:
    """Writes the results that agents report, and refuses those that are not theirs to report.

    A result is accepted while no newer attempt was granted; a late or forged one is refused by its lease's name.
    """

    def __init__(
        self, state: State, out: Actions, view: CoreView, endings: Endings, leases: Leases, whole: Whole, rules: Rules
    ) -> None:
        self._state = state
        self._out = out
        self._view = view
        self._endings = endings
        self._leases = leases
        self._whole = whole
        self._rules = rules

    def advance(self, entry: TaskEntry, outcome: Result, now: Now) -> None:
        """Write the Task's end with this result, or refuse the result."""
        if not self._acceptable(entry, outcome.lease, entry.outcome_pod):
            self._out.final(entry.outcome_pod, outcome.lease, Verdict.STALE, "a newer attempt was granted")
            entry.outcome = None
            self._whole.advance(entry, now)
            return
        lease = entry.lease
        mine = lease is not None and lease.name == outcome.lease
        if lease is not None and not mine:
            # Planned, not written: the late result ends the Task instead. One in doubt keeps what it took: the write of
            # the result is on the same version, so that only one of them stands.
            if not self._leases.in_doubt(entry, lease):
                self._view.take_back(entry, now)
            lease = None
        if entry.lease is None:
            self._view.held(entry, Reason.RECOVERING, now)
        entry.outcome_tried = True
        record = entry.record
        agent = (lease.agent_name, lease.agent_uid, lease.pool) if lease is not None else self._agent_of(entry)
        patch = status.ended(
            Phase.SUCCEEDED,
            outcome.lease.attempt,
            self._state.epoch,
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
            spent=self._endings.spent(entry, outcome.lease, now),
        )
        if not self._rules.reply_follows_write:
            self._out.final(entry.outcome_pod, outcome.lease, Verdict.ACCEPTED)
        self._out.write(entry, Purpose.OUTCOME, patch, outcome.body)

    def _acceptable(self, entry: TaskEntry, name: LeaseName, pod: str) -> bool:
        """Return whether no newer attempt was granted, and the lease names this agent."""
        lease, record = entry.lease, entry.record
        if not self._rules.result_beats_cancel and record.cancel and lease is not None:
            return False
        if not self._rules.stale_results_are_refused:
            return True
        if lease is not None and lease.name == name:
            return lease.agent_uid == pod
        if lease is not None and self._granted(lease):
            return False
        if name.attempt == record.attempt:
            return record.agent_uid == pod and name.epoch <= record.epoch
        return self._state.maybe_unrecorded(entry, name, pod)

    def _granted(self, lease: Lease) -> bool:
        """Return whether the attempt stands in status or was sent. A planned one gives way to a late result."""
        return lease.recorded or lease.stage not in UNHEARD

    def _agent_of(self, entry: TaskEntry) -> tuple[str, str, str] | None:
        session = self._state.by_pod.get(entry.outcome_pod)
        if session is None:
            return None
        return session.identity.pod_name, session.identity.pod_uid, session.identity.pool
