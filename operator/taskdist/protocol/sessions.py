"""The operator's end, seventh part: agents, their sessions, and what they say of their leases.

A session counts from the agent's first word after the welcome: only then is it known that its sender lives, has seen
this epoch, and has given up its former session. Whatever its hello does not list does not run there.
"""

from taskdist.api import Delivery, Phase, Reason, Reclaim
from taskdist.core.events import AttemptUsed
from taskdist.protocol import status
from taskdist.protocol.books import LIVE, UNHEARD, Entry, Lease, Orphan, Session, Stage
from taskdist.protocol.messages import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    VERSION_REFUSED,
    AgentIdentity,
    Cancel,
    Capacity,
    Drain,
    Draining,
    Failure,
    FromAgent,
    HeldLease,
    Hello,
    LeaseName,
    Ping,
    Progress,
    Refused,
    Renew,
    Result,
    Started,
    Stopped,
    Verdict,
    Welcome,
    spoken_version,
)
from taskdist.protocol.observations import CloseSession, Now, RaiseEpoch, ReadTask, Send
from taskdist.protocol.presence import Presence

# The longest pause, in seconds, before a Task that an agent speaks of and that cannot be read is asked for again.
LONGEST_ORPHAN_PAUSE = 30.0


class Sessions(Presence):
    """What the operator's end knows of agents."""

    # --- coming and going ---

    def _connect(self, session_id: int, identity: AgentIdentity, hello: Hello, now: Now) -> None:
        refusal = self._refusal(identity, hello) or self._refusal_of_epoch(identity, hello)
        if refusal is not None:
            self._out += [Send(session_id, refusal), CloseSession(session_id, refusal.message)]
            return
        session = Session(session_id, identity, hello, hello.boot, now.boot, hello.slots, hello.resources)
        session.leaving = hello.draining
        session.version = spoken_version(hello.protocol_version, hello.oldest_version) or OLDEST_VERSION
        session.told_draining = self._drains(session.pod)
        session.listed = set(hello.leases)
        self._sessions[session_id] = session
        agent = self._clamped(session)
        slots = agent.slots if agent is not None else 0
        welcome = Welcome(
            self.epoch,
            slots,
            self._settings.ping_seconds,
            session.told_draining,
            protocol_version=session.version,
            leadership=self._leadership,
        )
        self._out.append(Send(session_id, welcome))
        if self._trusts_hello():
            self._confirm(session, now)

    def _trusts_hello(self) -> bool:
        """Whether a hello counts before its sender has answered the welcome. It may be late, and its sender dead."""
        return False

    def _refusal(self, identity: AgentIdentity, hello: Hello) -> Refused | None:
        if spoken_version(hello.protocol_version, hello.oldest_version) is None:
            message = (
                f"the agent speaks version {hello.protocol_version} of the link, the operator {OLDEST_VERSION} to "
                f"{PROTOCOL_VERSION}: use an agent of the operator's release, or of the one before or after it"
            )
            return Refused(VERSION_REFUSED, message)
        pod = self._pods.get(identity.pod_uid)
        if pod is not None and pod.ended and pod.dead:
            return Refused("PodEnded", "the pod has ended", retry=False)
        return None

    def _refusal_of_epoch(self, identity: AgentIdentity, hello: Hello) -> Refused | None:
        """An agent that has seen a later leadership, or another of this epoch, must not be spoken to: this one's Lease
        was made anew or is of a backup, and names of leases would mean two things."""
        seen = max((hello.highest_epoch, *(name.epoch for name in hello.leases)))
        names = (hello.leadership, self._leadership)
        another = hello.highest_epoch == self.epoch and all(names) and names[0] != names[1]
        if seen <= self.epoch and not another:
            return None
        message = f"the agent has seen epoch {seen} of another leadership, this one has {self.epoch}"
        if seen <= self.epoch + self._settings.most_epochs_ahead:
            self._out.append(RaiseEpoch(seen, identity.pod_uid, identity.namespace, identity.pool, message))
            message += ": the operator goes above it"
        else:
            message += ", and that is too far ahead to be believed: delete the pod"
        return Refused("EpochBehind", message)

    def _is_past(self, session: Session) -> bool:
        """Whether its sender has begun a later session since, or has ended: its first word came late.

        A sender that speaks after its welcome was alive when its hello was read here. The next session of its pod is
        dialled after it gave this one up, or after its process ended: so that hello is read later. No clock is asked.
        """
        last = self._last_confirmed.get(session.pod)
        pod = self._pods.get(session.pod)
        ended = pod is not None and session.hello.instance_id in pod.ended_instances
        return ended or (last is not None and session.id < last.id)

    def _confirm(self, session: Session, now: Now) -> None:
        """One session per pod uid: the latest of those whose sender has been heard after the welcome."""
        if self._is_past(session):
            self._replace(session)
            return
        session.confirmed = True
        pod = session.pod
        self._heard.add(pod)
        self._lost_unheard.discard(pod)
        former = self._by_pod.get(pod)
        if former is not None and former is not session:
            self._replace(former)
        self._by_pod[pod] = session
        last = self._last_confirmed.get(pod)
        same = last is not None and last.hello.instance_id == session.hello.instance_id
        session.former = last is not None and not same
        self._last_confirmed[pod] = session
        booked = [(entry, entry.lease) for entry in self._leases.get(pod, {}).values()]
        known = {lease.name for _, lease in booked if lease is not None}
        # First what is not in the books: as long as that runs there, nothing is sent.
        for name in session.hello.leases:
            if name not in known:
                self._listed(session, name, now)
        for entry, lease in booked:
            if lease is not None and entry.lease is lease:
                self._settle(entry, lease, session, now, same)
        self._refresh(pod, now)
        draining = self._drains(pod)
        # An agent of version 1 does not read it from the welcome, and keeps what a former leader said last.
        if session.version < 2 or draining != session.told_draining:
            self._out.append(Send(session.id, Drain(undo=not draining)))
        self._release_recovered(now)

    def _disconnect(self, session: Session, now: Now) -> None:
        if self._by_pod.get(session.pod) is not session:
            return
        del self._by_pod[session.pod]
        self._refresh(session.pod, now)
        for entry in list(self._leases.get(session.pod, {}).values()):
            lease = entry.lease
            if lease is not None and lease.stage is Stage.SENT and lease.reclaim is Reclaim.FAST:
                self._attempt_over(entry, Reason.AGENT_LOST, "the connection to its agent was lost", now)
        self._forget_lost(session.pod)

    def _drains(self, pod: str) -> bool:
        """Whether the agent gets no more work: it is to go, or its pod is going."""
        record = self._pods.get(pod)
        return pod in self._draining or (record is not None and (record.going or record.ended))

    # --- leases at a hello ---

    def _settle(self, entry: Entry, lease: Lease, session: Session, now: Now, same: bool = False) -> None:
        """Compare a lease in the books with what its agent says it holds."""
        listed = lease.name in session.listed
        if lease.stage is Stage.UNSENT:
            self._advance(entry, now)
        elif lease.stage is Stage.OVER:
            if listed:
                self._send(session.pod, Cancel(lease.name, Reason.LEASE_EXPIRED, "its lease ended"))
        elif lease.stage in LIVE and listed:
            self._keep(entry, lease, session, now)
        elif lease.stage in LIVE:
            self._unlisted(entry, lease, now, same, session.former)

    def _keep(self, entry: Entry, lease: Lease, session: Session, now: Now) -> None:
        """The agent holds it: it runs on. From the welcome on the agent counts from this hello, hold or not."""
        if lease.stage is Stage.FOREIGN:
            lease.stage = Stage.SENT
            if (agent := self._clamped(session)) is not None and agent.slots:
                lease.agent_slots = agent.slots
            lease.progress_at = now.boot + self._settings.first_progress_seconds
            self._as_held(lease, session)
            lease.until = self._bound(lease, session.ping_receipt)
            lease.timed = False  # the timer that stands is that of the hold, and later
            self._time_lease(entry, lease)
        lease.acknowledged = True
        if lease.cancelling is not None:
            self._send(session.pod, Cancel(lease.name, lease.cancelling))
        self._advance(entry, now)

    def _as_held(self, lease: Lease, session: Session) -> None:
        """Count the lease as its agent counts it: the queue may have been changed since it was granted."""
        held = self._held_in(session, lease.name)
        if held is not None:
            lease.lease_seconds, lease.hold_seconds = held.lease_seconds, held.hold_seconds
            lease.execution_seconds, lease.progress_seconds = held.execution_seconds, held.progress_seconds
        else:
            lease.lease_seconds = max(lease.lease_seconds, lease.hold_seconds)

    def _held_in(self, session: Session, name: LeaseName) -> HeldLease | None:
        return next((held for held in session.hello.held if held.lease == name), None)

    def _unlisted(self, entry: Entry, lease: Lease, now: Now, same: bool, died: bool = False) -> None:
        """The agent is back without it: nothing of it runs there. `died`: another instance of it was heard before."""
        if lease.cancelling is not None:
            self._over_as_asked(entry, lease.cancelling, "stopped", now)
        elif self._never_arrived(lease, same):
            lease.stage = Stage.UNSENT
            self._advance(entry, now)
        elif same:
            self._attempt_over(entry, Reason.LEASE_EXPIRED, "its agent stopped it while it was not connected", now)
        else:
            # Heard for the first time, it may be the one that stopped it while nobody led: no death is known.
            who = lease.agent_uid if died else ""
            self._attempt_over(entry, Reason.AGENT_LOST, "its agent started anew without it", now, died=who)

    def _never_arrived(self, lease: Lease, same: bool) -> bool:
        """Whether the grant was lost on the way: it is then sent again under the same name."""
        own = lease.stage is Stage.SENT and lease.name.epoch == self.epoch
        return own and same and not lease.acknowledged and lease.delivery is not Delivery.AT_MOST_ONCE

    def _listed(self, session: Session, name: LeaseName, now: Now) -> None:
        """The agent holds a lease that is not in the books as its."""
        entry = self._tasks.get(name.task_uid)
        if entry is None:
            session.strangers.add(name)
            if self._is_over(name.task_uid):
                self._send(session.pod, Cancel(name, Reason.CANCELLED, "the Task has ended"))
            else:
                self._orphan(session, name, None)
        elif entry.lease is None and entry.asked is None and self._unrecorded(entry, name, session.pod):
            self._adopt_unrecorded(entry, name, session, now)
        elif (
            entry.lease is None
            and entry.record.phase is Phase.ASSIGNED  # what waits again keeps in status whose its last attempt was
            and entry.record.agent_uid == session.pod
            and name[1:]
            == (
                entry.record.attempt,
                entry.record.epoch,
            )
        ):
            self._advance(entry, now)  # just being read again: it will be adopted as status shows it
        else:
            session.strangers.add(name)
            self._send(session.pod, Cancel(name, Reason.LEASE_EXPIRED, "its lease ended"))

    def _stranger_gone(self, session: Session, name: LeaseName, now: Now) -> None:
        """A lease that was not in the books holds nothing there any more: what waited for its room is sent."""
        session.strangers.discard(name)
        self._refresh(session.pod, now)
        if not session.strangers:
            for entry in list(self._leases.get(session.pod, {}).values()):
                if entry.lease is not None and entry.lease.stage is Stage.UNSENT:
                    self._advance(entry, now)

    def _adopt_unrecorded(self, entry: Entry, name: LeaseName, session: Session, now: Now) -> None:
        """A former leader sent it without recording it (Lazy): it is recorded now."""
        who = session.identity
        lease = self._new_lease(entry, name, who.pod_uid, who.pod_name, who.pool, self._terms(entry.record))
        lease.stage, lease.acknowledged = Stage.SENT, True
        lease.assigned_at, lease.record_at = now.wall, now.boot
        lease.progress_at = now.boot + self._settings.first_progress_seconds
        self._as_held(lease, session)
        lease.until = self._bound(lease, session.ping_receipt)
        self._recovering.discard(entry.uid)
        self._void(entry)
        self._set_lease(entry, lease)
        self._core_leased(entry, who.pod_uid, now)
        self._time_lease(entry, lease)
        self._advance(entry, now)

    def _release_recovered(self, now: Now) -> None:
        """Tasks that wait for a former leader's unrecorded leases wait no longer than for the last live agent."""
        if not self._recovering or not self._all_heard():
            return
        self._end_recovery(now)

    def _all_heard(self) -> bool:
        """Whether each agent that may hold a former leader's lease has said so. Out of sight is not dead."""
        return not self._lost_unheard and all(uid in self._heard or pod.dead for uid, pod in self._pods.items())

    def _end_recovery(self, now: Now) -> None:
        self._lost_unheard.clear()
        uids, self._recovering = self._recovering, set()
        for uid in sorted(uids):
            if (entry := self._tasks.get(uid)) is not None:
                self._advance(entry, now)
        deferred, self._deferred = self._deferred, []
        for action in deferred:
            if action.uid in self._leases:
                self._removing.discard(action.uid)  # it is not idle: it goes once it holds nothing
            else:
                self._out.append(action)

    # --- Tasks that are not known here ---

    def _orphan(self, session: Session, name: LeaseName, outcome: Result | Failure | None) -> None:
        """Before an agent hears "no such Task", it is read."""
        held, known = self._held_in(session, name), self._orphans.get((session.pod, name))
        if known is not None:
            known.outcome = outcome or known.outcome
        elif held is None or not self._reads_before_gone():
            self._tell_gone(session.pod, name, outcome)
        else:
            orphan = self._orphans[session.pod, name] = Orphan(name, session.pod, held.namespace, held.name, outcome)
            self._read_orphan(orphan)

    def _reads_before_gone(self) -> bool:
        return True

    def _read_orphan(self, orphan: Orphan) -> None:
        self._token += 1
        self._orphan_reads[self._token] = orphan
        self._out.append(ReadTask(self._token, orphan.name.task_uid, orphan.namespace, orphan.task_name))

    def _put_off_orphan(self, orphan: Orphan, now: Now) -> None:
        """It could not be read. Without a session nobody waits for the answer: the agent's next hello lists it."""
        if orphan.pod not in self._by_pod:
            del self._orphans[orphan.pod, orphan.name]
            return
        first = self._settings.retry_seconds
        orphan.pause = min(2 * orphan.pause, LONGEST_ORPHAN_PAUSE) if orphan.pause else first
        self._token += 1
        self._orphan_pauses[self._token] = orphan
        self._timers.add(now.boot + orphan.pause, "orphan", orphan.name.task_uid, self._token)

    def _tell_gone(self, pod: str, name: LeaseName, outcome: Result | Failure | None) -> None:
        if outcome is not None:
            self._final(pod, name, Verdict.GONE, "no such Task")
        else:
            self._send(pod, Cancel(name, Reason.CANCELLED, "no such Task"))

    # --- what agents say ---

    def _hear(self, session: Session, message: FromAgent, now: Now) -> None:
        if not session.confirmed:
            if isinstance(message, Ping):
                session.ping_boot, session.ping_receipt = message.boot, now.boot
            self._confirm(session, now)
            if not session.confirmed:
                return
        if isinstance(message, Result | Failure | Stopped) and message.lease in session.strangers:
            self._stranger_gone(session, message.lease, now)
        match message:
            case Ping():
                self._ping(session, message, now)
            case Started(name, since):
                if (lease := self._mine(session, name)) is not None:
                    lease.acknowledged = True
                    self._note_start(lease, since, now)
                    self._watch(name.task_uid, lease)
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
                self._refresh(session.pod, now)
            case Capacity():
                session.slots, session.resources = message.slots, message.resources
                self._refresh(session.pod, now)
            case Hello():
                self._sessions.pop(session.id, None)
                self._out.append(CloseSession(session.id, "a session has one hello"))
                self._disconnect(session, now)

    def _mine(self, session: Session, name: LeaseName) -> Lease | None:
        """The lease in the books that this agent may speak of."""
        entry = self._tasks.get(name.task_uid)
        lease = entry.lease if entry is not None else None
        return lease if lease is not None and lease.name == name and lease.agent_uid == session.pod else None

    def _ping(self, session: Session, message: Ping, now: Now) -> None:
        session.ping_boot, session.ping_receipt = message.boot, now.boot
        names = []
        for entry in self._leases.get(session.pod, {}).values():
            lease = entry.lease
            if lease is not None and lease.stage is Stage.SENT and lease.cancelling is None and not entry.ending:
                names.append(lease.name)
                lease.until = max(lease.until, self._bound(lease, now.boot))
        self._out.append(Send(session.id, Renew(self.epoch, message.boot, tuple(names))))

    def _progress(self, session: Session, message: Progress, now: Now) -> None:
        lease = self._mine(session, message.lease)
        if lease is None or lease.stage is not Stage.SENT:
            return
        lease.reported_boot = now.boot
        lease.progress = status.progress(message.fraction, message.message, now.wall)
        if not lease.progress_due:
            lease.progress_due = True
            self._timers.add(lease.progress_at, "advance", message.lease.task_uid)

    def _result(self, session: Session, message: Result, now: Now) -> None:
        name = message.lease
        entry = self._tasks.get(name.task_uid)
        if entry is None:
            if self._is_over(name.task_uid):
                self._final(session.pod, name, Verdict.ALREADY_FINAL, "the Task has ended")
            else:
                self._orphan(session, name, message)
            return
        if entry.outcome is not None:
            if (entry.outcome.lease, entry.outcome_pod) != (name, session.pod):
                self._final(session.pod, name, Verdict.STALE, "another result is being accepted")
            return
        if self._mine(session, name) is None and not self._may_come_late(entry, name, session):
            self._final(session.pod, name, Verdict.STALE, "a newer attempt was granted, or another agent holds it")
            return
        entry.outcome, entry.outcome_pod = message, session.pod
        entry.outcome_start = self._start_of(entry.record.assigned_at, message.since_start, now)
        if message.used and (lease := self._mine(session, name)) is not None:
            self._note_use(entry, lease, message.used, now)
        self._advance(entry, now)

    def _note_use(self, entry: Entry, lease: Lease, used: tuple[tuple[str, int], ...], now: Now) -> None:
        """What the attempt used of budgets, as its agent says, which can only speak of its own: what is stale is not
        asked. A name alone is a budget of the Task's own queue."""
        if lease.stage in UNHEARD:
            return
        task = entry.record.task
        names = {name: (queue, name) for queue, name, _ in task.budgets if queue == task.queue}
        names |= {f"{queue}/{name}": (queue, name) for queue, name, _ in task.budgets}
        known = tuple((*names[name], amount) for name, amount in used if name in names)
        if known:
            self.core.handle(AttemptUsed(entry.uid, known), now.wall)
        if unknown := ", ".join(name for name, _ in used if name not in names):
            text = f"attempt {lease.name.attempt} says what it used of {unknown}, of which the Task takes nothing"
            self._notice(entry, Reason.BUDGET_NOT_FOUND, text, lease.name)

    def _may_come_late(self, entry: Entry, name: LeaseName, session: Session) -> bool:
        """A lease that is over, while nothing newer is known to be granted. `_advance` has the last word."""
        lease = entry.lease
        if lease is not None and lease.stage not in UNHEARD:
            return False
        return name.attempt == entry.record.attempt or self._unrecorded(entry, name, session.pod)

    def _failure(self, session: Session, message: Failure, now: Now) -> None:
        name = message.lease
        entry = self._tasks.get(name.task_uid)
        if entry is None:
            if self._is_over(name.task_uid):
                self._final(session.pod, name, Verdict.ALREADY_FINAL, "the Task has ended")
            else:
                self._orphan(session, name, message)
            return
        lease = self._mine(session, name)
        if lease is None or lease.stage not in LIVE or entry.outcome is not None:
            if entry.ending is None or entry.ending.reply != name:
                self._final(session.pod, name, Verdict.STALE, "the attempt was over")
            return
        if entry.gone:
            self._final(session.pod, name, Verdict.GONE, "the Task was deleted")
        elif entry.record.phase not in (Phase.PENDING, Phase.ASSIGNED):
            self._final(session.pod, name, Verdict.ALREADY_FINAL, "the Task has ended")
        if message.since_start:
            self._note_start(lease, message.since_start, now)
        if message.used:
            self._note_use(entry, lease, message.used, now)
        text = status.clip(message.message)
        self._attempt_over(
            entry, message.reason, text, now, retryable=message.retryable, reply=name, put_off=message.retry_after
        )

    def _stopped(self, session: Session, message: Stopped, now: Now) -> None:
        lease = self._mine(session, message.lease)
        entry = self._tasks.get(message.lease.task_uid)
        if lease is None or entry is None or lease.stage not in LIVE or entry.outcome is not None:
            return
        text = status.clip(message.message)
        if lease.cancelling is not None:
            self._over_as_asked(entry, lease.cancelling, text or "stopped", now)
        elif not message.ran and not lease.acknowledged:
            lease.stage = Stage.UNSENT  # no user code ran: not even at-most-once minds another try
            delay = 0.0 if session.leaving else 1.0
            lease.recorded = lease.recorded or not lease.lazy
            self._attempt_over(entry, Reason.GIVEN_BACK, text or "refused", now, counted=False, delay=delay)
        elif session.leaving or session.pod in self._draining:
            self._attempt_over(entry, Reason.GIVEN_BACK, text or "given back", now, counted=False)
        else:
            self._attempt_over(entry, Reason.LEASE_EXPIRED, text or "stopped by its agent", now)
