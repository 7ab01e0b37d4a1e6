"""The clock of leases, on this machine: until when each runs, and what happens when it or a limit runs out.

The operator counts from its receipt of a ping, plus a margin: so an agent has stopped before the lease ends here.
"""

from taskdist.api import Reason, Reclaim
from taskdist.protocol.attempt_limits import Due, next_due
from taskdist.protocol.messages import Cancel
from taskdist.protocol.observations import Now, RemovePod
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import UNWRITTEN, Lease, LeaseStage, TaskEntry
from taskdist.protocol.operator.endings import Endings
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings


class LeaseClock:
    """The operator's clock of leases: when one ends, when work is asked to stop, whether an attempt keeps its limits.

    It errs towards waiting: too late costs time, too early costs overlap.
    """

    def __init__(self, state: State, out: Actions, endings: Endings, settings: LeaderSettings, rules: Rules) -> None:
        self._state = state
        self._out = out
        self._endings = endings
        self._settings = settings
        self._rules = rules

    # --- until when a lease runs ---

    def start(self, entry: TaskEntry, lease: Lease) -> None:
        """Have a look when the lease ends, unless that is arranged already."""
        if not lease.timed:
            lease.timed = True
            self._state.timers.add(lease.until, TimerKind.LEASE, entry.uid, lease.name.attempt)

    def bound(self, lease: Lease, receipt: float) -> float:
        """Return until when a lease counts here: from the receipt of its ping, plus a margin."""
        return receipt + self._settings.beyond(lease.lease_seconds)

    def lease_due(self, entry: TaskEntry, attempt: int, now: Now) -> None:
        """The lease may have run out: renewals since put that off."""
        lease = entry.lease
        if lease is None or lease.name.attempt != attempt or not lease.timed:
            return
        lease.timed = False
        if lease.stage is LeaseStage.OVER or lease.stage in UNWRITTEN:
            return
        if now.boot < lease.until:
            self.start(entry, lease)
        elif lease.stage is LeaseStage.UNSENT:
            self._endings.attempt_over(
                entry, Reason.GIVEN_BACK, "its agent did not come back to take it", now, counted=False
            )
        else:
            self._lease_ended(entry, lease, now)

    def _lease_ended(self, entry: TaskEntry, lease: Lease, now: Now) -> None:
        """Nothing renewed it: its attempt is over, unless its queue waits for confirmed death."""
        if lease.reclaim is Reclaim.CONFIRMED and self._waits_for_death(lease):
            pod = self._state.pods.get(lease.agent_uid) or self._state.lost.get(lease.agent_uid)
            if pod is not None:
                message = "its agent is silent, and its queue waits for confirmed death: the pod is deleted"
                self._out.add(
                    RemovePod(pod.uid, pod.namespace, pod.name, Reason.AGENT_LOST, message, self._state.epoch)
                )
                self._out.notice(entry, Reason.AGENT_LOST, message, lease.name)
            lease.until = now.boot + self._settings.delete_again_seconds
            self.start(entry, lease)
            return
        if lease.cancelling is not None:
            self._endings.over_as_asked(entry, lease.cancelling, "its lease ended after it was asked to stop", now)
            return
        message = f"no word from its agent for the {lease.lease_seconds:g} s of its lease"
        self._endings.attempt_over(entry, Reason.LEASE_EXPIRED, message, now)

    def _waits_for_death(self, lease: Lease) -> bool:
        """Return whether the agent's pod may still be there."""
        if not self._rules.confirmed_waits_for_death:
            return False
        return lease.agent_uid in self._state.pods or lease.agent_uid in self._state.lost

    def ask_to_stop(self, entry: TaskEntry, reason: Reason, message: str) -> None:
        """Tell its agent to stop. Once asked, the lease is not renewed any more: so the end comes in any case."""
        lease = entry.lease
        if lease is None or lease.cancelling is not None or lease.stage is not LeaseStage.SENT:
            return
        lease.cancelling = reason
        self._out.send(lease.agent_uid, Cancel(lease.name, reason, message))

    # --- limits of an attempt ---

    def note_start(self, lease: Lease, since: float, now: Now) -> None:
        """The handler started `since` seconds ago, as its agent counts."""
        if lease.started_boot is None:
            lease.started_boot = now.boot - since
            lease.reported_boot = now.boot
            lease.started_at = self.start_of(lease.assigned_at, since or 1e-6, now)

    def start_of(self, assigned_at: float, since: float, now: Now) -> float:
        """Return the wall-clock time of a start `since` seconds ago, at the earliest the assignment; 0: not known."""
        return max(assigned_at, now.wall - since) if since else 0.0

    def watch(self, uid: str, lease: Lease) -> None:
        """Have a look when the agent should have ended it for its limits. Reports of progress only put that off."""
        due = self._limit(lease)
        if due is not None and not lease.watched and self._rules.operator_watches_limits:
            lease.watched = True
            self._state.timers.add(
                due.at + due.grace + self._settings.timeout_margin, TimerKind.LIMIT, uid, lease.name.attempt
            )

    def _limit(self, lease: Lease) -> Due | None:
        """Return which limit of the attempt is passed first, None if it has none or has not started."""
        if lease.started_boot is None:
            return None
        return next_due(lease.execution_seconds, lease.progress_seconds, lease.started_boot, lease.reported_boot)

    def limit_due(self, entry: TaskEntry, attempt: int, now: Now) -> None:
        """Its agent keeps the limits by itself: only one that does not is told to."""
        lease = entry.lease
        if lease is None or lease.name.attempt != attempt:
            return
        lease.watched = False
        due = self._limit(lease)
        if due is not None and now.boot >= due.at + due.grace + self._settings.timeout_margin:
            self.ask_to_stop(entry, due.reason, due.message)
        else:
            self.watch(entry.uid, lease)
