"""Messages of SQS as messages for templates and as dead letters. No I/O."""

import base64
import math
import re
import sys
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final

from taskdist.common.times import from_milliseconds
from taskdist.intake.message import Message, Poison
from taskdist.sources.broker import Delivery, told_of

# The most attributes that a message may have.
MAX_ATTRIBUTES: Final = 10
# The id of a dead letter in its first queue.
_ID: Final = "x-taskdist-id"

# What a template may name, by the names that it has there.
_PROPERTIES: Final = {
    "messageGroupId": "MessageGroupId",
    "messageDeduplicationId": "MessageDeduplicationId",
    "sequenceNumber": "SequenceNumber",
    "approximateReceiveCount": "ApproximateReceiveCount",
    "senderId": "SenderId",
    "sentTimestamp": "SentTimestamp",
    "awsTraceHeader": "AWSTraceHeader",
}
_DECIMAL: Final = re.compile(r"-?[0-9]{1,40}([.][0-9]{1,40})?([eE][-+]?[0-9]{1,3})?", re.ASCII)
# Whole numbers that every reader of JSON gives back as they are.
_WHOLE: Final = re.compile("-?[0-9]{1,15}", re.ASCII)
_COUNTS: Final = ("approximateReceiveCount", "sentTimestamp")


def group_of(raw: Mapping[str, Any]) -> str | None:
    """Return the group of a message as it was received."""
    group = raw.get("Attributes", {}).get("MessageGroupId")
    return None if group is None else str(group)


def message_of(raw: Mapping[str, Any], now: datetime) -> Message:
    """Return the message as the template sees it."""
    told = raw.get("Attributes", {})
    properties = {name: told[theirs] for name, theirs in _PROPERTIES.items() if theirs in told}
    for name in _COUNTS:
        if _WHOLE.fullmatch(str(properties.get(name, ""))):
            properties[name] = int(properties[name])
    return Message(
        body=str(raw.get("Body", "")).encode("utf-8", "replace"),
        headers={str(name): _json(value) for name, value in raw.get("MessageAttributes", {}).items()},
        properties={"messageId": str(raw["MessageId"]), **properties},
        key=group_of(raw),
        id=str(raw["MessageId"]),
        time=_time(properties.get("sentTimestamp"), now),
    )


def size_of(raw: Mapping[str, Any], body: bytes) -> int:
    """Return about how many bytes of memory a message takes while it is in hand, with its attributes."""
    attributes = raw.get("MessageAttributes", {})
    parts = [part for value in attributes.values() for part in (value.get("StringValue"), value.get("BinaryValue"))]
    return len(body) + sum(sys.getsizeof(each) for each in (*attributes, *parts) if each is not None)


def _time(milliseconds: Any, now: datetime) -> datetime:
    time = from_milliseconds(milliseconds) if isinstance(milliseconds, int) else None
    return now if time is None else time


def _json(attribute: Mapping[str, Any]) -> Any:
    """Return an attribute as JSON: numbers are numbers, bytes base64."""
    kind = str(attribute.get("DataType", "")).partition(".")[0]
    if kind == "Binary":
        return base64.b64encode(bytes(attribute.get("BinaryValue", b""))).decode("ascii")
    text = str(attribute.get("StringValue", ""))
    return _number(text) if kind == "Number" else text


def _number(text: str) -> Any:
    """Return the number; it may have 38 digits, and what JSON would not give back as it was stays a text."""
    if _WHOLE.fullmatch(text):
        return int(text)
    if not _DECIMAL.fullmatch(text):
        return text
    value = float(text)
    return value if math.isfinite(value) and Decimal(repr(value)) == Decimal(text) else text


def dead_letters_of(delivery: Delivery, poison: Poison, source: str, fifo: bool) -> list[dict[str, Any]]:
    """Return what is sent to the dead letters; where that is too large for them, the next one of these.

    A message may be as large as the queue takes, and have as many attributes: then its own are left out, then ours.
    """
    raw, message = delivery.raw, delivery.message
    ours: dict[str, Any] = {
        # SQS takes no control characters.
        name: {"DataType": "String", "StringValue": "".join(each if each.isprintable() else " " for each in text)}
        for name, text in (told_of(poison, source) | {_ID: str(message.id)}).items()
    }
    theirs = {
        str(name): {
            part: value[part] for part in ("DataType", "StringValue", "BinaryValue") if value.get(part) is not None
        }
        for name, value in sorted(raw.get("MessageAttributes", {}).items())
        if name not in ours
    }
    kept = dict(list(theirs.items())[: MAX_ATTRIBUTES - len(ours)])
    plain: dict[str, Any] = {"MessageBody": message.body.decode()}
    if fifo:
        # The same message within five minutes is taken once.
        plain["MessageDeduplicationId"] = str(message.id)
        plain["MessageGroupId"] = message.key or "taskdist"
    return [plain | {"MessageAttributes": attributes} for attributes in (ours | kept, ours)] + [plain]
