"""Pools grow by their word, and what holds Tasks for long is said of queue and pool."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from integration.controller.room import Room, metrics, until


def stuck(room: Room, directory: Path, queue: str, count: int) -> Path:
    """Tasks that run until the file that is returned is there."""
    done = directory / f"{queue}.done"
    for i in range(count):
        payload = {"file": str(directory / f"{queue}-{i}.beats"), "until": str(done), "polite": True}
        room.task(f"{queue}-{i}", "trace", payload, queue=queue)
    return done


def desired(room: Room, pool: str) -> Any:
    return room.status("agentpools", pool).get("desiredReplicas")


def test_a_target_lets_tasks_wait_for_fewer_agents(room: Room, tmp_path: Path) -> None:
    """AgentPool.scaling.targetQueueSeconds."""
    room.pool("few", slots=1, scaling={"minReplicas": 0, "maxReplicas": 4, "targetQueueSeconds": 3600})
    room.queue("patient", pools=["few"])
    done = stuck(room, tmp_path, "patient", 3)
    until(lambda: room.status("taskqueues", "patient").get("leased") == 1, "the first one runs")
    assert desired(room, "few") == 1
    assert "within 3600 s" in room.status("agentpools", "few")["scalingMessage"]
    room.patch("agentpools", "few", scaling={"targetQueueSeconds": 0})
    until(lambda: room.status("taskqueues", "patient").get("leased") == 3, "each has a place")
    assert desired(room, "few") == 3
    done.touch()
    room.ended(*[f"patient-{i}" for i in range(3)])


def test_agents_are_added_only_after_they_were_needed_for_a_while(room: Room, tmp_path: Path) -> None:
    """AgentPool.scaling.scaleUpStabilizationSeconds."""
    scaling = {"minReplicas": 0, "maxReplicas": 4, "scaleUpStabilizationSeconds": 4}
    room.pool("slow", slots=1, scaling=scaling)
    room.queue("steady", pools=["slow"])
    begun = time.monotonic()
    done = stuck(room, tmp_path, "steady", 2)
    until(lambda: desired(room, "slow") == 2, "they are needed for long enough")
    assert time.monotonic() - begun >= 3.9
    done.touch()
    room.ended("steady-0", "steady-1")


def test_the_cheaper_pool_grows_first(room: Room, tmp_path: Path) -> None:
    """AgentPool.costPerHour."""
    room.pool("dear", slots=1, costPerHour=2, scaling={"minReplicas": 0, "maxReplicas": 2})
    room.pool("cheap", slots=1, costPerHour=1, scaling={"minReplicas": 0, "maxReplicas": 2})
    room.queue("both", pools=["dear", "cheap"])
    done = stuck(room, tmp_path, "both", 3)
    until(lambda: room.status("taskqueues", "both").get("leased") == 3, "all run")
    assert (desired(room, "dear"), desired(room, "cheap")) == (1, 2)
    done.touch()
    room.ended(*[f"both-{i}" for i in range(3)])


def test_pods_of_a_pool_are_spread_over_zones(room: Room) -> None:
    room.pool("wide", slots=1, replicas=1, ready=1)
    (pod,) = [each for each in room.items("pods") if each["metadata"]["name"].startswith("wide-")]
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"
    assert spread["labelSelector"]["matchLabels"] == {"taskdist.dev/pool": "wide"}


def test_what_holds_tasks_for_long_is_a_condition_and_a_metric(room: Room) -> None:
    room.pool("idle", slots=1, replicas=0)
    room.queue("shut", pools=["idle"], paused=True)
    room.task("left", queue="shut")
    until(lambda: room.condition("taskqueues", "shut", "Bottleneck").get("status") == "False", "nothing yet")
    until(lambda: room.condition("taskqueues", "shut", "Bottleneck").get("status") == "True", "it holds", timeout=120)
    found = room.condition("taskqueues", "shut", "Bottleneck")
    assert found["reason"] == "QueuePaused"
    assert "1 Task waits for spec.paused" in found["message"]
    assert "Command: kubectl patch taskqueues.taskdist.dev shut" in found["message"]
    until(lambda: room.condition("agentpools", "idle", "Bottleneck").get("reason") == "QueuePaused", "of the pool too")
    series = metrics(room.stack.operators[0])
    mine = {sample: value for sample, value in series.items() if f'namespace="{room.namespace}"' in sample}
    said = [sample for sample in mine if sample.startswith("taskdist_bottleneck{") and 'name="shut"' in sample]
    assert len(said) == 1
    assert 'what="spec.paused"' in said[0]
    assert mine[f'taskdist_waiting_seconds{{namespace="{room.namespace}",queue="shut",reason="QueuePaused"}}'] > 30
