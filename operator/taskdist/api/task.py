"""The Task kind: one unit of work."""

from datetime import datetime
from typing import Annotated, Any, ClassVar

from pydantic import Field

from taskdist.api.meta import ANY_JSON_OBJECT, Condition, LabelSelector, Message, Model, Name, ObjectMeta, Word
from taskdist.api.reasons import Phase, Reason

# Bytes of JSON. The API server cannot bound an object of unknown fields, so the operator enforces both.
MAX_PAYLOAD_BYTES = 64 * 1024
MAX_RESULT_BYTES = 64 * 1024
# How many ended attempts status keeps; older ones are dropped, `failures` still counts them.
MAX_ATTEMPT_RECORDS = 10
# The spec's fields that may change after creation.
MUTABLE_FIELDS = ("suspend", "cancel", "priority", "pool")

Seconds = Annotated[float, Field(ge=0)]


class TaskSpec(Model):
    """What to do, and what it needs. Only suspend, cancel, priority and pool may change after creation."""

    queue: Name = Field(description="Name of the TaskQueue, in the same namespace, in which the Task waits.")
    type: Word = Field(description="What kind of work this is: the agent picks the handler registered for it.")
    payload: dict[str, Any] = Field(
        default_factory=dict,
        description="Input of the handler, any JSON object of at most 64 KiB.",
        json_schema_extra=ANY_JSON_OBJECT,
    )
    priority: Annotated[int, Field(ge=-1000, le=1000)] = Field(
        default=0, description="Higher goes first. May be changed while the Task waits."
    )
    pool: Name | None = Field(
        default=None, description="Run on this AgentPool only, instead of the queue's pools. May be changed."
    )
    slots: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="How many slots of one agent the Task occupies."
    )
    resources: Annotated[dict[Word, Annotated[int, Field(ge=1, le=1_000_000_000)]], Field(max_length=16)] = Field(
        default_factory=dict, description="Named resources of one agent that the Task occupies, as whole numbers."
    )
    skills: Annotated[list[Word], Field(max_length=32)] = Field(
        default_factory=list,
        description="Skills that the agent must have.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    agent_selector: LabelSelector | None = Field(
        default=None, description="Labels that the agent must carry. Agents carry the labels of their pods."
    )
    suspend: bool = Field(
        default=False,
        description="Hold the Task. A waiting one keeps its place; a running one is stopped and waits again.",
    )
    cancel: bool = Field(
        default=False, description="End the Task as Cancelled, at any stage. Cannot be taken back once true."
    )


class AttemptRecord(Model):
    """How one attempt ended."""

    attempt: Annotated[int, Field(ge=1)] = Field(description="Number of the attempt.")
    reason: Reason = Field(description="Why it ended.")
    message: Message = Field(default="", description="What the agent or the operator said of it.")
    agent: Annotated[str, Field(max_length=253)] = Field(default="", description="Name of the agent's pod.")
    ended_at: datetime | None = Field(default=None, description="When it ended.")


class Progress(Model):
    """How far the running attempt is, as the handler reports it."""

    fraction: Annotated[float, Field(ge=0, le=1)] = Field(default=0, description="Done, from 0 to 1.")
    message: Annotated[str, Field(max_length=1024)] = Field(default="", description="What the handler says of it.")
    reported_at: datetime | None = Field(default=None, description="When it was reported.")


class TaskStatus(Model):
    """What became of the Task. Only the operator writes it."""

    phase: Phase = Field(default=Phase.PENDING, description="Pending, Assigned, Succeeded, Failed or Cancelled.")
    reason: Reason | None = Field(default=None, description="Why the Task waits, or why it ended.")
    message: Message = Field(default="", description="The same for people, with what to do about it.")
    attempt: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many leases were granted. With the Task's uid and the epoch it names the lease."
    )
    epoch: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Number of the leadership that wrote the last assignment or end."
    )
    failures: Annotated[int, Field(ge=0)] = Field(default=0, description="How many attempts failed.")
    pool: Annotated[str, Field(max_length=63)] = Field(default="", description="Pool of the assigned agent.")
    agent: Annotated[str, Field(max_length=253)] = Field(default="", description="Pod of the assigned agent.")
    agent_uid: Annotated[str, Field(max_length=64)] = Field(default="", description="Uid of that pod.")
    assigned_at: datetime | None = Field(default=None, description="When the last attempt was assigned.")
    started_at: datetime | None = Field(default=None, description="When the last attempt's handler started.")
    finished_at: datetime | None = Field(default=None, description="When the Task ended.")
    retry_after: datetime | None = Field(default=None, description="The Task is not tried again before this time.")
    result: dict[str, Any] | None = Field(
        default=None,
        description="What the handler returned, a JSON object of at most 64 KiB.",
        json_schema_extra=ANY_JSON_OBJECT,
    )
    progress: Progress | None = Field(default=None, description="Progress of the running attempt.")
    attempts: Annotated[list[AttemptRecord], Field(max_length=MAX_ATTEMPT_RECORDS)] = Field(
        default_factory=list,
        description="The last attempts that ended without a result.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["attempt"]},
    )
    conditions: Annotated[list[Condition], Field(max_length=8)] = Field(
        default_factory=list,
        description="Complete and Failed, so that `kubectl wait` can be used.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class Task(Model):
    """A Task is one unit of work. It waits in a TaskQueue until an agent of a pool runs it."""

    kind: ClassVar[str] = "Task"
    plural: ClassVar[str] = "tasks"

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: TaskSpec
    status: TaskStatus = Field(default_factory=TaskStatus, json_schema_extra={"default": {"phase": "Pending"}})
