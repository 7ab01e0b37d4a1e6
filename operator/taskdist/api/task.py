"""The Task kind: one unit of work."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field, StringConstraints

from taskdist.api.arrays import ArraySpec, ArrayStatus
from taskdist.api.attempts import AttemptRecord, Progress
from taskdist.api.budgets import BudgetUse
from taskdist.api.leasing import LeaseTerms
from taskdist.api.meta import (
    ANY_JSON_OBJECT,
    AS_SET,
    Amounts,
    Condition,
    LabelSelector,
    Message,
    Model,
    Name,
    ObjectMeta,
    Word,
    as_map,
)
from taskdist.api.objects import MAX_INLINE_BYTES, ObjectRef
from taskdist.api.reasons import Phase, Reason
from taskdist.api.strategies import Strategy

# Bytes of JSON. The API server cannot bound an object of unknown fields, so the operator enforces both.
MAX_PAYLOAD_BYTES = MAX_INLINE_BYTES
MAX_RESULT_BYTES = MAX_INLINE_BYTES
# What status keeps of ended attempts: all that a queue may allow (100 retries) and some that do not count, in at most
# so many bytes of JSON. The messages of older ones are shortened first; what is dropped at last is counted.
MAX_ATTEMPT_RECORDS = 128
MAX_ATTEMPT_BYTES = 64 * 1024
# The spec's fields that may change after creation.
MUTABLE_FIELDS = ("suspend", "cancel", "priority", "pool", "agent", "redrive")
# How many label selectors may say what a Task prefers.
MAX_PREFERRED = 8
# How many Tasks one may depend on.
MAX_DEPENDENCIES = 32

# A value that Tasks have in common: those of one key limit or follow each other.
KeyValue = Annotated[str, StringConstraints(min_length=1, max_length=253)]
# Zones and regions: values of labels.
Place = Annotated[str, StringConstraints(min_length=1, max_length=63)]


class Priority(StrEnum):
    """The levels, highest first. Emergency stands apart: only tenants that the queue names may use it."""

    EMERGENCY = "Emergency"
    CRITICAL = "Critical"
    HIGH = "High"
    NORMAL = "Normal"
    LOW = "Low"
    BACKGROUND = "Background"

    @property
    def level(self) -> int:
        """From 0, the lowest, to 5."""
        return len(Priority) - 1 - list(Priority).index(self)

    @classmethod
    def of(cls, level: int) -> "Priority":
        """The level of this number."""
        return list(cls)[len(cls) - 1 - level]


class OnDependencyFailure(StrEnum):
    """What becomes of a Task if one that it depends on does not succeed."""

    FAIL = "Fail"
    SKIP = "Skip"
    RUN = "Run"


class Timeouts(Model):
    """How long a Task may take. What is absent has no limit, or on a Task: the queue's."""

    waiting_seconds: Annotated[float, Field(ge=0.001, le=31_536_000)] | None = Field(
        default=None, description="Longest time from creation to the first start, in seconds; then the Task is Failed."
    )
    execution_seconds: Annotated[float, Field(ge=0.001, le=31_536_000)] | None = Field(
        default=None, description="Longest time that one attempt may run, in seconds; then it has failed."
    )
    progress_seconds: Annotated[float, Field(ge=0.001, le=31_536_000)] | None = Field(
        default=None,
        description="Longest time that a running attempt may go without reporting progress, in seconds; then it has "
        "failed.",
    )


class Dependency(Model):
    """A Task that has to end first."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=253)] = Field(
        description="Name of a Task in the same namespace. It is pinned by its uid once it is seen."
    )


class Preference(Model):
    """Labels that the agent should rather carry."""

    weight: Annotated[int, Field(ge=1, le=100)] = Field(
        default=1, description="How much this counts: the weights of all that an agent meets are added up."
    )
    selector: LabelSelector = Field(description="The labels. Agents carry the labels of their pods.")


class TaskSpec(Model):
    """What to do, and what it needs. Only suspend, cancel, priority, pool and agent may change after creation."""

    queue: Name = Field(description="Name of the TaskQueue, in the same namespace, in which the Task waits.")
    type: Word = Field(description="What kind of work this is: the agent picks the handler registered for it.")
    payload: dict[str, Any] = Field(
        default_factory=dict,
        description="Input of the handler, any JSON object of at most 64 KiB.",
        json_schema_extra=ANY_JSON_OBJECT,
    )
    payload_ref: ObjectRef | None = Field(
        default=None, description="Where the input stands that is larger than that, instead of payload."
    )
    array: ArraySpec | None = Field(
        default=None, description="Makes the Task stand for many items: each goes to the handler by itself."
    )
    priority: Priority = Field(
        default=Priority.NORMAL,
        description="Emergency, Critical, High, Normal, Low or Background: higher goes first. May be changed while the "
        "Task waits. Emergency is for tenants that the queue names.",
    )
    tenant: Word | None = Field(
        default=None, description="On whose account it runs: tenants share by weight. The namespace, if absent."
    )
    deadline: datetime | None = Field(
        default=None, description="When it should have succeeded. Among its like, what must start first goes first."
    )
    not_before: datetime | None = Field(default=None, description="It is not started before this time.")
    timeouts: Timeouts | None = Field(default=None, description="How long it may take, instead of the queue's word.")
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=31_536_000)] | None = Field(
        default=None, description="How long it is kept after its end, in seconds, instead of the queue's word."
    )
    concurrency_key: KeyValue | None = Field(
        default=None, description="Of the queue's Tasks with this key, only so many run at once as the queue says."
    )
    ordering_key: KeyValue | None = Field(
        default=None, description="Of the queue's Tasks with this key, one runs after the other, oldest first."
    )
    idempotency_key: KeyValue | None = Field(
        default=None,
        description="Of the queue's Tasks with this key, the first is run; others end as it does. The key is free "
        "again once the first is deleted.",
    )
    depends_on: Annotated[list[Dependency], Field(max_length=MAX_DEPENDENCIES)] = Field(
        default_factory=list,
        description="Tasks that have to end first; the handler gets their results.",
        json_schema_extra=as_map("name"),
    )
    on_dependency_failure: OnDependencyFailure = Field(
        default=OnDependencyFailure.FAIL,
        description="What happens if one of them does not succeed: Fail, Skip (it is Cancelled) or Run (all the same).",
    )
    pool: Name | None = Field(
        default=None,
        description="Run on this AgentPool only, instead of the queue's routes and pools. May be changed.",
    )
    agent: Annotated[str, StringConstraints(min_length=1, max_length=253)] | None = Field(
        default=None,
        description="Run on this agent only, named by its pod, of whichever pool in the namespace. May be changed.",
    )
    slots: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="How many slots of one agent the Task occupies."
    )
    resources: Amounts = Field(
        default_factory=dict, description="Named resources of one agent that the Task occupies, as whole numbers."
    )
    skills: Annotated[list[Word], Field(max_length=32)] = Field(
        default_factory=list,
        description="Skills that the agent must have.",
        json_schema_extra=AS_SET,
    )
    budgets: Annotated[list[BudgetUse], Field(max_length=8)] = Field(
        default_factory=list,
        description="What each attempt takes of budgets that Tasks share.",
        json_schema_extra=as_map("name"),
    )
    agent_selector: LabelSelector | None = Field(
        default=None, description="Labels that the agent must carry. Agents carry the labels of their pods."
    )
    zones: Annotated[list[Place], Field(max_length=16)] = Field(
        default_factory=list,
        description="Zones that the agent may be in (its label topology.kubernetes.io/zone), nearest first; empty: "
        "any.",
    )
    regions: Annotated[list[Place], Field(max_length=16)] = Field(
        default_factory=list,
        description="Regions that the agent may be in (its label topology.kubernetes.io/region), nearest first; "
        "empty: any.",
    )
    max_cost_per_hour: Annotated[float, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="The agent's pool may cost at most this much: its costPerHour."
    )
    min_quality: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0, description="The agent's pool must be at least this good: its quality."
    )
    preferred: Annotated[list[Preference], Field(max_length=MAX_PREFERRED)] = Field(
        default_factory=list,
        description="Labels that the agent should rather carry: of the agents with room, those that meet most by "
        "weight are chosen from.",
    )
    wait_for_preferred_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = Field(
        default=0,
        description="How long it waits for an agent that meets at least one of the preferred selectors before any "
        "other may run it, in seconds; 0: not at all.",
    )
    sticky_key: KeyValue | None = Field(
        default=None,
        description="Of the queue's Tasks with this key, each goes to the agent that the last one went to, if that "
        "has room.",
    )
    suspend: bool = Field(
        default=False,
        description="Hold the Task. A waiting one keeps its place; a running one is stopped and waits again.",
    )
    cancel: bool = Field(
        default=False, description="End the Task as Cancelled, at any stage. Cannot be taken back once true."
    )
    redrive: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Raise it to let a dead letter wait again, with its failures forgotten."
    )


class DependencyStatus(Model):
    """How a Task that it depends on stands."""

    name: Annotated[str, Field(max_length=253)] = Field(description="Its name.")
    uid: Annotated[str, Field(max_length=64)] = Field(default="", description="Its uid, once it was seen.")
    phase: Phase | None = Field(default=None, description="How it ended; absent as long as it has not.")


class RouteTaken(Model):
    """By which way the Task came to its agent."""

    rule: Annotated[str, StringConstraints(max_length=50)] = Field(
        default="", description="Name of the route; empty: the queue's pools, or the Task named its pool or agent."
    )
    step: Annotated[int, Field(ge=0)] = Field(default=0, description="Number of the step, from 1; 0 without a route.")
    pool: Annotated[str, StringConstraints(max_length=63)] = Field(default="", description="The pool it went to.")
    strategy: Strategy | None = Field(
        default=None, description="How the agent was picked there: the step's strategy, or the queue's."
    )
    score: float | None = Field(
        default=None,
        description="What decided by that strategy; its meaning is the strategy's. 1 where a sticky key decided, 0 "
        "where the agent was held for the Task, or lent by one that needs more room.",
    )


class TaskStatus(Model):
    """What became of the Task. Only the operator writes it."""

    phase: Phase = Field(
        default=Phase.PENDING, description="Pending, Assigned, DeadLettered, Succeeded, Failed or Cancelled."
    )
    reason: Reason | None = Field(default=None, description="Why the Task waits, or why it ended.")
    message: Message = Field(default="", description="The same for people, with what to do about it.")
    attempt: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many leases were granted. With the Task's uid and the epoch it names the lease."
    )
    epoch: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Number of the leadership that wrote the last assignment or end."
    )
    failures: Annotated[int, Field(ge=0)] = Field(default=0, description="How many attempts failed.")
    lost_agents: Annotated[list[Annotated[str, Field(max_length=64)]], Field(max_length=16)] = Field(
        default_factory=list,
        description="Uids of the pods that died while they ran it.",
        json_schema_extra=AS_SET,
    )
    redrives: Annotated[int, Field(ge=0)] = Field(default=0, description="Up to which spec.redrive it was redriven.")
    spilled_to: Annotated[str, Field(max_length=63)] = Field(
        default="", description="The queue it waits in instead of its own, which was full."
    )
    duplicate_of: Annotated[str, Field(max_length=253)] = Field(
        default="", description="Name of the Task with the same idempotency key that was run."
    )
    dependencies: Annotated[list[DependencyStatus], Field(max_length=MAX_DEPENDENCIES)] = Field(
        default_factory=list,
        description="The Tasks that it depends on, as they are pinned.",
        json_schema_extra=as_map("name"),
    )
    pool: Annotated[str, Field(max_length=63)] = Field(default="", description="Pool of the assigned agent.")
    agent: Annotated[str, Field(max_length=253)] = Field(default="", description="Pod of the assigned agent.")
    agent_uid: Annotated[str, Field(max_length=64)] = Field(default="", description="Uid of that pod.")
    route: RouteTaken | None = Field(default=None, description="By which way it came to that agent.")
    lease: LeaseTerms | None = Field(
        default=None,
        description="The rules of the present attempt, as granted: a new leader times it by them, whatever the queue "
        "says by then.",
    )
    assigned_at: datetime | None = Field(default=None, description="When the last attempt was assigned.")
    started_at: datetime | None = Field(default=None, description="When the last attempt's handler started.")
    finished_at: datetime | None = Field(default=None, description="When the Task ended, or became a dead letter.")
    cost: Annotated[float, Field(ge=0)] | None = Field(
        default=None,
        description="What its attempts have cost, failed ones as well: of each the hours from assignment to end × "
        "costPerHour of its pool × the Task's slots ÷ the agent's slots. Told when an attempt ends; absent if no pool "
        "says what it costs.",
    )
    energy_wh: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="The watt-hours that its attempts took, counted likewise with wattsBusy of the pool."
    )
    retry_after: datetime | None = Field(default=None, description="The Task is not tried again before this time.")
    throttled_seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="For how long in all its handlers have put it off, saying that they are throttled."
    )
    result: dict[str, Any] | None = Field(
        default=None,
        description="What the handler returned, a JSON object of at most 64 KiB.",
        json_schema_extra=ANY_JSON_OBJECT,
    )
    result_ref: ObjectRef | None = Field(
        default=None, description="Where the result stands that is larger than that, instead of result."
    )
    progress: Progress | None = Field(default=None, description="Progress of the running attempt.")
    array: ArrayStatus | None = Field(default=None, description="How the items of an array stand.")
    attempts: Annotated[list[AttemptRecord], Field(max_length=MAX_ATTEMPT_RECORDS)] = Field(
        default_factory=list,
        description="The attempts that ended without a result, oldest first; redriving keeps them.",
        json_schema_extra=as_map("attempt"),
    )
    dropped_attempts: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many of the oldest attempts are not in that list any more, for lack of room."
    )
    conditions: Annotated[list[Condition], Field(max_length=8)] = Field(
        default_factory=list,
        description="Complete, Failed and DeadLettered, so that `kubectl wait` can be used.",
        json_schema_extra=as_map("type"),
    )


class Task(Model):
    """A Task is one unit of work. It waits in a TaskQueue until an agent of a pool runs it."""

    kind: ClassVar[str] = "Task"
    plural: ClassVar[str] = "tasks"

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: TaskSpec
    status: TaskStatus = Field(default_factory=TaskStatus, json_schema_extra={"default": {"phase": "Pending"}})
