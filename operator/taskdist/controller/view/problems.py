"""Refusals of the view: problem details as RFC 9457 has them."""

from collections.abc import Mapping

from taskdist.api.problems import title
from taskdist.api.view import Problem as Shape


class Problem(Exception):
    """An answer other than the one asked for.

    Attributes:
        status: of HTTP.
        shape: the body.
        retry_after: seconds after which to ask again; None: it does not help.
    """

    def __init__(self, status: int, detail: str, *, retry_after: int | None = None, **more: object) -> None:
        super().__init__(detail)
        self.status = status
        self.retry_after = retry_after
        self.shape = Shape.model_validate({"title": title(status), "status": status, "detail": detail, **more})


def missing(kind: str, namespace: str, name: str) -> Problem:
    """Return the refusal of a name that no object has."""
    return Problem(404, f"there is no {kind} {name} in namespace {namespace}")


def only(query: Mapping[str, str], *names: str) -> None:
    """Raises Problem where other parameters are given than these."""
    if unknown := query.keys() - set(names):
        there = f"there {'is' if len(names) == 1 else 'are'} {', '.join(names) or 'none'}"
        raise Problem(400, f"{min(unknown)[:80]!r} is no parameter: {there}")
