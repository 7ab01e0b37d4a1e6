"""Arrays as the API server sends them: their parts are read as Tasks, and what makes no sense is set aside."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.api import Delivery, Phase, Reason, Reclaim, Unreadable
from taskdist.protocol import convert, task_status
from taskdist.protocol.arrays.account import ArrayRules
from taskdist.protocol.messages import array_uid
from taskdist.protocol.observations import Terms

LEASE = {"leaseSeconds": 15, "holdSeconds": 120, "reclaim": "Lease", "delivery": "AtLeastOnce", "dispatch": "Strict"}
HELD = {"items": "3-5", "phase": "Assigned", "attempt": 2, "epoch": 4, "agentUid": "u1", "pool": "p", "lease": LEASE}


def obj(array: dict[str, Any], status: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"uid": "u-1", "namespace": "ns", "name": "big", "resourceVersion": "7"},
        "spec": {"queue": "q", "type": "t", "array": array, **spec},
        "status": {"phase": "Assigned", "epoch": 4, "array": status or {}},
    }


def test_a_part_is_read_as_a_task() -> None:
    record = convert.observed_task(obj({"count": 10}, {"parts": {"4-1": HELD}}, priority="High", cancel=True))
    assert record.array is not None
    part = record.array.parts["4-1"]
    assert part.task.uid == "u-1.4-1"
    assert array_uid(part.task.uid) == part.part_of == record.task.uid
    assert (part.task.name, part.task.priority, part.cancel) == ("big", record.task.priority, True)
    assert (part.phase, part.attempt, part.epoch, part.agent_uid, part.pool) == (Phase.ASSIGNED, 2, 4, "u1", "p")
    assert part.terms == Terms(15.0, 120.0, Reclaim.LEASE, Delivery.AT_LEAST_ONCE, True)
    assert part.resource_version == record.resource_version == 7
    assert task_status.ARRAYS_SKILL in part.task.skills
    assert part.array is None


def test_items_of_its_own_are_the_payload() -> None:
    assert convert.payload(obj({"items": [{"a": 1}, {}]}, payload={"b": 2})) == b'[{"a":1},{}]'
    assert convert.payload(obj({"count": 2}, payload={"b": 2})) == b'{"b":2}'
    record = convert.observed_task(obj({"items": [{"a": 1}, {}]}))
    assert record.array is not None
    assert record.array.rules == ArrayRules(2, inline=True)


def test_items_that_are_too_large_end_the_task() -> None:
    record = convert.observed_task(obj({"items": [{"a": "x" * 1000}] * 70}))
    assert record.fault is not None
    assert record.fault.reason is Reason.PAYLOAD_TOO_LARGE


@pytest.mark.parametrize(
    ("array", "status"),
    [
        pytest.param({"count": 5}, {"succeeded": "4-5"}, id="items that it does not have"),
        pytest.param(
            {"count": 9}, {"parts": {"a": {"items": "1", "phase": "Paused"}}}, id="a phase of another release"
        ),
        pytest.param({"count": 9}, {"parts": {"a": {"items": "1", "throttledSeconds": "x"}}}, id="no number"),
        pytest.param({"count": 9}, {"parts": ["a"]}, id="no map"),
        pytest.param({"count": 9}, {"parts": {"a": None}}, id="no part"),
    ],
)
def test_what_makes_no_array_is_set_aside(array: dict[str, Any], status: dict[str, Any]) -> None:
    with pytest.raises(Unreadable):
        convert.observed_task(obj(array, status))


@pytest.mark.parametrize("array", [{}, {"count": 0}, {"count": 10**7}, {"count": "x"}, {"count": 3, "completions": 4}])
def test_a_spec_that_makes_no_array_ends_the_task(array: dict[str, Any]) -> None:
    record = convert.observed_task(obj(array))
    assert record.array is None
    assert record.fault is not None
    assert record.fault.reason is Reason.INVALID_SPEC


ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 2**40) | st.sampled_from(("", "1", "0-3", "x", "Assigned")),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(("items", "failures", "a")), inner),
    max_leaves=5,
)
FIELDS = ("succeeded", "failed", "retrying", "parts", "errors", "resultBytes", "resultsDropped", "commit", "results")


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.sampled_from(("count", "items", "chunk", "parallelism", "completions")), ANY), st.data())
def test_whatever_anybody_writes_is_read_or_set_aside(array: dict[str, Any], data: st.DataObject) -> None:
    status = data.draw(st.dictionaries(st.sampled_from(FIELDS), ANY))
    for spec in (array, {"count": 5}):
        try:
            record = convert.observed_task(obj(spec, status))
        except Unreadable:
            continue
        if record.array is not None:
            account = record.array.account
            sets = (account.succeeded, account.failed, account.waiting_again, account.in_parts, account.untried)
            assert sum(map(len, sets)) == record.array.rules.count
