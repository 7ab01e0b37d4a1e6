"""The operator's end, first part: what one leadership knows, and the few ways in which it is changed.

Every Task, lease, session, pod, pool and queue that the leadership knows of stands here, with the actions that are to
be taken. It keeps the core's view in step and asks for writes and reads; it decides nothing.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

from taskdist.api import Delivery, Dispatch, Reason
from taskdist.core import Core
from taskdist.core.events import AgentDrained, TaskGone, TaskHeld, TaskLeased, TaskWaiting
from taskdist.core.model import Agent, Key, Pool, Queue
from taskdist.protocol import status, still_held
from taskdist.protocol.books import Ask, Entry, Grave, Lease, Orphan, Session, Timers
from taskdist.protocol.dependencies import Lineage
from taskdist.protocol.duplicates import Duplicates, out_of_turns
from taskdist.protocol.messages import Final, LeaseName, ToAgent, Verdict
from taskdist.protocol.observations import (
    Action,
    AnnotatePod,
    DeletePod,
    Notice,
    Now,
    PodRecord,
    ReadTask,
    Send,
    TaskRecord,
    WriteStatus,
)
from taskdist.protocol.settings import LeaderSettings


class Ledger(ABC):
    """State of a leadership. At most one write or read of a Task is under way, so no answer is taken for another's."""

    def __init__(self, core: Core, epoch: int, settings: LeaderSettings | None = None, leadership: str = "") -> None:
        """`leadership` is random: it tells this leadership from another of the same epoch."""
        self.core = core
        self.epoch = epoch
        self._leadership = leadership
        self._settings = settings or LeaderSettings()
        self._over = False
        self._takeover = 0.0
        self._out: list[Action] = []
        self._token = 0
        self._asks: dict[int, str] = {}
        self._queues: dict[Key, Queue] = {}
        self._pools: dict[Key, Pool] = {}
        self._pods: dict[str, PodRecord] = {}
        self._lost: dict[str, PodRecord] = {}  # out of sight, and not known to be dead; as long as they hold leases
        self._dead_before: set[str] = set()  # known to have died before the takeover; empty after it
        self._tasks: dict[str, Entry] = {}
        self._finals: set[str] = set()
        self._unread: set[str] = set()  # set aside, not read since: what they were at the takeover may not be known
        self._lineage = Lineage()
        self._duplicates = Duplicates()
        self._dead: dict[str, Grave] = {}  # dead letters that nobody asks anything of
        self._leases: dict[str, dict[str, Entry]] = {}  # by pod uid, by Task uid
        self._sessions: dict[int, Session] = {}
        self._by_pod: dict[str, Session] = {}
        self._draining: set[str] = set()
        self._removing: set[str] = set()  # marked by a former leader, and being deleted by this one
        self._orphans: dict[tuple[str, LeaseName], Orphan] = {}  # by the pod whose agent speaks of it
        self._orphan_reads: dict[int, Orphan] = {}
        self._orphan_pauses: dict[int, Orphan] = {}  # by mark of the timer at whose end it is read again
        self._recovered = False  # nothing is decided before all that stands is known
        self._taken_over = False  # all that the lists of the takeover show has been looked at
        self._deferred: list[DeletePod] = []
        self._recovering: set[str] = set()  # Tasks that a former leader may have sent without recording it
        self._timers = Timers()
        self._last_confirmed: dict[str, Session] = {}  # by pod
        self._heard: set[str] = set()  # pods whose agent was confirmed by this leadership
        self._lost_unheard: set[str] = set()  # out of sight before they were heard; empty once nothing is recovering
        self._told: dict[str, Agent] = {}  # agents that the core has for ready
        self._sure_until = float("inf")
        self._late: list[Callable[[Now], None]] = []  # inputs that came after that
        self._reason_slot = self._reason_timer = 0.0  # when the next reason may be written, and the last wake for it
        self._reason_line: dict[str, int] = {}  # Tasks whose reason is to be written, the first come first
        self._last = Now(0.0, 0.0)

    # --- small things ---

    def _send(self, pod: str, message: ToAgent) -> bool:
        session = self._by_pod.get(pod)
        if session is None:
            return False
        self._out.append(Send(session.id, message))
        return True

    def _final(self, pod: str, name: LeaseName, verdict: Verdict, message: str = "") -> None:
        """The final reply. Without a session none is given: the agent says it again when it is back."""
        self._send(pod, Final(name, verdict, message))

    def _queue(self, record: TaskRecord) -> Queue:
        """The Task's queue, or default rules: Tasks outlive their queue."""
        key = record.task.queue_key
        return self._queues.get(key) or Queue(*key)

    def _lazy(self, queue: Queue, record: TaskRecord) -> bool:
        """Whether the agent hears of a lease before it is recorded. A Task with a key or a budget is recorded first in
        any queue: what runs unrecorded while the leader changes would not hold its key, nor its part of the budget."""
        task = record.task
        keyed = any(key is not None for key in (task.concurrency_key, task.ordering_key, record.idempotency))
        keyed = keyed or bool(task.budgets)
        return queue.dispatch is Dispatch.LAZY and queue.delivery is not Delivery.AT_MOST_ONCE and not keyed

    def _notice(
        self, entry: Entry, reason: Reason, message: str, lease: LeaseName | None = None, *, warning: bool = True
    ) -> None:
        task = entry.record.task
        text = status.clip(message, status.MAX_NOTICE)
        self._out.append(Notice(task.uid, task.namespace, task.name, reason, text, warning, lease))

    def _later(self, entry: Entry, seconds: float, now: Now) -> None:
        entry.not_until = now.boot + seconds
        self._timers.add(entry.not_until, "advance", entry.uid)

    def _write(self, entry: Entry, ask: Ask, patch: status.Status, body: bytes | None = None) -> None:
        self._token += 1
        self._asks[self._token] = entry.uid
        entry.asked = ask
        task, version = entry.record.task, entry.record.resource_version
        entry.asked_version = version
        parents = self._lineage.parents(task) if ask is Ask.ASSIGN else ()
        if self._lineage.unwritten(task):
            patch = patch | self._lineage.patch(task)
        first = entry.ending.copy_of if ask is Ask.ENDING and entry.ending is not None else None
        original = None
        if first is not None:
            patch, original = patch | {"duplicateOf": first.name}, (first.uid, first.name)
        self._out.append(
            WriteStatus(
                self._token, task.uid, task.namespace, task.name, version, patch, body, parents, result_of=original
            )
        )

    def _read(self, entry: Entry, ask: Ask, *, at: int = 0) -> None:
        self._token += 1
        self._asks[self._token] = entry.uid
        entry.asked = ask
        task = entry.record.task
        parents = self._lineage.parents(task) if ask is Ask.PAYLOAD else ()
        self._out.append(ReadTask(self._token, task.uid, task.namespace, task.name, parents, at))

    def _learn(self, entry: Entry, record: TaskRecord) -> None:
        """Older views of the same Task are ignored."""
        if self._is_newer(entry, record):
            entry.record = record
            self._see(record)

    def _is_newer(self, entry: Entry, record: TaskRecord) -> bool:
        return record.resource_version > entry.record.resource_version

    def _see(self, record: TaskRecord) -> None:
        """A Task is new or changed: others may depend on it, or on its key."""
        self._lineage.seen(record)
        self._duplicates.seen(record)

    # --- the core's view ---

    def _core_waiting(self, entry: Entry, now: Now) -> None:
        task = self._lineage.resolved(entry.record.task)
        if entry.core == "waiting" and entry.told == task:
            return
        self._begins_to_wait(entry, "waiting", now)
        entry.core, entry.told = "waiting", task
        self.core.handle(TaskWaiting(task), now.wall)

    def _core_held(self, entry: Entry, reason: Reason, now: Now) -> None:
        task = self._lineage.resolved(entry.record.task)
        if reason is Reason.DUPLICATE:
            task = out_of_turns(task)
        if entry.core != "held" or entry.told != task or entry.held_for is not reason:
            self._begins_to_wait(entry, "held", now)
            entry.core, entry.told, entry.held_for = "held", task, reason
            self.core.handle(TaskHeld(task, reason), now.wall)

    def _begins_to_wait(self, entry: Entry, how: str, now: Now) -> None:
        """Have its reason looked at soon, and then as long as it waits so."""
        if entry.core != how:
            entry.waits += 1
            entry.noted = None
            self._timers.add(now.boot + 1.0, "reason", entry.uid, entry.waits)

    def _core_leased(self, entry: Entry, agent_uid: str, now: Now) -> None:
        entry.core = "leased"
        self.core.handle(TaskLeased(entry.record.task, agent_uid), now.wall)

    def _set_lease(self, entry: Entry, lease: Lease) -> None:
        entry.lease = lease
        self._leases.setdefault(lease.agent_uid, {})[entry.uid] = entry

    def _drop_lease(self, entry: Entry) -> None:
        """Forget the lease; the caller tells the core what the Task is instead, then `_check_drained`."""
        lease = entry.lease
        if lease is None:
            return
        entry.lease = None
        of_agent = self._leases.get(lease.agent_uid, {})
        of_agent.pop(entry.uid, None)
        if not of_agent:
            self._leases.pop(lease.agent_uid, None)
            self._lost.pop(lease.agent_uid, None)
            self._forget_lost(lease.agent_uid)

    def _forget_lost(self, pod: str) -> None:
        """Of an agent that is out of sight, not connected and holds nothing, nothing is kept."""
        if pod not in self._pods and pod not in self._leases and pod not in self._by_pod:
            self._heard.discard(pod)
            self._last_confirmed.pop(pod, None)

    def _is_over(self, uid: str) -> bool:
        """Whether no attempt of the Task can be under way: it has ended, or is a dead letter."""
        return uid in self._finals or uid in self._dead

    def _check_drained(self, pod: str, now: Now) -> None:
        """Drain, then no lease held, then delete."""
        if pod in self._draining and self._holds_nothing(pod):
            self._draining.discard(pod)
            self.core.handle(AgentDrained(pod), now.wall)
        self._finish_removal(pod)

    def _holds_nothing(self, pod: str) -> bool:
        return pod not in self._leases

    def _forget(self, entry: Entry, now: Now, *, final: bool) -> None:
        """The Task is terminal or deleted, and nothing of it runs."""
        pod = entry.lease.agent_uid if entry.lease else ""
        if (noted := self._pods.get(entry.noted_on)) is not None:
            key = still_held.annotation(entry.uid)
            self._out.append(AnnotatePod(noted.uid, noted.namespace, noted.name, key, None))
        self._drop_lease(entry)
        del self._tasks[entry.uid]
        self._recovering.discard(entry.uid)
        self._lineage.over(entry.record, deleted=not final)
        if final:
            self._finals.add(entry.uid)
        else:
            self._duplicates.deleted(entry.uid)
        if entry.core:
            phase = entry.record.phase if entry.record.phase.terminal else None
            self.core.handle(TaskGone(entry.uid, phase), now.wall)
        if pod:
            self._check_drained(pod, now)

    # --- what later parts do ---

    @abstractmethod
    def _finish_removal(self, uid: str) -> None:
        """Delete what a former leader marked and may not have deleted, once nothing is held there."""

    @abstractmethod
    def _advance(self, entry: Entry, now: Now) -> None:
        """Look at all that is known of a Task, and ask for the one next thing."""

    @abstractmethod
    def _attempt_over(
        self,
        entry: Entry,
        reason: Reason,
        message: str,
        now: Now,
        *,
        retryable: bool = True,
        counted: bool = True,
        reply: LeaseName | None = None,
        delay: float = 0.0,
        died: str = "",
    ) -> None:
        """The present attempt ended without a result: nothing of it runs any more."""

    @abstractmethod
    def _settle(self, entry: Entry, lease: Lease, session: Session, now: Now, same: bool = False) -> None:
        """Compare a lease in the books with what its agent says it holds."""
