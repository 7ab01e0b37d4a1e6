"""The records that a leadership keeps of Tasks, leases and sessions. No rule is here."""

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import NamedTuple

from taskdist.api import Delivery, Phase, Reason, Reclaim
from taskdist.core.cost import Spent
from taskdist.core.model import Key, Pool, Task
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet
from taskdist.protocol.duplicates import Original
from taskdist.protocol.messages import PROTOCOL_VERSION, AgentIdentity, Failure, HeldLease, Hello, LeaseName, Result
from taskdist.protocol.observations import ObservedTask, Terms
from taskdist.protocol.status import Status


class LeaseStage(Enum):
    """Stages of a lease, as the operator knows it."""

    PLANNED = auto()  # decided by the core, nothing written, nothing sent
    WRITING = auto()  # its write is under way
    DOUBTED = auto()  # its write was sent and not answered: it may stand, or land yet
    UNSENT = auto()  # it may be sent, and never was
    SENT = auto()  # the agent may run it
    FOREIGN = auto()  # found in status: the agent may run it, and has not announced itself since
    OVER = auto()  # nothing of it runs; the write that says so does not stand yet


LIVE = frozenset({LeaseStage.SENT, LeaseStage.FOREIGN})
UNHEARD = frozenset({LeaseStage.PLANNED, LeaseStage.WRITING, LeaseStage.DOUBTED, LeaseStage.UNSENT})
UNWRITTEN = frozenset({LeaseStage.PLANNED, LeaseStage.WRITING, LeaseStage.DOUBTED})


@dataclass(slots=True)
class Lease:
    """One attempt of a Task on one agent, as the operator counts it.

    Times named `until` and `…_boot` are on this machine's CLOCK_BOOTTIME; by `until` the agent has stopped the work.
    """

    name: LeaseName
    agent_uid: str
    agent_name: str
    pool: str
    queue: Key
    terms: Terms  # as granted
    reclaim: Reclaim = field(init=False)
    delivery: Delivery = field(init=False)
    lazy: bool = field(init=False)  # its agent hears of it before it is recorded
    lease_seconds: float  # as its agent counts it
    hold_seconds: float
    message: str = ""
    stage: LeaseStage = LeaseStage.PLANNED
    until: float = 0.0
    recorded: bool = False
    replaces: int = 0  # the version of the Task that its assignment is written on
    doubted: bool = False  # a write of it was not answered
    record_at: float = 0.0
    acknowledged: bool = False  # the agent was seen to have it
    cancelling: Reason | None = None
    assigned_at: float = 0.0
    started_at: float = 0.0
    progress: Status | None = None
    progress_at: float = 0.0  # not written before
    progress_due: bool = False
    timed: bool = False  # a timer for `until` stands
    execution_seconds: float = 0.0  # limits of the handler's run, 0 for none
    progress_seconds: float = 0.0
    started_boot: float | None = None  # when the handler started, on this machine's clock
    reported_boot: float = 0.0  # when it was last heard to have started or got on
    watched: bool = False  # a timer for its limits stands
    prices: Pool | None = None  # its pool as it was at the grant; None: it is not known
    agent_slots: int = 1
    route: Status | None = None  # by which way it came to the agent; None: status has it

    def __post_init__(self) -> None:
        self.reclaim, self.delivery = self.terms.reclaim, self.terms.delivery
        self.lazy = not self.terms.recorded_first


@dataclass(slots=True)
class Ending:
    """The decided end of an attempt or Task that is not written yet.

    Once it is written, the agent `reply_to` hears the final reply to `reply`. `on` is the Task as it stood when the
    core decided while it waited: if the Task changes before that is written, the core decides anew.
    """

    phase: Phase
    reason: Reason
    message: str
    failures: int | None = None
    not_before: float | None = None
    attempt: Status | None = None
    reply: LeaseName | None = None
    reply_to: str = ""
    copy_of: Original | None = None  # the Task that it ends like
    deaths: tuple[str, ...] = ()
    put_off: float = 0.0  # for how long in all its handlers have put it off, where this attempt did
    on: Task | None = None
    spent: Spent | None = None  # by the Task in all, fixed when its attempt was over; None: no attempt has ended
    spill_to: str = ""
    halved: bool = False  # a part of several items ends, which are handed out anew in halves


class CoreState(Enum):
    """State of a Task in the core, as the core was last told."""

    ABSENT = auto()  # it does not know of it
    WAITING = auto()
    HELD = auto()  # it waits for something that is not the core's business
    LEASED = auto()


class Purpose(Enum):
    """Purpose of a write or read of a Task: it says how the answer is taken in."""

    ASSIGN = auto()
    RECORD = auto()
    OUTCOME = auto()
    ENDING = auto()
    REDRIVE = auto()
    NOTE = auto()
    PAYLOAD = auto()
    IS_GONE = auto()
    COMMIT = auto()  # of an array: all that its parts have to write at that moment


class Deletion(Enum):
    """Knowledge of a Task's deletion."""

    NONE = auto()
    SEEN = auto()  # a watch told of it, which may come late or be wrong
    SURE = auto()  # a read of the API server has shown it


class NotedReason(NamedTuple):
    """The reason for which a Task was last seen to wait, and since when (boot time)."""

    reason: Reason
    since: float


@dataclass(slots=True)
class Part:
    """The items of a part of an array. Without items it is a blank: it gets some once an agent is found for it."""

    array: str  # uid
    key: str
    items: IndexSet = EMPTY
    failures: int = 0  # how often each of them has failed by itself before
    stored: bool = False  # status shows it
    succeeding: IndexSet = EMPTY  # items that have succeeded by a result which is being written


@dataclass(slots=True)
class TaskEntry:
    """One Task that has not ended, with its lease, its outcome and what is under way for it.

    At most one write or read of it is under way at a time.
    """

    record: ObservedTask
    uid: str = field(init=False)
    lease: Lease | None = None
    core: CoreState = CoreState.ABSENT
    told: Task | None = None  # the Task as the core was last told
    held_for: Reason | None = None  # why it was last told to hold it
    under_way: Purpose | None = None  # the write or read whose answer is awaited
    written_on: int = 0  # version of the Task that the last write replaces
    ending: Ending | None = None
    outcome: Result | None = None
    outcome_pod: str = ""
    outcome_tried: bool = False
    outcome_start: float = 0.0  # when its handler started (wall clock), 0 if that is not known
    aside: bool = False  # its present state cannot be read
    deletion: Deletion = Deletion.NONE
    noted_on: str = ""  # the pod on which it stands what it still holds though it is gone
    not_until: float = 0.0
    pins_due: float = 0.0  # when what is known of its parents is written, if nothing else is before
    waits: int = 0  # counts the times it began to wait: timers of earlier ones are void
    noted: NotedReason | None = None
    part: Part | None = None  # of a part of an array

    def __post_init__(self) -> None:
        self.uid = self.record.task.uid

    def note_deletion(self) -> None:
        """A watch told of its deletion. What is known for sure stays so."""
        if self.deletion is Deletion.NONE:
            self.deletion = Deletion.SEEN

    @property
    def holder(self) -> str:
        """Uid of the object that holds its status: its array's if it is a part."""
        return self.uid if self.part is None else self.part.array

    @property
    def may_still_run(self) -> bool:
        """Whether an agent may have it in hand, and its attempt's end is not decided."""
        return self.lease is not None and self.lease.stage in LIVE and self.ending is None


class DeadLetter(NamedTuple):
    """A dead letter that nobody asks anything of: its version tells newer views of it from older ones."""

    resource_version: int
    queue: Key


@dataclass(slots=True)
class Session:
    """One stream of an agent.

    It is only a claim until its agent is heard after the welcome (`confirmed`).
    """

    id: int
    identity: AgentIdentity
    hello: Hello
    ping_boot: float
    ping_receipt: float
    slots: int
    resources: tuple[tuple[str, int], ...]
    confirmed: bool = False
    leaving: bool = False
    version: int = PROTOCOL_VERSION  # what is spoken
    told_draining: bool = False  # what its welcome said
    former: bool = False  # this leadership has heard another instance of the agent before
    listed: set[LeaseName] = field(default_factory=set)
    strangers: set[LeaseName] = field(default_factory=set)  # held there, not in the books, and not stopped yet

    @property
    def pod(self) -> str:
        return self.identity.pod_uid

    def held(self, name: LeaseName) -> HeldLease | None:
        """Return what its hello says of this lease, None if it does not name it."""
        return next((held for held in self.hello.held if held.lease == name), None)


@dataclass(slots=True)
class Orphan:
    """A lease that an agent speaks of and whose Task is not known here: the Task is read before the agent hears so.

    It is read in the namespace and under the name that this agent gave. What another agent says of the same Task is
    another orphan.
    """

    name: LeaseName
    pod: str
    namespace: str
    task_name: str
    outcome: Result | Failure | None = None
    pause: float = 0.0  # before it was read last, which then failed
