"""Bounds of results: which bodies may go on the link. The same for every way in which work is run."""

import os

from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.objects.settings import MAX_BYTES, URL, most_bytes
from taskdist.protocol.values import parse_object

Unfit = tuple[Reason, str]


def limit() -> int:
    """Return how large a result may be here: what a status holds, or what goes to the object store."""
    return most_bytes(os.environ)


def too_large(what: str) -> Unfit:
    """The refusal of a result that is more than that; `what` says how large it is."""
    most = limit()
    mend = f"raise {MAX_BYTES}" if most > MAX_RESULT_BYTES else f"set {URL}, so that larger ones go to an object store"
    message = f"{what}, at most {most} are allowed; {mend}, or store it elsewhere and return a reference"
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
