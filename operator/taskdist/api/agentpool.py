"""The AgentPool kind: an elastic set of like agents."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any, ClassVar

from pydantic import Field

from taskdist.api.meta import AS_SET, Amounts, Condition, LabelKey, Model, ObjectMeta, Word, as_map
from taskdist.api.reasons import Reason


class Scaling(Model):
    """Bounds within which the operator sets the pool's size from the work that waits."""

    min_replicas: Annotated[int, Field(ge=0, le=5000)] = Field(default=0, description="Never fewer agents than this.")
    max_replicas: Annotated[int, Field(ge=1, le=5000)] = Field(description="Never more agents than this.")
    scale_down_delay_seconds: Annotated[int, Field(ge=0, le=86400)] = Field(
        default=60, description="An agent goes only after the pool had more than it needs for this long, in seconds."
    )
    target_queue_seconds: Annotated[float, Field(ge=0, le=86400)] = Field(
        default=0,
        description="How long 95% of the Tasks are to wait for room at most, in seconds: with as few agents as do "
        "that. 0 wants an agent at once for all that waits.",
    )
    scale_up_stabilization_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=0, description="Agents are added only after more were needed for this long, in seconds."
    )


class BreakerState(StrEnum):
    """Where an agent's circuit breaker stands."""

    CLOSED = "Closed"  # it gets Tasks as any other agent
    OPEN = "Open"  # it gets none
    HALF_OPEN = "HalfOpen"  # it gets one at a time, to see whether it does better


class Breaker(Model):
    """The circuit breaker of each agent: one that fails where other agents of the pool succeed gets no Tasks."""

    enabled: bool = Field(default=True, description="Whether breakers open at all.")
    failure_ratio: Annotated[float, Field(ge=0.1, le=1)] = Field(
        default=0.8,
        description="An agent's breaker opens when this part of its attempts failed that succeed on other agents.",
    )
    min_attempts: Annotated[int, Field(ge=1, le=100)] = Field(
        default=5,
        description="By how many attempts an agent is judged at least. Twice as many, its last, are looked at, or ten.",
    )
    window_seconds: Annotated[int, Field(ge=1, le=86400)] = Field(
        default=600, description="Attempts that ended longer ago than this are forgotten, in seconds."
    )
    open_seconds: Annotated[float, Field(ge=1, le=86400)] = Field(
        default=30,
        description="How long a breaker stays open before the agent is probed, in seconds; doubled by each probe that "
        "fails.",
    )
    max_open_seconds: Annotated[float, Field(ge=1, le=86400)] = Field(
        default=1800, description="Longest time that a breaker stays open before the next probe, in seconds."
    )
    probes: Annotated[int, Field(ge=1, le=100)] = Field(
        default=3, description="How many Tasks, one at a time, have to succeed to close a half-open breaker."
    )
    max_open_percent: Annotated[int, Field(ge=1, le=90)] = Field(
        default=50,
        description="Of the pool's ready agents no more than this part, rounded down, is held by breakers at once.",
    )


# What the API server checks of a pod template; the pods themselves are checked when they are created. The rest of the
# pod spec passes through as written.
_POD_METADATA: dict[str, Any] = {
    "additionalProperties": None,
    "properties": {
        "labels": {
            "type": "object",
            "description": "Labels of the pods, for selectors of Tasks and for your own use.",
            "additionalProperties": {"type": "string", "maxLength": 63},
            "maxProperties": 64,
        },
        "annotations": {
            "type": "object",
            "description": "Annotations of the pods.",
            "additionalProperties": {"type": "string", "maxLength": 65536},
            "maxProperties": 64,
        },
    },
}
_POD_SPEC: dict[str, Any] = {
    "additionalProperties": None,
    "required": ["containers"],
    "x-kubernetes-preserve-unknown-fields": True,
    "properties": {
        "containers": {
            "type": "array",
            "description": "Containers of the pods, in the form that `kubectl explain pod.spec.containers` shows.",
            "minItems": 1,
            "maxItems": 32,
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["name"],
            "items": {
                "type": "object",
                "required": ["name"],
                "x-kubernetes-preserve-unknown-fields": True,
                "properties": {
                    "name": {
                        "type": "string",
                        "description": "Name of the container, a DNS label.",
                        "minLength": 1,
                        "maxLength": 63,
                        "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
                    }
                },
            },
        }
    },
}


class PodTemplate(Model):
    """The agents' pod template."""

    metadata: dict[str, Any] = Field(
        default_factory=dict, description="Labels and annotations of the pods.", json_schema_extra=_POD_METADATA
    )
    spec: dict[str, Any] = Field(
        description="Pod spec. The container named `agent`, or else the first, is the agent.",
        json_schema_extra=_POD_SPEC,
    )


class AgentPoolSpec(Model):
    """What an agent of this pool is, and how many there are."""

    replicas: Annotated[int, Field(ge=0, le=5000)] = Field(
        default=1, description="How many agents, if `scaling` is not set."
    )
    scaling: Scaling | None = Field(
        default=None, description="Let the operator choose the number of agents within these bounds."
    )
    slots: Annotated[int, Field(ge=1, le=1000)] = Field(
        default=1, description="How many slots an agent has: how many Tasks of one slot it runs at once."
    )
    resources: Amounts = Field(
        default_factory=dict, description="Named resources that an agent may offer at most, as whole numbers."
    )
    skills: Annotated[list[Word], Field(max_length=64)] = Field(
        default_factory=list,
        description="Skills that agents of this pool may offer. An agent that names none offers all of them.",
        json_schema_extra=AS_SET,
    )
    reported_labels: Annotated[list[LabelKey], Field(max_length=32)] = Field(
        default_factory=list,
        description="Keys of labels that an agent may report of itself, beside the labels of its pod.",
        json_schema_extra=AS_SET,
    )
    cost_per_hour: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="What an agent costs an hour, in a currency of your choice."
    )
    watts_busy: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="What an agent draws with all slots busy, in watts."
    )
    watts_idle: Annotated[float, Field(ge=0, le=1_000_000)] = Field(
        default=0, description="What an agent draws with no slot busy, in watts."
    )
    quality: Annotated[float, Field(ge=0, le=1)] = Field(
        default=1, description="How good the agents' work is, from 0 to 1: Tasks may ask for a minimum."
    )
    breaker: Breaker = Field(
        default_factory=Breaker,
        description="When an agent that fails gets no Tasks.",
        json_schema_extra={"default": {}},
    )
    slow_start_seconds: Annotated[int, Field(ge=0, le=3600)] = Field(
        default=0,
        description="How long a new agent takes to get all of its slots filled, beginning with one, in seconds; 0: at "
        "once.",
    )
    template: PodTemplate = Field(
        description="Template of the agents' pods. The operator adds address, certificate authority and token."
    )


class BreakerStatus(Model):
    """An agent whose circuit breaker is not closed."""

    agent: Annotated[str, Field(max_length=253)] = Field(description="Its pod.")
    state: BreakerState = Field(description="Open or HalfOpen.")
    since: datetime = Field(description="Since when.")


class TypePerformance(Model):
    """What the pool's agents did at one type of Task."""

    type: Annotated[str, Field(max_length=253)] = Field(description="The type.")
    count: Annotated[int, Field(ge=0)] = Field(description="How many attempts ended.")
    mean_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0, description="How long attempts took that succeeded, on average lately."
    )
    deviation_seconds: Annotated[float, Field(ge=0)] = Field(
        default=0, description="The standard deviation of that; its square is the variance."
    )
    success_rate: Annotated[float, Field(ge=0, le=1)] = Field(
        description="The part of the attempts that succeeded, lately."
    )


class AgentPerformance(Model):
    """What one agent did, over at most its last 50 attempts."""

    agent: Annotated[str, Field(max_length=253)] = Field(description="Its pod.")
    count: Annotated[int, Field(ge=0)] = Field(description="How many attempts this is of.")
    success_rate: Annotated[float, Field(ge=0, le=1)] = Field(description="The part of them that succeeded.")
    pace: Annotated[float, Field(ge=0)] = Field(
        description="How long those took that succeeded, as a multiple of what is expected of their types."
    )
    efficiency: Annotated[float, Field(ge=0)] = Field(
        description="Accepted work ÷ (slot-seconds held × speed of agents like it); about 1 where nothing fails."
    )


class AgentPoolStatus(Model):
    """What the pool is now."""

    observed_generation: Annotated[int, Field(ge=0)] = Field(
        default=0, description="The generation of the spec that this status speaks of."
    )
    replicas: Annotated[int, Field(ge=0)] = Field(default=0, description="Pods that exist.")
    ready_replicas: Annotated[int, Field(ge=0)] = Field(default=0, description="Agents connected and ready.")
    desired_replicas: Annotated[int, Field(ge=0)] = Field(default=0, description="Agents wanted now.")
    slots: Annotated[int, Field(ge=0)] = Field(default=0, description="Slots of all connected agents.")
    busy_slots: Annotated[int, Field(ge=0)] = Field(default=0, description="Slots that Tasks occupy.")
    selector: Annotated[str, Field(max_length=512)] = Field(
        default="", description="Label selector of the pool's pods, for the scale subresource."
    )
    scaling_reason: Reason | None = Field(default=None, description="Why that many agents are wanted.")
    scaling_message: Annotated[str, Field(max_length=1024)] = Field(default="", description="The same for people.")
    last_scaled_at: datetime | None = Field(default=None, description="When the number wanted last changed.")
    open_breakers: Annotated[int, Field(ge=0)] = Field(
        default=0, description="Agents whose circuit breaker is open or half open."
    )
    breakers: Annotated[list[BreakerStatus], Field(max_length=32)] = Field(
        default_factory=list,
        description="Those agents; the first by name where there are many.",
        json_schema_extra=as_map("agent"),
    )
    performance: Annotated[list[TypePerformance], Field(max_length=32)] = Field(
        default_factory=list,
        description="What agents did at each type; of many, those tried most. Taken over when the operator restarts.",
        json_schema_extra=as_map("type"),
    )
    efficiency: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="Accepted work ÷ (slot-seconds held × speed), of all agents lately."
    )
    weakest: Annotated[list[AgentPerformance], Field(max_length=8)] = Field(
        default_factory=list,
        description="The agents of least efficiency, of those with at least 10 attempts, the least first.",
        json_schema_extra=as_map("agent"),
    )
    conditions: Annotated[list[Condition], Field(max_length=8)] = Field(
        default_factory=list,
        description="Ready, Reconciling, Stalled; Healthy: whether all breakers are closed, and if not, whose; and "
        "Bottleneck: what holds most waiting time of Tasks that it could serve.",
        json_schema_extra=as_map("type"),
    )


class AgentPool(Model):
    """An AgentPool is a set of like agents: long-running pods that run Tasks in slots."""

    kind: ClassVar[str] = "AgentPool"
    plural: ClassVar[str] = "agentpools"

    metadata: ObjectMeta = Field(default_factory=ObjectMeta)
    spec: AgentPoolSpec
    status: AgentPoolStatus = Field(default_factory=AgentPoolStatus, json_schema_extra={"default": {}})
