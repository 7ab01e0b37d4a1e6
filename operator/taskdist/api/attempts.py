"""Records of attempts: how those that ended did, and how far a running one is."""

from datetime import datetime
from typing import Annotated

from pydantic import Field

from taskdist.api.meta import Message, Model
from taskdist.api.reasons import Reason


class AttemptRecord(Model):
    """How one attempt ended."""

    attempt: Annotated[int, Field(ge=1)] = Field(description="Number of the attempt.")
    reason: Reason = Field(description="Why it ended.")
    message: Message = Field(default="", description="What the agent or the operator said of it.")
    agent: Annotated[str, Field(max_length=253)] = Field(default="", description="Name of the agent's pod.")
    started_at: datetime | None = Field(
        default=None, description="When its handler started; absent if it is not known that it did."
    )
    ended_at: datetime | None = Field(default=None, description="When it ended.")


class Progress(Model):
    """How far the running attempt is, as the handler reports it."""

    fraction: Annotated[float, Field(ge=0, le=1)] = Field(default=0, description="Done, from 0 to 1.")
    message: Annotated[str, Field(max_length=1024)] = Field(default="", description="What the handler says of it.")
    reported_at: datetime | None = Field(default=None, description="When it was reported.")
