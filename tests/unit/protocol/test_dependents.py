"""Dependents and duplicates at the operator's end: what is written of parents, when, and how duplicates end."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Dispatch, OnDependencyFailure, Phase, Reason
from taskdist.core.model import Parent, Task
from taskdist.protocol.messages import Grant, ParentResult
from taskdist.protocol.observations import (
    Conflict,
    Found,
    Gone,
    NotSent,
    ObservedTask,
    ReadTask,
    WriteStatus,
    Written,
)
from unit.protocol.desk import QUEUE, Desk

OK, BAD = Phase.SUCCEEDED, Phase.FAILED
PIN, OVER = Parent("task-a", "a"), Parent("task-a", "a", OK)


def task(uid: str, *parents: Parent, on_failure: OnDependencyFailure = OnDependencyFailure.FAIL) -> Task:
    return Task(uid, "ns", f"task-{uid}", "q", "work", 0.0, parents=parents, on_parent_failure=on_failure)


def a(version: int = 10, phase: Phase = Phase.PENDING, **more: Any) -> ObservedTask:
    return ObservedTask(task("a"), version, phase, **more)


def child(
    version: int = 11,
    *parents: Parent,
    phase: Phase = Phase.PENDING,
    on_failure: OnDependencyFailure = OnDependencyFailure.FAIL,
    **more: Any,
) -> ObservedTask:
    return ObservedTask(task("c", *(parents or (Parent("task-a"),)), on_failure=on_failure), version, phase, **more)


def writes(desk: Desk, uid: str = "c") -> list[dict[str, Any]]:
    return [action.status for action in desk.out if isinstance(action, WriteStatus) and action.uid == uid]


def reason(desk: Desk, uid: str = "c") -> Reason:
    explanation = desk.leader.core.why(uid, desk.t)
    assert explanation is not None
    return explanation.reason


def waits_for_a() -> Desk:
    """Task `c` waits for `a`, is pinned to it, and `a` waits for an agent."""
    desk = Desk(QUEUE, a(), child(11, PIN))
    assert reason(desk) is Reason.DEPENDENCY
    assert writes(desk) == []
    return desk


# --- pins ---


def test_a_parent_is_pinned_when_it_is_seen() -> None:
    desk = Desk(QUEUE, child())
    assert reason(desk) is Reason.DEPENDENCY_NOT_FOUND
    assert writes(desk) == [], "there is nothing to say"
    desk.do("task_observed", a(12))
    assert reason(desk) is Reason.DEPENDENCY
    assert writes(desk) == [{"dependencies": [{"name": "task-a", "uid": "a"}]}]
    desk.answer(Written(child(13, PIN)))
    assert writes(desk) == []


@pytest.mark.parametrize("outcome", [NotSent(), Conflict(child(12))], ids=["not sent", "conflict"])
def test_a_pin_that_was_not_written_is_written_again(outcome: object) -> None:
    desk = Desk(QUEUE, child(), a())
    desk.answer(outcome)
    again = writes(desk) or [action.status for action in desk.at(1010.0) if isinstance(action, WriteStatus)]
    assert again == [{"dependencies": [{"name": "task-a", "uid": "a"}]}]


def test_how_a_parent_ended_goes_with_the_assignment() -> None:
    desk = waits_for_a()
    desk.do("task_observed", a(20, OK))
    assert writes(desk) == []
    desk.connect(1)
    assert desk.write().uid == "c"
    assert desk.write().status["dependencies"] == [{"name": "task-a", "uid": "a", "phase": "Succeeded"}]
    assert desk.write().status["phase"] == "Assigned"


def test_it_is_written_by_itself_if_nothing_else_is_for_a_second() -> None:
    desk = waits_for_a()
    desk.do("task_observed", a(20, OK))
    assert desk.at(1000.9) == []
    desk.at(1001.1)
    assert writes(desk) == [{"dependencies": [{"name": "task-a", "uid": "a", "phase": "Succeeded"}]}]
    desk.answer(Written(child(21, OVER)))
    assert [action for action in desk.at(1010.0) if isinstance(action, WriteStatus)] == []


def test_a_parent_that_ended_before_costs_no_write_of_its_own() -> None:
    desk = Desk(QUEUE, a(phase=OK), child())
    assert writes(desk) == []
    desk.connect(1)
    assert desk.write().status["dependencies"] == [{"name": "task-a", "uid": "a", "phase": "Succeeded"}]


# --- ends ---


@pytest.mark.parametrize(
    ("policy", "phase", "why"),
    [
        (OnDependencyFailure.FAIL, "Failed", "DependencyFailed"),
        (OnDependencyFailure.SKIP, "Cancelled", "Skipped"),
        (OnDependencyFailure.RUN, "Assigned", "Assigned"),
    ],
)
@pytest.mark.parametrize("how", ["fails", "is deleted"])
def test_a_parent_that_does_not_succeed(policy: OnDependencyFailure, phase: str, why: str, how: str) -> None:
    desk = Desk(QUEUE, a(), child(11, PIN, on_failure=policy))
    if how == "fails":
        desk.do("task_observed", a(20, BAD))
    else:
        desk.do("task_deleted", "a")
    if policy is OnDependencyFailure.RUN:
        desk.connect(1)
    (patch,) = writes(desk)
    assert (patch["phase"], patch["reason"]) == (phase, why)
    if policy is not OnDependencyFailure.RUN:
        assert ("task-a (Failed)" if how == "fails" else "task-a (deleted)") in patch["message"]


def test_a_chain_fails_from_its_top_to_its_end() -> None:
    grandchild = ObservedTask(task("d", Parent("task-c", "c")), 12)
    desk = Desk(QUEUE, a(), child(11, PIN), grandchild)
    desk.do("task_observed", a(20, BAD))
    failed = child(21, replace(PIN, phase=BAD), phase=BAD)
    desk.answer(Written(failed))
    (patch,) = writes(desk, "d")
    assert (patch["phase"], patch["reason"]) == ("Failed", "DependencyFailed")


def test_a_new_leader_takes_a_pin_that_is_not_listed_for_deleted() -> None:
    desk = Desk(QUEUE, child(11, PIN))
    (patch,) = writes(desk)
    assert (patch["phase"], patch["reason"]) == ("Failed", "DependencyFailed")


def test_a_dead_letter_is_waited_for_until_it_is_redriven_and_ends() -> None:
    desk = waits_for_a()
    desk.do("task_observed", a(20, Phase.DEAD_LETTERED))
    assert reason(desk) is Reason.DEPENDENCY
    explanation = desk.leader.core.why("c", desk.t)
    assert explanation is not None
    assert "dead letter" in explanation.message
    desk.do("task_observed", a(21, OK))
    assert reason(desk) is not Reason.DEPENDENCY


# --- results ---


def granted(desk: Desk) -> Grant:
    (grant,) = desk.sent(Grant)
    assert isinstance(grant, Grant)
    return grant


RESULTS = (ParentResult("task-a", "Succeeded", b'{"x":1}'),)


def ready(lazy: bool = False) -> Desk:
    queue = replace(QUEUE, dispatch=Dispatch.LAZY) if lazy else QUEUE
    desk = Desk(queue, a(phase=OK))
    desk.connect(1)
    desk.do("task_observed", child())
    return desk


def assigned() -> ObservedTask:
    return child(12, OVER, phase=Phase.ASSIGNED, attempt=1, epoch=3, agent_uid="u1", pool="p")


def test_results_are_asked_for_with_the_assignment_and_travel_with_the_lease() -> None:
    desk = ready()
    assert desk.write().parents == (OVER,)
    desk.answer(Written(assigned(), b'{"p":1}', RESULTS))
    assert (granted(desk).payload, granted(desk).parents) == (b'{"p":1}', RESULTS)


def test_results_that_could_not_be_read_are_read_again() -> None:
    desk = ready()
    desk.answer(Written(assigned(), b"{}", None))
    assert desk.sent(Grant) == []
    (read,) = [action for action in desk.out if isinstance(action, ReadTask)]
    assert read.parents == (OVER,)
    desk.do("read_done", read.token, Found(assigned(), b"{}", RESULTS))
    assert granted(desk).parents == RESULTS


def test_lazy_reads_them_with_the_payload() -> None:
    desk = ready(lazy=True)
    (read,) = [action for action in desk.out if isinstance(action, ReadTask)]
    assert read.parents == (OVER,)
    desk.do("read_done", read.token, Found(child(), b"{}", RESULTS))
    assert granted(desk).parents == RESULTS


# --- duplicates ---


def twin(uid: str, version: int, created: float = 0.0, phase: Phase = Phase.PENDING, **more: Any) -> ObservedTask:
    made = replace(task(uid), created=created)
    return ObservedTask(made, version, phase, idempotency=("q", "k"), **more)


def noted(desk: Desk) -> list[WriteStatus]:
    return [
        action for action in desk.out if isinstance(action, WriteStatus) and set(action.status) == {"reason", "message"}
    ]


def test_a_duplicate_waits_and_ends_as_the_first_with_its_result() -> None:
    desk = Desk(QUEUE, twin("a", 10), twin("b", 11, 1.0))
    desk.connect(1)
    desk.connect(2, 2)
    assert {write.uid for write in desk.writes} == {"a"}
    assert reason(desk, "b") is Reason.DUPLICATE
    desk.do("task_observed", twin("a", 20, phase=OK, attempt=1, epoch=3))
    write = desk.write()
    assert (write.uid, write.result_of) == ("b", ("a", "task-a"))
    told = {key: write.status[key] for key in ("phase", "reason", "duplicateOf")}
    assert told == {"phase": "Succeeded", "reason": "Duplicate", "duplicateOf": "task-a"}
    assert "task-a" in write.status["message"]
    desk.answer(Written(twin("b", 21, 1.0, OK, duplicate_of="task-a")))
    assert desk.leader.stats().conservation_error == 0


@pytest.mark.parametrize("phase", [BAD, Phase.CANCELLED])
def test_a_duplicate_fails_with_the_first(phase: Phase) -> None:
    desk = Desk(QUEUE, twin("a", 10), twin("b", 11, 1.0))
    desk.do("task_observed", twin("a", 20, phase=phase))
    assert desk.phase == phase


def test_a_duplicate_of_one_that_ended_before_ends_at_once() -> None:
    desk = Desk(QUEUE, twin("a", 10, phase=OK))
    desk.do("task_observed", twin("b", 11, 1.0))
    assert (desk.write().uid, desk.phase) == ("b", "Succeeded")
    desk.answer(NotSent())
    desk.at(1010.0)
    assert (desk.write().uid, desk.phase) == ("b", "Succeeded"), "and is tried again"


def test_the_key_is_free_once_the_first_is_deleted() -> None:
    desk = Desk(QUEUE, twin("a", 10), twin("b", 11, 1.0))
    desk.do("task_deleted", "a")
    assert reason(desk, "b") is not Reason.DUPLICATE
    desk.connect(1)
    assert desk.write().uid == "b"
    ended = Desk(QUEUE, twin("a", 10, phase=OK))
    ended.do("task_deleted", "a")
    ended.do("task_observed", twin("b", 11, 1.0))
    assert reason(ended, "b") is not Reason.DUPLICATE


def test_of_several_that_wait_one_is_run_and_the_others_say_that_they_wait_for_it() -> None:
    desk = Desk(QUEUE, twin("a", 10), twin("c", 12, 2.0), twin("b", 11, 1.0))
    desk.do("task_deleted", "a")
    assert reason(desk, "b") is not Reason.DUPLICATE
    assert reason(desk, "c") is Reason.DUPLICATE
    desk.connect(1)
    assert (desk.write().uid, desk.phase) == ("b", "Assigned")
    told = [
        (write.uid, write.status["reason"])
        for seconds in range(33)
        if desk.at(1000.0 + seconds)
        for write in noted(desk)
    ]
    assert told == [("c", "Duplicate")]


def test_a_duplicate_has_no_turn_of_the_ordering_key_that_it_shares_with_the_first() -> None:
    """Both are of one second, and the one that comes later goes first by its uid."""
    first, other = (replace(each, task=replace(each.task, ordering_key="o")) for each in (twin("b", 10), twin("a", 11)))
    desk = Desk(QUEUE, first)
    desk.do("task_observed", other)
    assert reason(desk, "a") is Reason.DUPLICATE
    desk.connect(1)
    assert (desk.write().uid, desk.phase) == ("b", "Assigned")
    gone = Desk(QUEUE, first)
    gone.do("task_observed", other)
    gone.do("task_deleted", "b")
    gone.connect(1)
    assert (gone.write().uid, gone.phase) == ("a", "Assigned"), "it has a turn once it is run itself"


def test_a_task_with_a_key_is_recorded_before_it_is_sent_in_any_queue() -> None:
    desk = Desk(replace(QUEUE, dispatch=Dispatch.LAZY), twin("a", 10))
    desk.connect(1)
    assert desk.phase == "Assigned"
    assert desk.sent(Grant) == []


def test_a_duplicate_can_be_cancelled_and_deleted() -> None:
    desk = Desk(QUEUE, twin("a", 10), twin("b", 11, 1.0), twin("c", 12, 2.0))
    desk.do("task_observed", twin("b", 20, 1.0, cancel=True))
    assert (desk.write().uid, desk.phase) == ("b", "Cancelled")
    desk.do("task_deleted", "c")
    desk.do("write_done", desk.writes[-1].token, Gone())
    assert desk.leader.stats().conservation_error == 0
    assert desk.leader.core.why("c", desk.t) is None
