"""The end of a Task as a CloudEvent, and which ones a sink selects."""

import json
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import TaskSinkSpec
from taskdist.intake.cloudevents import STRUCTURED, events
from taskdist.intake.message import Message
from taskdist.outgoing.ends import InvalidKey, Selection, encoded, end_id, key_template, without_result


def task(status: dict[str, Any] | None = None, spec: dict[str, Any] | None = None, **metadata: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "namespace": "team",
            "name": "order-7",
            "uid": "u7",
            "resourceVersion": "41",
            "creationTimestamp": "2030-01-01T00:00:00Z",
            **metadata,
        },
        "spec": {"queue": "orders", "type": "pack", **(spec or {})},
        "status": {
            "phase": "Succeeded",
            "reason": "Succeeded",
            "attempt": 2,
            "finishedAt": "2030-01-01T00:00:05.25Z",
            "result": {"boxes": 3},
            **(status or {}),
        },
    }


def selection(**spec: Any) -> Selection:
    return Selection(TaskSinkSpec.model_validate(spec))


def test_an_end_is_an_event_that_others_read() -> None:
    end = selection().end(task(labels={"app": "shop"}, spec={"orderingKey": "7"}))
    assert json.loads(end.body) == {
        "specversion": "1.0",
        "id": "u7.0.succeeded",
        "source": "/apis/taskdist.dev/v1alpha1/namespaces/team/tasks/order-7",
        "type": "dev.taskdist.task.succeeded",
        "subject": "order-7",
        "time": "2030-01-01T00:00:05.25Z",
        "datacontenttype": "application/json",
        "partitionkey": "orders/7",
        "data": {
            "namespace": "team",
            "name": "order-7",
            "uid": "u7",
            "queue": "orders",
            "type": "pack",
            "tenant": "team",
            "priority": "Normal",
            "phase": "Succeeded",
            "reason": "Succeeded",
            "message": "",
            "attempts": 2,
            "labels": {"app": "shop"},
            "orderingKey": "7",
            "createdAt": "2030-01-01T00:00:00Z",
            "finishedAt": "2030-01-01T00:00:05.25Z",
            "result": {"boxes": 3},
        },
    }
    (read,) = events(STRUCTURED, {}, end.body, datetime.now(UTC))
    assert isinstance(read, Message)
    assert (read.id, read.key) == (
        "/apis/taskdist.dev/v1alpha1/namespaces/team/tasks/order-7 u7.0.succeeded",
        "orders/7",
    )


@pytest.mark.parametrize(
    ("status", "told"),
    [
        pytest.param({"phase": "Succeeded"}, "u7.0.succeeded", id="a success"),
        pytest.param({"phase": "Failed"}, "u7.0.failed", id="a failure"),
        pytest.param({"phase": "DeadLettered"}, "u7.0.deadlettered", id="a dead letter"),
        pytest.param({"phase": "DeadLettered", "redrives": 1}, "u7.1.deadlettered", id="a dead letter once more"),
        pytest.param({"phase": "Cancelled", "redrives": 1}, "u7.1.cancelled", id="a dead letter that is cancelled"),
        pytest.param({"phase": "Failed", "redrives": True}, "u7.0.failed", id="a count that is none"),
        pytest.param({"phase": "Pending"}, "", id="no end"),
        pytest.param({"phase": ["Failed"]}, "", id="no phase"),
    ],
)
def test_each_end_has_an_id_of_its_own(status: dict[str, Any], told: str) -> None:
    assert end_id(task(status)) == told


@pytest.mark.parametrize(
    ("spec", "obj", "key"),
    [
        pytest.param({}, task(), "u7", id="a Task without an order stands by itself"),
        pytest.param({}, task(spec={"orderingKey": "a"}), "orders/a", id="its order, within its queue"),
        pytest.param({"key": "{$.data.type}"}, task(spec={"orderingKey": "a"}), "pack", id="a path"),
        pytest.param({"key": "{$.data.labels['app']}-x"}, task(labels={"app": "s"}), "s-x", id="a label and more"),
        pytest.param({"key": "{$.data.labels['app']}"}, task(), "u7", id="a path to nothing"),
        pytest.param({"key": "{$.data.labels['app']?}"}, task(), "u7", id="a path that may lead to nothing"),
        pytest.param({"key": "{$.data.labels}"}, task(), "u7", id="a path to an object"),
        pytest.param({"key": "all"}, task(), "all", id="one order for all"),
        pytest.param({"key": "{$.data.labels['app']}"}, task(labels={"app": "k" * 2000}), "k" * 1024, id="a long one"),
    ],
)
def test_the_key_of_an_end(spec: dict[str, Any], obj: dict[str, Any], key: str) -> None:
    end = selection(**spec).end(obj)
    assert end.key == key
    assert json.loads(end.body)["partitionkey"] == key


@pytest.mark.parametrize("text", ["{$.a", "{headers.a}", "{key}", "{}"])
def test_a_template_that_looks_elsewhere_is_refused(text: str) -> None:
    with pytest.raises(InvalidKey):
        key_template(text)


@pytest.mark.parametrize(
    ("most", "result", "told"),
    [
        pytest.param(13, {"boxes": 3}, {"result": {"boxes": 3}}, id="a result within the bound"),
        pytest.param(10, {"boxes": 3}, {"resultOmitted": True}, id="a result beyond it"),
        pytest.param(0, {"a": 1}, {"resultOmitted": True}, id="none is told"),
        pytest.param(0, None, {}, id="there is none"),
        pytest.param(65_536, {"a": float("inf")}, {"resultOmitted": True}, id="a number that JSON has no word for"),
        pytest.param(65_536, {"a": "\ud800"}, {"result": {"a": "\ud800"}}, id="half a character"),
    ],
)
def test_a_result_is_told_within_its_bound(most: int, result: Any, told: dict[str, Any]) -> None:
    data = json.loads(selection(maxResultBytes=most).end(task({"result": result})).body)["data"]
    assert {name: data[name] for name in ("result", "resultOmitted") if name in data} == told


REF = {"uri": "s3://tasks/team/results/u7", "size": 70_000, "sha256": "0f" * 32, "contentType": "application/json"}


@pytest.mark.parametrize(
    ("most", "ref", "told"),
    [
        pytest.param(65_536, REF, {"resultRef": REF}, id="a place in the store"),
        pytest.param(65_536, {**REF, "more": [1]}, {"resultRef": REF}, id="what it says beside is left out"),
        pytest.param(0, REF, {"resultOmitted": True}, id="nothing of results is told"),
        pytest.param(65_536, {"uri": "s" * 5000}, {"resultOmitted": True}, id="beyond all bounds"),
        pytest.param(65_536, ["s3://a/b"], {}, id="no reference"),
    ],
)
def test_of_a_result_in_the_store_the_place_is_told(most: int, ref: Any, told: dict[str, Any]) -> None:
    obj = task()
    del obj["status"]["result"]
    obj["status"]["resultRef"] = ref
    data = json.loads(selection(maxResultBytes=most).end(obj).body)["data"]
    assert {name: data[name] for name in ("resultRef", "resultOmitted") if name in data} == told


RESULTS = {"0": '{"a":1}'}


@pytest.mark.parametrize(
    ("most", "status", "told"),
    [
        pytest.param(
            65_536,
            {"done": "97/100", "failed": "3-4,17", "results": RESULTS, "resultsDropped": 2},
            {"items": {"done": "97/100", "failed": 3, "resultsDropped": 2}, "results": RESULTS},
            id="how many ended how, and what they returned",
        ),
        pytest.param(
            5, {"done": "1/1", "results": RESULTS}, {"items": {"done": "1/1", "failed": 0}, "resultOmitted": True},
            id="results beyond the bound",
        ),
        pytest.param(9, {"failed": "4-3", "done": 7}, {"items": {"done": ""}}, id="what nobody here wrote"),
        pytest.param(9, ["x"], {"items": {"done": "", "failed": 0}}, id="no status of an array"),
    ],
)  # fmt: skip
def test_of_an_array_it_is_told_how_its_items_ended(most: int, status: Any, told: dict[str, Any]) -> None:
    obj = task({"array": status, "result": None})
    obj["spec"]["array"] = {"count": 100}
    body = selection(maxResultBytes=most).end(obj).body
    data = json.loads(body)["data"]
    assert {name: data[name] for name in ("items", "results", "resultOmitted") if name in data} == told
    bare = json.loads(without_result(body))["data"]
    assert "results" not in bare
    assert bare["items"] == told["items"]


@pytest.mark.parametrize("value", [["x"], {"a": "b"}, 7, None])
def test_a_label_that_is_no_text_meets_nothing_and_harms_nobody(value: Any) -> None:
    odd = task(labels={"app": value, "tier": "web"})
    assert not selection(selector={"labels": {"matchLabels": {"app": "shop"}}}).selects(odd)
    assert selection(selector={"labels": {"matchLabels": {"tier": "web"}}}).selects(odd)
    assert json.loads(selection().end(odd).body)["data"]["labels"] == {"tier": "web"}


@pytest.mark.parametrize(
    ("selector", "selected"),
    [
        pytest.param({}, True, id="all"),
        pytest.param({"queues": ["orders", "x"]}, True, id="its queue"),
        pytest.param({"queues": ["x"]}, False, id="another queue"),
        pytest.param({"types": ["pack"]}, True, id="its type"),
        pytest.param({"types": ["x"]}, False, id="another type"),
        pytest.param({"phases": ["Succeeded"]}, True, id="its phase"),
        pytest.param({"phases": ["Failed", "DeadLettered"]}, False, id="other phases"),
        pytest.param({"queues": ["orders"], "types": ["x"]}, False, id="all has to be met"),
        pytest.param({"labels": {"matchLabels": {"app": "shop"}}}, True, id="its label"),
        pytest.param({"labels": {"matchLabels": {"app": "x"}}}, False, id="another label"),
        *(
            pytest.param({"labels": {"matchExpressions": [requirement]}}, met, id=words)
            for words, met, requirement in (
                ("a label in", True, {"key": "app", "operator": "In", "values": ["shop"]}),
                ("a label not in", False, {"key": "app", "operator": "NotIn", "values": ["shop"]}),
                ("an absent label not in", True, {"key": "b", "operator": "NotIn", "values": ["shop"]}),
                ("a label that is there", True, {"key": "app", "operator": "Exists"}),
                ("a label that is not there", False, {"key": "b", "operator": "Exists"}),
                ("a label that has to be absent", False, {"key": "app", "operator": "DoesNotExist"}),
            )
        ),
    ],
)
def test_what_is_selected(selector: dict[str, Any], selected: bool) -> None:
    assert selection(selector=selector).selects(task(labels={"app": "shop"})) is selected


@pytest.mark.parametrize(
    ("selector", "asked"),
    [
        pytest.param({}, "status.phase!=Pending,status.phase!=Assigned", id="all ends"),
        pytest.param(
            {"queues": ["a"], "phases": ["Failed", "DeadLettered", "Cancelled"]},
            "status.phase!=Pending,status.phase!=Assigned,status.phase!=Succeeded,spec.queue=a",
            id="one queue, and no successes",
        ),
        pytest.param({"queues": ["a", "b"]}, "status.phase!=Pending,status.phase!=Assigned", id="two queues"),
    ],
)
def test_the_api_server_leaves_out_what_it_can(selector: dict[str, Any], asked: str) -> None:
    assert selection(selector=selector).field_selector == asked


@pytest.mark.parametrize(
    ("since", "selected"),
    [
        pytest.param("2030-01-01T00:00:05Z", True, id="it ended after the sink was made"),
        pytest.param("2030-01-01T00:00:06Z", False, id="it ended before"),
        pytest.param("", True, id="nobody knows when it was made"),
    ],
)
def test_what_ended_before_the_sink_was_there_is_not_told(since: str, selected: bool) -> None:
    assert Selection(TaskSinkSpec(), since).selects(task()) is selected


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=9), inner, max_size=2),
    max_leaves=5,
)
FIELDS = st.sampled_from(
    ["queue", "type", "orderingKey", "phase", "reason", "attempt", "redrives", "finishedAt", "result", "message"]
)


@given(st.dictionaries(FIELDS, ODD), st.dictionaries(FIELDS, ODD), ODD, st.sampled_from([None, "{$.data.queue}"]))
def test_whatever_stands_in_a_task_it_is_told(
    spec: dict[str, Any], status: dict[str, Any], labels: Any, key: str | None
) -> None:
    obj = task(status, spec, labels=labels)
    chosen = selection(key=key)
    chosen.selects(obj)
    end_id(obj)
    event = json.loads(chosen.end(obj).body)
    assert event["partitionkey"] == chosen.end(obj).key
    assert encoded(event)
