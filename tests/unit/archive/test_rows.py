"""What is kept of an ended Task, whatever stands in it."""

import copy
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.archive.rows import clean, has_ended, row

TASK: dict[str, Any] = {
    "metadata": {
        "uid": "u1",
        "name": "t",
        "namespace": "ns",
        "resourceVersion": "41",
        "creationTimestamp": "2026-11-30T08:00:00Z",
        "labels": {"batch": "nightly"},
    },
    "spec": {"queue": "q", "type": "echo", "payload": {"a": 1}, "priority": "High"},
    "status": {
        "phase": "Succeeded",
        "reason": "Completed",
        "message": "done",
        "attempt": 2,
        "pool": "p",
        "agent": "p-1",
        "assignedAt": "2026-11-30T08:00:09Z",
        "startedAt": "2026-11-30T08:00:10Z",
        "finishedAt": "2026-11-30T08:00:12.5Z",
        "cost": 0.25,
        "result": {"b": 2},
        "attempts": [
            {
                "attempt": 1,
                "reason": "HandlerError",
                "message": "boom",
                "agent": "p-0",
                "startedAt": "2026-11-30T08:00:02Z",
                "endedAt": "2026-11-30T08:00:03Z",
            }
        ],
    },
}


def at(second: float) -> datetime:
    return datetime(2026, 11, 30, 8, 0, int(second), int(second % 1 * 1e6), tzinfo=UTC)


def changed(**status: Any) -> dict[str, Any]:
    task = copy.deepcopy(TASK)
    task["status"] |= status
    return task


def test_a_task_becomes_a_row() -> None:
    found = row(TASK, "prod")
    task = found.task
    assert (task.uid, task.version, task.cluster, task.namespace, task.name) == ("u1", 41, "prod", "ns", "t")
    assert (task.queue, task.tenant, task.type, task.priority) == ("q", "ns", "echo", "High")
    assert (task.pool, task.agent, task.phase, task.reason, task.message) == (
        *("p", "p-1", "Succeeded", "Completed", "done"),
    )
    assert (task.created_at, task.started_at, task.ended_at) == (at(0), at(10), at(12.5))
    assert (task.queue_ms, task.run_ms, task.attempts) == (10_000, 2_500, 2)
    assert json.loads(task.labels) == {"batch": "nightly"}
    assert json.loads(task.spec or "") == TASK["spec"]
    assert json.loads(task.result or "") == {"b": 2}
    rest = json.loads(task.status or "")
    assert rest["cost"] == 0.25
    assert not rest.keys() & {"result", "attempts"}
    assert task.left_out == ""


def test_of_what_is_in_an_object_store_the_references_are_kept() -> None:
    ref = {"uri": "s3://b/tasks/ns/results/u1/2/x", "size": 70_000, "sha256": "a" * 64}
    task = changed(resultRef=ref)
    del task["status"]["result"], task["spec"]["payload"]
    task["spec"]["payloadRef"] = ref
    found = row(task).task
    assert found.result is None
    assert json.loads(found.spec or "")["payloadRef"] == json.loads(found.status or "")["resultRef"] == ref


def test_the_last_attempt_is_one_of_all() -> None:
    first, last = row(TASK).attempts
    assert first == ("u1", 1, at(12.5), "HandlerError", "boom", "p-0", at(2), at(3))
    assert last == ("u1", 2, at(12.5), "Completed", "done", "p-1", at(10), at(12.5))


@pytest.mark.parametrize(
    ("status", "numbers"),
    [
        pytest.param({"attempt": 1}, [1], id="it is listed"),
        pytest.param({"attempt": 0, "attempts": []}, [], id="it was never assigned"),
        pytest.param({"attempt": 2, "assignedAt": None}, [1], id="nothing is known of the last"),
        pytest.param({"attempts": "none"}, [2], id="a list that is none"),
        pytest.param({"attempts": [7, {"attempt": "x"}], "attempt": 3}, [0, 3], id="records that are none"),
    ],
)
def test_attempts(status: dict[str, Any], numbers: list[int]) -> None:
    assert [each.attempt for each in row(changed(**status)).attempts] == numbers


@pytest.mark.parametrize(
    ("phase", "ended"),
    [
        *((phase, True) for phase in ("Succeeded", "Failed", "Cancelled", "DeadLettered")),
        *((phase, False) for phase in ("Pending", "Assigned", "Exploded", None, 7)),
    ],
)
def test_has_ended(phase: Any, ended: bool) -> None:
    assert has_ended(changed(phase=phase)) is ended
    assert not has_ended({**TASK, "status": None})


@pytest.mark.parametrize("finished", [None, "", "soon", "0000-00-00T00:00:00Z", "9999-12-31T23:59:59-23:00", 7])
def test_an_end_that_cannot_be_read_is_the_creation(finished: Any) -> None:
    assert row(changed(finishedAt=finished)).task.ended_at == at(0)


def test_a_later_end_goes_before_a_later_version() -> None:
    early, late = row(changed(finishedAt="2026-11-30T08:00:13Z")), row(changed(finishedAt="2026-11-30T08:00:14Z"))
    again = copy.deepcopy(TASK)
    again["metadata"]["resourceVersion"] = "42"
    assert late.key > early.key > row(again).key > row(TASK).key


def test_what_postgresql_has_no_character_for_is_replaced() -> None:
    task = changed(message="a\0b", result={"k\0": ["\ud800", "fine ü \U0001f600", {"x": "\0"}]})
    task["metadata"]["labels"] = {"l": "\udfff"}
    found = row(task).task
    assert found.message == "a\ufffdb"
    assert json.loads(found.result or "") == {"k\ufffd": ["?", "fine ü \U0001f600", {"x": "\ufffd"}]}
    assert json.loads(found.labels) == {"l": "?"}


@given(st.text())
def test_clean_text_can_be_stored_and_plain_text_stays(text: str) -> None:
    found = clean(text)
    assert "\0" not in found
    found.encode()
    assert "\0" in text or found == text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(spec=json_values, status=json_values, value=json_values)
def test_whatever_stands_in_a_task_becomes_a_row(spec: Any, status: Any, value: Any) -> None:
    for odd in (
        {**TASK, "spec": spec, "status": status},
        {**TASK, "spec": {"queue": value, "type": value, "tenant": value, "priority": value}},
        {**TASK, "metadata": {**TASK["metadata"], "labels": value, "creationTimestamp": value}},
        changed(
            **dict.fromkeys(("phase", "reason", "attempt", "attempts", "startedAt", "finishedAt", "result"), value)
        ),
    ):
        found = row(odd)
        for text in (found.task.labels, found.task.spec, found.task.status, found.task.result):
            assert text is None or isinstance(json.loads(text), dict | list | str | int | float | bool | None)
        assert found.size > 0


def test_bare_leaves_out_what_users_wrote_and_says_so() -> None:
    bare = row(TASK).bare("refused\0")
    assert (bare.task.spec, bare.task.result, bare.task.labels, bare.task.message) == (None, None, "{}", "")
    assert bare.task.left_out == "refused\ufffd"
    assert [each.message for each in bare.attempts] == ["", ""]
    assert bare.key == row(TASK).key
