"""What all kinds share: the group, metadata, conditions, label selectors, and the base of every model."""

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

GROUP = "taskdist.dev"
VERSION = "v1alpha1"
# What the operator and the local node write on pods.
POOL_LABEL = f"{GROUP}/pool"
TEMPLATE_LABEL = f"{GROUP}/template"
# Stands on a pod that is to be deleted: the epoch of the leadership that decided so.
REMOVED_BY_ANNOTATION = f"{GROUP}/removed-by"
LOG_PATH_ANNOTATION = f"{GROUP}/log-path"  # where the agent's output is, on a node without a kubelet
CONDITION_STATUS = ("True", "False", "Unknown")

# A resource's name (RFC 1123 label): pods are named after pools, so names stay short enough for a suffix.
Name = Annotated[str, StringConstraints(min_length=1, max_length=50, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")]
# A word a user chooses: a skill, a Task type, a named resource.
Word = Annotated[
    str, StringConstraints(min_length=1, max_length=63, pattern=r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$")
]
# The name of a Secret.
SecretName = Annotated[
    str, StringConstraints(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$")
]
# Amounts of named resources.
Amounts = Annotated[dict[Word, Annotated[int, Field(ge=1, le=1_000_000_000)]], Field(max_length=16)]
LabelKey = Annotated[str, StringConstraints(min_length=1, max_length=317)]
LabelValue = Annotated[str, StringConstraints(max_length=63)]
Message = Annotated[str, StringConstraints(max_length=4096)]
# The schema of a JSON object whose content is the user's own business. It is a map of unknown values rather than an
# object of unknown fields: the API server compares the first exactly, but of the second it takes {"a": 1} and {"b": 1}
# for equal. The bound is above what 64 KiB can hold.
ANY_JSON_OBJECT: dict[str, Any] = {
    "additionalProperties": {"nullable": True, "x-kubernetes-preserve-unknown-fields": True},
    "maxProperties": 16384,
}
# A list whose entries are unique: server-side apply merges it entry by entry.
AS_SET: dict[str, Any] = {"x-kubernetes-list-type": "set"}


def as_map(key: str) -> dict[str, Any]:
    """The schema of a list whose entries are told apart by one of their fields: apply merges it entry by entry."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": [key]}


class Model(BaseModel):
    """Base of all API models: camelCase on the wire, snake_case in code, unknown fields ignored on reading."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, extra="ignore", use_enum_values=False)

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON-ready form: camelCase names, unset optional fields left out."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class ObjectMeta(Model):
    """The part of Kubernetes metadata that this project reads."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    generation: int = 0
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)


class Condition(Model):
    """One observation of an object's state, as Kubernetes defines conditions."""

    type: Annotated[str, StringConstraints(min_length=1, max_length=63)] = Field(description="Name of the condition.")
    status: Literal["True", "False", "Unknown"] = Field(description="Whether it holds.")
    reason: Annotated[str, StringConstraints(max_length=128)] = Field(
        default="", description="Machine-readable reason for the condition's last change."
    )
    message: Message = Field(default="", description="What happened and what to do, for people.")
    last_transition_time: datetime | None = Field(default=None, description="When the status last changed.")
    observed_generation: Annotated[int, Field(ge=0)] | None = Field(
        default=None, description="The generation of the spec that this condition speaks of."
    )


class SelectorRequirement(Model):
    """One requirement on a label's value."""

    key: LabelKey = Field(description="The label's key.")
    operator: Literal["In", "NotIn", "Exists", "DoesNotExist"] = Field(description="How the value is compared.")
    values: Annotated[list[LabelValue], Field(max_length=32)] = Field(
        default_factory=list, description="Values for In and NotIn; empty for Exists and DoesNotExist."
    )


class LabelSelector(Model):
    """A label selector with the meaning that Kubernetes gives it: all requirements must hold."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=32)] = Field(
        default_factory=dict, description="Labels that must be present with exactly these values."
    )
    match_expressions: Annotated[list[SelectorRequirement], Field(max_length=32)] = Field(
        default_factory=list, description="Further requirements."
    )
