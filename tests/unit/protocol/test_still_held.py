"""Keys of a Task that was deleted while it runs stay held, for the next leader too, until its agent stopped it."""

import json
import math
from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Phase
from taskdist.core.model import Budget, Queue, Task
from taskdist.protocol import still_held
from taskdist.protocol.messages import Cancel, LeaseName, Stopped
from taskdist.protocol.observations import AnnotatePod, ObservedPod, ObservedTask, Written
from taskdist.protocol.operator.timers import TimerKind, Timers
from unit.protocol.desk import A1, EPOCH, POOL, QUEUE, Desk

KEYS: dict[str, tuple[Queue, dict[str, Any], tuple[str, str] | None]] = {
    "concurrency key": (QUEUE, {"concurrency_key": "k"}, None),
    "ordering key": (QUEUE, {"ordering_key": "k"}, None),
    "budget": (replace(QUEUE, budgets=(Budget("b", 1),)), {"budgets": (("q", "b", 1),)}, None),
    "idempotency key": (QUEUE, {}, ("q", "k")),
}
OLD = LeaseName("a", 1, EPOCH - 1)


def view(key: str, uid: str, version: int, **more: Any) -> ObservedTask:
    _, fields, idempotency = KEYS[key]
    task = Task(uid, "ns", f"task-{uid}", "q", "work", {"a": 1.0, "b": 2.0}[uid], **fields)
    return ObservedTask(task, version, idempotency=idempotency, **more)


def notes(desk: Desk) -> list[AnnotatePod]:
    return [action for action in desk.out if isinstance(action, AnnotatePod)]


def running(key: str) -> Desk:
    """Task `a` runs on u1."""
    desk = Desk(KEYS[key][0], view(key, "a", 10))
    desk.connect(1)
    desk.answer(Written(view(key, "a", 11, phase=Phase.ASSIGNED, attempt=1, epoch=EPOCH, agent_uid="u1"), b"{}"))
    return desk


def noted(key: str) -> dict[str, str]:
    """What stands on u1 after Task `a` was deleted under a former leader."""
    record = view(key, "a", 11, phase=Phase.ASSIGNED, attempt=1, epoch=EPOCH - 1, agent_uid="u1")
    return {still_held.annotation("a"): still_held.written(record, LeaseName("a", 1, EPOCH - 1), "p", 15.0, 120.0)}


def successor(key: str, annotations: dict[str, str]) -> Desk:
    """A new leader with idle agents u2 and u3, and Task `b` that wants what `a` held on u1."""
    desk = Desk(KEYS[key][0], pods=0, pool=POOL)
    desk.leader = type(desk.leader)(desk.leader.core, EPOCH)
    desk.do("queue_applied", KEYS[key][0])
    desk.do("pool_applied", POOL)
    for n in (1, 2):
        held = still_held.read(annotations, "ns", "u1", "p-1") if n == 1 else ()
        desk.do("pod_observed", ObservedPod(f"u{n}", "ns", f"p-{n}", "p", 0.0, ready=True, still_held=held))
    desk.do("recover", [view(key, "b", 20)])
    desk.connect(2, 2)
    return desk


@pytest.mark.parametrize("key", KEYS)
def test_what_a_deleted_task_holds_is_noted_on_its_agent_s_pod_until_it_stopped(key: str) -> None:
    desk = running(key)
    desk.do("task_deleted", "a")
    (note,) = notes(desk)
    assert (note.uid, note.key) == ("u1", f"held.taskdist.dev/{A1.task_uid}")
    (record,) = still_held.read({note.key: note.value or ""}, "ns", "u1", "p-1")
    plain = view(key, "a", 11)
    assert replace(record.task, type="work", created=1.0) == plain.task
    assert (record.idempotency, record.attempt, record.epoch) == (plain.idempotency, 1, EPOCH)
    desk.do("task_observed", view(key, "a", 12, phase=Phase.ASSIGNED, attempt=1, epoch=EPOCH, agent_uid="u1"))
    assert notes(desk) == [], "once"
    desk.says(1, Stopped(A1))
    assert notes(desk) == [replace(note, value=None)]


def test_a_task_without_a_key_costs_no_write() -> None:
    desk = Desk(QUEUE, ObservedTask(Task("a", "ns", "task-a", "q", "work", 1.0), 10))
    desk.connect(1)
    desk.answer(
        Written(ObservedTask(Task("a", "ns", "task-a", "q", "work", 1.0), 11, Phase.ASSIGNED, attempt=1), b"{}")
    )
    desk.do("task_deleted", "a")
    assert notes(desk) == []


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("ends", ["stopped", "not held", "away"])
def test_the_next_leader_gives_it_to_nobody_before_the_agent_has_stopped(key: str, ends: str) -> None:
    desk = successor(key, noted(key))
    assert desk.writes == []
    if ends == "stopped":
        desk.connect(1, 1, OLD)
        assert [cancel.lease for cancel in desk.sent(Cancel)] == [OLD]
        assert desk.writes == []
        desk.says(1, Stopped(OLD))
    elif ends == "not held":
        desk.connect(1, 1)
    else:
        desk.at(1121.0)
        assert desk.writes == []
        desk.at(1121.2)
    assert [(write.uid, write.status["phase"]) for write in desk.writes] == [("b", "Assigned")]
    assert desk.leader.stats().conservation_error == 0


@pytest.mark.parametrize("key", KEYS)
def test_without_such_a_note_it_is_free(key: str) -> None:
    assert [write.uid for write in successor(key, {}).writes] == ["b"]


@pytest.mark.parametrize(
    "value",
    ["", "{", "null", "[]", '{"name": 1}', '{"slots": "x"}', "9" * 5000, '{"name": "\\ud800"}'],
)
def test_a_note_that_makes_no_sense_is_left_out(value: str) -> None:
    assert still_held.read({still_held.annotation("a"): value, "other": "{}"}, "ns", "u1", "p-1") == ()


BEYOND = [
    *({field: number} for field in ("leaseSeconds", "holdSeconds") for number in (math.nan, math.inf, -1, 1e300)),
    *({"slots": number} for number in (0, -1, 1001, 10**30)),
    *({field: number} for field in ("attempt", "epoch") for number in (-1, 10**30)),
    *({"resources": [["gpu", number]]} for number in (-1, 10**30)),
    *({"budgets": [["q", "b", number]]} for number in (-1, 10**30)),
]


@pytest.mark.parametrize("wrong", BEYOND, ids=str)
def test_a_note_with_a_number_that_no_leader_writes_is_left_out(wrong: dict[str, Any]) -> None:
    (key, good), *_ = noted("budget").items()
    assert len(still_held.read({key: good}, "ns", "u1", "p-1")) == 1
    bad = json.dumps({**json.loads(good), **wrong})
    assert still_held.read({key: bad}, "ns", "u1", "p-1") == ()


def test_a_time_that_is_no_number_hides_no_timer() -> None:
    timers = Timers()
    timers.add(math.nan, TimerKind.LEASE, "a")
    timers.add(1.0, TimerKind.LEASE, "b")
    assert timers.next() == 1.0
    assert timers.due(2.0) == (TimerKind.LEASE, "b", 0)
    assert timers.next() is None
