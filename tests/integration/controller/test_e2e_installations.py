"""Two installations over one namespace: the second says who is there, and serves it once the first is gone."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from integration.controller.conftest import TIMINGS
from integration.controller.room import Room, metrics
from patience import until
from taskdist.local.controlplane import free_ports
from taskdist.local.rest import Client
from taskdist.local.stack import OperatorProcess

# The second one asks sooner, and waits less for an answer, than what is shipped; the first is as it is shipped.
SOONER = """
from taskdist.controller import main, ownership, settings

ownership.WAIT_SECONDS, ownership.AGAIN_SECONDS = 6.0, 1.0
raise SystemExit(main.run(settings.Settings.from_env()))
"""
FIRST = "taskdist-system/taskdist"


@pytest.fixture
def second(room: Room, namespace: str, tmp_path: Path, cluster: Client) -> Iterator[OperatorProcess]:
    """An operator of another installation, with a namespace of its own, that serves the room's too."""
    room.queue()
    room.pool(replicas=1, ready=1)
    link, metrics_port, health_port, view_port = free_ports(4)
    env = {
        **{name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ},
        **TIMINGS,
        "KUBECONFIG": str(room.stack.kubeconfig),
        "TASKDIST_NAMESPACE": namespace,
        "TASKDIST_WATCH_NAMESPACES": room.namespace,
        "TASKDIST_HOST": "127.0.0.1",
        "TASKDIST_LINK_PORT": str(link),
        "TASKDIST_LINK_ADDRESS": f"127.0.0.1:{link}",
        "TASKDIST_METRICS_PORT": str(metrics_port),
        "TASKDIST_HEALTH_PORT": str(health_port),
        "TASKDIST_VIEW_PORT": str(view_port),
        "TASKDIST_POD_NAME": "second",
    }
    log = tmp_path / "second.log"
    with log.open("wb") as out:
        process = subprocess.Popen([sys.executable, "-c", SOONER], env=env, stdout=out, stderr=out)
    operator = OperatorProcess(process, metrics_port, health_port, log)
    try:
        yield operator
    finally:
        operator.stop()
        process.kill()
        process.wait()
        if not room.stack.operators:
            # The first one need not ask for what the second leaves.
            cluster.delete(room.path("configmaps", "taskdist-ca"))
            room.stack.start_operator()


def owner(room: Room) -> str:
    said = room.get("configmaps", "taskdist-ca")["metadata"]["annotations"]
    return str(said["taskdist.dev/installation"])


def writes(operator: OperatorProcess) -> list[str]:
    """What it has asked the API server to change of Tasks, queues, pools and pods."""
    counted = [
        name for name, value in metrics(operator).items() if name.startswith("taskdist_api_requests_total{") and value
    ]
    assert any('verb="list"' in name and "taskdist.dev" in name for name in counted)
    reads = ('verb="list"', 'verb="watch"', 'verb="get"')
    of_ours = [name for name in counted if "taskdist.dev" in name or 'resource="pods"' in name]
    return [name for name in of_ours if not any(verb in name for verb in reads)]


def test_the_second_of_two_installations_says_who_is_there_and_follows_when_that_is_gone(
    room: Room, namespace: str, second: OperatorProcess
) -> None:
    words = f"namespace {room.namespace} is served by another installation, {FIRST}: this one, {namespace}/taskdist"
    until(lambda: words in second.unready(), "the second says who is there")
    event = room.event("AgentPool", "p", "NamespaceTaken")
    assert words in event["note"]
    assert event["reportingInstance"] == "second"
    assert second.log.read_text().count(f'"{words}') == 1, "once in its log"
    room.task("before")
    (status,) = room.ended("before")
    assert status["phase"] == "Succeeded"
    assert writes(second) == []
    assert owner(room) == f"taskdist.dev/{FIRST}"
    first = room.stack.operators.pop()
    assert "another installation wants to serve the namespace" in first.log.read_text()
    first.stop()
    until(lambda: owner(room) == f"taskdist.dev/{namespace}/taskdist", "it is taken")
    until(lambda: not second.unready(), "the second is ready")
    # Its agents keep to the one that made them.
    room.delete("pods", room.pods()[0]["metadata"]["name"])
    room.task("after")
    (status,) = room.ended("after")
    assert status["phase"] == "Succeeded"
    assert second.process.poll() is None, "the same process all the time"
