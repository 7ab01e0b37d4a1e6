"""What sinks hold back from deletion, and for how long."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Phase
from taskdist.controller.holding import Hold, seen_hold
from taskdist.controller.retention import Keep, Retention
from taskdist.core.model import Task
from taskdist.kube.archived import Archived
from taskdist.protocol.observations import ObservedTask

SINK = ("ns", "sink")
OTHER = ("ns", "other")


def ended(uid: str, version: int, queue: str = "q") -> ObservedTask:
    return ObservedTask(Task(uid, "ns", uid, queue, "t", 1.0), version, Phase.SUCCEEDED, finished_at=100.0)


def retention(*records: ObservedTask, archive: bool = False) -> Retention:
    made = Retention()
    for queue in ("q", "r"):
        made.queue_applied(("ns", queue), Keep(ended=10.0, archive=archive))
    for each in records:
        made.seen(each)
    return made


def due(made: Retention, now: float) -> list[str]:
    return [each.task.uid for each in made.due(now, 100)]


def test_an_end_that_a_sink_has_not_told_stays_until_it_has() -> None:
    made = retention(ended("a", 7), ended("b", 9))
    made.sink_told(Hold(SINK, 1000.0))
    assert due(made, 200.0) == []
    made.sink_told(Hold(SINK, 1000.0, position=7))
    assert due(made, 200.0) == ["a"]
    made.sink_told(Hold(SINK, 1000.0, position=20))
    assert due(made, 200.0) == ["b"]


def test_it_stays_no_longer_than_the_sink_says() -> None:
    made = retention(ended("a", 7))
    made.sink_told(Hold(SINK, 50.0))
    assert due(made, 159.9) == []
    assert due(made, 160.0) == ["a"]


def test_each_sink_that_holds_it_has_to_have_told_it() -> None:
    made = retention(ended("a", 7))
    made.sink_told(Hold(SINK, 1000.0))
    made.sink_told(Hold(OTHER, 500.0))
    assert due(made, 200.0) == []
    made.sink_told(Hold(SINK, 1000.0, position=7))
    assert due(made, 200.0) == []
    made.sink_told(Hold(OTHER, 500.0, position=7))
    assert due(made, 200.0) == ["a"]


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(Hold(SINK), id="it is gone, or holds nothing any more"),
        pytest.param(Hold(SINK, 1000.0, frozenset({"r"})), id="it is of other queues now"),
        pytest.param(Hold(SINK, 20.0), id="it holds for less"),
    ],
)
def test_what_a_sink_holds_no_more_is_let_go(then: Hold) -> None:
    made = retention(ended("a", 7))
    made.sink_told(Hold(SINK, 1000.0))
    assert due(made, 200.0) == []
    made.sink_told(then)
    assert due(made, 200.0) == ["a"]


def test_a_position_that_goes_back_holds_what_is_there_still() -> None:
    made = retention(ended("a", 7))
    made.sink_told(Hold(SINK, 1000.0, position=9))
    made.sink_told(Hold(SINK, 1000.0, position=5))
    assert due(made, 200.0) == []


def test_a_sink_holds_its_queues_and_its_namespace_only() -> None:
    made = retention(ended("a", 7), ended("b", 8, "r"))
    made.sink_told(Hold(SINK, 1000.0, frozenset({"r"})))
    made.sink_told(Hold(("elsewhere", "sink"), 1000.0))
    assert due(made, 200.0) == ["a"]


def test_the_archive_and_a_sink_are_both_waited_for() -> None:
    made = retention(ended("a", 7), archive=True)
    made.sink_told(Hold(SINK, 1000.0))
    assert due(made, 200.0) == []
    made.archive_told(Archived({"*": 9}))
    assert due(made, 200.0) == []
    made.sink_told(Hold(SINK, 1000.0, position=9))
    assert due(made, 200.0) == ["a"]


def test_a_task_that_changes_is_judged_anew() -> None:
    made = retention(ended("a", 7))
    made.sink_told(Hold(SINK, 1000.0))
    assert due(made, 200.0) == []
    made.seen(replace(ended("a", 12)))
    made.sink_told(Hold(SINK, 1000.0, position=8))
    assert due(made, 200.0) == []
    made.sink_told(Hold(SINK, 1000.0, position=12))
    assert due(made, 200.0) == ["a"]


def test_one_that_could_not_be_deleted_is_named_again() -> None:
    made = retention(ended("a", 7))
    made.sink_told(Hold(SINK, 50.0))
    assert due(made, 160.0) == ["a"]
    made.again("a", 190.0)
    assert due(made, 190.0) == ["a"]


def sink(spec: Any, status: Any = None, version: str = "50") -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": "sink", "resourceVersion": version}
    return {"metadata": metadata, "spec": spec, **({} if status is None else {"status": status})}


@pytest.mark.parametrize(
    ("obj", "read"),
    [
        pytest.param(sink({}), Hold(SINK), id="it holds nothing"),
        pytest.param(sink({"holdSeconds": 60}), Hold(SINK, 60.0), id="of all queues"),
        pytest.param(
            sink({"holdSeconds": 60, "selector": {"queues": ["q"]}}, {"position": 49}),
            Hold(SINK, 60.0, frozenset({"q"}), 49),
            id="of one queue, and up to where",
        ),
        pytest.param(sink({"holdSeconds": 60}, {"position": 50}), Hold(SINK, 60.0), id="a position of another history"),
        pytest.param(sink({"holdSeconds": True}, {"position": "9"}), Hold(SINK), id="no numbers"),
        pytest.param(sink([], [], "x"), Hold(SINK), id="nothing that can be read"),
        pytest.param(
            sink({"holdSeconds": 60, "selector": {"queues": [1, None]}}), Hold(SINK, 60.0), id="queues that are none"
        ),
    ],
)
def test_what_a_sink_says(obj: dict[str, Any], read: Hold) -> None:
    assert seen_hold(obj) == read
