"""Forms that the tools share: strict on the way in, without empty fields on the way out."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, SerializerFunctionWrapHandler, model_serializer

AGENT = "task-distributor"
"""The name by which this server speaks of itself, among agents that work together."""

# As Kubernetes names objects: a name is a part of a path and of selectors, and nothing in it leads elsewhere.
_NAME = r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$"
QueueName = Annotated[str, Field(min_length=1, max_length=63, pattern=_NAME, description="Name of a TaskQueue.")]
PoolName = Annotated[str, Field(min_length=1, max_length=63, pattern=_NAME, description="Name of an AgentPool.")]
TaskName = Annotated[str, Field(min_length=1, max_length=253, pattern=_NAME, description="Name of a Task.")]
PeriodSeconds = Annotated[
    int, Field(ge=1, le=31_536_000, description="How far back to look from now, in seconds; 3600 is an hour.")
]
AgentsMore = Annotated[
    dict[PoolName, Annotated[int, Field(ge=-5000, le=5000)]],
    Field(max_length=100, description="How many agents more (or fewer, below 0) a pool has, by its name."),
]


class Form(BaseModel):
    """The base of requests and answers. A field that is unknown is refused; one without a value is left out."""

    model_config = ConfigDict(extra="forbid")

    @model_serializer(mode="wrap")
    def _without_the_unknown(self, handler: SerializerFunctionWrapHandler) -> dict[str, Any]:
        found: dict[str, Any] = handler(self)
        return {name: value for name, value in found.items() if value is not None}


class ExpectedStart(Form):
    """The expected start of a Task: four times in five between `earliest` and `latest`."""

    at: str
    earliest: str
    latest: str


def expected_start(told: Any) -> ExpectedStart | None:
    """Take over an expected start from the client's words; None where it is unknown."""
    return ExpectedStart.model_validate(told) if isinstance(told, dict) else None
