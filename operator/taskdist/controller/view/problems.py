"""What is answered where there is no answer: problem details as RFC 9457 has them."""

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
    """There is no object of this name."""
    return Problem(404, f"there is no {kind} {name} in namespace {namespace}")
