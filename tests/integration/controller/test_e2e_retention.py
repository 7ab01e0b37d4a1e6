"""Ended Tasks go when their time to live is over, and not before: those that others still need stay."""

from __future__ import annotations

import time

from integration.controller.room import Object, Room, metrics
from patience import until
from taskdist.local.rest import MERGE_PATCH
from taskdist.protocol.convert import seconds

# finishedAt is stamped by the operator's clock, which is this machine's.
SLACK = 0.05


def there(room: Room, name: str) -> bool:
    return any(task["metadata"]["name"] == name for task in room.items("tasks"))


def gone(room: Room, name: str) -> float:
    """Wait until the Task is gone; return when."""
    until(lambda: not there(room, name), f"Task {name} is gone")
    return time.time()


def end(room: Room, name: str, phase: str = "Succeeded", ago: float = 0.0, **status: object) -> None:
    """Write an end as if an operator had, so long ago."""
    at = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() - ago))
    body: Object = {"status": {"phase": phase, "finishedAt": at, **status}}
    room.client.request("PATCH", room.path("tasks", name) + "/status", body, content_type=MERGE_PATCH)


def test_the_task_s_own_word_goes_before_its_queue_s(apart: Room) -> None:
    apart.queue("ttl", ttlSecondsAfterFinished=2)
    before = metrics(apart.stack.operators[0])
    for name, spec in (("by-queue", {}), ("by-task", {"ttlSecondsAfterFinished": 4}), ("long", LONG)):
        apart.task(f"ttl-{name}", queue="ttl", **spec)
    ended = {
        name: seconds(apart.in_phase(f"ttl-{name}", "Succeeded")["finishedAt"]) for name in ("by-queue", "by-task")
    }
    assert gone(apart, "ttl-by-queue") >= ended["by-queue"] + 2 - SLACK
    assert gone(apart, "ttl-by-task") >= ended["by-task"] + 4 - SLACK
    assert apart.phase("ttl-long") == "Succeeded"
    series = f'taskdist_tasks_deleted_total{{namespace="{apart.namespace}",queue="ttl"}}'
    until(lambda: metrics(apart.stack.operators[0])[series] == before.get(series, 0) + 2, "both were counted")
    assert metrics(apart.stack.operators[0])["taskdist_conservation_error"] == 0


LONG: Object = {"ttlSecondsAfterFinished": 3600}


def test_without_a_word_a_task_stays_until_its_queue_gives_one(apart: Room) -> None:
    apart.queue("late-word")
    apart.task("late-word-0", queue="late-word")
    apart.ended("late-word-0")
    apart.task("marker", ttlSecondsAfterFinished=0)
    gone(apart, "marker")
    assert apart.phase("late-word-0") == "Succeeded"
    apart.patch("taskqueues", "late-word", ttlSecondsAfterFinished=0)
    gone(apart, "late-word-0")


def test_a_parent_stays_for_its_dependant(apart: Room) -> None:
    apart.queue("family", pools=["nobody"])
    apart.task("parent", queue="family", ttlSecondsAfterFinished=0)
    apart.task("child", queue="family", dependsOn=[{"name": "parent"}], suspend=True)
    apart.patch("tasks", "parent", cancel=True)
    apart.ended("parent")
    apart.task("marker-of-the-family", ttlSecondsAfterFinished=0)
    gone(apart, "marker-of-the-family")
    assert there(apart, "parent")
    apart.patch("tasks", "child", cancel=True)
    gone(apart, "parent")
    assert apart.ended("child")[0]["phase"] == "Cancelled"


def test_what_was_due_while_no_operator_ran_goes_with_the_next(room: Room) -> None:
    stack = room.stack
    room.queue(pools=["nobody"], ttlSecondsAfterFinished=600)
    for name in ("old", "young"):
        room.task(name)
    victim = stack.operators.pop(0)
    victim.process.kill()
    victim.process.wait()
    end(room, "old", ago=601)
    end(room, "young", ago=60)
    stack.start_operator()
    gone(room, "old")
    assert room.phase("young") == "Succeeded"
    assert metrics(stack.operators[0])["taskdist_conservation_error"] == 0
