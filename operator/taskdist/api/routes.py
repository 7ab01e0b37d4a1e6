"""Routes: which pools a queue's Tasks go to, and to which others after a wait or for lack of room."""

from typing import Annotated

from pydantic import Field

from taskdist.api.meta import AS_SET, LabelKey, LabelValue, Model, Name, SelectorRequirement, Word
from taskdist.api.strategies import Strategy
from taskdist.api.task import Priority


class RouteMatch(Model):
    """Which Tasks take a route: all that is said must hold, and what is absent holds for all."""

    match_labels: Annotated[dict[LabelKey, LabelValue], Field(max_length=8)] = Field(
        default_factory=dict, description="Labels that the Task must carry with exactly these values."
    )
    match_expressions: Annotated[list[SelectorRequirement], Field(max_length=8)] = Field(
        default_factory=list, description="Further requirements on the Task's labels."
    )
    types: Annotated[list[Word], Field(max_length=32)] = Field(
        default_factory=list,
        description="Types of Tasks, of which the Task must have one.",
        json_schema_extra=AS_SET,
    )
    levels: Annotated[list[Priority], Field(max_length=6)] = Field(
        default_factory=list,
        description="Priorities, of which the Task must have one in its spec: waiting does not change its route.",
        json_schema_extra=AS_SET,
    )
    tenants: Annotated[list[Word], Field(max_length=64)] = Field(
        default_factory=list,
        description="Tenants, of which the Task must be of one.",
        json_schema_extra=AS_SET,
    )
    min_slots: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="The Task must ask for at least so many slots."
    )
    max_slots: Annotated[int, Field(ge=1, le=1000)] | None = Field(
        default=None, description="The Task must ask for at most so many slots."
    )


class RouteStep(Model):
    """Pools whose agents compete for the Task."""

    pools: Annotated[list[Name], Field(min_length=1, max_length=16)] = Field(
        description="AgentPools, in the same namespace.", json_schema_extra=AS_SET
    )
    after_seconds: Annotated[float, Field(ge=0, le=31_536_000)] = Field(
        default=0,
        description="How long a Task waits since the step before opened until this one opens, in seconds. It opens "
        "earlier if no pool of the steps before can grow any more for the Task. 0 in the first step.",
    )
    strategy: Strategy | None = Field(
        default=None, description="How one of their agents is picked; absent: by the queue's strategy."
    )


class Route(Model):
    """Where the Tasks go that match: to the first step's pools, after a wait or for lack of room to the next's too."""

    name: Name = Field(description="Name of the route, as the Task's status shows it.")
    match: RouteMatch = Field(
        default_factory=RouteMatch,
        description="Which Tasks take it; empty: all.",
        json_schema_extra={"default": {}},
    )
    steps: Annotated[list[RouteStep], Field(min_length=1, max_length=8)] = Field(
        description="Sets of pools, first choice first. Opened steps stay open: a Task goes to the earliest with room.",
        json_schema_extra={"x-kubernetes-list-type": "atomic"},
    )
