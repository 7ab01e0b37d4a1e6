"""The operator's end, second part: a lease from the core's decision to its end by time.

Owns the order of writing and sending, what happens to an assignment that is found in status, how long the operator
counts a lease, and what it does when that time is over. What follows an ended attempt is not decided here.
"""

from taskdist.api import Delivery, Phase, Reason, Reclaim
from taskdist.core.model import Pool, Queue
from taskdist.protocol import status
from taskdist.protocol.books import UNHEARD, UNWRITTEN, Ask, Ending, Entry, Lease, Session, Stage
from taskdist.protocol.kinship import Kinship
from taskdist.protocol.messages import Cancel, Grant, LeaseName, ParentResult
from taskdist.protocol.observations import DeletePod, Now, Send, TaskRecord, Terms
from taskdist.protocol.timeouts import TIMED_OUT, Due, next_due

# What a queue says that says nothing.
DEFAULTS = Queue("", "")


class Leases(Kinship):
    """How leases begin, are counted, and run out."""

    # --- without a lease ---

    def _place(self, entry: Entry, now: Now) -> None:
        """Nothing holds the Task: it waits, ends, or status shows an assignment that is not in the books."""
        record = entry.record
        if record.phase is Phase.ASSIGNED:
            self._adopt_seen(entry, now)
        elif record.cancel:
            self._core_held(entry, Reason.CANCELLED, now)
            entry.ending = Ending(Phase.CANCELLED, Reason.CANCELLED, "cancelled while it waited")
            self._advance(entry, now)
        elif record.fault is not None:
            self._core_held(entry, record.fault.reason, now)
            entry.ending = Ending(Phase.FAILED, *record.fault)
            self._advance(entry, now)
        elif entry.uid in self._recovering:
            self._core_held(entry, Reason.RECOVERING, now)
        elif (original := self._duplicates.original(entry.uid)) is not None:
            self._follow(entry, original, now)
        else:
            self._core_waiting(entry, now)
            self._keep_pins(entry, now)

    def _adopt_seen(self, entry: Entry, now: Now) -> None:
        """An assignment seen in status that the core does not hold is sent under its own name or reclaimed."""
        record = entry.record
        name = LeaseName(entry.uid, record.attempt, record.epoch)
        terms = record.terms or self._terms_of_old(record)
        lease = self._new_lease(entry, name, record.agent_uid, record.agent_name, record.pool, terms)
        lease.recorded, lease.assigned_at = True, record.assigned_at
        self._recovering.discard(entry.uid)
        self._set_lease(entry, lease)
        self._core_leased(entry, lease.agent_uid, now)
        session = self._by_pod.get(lease.agent_uid)
        if name.epoch == self.epoch or (self._landed_late(entry) and not (session and name in session.listed)):
            lease.stage = Stage.UNSENT  # what is not known to stand is never sent
            message = "it was assigned by a write that came late, and what it took may be another's by now"
            self._attempt_over(entry, Reason.GIVEN_BACK, message, now, counted=False)
            return
        lease.stage = Stage.FOREIGN
        lease.until = self._foreign_until(lease)
        if not self._taken_over and self._confirmed_dead(lease.agent_uid):
            message = "its agent was gone when a new leader took over"
            self._attempt_over(entry, Reason.AGENT_LOST, message, now, died=lease.agent_uid)
        elif session is not None:
            self._settle(entry, lease, session, now)
        else:
            self._time_lease(entry, lease)

    def _stood_at_takeover(self, entry: Entry) -> bool:
        """Whether what status shows of the Task now may have stood when this leader took over."""
        return not self._taken_over or entry.uid in self._unread

    def _adopt_held(self, record: TaskRecord, now: Now) -> None:
        """A former leader noted what a Task holds that was deleted while it ran: its agent may be stopping it yet."""
        uid = record.task.uid
        if uid in self._tasks or uid in self._finals or record.terms is None or record.epoch > self.epoch:
            return
        entry = self._tasks[uid] = Entry(record, gone=True, gone_sure=True, noted_on=record.agent_uid)
        self._duplicates.seen(record)
        name = LeaseName(uid, record.attempt, record.epoch)
        lease = self._new_lease(entry, name, record.agent_uid, record.agent_name, record.pool, record.terms)
        lease.recorded, lease.stage = True, Stage.FOREIGN
        lease.until = self._foreign_until(lease)
        self._set_lease(entry, lease)
        self._core_leased(entry, lease.agent_uid, now)
        self._time_lease(entry, lease)

    def _landed_late(self, entry: Entry) -> bool:
        """Whether a former leader's assignment is in no list of the takeover: that one could not send it any more,
        as it only sends what it knows to be recorded, and its leadership was over by then."""
        terms = entry.record.terms
        return not self._stood_at_takeover(entry) and terms is not None and terms.recorded_first

    def _foreign_until(self, lease: Lease) -> float:
        """A former leader's lease goes on, on hold, for at most hold seconds after the takeover."""
        if lease.reclaim is Reclaim.FAST:
            return self._takeover + self._settings.fast_takeover_seconds
        return self._takeover + self._settings.beyond(max(lease.hold_seconds, lease.lease_seconds))

    def _confirmed_dead(self, pod: str) -> bool:
        """Whether the agent is known to have ended. That no list shows its pod says nothing: its label may be gone."""
        record = self._pods.get(pod)
        dead = record.dead if record is not None else pod in self._dead_before
        return pod not in self._by_pod and dead

    def _is_away(self, pod: str) -> bool:
        """Whether the agent is not expected to take what was not sent to it yet."""
        record = self._pods.get(pod)
        return pod not in self._by_pod and (record is None or record.ended)

    def _terms(self, record: TaskRecord) -> Terms:
        """The rules of a lease that is granted now: its queue's."""
        queue = self._queue(record)
        lazy = self._lazy(queue, record)
        return Terms(queue.lease_seconds, queue.hold_seconds, queue.reclaim, queue.delivery, not lazy)

    def _terms_of_old(self, record: TaskRecord) -> Terms:
        """The rules of a lease that stands in status without them, as another release wrote it: no shorter than the
        defaults, no faster than its queue says by now."""
        terms = self._terms(record)
        return Terms(
            max(terms.lease_seconds, DEFAULTS.lease_seconds),
            max(terms.hold_seconds, DEFAULTS.hold_seconds),
            Reclaim.CONFIRMED if terms.reclaim is Reclaim.CONFIRMED else Reclaim.LEASE,
            terms.delivery,
            recorded_first=False,
        )

    def _new_lease(self, entry: Entry, name: LeaseName, agent: str, agent_name: str, pool: str, terms: Terms) -> Lease:
        queue = self._queue(entry.record)
        prices = self._pools.get((entry.record.task.namespace, pool))
        return Lease(
            name,
            agent,
            agent_name,
            pool,
            entry.record.task.queue_key,
            terms,
            terms.lease_seconds,
            terms.hold_seconds,
            execution_seconds=_first(entry.record.execution_limit, queue.timeouts.execution),
            progress_seconds=_first(entry.record.progress_limit, queue.timeouts.progress),
            prices=prices,
            agent_slots=self._slots_of(agent, prices),
        )

    def _slots_of(self, agent: str, pool: Pool | None) -> int:
        """How many slots the agent has; those that its pool gives where it has not said so yet."""
        told = self._told.get(agent)
        return told.slots if told is not None else pool.slots if pool is not None else 1

    # --- with a lease ---

    def _advance_lease(self, entry: Entry, lease: Lease, now: Now) -> None:
        record = entry.record
        if lease.stage is Stage.DOUBTED:
            self._resolve(entry, lease, now)
            return
        if lease.stage is Stage.PLANNED and record.phase is Phase.ASSIGNED:
            self._take_back(entry, now)
            self._advance(entry, now)
            return
        stop = self._stop_reason(entry, lease)
        if stop is not None:
            if lease.stage in UNHEARD:
                self._attempt_over(entry, stop, "stopped before it was sent", now, counted=False)
            else:
                self._ask_to_stop(entry, stop, "the Task was cancelled" if record.cancel else "suspended", now)
        elif lease.stage is Stage.PLANNED:
            self._begin(entry, lease, now)
        elif lease.stage is Stage.UNSENT:
            self._offer(entry, lease, None, now)
        elif lease.stage is Stage.SENT:
            self._keep_record(entry, lease, now)

    def _stop_reason(self, entry: Entry, lease: Lease) -> Reason | None:
        if entry.record.cancel:
            return Reason.CANCELLED
        if entry.record.task.suspended and not (lease.delivery is Delivery.AT_MOST_ONCE and self._may_have_run(lease)):
            return Reason.SUSPENDED
        return None

    def _may_have_run(self, lease: Lease) -> bool:
        """Under at-most-once, whatever may have run is never tried again."""
        return lease.stage not in UNHEARD

    def _begin(self, entry: Entry, lease: Lease, now: Now) -> None:
        """Strict: written before it is sent. Lazy: sent, and recorded if it still runs a little later."""
        if lease.agent_uid not in self._by_pod or entry.record.attempt >= lease.name.attempt:
            self._take_back(entry, now)
            self._advance(entry, now)
            return
        lease.assigned_at = now.wall
        if lease.lazy:
            lease.stage = Stage.UNSENT
            lease.until = now.boot + lease.lease_seconds
            self._time_lease(entry, lease)
            # Only the payload is wanted. What the decision was made of need not be read again: Lazy sends without a
            # write that would fail where the Task has changed since.
            self._read(entry, Ask.PAYLOAD, at=entry.record.resource_version)
            return
        lease.stage, lease.replaces = Stage.WRITING, entry.record.resource_version
        self._write(entry, Ask.ASSIGN, self._assignment(lease))

    def _resolve(self, entry: Entry, lease: Lease, now: Now) -> None:
        """Find out what became of an assignment whose write was not answered.

        A newer version tells: the write is in it, or can land no more. Without one the same is written once more on the
        same version, so that whichever of the two lands first leaves no room for the other.
        """
        if self._in_doubt(entry, lease):
            lease.stage = Stage.WRITING
            self._write(entry, Ask.ASSIGN, self._assignment(lease))
            return
        if self._shows(entry, lease):
            self._stands(entry, lease, now)
        else:
            self._take_back(entry, now)
        self._advance(entry, now)

    def _in_doubt(self, entry: Entry, lease: Lease) -> bool:
        return lease.stage is Stage.DOUBTED and entry.record.resource_version <= lease.replaces

    def _shows(self, entry: Entry, lease: Lease) -> bool:
        record = entry.record
        return record.phase is Phase.ASSIGNED and (record.attempt, record.epoch) == lease.name[1:]

    def _stands(self, entry: Entry, lease: Lease, now: Now) -> None:
        """The assignment is in status: from now on it may be sent."""
        lease.recorded, lease.stage = True, Stage.UNSENT
        lease.until = now.boot + lease.lease_seconds
        self._time_lease(entry, lease)

    def _assignment(self, lease: Lease) -> status.Status:
        return status.assigned(
            lease.name.attempt,
            lease.name.epoch,
            agent=lease.agent_name,
            agent_uid=lease.agent_uid,
            pool=lease.pool,
            terms=lease.terms,
            taken=lease.route or status.route("", 0, lease.pool),
            message=lease.message,
            wall=lease.assigned_at,
        )

    def _offer(
        self, entry: Entry, lease: Lease, payload: bytes | None, now: Now, parents: tuple[ParentResult, ...] = ()
    ) -> None:
        """Send the grant if the agent is there; else it waits for the agent as long as its lease would have run."""
        session = self._by_pod.get(lease.agent_uid)
        if session is None:
            if self._is_away(lease.agent_uid):
                self._attempt_over(
                    entry, Reason.GIVEN_BACK, "its agent was gone before it was sent", now, counted=False
                )
            return
        if self._crowded(session):
            return
        if payload is None:
            self._read(entry, Ask.PAYLOAD)
            return
        task = entry.record.task
        lease.stage = Stage.SENT
        lease.until = self._bound(lease, session.ping_receipt)
        lease.progress_at = now.boot + self._settings.first_progress_seconds
        self._time_lease(entry, lease)
        if lease.lazy and not lease.recorded:
            lease.record_at = now.boot + self._settings.lazy_record_seconds
            self._timers.add(lease.record_at, "advance", entry.uid)
        grant = Grant(
            lease=lease.name,
            namespace=task.namespace,
            name=task.name,
            type=task.type,
            slots=task.slots,
            ping_boot=session.ping_boot,
            lease_seconds=lease.lease_seconds,
            hold_seconds=lease.hold_seconds,
            resources=task.resources,
            payload=payload,
            parents=parents,
            execution_seconds=lease.execution_seconds,
            progress_seconds=lease.progress_seconds,
        )
        self._out.append(Send(session.id, grant))

    def _crowded(self, session: Session) -> bool:
        """Whether leases run there that are not in the books: it is not known how much room they leave."""
        return bool(session.strangers)

    def _bound(self, lease: Lease, receipt: float) -> float:
        """The operator counts from its receipt of the ping, which is never before the agent's sending, and a margin."""
        return receipt + self._settings.beyond(lease.lease_seconds)

    def _keep_record(self, entry: Entry, lease: Lease, now: Now) -> None:
        """Record what a Lazy queue sent and still runs, and progress now and then."""
        if lease.lazy and not lease.recorded:
            if now.boot >= lease.record_at:
                self._write(entry, Ask.RECORD, self._assignment(lease))
        elif lease.progress_due and lease.progress is not None and now.boot >= lease.progress_at:
            lease.progress_due = False
            lease.progress_at = now.boot + self._settings.progress_seconds
            self._write(entry, Ask.NOTE, status.progressed(lease.progress))

    def _ask_to_stop(self, entry: Entry, reason: Reason, message: str, now: Now) -> None:
        """Once asked, the lease is not renewed any more: so the end comes in any case."""
        lease = entry.lease
        if lease is None or lease.cancelling is not None or lease.stage is not Stage.SENT:
            return
        lease.cancelling = reason
        self._send(lease.agent_uid, Cancel(lease.name, reason, message))

    def _over_as_asked(self, entry: Entry, reason: Reason, message: str, now: Now) -> None:
        """It stopped because it was asked to. Only what had passed a limit of its own counts as a failure."""
        self._attempt_over(entry, reason, message, now, counted=reason in TIMED_OUT)

    def _take_back(self, entry: Entry, now: Now) -> None:
        """The assumption does not stand, and nothing of it was sent. What the Task is instead is for `_advance`."""
        lease = entry.lease
        if lease is None:
            return
        self._drop_lease(entry)
        if not entry.gone:
            self._core_held(entry, Reason.RECOVERING, now)
        self._check_drained(lease.agent_uid, now)

    # --- time of leases ---

    def _time_lease(self, entry: Entry, lease: Lease) -> None:
        if not lease.timed:
            lease.timed = True
            self._timers.add(lease.until, "lease", entry.uid, lease.name.attempt)

    def _lease_timer(self, entry: Entry, attempt: int, now: Now) -> None:
        lease = entry.lease
        if lease is None or lease.name.attempt != attempt or not lease.timed:
            return
        lease.timed = False
        if lease.stage is Stage.OVER or lease.stage in UNWRITTEN:
            return
        if now.boot < lease.until:
            self._time_lease(entry, lease)
        elif lease.stage is Stage.UNSENT:
            self._attempt_over(entry, Reason.GIVEN_BACK, "its agent did not come back to take it", now, counted=False)
        else:
            self._lease_ended(entry, lease, now)

    def _lease_ended(self, entry: Entry, lease: Lease, now: Now) -> None:
        if lease.reclaim is Reclaim.CONFIRMED and self._waits_for_death(lease):
            pod = self._pods.get(lease.agent_uid) or self._lost.get(lease.agent_uid)
            if pod is not None:
                message = "its agent is silent, and its queue waits for confirmed death: the pod is deleted"
                self._out.append(DeletePod(pod.uid, pod.namespace, pod.name, Reason.AGENT_LOST, message, self.epoch))
                self._notice(entry, Reason.AGENT_LOST, message, lease.name)
            lease.until = now.boot + self._settings.delete_again_seconds
            self._time_lease(entry, lease)
            return
        if lease.cancelling is not None:
            self._over_as_asked(entry, lease.cancelling, "its lease ended after it was asked to stop", now)
            return
        message = f"no word from its agent for the {lease.lease_seconds:g} s of its lease"
        self._attempt_over(entry, Reason.LEASE_EXPIRED, message, now)

    # --- limits of an attempt ---

    def _note_start(self, lease: Lease, since: float, now: Now) -> None:
        """The handler started so many seconds ago, as its agent counts."""
        if lease.started_boot is None:
            lease.started_boot = now.boot - since
            lease.reported_boot = now.boot
            lease.started_at = self._start_of(lease.assigned_at, since or 1e-6, now)

    def _start_of(self, assigned_at: float, since: float, now: Now) -> float:
        """Wall-clock time of a start so many seconds ago, 0 if that is not known; never before the assignment."""
        return max(assigned_at, now.wall - since) if since else 0.0

    def _watch(self, uid: str, lease: Lease) -> None:
        """Have a look when the agent should have ended it for its limits. Reports of progress only put that off."""
        due = self._limit(lease)
        if due is not None and not lease.watched:
            lease.watched = True
            self._timers.add(due.at + due.grace + self._settings.timeout_margin, "limit", uid, lease.name.attempt)

    def _limit(self, lease: Lease) -> Due | None:
        if lease.started_boot is None:
            return None
        return next_due(lease.execution_seconds, lease.progress_seconds, lease.started_boot, lease.reported_boot)

    def _limit_timer(self, entry: Entry, attempt: int, now: Now) -> None:
        """Its agent keeps the limits by itself: only one that does not is told to."""
        lease = entry.lease
        if lease is None or lease.name.attempt != attempt:
            return
        lease.watched = False
        due = self._limit(lease)
        if due is not None and now.boot >= due.at + due.grace + self._settings.timeout_margin:
            self._ask_to_stop(entry, due.reason, due.message, now)
        else:
            self._watch(entry.uid, lease)

    def _waits_for_death(self, lease: Lease) -> bool:
        return lease.agent_uid in self._pods or lease.agent_uid in self._lost


def _first(own: float | None, of_queue: float | None) -> float:
    """A Task's own limit, else its queue's; 0 for none."""
    return own or of_queue or 0.0
