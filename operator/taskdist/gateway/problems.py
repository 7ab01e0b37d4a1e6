"""Errors as callers see them: problem details (RFC 9457), with the field and with what to do."""

from collections.abc import Mapping, Sequence
from typing import Any

from fastapi.responses import JSONResponse
from pydantic import ValidationError

from taskdist.api.problems import MEDIA_TYPE, FieldError, ProblemDetails, headers, title
from taskdist.kube import AccessError, ApiError, KubeError, NotAllowed, NotAuthenticated, Unanswered

RETRY_SECONDS = 1
# What callers are told of the API server's refusals as they are. Others are of our own making.
_TOLD = frozenset({400, 401, 403, 404, 405, 409, 413, 415, 422, 429, 500, 503, 504})


class Problem(Exception):
    """The answer to a request that is refused."""

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        reason: str = "",
        errors: Sequence[FieldError] = (),
        retry_after: float | None = None,
        challenge: str = "Bearer",
    ) -> None:
        """`challenge`: with status 401, what a caller shows to be known."""
        super().__init__(detail)
        self.status = status
        self.details = ProblemDetails(
            title=title(status), status=status, detail=detail, reason=reason, errors=list(errors)
        )
        self.retry_after = retry_after
        self.challenge = challenge

    def response(self, **more: Any) -> JSONResponse:
        """`more`: further members of the body."""
        said = headers(self.status, self.retry_after)
        if "WWW-Authenticate" in said:
            said["WWW-Authenticate"] = self.challenge
        return JSONResponse(self.details.document() | more, self.status, said, MEDIA_TYPE)


def of_access(error: AccessError) -> Problem:
    """Say that the caller is unknown, has not the right, or could not be looked up."""
    if isinstance(error, NotAuthenticated):
        return Problem(401, str(error), reason="NotAuthenticated")
    if isinstance(error, NotAllowed):
        return Problem(403, str(error), reason="NotAllowed")
    return Problem(503, str(error), reason="NotReviewed", retry_after=RETRY_SECONDS)


def of_kube(error: KubeError) -> Problem:
    """Turn what the API server said, or that it said nothing, into an answer to the caller."""
    if isinstance(error, ApiError) and (400 <= error.status < 500 or error.is_too_large):
        status = 413 if error.is_too_large else error.status
        # A 410 or the like is of our own making: to the caller it is a try again.
        if status not in _TOLD:
            status = 503
        after = error.retry_after or RETRY_SECONDS if status in (429, 503) else None
        return Problem(status, error.message, reason=error.reason, errors=_causes(error.details), retry_after=after)
    if isinstance(error, Unanswered):
        return Problem(
            504,
            "the API server was asked and has not answered: it may have been done. Look, or send it again with an "
            "Idempotency-Key",
            reason="Unanswered",
            retry_after=RETRY_SECONDS,
        )
    return Problem(503, "the API server cannot be reached: try again", reason="Unreachable", retry_after=RETRY_SECONDS)


def of_validation(error: ValidationError, where: str = "") -> Problem:
    """Name the fields of a body that make no sense."""
    errors = [
        FieldError(field=_path(where, *each["loc"]), message=_said(each["type"], each["msg"]))
        for each in error.errors(include_url=False, include_input=False)[:20]
    ]
    first = errors[0]
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return Problem(422, f"{first.field}: {first.message}{more}", reason="Invalid", errors=errors)


def _said(kind: str, message: str) -> str:
    return "there is no such field" if kind == "extra_forbidden" else message


def _path(*parts: object) -> str:
    path = ""
    for part in parts:
        path += f"[{part}]" if isinstance(part, int) else f".{part}" if path and part != "" else str(part)
    return path


def _causes(details: Mapping[str, Any]) -> list[FieldError]:
    causes = details.get("causes")
    return [
        FieldError(field=str(each.get("field") or "").removeprefix("spec."), message=str(each.get("message") or ""))
        for each in (causes if isinstance(causes, list) else [])[:20]
        if isinstance(each, dict) and each.get("field")
    ]
