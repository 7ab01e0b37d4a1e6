"""Budgets: amounts that the Tasks of several queues share, and what a Task takes of them."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from taskdist.api.meta import Model, Name


class BudgetKind(StrEnum):
    """Whether an amount comes back with the end of the attempt, or with time."""

    CONCURRENT = "Concurrent"
    RATE = "Rate"


class Budget(Model):
    """An amount of something that Tasks share, of this queue and of others in the namespace."""

    name: Name = Field(description="Name of the budget; Tasks of other queues call it `queue/name`.")
    kind: BudgetKind = Field(
        description="Concurrent: a Task holds its amount while it runs. Rate: a Task spends its amount when it starts, "
        "corrected by what the attempt says it used."
    )
    limit: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="Concurrent: how much may be held at once."
    )
    per_second: Annotated[float, Field(ge=0.001, le=1_000_000_000)] | None = Field(
        default=None, description="Rate: how much comes back a second."
    )
    burst: Annotated[int, Field(ge=1, le=1_000_000_000)] | None = Field(
        default=None, description="Rate: how much is there after a quiet time, which is the most a Task may ask for."
    )


# A budget of the Task's own queue by its name, or one of another queue as `queue/name`.
BudgetName = Annotated[
    str,
    StringConstraints(
        min_length=1,
        max_length=101,
        pattern=r"^([a-z0-9]([-a-z0-9]*[a-z0-9])?/)?[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
    ),
]


class BudgetUse(Model):
    """What a Task takes of a budget."""

    name: BudgetName = Field(
        description="The budget: `name` of the Task's own queue, or `queue/name` of another in the same namespace."
    )
    amount: Annotated[int, Field(ge=1, le=1_000_000_000)] = Field(
        default=1, description="How much each attempt takes of it."
    )
