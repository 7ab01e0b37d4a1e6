"""What is answered where there is no answer: problem details as RFC 9457 has them."""

from collections.abc import Mapping

from taskdist.api.view import Problem as Shape

TITLES: Mapping[int, str] = {
    400: "The question is malformed",
    401: "Who asks is not known",
    403: "A right is missing",
    404: "There is no such thing",
    405: "Not with this method",
    408: "The question did not come to its end",
    410: "The list has moved on",
    413: "The question is too large",
    421: "This replica does not lead",
    422: "The question makes no sense here",
    429: "Too many questions at once",
    500: "The view has a defect",
    503: "Nobody could be asked",
    504: "The answer took too long",
}


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
        self.shape = Shape.model_validate(
            {"title": TITLES.get(status, "The question was refused"), "status": status, "detail": detail, **more}
        )


def missing(kind: str, namespace: str, name: str) -> Problem:
    """There is no object of this name."""
    return Problem(404, f"there is no {kind} {name} in namespace {namespace}")
