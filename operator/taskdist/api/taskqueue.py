"""The TaskQueue kind: where Tasks wait, and by which rules they leave."""

from enum import StrEnum
from typing import Annotated, ClassVar

from pydantic import Field

from taskdist.api.meta import Condition, Model, Name, ObjectMeta


class Reclaim(StrEnum):
    """When the lease of a silent agent may be given to another."""

    LEASE = "Lease"
    CONFIRMED = "Confirmed"
    FAST = "Fast"


class Dispatch(StrEnum):
    """Whether the assignment is recorded before or after the agent hears of it."""

    STRICT = "Strict"
    LAZY = "Lazy"


class Delivery(StrEnum):
    """Whether an attempt that was lost may be tried again."""

    AT_LEAST_ONCE = "AtLeastOnce"
    AT_MOST_ONCE = "AtMostOnce"


class Retry(Model):
    """What happens when an attempt fails: exponential back-off, min(max, initial × factor^(failures − 1))."""

    limit: Annotated[int, Field(ge=0, le=100)] = Field(
        default=3, description="How many failed attempts are tried again; then the Task is Failed."
    )
    initial_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=1, description="Back-off after the first failed attempt, in seconds."
    )
    factor: Annotated[float, Field(ge=1, le=10)] = Field(
        default=2, description="By how much the back-off grows with each further failed attempt."
    )
    max_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=300, description="Longest back-off, in seconds."
    )


class TaskQueueSpec(Model):
    """The rules of the queue."""

    pools: Annotated[list[Name], Field(min_length=1, max_length=16)] = Field(
        description="AgentPools, in the same namespace, whose agents run the queue's Tasks.",
        json_schema_extra={"x-kubernetes-list-type": "set"},
    )
    paused: bool = Field(default=False, description="Hand out nothing; what runs goes on, new Tasks are kept.")
    dispatch: Dispatch = Field(
        default=Dispatch.STRICT,
        description="Strict records each assignment before the agent hears of it. Lazy sends first and records what "
        "still runs after a second: fewer writes for short Tasks, but a change of leader may run a Task twice at once.",
    )
    delivery: Delivery = Field(
        default=Delivery.AT_LEAST_ONCE,
        description="AtLeastOnce tries a lost attempt again. AtMostOnce fails the Task instead.",
    )
    reclaim: Reclaim = Field(
        default=Reclaim.LEASE,
        description="When a silent agent's Task goes to another: Lease, once its lease ran out and it has stopped; "
        "Confirmed, only when its pod is gone (the operator deletes it); Fast, as soon as the connection is lost, "
        "so that two agents may run it at once.",
    )
    lease_seconds: Annotated[int, Field(ge=2, le=3600)] = Field(
        default=15, description="How long an agent may go on without hearing from the operator, in seconds."
    )
    hold_seconds: Annotated[int, Field(ge=10, le=86400)] = Field(
        default=120,
        description="How long agents go on while the operator changes its leader, in seconds; a new leader waits as "
        "long for agents that have not announced themselves again.",
    )
    retry: Retry = Field(
        default_factory=Retry, description="What happens when an attempt fails.", json_schema_extra={"default": {}}
    )


class TaskQueueStatus(Model):
    """What the queue holds now."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The generation of the spec that this status speaks of."
    )
    waiting: Annotated[int, Field(ge=0)] = Field(default=0, description="Tasks that wait.")
    leased: Annotated[int, Field(ge=0)] = Field(default=0, description="Tasks that an agent holds.")
    conditions: Annotated[list[Condition], Field(max_length=8)] = Field(
        default_factory=list,
        description="Ready, Reconciling and Stalled.",
        json_schema_extra={"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    )


class TaskQueue(Model):
    """A TaskQueue is where Tasks wait. It says which pools serve them and what happens when an attempt fails."""

    kind: ClassVar[str] = "TaskQueue"
    plural: ClassVar[str] = "taskqueues"

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: TaskQueueSpec
    status: TaskQueueStatus = Field(default_factory=TaskQueueStatus, json_schema_extra={"default": {}})
