"""Refusals as HTTP carries them: problem details (RFC 9457), of one shape wherever they come from."""

from http import HTTPStatus
from typing import Any

from pydantic import Field

from taskdist.api.meta import Model

MEDIA_TYPE = "application/problem+json"


class FieldError(Model):
    """One field that is wrong."""

    field: str = Field(description="Path of the field, as in `spec` of a Task: `timeouts.executionSeconds`.")
    message: str = Field(description="What is wrong with it.")


class ProblemDetails(Model):
    """Why a request was refused."""

    title: str = Field(default="", description="What the status means, in HTTP's own words.")
    status: int = Field(default=0, description="The HTTP status.")
    detail: str = Field(default="", description="What is wrong here, and what to do.")
    reason: str = Field(default="", description="One word for programs: `QueueFull`, `NotAllowed`, …")
    errors: list[FieldError] = Field(default_factory=list, description="The fields that are wrong, where they are.")

    def document(self) -> dict[str, Any]:
        """As it is sent: what does not apply is left out, `type` too, which stands for `about:blank` then."""
        return self.model_dump(mode="json", by_alias=True, exclude_defaults=True)


def title(status: int) -> str:
    """What a problem that is told apart by its status alone is called."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Refused"


def headers(status: int, retry_after: float | None) -> dict[str, str]:
    """What goes with a refusal: in how many seconds to ask again, and how to say who asks."""
    told = {} if retry_after is None else {"Retry-After": str(max(1, round(retry_after)))}
    return told | ({"WWW-Authenticate": "Bearer"} if status == 401 else {})
