"""A Task's lines are found among those of all others, wherever the log is."""

import json
from pathlib import Path
from typing import Any

import pytest

from memory_cluster import ASSIGNED, FAILED_STATUS, MemoryCluster, call
from taskdist.api import LOG_PATH_ANNOTATION
from taskdist.cli.logs import belongs, pretty
from taskdist.cli.run import FAILED, OK
from taskdist.kube import PODS, ApiError

NO_KUBELET = ApiError(500, "InternalError", "dial tcp: lookup local: no such host")


def line(**fields: Any) -> str:
    return json.dumps({"event": "hello", "level": "info", "timestamp": "T", "task": "a", "attempt": 1} | fields)


LOG = [
    "plain text of some library",
    line(event="mine", lines=3),
    line(event="of another task", task="b"),
    line(event="of another attempt", attempt=2),
    "{broken",
    "[1]",
    line(event="mine too", exception="Traceback\n  boom"),
]


@pytest.fixture
def cluster() -> MemoryCluster:
    made = MemoryCluster()
    made.task("a", ASSIGNED)
    made.add(PODS, {"metadata": {"name": "p-0"}, "spec": {"containers": [{"name": "side"}, {"name": "agent"}]}})
    made.logs["p-0"] = LOG
    return made


def test_lines_of_this_task_and_attempt_only(cluster: MemoryCluster) -> None:
    outcome = call(cluster, "logs", "a")
    assert outcome.code == OK
    assert outcome.out.splitlines() == ["T info    mine lines=3", "T info    mine too", "Traceback", "  boom"]
    assert cluster.calls == ["log p-0/agent"]


def test_raw_lines_are_as_they_were(cluster: MemoryCluster) -> None:
    assert call(cluster, "logs", "a", "--raw").out.splitlines() == [LOG[1], LOG[6]]


def test_follow_is_asked_for(cluster: MemoryCluster) -> None:
    call(cluster, "logs", "a", "-f")
    assert cluster.calls == ["log p-0/agent -f"]


def test_an_earlier_attempt_on_another_agent(cluster: MemoryCluster) -> None:
    cluster.task("a", FAILED_STATUS | {"agent": "p-1"})
    assert "mine" in call(cluster, "logs", "a", "--attempt", "1").out
    outcome = call(cluster, "logs", "a", "--attempt", "7")
    assert outcome.code == FAILED
    assert "not known which agent ran attempt 7 of task a; known attempts: 1, 2" in outcome.err


def test_a_task_that_never_ran(cluster: MemoryCluster) -> None:
    cluster.task("a", {"reason": "NoAgent"})
    outcome = call(cluster, "logs", "a")
    assert outcome.code == FAILED
    assert "No agent has run it yet" in outcome.err
    assert "taskdist explain a" in outcome.err


def test_an_agent_that_is_gone(cluster: MemoryCluster) -> None:
    cluster.task("a", ASSIGNED | {"agent": "p-9"})
    outcome = call(cluster, "logs", "a")
    assert outcome.code == FAILED
    assert "the agent p-9, which ran attempt 1 of task a, is gone, and its log with it" in outcome.err


def test_a_log_without_lines_of_it(cluster: MemoryCluster) -> None:
    cluster.logs["p-0"] = ["nothing"]
    outcome = call(cluster, "logs", "a")
    assert (outcome.code, outcome.out) == (FAILED, "")
    assert "no line of attempt 1 of task a" in outcome.err


def process(cluster: MemoryCluster, path: str) -> None:
    annotations = {LOG_PATH_ANNOTATION: path}
    spec = {"containers": [{"name": "agent"}]}
    cluster.add(PODS, {"metadata": {"name": "p-0", "annotations": annotations}, "spec": spec})
    cluster.logs["p-0"] = NO_KUBELET


def test_a_pod_that_is_a_process_here_is_read_from_its_file_and_that_is_said(
    cluster: MemoryCluster, tmp_path: Path
) -> None:
    path = tmp_path / "agent.log"
    path.write_text("\n".join(LOG))
    process(cluster, str(path))
    outcome = call(cluster, "logs", "a", "--raw")
    assert outcome.out.splitlines() == [LOG[1], LOG[6]]
    assert (
        f"no kubelet serves the log of pod p-0, which runs as a process on this machine; reading {path}" in outcome.err
    )


def test_without_a_kubelet_and_without_a_file_it_says_so(cluster: MemoryCluster, tmp_path: Path) -> None:
    process(cluster, str(tmp_path / "gone"))
    outcome = call(cluster, "logs", "a")
    assert outcome.code == FAILED
    assert "dial tcp: lookup local" in outcome.err
    assert "ran on another machine, or its log" in outcome.err


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        pytest.param({"task": "a"}, True, id="name"),
        pytest.param({"task": "ns/a"}, True, id="namespace-and-name"),
        pytest.param({"task": "uid-a"}, True, id="uid"),
        pytest.param({"task": "a", "uid": "uid-a"}, True, id="name-and-uid"),
        pytest.param({"task": "a", "uid": "of-a-former-task"}, False, id="a-former-task-of-that-name"),
        pytest.param({"task": "b"}, False, id="another"),
        pytest.param({"task": "other/a"}, False, id="another-namespace"),
        pytest.param({"task": None}, False, id="none"),
        pytest.param({"attempt": 2}, False, id="another-attempt"),
    ],
)
def test_belongs(cluster: MemoryCluster, fields: dict[str, Any], expected: bool) -> None:
    task = cluster.task("a")
    assert belongs({"task": "a", "attempt": 1} | fields, task, 1) is expected


def test_pretty_takes_either_style_of_names() -> None:
    assert pretty({"time": "T", "level": "warning", "message": "m", "n": 1, "s": "x"}) == "T warning m n=1 s=x"
