"""Kafka records as messages for templates, and as dead letters. No I/O."""

import base64
from datetime import datetime
from typing import Final, NamedTuple

from taskdist.common.times import from_milliseconds
from taskdist.intake.message import Message, Poison, wire
from taskdist.sources.broker import told_of

# The place that a dead letter comes from.
_TOPIC: Final = "x-taskdist-topic"
_PARTITION: Final = "x-taskdist-partition"
_OFFSET: Final = "x-taskdist-offset"
# Set where the body did not fit beside what is added: it lies at the offset that the others name.
_LEFT_OUT: Final = "x-taskdist-body"

Headers = tuple[tuple[str, bytes | None], ...]


class Record(NamedTuple):
    """A message as it lies in its partition. `timestamp`: milliseconds, or none below 0."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Headers


def message_of(record: Record, now: datetime) -> Message:
    """Return the record as the template sees it.

    Its timestamp is part of its id: a topic that was deleted and made again counts from 0 again.
    """
    time = from_milliseconds(record.timestamp)
    properties = {"topic": record.topic, "partition": record.partition, "offset": record.offset}
    return Message(
        body=record.value or b"",
        headers={name: None if value is None else _text(value) for name, value in record.headers},
        properties=properties if time is None else properties | {"timestamp": wire(time)},
        key=None if record.key is None else _text(record.key),
        id=f"{record.topic}/{record.partition}/{record.offset}@{record.timestamp}",
        time=now if time is None else time,
    )


def dead_headers(record: Record, poison: Poison, source: str, *, body: bool = True) -> list[tuple[str, bytes | None]]:
    """Return the headers of a dead letter: those that it had, and why it is one. `body`: whether that is with it."""
    ours = told_of(poison, source) | {
        _TOPIC: record.topic,
        _PARTITION: str(record.partition),
        _OFFSET: str(record.offset),
    }
    if not body:
        ours[_LEFT_OUT] = "left out"
    given = () if not body else tuple(each for each in record.headers if each[0] not in ours)
    return [*given, *((name, text.encode()) for name, text in ours.items())]


def _text(value: bytes) -> str:
    """Return the bytes as text, or as base64 where they are none."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return base64.b64encode(value).decode("ascii")
