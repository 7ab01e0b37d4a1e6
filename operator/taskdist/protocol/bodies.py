"""Payloads and results as they stand on a Task: by value, or by reference to an object store. Pure."""

from typing import Any

from pydantic import ValidationError

from taskdist import api
from taskdist.api import Reason, Unreadable
from taskdist.protocol import reading
from taskdist.protocol.messages import Body, ObjectRef

Obj = dict[str, Any]
_NOTHING: Obj = {}


def payload(obj: Obj) -> Body:
    """The Task's payload as agents get it; of an array with items of its own, the list of these as JSON.

    One that is nested too deep is never sent: Unreadable.
    """
    spec = obj["spec"]
    items = (spec.get("array") or _NOTHING).get("items")
    if not items and (told := spec.get("payloadRef")) is not None:
        return _reference(told, "spec.payloadRef")
    value = items or spec.get("payload")
    if not value:
        return b"{}"
    text = reading.shallow(value)
    if text is None:
        raise Unreadable(Reason.PAYLOAD_TOO_DEEP, reading.too_deep("spec.payload"))
    # A lone surrogate is legal in JSON text and not in UTF-8: it must not be able to stop the operator.
    return text.encode("utf-8", "replace")


def result(obj: Obj) -> Body:
    """The Task's result; empty if it has none, or one that no agent could have given: too deep."""
    status = obj.get("status") or _NOTHING
    if (told := status.get("resultRef")) is not None:
        try:
            return _reference(told, "status.resultRef")
        except Unreadable:
            return b""
    value = status.get("result")
    text = None if value is None else reading.shallow(value)
    return b"" if text is None else text.encode("utf-8", "replace")


def _reference(told: Any, field: str) -> ObjectRef:
    """One that no schema of this release allows may have been stored by another: Unreadable."""
    try:
        found = api.ObjectRef.model_validate(told)
    except ValidationError as error:
        wrong = reading.flaw(error)
        raise Unreadable(Reason.UNREADABLE, f"{field} is no reference that this release can read: {wrong}") from None
    return ObjectRef(found.uri, found.size, found.sha256, found.content_type)
