"""What the leader tells beside status: lists, place, expected start and progress; and who tells it elsewhere."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from memory_cluster import ASSIGNED, SUCCEEDED, MemoryCluster, call
from taskdist.api import Progress
from taskdist.api.view import ExpectedStart, Explanation, TaskDetail, TaskList, TaskRow
from taskdist.cli import listing, waiting
from taskdist.cli.run import FAILED, OK
from taskdist.client.errors import NoAnswer

TASKS = "/v1/namespaces/ns/tasks"
INSTEAD = "the leader cannot be asked: there is none here; found out from the cluster's objects instead"


def told(name: str, phase: str = "Pending", **more: Any) -> dict[str, Any]:
    given = {"queue": "q", "type": "t", "level": "Normal", "uid": f"uid-{name}", "age": 1.0, "namespace": "ns"}
    return given | {"name": name, "phase": phase, "created": datetime(2026, 1, 1, tzinfo=UTC)} | more


def row(name: str, phase: str = "Pending", **more: Any) -> TaskRow:
    return TaskRow(**told(name, phase, **more))


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.splitlines()]


@pytest.fixture
def cluster() -> MemoryCluster:
    return MemoryCluster()


def test_the_table_of_a_namespace_is_the_leaders_page_by_page(cluster: MemoryCluster) -> None:
    young = datetime(2026, 1, 2, tzinfo=UTC)
    cluster.view.answers = {
        TASKS: TaskList(items=[row("a", created=young), row("b", "Assigned", agent="p-0", attempt=2)], continue_="b"),
        f"{TASKS}?continue=b": TaskList(items=[row("c", reason="NoAgent")]),
    }
    shown = call(cluster, "get")
    assert (shown.code, shown.err) == (OK, "")
    head, *lines = rows(shown.out)
    assert head == ["NAME", "QUEUE", "TYPE", "PRIORITY", "PHASE", "DONE", "REASON", "AGENT", "ATTEMPT", "AGE"]
    assert [line[:6] for line in lines] == [
        ["b", "q", "t", "Normal", "Assigned", "p-0"],
        ["c", "q", "t", "Normal", "Pending", "NoAgent"],
        ["a", "q", "t", "Normal", "Pending", "0"],
    ]


def test_what_is_wanted_is_asked_for(cluster: MemoryCluster) -> None:
    path = f"{TASKS}?queue=q&phase=Pending&labelSelector=a%3Db%2Cc"
    cluster.view.answers[path] = TaskList()
    shown = call(cluster, "get", "--queue", "q", "--phase", "pending", "-l", "a=b,c")
    assert (shown.code, shown.out, shown.err) == (OK, "", "no Tasks in namespace ns match\n")


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param({}, id="nobody-leads"),
        pytest.param({TASKS: TaskList(items=[row("x")], continue_="x")}, id="it-stops-to-lead-between-two-pages"),
    ],
)
def test_where_the_leader_does_not_answer_the_objects_are_listed(
    cluster: MemoryCluster, answers: dict[str, Any]
) -> None:
    cluster.view.answers = answers
    cluster.task("a")
    shown = call(cluster, "get")
    assert [line[0] for line in rows(shown.out)] == ["NAME", "a"]
    assert shown.err == ""


async def test_a_list_that_goes_round_in_circles_has_an_end(cluster: MemoryCluster) -> None:
    cluster.view.answers = {
        TASKS: TaskList(items=[row("a")], continue_="a"),
        f"{TASKS}?continue=a": TaskList(items=[row("a")], continue_="a"),
    }
    with pytest.raises(NoAnswer, match="does not go on"):
        await listing.rows(cluster, "", "", "")


@pytest.mark.parametrize("arguments", [["-o", "json"], ["-o", "name"], ["-o", "wide"], ["-A"], ["-A", "-o", "wide"]])
def test_whole_objects_are_the_api_servers(cluster: MemoryCluster, arguments: list[str]) -> None:
    cluster.task("a")
    shown = call(cluster, "get", *arguments)
    assert (shown.code, shown.err, "a" in shown.out) == (OK, "", True)
    assert not cluster.view.asked


def test_single_tasks_are_shown_with_place_start_and_progress(cluster: MemoryCluster) -> None:
    at = datetime.now(UTC) + timedelta(hours=2, minutes=5)
    start = ExpectedStart(at=at, earliest=at, latest=at)
    cluster.task("a")
    cluster.task("b", ASSIGNED)
    cluster.task("done", SUCCEEDED)
    place: dict[str, Any] = {"position": 3, "position_exact": False, "waiting": 25, "expected_start": start}
    cluster.view.answers = {
        f"{TASKS}/a": TaskDetail(**told("a", **place)),
        f"{TASKS}/b": TaskDetail(**told("b", "Assigned", attempt=1, progress=Progress(fraction=0.25))),
    }
    shown = call(cluster, "get", "a", "b", "done")
    assert (shown.code, shown.err) == (OK, "")
    head, first, second, third = shown.out.splitlines()
    assert head.split()[-3:] == ["POSITION", "STARTS", "PROGRESS"]
    assert "about 3 of 25  in 2h" in first
    assert second.split()[-1] == "25%"
    assert "Succeeded" in third
    assert [each.path for each in cluster.view.asked] == [f"{TASKS}/a", f"{TASKS}/b"], "what has ended has no place"
    wide = call(cluster, "get", "b", "-o", "wide").out
    assert "25%" in wide


def test_another_task_of_its_name_lends_it_no_place(cluster: MemoryCluster) -> None:
    cluster.task("a")
    cluster.view.answers[f"{TASKS}/a"] = TaskDetail(**told("a", uid="another", position=3, waiting=4))
    shown = call(cluster, "get", "a").out
    assert "3 of 4" not in shown


def test_where_the_leader_does_not_tell_of_one_that_is_said_once(cluster: MemoryCluster) -> None:
    cluster.task("a")
    cluster.task("b")
    shown = call(cluster, "get", "a", "b")
    assert shown.err.splitlines() == [INSTEAD]
    assert "POSITION" not in shown.out
    assert call(cluster, "get", "none-such").code == FAILED


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "WHY_SECONDS", (0.001,))


@pytest.mark.usefixtures("soon")
def test_who_waits_hears_of_the_leader_why_and_when(cluster: MemoryCluster) -> None:
    cluster.task("a")
    cluster.view.explanations["a"] = Explanation(
        task="ns/a", queue="q", phase="Pending", reason="Queued", message="All are busy.", position=2, waiting=9
    )
    outcome = call(cluster, "result", "a", "--wait", "--timeout", "500ms")
    said = [line for line in outcome.err.splitlines() if line.startswith("task a: Pending (")]
    assert said == ["task a: Pending (Queued: All are busy. Position 2 of 9, starts: unknown.)"]
    assert "instead" not in outcome.err


@pytest.mark.usefixtures("soon")
def test_who_waits_hears_once_that_others_tell_why(cluster: MemoryCluster) -> None:
    cluster.task("a")
    outcome = call(cluster, "result", "a", "--wait", "--timeout", "500ms")
    assert outcome.err.splitlines().count(INSTEAD) == 1


@pytest.mark.usefixtures("soon")
def test_who_waits_hears_progress_as_the_leader_does(cluster: MemoryCluster) -> None:
    cluster.task("a", ASSIGNED)
    cluster.view.first = True
    cluster.watches = [[cluster.seen("a", SUCCEEDED)]]
    done = [row("a", "Assigned", attempt=1, progress=Progress(fraction=part)) for part in (0.25, 0.25, 0.75)]
    cluster.view.rows = [*done]
    outcome = call(cluster, "result", "a", "--wait")
    assert outcome.err.splitlines() == [
        "task a: Assigned on p-0 (attempt 1)",
        "task a: Assigned on p-0 (attempt 1), 25%",
        "task a: Assigned on p-0 (attempt 1), 75%",
        "task a: Succeeded",
    ]


def test_what_ends_soon_costs_no_question(cluster: MemoryCluster) -> None:
    cluster.task("a", ASSIGNED)
    cluster.watches = [[cluster.seen("a", SUCCEEDED)]]
    assert call(cluster, "result", "a", "--wait").code == OK
    assert not cluster.view.asked
