"""A full queue refuses at the API server, says why, and opens again; what the operator saw survives it."""

from __future__ import annotations

from typing import Any

import pytest

from integration.controller.room import Object, Room, metrics
from patience import until
from taskdist.kube import ApiError


def refusal(room: Room, queue: str, payload: Object | None = None) -> str:
    """What the API server says to a new Task of this queue, which is not kept; empty if it would take it."""
    body = {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"generateName": "probe-"},
        "spec": {"queue": queue, "type": "echo", "payload": payload or {}},
    }
    try:
        room.client.request("POST", room.path("tasks"), body, query={"dryRun": "All"})
    except ApiError as error:
        if error.status != 403:
            raise
        return str(error)
    return ""


def refused(room: Room, queue: str) -> str:
    return until(lambda: refusal(room, queue), f"queue {queue} takes no Tasks")


def taken(room: Room, queue: str) -> None:
    until(lambda: not refusal(room, queue), f"queue {queue} takes Tasks")


def accepting(room: Room, queue: str) -> bool:
    status: Any = room.status("taskqueues", queue).get("accepting")
    return bool(status)


def test_a_queue_refuses_from_its_high_mark_on_and_takes_again_at_its_low_one(apart: Room) -> None:
    apart.queue("tank", pools=["nobody"], overflow={"highWater": 4, "lowWater": 1})
    for i in range(4):
        apart.task(f"tank-{i}", queue="tank")
    said = refused(apart, "tank")
    assert "TaskQueue tank takes no new Tasks now; 4 wait in it." in said
    assert "spec.overflow.highWater is 4; it opens again at 1 waiting." in said
    with pytest.raises(ApiError):
        apart.task("tank-too-many", queue="tank")
    assert not accepting(apart, "tank")
    assert apart.condition("taskqueues", "tank", "Accepting")["reason"] == "QueueFull"
    assert not refusal(apart, "q"), "other queues go on"
    for i in range(2):
        apart.patch("tasks", f"tank-{i}", cancel=True)
    until(lambda: apart.status("taskqueues", "tank").get("waiting") == 2, "two have gone")
    assert refusal(apart, "tank"), "between its marks it stays closed"
    apart.patch("tasks", "tank-2", cancel=True)
    taken(apart, "tank")
    assert accepting(apart, "tank")
    apart.task("tank-again", queue="tank")


@pytest.mark.parametrize(
    ("queue", "spec", "words"),
    [
        pytest.param("waiting", {"quota": {"waiting": 2}}, "spec.quota.waiting is 2", id="a-quota-of-waiting-tasks"),
        pytest.param(
            # As much as two of them have: one that goes beyond it is failed by the core, and leaves room again.
            "bytes",
            {"quota": {"payloadBytes": 416}},
            "spec.quota.payloadBytes is 416",
            id="a-quota-of-bytes",
        ),
    ],
)
def test_a_quota_closes_its_queue(apart: Room, queue: str, spec: Object, words: str) -> None:
    apart.queue(queue, pools=["nobody"], **spec)
    for i in range(2):
        apart.task(f"{queue}-{i}", payload={"x": "y" * 200}, queue=queue)
    assert words in refused(apart, queue)
    apart.patch("tasks", f"{queue}-0", cancel=True)
    taken(apart, queue)


def test_a_drained_queue_takes_nothing_and_works_off_what_it_has(apart: Room) -> None:
    apart.queue("drain", paused=True)
    apart.task("drain-left", queue="drain")
    apart.patch("taskqueues", "drain", drained=True)
    assert "spec.drained is true" in refused(apart, "drain")
    apart.patch("taskqueues", "drain", paused=False)
    assert apart.ended("drain-left")[0]["phase"] == "Succeeded"
    assert refusal(apart, "drain")
    apart.patch("taskqueues", "drain", drained=False)
    taken(apart, "drain")


def test_numbers_of_a_full_queue_are_in_the_metrics(apart: Room) -> None:
    apart.queue("measured", pools=["nobody"], overflow={"highWater": 1, "lowWater": 0})
    apart.task("measured-0", queue="measured")
    refused(apart, "measured")
    numbers = metrics(apart.stack.operators[0])
    labels = f'namespace="{apart.namespace}",queue="measured"'
    assert numbers[f"taskdist_queue_accepting{{{labels}}}"] == 0
    assert numbers[f'taskdist_tasks_waiting_by_reason{{{labels},reason="PoolNotFound"}}'] == 1
    apart.patch("tasks", "measured-0", cancel=True)
    taken(apart, "measured")


def test_a_queue_between_its_marks_stays_closed_under_the_next_leader(room: Room) -> None:
    room.queue("tank", pools=["nobody"], overflow={"highWater": 3, "lowWater": 1})
    for i in range(3):
        room.task(f"t{i}", queue="tank")
    refused(room, "tank")
    room.patch("tasks", "t0", cancel=True)
    until(lambda: room.status("taskqueues", "tank").get("waiting") == 2, "one has gone")
    victim = room.stack.operators.pop(0)
    victim.process.kill()
    victim.process.wait()
    successor = room.stack.start_operator()
    series = f'taskdist_queue_accepting{{namespace="{room.namespace}",queue="tank"}}'
    until(lambda: metrics(successor).get(series) == 0, "the successor leads and holds it for closed")
    # The next word about the queue is the successor's own.
    room.patch("taskqueues", "tank", weight=2)
    generation = room.get("taskqueues", "tank")["metadata"]["generation"]
    until(lambda: room.status("taskqueues", "tank").get("observedGeneration") == generation, "it has spoken")
    assert not accepting(room, "tank")
    assert refusal(room, "tank")
    room.patch("tasks", "t1", cancel=True)
    taken(room, "tank")
