"""A message as every source hands it over, and the parts of it that a path can name. Pure.

The parts are worked out once asked for: a body that no path looks into is never parsed, so that it may be anything.
"""

import base64
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any, Final, NoReturn

from taskdist.api.template import MAX_BODY_BYTES

_NO_TIME: Final = datetime.fromtimestamp(0, UTC)


class PoisonReason(StrEnum):
    """The fault of a message of which no Task can ever be made."""

    NOT_JSON = "NotJson"
    NOT_TEXT = "NotText"
    NOTHING_THERE = "NothingThere"
    WRONG_TYPE = "WrongType"
    INVALID_VALUE = "InvalidValue"
    TOO_LARGE = "TooLarge"
    REFUSED = "Refused"


class Poison(Exception):
    """No Task can be made of this message, however often it comes: `reason` for programs, the text for people."""

    def __init__(self, reason: PoisonReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Absent(Exception):
    """The message has no such part."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message from any source. `headers` and `properties` hold JSON values."""

    body: bytes = b""
    headers: Mapping[str, Any] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)
    key: str | None = None
    id: str | None = None
    """The name by which the source tells messages apart; a redelivery has the same."""
    time: datetime = _NO_TIME
    """The time at which it was published, or for which it was scheduled."""


class Parts:
    """The parts of one message by the words that paths start with."""

    def __init__(self, message: Message) -> None:
        self._message = message
        self._known: dict[str, Any] = {}

    def get(self, root: str) -> Any:
        """Return the part. Raises `Absent`, or `Poison` for a body that is not what it is asked to be."""
        if root not in self._known:
            self._known[root] = self._part(root)
        return self._known[root]

    def _part(self, root: str) -> Any:
        message = self._message
        match root:
            case "$":
                return _parsed(message.body)
            case "text":
                return _text(message.body)
            case "base64":
                return base64.b64encode(_bounded(message.body)).decode("ascii")
            case "hash":
                return hashlib.sha256(message.body).hexdigest()
            case "headers":
                return message.headers
            case "properties":
                return message.properties
            case "time":
                return wire(message.time)
            case "key" | "id":
                value = message.key if root == "key" else message.id
                if value is None:
                    raise Absent
                return value
        raise AssertionError(f"no part {root!r}: the grammar knows the roots")


def wire(time: datetime) -> str:
    """Return the time as RFC 3339 in UTC, with fractions only where it has them."""
    return time.astimezone(UTC).replace(tzinfo=None).isoformat() + "Z"


def _bounded(body: bytes) -> bytes:
    if len(body) > MAX_BODY_BYTES:
        raise Poison(
            PoisonReason.TOO_LARGE,
            f"the body has {len(body)} bytes, more than {MAX_BODY_BYTES}: store it elsewhere and send a reference",
        )
    return body


def _text(body: bytes) -> str:
    try:
        return _bounded(body).decode("utf-8")
    except UnicodeDecodeError as error:
        raise Poison(
            PoisonReason.NOT_TEXT, f"the body is no UTF-8 text: byte {error.start} is the first that is none"
        ) from None


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(_text(body), parse_constant=_refuse)
    except RecursionError:
        raise Poison(PoisonReason.NOT_JSON, "the body is nested too deep to be read as JSON") from None
    except ValueError as error:
        raise Poison(PoisonReason.NOT_JSON, f"the body is no JSON: {error}"[:300]) from None


def _refuse(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
