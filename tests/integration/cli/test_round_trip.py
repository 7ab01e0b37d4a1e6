"""The command against a real API server: its words, its validation, its watches. Statuses are written by the test."""

import json
import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from taskdist.cli.run import FAILED, INTERRUPTED, OK, TIMED_OUT, explain_failure
from taskdist.kube import TASKS as KIND
from taskdist.kube import ApiError
from taskdist.kube import Client as KubeClient
from taskdist.local.rest import Client

SCRIPTS = Path(sysconfig.get_path("scripts"))
TASKS = "/apis/taskdist.dev/v1alpha1/namespaces/{}/tasks"


class Command:
    """Runs `taskdist` as a user does, in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str) -> None:
        self.namespace = namespace
        self.env = {**os.environ, "KUBECONFIG": str(kubeconfig), "NO_COLOR": "1"}

    def start(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, "-m", "taskdist.cli.main", *arguments, "-n", self.namespace],
            env=self.env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Whoever runs the tests in the background may ignore SIGINT, and children inherit that.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=60)
        assert "Traceback" not in err, err
        return process.returncode, out, err


@pytest.fixture
def command(kubeconfig: Path, namespace: str, crds: list[str]) -> Command:
    return Command(kubeconfig, namespace)


@pytest.fixture
def write(cluster: Client, namespace: str) -> Callable[[str, dict[str, Any]], None]:
    """Write a Task's status, as the operator would."""

    def patch(name: str, status: dict[str, Any]) -> None:
        path = f"{TASKS.format(namespace)}/{name}/status"
        cluster.request("PATCH", path, {"status": status}, content_type="application/merge-patch+json")

    return patch


def make(cluster: Client, namespace: str, kind: str, plural: str, name: str, spec: dict[str, Any]) -> None:
    cluster.create(
        f"/apis/taskdist.dev/v1alpha1/namespaces/{namespace}/{plural}",
        {"apiVersion": "taskdist.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec},
    )


def pool(cluster: Client, namespace: str) -> None:
    containers = [{"name": "agent", "image": "taskdist", "command": ["taskdist", "agent"]}]
    make(cluster, namespace, "AgentPool", "agentpools", "p", {"template": {"spec": {"containers": containers}}})


def assigned(attempt: int = 1) -> dict[str, Any]:
    return {"phase": "Assigned", "reason": "Assigned", "attempt": attempt, "epoch": 1, "agent": "p-0", "agentUid": "u"}


def test_submit_get_explain_result(
    command: Command, cluster: Client, namespace: str, write: Callable[[str, dict[str, Any]], None]
) -> None:
    make(cluster, namespace, "TaskQueue", "taskqueues", "q", {"pools": ["p"]})
    pool(cluster, namespace)
    assert command("submit", "q", "--type", "t", "--name", "a", "--payload", '{"n": 1}', "-o", "name") == (
        OK,
        "task.taskdist.dev/a\n",
        "",
    )
    code, out, _ = command("get", "--queue", "q", "--phase", "Pending")
    assert code == OK
    assert out.splitlines()[1].split()[:5] == ["a", "q", "t", "Normal", "Pending"]

    code, out, err = command("explain", "a", "-o", "json")
    assert code == OK, err
    # No operator runs here; where one has run for other tests, its Lease says so, and that comes first.
    story = json.loads(out)
    assert story["reason"] == ("NoLeader" if story["operator"]["leads"] is False else "NoAgent")

    code, _, err = command("result", "a")
    assert code == FAILED
    assert "task a: Pending" in err

    write("a", assigned())
    code, out, _ = command("explain", "a")
    assert code == OK
    assert "p-0" in out
    write("a", {"phase": "Succeeded", "reason": "Completed", "result": {"n": 2}})
    assert json.loads(command("result", "a")[1]) == {"n": 2}
    assert command("get", "--phase", "Pending")[1:] == ("", f"no Tasks in namespace {namespace} match\n")


def test_submit_waits_for_the_end(
    command: Command, cluster: Client, namespace: str, write: Callable[[str, dict[str, Any]], None]
) -> None:
    process = command.start("submit", "q", "--type", "t", "--name", "a", "--wait", "--timeout", "60s")
    assert process.stderr is not None
    told = [process.stderr.readline()]
    while told[-1] != "task a: Pending\n":
        told.append(process.stderr.readline())
        assert told[-1], told
    assert "there is no queue 'q'" in told[0]
    write("a", assigned())
    write("a", {"phase": "Failed", "reason": "RetriesExhausted", "message": "boom"})
    _, err = process.communicate(timeout=60)
    assert process.returncode == FAILED
    assert "task a is Failed: RetriesExhausted: boom" in err


def test_the_time_is_up(command: Command) -> None:
    code, out, err = command("submit", "q", "--type", "t", "--wait", "--timeout", "500ms")
    assert (code, out) == (TIMED_OUT, "")
    assert "it goes on" in err


def test_an_impatient_user_hears_that_the_task_goes_on(command: Command) -> None:
    process = command.start("submit", "q", "--type", "t", "--name", "a", "--wait")
    assert process.stderr is not None
    while process.stderr.readline() != "task a: Pending\n":
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == INTERRUPTED
    assert "the Task goes on. Go on waiting: taskdist result a --wait" in err
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        pytest.param(["submit", "Bad_Queue", "--type", "t"], "spec.queue", id="queue"),
        pytest.param(["submit", "q", "--type", "no spaces"], "spec.type", id="type"),
        pytest.param(["submit", "q", "--type", "t", "--name", "Not_A_Name"], "metadata.name", id="name"),
        pytest.param(["get", "missing"], '"missing" not found', id="get"),
        pytest.param(["logs", "missing"], '"missing" not found', id="logs"),
        pytest.param(["explain", "missing"], '"missing" not found', id="explain"),
        pytest.param(["result", "missing", "--wait"], "there is no task missing", id="wait"),
    ],
)
def test_what_the_server_refuses_is_shown_as_it_is(command: Command, arguments: list[str], words: str) -> None:
    code, out, err = command(*arguments)
    assert (code, out) == (FAILED, "")
    assert err.startswith("error: ")
    assert words in err


def test_suspend_resume_cancel(
    command: Command, cluster: Client, namespace: str, write: Callable[[str, dict[str, Any]], None]
) -> None:
    command("submit", "q", "--type", "t", "--name", "a")

    def spec() -> dict[str, Any]:
        found: dict[str, Any] = cluster.get(f"{TASKS.format(namespace)}/a")["spec"]
        return found

    assert command("suspend", "a") == (OK, "task.taskdist.dev/a suspended\n", "")
    assert spec()["suspend"] is True
    assert command("resume", "a") == (OK, "task.taskdist.dev/a resumed\n", "")
    assert spec()["suspend"] is False
    process = command.start("cancel", "a", "--wait", "--timeout", "60s")
    deadline = time.monotonic() + 60
    while not spec().get("cancel"):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    write("a", {"phase": "Cancelled", "reason": "Cancelled"})
    out, _ = process.communicate(timeout=60)
    assert (process.returncode, out) == (OK, "task.taskdist.dev/a cancelled\n")
    code, _, err = command("suspend", "a")
    assert code == FAILED
    assert "an ended Task does not change any more" in err


def test_watch_shows_changes(
    command: Command, cluster: Client, namespace: str, write: Callable[[str, dict[str, Any]], None]
) -> None:
    command("submit", "q", "--type", "t", "--name", "a")
    process = command.start("get", "--watch")
    assert process.stdout is not None
    try:
        assert process.stdout.readline().startswith("NAME")
        assert "Pending" in process.stdout.readline()
        write("a", assigned())
        assert "Assigned" in process.stdout.readline()
    finally:
        process.terminate()
        process.communicate(timeout=60)


def test_a_log_without_a_kubelet_is_read_from_the_file_that_the_pod_names(
    command: Command, cluster: Client, namespace: str, write: Callable[[str, dict[str, Any]], None], tmp_path: Path
) -> None:
    log = tmp_path / "agent.log"
    log.write_text(json.dumps({"event": "counted", "level": "info", "task": "a", "attempt": 1}) + "\n")
    cluster.create(
        f"/api/v1/namespaces/{namespace}/pods",
        {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "p-0", "annotations": {"taskdist.dev/log-path": str(log)}},
            "spec": {"nodeName": "local", "containers": [{"name": "agent", "image": "x"}]},
        },
    )
    command("submit", "q", "--type", "t", "--name", "a")
    write("a", assigned())
    code, out, err = command("logs", "a")
    assert code == OK, err
    assert "counted" in out
    assert "no kubelet serves the log" in err


async def test_a_cluster_without_taskdist_says_what_to_install(kubeconfig: Path) -> None:
    async with KubeClient.connect(kubeconfig) as client:
        # A group that nobody serves looks the same as a cluster where nothing was installed.
        for ask in (
            client.get(replace(KIND, group="nobody.dev"), "a", "default"),
            client.list(replace(KIND, group="x.dev")),
        ):
            with pytest.raises(ApiError) as refused:
                await ask
            assert "Install taskdist first" in str(explain_failure(refused.value))


def test_an_address_that_nobody_serves(tmp_path: Path) -> None:
    config = tmp_path / "config"
    config.write_text(
        json.dumps(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "current-context": "x",
                "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}],
                "clusters": [{"name": "x", "cluster": {"server": "http://127.0.0.1:1"}}],
                "users": [{"name": "x", "user": {}}],
            }
        )
    )
    code, _, err = Command(config, "default")("get")
    assert code == FAILED
    assert "the API server cannot be reached" in err
    code, _, err = Command(tmp_path / "missing", "default")("get")
    assert code == FAILED
    assert "there is no kubeconfig at" in err


def kubectl(env: dict[str, str], *arguments: str) -> "subprocess.CompletedProcess[str]":
    from taskdist.local.binaries import find

    return subprocess.run(
        [str(find("kubectl")), *arguments], env=env, capture_output=True, text=True, timeout=60, check=False
    )


def test_kubectl_finds_the_plugin(command: Command, namespace: str) -> None:
    env = {**command.env, "PATH": f"{SCRIPTS}{os.pathsep}{os.environ['PATH']}"}
    assert str(SCRIPTS / "kubectl-task") in kubectl(env, "plugin", "list").stdout
    made = kubectl(env, "task", "submit", "q", "--type", "t", "--name", "a", "-n", namespace, "-o", "name")
    assert (made.returncode, made.stdout) == (OK, "task.taskdist.dev/a\n"), made.stderr
    assert "kubectl task get" in kubectl(env, "task", "get", "--help").stdout


def test_all_that_a_task_may_say_is_taken_by_the_api_server(cluster: Client, namespace: str, command: Command) -> None:
    order = ["--priority", "high", "--tenant", "acme", "--not-before", "1m", "--deadline", "2030-01-31T12:00:00+01:00"]
    keys = [
        "--concurrency-key",
        "host:1",
        "--ordering-key",
        "account-7",
        "--depends-on",
        "a",
        "--on-dependency-failure",
        "skip",
    ]
    times = ["--waiting-timeout", "1h", "--execution-timeout", "90s", "--progress-timeout", "500ms", "--ttl", "1d"]
    code, _, err = command("submit", "q", "-t", "t", "--name", "full", *order, *keys, *times)
    assert code == OK, err
    spec = cluster.get(f"{TASKS.format(namespace)}/full")["spec"]
    assert spec["notBefore"] < spec["deadline"] == "2030-01-31T11:00:00Z"
    assert (spec["priority"], spec["tenant"], spec["onDependencyFailure"]) == ("High", "acme", "Skip")
    assert (spec["concurrencyKey"], spec["orderingKey"], spec["dependsOn"]) == ("host:1", "account-7", [{"name": "a"}])
    assert spec["timeouts"] == {"waitingSeconds": 3600, "executionSeconds": 90, "progressSeconds": 0.5}
    assert spec["ttlSecondsAfterFinished"] == 86400
    code, _, err = command("submit", "q", "-t", "t", "--name", "late", "--not-before", "2h", "--deadline", "1h")
    assert code == FAILED
    assert "spec.notBefore must be before spec.deadline" in err


def test_dead_letters_are_redriven_once(
    cluster: Client, namespace: str, command: Command, write: Callable[[str, dict[str, Any]], None]
) -> None:
    for name, queue in (("a", "q"), ("b", "other"), ("c", "q")):
        make(cluster, namespace, "Task", "tasks", name, {"queue": queue, "type": "t"})
    dead = {"phase": "DeadLettered", "reason": "RetriesExhausted", "failures": 1}
    write("a", dead)
    write("b", dead)
    assert command("redrive", "c")[0] == FAILED
    code, out, err = command("redrive", "--all", "--queue", "q")
    assert (code, out) == (OK, "task.taskdist.dev/a redriven\n"), err
    assert command("redrive", "a") == (OK, "task.taskdist.dev/a was redriven already\n", "")
    redrives = {
        each["metadata"]["name"]: each["spec"]["redrive"] for each in cluster.get(TASKS.format(namespace))["items"]
    }
    assert redrives == {"a": 1, "b": 0, "c": 0}
