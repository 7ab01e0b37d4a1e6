"""Everything that one leadership knows, in one value. It holds no rules, and does nothing by itself."""

from dataclasses import dataclass, field

from taskdist.api import Delivery, Dispatch, Phase
from taskdist.core.model import Agent, Key, Pool, Queue
from taskdist.protocol.arrays.sizing import Paces
from taskdist.protocol.dependencies import Lineage
from taskdist.protocol.duplicates import Duplicates
from taskdist.protocol.messages import LeaseName, array_uid
from taskdist.protocol.observations import Now, ObservedPod, ObservedTask, RemovePod
from taskdist.protocol.operator.array_books import ArrayBook
from taskdist.protocol.operator.books import DeadLetter, Lease, Session, TaskEntry
from taskdist.protocol.operator.timers import TimerKind, Timers


@dataclass(slots=True)
class State:
    """The knowledge of one leadership: Tasks, leases, agents, queues, pools, and when something is due.

    The parts of the operator's end share it, and each changes what it owns. State itself only answers plain questions.
    """

    epoch: int
    leadership: str = ""  # random: it tells this leadership from another of the same epoch
    over: bool = False  # nothing is decided, written or renewed any more
    takeover: float = 0.0  # when it took over (boot time)
    recovered: bool = False  # nothing is decided before all that stands is known
    taken_over: bool = False  # all that the lists of the takeover show has been looked at

    queues: dict[Key, Queue] = field(default_factory=dict)
    pools: dict[Key, Pool] = field(default_factory=dict)

    # Tasks by uid
    tasks: dict[str, TaskEntry] = field(default_factory=dict)  # those that are not over
    finals: set[str] = field(default_factory=set)  # those that have ended
    dead: dict[str, DeadLetter] = field(default_factory=dict)  # dead letters that nobody asks anything of
    unread: set[str] = field(default_factory=set)  # set aside since: what they were at the takeover may not be known
    recovering: set[str] = field(default_factory=set)  # a former leader may have sent them without recording it
    lineage: Lineage = field(default_factory=Lineage)
    duplicates: Duplicates = field(default_factory=Duplicates)
    arrays: dict[str, ArrayBook] = field(default_factory=dict)  # those that are not over
    paces: Paces = field(default_factory=Paces)
    arrays_again: dict[str, None] = field(default_factory=dict)  # arrays that are to be looked at
    keys: int = 0  # how many were given to parts and writes of arrays
    wishing: dict[str, None] = field(default_factory=dict)  # arrays whose parts have something to write
    leases: dict[str, dict[str, TaskEntry]] = field(default_factory=dict)  # Tasks with a lease, by pod

    # Pods by uid, and their agents
    pods: dict[str, ObservedPod] = field(default_factory=dict)
    lost: dict[str, ObservedPod] = field(default_factory=dict)  # out of sight, not known to be dead, and hold leases
    dead_before: set[str] = field(default_factory=set)  # known to have died before the takeover; empty after it
    sessions: dict[int, Session] = field(default_factory=dict)
    by_pod: dict[str, Session] = field(default_factory=dict)  # the session that counts
    last_confirmed: dict[str, Session] = field(default_factory=dict)
    heard: set[str] = field(default_factory=set)  # their agent was confirmed by this leadership
    lost_unheard: set[str] = field(default_factory=set)  # out of sight before that; empty once nothing is recovering
    told: dict[str, Agent] = field(default_factory=dict)  # agents that the core has for ready
    draining: set[str] = field(default_factory=set)
    removing: set[str] = field(default_factory=set)  # marked by a former leader, and being deleted by this one
    deferred: list[RemovePod] = field(default_factory=list)  # until it is known what a former leader sent unrecorded

    timers: Timers = field(default_factory=Timers)

    def next_key(self) -> str:
        """Return a name that no part and no write of an array has had, in this leadership and in any other."""
        self.keys += 1
        return f"{self.epoch}-{self.keys}"

    def queue_of(self, record: ObservedTask) -> Queue:
        """Return the Task's queue, or default rules: Tasks outlive their queue."""
        key = record.task.queue_key
        return self.queues.get(key) or Queue(*key)

    def is_lazy(self, queue: Queue, record: ObservedTask) -> bool:
        """Return whether the agent hears of a lease before it is recorded.

        A Task with a key or a budget is recorded first in any queue: what runs unrecorded while the leader changes
        would not hold its key, nor its part of the budget. So is a part of an array: nobody else knows its items.
        """
        if record.part_of or record.array is not None:
            return False
        task = record.task
        keyed = any(key is not None for key in (task.concurrency_key, task.ordering_key, record.idempotency))
        keyed = keyed or bool(task.budgets)
        return queue.dispatch is Dispatch.LAZY and queue.delivery is not Delivery.AT_MOST_ONCE and not keyed

    def is_over(self, uid: str) -> bool:
        """Return whether no attempt of the Task can be under way: it has ended, or is a dead letter.

        Of an array that is known all parts are known: a former leader sent only what it had recorded.
        """
        if uid in self.finals or uid in self.dead:
            return True
        array = array_uid(uid)
        return array != uid and uid not in self.tasks and (array in self.arrays or self.is_over(array))

    def is_closed(self, entry: TaskEntry, now: Now) -> bool:
        """Return whether a part of an array may not write now: its array is being written, or was a moment ago."""
        if entry.part is None:
            return False
        whole = self.arrays[entry.part.array].entry
        return whole.under_way is not None or now.boot < whole.not_until

    def drains(self, pod: str) -> bool:
        """Return whether the agent gets no more work: it is to go, or its pod is going."""
        record = self.pods.get(pod)
        return pod in self.draining or (record is not None and (record.going or record.ended))

    def confirmed_dead(self, pod: str) -> bool:
        """Return whether the agent is known to have ended. A pod in no list says nothing: its label may be gone."""
        record = self.pods.get(pod)
        dead = record.dead if record is not None else pod in self.dead_before
        return pod not in self.by_pod and dead

    def is_away(self, pod: str) -> bool:
        """Return whether the agent is not expected to take what was not sent to it yet."""
        record = self.pods.get(pod)
        return pod not in self.by_pod and (record is None or record.ended)

    def own_lease(self, session: Session, name: LeaseName) -> Lease | None:
        """Return the lease in the books of which this agent may speak, None if the name means no such lease."""
        entry = self.tasks.get(name.task_uid)
        lease = entry.lease if entry is not None else None
        return lease if lease is not None and lease.name == name and lease.agent_uid == session.pod else None

    def slots_of(self, agent: str, pool: Pool | None) -> int:
        """Return how many slots the agent has; what its pool gives where it has not said so yet."""
        told = self.told.get(agent)
        return told.slots if told is not None else pool.slots if pool is not None else 1

    def stood_at_takeover(self, entry: TaskEntry) -> bool:
        """Return whether what status shows of the Task now may have stood when this leader took over."""
        return not self.taken_over or entry.holder in self.unread

    def maybe_unrecorded(self, entry: TaskEntry, name: LeaseName, pod: str) -> bool:
        """Return whether it may be a lease that a former leader sent without recording it (Lazy)."""
        record, session = entry.record, self.by_pod.get(pod)
        queue = self.queue_of(record)
        return (
            self.is_lazy(queue, record)
            and record.phase is Phase.PENDING
            and name.attempt == record.attempt + 1
            and record.epoch <= name.epoch < self.epoch
            and session is not None
            and session.identity.namespace == record.task.namespace
            and (
                session.identity.pool in queue.all_pools
                or session.identity.pool == record.task.pool
                or session.identity.pod_name == record.task.agent
            )
        )

    def put_off(self, entry: TaskEntry, seconds: float, now: Now) -> None:
        """Do nothing about the Task for `seconds`; then take its next step."""
        entry.not_until = now.boot + seconds
        self.timers.add(entry.not_until, TimerKind.ADVANCE, entry.uid)

    def forget_lost(self, pod: str) -> None:
        """Keep nothing of an agent that is out of sight, not connected and holds nothing."""
        if pod not in self.pods and pod not in self.leases and pod not in self.by_pod:
            self.heard.discard(pod)
            self.last_confirmed.pop(pod, None)
