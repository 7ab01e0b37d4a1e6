"""`watch NAME` tells progress as the leader hears of it, and goes by the Task's status where it cannot be asked."""

from datetime import UTC, datetime
from typing import Any

import pytest

from memory_cluster import ASSIGNED, SUCCEEDED, MemoryCluster, call
from taskdist.api import Progress
from taskdist.api.view import TaskRow
from taskdist.cli.run import OK
from taskdist.client.errors import NoAnswer

ON_P0 = "task a: Assigned on p-0 (attempt 1)"


def row(fraction: float, message: str, attempt: int = 1, uid: str = "uid-a") -> TaskRow:
    return TaskRow(
        name="a",
        namespace="ns",
        uid=uid,
        queue="q",
        type="t",
        level="Normal",
        phase="Assigned",
        attempt=attempt,
        created=datetime(2026, 1, 1, tzinfo=UTC),
        age=1.0,
        progress=Progress(fraction=fraction, message=message),
    )


@pytest.fixture
def cluster() -> MemoryCluster:
    """A Task that runs, and succeeds after all that the leader has told."""
    made = MemoryCluster()
    made.task("a", ASSIGNED)
    made.view.first = True
    made.watches = [[made.seen("a", SUCCEEDED)]]
    return made


def watched(cluster: MemoryCluster) -> tuple[list[str], str]:
    outcome = call(cluster, "watch", "a")
    assert outcome.code == OK, outcome
    return [line.partition("  ")[2] for line in outcome.out.splitlines()], outcome.err


def test_progress_is_told_as_the_leader_hears_of_it(cluster: MemoryCluster) -> None:
    cluster.view.rows = [row(0.25, "page 1"), row(0.25, "page 1"), row(0.5, "page 2")]
    lines, err = watched(cluster)
    assert lines == [ON_P0, f"{ON_P0}, 25% page 1", f"{ON_P0}, 50% page 2", "task a: Succeeded"]
    assert err == ""


@pytest.mark.parametrize("other", [{"attempt": 2}, {"uid": "another"}], ids=["attempt", "Task of its name"])
def test_progress_of_another_is_not_told_of_this_one(cluster: MemoryCluster, other: dict[str, Any]) -> None:
    cluster.view.rows = [row(0.25, "page 1", **other)]
    assert watched(cluster)[0] == [ON_P0, "task a: Succeeded"]


def test_older_progress_of_the_status_does_not_take_back_what_was_told(cluster: MemoryCluster) -> None:
    older = {"progress": {"fraction": 0.25, "message": "page 1"}}
    cluster.watches = [[cluster.seen("a", older), cluster.seen("a", SUCCEEDED)]]
    cluster.view.rows = [row(0.5, "page 2")]
    assert watched(cluster)[0] == [ON_P0, f"{ON_P0}, 50% page 2", "task a: Succeeded"]


def test_once_the_leader_tells_no_more_status_tells_what_comes_then(cluster: MemoryCluster) -> None:
    later = {"progress": {"fraction": 0.75, "message": "page 3"}}
    cluster.watches = [[cluster.seen("a", later), cluster.seen("a", SUCCEEDED)]]
    cluster.view.rows = [row(0.5, "page 2"), NoAnswer("the leader tells no more: it stopped to lead")]
    lines, err = watched(cluster)
    assert lines == [ON_P0, f"{ON_P0}, 50% page 2", f"{ON_P0}, 75% page 3", "task a: Succeeded"]
    assert err.splitlines() == [
        "the leader tells no more: it stopped to lead; progress comes from the Task's status, later"
    ]


def test_where_the_leader_cannot_be_asked_status_tells_and_that_is_said(cluster: MemoryCluster) -> None:
    cluster.watches = [[cluster.seen("a", {"progress": {"fraction": 0.25}}), cluster.seen("a", SUCCEEDED)]]
    lines, err = watched(cluster)
    assert lines == [ON_P0, f"{ON_P0}, 25%", "task a: Succeeded"]
    assert err.splitlines() == [
        "the leader cannot be asked: there is none here; progress comes from the Task's status, later"
    ]


def test_a_task_that_has_ended_is_nothing_to_ask_the_leader_of(cluster: MemoryCluster) -> None:
    cluster.task("a", SUCCEEDED)
    assert watched(cluster) == (["task a: Succeeded"], "")
