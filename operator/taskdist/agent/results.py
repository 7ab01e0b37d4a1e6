"""Bounds of results: which bodies may go on the link. The same for every way in which work is run."""

from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.protocol.values import parse_object

Unfit = tuple[Reason, str]


def too_large(what: str) -> Unfit:
    """The refusal of a result that no status may hold; `what` says how large it is."""
    message = f"{what}, at most {MAX_RESULT_BYTES} are allowed; store large results elsewhere and return a reference"
    return Reason.RESULT_TOO_LARGE, message


def refusal(body: bytes) -> Unfit | None:
    """Return why this body is no result that can be kept; None if it is one."""
    if len(body) > MAX_RESULT_BYTES:
        return too_large(f"the result has {len(body)} bytes")
    try:
        parse_object(body)
    except ValueError as error:
        return Reason.RESULT_REFUSED, f"the result is not a JSON object that can be kept as it is: {str(error)[:500]}"
    return None
