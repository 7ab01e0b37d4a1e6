"""An assignment whose write is not answered: what it took stays taken until it is known what became of the write."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Phase
from taskdist.core.model import Budget, Queue, Quota, Task, TokenRate
from taskdist.protocol.messages import Final, Grant, Result, Verdict
from taskdist.protocol.observations import (
    Conflict,
    Found,
    Gone,
    NotSent,
    ObservedTask,
    ReadTask,
    Unknown,
    WriteRefused,
    Written,
)
from unit.protocol.desk import A1, EPOCH, POOL, QUEUE, Desk

SCARCE: dict[str, tuple[Queue, dict[str, Any]]] = {
    "concurrency key": (QUEUE, {"concurrency_key": "k"}),
    "ordering key": (QUEUE, {"ordering_key": "k"}),
    "quota": (replace(QUEUE, quota=Quota(leased=1)), {}),
    "tenant quota": (replace(QUEUE, tenant_quota=Quota(slots=1)), {}),
    "budget": (replace(QUEUE, budgets=(Budget("b", 1),)), {"budgets": (("q", "b", 1),)}),
    "budget that refills": (
        replace(QUEUE, budgets=(Budget("b", rate=TokenRate(0.001, 1)),)),
        {"budgets": (("q", "b", 1),)},
    ),
    "rate": (replace(QUEUE, rate=TokenRate(0.001, 1)), {}),
    "named resource": (QUEUE, {"agent": "p-1", "resources": (("gpu", 1),)}),
    "slot": (QUEUE, {"agent": "p-1"}),
}


class Contest:
    """Tasks `a` and `b` want the same scarce thing. There are two agents, and the write that assigns `a` is out."""

    def __init__(self, what: str) -> None:
        queue, self.fields = SCARCE[what]
        slots = 1 if what == "slot" else 2
        pool = replace(POOL, slots=slots, resources=(("gpu", 1),))
        self.desk = Desk(queue, self.task("a", 10), self.task("b", 20), pool=pool)
        self.desk.connect(1, slots=slots)
        self.desk.connect(2, 2, slots=slots)
        assert self.assigning() == ["a"]

    def task(self, uid: str, version: int, **more: Any) -> ObservedTask:
        created = {"a": 1.0, "b": 2.0}[uid]
        return ObservedTask(Task(uid, "ns", f"task-{uid}", "q", "work", created, **self.fields), version, **more)

    def landed(self, version: int) -> ObservedTask:
        """Task `a` as its assignment shows it."""
        pod = str(self.desk.writes[0].status["agentUid"])
        return self.task("a", version, phase=Phase.ASSIGNED, attempt=1, epoch=EPOCH, agent_uid=pod, pool="p")

    def assigning(self) -> list[str]:
        """Return the Tasks whose assignment was to be written, each as often as it was."""
        return [write.uid for write in self.desk.writes if write.status.get("phase") == "Assigned"]

    def granted(self) -> list[str]:
        return [grant.lease.task_uid for grant in self.desk.sent(Grant)]

    def answer(self, outcome: Any) -> None:
        self.desk.do("write_done", self.desk.writes[-1].token, outcome)


def doubtful(what: str, *, read: bool = True) -> Contest:
    """The write was not answered, and a read did not show it."""
    contest = Contest(what)
    contest.answer(Unknown(contest.task("a", 10) if read else None))
    return contest


@pytest.mark.parametrize("what", SCARCE)
@pytest.mark.parametrize("read", [True, False], ids=["read", "not-even-read"])
def test_what_an_unanswered_assignment_took_is_not_free(what: str, read: bool) -> None:
    contest = doubtful(what, read=read)
    assert contest.assigning() == ["a"]
    contest.desk.at(1000.6)
    first, again = contest.desk.writes
    assert (again.uid, again.resource_version, again.status) == ("a", 10, first.status), "only one of them can land"
    for outcome in (NotSent(), Unknown(None)):
        contest.answer(outcome)
        contest.desk.at(contest.desk.t + 0.6)
    assert contest.assigning() == ["a"] * 4
    assert contest.desk.leader.stats().conservation_error == 0
    contest.answer(Written(contest.landed(11), b"{}"))
    assert contest.granted() == ["a"]
    assert "b" not in contest.assigning()


@pytest.mark.parametrize("what", SCARCE)
def test_an_assignment_that_lands_late_holds_what_it_took_and_is_sent(what: str) -> None:
    contest = doubtful(what)
    contest.desk.do("task_observed", contest.landed(11))
    contest.desk.at(1000.6)
    (read,) = [action for action in contest.desk.out if isinstance(action, ReadTask)]
    contest.desk.do("read_done", read.token, Found(contest.landed(11), b"{}"))
    assert contest.granted() == ["a"]
    assert contest.assigning() == ["a"]


@pytest.mark.parametrize("what", SCARCE)
def test_once_it_can_land_no_more_what_it_took_is_free(what: str) -> None:
    contest = doubtful(what)
    contest.desk.do("task_observed", contest.task("a", 12, cancel=True))
    contest.desk.at(1000.6)
    (cancels,) = [write for write in contest.desk.writes if write.status["phase"] == "Cancelled"]
    contest.desk.do("write_done", cancels.token, Written(contest.task("a", 13, phase=Phase.CANCELLED)))
    assert contest.assigning() == ["a", "b"]


@pytest.mark.parametrize(
    ("outcome", "then"),
    [
        pytest.param(lambda c: Conflict(c.landed(12)), ["a"], id="it had landed, and the Task was changed since"),
        pytest.param(lambda c: Conflict(c.task("a", 12)), ["a", "a", "a"], id="somebody else wrote: decided anew"),
        pytest.param(lambda c: Gone(), ["a", "a", "b"], id="the Task is gone"),
        pytest.param(lambda c: WriteRefused("no"), ["a", "a", "b"], id="refused"),
    ],
)
def test_what_the_second_write_tells(outcome: Any, then: list[str]) -> None:
    contest = doubtful("concurrency key")
    contest.desk.at(1000.6)
    contest.answer(outcome(contest))
    reads = [action for action in contest.desk.out if isinstance(action, ReadTask)]
    assert contest.assigning() == (then if len(then) > 1 else ["a", "a"])
    assert len(reads) == (len(then) == 1), "what is to be sent has its payload read"
    assert contest.desk.leader.stats().unknown_writes == 0


def test_the_agent_that_is_gone_meanwhile_gives_it_back_once_it_is_known_to_stand() -> None:
    contest = doubtful("slot")
    contest.desk.do("pod_gone", "u1")
    assert contest.assigning() == ["a"]
    contest.desk.at(1000.6)
    contest.answer(Written(contest.landed(11), b"{}"))
    assert (contest.desk.phase, contest.desk.write().status["failures"]) == ("Pending", 0)


def test_a_late_result_ends_the_task_and_leaves_no_room_for_the_assignment() -> None:
    """The result of a former attempt comes while the next one is in doubt: both writes are on one version."""
    before: dict[str, Any] = {"attempt": 1, "epoch": EPOCH, "agent_uid": "u1"}
    desk = Desk(QUEUE, ObservedTask(Task("a", "ns", "task-a", "q", "work", 1.0), 10, **before))
    desk.connect(1)
    assert desk.write().status["attempt"] == 2
    desk.answer(Unknown(None))
    desk.says(1, Result(A1, b"{}"))
    desk.at(1000.6)
    assert (desk.phase, desk.write().resource_version) == ("Succeeded", 10)
    landed: dict[str, Any] = {"phase": Phase.ASSIGNED, "attempt": 2, "epoch": EPOCH, "agent_uid": "u1"}
    desk.answer(Conflict(ObservedTask(Task("a", "ns", "task-a", "q", "work", 1.0), 11, **landed)))
    assert [final.verdict for final in desk.sent(Final)] == [Verdict.STALE], "the assignment was first"
    assert [action for action in desk.out if isinstance(action, ReadTask)] != [], "and is sent"


def test_an_assignment_of_ones_own_that_is_not_in_the_books_is_never_sent() -> None:
    """It was refused, and landed all the same: what it took may be another's by now."""
    contest = doubtful("concurrency key")
    contest.desk.at(1000.6)
    contest.answer(WriteRefused("no"))
    assert contest.assigning()[-1] == "b"
    contest.desk.do("task_observed", contest.landed(11))
    contest.desk.at(1010.0)
    status = contest.desk.writes[-1].status
    assert (status["phase"], status["reason"], status["failures"]) == ("Pending", "GivenBack", 0)
    assert contest.granted() == []
