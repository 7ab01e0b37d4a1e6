"""Sessions of agents: who is welcomed, which session of a pod counts, and what its hello lists.

A session counts from the agent's first word after the welcome: only then is it known that its sender lives, has seen
this epoch, and has given up its former session.
"""

from taskdist.api import Phase, Reason, Reclaim
from taskdist.protocol.messages import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    VERSION_REFUSED,
    AgentIdentity,
    Cancel,
    Drain,
    Hello,
    LeaseName,
    Refused,
    Welcome,
    are_two_leaderships,
    spoken_version,
)
from taskdist.protocol.observations import CloseSession, Now, RaiseEpoch, Send
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import LeaseStage, Session
from taskdist.protocol.operator.orphans import Orphans
from taskdist.protocol.operator.presence import Presence
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.tasks import Tasks
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings


class Sessions:
    """Streams of agents: who is welcomed or refused, and which session of a pod counts.

    A session counts from its agent's first word after the welcome. Whatever its hello does not list does not run there.
    """

    def __init__(
        self,
        state: State,
        out: Actions,
        presence: Presence,
        tasks: Tasks,
        orphans: Orphans,
        settings: LeaderSettings,
        rules: Rules,
    ) -> None:
        self._state = state
        self._out = out
        self._presence = presence
        self._tasks = tasks
        self._endings = tasks.endings
        self._reconciler = tasks.reconciler
        self._takeover = tasks.takeover
        self._orphans = orphans
        self._settings = settings
        self._rules = rules

    # --- coming and going ---

    def connect(self, session_id: int, identity: AgentIdentity, hello: Hello, now: Now) -> None:
        """Welcome or refuse an agent that says hello. It may be late, and its sender dead: it is only a claim yet."""
        refusal = self._refusal(identity, hello) or self._refusal_of_epoch(identity, hello)
        if refusal is not None:
            self._out.add(Send(session_id, refusal))
            self._out.add(CloseSession(session_id, refusal.message))
            return
        session = Session(session_id, identity, hello, hello.boot, now.boot, hello.slots, hello.resources)
        session.leaving = hello.draining
        session.version = spoken_version(hello.protocol_version, hello.oldest_version) or OLDEST_VERSION
        session.told_draining = self._state.drains(session.pod)
        session.listed = set(hello.leases)
        self._state.sessions[session_id] = session
        agent = self._presence.clamped(session)
        slots = agent.slots if agent is not None else 0
        welcome = Welcome(
            self._state.epoch,
            slots,
            self._settings.ping_seconds,
            session.told_draining,
            protocol_version=session.version,
            leadership=self._state.leadership,
        )
        self._out.add(Send(session_id, welcome))
        if not self._rules.hello_counts_once_heard:
            self.confirm(session, now)

    def _refusal(self, identity: AgentIdentity, hello: Hello) -> Refused | None:
        """Return why the agent cannot be spoken to: by its version, or because its pod has ended."""
        if spoken_version(hello.protocol_version, hello.oldest_version) is None:
            message = (
                f"the agent speaks version {hello.protocol_version} of the link, the operator {OLDEST_VERSION} to "
                f"{PROTOCOL_VERSION}: use an agent of the operator's release, or of the one before or after it"
            )
            return Refused(VERSION_REFUSED, message)
        pod = self._state.pods.get(identity.pod_uid)
        if pod is not None and pod.ended and pod.dead:
            return Refused("PodEnded", "the pod has ended", retry=False)
        return None

    def _refusal_of_epoch(self, identity: AgentIdentity, hello: Hello) -> Refused | None:
        """Return why an agent that has seen another leadership cannot be spoken to.

        If that one is later or of this epoch, names of leases would mean two things: the Lease was made anew, or is of
        a backup.
        """
        if not self._rules.epochs_only_grow:
            return None
        seen = max((hello.highest_epoch, *(name.epoch for name in hello.leases)))
        same_epoch = hello.highest_epoch == self._state.epoch
        another = same_epoch and are_two_leaderships(hello.leadership, self._state.leadership)
        if seen <= self._state.epoch and not another:
            return None
        message = f"the agent has seen epoch {seen} of another leadership, this one has {self._state.epoch}"
        if seen <= self._state.epoch + self._settings.most_epochs_ahead:
            self._out.add(RaiseEpoch(seen, identity.pod_uid, identity.namespace, identity.pool, message))
            message += ": the operator goes above it"
        else:
            message += ", and that is too far ahead to be believed: delete the pod"
        return Refused("EpochBehind", message)

    def confirm(self, session: Session, now: Now) -> None:
        """One session per pod uid: the latest of those whose sender has been heard after the welcome."""
        if self._is_past(session):
            self._presence.close(session)
            return
        session.confirmed = True
        pod = session.pod
        self._state.heard.add(pod)
        self._state.lost_unheard.discard(pod)
        former = self._state.by_pod.get(pod)
        if former is not None and former is not session:
            self._presence.close(former)
        self._state.by_pod[pod] = session
        last = self._state.last_confirmed.get(pod)
        same = last is not None and last.hello.instance_id == session.hello.instance_id
        session.former = last is not None and not same
        self._state.last_confirmed[pod] = session
        booked = [(entry, entry.lease) for entry in self._state.leases.get(pod, {}).values()]
        known = {lease.name for _, lease in booked if lease is not None}
        # First what is not in the books: as long as that runs there, nothing is sent.
        for name in session.hello.leases:
            if name not in known:
                self.listed(session, name, now)
        for entry, lease in booked:
            if lease is not None and entry.lease is lease:
                self._reconciler.reconcile(entry, lease, session, now, same)
        self._presence.refresh(pod, now)
        draining = self._state.drains(pod)
        # An agent of version 1 does not read it from the welcome, and keeps what a former leader said last.
        if session.version < 2 or draining != session.told_draining:
            self._out.add(Send(session.id, Drain(undo=not draining)))
        self._takeover.release_recovered(now)

    def _is_past(self, session: Session) -> bool:
        """Return whether its sender has begun a later session since, or has ended: its first word came late.

        A sender that speaks after its welcome was alive when its hello was read here. The next session of its pod is
        dialled after it gave this one up, or after its process ended: so that hello is read later. No clock is asked.
        """
        if not self._rules.past_sessions_are_refused:
            return False
        last = self._state.last_confirmed.get(session.pod)
        pod = self._state.pods.get(session.pod)
        ended = pod is not None and session.hello.instance_id in pod.ended_instances
        return ended or (last is not None and session.id < last.id)

    def disconnect(self, session: Session, now: Now) -> None:
        """The stream has ended. Its leases go on to their end, unless their queue reclaims fast."""
        if self._state.by_pod.get(session.pod) is not session and self._rules.one_session_per_pod:
            return
        self._state.by_pod.pop(session.pod, None)
        self._presence.refresh(session.pod, now)
        for entry in list(self._state.leases.get(session.pod, {}).values()):
            lease = entry.lease
            if lease is not None and lease.stage is LeaseStage.SENT and lease.reclaim is Reclaim.FAST:
                self._endings.attempt_over(entry, Reason.AGENT_LOST, "the connection to its agent was lost", now)
        self._state.forget_lost(session.pod)

    # --- what is not in the books ---

    def listed(self, session: Session, name: LeaseName, now: Now) -> None:
        """The agent holds a lease that is not in the books as its."""
        entry = self._state.tasks.get(name.task_uid)
        if entry is None:
            session.strangers.add(name)
            if self._state.is_over(name.task_uid):
                self._out.send(session.pod, Cancel(name, Reason.CANCELLED, "the Task has ended"))
            else:
                self._orphans.speak_of(session, name, None)
        elif entry.lease is None and entry.under_way is None and self._state.maybe_unrecorded(entry, name, session.pod):
            self._takeover.adopt_unrecorded(entry, name, session, now)
        elif (
            entry.lease is None
            and entry.record.phase is Phase.ASSIGNED  # what waits again keeps in status whose its last attempt was
            and entry.record.agent_uid == session.pod
            and name == entry.record.lease_name
        ):
            self._tasks.advance(entry, now)  # just being read again: it will be adopted as status shows it
        else:
            session.strangers.add(name)
            self._out.send(session.pod, Cancel(name, Reason.LEASE_EXPIRED, "its lease ended"))

    def stranger_gone(self, session: Session, name: LeaseName, now: Now) -> None:
        """A lease that was not in the books holds nothing there any more: what waited for its room is sent."""
        session.strangers.discard(name)
        self._presence.refresh(session.pod, now)
        if not session.strangers:
            for entry in list(self._state.leases.get(session.pod, {}).values()):
                if entry.lease is not None and entry.lease.stage is LeaseStage.UNSENT:
                    self._tasks.advance(entry, now)
