"""What a scenario file may say: the very manifests of queues and pools, a workload, agents' traits, faults, variants.

Owns the models and the meaning of variants; messages for people who wrote something else are `problems`'. Refuses to
run anything.
"""

from enum import StrEnum
from typing import Annotated, Any

from pydantic import Field, model_validator

from taskdist.api import GROUP, VERSION, AgentPoolSpec, TaskQueueSpec
from taskdist.api.meta import Name
from taskdist.api.task import MAX_DEPENDENCIES
from taskdist.simulation.arrivals import Arrivals
from taskdist.simulation.base import Fraction, NotNegative, Part, Positive
from taskdist.simulation.distributions import OneOf
from taskdist.simulation.faults import Faults

NAMESPACE = "simulation"
"""Where everything of a scenario lives. Tasks that name no tenant are of this one."""

# Agents of a scenario run nothing: a pool may leave its template out.
_TEMPLATE = {"spec": {"containers": [{"name": "agent", "image": "simulated"}]}}


class Policy(StrEnum):
    """Who decides: the core, or a baseline to compare it with."""

    CORE = "core"
    FIFO = "fifo"
    ROUND_ROBIN = "round-robin"
    WEIGHTED_ROUND_ROBIN = "weighted-round-robin"
    RANDOM = "random"
    POWER_OF_TWO = "power-of-two"
    LEAST_LOADED = "least-loaded"


class Metadata(Part):
    """What of a manifest's metadata is read."""

    name: Name
    namespace: str = NAMESPACE
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class QueueManifest(Part):
    """A TaskQueue as it is applied to a cluster."""

    api_version: str = f"{GROUP}/{VERSION}"
    kind: str = "TaskQueue"
    metadata: Metadata
    spec: TaskQueueSpec


class PoolManifest(Part):
    """An AgentPool as it is applied to a cluster; its template may be left out."""

    api_version: str = f"{GROUP}/{VERSION}"
    kind: str = "AgentPool"
    metadata: Metadata
    spec: AgentPoolSpec

    @model_validator(mode="before")
    @classmethod
    def _templated(cls, given: Any) -> Any:
        if isinstance(given, dict) and isinstance(spec := given.get("spec", {}), dict) and "template" not in spec:
            return given | {"spec": spec | {"template": _TEMPLATE}}
        return given


class Traits(Part):
    """What a manifest does not say of a pool's agents.

    `speed`: service at speed 1 is divided by it. Agents are spread over `zones` in turn. `watts` are drawn with all
    slots busy, `idleWatts` with none (default: as many). A new agent is ready `startSeconds` after its pod was made.
    Cost and watts, if they are not said here, are those of the pool's manifest: what the scheduler goes by as well.
    """

    speed: Positive = 1.0
    zones: Annotated[list[str], Field(min_length=1)] = Field(default_factory=lambda: ["zone"])
    cost_per_hour: NotNegative | None = None
    watts: NotNegative | None = None
    idle_watts: NotNegative | None = None
    start_seconds: NotNegative = 5.0


class Deadline(Part):
    """When a Task has to be done: `slack` seconds after it could be at speed 1, or `within` seconds of its creation."""

    slack: OneOf | None = None
    within: OneOf | None = None

    @model_validator(mode="after")
    def _one(self) -> "Deadline":
        if (self.slack is None) == (self.within is None):
            raise ValueError("give either slack or within, not both and not none")
        return self


class After(Part):
    """On which Tasks of another stream those of this one depend: the first on its first `each`, and so on."""

    stream: str
    each: Annotated[int, Field(ge=1, le=MAX_DEPENDENCIES)] = 1


class Cancel(Part):
    """Tasks that their users cancel, `after` so many seconds from their creation, wherever they stand then."""

    probability: Fraction
    after: OneOf


class Stream(Part):
    """Tasks of one kind: when they come, what they ask for, how long they take.

    `task` is the Task's spec, and `labels`; a value may be `choose: [{weight: 3, value: a}, …]`. `notBefore` is in
    seconds from the Task's creation.
    """

    name: str = ""
    arrivals: Arrivals
    service: OneOf | None = None
    count: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    duration: Positive | None = None
    task: dict[str, Any]
    deadline: Deadline | None = None
    not_before: OneOf | None = None
    after: After | None = None
    cancel: Cancel | None = None

    @model_validator(mode="after")
    def _bounded(self) -> "Stream":
        if self.count is None and self.duration is None and not self.arrivals.ends:
            raise ValueError("these arrivals never end: add count (Tasks) or duration (seconds)")
        if self.service is None and self.arrivals.file is None:
            raise ValueError("service is missing: say how long Tasks take at speed 1, as `exponential: {mean: 1}`")
        return self


class Workload(Part):
    """All streams."""

    streams: Annotated[list[Stream], Field(min_length=1)]


class Variant(Part):
    """What a variant changes: fields of the specs of queues and pools, traits, faults, or who decides."""

    queues: dict[str, dict[str, Any]] = Field(default_factory=dict)
    pools: dict[str, dict[str, Any]] = Field(default_factory=dict)
    agents: dict[str, dict[str, Any]] = Field(default_factory=dict)
    faults: dict[str, Any] = Field(default_factory=dict)
    policy: Policy | None = None


class Scenario(Part):
    """A whole scenario.

    `until` ends the run at that many seconds, done or not.
    """

    name: str = ""
    description: str = ""
    seed: int = 1
    queues: Annotated[list[QueueManifest], Field(min_length=1)]
    pools: Annotated[list[PoolManifest], Field(min_length=1)]
    agents: dict[str, Traits] = Field(default_factory=dict)
    workload: Workload
    faults: Faults = Field(default_factory=Faults)
    policy: Policy = Policy.CORE
    until: Positive | None = None
    compare: dict[str, Variant | None] = Field(default_factory=dict)

    def traits(self, pool: str) -> Traits:
        """Return what is said of the pool's agents, or the defaults."""
        return self.agents.get(pool) or Traits()


def varied(given: dict[str, Any], variant: Variant | None) -> dict[str, Any]:
    """Return the scenario's file content with the variant's changes in it, and no variants of its own."""
    made = {key: value for key, value in given.items() if key != "compare"}
    if variant is None:
        return made
    for part, changes in (("queues", variant.queues), ("pools", variant.pools)):
        made[part] = [
            manifest | {"spec": merged(manifest["spec"], changes.get(manifest["metadata"]["name"], {}))}
            for manifest in given[part]
        ]
    made["agents"] = merged(given.get("agents") or {}, variant.agents)
    made["faults"] = merged(given.get("faults") or {}, variant.faults)
    if variant.policy is not None:
        made["policy"] = variant.policy.value
    return made


def merged(base: dict[str, Any], change: dict[str, Any]) -> dict[str, Any]:
    """Merge like a JSON merge patch (RFC 7396): objects field by field, null removes, all else replaces."""
    made = dict(base)
    for key, value in change.items():
        if value is None:
            made.pop(key, None)
        elif isinstance(value, dict) and isinstance(made.get(key), dict):
            made[key] = merged(made[key], value)
        else:
            made[key] = value
    return made
