"""Inputs and outputs of the operator's end: what it observes, the actions it asks for, and the answers to these.

`Now` carries both clocks: `boot` (CLOCK_BOOTTIME of this machine) bounds leases, `wall` (Unix time) is written on
resources. They are never mixed.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from taskdist.api import Delivery, Phase, Reason, Reclaim
from taskdist.core.cost import NOTHING, Spent
from taskdist.core.model import Parent, Task, Trouble
from taskdist.protocol.arrays.account import Account, ArrayRules
from taskdist.protocol.messages import Body, LeaseName, ParentResult, ToAgent


class Now(NamedTuple):
    """The time of an input, in seconds: `boot` on CLOCK_BOOTTIME of this machine, `wall` since the Unix epoch."""

    boot: float
    wall: float


class TaskName(NamedTuple):
    """A Task of a namespace that is known: the uid tells it from others that bear its name later."""

    uid: str
    name: str


class Terms(NamedTuple):
    """The rules of one lease as it was granted. Its queue may say others by now. Times in seconds."""

    lease_seconds: float
    hold_seconds: float
    reclaim: Reclaim
    delivery: Delivery
    recorded_first: bool  # in status before its agent heard of it (Strict)


class Fault(NamedTuple):
    """A flaw of a Task's spec beyond repair: the Task ends with it as soon as it holds no lease."""

    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class ObservedTask:
    """A Task as the API server has it, without payload and result. `resource_version` is the server's, as a number."""

    task: Task
    resource_version: int
    phase: Phase = Phase.PENDING
    reason: Reason | None = None
    attempt: int = 0
    epoch: int = 0
    failures: int = 0
    agent_uid: str = ""
    agent_name: str = ""
    pool: str = ""
    assigned_at: float = 0.0
    cancel: bool = False
    payload_bytes: int = 0
    deleting: bool = False
    attempts: tuple[dict[str, Any], ...] = ()  # status.attempts as stored
    dropped_attempts: int = 0
    execution_limit: float | None = None  # the Task's own word, in seconds; None: the queue's
    progress_limit: float | None = None
    redrive: int = 0  # as asked
    redrives: int = 0  # as done
    finished_at: float = 0.0
    ttl: float | None = None  # seconds it is kept after its end; None: as its queue says
    duplicate_of: str = ""
    idempotency: tuple[str, str] | None = None  # its own queue and its key
    spent: Spent = NOTHING  # by the attempts that ended
    terms: Terms | None = None  # of the present attempt; None: there is none, or another release wrote it
    fault: Fault | None = None
    array: "ArrayView | None" = None  # of an array: its items
    part_of: str = ""  # of a part: the uid of its array

    @property
    def lease_name(self) -> LeaseName:
        """The name of the lease that status shows: that of the latest attempt."""
        return LeaseName(self.task.uid, self.attempt, self.epoch)


@dataclass(frozen=True, slots=True)
class ArrayView:
    """The items of an array as the API server has them. `parts` are those of its account, as Tasks of their own."""

    rules: ArrayRules
    account: Account
    parts: Mapping[str, ObservedTask]


@dataclass(frozen=True, slots=True)
class ObservedPod:
    """A pool's pod. `ended_instances` are the agent processes that are known to have ended, by their instance ids: of
    the agent container's present state and of the one before."""

    uid: str
    namespace: str
    name: str
    pool: str
    created: float
    ready: bool = False
    deleting: bool = False
    ended: bool = False  # phase Succeeded or Failed: its containers are gone for good
    ended_instances: tuple[str, ...] = ()
    template: str = ""  # names what it was made from
    topology: tuple[tuple[str, str], ...] = ()  # its labels of zone and region, its node's if nobody else set them
    trouble: Trouble | None = None  # what keeps it from coming up
    foreign: bool = False  # the pool that its label names did not make it
    may_run: bool = True  # it was bound to a node, and nothing says that the agent's container has ended
    still_held: tuple[ObservedTask, ...] = ()  # deleted Tasks that its agent may still run, as a leader noted
    removed_by: int = 0  # epoch of the leadership that marked it as to be deleted; 0: none did

    @property
    def going(self) -> bool:
        """Whether it is being deleted, or will be: it gets no work, and another takes its place."""
        return self.deleting or self.removed_by > 0

    @property
    def dead(self) -> bool:
        """Whether nothing of the agent runs, now and in future: its node has said so.

        A phase alone does not say it (the garbage collector sets it for pods of nodes that are cut off), nor does a
        deletion that was forced, nor one that nobody has carried out yet.
        """
        return (self.deleting or self.ended) and not self.may_run


# --- what it asks for (actions) ---


@dataclass(frozen=True, slots=True)
class WriteStatus:
    """Merge `status` into the Task's status if uid and resourceVersion still match. Answered by `write_done`.

    `token` ties the answer to the request. `lease` is the lease that the write assigns, if it assigns one.
    `body` is merged as `status.result` (JSON bytes, kept apart so that the machine never parses it) or as
    `status.resultRef`. `result_of` names a Task of the same namespace whose result is merged instead, if it has one.
    The results of `parents` are wanted with the answer.
    """

    token: int
    uid: str
    namespace: str
    name: str
    resource_version: int
    status: dict[str, Any]
    body: Body | None = None
    parents: tuple[Parent, ...] = ()
    result_of: TaskName | None = None


@dataclass(frozen=True, slots=True)
class ReadTask:
    """Read the Task from the API server, never from a cache. Answered by `read_done`, with the results of `parents`.

    `at`: a view of the Task at this very version will do as well; 0 for none.
    """

    token: int
    uid: str
    namespace: str
    name: str
    parents: tuple[Parent, ...] = ()
    at: int = 0


@dataclass(frozen=True, slots=True)
class Send:
    """Send the message on this session, after what was sent there before."""

    session: int
    message: ToAgent


@dataclass(frozen=True, slots=True)
class CloseSession:
    """End the session once what was sent before has gone out. `reason` is for people."""

    session: int
    reason: str


@dataclass(frozen=True, slots=True)
class RemovePod:
    """Mark the pod with this epoch, then delete it, with its uid as precondition of both.

    The mark is what binds the deletion to a leadership. It is known to stand before the deletion is sent, and
    leadership is asked for in between: so a deletion that arrives late finds a pod that the next leader saw marked at
    its takeover, and gave no work to. A mark that arrives late is followed by no deletion.
    """

    uid: str
    namespace: str
    name: str
    reason: Reason
    message: str
    epoch: int = 0


@dataclass(frozen=True, slots=True)
class AnnotatePod:
    """Set the annotation of the pod of this uid, or take it away (None)."""

    uid: str
    namespace: str
    name: str
    key: str
    value: str | None


@dataclass(frozen=True, slots=True)
class ScalePool:
    """The pool is to have `replicas` pods: becomes an Event on it, and its pods are looked at."""

    namespace: str
    pool: str
    replicas: int
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class PoolNotice:
    """News of a pool for people: becomes a Kubernetes Event on it, and a log line."""

    namespace: str
    pool: str
    reason: Reason
    message: str
    warning: bool = True


@dataclass(frozen=True, slots=True)
class Notice:
    """News of a Task for people: becomes a Kubernetes Event on it, and a log line."""

    uid: str
    namespace: str
    name: str
    reason: Reason
    message: str
    warning: bool = True
    lease: LeaseName | None = None


@dataclass(frozen=True, slots=True)
class RaiseEpoch:
    """Begin the leadership anew, with an epoch above this one: an agent has seen it under another leadership.

    Until then that agent heeds nothing that this leadership says.
    """

    above: int
    pod_uid: str
    namespace: str
    pool: str
    message: str


Action = (
    WriteStatus
    | ReadTask
    | Send
    | CloseSession
    | RemovePod
    | AnnotatePod
    | ScalePool
    | PoolNotice
    | Notice
    | RaiseEpoch
)


# --- answers to a write or a read ---


@dataclass(frozen=True, slots=True)
class Written:
    """The write stands. `payload` is the Task's, as the answer carries it.

    `parents` are the results that were asked for; None: they could not be read.
    """

    record: ObservedTask
    payload: Body = b"{}"
    parents: tuple[ParentResult, ...] | None = ()


@dataclass(frozen=True, slots=True)
class Conflict:
    """Somebody else wrote: nothing of ours stands. `record` is the Task as read again."""

    record: ObservedTask


@dataclass(frozen=True, slots=True)
class Gone:
    """The Task (this uid) does not exist."""


@dataclass(frozen=True, slots=True)
class WriteRefused:
    """The API server refuses it for good (invalid, too large)."""

    message: str
    too_large: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """No answer, and a later read did not show the write: it may still land. `record` is what was read, if anything."""

    record: ObservedTask | None = None


@dataclass(frozen=True, slots=True)
class NotSent:
    """The write was never sent (no connection, no leadership, told to slow down): nothing of it can land."""


WriteOutcome = Written | Conflict | Gone | WriteRefused | Unknown | NotSent


@dataclass(frozen=True, slots=True)
class Found:
    """The Task as it was read, with its payload and the results of the parents that were asked for."""

    record: ObservedTask
    payload: Body = field(default=b"{}")
    parents: tuple[ParentResult, ...] = ()


@dataclass(frozen=True, slots=True)
class ReadFailed:
    """The read did not succeed; it may be asked again."""


ReadOutcome = Found | Gone | ReadFailed
