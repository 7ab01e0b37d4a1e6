"""The process `taskdist sources` on a real API server: killed as it works, taken over from, told to end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from patience import until
from taskdist.local.controlplane import free_ports
from taskdist.local.rest import MERGE_PATCH, Client

pytestmark = pytest.mark.usefixtures("crds")

Object = dict[str, Any]
KILLS = 3
MINUTES = 60


class Processes:
    """Those of one installation, whose Lease and sources are in one namespace."""

    def __init__(self, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self._env = {
            **{name: value for name, value in os.environ.items() if not name.startswith("TASKDIST_")},
            "KUBECONFIG": str(kubeconfig),
            "TASKDIST_NAMESPACE": namespace,
            "TASKDIST_SOURCES_NAMESPACES": namespace,
            "TASKDIST_SOURCES_HOST": "127.0.0.1",
        }
        self._folder = folder
        self.started: list[subprocess.Popen[bytes]] = []

    def start(self) -> subprocess.Popen[bytes]:
        metrics, health = free_ports(2)
        env = {
            **self._env,
            "TASKDIST_SOURCES_METRICS_PORT": str(metrics),
            "TASKDIST_SOURCES_HEALTH_PORT": str(health),
        }
        with (self._folder / f"sources-{len(self.started)}.log").open("wb") as log:
            command = [sys.executable, "-m", "taskdist.cli.main", "sources"]
            process = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
        self.started.append(process)
        return process

    def logs(self) -> str:
        return "\n".join(file.read_text() for file in sorted(self._folder.glob("*.log")))


@pytest.fixture
def processes(kubeconfig: Path, namespace: str, tmp_path: Path) -> Iterator[Processes]:
    made = Processes(kubeconfig, namespace, tmp_path)
    yield made
    for each in made.started:
        if each.poll() is None:
            each.kill()
            each.wait()


class Sources:
    """One namespace's sources and their Tasks."""

    def __init__(self, cluster: Client, namespace: str) -> None:
        self._cluster = cluster
        self._base = f"/apis/taskdist.dev/v1alpha1/namespaces/{namespace}"

    def create(self, name: str, **spec: Any) -> None:
        wanted = {"cron": {"schedule": "* * * * *", "missed": "All", "mostMissed": 1000}, **spec}
        body = {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "TaskSource",
            "metadata": {"name": name},
            "spec": {"task": {"queue": "q", "type": "t"}, **wanted},
        }
        self._cluster.create(f"{self._base}/tasksources", body)

    def write(self, name: str, status: Object) -> None:
        path = f"{self._base}/tasksources/{name}/status"
        self._cluster.request("PATCH", path, {"status": status}, content_type=MERGE_PATCH)

    def status(self, name: str) -> Object:
        found: Object = self._cluster.get(f"{self._base}/tasksources/{name}").get("status") or {}
        return found

    def reason(self, name: str) -> str:
        conditions = self.status(name).get("conditions", [])
        return next((str(each["reason"]) for each in conditions if each["type"] == "Ready"), "")

    def runs(self, name: str) -> list[str]:
        query = {"labelSelector": f"taskdist.dev/source={name}"}
        items = self._cluster.get(f"{self._base}/tasks", **query)["items"]
        return sorted(each["spec"]["payload"]["scheduledTime"] for each in items)


def test_killed_at_any_moment_it_makes_one_task_of_each_run(
    cluster: Client, namespace: str, processes: Processes
) -> None:
    """An hour of minutes was missed; the process that makes up for it is killed again and again."""
    sources = Sources(cluster, namespace)
    begin = datetime.now(UTC).replace(second=0, microsecond=0) - timedelta(minutes=MINUTES)
    sources.create("minutes")
    sources.write("minutes", {"cron": {"schedule": "* * * * * UTC", "handledUntil": begin.isoformat()}})
    for kill in range(1, KILLS + 1):
        process = processes.start()
        goal = kill * MINUTES // (KILLS + 2)
        until(lambda: len(sources.runs("minutes")) >= goal, f"{goal} Tasks are there")  # noqa: B023
        process.kill()
        process.wait()
    assert not sources.status("minutes").get("conditions"), "it was killed before it could record anything"
    last = processes.start()
    until(lambda: sources.reason("minutes") == "Running", "it has caught up")
    handled = datetime.fromisoformat(sources.status("minutes")["cron"]["handledUntil"])
    minutes = round((handled - begin).total_seconds() / 60)
    assert minutes >= MINUTES
    wanted = [(begin + timedelta(minutes=each)).strftime("%Y-%m-%dT%H:%M:%SZ") for each in range(1, minutes + 1)]
    assert [each for each in sources.runs("minutes") if each <= wanted[-1]] == wanted

    # Told to end, it gives its Lease back, and the other one takes over at once; what is odd stalls alone.
    processes.start()
    last.send_signal(signal.SIGTERM)
    assert last.wait(20) == 0, processes.logs()
    sources.create("odd", cron={"schedule": "0 0 30 2 *"})
    until(lambda: sources.reason("odd") == "InvalidSchedule", "another process says so")
    sources.create("yearly", cron={"schedule": "0 0 1 1 *"})
    until(lambda: sources.reason("yearly") == "Running", "the other goes on")
    assert sources.runs("yearly") == []
