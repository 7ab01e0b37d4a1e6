"""A lease from the core's decision until it is in its agent's hands: in which order it is written and sent.

How long it is counted and what follows from its end is not decided here.
"""

from taskdist.api import Delivery, Phase, Reason, Reclaim
from taskdist.core.decisions import Assign
from taskdist.core.model import Queue
from taskdist.protocol import status
from taskdist.protocol.arrays.chunks import chunk_of
from taskdist.protocol.messages import Body, Grant, LeaseName, ParentResult
from taskdist.protocol.observations import Now, ObservedTask, Send, Terms
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import UNHEARD, CoreState, Lease, LeaseStage, Purpose, TaskEntry
from taskdist.protocol.operator.core_view import CoreView
from taskdist.protocol.operator.endings import Endings
from taskdist.protocol.operator.lease_clock import LeaseClock
from taskdist.protocol.operator.presence import Presence
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.operator.whole import Whole
from taskdist.protocol.rules import Rules
from taskdist.protocol.settings import LeaderSettings

# The rules of a queue whose spec is empty.
DEFAULTS = Queue("", "")


class Leases:
    """Leases from the core's decision until they are in their agents' hands.

    Owns the order of writing and sending: Strict writes first, Lazy sends first and records what still runs a little
    later. It does not count their time, and does not decide what follows from their end.
    """

    def __init__(
        self,
        state: State,
        out: Actions,
        view: CoreView,
        endings: Endings,
        clock: LeaseClock,
        presence: Presence,
        whole: Whole,
        settings: LeaderSettings,
        rules: Rules,
    ) -> None:
        self._state = state
        self._out = out
        self._view = view
        self._endings = endings
        self._clock = clock
        self._presence = presence
        self._whole = whole
        self._settings = settings
        self._rules = rules

    # --- how one is made ---

    def assign(self, decision: Assign, now: Now) -> None:
        """The core has decided which agent gets the Task."""
        entry = self._state.tasks.get(decision.task_uid)
        if entry is None:
            return  # a blank of an array, dropped for what was decided of another one
        record = entry.record
        name = LeaseName(entry.uid, record.attempt + 1, self._state.epoch)
        lease = self.new(entry, name, decision.agent_uid, decision.agent_name, decision.pool, self.terms(record))
        lease.message = decision.message
        lease.route = status.route(decision.rule, decision.step, decision.pool, decision.strategy, decision.score)
        entry.core = CoreState.LEASED
        self._view.set_lease(entry, lease)
        self._whole.advance(entry, now)

    def terms(self, record: ObservedTask) -> Terms:
        """The rules of a lease that is granted now: its queue's."""
        queue = self._state.queue_of(record)
        lazy = self._state.is_lazy(queue, record)
        return Terms(queue.lease_seconds, queue.hold_seconds, queue.reclaim, queue.delivery, not lazy)

    def terms_of_old(self, record: ObservedTask) -> Terms:
        """Return the rules of a lease that another release wrote without them.

        They are no shorter than the defaults, and no faster than its queue says by now.
        """
        terms = self.terms(record)
        return Terms(
            max(terms.lease_seconds, DEFAULTS.lease_seconds),
            max(terms.hold_seconds, DEFAULTS.hold_seconds),
            Reclaim.CONFIRMED if terms.reclaim is Reclaim.CONFIRMED else Reclaim.LEASE,
            terms.delivery,
            recorded_first=False,
        )

    def new(self, entry: TaskEntry, name: LeaseName, agent: str, agent_name: str, pool: str, terms: Terms) -> Lease:
        """Return a lease of the Task that is not in the books yet."""
        queue = self._state.queue_of(entry.record)
        prices = self._state.pools.get((entry.record.task.namespace, pool))
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
            agent_slots=self._state.slots_of(agent, prices),
        )

    # --- its next step ---

    def advance(self, entry: TaskEntry, lease: Lease, now: Now) -> None:
        """Take the next step of a Task that has a lease, and no outcome or end."""
        record = entry.record
        if lease.stage is LeaseStage.DOUBTED:
            self._resolve(entry, lease, now)
            return
        if lease.stage is LeaseStage.PLANNED and record.phase is Phase.ASSIGNED:
            self._view.take_back(entry, now)
            self._whole.advance(entry, now)
            return
        stop = self.stop_reason(entry, lease)
        if stop is not None:
            if lease.stage in UNHEARD or not self._rules.stop_is_awaited:
                self._endings.attempt_over(entry, stop, "stopped before it was sent", now, counted=False)
            else:
                self._clock.ask_to_stop(entry, stop, "the Task was cancelled" if record.cancel else "suspended")
        elif lease.stage is LeaseStage.PLANNED:
            self._begin(entry, lease, now)
        elif lease.stage is LeaseStage.UNSENT:
            self.send(entry, lease, None, now)
        elif lease.stage is LeaseStage.SENT:
            self._keep_record(entry, lease, now)

    def stop_reason(self, entry: TaskEntry, lease: Lease) -> Reason | None:
        """Return why the Task is not to run, if it is not."""
        if entry.record.cancel:
            return Reason.CANCELLED
        if entry.record.task.suspended and not (
            lease.delivery is Delivery.AT_MOST_ONCE and self._endings.may_have_run(lease)
        ):
            return Reason.SUSPENDED
        return None

    def _begin(self, entry: TaskEntry, lease: Lease, now: Now) -> None:
        """Strict: written before it is sent. Lazy: sent, and recorded if it still runs a little later."""
        if lease.agent_uid not in self._state.by_pod or entry.record.attempt >= lease.name.attempt:
            self._view.take_back(entry, now)
            self._whole.advance(entry, now)
            return
        lease.assigned_at = now.wall
        if lease.lazy or not self._rules.written_before_sent:
            lease.stage = LeaseStage.UNSENT
            lease.until = now.boot + lease.lease_seconds
            self._clock.start(entry, lease)
            # Only the payload is wanted. What the decision was made of need not be read again: Lazy sends without a
            # write that would fail where the Task has changed since.
            self._out.read(entry, Purpose.PAYLOAD, at=entry.record.resource_version)
            return
        lease.stage, lease.replaces = LeaseStage.WRITING, entry.record.resource_version
        self._out.write(entry, Purpose.ASSIGN, self._assignment(lease))

    def _resolve(self, entry: TaskEntry, lease: Lease, now: Now) -> None:
        """Find out what became of an assignment whose write was not answered.

        A newer version tells: the write is in it, or can land no more. Without one the same is written once more on the
        same version, so that whichever of the two lands first leaves no room for the other.
        """
        if self.in_doubt(entry, lease):
            lease.stage = LeaseStage.WRITING
            self._out.write(entry, Purpose.ASSIGN, self._assignment(lease))
            return
        if self.shows(entry, lease):
            self.stands(entry, lease, now)
        else:
            self._view.take_back(entry, now)
        self._whole.advance(entry, now)

    def in_doubt(self, entry: TaskEntry, lease: Lease) -> bool:
        """Whether its write may stand, and nothing newer tells."""
        return lease.stage is LeaseStage.DOUBTED and entry.record.resource_version <= lease.replaces

    def shows(self, entry: TaskEntry, lease: Lease) -> bool:
        """Whether status shows the assignment."""
        if not self._rules.late_assignment_is_adopted:
            return False
        record = entry.record
        return record.phase is Phase.ASSIGNED and record.lease_name == lease.name

    def stands(self, entry: TaskEntry, lease: Lease, now: Now) -> None:
        """The assignment is in status: from now on it may be sent."""
        lease.recorded, lease.stage = True, LeaseStage.UNSENT
        lease.until = now.boot + lease.lease_seconds
        self._clock.start(entry, lease)

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

    # --- sending it ---

    def send(
        self, entry: TaskEntry, lease: Lease, payload: Body | None, now: Now, parents: tuple[ParentResult, ...] = ()
    ) -> None:
        """Send the grant if the agent is there; else it waits for the agent as long as its lease would have run."""
        session = self._state.by_pod.get(lease.agent_uid)
        if session is None:
            if self._state.is_away(lease.agent_uid):
                self._endings.attempt_over(
                    entry, Reason.GIVEN_BACK, "its agent was gone before it was sent", now, counted=False
                )
            return
        if self._presence.crowded(session):
            return
        if payload is None:
            self._out.read(entry, Purpose.PAYLOAD)
            return
        task, chunk = entry.record.task, None
        if entry.part is not None:
            array = self._state.tasks[entry.part.array].record.array
            assert array is not None
            payload, chunk = chunk_of(entry.part.items, array.rules, payload)
        lease.stage = LeaseStage.SENT
        lease.until = self._clock.bound(lease, session.ping_receipt)
        lease.progress_at = now.boot + self._settings.first_progress_seconds
        self._clock.start(entry, lease)
        if lease.lazy and not lease.recorded:
            lease.record_at = now.boot + self._settings.lazy_record_seconds
            self._state.timers.add(lease.record_at, TimerKind.ADVANCE, entry.uid)
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
            chunk=chunk,
        )
        self._out.add(Send(session.id, grant))

    def _keep_record(self, entry: TaskEntry, lease: Lease, now: Now) -> None:
        """Record what a Lazy queue sent and still runs, and progress now and then."""
        if lease.lazy and not lease.recorded:
            if now.boot >= lease.record_at:
                self._out.write(entry, Purpose.RECORD, self._assignment(lease))
        elif lease.progress_due and lease.progress is not None and now.boot >= lease.progress_at:
            lease.progress_due = False
            lease.progress_at = now.boot + self._settings.progress_seconds
            self._out.write(entry, Purpose.NOTE, status.progressed(lease.progress))


def _first(own: float | None, of_queue: float | None) -> float:
    """A Task's own limit, else its queue's; 0 for none."""
    return own or of_queue or 0.0
