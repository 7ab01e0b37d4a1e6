"""Agreement of both ends about leases, when an agent connects: the books against the list in its hello.

Whatever a hello does not list does not run there.
"""

from taskdist.api import Delivery, Reason
from taskdist.protocol.messages import Cancel
from taskdist.protocol.observations import Now
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import LIVE, Lease, LeaseStage, Session, TaskEntry
from taskdist.protocol.operator.endings import Endings
from taskdist.protocol.operator.lease_clock import LeaseClock
from taskdist.protocol.operator.presence import Presence
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.whole import Whole
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings


class LeaseReconciler:
    """Compares the leases in the books with what a hello says that its agent holds.

    What both have runs on, what the agent does not list is over, and a grant that never arrived is sent again.
    """

    def __init__(
        self,
        state: State,
        out: Actions,
        endings: Endings,
        clock: LeaseClock,
        presence: Presence,
        whole: Whole,
        settings: LeaderSettings,
        rules: Rules,
    ) -> None:
        self._state = state
        self._out = out
        self._endings = endings
        self._clock = clock
        self._presence = presence
        self._whole = whole
        self._settings = settings
        self._rules = rules

    def reconcile(self, entry: TaskEntry, lease: Lease, session: Session, now: Now, same: bool = False) -> None:
        """Compare a lease in the books with what its agent says it holds."""
        listed = lease.name in session.listed
        if lease.stage is LeaseStage.UNSENT:
            self._whole.advance(entry, now)
        elif lease.stage is LeaseStage.OVER:
            if listed:
                self._out.send(session.pod, Cancel(lease.name, Reason.LEASE_EXPIRED, "its lease ended"))
        elif lease.stage in LIVE and listed:
            self._keep(entry, lease, session, now)
        elif lease.stage in LIVE:
            self._unlisted(entry, lease, now, same, session.former)

    def _keep(self, entry: TaskEntry, lease: Lease, session: Session, now: Now) -> None:
        """The agent holds it: it runs on. From the welcome on the agent counts from this hello, hold or not."""
        if lease.stage is LeaseStage.FOREIGN:
            lease.stage = LeaseStage.SENT
            if (agent := self._presence.clamped(session)) is not None and agent.slots:
                lease.agent_slots = agent.slots
            lease.progress_at = now.boot + self._settings.first_progress_seconds
            self.as_held(lease, session)
            lease.until = self._clock.bound(lease, session.ping_receipt)
            lease.timed = False  # the timer that stands is that of the hold, and later
            self._clock.start(entry, lease)
        lease.acknowledged = True
        if lease.cancelling is not None:
            self._out.send(session.pod, Cancel(lease.name, lease.cancelling))
        self._whole.advance(entry, now)

    def as_held(self, lease: Lease, session: Session) -> None:
        """Count the lease as its agent counts it: the queue may have been changed since it was granted."""
        if not self._rules.former_lease_keeps_its_terms:
            return
        held = session.held(lease.name)
        if held is not None:
            lease.lease_seconds, lease.hold_seconds = held.lease_seconds, held.hold_seconds
            lease.execution_seconds, lease.progress_seconds = held.execution_seconds, held.progress_seconds
        else:
            lease.lease_seconds = max(lease.lease_seconds, lease.hold_seconds)

    def _unlisted(self, entry: TaskEntry, lease: Lease, now: Now, same: bool, died: bool = False) -> None:
        """The agent is back without it: nothing of it runs there. `died`: another instance of it was heard before."""
        if not (same or self._rules.new_instance_ends_leases):
            return
        if lease.cancelling is not None:
            self._endings.over_as_asked(entry, lease.cancelling, "stopped", now)
        elif self._never_arrived(lease, same):
            lease.stage = LeaseStage.UNSENT
            self._whole.advance(entry, now)
        elif same:
            self._endings.attempt_over(
                entry, Reason.LEASE_EXPIRED, "its agent stopped it while it was not connected", now
            )
        else:
            # Heard for the first time, it may be the one that stopped it while nobody led: no death is known.
            who = lease.agent_uid if died or not self._rules.first_heard_is_no_death else ""
            self._endings.attempt_over(entry, Reason.AGENT_LOST, "its agent started anew without it", now, died=who)

    def _never_arrived(self, lease: Lease, same: bool) -> bool:
        """Return whether the grant was lost on the way: it is then sent again under the same name."""
        own = lease.stage is LeaseStage.SENT and lease.name.epoch == self._state.epoch
        return own and same and not lease.acknowledged and lease.delivery is not Delivery.AT_MOST_ONCE
