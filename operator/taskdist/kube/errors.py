"""Failures of requests to the API server, told apart by what the caller may conclude from them.

Three cases, never mixed: the server answered with an error (`ApiError`); nothing was sent (`Unreachable`); something
may have been sent and no answer came (`Unanswered`: a write may or may not have happened). Deciding what to do next
is the caller's.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any


class KubeError(Exception):
    """Any failure of a request to the API server."""

    outcome = "error"
    """One short word for metrics."""


class HistoryWentBack(Exception):
    """The API server tells of a time before what it told earlier: its store was restored from a backup.

    No KubeError: it is not tried again. What is held is of another history, and only a fresh start gets rid of it.
    """


class ConfigurationError(KubeError):
    """No usable address or credentials. The message names the source that was tried."""

    outcome = "unconfigured"


class Unreachable(KubeError):
    """The request was never sent: no connection came about. Whatever was asked has not happened."""

    outcome = "unreachable"


class Unanswered(KubeError):
    """The connection was lost or the time ran out after the request may have been sent: its outcome is unknown."""

    outcome = "unanswered"


class ApiError(KubeError):
    """The API server answered with an error status."""

    def __init__(
        self,
        status: int,
        reason: str = "",
        message: str = "",
        details: Mapping[str, Any] | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{status} {reason or 'error'}: {message}")
        self.status = status
        self.reason = reason
        self.message = message
        self.details: Mapping[str, Any] = details or {}
        self.retry_after = retry_after
        """Seconds the server asked to wait; None if it did not say."""

    @property
    def outcome(self) -> str:  # type: ignore[override]
        return str(self.status)

    @property
    def is_not_found(self) -> bool:
        """The object named does not exist. A path that is not served (a CRD absent or not ready) is no such answer."""
        return self.status == 404 and bool(self.details.get("name"))

    @property
    def is_unserved(self) -> bool:
        """The server does not know the path: wrong version, CRD absent, or not ready yet."""
        return self.status == 404 and not self.details.get("name")

    @property
    def is_conflict(self) -> bool:
        """The object has changed since it was read, or is another one (uid) than was meant."""
        return self.status == 409 and self.reason != "AlreadyExists"

    @property
    def is_already_exists(self) -> bool:
        return self.status == 409 and self.reason == "AlreadyExists"

    @property
    def is_gone(self) -> bool:
        """The asked-for resourceVersion or continue token is no longer held: list again."""
        return self.status == 410

    @property
    def is_invalid(self) -> bool:
        """The object was refused by its schema, by a CEL rule or as malformed: sending it again changes nothing."""
        return self.status in (400, 422)

    @property
    def is_too_large(self) -> bool:
        """The object exceeds what the server takes (413) or what etcd stores (a 500 that says so in words)."""
        return self.status == 413 or (
            self.status == 500 and ("request is too large" in self.message or "message larger than max" in self.message)
        )

    @property
    def is_forbidden(self) -> bool:
        return self.status == 403

    @property
    def is_denied(self) -> bool:
        """A policy or a webhook refused it, with whatever code: what they refuse now they may let pass later."""
        return "denied the request" in self.message or "denied request" in self.message

    @property
    def is_of_ending_namespace(self) -> bool:
        """Refused because the namespace is being deleted: nothing can be created there any more."""
        causes = self.details.get("causes") or ()
        return self.status == 403 and any(cause.get("reason") == "NamespaceTerminating" for cause in causes)

    @property
    def is_unauthorized(self) -> bool:
        return self.status == 401

    @property
    def is_throttled(self) -> bool:
        """Refused before it was looked at (429): it has not happened."""
        return self.status == 429

    @property
    def is_server_fault(self) -> bool:
        """A 5xx. For a write the outcome is unknown: etcd may have taken it before the server gave up waiting."""
        return self.status >= 500 and not self.is_too_large

    @classmethod
    def from_status(cls, status: Mapping[str, Any], code: int | None = None, header: str | None = None) -> ApiError:
        """From a `kind: Status` object; `code` stands in where it carries none, `header` is Retry-After's value."""
        details = status.get("details")
        details = details if isinstance(details, Mapping) else {}
        number = status.get("code")
        return cls(
            status=number if isinstance(number, int) and number else (code or 0),
            reason=str(status.get("reason") or ""),
            message=str(status.get("message") or ""),
            details=details,
            retry_after=_seconds(header) if header is not None else _seconds(details.get("retryAfterSeconds")),
        )

    @classmethod
    def from_answer(cls, code: int, body: bytes, header: str | None = None) -> ApiError:
        """From an answer whose body should be a Status, but may be anything a proxy put there."""
        try:
            status = json.loads(body)
        except (ValueError, RecursionError):
            status = None
        if not isinstance(status, dict) or status.get("kind") != "Status":
            text = body[:300].decode("utf-8", "replace").strip()
            status = {"message": text or "no message"}
        # The HTTP code is what was answered; a Status inside that disagrees is a proxy's or a webhook's.
        return cls.from_status({**status, "code": code}, code, header)


def _seconds(value: object) -> float | None:
    """A Retry-After in seconds. The HTTP-date form is not used by the API server and counts as absent."""
    try:
        seconds = float(str(value))
    except ValueError:
        return None
    return seconds if 0 < seconds < 86_400 else None
