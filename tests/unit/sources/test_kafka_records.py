"""Kafka records: what they are to a template, and what a dead letter tells of them."""

from __future__ import annotations

import pytest

from taskdist.api import TaskTemplate
from taskdist.intake.mapping import compile_mapping
from taskdist.intake.message import Message, Poison, PoisonReason
from taskdist.sources.kafka_records import Record, dead_headers, message_of
from unit.sources.world import at

NOW = at("2026-01-01T00:00:00")
RECORD = Record("orders", 3, 17, 1_764_500_000_123, b"k", b'{"a": 1}', (("h", b"v"), ("odd", b"\xff"), ("none", None)))
ODD = Poison(PoisonReason.NOT_JSON, "the body is no JSON: \udcff")


def test_a_record_has_its_place_and_time_for_a_name() -> None:
    message = message_of(RECORD, NOW)
    assert message == Message(
        body=b'{"a": 1}',
        headers={"h": "v", "odd": "/w==", "none": None},
        properties={"topic": "orders", "partition": 3, "offset": 17, "timestamp": "2025-11-30T10:53:20.123000Z"},
        key="k",
        id="orders/3/17@1764500000123",
        time=message.time,
    )
    assert message == message_of(RECORD, at("2027-01-01T00:00:00")), "the same whenever it is read"


def test_a_topic_that_is_made_again_has_other_messages_at_the_same_offsets() -> None:
    assert message_of(RECORD, NOW).id != message_of(RECORD._replace(timestamp=RECORD.timestamp + 1), NOW).id


@pytest.mark.parametrize(
    ("record", "expected"),
    [
        pytest.param(RECORD._replace(key=b"\xff"), {"key": "/w=="}, id="a key that is no text is base64"),
        pytest.param(RECORD._replace(key=None), {"key": None}, id="no key"),
        pytest.param(RECORD._replace(value=None), {"body": b""}, id="no body"),
        pytest.param(RECORD._replace(timestamp=-1), {"time": NOW}, id="no time"),
        pytest.param(RECORD._replace(timestamp=2**62), {"time": NOW}, id="a time beyond all calendars"),
    ],
)
def test_whatever_a_record_lacks_it_is_a_message(record: Record, expected: dict[str, object]) -> None:
    message = message_of(record, NOW)
    assert {name: getattr(message, name) for name in expected} == expected


def test_a_template_takes_its_parts() -> None:
    template = {"queue": "q", "type": "{headers.h}", "orderingKey": "{key}", "tenant": "{properties.topic}"}
    mapped = compile_mapping(TaskTemplate.model_validate(template)).of(message_of(RECORD, NOW))
    assert mapped.identity == "orders/3/17@1764500000123"
    assert mapped.spec == {"queue": "q", "type": "v", "orderingKey": "k", "tenant": "orders", "payload": {"a": 1}}


def test_a_dead_letter_keeps_its_headers_and_none_that_say_otherwise() -> None:
    record = RECORD._replace(headers=(*RECORD.headers, ("x-taskdist-reason", b"forged")))
    ours = [
        ("x-taskdist-reason", b"NotJson"),
        ("x-taskdist-message", b"the body is no JSON: ?"),
        ("x-taskdist-source", b"ns/s"),
        ("x-taskdist-topic", b"orders"),
        ("x-taskdist-partition", b"3"),
        ("x-taskdist-offset", b"17"),
    ]
    assert dead_headers(record, ODD, "ns/s") == [*RECORD.headers, *ours]
    assert dead_headers(record, ODD, "ns/s", body=False) == [*ours, ("x-taskdist-body", b"left out")]
