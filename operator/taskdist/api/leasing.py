"""How Tasks are leased to agents: a queue's choice, which each lease keeps as it was granted."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field

from taskdist.api.meta import Model


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


class LeaseTerms(Model):
    """The rules under which an attempt was granted."""

    lease_seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="How long its agent may run it without a renewal."
    )
    hold_seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="How long it may run on, from its last renewal, while nobody leads."
    )
    reclaim: Reclaim | None = Field(default=None, description="When it is given to another if its agent is silent.")
    delivery: Delivery | None = Field(default=None, description="Whether it may be tried again once it was lost.")
    dispatch: Dispatch | None = Field(
        default=None, description="Strict: it was recorded before its agent heard of it. Lazy: afterwards."
    )
