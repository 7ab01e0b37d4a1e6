"""What is decided of Tasks that wait, and what becomes of dead letters: written as decided, or decided anew."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from doubles import CoreDouble
from taskdist.api import Delivery, Dispatch, OnExhausted, Phase, Reason
from taskdist.core.decisions import Decision, Fail, Spill
from taskdist.core.events import Event, TaskGone, TaskLeased, TaskWaiting
from taskdist.core.model import RetryPolicy
from taskdist.protocol.messages import Cancel, Failure, Final, Grant, LeaseName, Result, Verdict
from taskdist.protocol.observations import (
    Conflict,
    Found,
    Gone,
    Notice,
    NotSent,
    ObservedPod,
    ObservedTask,
    ReadTask,
    Unknown,
    WriteRefused,
    WriteStatus,
    Written,
)
from unit.protocol.desk import A1, EPOCH, QUEUE, Desk, assigned, record, running

LETTERS = replace(QUEUE, retry=RetryPolicy(limit=0, on_exhausted=OnExhausted.DEAD_LETTER))
LATE = Fail("a", 0, Reason.WAITED_TOO_LONG, "it waited for 5 s")
MOVE = Spill("a", "other", Reason.QUEUE_FULL, "q is full")


class Scripted(CoreDouble):
    """A core that says once what it is told to say, and remembers what it heard."""

    def __init__(self) -> None:
        super().__init__()
        self.script: list[Decision] = []
        self.heard: list[Event] = []

    def handle(self, event: Event, now: float) -> list[Decision]:
        self.heard.append(event)
        return super().handle(event, now)

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        script, self.script = self.script, []
        return script or super().decide(now, limit)


def waiting(decision: Decision, *, before: ObservedTask | None = None) -> tuple[Desk, Scripted]:
    """Task `a` waits, no agent is there, and the core has just decided."""
    core = Scripted()
    desk = Desk(QUEUE, before or record(), core=core)
    core.heard.clear()
    core.script = [decision]
    desk.do("tick")
    return desk, core


def dead(version: int = 12, **fields: Any) -> ObservedTask:
    return record(version, phase=Phase.DEAD_LETTERED, **{"attempt": 1, "epoch": EPOCH, "agent_uid": "u1", **fields})


def writes(desk: Desk) -> list[WriteStatus]:
    return [action for action in desk.out if isinstance(action, WriteStatus)]


def told(core: Scripted, kind: type) -> list[Any]:
    return [event for event in core.heard if isinstance(event, kind)]


# --- ends of waiting Tasks ---


@pytest.mark.parametrize(
    ("phase", "conditions"),
    [
        (Phase.FAILED, {"Complete": "False", "Failed": "True"}),
        (Phase.CANCELLED, {"Complete": "False", "Failed": "True"}),
        (Phase.DEAD_LETTERED, {"DeadLettered": "True"}),
    ],
)
def test_a_waiting_task_ends_as_decided(phase: Phase, conditions: dict[str, str]) -> None:
    desk, core = waiting(replace(LATE, phase=phase))
    write = desk.write()
    assert (write.resource_version, write.status["phase"], write.status["reason"]) == (10, phase, "WaitedTooLong")
    assert {one["type"]: one["status"] for one in write.status["conditions"]} == conditions
    assert told(core, TaskGone) == [], "it counts until that stands"
    desk.answer(Written(record(11, phase=phase, epoch=EPOCH)))
    assert told(core, TaskGone) == [TaskGone("a", phase)]
    assert writes(desk) == []
    notices = [a.reason for a in desk.out if isinstance(a, Notice)]
    assert (
        notices
        == {
            Phase.FAILED: [Reason.WAITED_TOO_LONG],
            Phase.CANCELLED: [],
            Phase.DEAD_LETTERED: [Reason.DEAD_LETTERED],
        }[phase]
    )
    assert desk.leader.stats().conservation_error == 0


def test_a_waiting_task_moves_to_another_queue_and_waits_there() -> None:
    desk, core = waiting(MOVE)
    status = desk.write().status
    assert (status["phase"], status["spilledTo"], status["reason"]) == ("Pending", "other", "QueueFull")
    moved = record(11, epoch=EPOCH)
    desk.answer(Written(replace(moved, task=replace(moved.task, queue="other"))))
    assert [event.task.queue for event in told(core, TaskWaiting)] == ["other"]
    assert desk.leader.stats().conservation_error == 0


def test_a_move_that_is_answered_without_its_queue_is_decided_anew() -> None:
    desk, core = waiting(MOVE)
    desk.answer(Written(record(11, epoch=EPOCH)))
    assert len(told(core, TaskWaiting)) == 1


@pytest.mark.parametrize("decision", [LATE, MOVE], ids=["end", "move"])
@pytest.mark.parametrize(
    "changed",
    [
        pytest.param({"suspended": True}, id="suspended"),
        pytest.param({"failures": 1}, id="another-wrote"),
    ],
)
def test_a_task_that_changed_before_the_write_is_decided_anew(decision: Decision, changed: dict[str, Any]) -> None:
    desk, core = waiting(decision)
    failures = changed.get("failures", 0)
    now = record(12, **changed)
    desk.answer(Conflict(replace(now, task=replace(now.task, failures=failures))))
    assert writes(desk) == []
    assert [event.task for event in told(core, TaskWaiting)] == [replace(now.task, failures=failures)]


@pytest.mark.parametrize("decision", [LATE, MOVE], ids=["end", "move"])
def test_a_newer_version_of_the_same_task_is_written_again(decision: Decision) -> None:
    desk, core = waiting(decision)
    desk.answer(Conflict(record(12)))
    assert desk.write().resource_version == 12
    assert told(core, TaskWaiting) == []


@pytest.mark.parametrize("decision", [LATE, MOVE], ids=["end", "move"])
def test_an_own_assignment_that_lands_late_is_not_overwritten(decision: Decision) -> None:
    desk, core = waiting(decision)
    desk.connect(1)
    desk.answer_to(10, Conflict(assigned(12)))
    assert [event.agent_uid for event in told(core, TaskLeased)] == ["u1"]
    assert (desk.write().resource_version, desk.write().status["reason"]) == (12, "GivenBack")
    assert desk.sent(Grant) == []


@pytest.mark.parametrize(
    "outcome", [Unknown(record()), Unknown(None), NotSent()], ids=["unknown", "unread", "not-sent"]
)
@pytest.mark.parametrize("decision", [LATE, MOVE], ids=["end", "move"])
def test_without_an_answer_it_is_written_again(decision: Decision, outcome: Any) -> None:
    desk, _ = waiting(decision)
    first = desk.write()
    desk.answer(outcome)
    assert writes(desk) == []
    desk.at(1001.0)
    assert desk.write().status["phase"] == first.status["phase"]


@pytest.mark.parametrize("decision", [LATE, MOVE], ids=["end", "move"])
def test_a_cancel_in_between_counts(decision: Decision) -> None:
    desk, _ = waiting(decision)
    desk.answer(Conflict(record(12, cancel=True)))
    assert (desk.phase, desk.write().status["reason"]) in (("Cancelled", "Cancelled"), ("Failed", "WaitedTooLong"))


def test_a_deletion_in_between_counts() -> None:
    desk, core = waiting(LATE)
    desk.answer(Gone())
    assert told(core, TaskGone) == [TaskGone("a", None)]
    assert writes(desk) == []


def test_a_late_result_beats_a_decision_that_does_not_stand() -> None:
    before = record(attempt=1, epoch=EPOCH, failures=1, agent_uid="u1")
    desk, _ = waiting(LATE, before=before)
    first = desk.write()
    desk.connect(1)
    desk.says(1, Result(A1, b"{}"))
    desk.do("write_done", first.token, Conflict(replace(before, resource_version=12)))
    assert (desk.phase, desk.write().body) == ("Succeeded", b"{}")


def test_a_decision_for_a_task_that_a_former_leader_may_have_sent_waits() -> None:
    core = Scripted()
    desk = Desk(replace(QUEUE, dispatch=Dispatch.LAZY), record(), core=core)
    core.script = [LATE]
    desk.do("tick")
    assert writes(desk) == []
    for pod in (1, 2):
        desk.connect(pod, pod)
    assert desk.write().status["reason"] == "WaitedTooLong"


FAILED_BY_PHASE = ObservedPod("u1", "ns", "p-1", "p", 0.0, ended=True)  # and its node has said nothing


@pytest.mark.parametrize(
    "away",
    [
        pytest.param(("pod_lost", "u1"), id="out of sight"),
        pytest.param(("pod_observed", FAILED_BY_PHASE), id="failed by its phase alone"),
    ],
)
@pytest.mark.parametrize(
    "word",
    [
        pytest.param(lambda desk: desk.connect(1), id="until it is back"),
        pytest.param(lambda desk: desk.do("pod_gone", "u1"), id="until it is dead"),
        pytest.param(lambda desk: desk.at(desk.t + 1.1 * QUEUE.hold_seconds), id="until what it held is over"),
    ],
)
def test_and_waits_for_an_agent_that_may_live_unseen(away: tuple[str, Any], word: Callable[[Desk], Any]) -> None:
    core = Scripted()
    desk = Desk(replace(QUEUE, dispatch=Dispatch.LAZY), record(), core=core)
    core.script = [LATE]
    desk.do(*away)
    desk.connect(2, 2)
    assert writes(desk) == []
    word(desk)
    assert desk.write().status["reason"] == "WaitedTooLong"


# --- dead letters ---


def dead_letter() -> Desk:
    """Task `a` has failed for good and is a dead letter."""
    desk = running(LETTERS)
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "boom"))
    desk.answer(Written(dead()))
    return desk


def test_a_task_that_is_not_tried_again_becomes_a_dead_letter_with_its_history() -> None:
    desk = running(LETTERS)
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "boom"))
    status = desk.write().status
    assert (status["phase"], status["reason"], status["failures"]) == ("DeadLettered", "RetriesExhausted", 1)
    assert [(one["attempt"], one["reason"], one["message"]) for one in status["attempts"]] == [
        (1, "HandlerError", "boom")
    ]
    assert "startedAt" in status["attempts"][0]
    assert desk.sent(Final) == []
    desk.answer(Written(dead()))
    assert desk.sent(Final)[0].verdict is Verdict.ACCEPTED
    assert desk.leader.dead_letters() == {("ns", "q"): 1}
    assert desk.leader.stats().conservation_error == 0
    assert not desk.leader.core.queue_counts()


def test_a_dead_letter_is_left_alone() -> None:
    desk = dead_letter()
    for version in (9, 12, 13):
        assert desk.do("task_observed", dead(version)) == []
    assert desk.do("task_observed", assigned(11)) == [], "an older view"
    assert desk.at(5000.0) == []
    assert desk.leader.dead_letters() == {("ns", "q"): 1}


def test_a_redrive_lets_it_wait_again_as_if_it_had_never_failed() -> None:
    desk = dead_letter()
    desk.do("task_observed", dead(13, redrive=1, failures=1))
    write = desk.write()
    assert (write.resource_version, write.status["phase"], write.status["redrives"]) == (13, "Pending", 1)
    assert write.status["failures"] == 0
    assert "attempt" not in write.status, "it never decreases"
    assert [write.status[key] for key in ("lostAgents", "retryAfter", "finishedAt")] == [None] * 3
    desk.answer(Written(record(14, attempt=1, epoch=EPOCH, agent_uid="u1", redrive=1, redrives=1)))
    assert (desk.phase, desk.write().status["attempt"]) == ("Assigned", 2)
    assert [a.reason for a in desk.out if isinstance(a, Notice)] == [Reason.REDRIVEN]
    assert desk.leader.dead_letters() == {}


def test_what_was_asked_before_it_was_a_dead_letter_is_not_done_then() -> None:
    desk = running(LETTERS)
    desk.do("task_observed", assigned(12, redrive=3))
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "boom"))
    assert desk.write().status["redrives"] == 3


def test_a_cancelled_dead_letter_ends() -> None:
    desk = dead_letter()
    desk.do("task_observed", dead(13, cancel=True, redrive=1))
    status = desk.write().status
    assert (status["phase"], status["reason"]) == ("Cancelled", "Cancelled")
    assert {one["type"]: one["status"] for one in status["conditions"]} == {
        "Complete": "False",
        "Failed": "True",
        "DeadLettered": "False",
    }
    desk.answer(Written(record(14, phase=Phase.CANCELLED, attempt=1, epoch=EPOCH)))
    assert desk.leader.dead_letters() == {}
    assert desk.do("task_observed", dead(15, redrive=9)) == []


def test_a_cancel_before_the_dead_letter_is_written_ends_it_at_once() -> None:
    desk = running(LETTERS)
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "boom"))
    desk.answer(Conflict(assigned(12, cancel=True)))
    assert desk.phase == "Cancelled"


@pytest.mark.parametrize(
    "outcome",
    [Unknown(None), NotSent(), WriteRefused("no"), Conflict(dead(14, redrive=1))],
    ids=["unknown", "not-sent", "refused", "conflict"],
)
def test_a_redrive_that_does_not_stand_is_written_again(outcome: Any) -> None:
    desk = dead_letter()
    desk.do("task_observed", dead(13, redrive=1))
    desk.answer(outcome)
    if not writes(desk):
        desk.at(1010.0)
    assert desk.write().status["redrives"] == 1


def test_a_redrive_that_landed_unseen_is_not_repeated() -> None:
    desk = dead_letter()
    desk.do("task_observed", dead(13, redrive=1))
    desk.answer(Unknown(None))
    desk.do("task_observed", record(14, attempt=1, epoch=EPOCH, redrive=1, redrives=1))
    desk.at(1010.0)
    assert (desk.phase, desk.write().resource_version) == ("Assigned", 14)


def test_a_deleted_dead_letter_is_forgotten() -> None:
    desk = dead_letter()
    assert desk.do("task_deleted", "a") == []
    assert desk.leader.dead_letters() == {}


def test_a_new_leader_finds_dead_letters_and_what_is_asked_of_them() -> None:
    quiet = Desk(LETTERS, dead(epoch=2))
    assert writes(quiet) == []
    assert quiet.leader.dead_letters() == {("ns", "q"): 1}
    assert Desk(LETTERS, dead(epoch=2, redrive=1)).write().status["epoch"] == EPOCH


def test_an_agent_that_comes_late_hears_that_a_dead_letter_is_over() -> None:
    desk = dead_letter()
    desk.says(1, Result(A1, b"{}"))
    assert desk.sent(Final)[0].verdict is Verdict.ALREADY_FINAL
    desk.t += 1.0
    desk.connect(7, 1, A1, instance="i")
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [A1]


def test_a_result_that_comes_while_the_dead_letter_is_written_is_too_late_if_that_stands() -> None:
    desk = running(LETTERS)
    desk.do("disconnected", 1)
    desk.at(1020.0)
    write = desk.write()
    assert write.status["phase"] == "DeadLettered"
    desk.connect(3, 1, A1)
    desk.says(3, Result(A1, b"{}"))
    desk.do("write_done", write.token, Written(dead()))
    assert desk.sent(Final)[0].verdict is Verdict.ALREADY_FINAL
    assert desk.leader.dead_letters() == {("ns", "q"): 1}


def test_a_result_of_before_a_redrive_is_accepted_while_no_newer_attempt_was_granted() -> None:
    desk = Desk(LETTERS, record(attempt=1, epoch=2, agent_uid="u1", redrive=1, redrives=1))
    old = LeaseName("a", 1, 2)
    desk.do("pod_observed", ObservedPod("u1", "ns", "p-1", "p", 0.0, ready=False))
    desk.connect(1, 1)
    desk.says(1, Result(old, b"{}"))
    status = desk.write().status
    assert status["phase"] == "Succeeded"
    assert {one["type"]: one["status"] for one in status["conditions"]}["DeadLettered"] == "False"


# --- deaths ---


def test_the_death_of_an_agent_is_told_apart() -> None:
    desk = running()
    desk.do("pod_gone", "u1")
    status = desk.write().status
    assert (status["phase"], status["failures"], status["lostAgents"]) == ("Pending", 0, ["u1"])


def test_as_many_deaths_as_allowed_poison_the_task() -> None:
    before = record(attempt=1, epoch=2)
    desk = Desk(
        replace(QUEUE, retry=RetryPolicy(agent_deaths=2)), replace(before, task=replace(before.task, deaths=("u9",)))
    )
    desk.connect(1)
    desk.answer(Written(assigned(attempt=2)))
    desk.do("pod_gone", "u1")
    status = desk.write().status
    assert (status["phase"], status["reason"], status["lostAgents"]) == ("Failed", "Poisoned", ["u9", "u1"])


def test_a_new_instance_proves_the_death_of_the_former_one() -> None:
    desk = running()
    desk.t = 1001.0
    desk.connect(7, 1, instance="i2")
    assert desk.write().status["lostAgents"] == ["u1"]


@pytest.mark.parametrize("delivery", list(Delivery))
def test_an_agent_that_a_new_leader_hears_first_did_not_prove_to_have_died(delivery: Delivery) -> None:
    desk = Desk(replace(QUEUE, delivery=delivery), assigned(epoch=2))
    desk.connect(1)
    assert "lostAgents" not in desk.write().status


# --- what comes between ---


@pytest.mark.parametrize(
    ("change", "then"),
    [({"suspended": True}, []), ({"cancel": True}, ["Cancelled"])],
    ids=["suspended", "cancelled"],
)
def test_what_is_stopped_before_it_is_sent_is_not_sent(change: dict[str, Any], then: list[str]) -> None:
    desk = Desk(replace(QUEUE, dispatch=Dispatch.LAZY))
    desk.connect(1)
    desk.do("task_observed", record())
    (read,) = [a for a in desk.out if isinstance(a, ReadTask)]
    desk.do("task_observed", record(11, **change))
    desk.do("read_done", read.token, Found(record(11, **change)))
    assert desk.sent(Grant) == []
    assert [write.status["phase"] for write in writes(desk)] == then
    assert desk.leader.stats().conservation_error == 0


# --- late results ---


def test_a_late_result_ends_the_task_while_its_retry_is_only_meant() -> None:
    """Lazy: the next attempt is being read, neither sent nor written."""
    desk = Desk(replace(QUEUE, dispatch=Dispatch.LAZY), pods=2)
    desk.connect(1)
    desk.connect(2, 2)
    desk.do("task_observed", record(attempt=1, epoch=EPOCH, failures=1, agent_uid="u1"))
    (read,) = [a for a in desk.out if isinstance(a, ReadTask)]
    desk.says(1, Result(A1, b"{}"))
    desk.do("read_done", read.token, Found(record(attempt=1, epoch=EPOCH, failures=1, agent_uid="u1")))
    assert desk.sent(Grant) == []
    assert (desk.phase, desk.write().status["attempt"]) == ("Succeeded", 1)


def test_a_late_result_is_stale_once_the_retry_stands_in_status() -> None:
    desk = Desk(QUEUE, record(attempt=1, epoch=EPOCH, failures=1, agent_uid="u1"))
    desk.connect(1)
    write = desk.write()
    desk.says(1, Result(A1, b"{}"))
    desk.do("write_done", write.token, Written(assigned(attempt=2)))
    assert desk.sent(Final)[0].verdict is Verdict.STALE


@pytest.mark.parametrize(
    "outcome", [Unknown(None), NotSent(), Conflict(record(12, attempt=1, epoch=EPOCH, agent_uid="u1"))]
)
def test_and_is_accepted_if_that_write_does_not_stand(outcome: Any) -> None:
    desk = Desk(QUEUE, record(attempt=1, epoch=EPOCH, failures=1, agent_uid="u1"))
    desk.connect(1)
    write = desk.write()
    desk.says(1, Result(A1, b"{}"))
    desk.do("write_done", write.token, outcome)
    if not writes(desk):
        desk.at(1001.0)
        for read in [a for a in desk.out if isinstance(a, ReadTask)]:
            desk.do("read_done", read.token, Found(record(attempt=1, epoch=EPOCH, failures=1, agent_uid="u1")))
    assert desk.phase == "Succeeded"
