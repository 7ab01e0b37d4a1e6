"""Messages of SQS as messages for templates and as dead letters, and its errors as troubles. No I/O."""

import base64
import math
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from taskdist.api import SourceReason
from taskdist.common.times import from_milliseconds
from taskdist.intake.message import Message, Poison
from taskdist.sources.broker import Trouble, told_of

# Queues whose names end so keep messages in order by group.
FIFO: Final = ".fifo"
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
        if str(properties.get(name, "")).isdecimal():
            properties[name] = int(properties[name])
    return Message(
        body=str(raw.get("Body", "")).encode("utf-8", "replace"),
        headers={str(name): _json(value) for name, value in raw.get("MessageAttributes", {}).items()},
        properties={"messageId": str(raw["MessageId"]), **properties},
        key=group_of(raw),
        id=str(raw["MessageId"]),
        time=_time(properties.get("sentTimestamp"), now),
    )


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
    try:
        return int(text)
    except ValueError:
        pass
    try:
        value = float(text)
    except ValueError:
        return text
    return value if math.isfinite(value) else text


def dead_letters_of(raw: Mapping[str, Any], poison: Poison, source: str, fifo: bool) -> list[dict[str, Any]]:
    """Return what is sent to the dead letters; where that is too large for them, the next one of these.

    A message may be as large as the queue takes, and have as many attributes: then its own are left out, then ours.
    """
    ours: dict[str, Any] = {
        # SQS takes no control characters.
        name: {"DataType": "String", "StringValue": "".join(each if each.isprintable() else " " for each in text)}
        for name, text in (told_of(poison, source) | {_ID: str(raw["MessageId"])}).items()
    }
    theirs = {
        str(name): {
            part: value[part] for part in ("DataType", "StringValue", "BinaryValue") if value.get(part) is not None
        }
        for name, value in sorted(raw.get("MessageAttributes", {}).items())
        if name not in ours
    }
    kept = dict(list(theirs.items())[: MAX_ATTRIBUTES - len(ours)])
    plain: dict[str, Any] = {"MessageBody": raw["Body"]}
    if fifo:
        # The same message within five minutes is taken once.
        plain["MessageDeduplicationId"] = str(raw["MessageId"])
        plain["MessageGroupId"] = group_of(raw) or "taskdist"
    return [plain | {"MessageAttributes": attributes} for attributes in (ours | kept, ours)] + [plain]


# -- errors ------------------------------------------------------------------------------------------------------------

# What is asked for in an operation that acts on many at a time.
_ACTIONS: Final = {
    "DeleteMessageBatch": "DeleteMessage",
    "ChangeMessageVisibilityBatch": "ChangeMessageVisibility",
}
_NO_QUEUE: Final = ("QueueDoesNotExist", "NonExistentQueue", "ResourceNotFoundException", "QueueDeletedRecently")
_DENIED: Final = ("AccessDenied", "AccessDeniedException", "NotAuthorized", "AuthorizationError")
_UNKNOWN_KEY: Final = (
    "InvalidClientTokenId",
    "UnrecognizedClientException",
    "InvalidAccessKeyId",
    "InvalidSecurity",
    "MissingAuthenticationToken",
    "IncompleteSignature",
)
_SIGNATURE: Final = ("SignatureDoesNotMatch", "InvalidSignatureException")
_EXPIRED: Final = ("ExpiredToken", "ExpiredTokenException")
_CLOCK: Final = ("RequestTimeTooSkewed", "RequestExpired")
_CLOCK_WORDS: Final = ("signature expired", "signature not yet current")
_ADDRESS: Final = ("InvalidAddress", "credential should be scoped to a valid region")


def trouble_of(code: str, message: str, operation: str, queue: str, region: str) -> Trouble:
    """Return what is amiss, and what mends it. `code`: without a prefix."""
    name, said = code or "an error", message.strip().rstrip(".")[:500]
    unreachable, secret = SourceReason.BROKER_UNREACHABLE, SourceReason.SECRET_UNUSABLE
    if name in _NO_QUEUE:
        return Trouble(
            unreachable, f"there is no queue {queue} in {region}: create it, or mend the address and the region"
        )
    if name in _ADDRESS or any(each in said.lower() for each in _ADDRESS):
        return Trouble(unreachable, f"queue {queue} is not in {region}: mend spec.sqs.region or the address ({said})")
    if name in _CLOCK or any(each in said.lower() for each in _CLOCK_WORDS):
        return Trouble(unreachable, f"the clock of this process's node is wrong: set it ({said})")
    if name in _DENIED:
        action = f"sqs:{_ACTIONS.get(operation, operation)}"
        return Trouble(unreachable, f"{action} on {queue} is not allowed: allow it in the policy ({said})")
    if name in _UNKNOWN_KEY:
        return Trouble(secret, f"the access key is not known: mend AWS_ACCESS_KEY_ID ({said})")
    if name in _SIGNATURE:
        return Trouble(secret, f"the secret access key is not that of the access key: mend the Secret ({said})")
    if name in _EXPIRED:
        return Trouble(secret, f"the session token has expired: write a new one into the Secret ({said})")
    if name.startswith("Kms"):
        return Trouble(
            unreachable, f"the queue's messages cannot be decrypted: allow kms:Decrypt on its key ({name}: {said})"
        )
    if name == "OverLimit":
        return Trouble(
            unreachable, f"too many messages of {queue} are in flight: other consumers do not delete them ({said})"
        )
    return Trouble(unreachable, f"{operation} on {queue}: {name}: {said}"[:700])
