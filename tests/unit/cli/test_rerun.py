"""Making a Task again: what is kept of the first, what is changed, what is left out."""

from typing import Any

import pytest

from memory_cluster import MemoryCluster, call
from taskdist.cli.parse import Malformed, past
from taskdist.cli.rerun import RERUN_OF, assignment, manifest

SPEC: dict[str, Any] = {"queue": "q", "type": "t", "payload": {"a": {"b": 1, "c": 2}}, "slots": 3}


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ("slots=2", ("slots",), 2),
        ("payload.a.b=x", ("payload", "a", "b"), "x"),
        ('payload={"n": [1]}', ("payload",), {"n": [1]}),
        ("payload.a==", ("payload", "a"), "="),
        ("tenant=null", ("tenant",), None),
        ("payload.x=" + "[" * 5000, ("payload", "x"), "[" * 5000),
    ],
)
def test_assignment(text: str, path: tuple[str, ...], value: Any) -> None:
    assert assignment(text) == (path, value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("slots", "write FIELD=VALUE"),
        ("payload.=1", "write FIELD=VALUE"),
        ("colour=red", "a Task's spec has no 'colour': it has queue, type"),
    ],
)
def test_what_changes_nothing_is_refused(text: str, words: str) -> None:
    with pytest.raises(Malformed, match=words):
        assignment(text)


@pytest.mark.parametrize(
    ("changes", "spec"),
    [
        ([], SPEC),
        (["payload.a.b=5"], {**SPEC, "payload": {"a": {"b": 5, "c": 2}}}),
        (["payload.new.x=1"], {**SPEC, "payload": {**SPEC["payload"], "new": {"x": 1}}}),
        (["payload.a=7", "payload.a.b=1"], {**SPEC, "payload": {"a": {"b": 1}}}),
        (["slots=null", "payload.a.b=null"], {"queue": "q", "type": "t", "payload": {"a": {"c": 2}}}),
        (["tenant.x=null"], {**SPEC, "tenant": {}}),
    ],
)
def test_changes(changes: list[str], spec: dict[str, Any]) -> None:
    body, left_out = manifest("u1", "ns", "job-x7k2p", {"batch": "b"}, SPEC, [assignment(each) for each in changes])
    assert body["spec"] == spec
    assert left_out == []
    assert body["metadata"]["labels"] == {"batch": "b", RERUN_OF: "u1"}
    assert (body["metadata"]["namespace"], body["metadata"]["generateName"]) == ("ns", "job-x7k2p-")
    assert SPEC["payload"] == {"a": {"b": 1, "c": 2}}, "the first is as it was"


def test_what_meant_the_first_run_is_left_out_unless_set_anew() -> None:
    first = {**SPEC, "deadline": "2026-01-01T00:00:00Z", "dependsOn": [{"name": "p"}], "cancel": True, "redrive": 0}
    body, left_out = manifest("u", "ns", "n", {}, first, [assignment("deadline=2030-01-01T00:00:00Z")])
    assert body["spec"] == {**SPEC, "deadline": "2030-01-01T00:00:00Z"}
    assert left_out == ["dependsOn", "cancel"]


STORED = {"queue": "q", "type": "t", "payloadRef": {"uri": "s3://b/tasks/ns/payloads/x"}}


@pytest.mark.parametrize(
    ("changes", "spec"),
    [
        pytest.param([], STORED, id="a payload in the store is used again"),
        pytest.param(
            ['payload={"a": 1}'], {"queue": "q", "type": "t", "payload": {"a": 1}}, id="a new one takes its place"
        ),
    ],
)
def test_a_payload_in_the_object_store_is_kept_or_replaced(changes: list[str], spec: dict[str, Any]) -> None:
    body, _ = manifest("u", "ns", "n", {}, STORED, [assignment(text) for text in changes])
    assert body["spec"] == spec


def test_of_a_payload_in_the_object_store_no_part_is_changed() -> None:
    with pytest.raises(Malformed, match=r"in an object store \(s3://b/tasks/ns/payloads/x\): set the whole"):
        manifest("u", "ns", "n", {}, STORED, [assignment("payload.a=1")])


def test_a_long_name_leaves_room_for_what_is_made_up() -> None:
    body, _ = manifest("u", "ns", "a" * 49 + "-" + "b" * 203, {}, SPEC, [])
    assert body["metadata"]["generateName"] == "a" * 49 + "-"


def test_past() -> None:
    assert past("2026-01-31T12:00:00+01:00") == "2026-01-31T11:00:00Z"
    assert past("24h") < past("1h")
    with pytest.raises(Malformed, match="beyond all calendars"):
        past("99999999d")


def test_a_change_that_is_none_is_refused_before_anything_is_asked() -> None:
    done = call(MemoryCluster(), "rerun", "a", "--set", "colour=red", "--dsn", "postgresql://127.0.0.1:1/x")
    assert (done.code, "a Task's spec has no 'colour'" in done.err) == (2, True)


@pytest.mark.parametrize("command", [["history"], ["rerun", "a"]])
def test_without_an_address_it_says_what_to_set(command: list[str]) -> None:
    done = call(MemoryCluster(), *command)
    assert done.code == 2
    assert "TASKDIST_ARCHIVE_DSN=postgresql://" in done.err
