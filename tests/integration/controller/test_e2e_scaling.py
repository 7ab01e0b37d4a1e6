"""Pods are spread over zones, and what holds Tasks for long is said of queue and pool."""

from __future__ import annotations

from integration.controller.room import Room, metrics
from patience import until
from taskdist.local.rest import MERGE_PATCH


def test_pods_of_a_pool_are_spread_over_zones(room: Room) -> None:
    room.pool("wide", slots=1, replicas=1, ready=1)
    (pod,) = [each for each in room.items("pods") if each["metadata"]["name"].startswith("wide-")]
    (spread,) = pod["spec"]["topologySpreadConstraints"]
    assert spread["topologyKey"] == "topology.kubernetes.io/zone"
    assert spread["labelSelector"]["matchLabels"] == {"taskdist.dev/pool": "wide"}


def test_what_waits_at_sources_is_work_for_the_pools_of_its_queue(room: Room) -> None:
    scaling = {"minReplicas": 0, "maxReplicas": 2, "scaleDownDelaySeconds": 0}
    room.pool("outside", slots=1, scaling=scaling, ready=0)
    room.queue("outside", pools=["outside"])
    room.make("TaskSource", "far", {"cron": {"schedule": "0 0 1 1 *"}, "task": {"queue": "outside", "type": "echo"}})

    def say(messages: int) -> None:
        status = {"backlog": {"messages": messages, "at": "2026-01-01T00:00:00Z"}}
        path = room.path("tasksources", "far/status")
        room.client.request("PATCH", path, {"status": status}, content_type=MERGE_PATCH)

    say(7)
    until(lambda: room.status("agentpools", "outside").get("desiredReplicas") == 2, "the pool grows for them")
    until(lambda: room.status("taskqueues", "outside").get("waitingOutside") == 7, "the queue says so")
    say(0)
    until(lambda: room.status("agentpools", "outside").get("desiredReplicas") == 0, "and shrinks")
    until(lambda: "waitingOutside" not in room.status("taskqueues", "outside"), "nothing waits any more")


def test_what_holds_tasks_for_long_is_a_condition_and_a_metric(shared: Room) -> None:
    def held() -> bool:
        return bool(shared.condition("taskqueues", "shut", "Bottleneck").get("status") == "True")

    until(held, "it holds", timeout=120)
    found = shared.condition("taskqueues", "shut", "Bottleneck")
    assert found["reason"] == "QueuePaused"
    assert "1 Task waits for spec.paused" in found["message"]
    assert "Command: kubectl patch taskqueues.taskdist.dev shut" in found["message"]
    until(
        lambda: shared.condition("agentpools", "idle", "Bottleneck").get("reason") == "QueuePaused", "of the pool too"
    )
    series = metrics(shared.stack.operators[0])
    mine = {sample: value for sample, value in series.items() if f'namespace="{shared.namespace}"' in sample}
    said = [sample for sample in mine if sample.startswith("taskdist_bottleneck{") and 'name="shut"' in sample]
    assert len(said) == 1
    assert 'what="spec.paused"' in said[0]
    assert mine[f'taskdist_waiting_seconds{{namespace="{shared.namespace}",queue="shut",reason="QueuePaused"}}'] > 30
