"""The operator's end, rule by rule: what is written, sent and believed, and in which order."""

from dataclasses import replace
from typing import Any

import pytest

from doubles import CoreDouble
from taskdist.api import Delivery, Dispatch, Phase, Reason, Reclaim, Strategy
from taskdist.core import AgentState, decisions
from taskdist.core.decisions import Decision
from taskdist.core.model import Budget, Route, RouteStep, TokenRate
from taskdist.protocol.messages import (
    PROTOCOL_VERSION,
    AgentIdentity,
    Cancel,
    Failure,
    Final,
    Grant,
    Hello,
    Hold,
    LeaseName,
    Ping,
    Progress,
    Renew,
    Result,
    Started,
    Stopped,
    Verdict,
    Welcome,
)
from taskdist.protocol.observations import (
    Conflict,
    Fault,
    Found,
    Gone,
    Notice,
    NotSent,
    ObservedTask,
    ReadTask,
    RemovePod,
    Send,
    Unknown,
    WriteRefused,
    WriteStatus,
    Written,
)
from unit.protocol.desk import A1, EPOCH, QUEUE, Desk, assigned, record, running


def test_strict_writes_before_it_sends() -> None:
    desk = Desk(QUEUE, record())
    desk.connect(1)
    write = desk.write()
    assert (write.resource_version, write.status["attempt"], write.status["epoch"]) == (10, 1, EPOCH)
    assert desk.sent(Grant) == []
    desk.answer(Written(assigned(), b'{"x":1}'))
    (grant,) = desk.sent(Grant)
    assert (grant.lease, grant.payload, grant.ping_boot) == (A1, b'{"x":1}', 1000.0)


def test_lazy_reads_sends_and_records_after_a_second() -> None:
    desk = Desk(replace(QUEUE, dispatch=Dispatch.LAZY))
    desk.connect(1)
    desk.do("task_observed", record())
    (read,) = [a for a in desk.out if isinstance(a, ReadTask)]
    assert read.at == record().resource_version, "what the watch has just brought will do"
    desk.do("read_done", read.token, Found(record()))
    assert len(desk.sent(Grant)) == 1
    assert not [a for a in desk.at(1000.9) if isinstance(a, WriteStatus)]
    desk.at(1001.1)
    assert desk.phase == "Assigned"


STEPS = (RouteStep(("missing",)), RouteStep(("p",), 9.0, Strategy.ROUND_ROBIN))
ROUTED = replace(QUEUE, routes=(Route("r", STEPS),))
TAKEN = {"rule": "r", "step": 2, "pool": "p", "strategy": "RoundRobin", "score": 0.0}


def test_the_route_is_told_with_the_assignment_and_taken_back_with_it() -> None:
    desk = Desk(ROUTED, record())
    desk.connect(1)
    assert desk.write().status["route"] == TAKEN
    desk.answer(Written(assigned(), b'{"x":1}'))
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "boom"))
    assert (desk.phase, desk.write().status["route"]) == ("Pending", None)


def test_a_lazy_task_tells_its_route_with_its_end() -> None:
    desk = Desk(replace(ROUTED, dispatch=Dispatch.LAZY))
    desk.connect(1)
    desk.do("task_observed", record())
    (read,) = [a for a in desk.out if isinstance(a, ReadTask)]
    desk.do("read_done", read.token, Found(record()))
    desk.says(1, Result(A1, b"{}"))
    assert (desk.phase, desk.write().status["route"]) == ("Succeeded", TAKEN)


@pytest.mark.parametrize(
    "key", [{"concurrency_key": "k"}, {"ordering_key": "k"}, {"budgets": (("q", "b", 1),)}], ids=lambda key: min(key)
)
def test_a_task_with_a_key_or_budget_is_recorded_first_in_a_lazy_queue_too(key: dict[str, Any]) -> None:
    plain = record()
    queue = replace(QUEUE, dispatch=Dispatch.LAZY, budgets=(Budget("b", 1),))
    desk = Desk(queue, replace(plain, task=replace(plain.task, **key)))
    desk.connect(1)
    assert desk.write().status["phase"] == "Assigned"
    assert desk.sent(Grant) == []


SPENDING = replace(QUEUE, budgets=(Budget("b", rate=TokenRate(0.001, 10)),))


def spends(uid: str, view: ObservedTask) -> ObservedTask:
    """The same with a Task that takes all of the budget."""
    return replace(view, task=replace(view.task, uid=uid, name=f"task-{uid}", budgets=(("q", "b", 10),)))


@pytest.mark.parametrize(
    ("says", "starts", "told"),
    [
        pytest.param((Result(A1, used=(("q/b", 0),)),), True, "", id="result"),
        pytest.param((Result(A1, used=(("b", 0),)),), True, "", id="name-in-its-own-queue"),
        pytest.param((Failure(A1, Reason.HANDLER_ERROR, "x", False, used=(("q/b", 0),)),), True, "", id="failure"),
        pytest.param((Result(A1),), False, "", id="no-report"),
        pytest.param((Result(A1, used=(("q/b", 1),)),), False, "", id="part-of-it"),
        pytest.param((Result(A1, used=(("q/c", 0),)),), False, "q/c", id="not-a-budget-of-the-task"),
        pytest.param((Result(A1, used=(("q/b", 0), ("x/b", 1))),), True, "x/b", id="known-and-unknown"),
        pytest.param((Result(LeaseName("a", 1, 2), used=(("q/b", 0),)),), False, "", id="stale-epoch"),
        pytest.param((Result(LeaseName("a", 2, EPOCH), used=(("q/b", 0),)),), False, "", id="attempt-never-granted"),
        pytest.param((Result(A1), Result(A1, used=(("q/b", 0),))), False, "", id="changed-its-mind"),
    ],
)
def test_what_an_attempt_used_of_a_budget_comes_back(says: tuple[Any, ...], starts: bool, told: str) -> None:
    desk = Desk(SPENDING, spends("a", record()), spends("b", record()))
    desk.connect(1)
    assert desk.phase == "Assigned"
    desk.answer(Written(spends("a", assigned()), b"{}"))
    desk.connect(2, 2)
    out = [action for message in says for action in desk.says(1, message)]
    assert [a.uid for a in out if isinstance(a, WriteStatus) and a.status["phase"] == "Assigned"] == ["b"] * starts
    notices = [a.message for a in out if isinstance(a, Notice) and a.reason is Reason.BUDGET_NOT_FOUND]
    assert len(notices) == bool(told)
    assert all(f"used of {told}," in each for each in notices)


def test_another_agent_cannot_say_what_an_attempt_used() -> None:
    desk = Desk(SPENDING, spends("a", record()), spends("b", record()))
    desk.connect(1)
    desk.answer(Written(spends("a", assigned()), b"{}"))
    desk.connect(2, 2)
    desk.says(2, Result(A1, used=(("q/b", 0),)))
    assert desk.sent(Final) == [Final(A1, Verdict.STALE, "a newer attempt was granted, or another agent holds it")]
    assert not [action for action in desk.out if isinstance(action, WriteStatus)]


@pytest.mark.parametrize(
    ("outcome", "then"),
    [
        pytest.param(Conflict(record(12)), "Assigned", id="conflict: decided anew on what stands"),
        pytest.param(NotSent(), "", id="not sent: tried again later"),
        pytest.param(Gone(), "", id="gone: forgotten"),
        pytest.param(WriteRefused("no"), "", id="refused: later"),
        pytest.param(Unknown(record()), "", id="unknown: nothing is sent"),
        pytest.param(Conflict(record(12, cancel=True)), "Cancelled", id="cancelled in between"),
    ],
)
def test_an_assignment_that_does_not_stand_is_taken_back(outcome: Any, then: str) -> None:
    desk = Desk(QUEUE, record())
    desk.connect(1)
    desk.answer(outcome)
    assert desk.sent(Grant) == []
    writes = [a.status["phase"] for a in desk.out if isinstance(a, WriteStatus)]
    assert writes == ([then] if then else [])


def test_an_assignment_that_lands_late_is_sent_under_its_own_name() -> None:
    desk = Desk(QUEUE, record())
    desk.connect(1)
    desk.answer(Unknown(record()))
    desk.do("task_observed", assigned())
    desk.at(1001.0)
    (read,) = [a for a in desk.out if isinstance(a, ReadTask)]
    desk.do("read_done", read.token, Found(assigned()))
    assert [grant.lease for grant in desk.sent(Grant)] == [A1]


def test_a_result_is_written_then_acknowledged() -> None:
    desk = running()
    desk.says(1, Result(A1, b'{"y":2}'))
    assert (desk.phase, desk.write().body) == ("Succeeded", b'{"y":2}')
    assert desk.sent(Final) == []
    desk.answer(Written(record(12, phase=Phase.SUCCEEDED, attempt=1, epoch=EPOCH)))
    assert desk.sent(Final) == [Final(A1, Verdict.ACCEPTED)]
    desk.says(1, Result(A1, b"{}"))
    assert [final.verdict for final in desk.sent(Final)] == [Verdict.ALREADY_FINAL]


def test_a_result_refused_for_good_ends_the_task_without_the_body() -> None:
    desk = running()
    desk.says(1, Result(A1, b'{"y":2}'))
    desk.answer(WriteRefused("too large", too_large=True))
    write = desk.write()
    assert (write.status["phase"], write.status["reason"], write.body) == ("Failed", "ResultTooLarge", None)


@pytest.mark.parametrize(
    ("name", "session"),
    [
        pytest.param(LeaseName("a", 2, EPOCH), 1, id="an attempt that was not granted"),
        pytest.param(LeaseName("a", 1, EPOCH - 1), 1, id="another epoch"),
        pytest.param(A1, 2, id="another agent"),
    ],
)
def test_a_forged_result_is_stale(name: LeaseName, session: int) -> None:
    desk = running()
    desk.says(session, Result(name, b"{}"))
    assert [final.verdict for final in desk.sent(Final)] == [Verdict.STALE]
    assert not [a for a in desk.out if isinstance(a, WriteStatus)]


def test_a_failure_is_recorded_then_retried() -> None:
    desk = running()
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "boom"))
    status = desk.write().status
    assert (status["phase"], status["failures"], status["attempts"][0]["reason"]) == ("Pending", 1, "HandlerError")
    waits = replace(record(12, attempt=1, epoch=EPOCH, failures=1, agent_uid="u1"))
    desk.answer(Written(replace(waits, task=replace(waits.task, failures=1, not_before=1001.0))))
    assert desk.sent(Final) == [Final(A1, Verdict.ACCEPTED)]
    desk.at(1001.5)
    assert (desk.phase, desk.write().status["attempt"]) == ("Assigned", 2)


def test_renewals_name_what_the_agent_runs_and_echo_its_ping() -> None:
    desk = running()
    desk.says(1, Ping(77.0))
    assert desk.sent(Renew) == [Renew(EPOCH, 77.0, (A1,))]


def test_a_silent_agent_keeps_its_lease_until_the_end_and_the_margin() -> None:
    desk = running()
    desk.do("disconnected", 1)
    assert not [a for a in desk.at(1016.0) if isinstance(a, WriteStatus)]
    desk.at(1016.1)
    assert desk.write().status["reason"] == "LeaseExpired"


def test_fast_reclaims_when_the_connection_is_lost() -> None:
    desk = running(replace(QUEUE, reclaim=Reclaim.FAST))
    desk.do("disconnected", 1)
    assert desk.write().status["reason"] == "AgentLost"


def test_confirmed_deletes_the_pod_and_waits_for_its_end() -> None:
    desk = running(replace(QUEUE, reclaim=Reclaim.CONFIRMED))
    desk.do("disconnected", 1)
    desk.at(1020.0)
    assert [a.uid for a in desk.out if isinstance(a, RemovePod)] == ["u1"]
    desk.do("pod_gone", "u1")
    assert desk.write().status["reason"] == "AgentLost"


def test_a_new_instance_ends_the_leases_of_the_former() -> None:
    desk = running()
    desk.t = 1001.0
    desk.connect(7, 1, instance="i2")
    assert desk.write().status["reason"] == "AgentLost"


def test_a_hello_counts_only_once_its_sender_is_heard() -> None:
    desk = running()
    hello = Hello(PROTOCOL_VERSION, "i2", 1, 2000.0, started=1001.0)
    desk.do("connected", 7, AgentIdentity("u1", "p-1", "ns", "p"), hello)
    assert [type(a.message) for a in desk.out if isinstance(a, Send)] == [Welcome]


def test_what_a_handler_says_is_cut_to_fit_status_and_more_for_events_and_logs() -> None:
    desk = running()
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "x" * 100_000))
    (notice,) = [a for a in desk.out if isinstance(a, Notice)]
    assert len(notice.message) == 500
    assert len(desk.write().status["attempts"][0]["message"]) == 4096


def test_at_most_once_does_not_try_again() -> None:
    desk = running(replace(QUEUE, delivery=Delivery.AT_MOST_ONCE))
    desk.do("pod_gone", "u1")
    assert desk.phase == "Failed"


@pytest.mark.parametrize("delivery", list(Delivery))
def test_what_never_ran_is_given_back(delivery: Delivery) -> None:
    desk = Desk(replace(QUEUE, delivery=delivery), record())
    desk.connect(1)
    desk.answer(Written(assigned()))
    desk.says(1, Stopped(A1, "no room", ran=False))
    assert (desk.phase, desk.write().status["failures"]) == ("Pending", 0)


def test_what_a_lazy_queue_sent_in_vain_is_sent_again_after_a_while_and_not_at_once() -> None:
    """Else an agent that goes on refusing it would be asked as fast as the link is."""
    desk = Desk(replace(QUEUE, dispatch=Dispatch.LAZY))

    def sent() -> list[Grant]:
        for read in [action for action in desk.out if isinstance(action, ReadTask)]:
            desk.do("read_done", read.token, Found(record()))
        return desk.sent(Grant)

    desk.connect(1)
    desk.do("task_observed", record())
    assert [grant.lease for grant in sent()] == [A1]
    desk.says(1, Stopped(A1, "no room", ran=False))
    assert sent() == []
    desk.at(desk.t + 0.9)
    assert sent() == []
    desk.at(desk.t + 0.1)
    assert [grant.lease for grant in sent()] == [A1]


def test_cancel_and_suspend_wait_for_the_stop() -> None:
    changes: list[tuple[dict[str, Any], str]] = [({"cancel": True}, "Cancelled"), ({"suspended": True}, "Pending")]
    for change, phase in changes:
        desk = running()
        desk.do("task_observed", assigned(12, **change))
        assert [cancel.lease for cancel in desk.sent(Cancel)] == [A1]
        assert not [a for a in desk.out if isinstance(a, WriteStatus)]
        desk.says(1, Stopped(A1))
        assert desk.phase == phase


def test_a_waiting_task_is_cancelled_by_a_write() -> None:
    desk = Desk(QUEUE, record(cancel=True))
    assert desk.phase == "Cancelled"


def test_a_task_that_no_release_can_read_ends_with_what_is_wrong_and_never_runs() -> None:
    desk = Desk(QUEUE, record(fault=Fault(Reason.PAYLOAD_TOO_DEEP, "spec.payload is too deep")))
    desk.connect(1)
    (write,) = desk.writes
    assert (write.status["phase"], write.status["reason"]) == ("Failed", "PayloadTooDeep")
    assert write.status["message"] == "spec.payload is too deep"
    desk.answer_to(10, Written(record(11, phase=Phase.FAILED, fault=Fault(Reason.PAYLOAD_TOO_DEEP, "too deep"))))
    assert [(each.reason, each.warning) for each in desk.out if isinstance(each, Notice)] == [
        (Reason.PAYLOAD_TOO_DEEP, True)
    ], "an Event tells of it, as no attempt did"


def test_a_deleted_task_is_read_before_its_agent_hears_so() -> None:
    desk = running()
    desk.do("task_deleted", "a")
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [A1]
    desk.says(1, Result(A1, b"{}"))
    (read,) = [a for a in desk.out if isinstance(a, ReadTask)]
    assert desk.sent(Final) == []
    desk.do("read_done", read.token, Gone())
    assert [final.verdict for final in desk.sent(Final)] == [Verdict.GONE]
    assert desk.leader.stats().conservation_error == 0


def test_a_new_leader_waits_for_agents_that_have_not_announced_themselves() -> None:
    desk = Desk(QUEUE, assigned(epoch=2))
    assert not [a for a in desk.at(1121.0) if isinstance(a, WriteStatus)]
    desk.at(1121.2)  # takeover + holdSeconds + margin
    assert desk.write().status["reason"] == "LeaseExpired"


def test_a_new_leader_goes_on_with_what_an_agent_announces() -> None:
    desk = Desk(QUEUE, assigned(epoch=2))
    old = LeaseName("a", 1, 2)
    desk.connect(1, 1, old)
    assert desk.sent(Renew) == [Renew(EPOCH, 1000.0, (old,))]
    desk.says(1, Result(old, b"{}"))
    assert (desk.phase, desk.write().status["epoch"]) == ("Succeeded", EPOCH)


def test_a_new_leader_takes_back_what_its_agent_does_not_announce() -> None:
    desk = Desk(QUEUE, assigned(epoch=2))
    desk.connect(1)
    assert desk.write().status["reason"] in ("AgentLost", "LeaseExpired")


def test_a_leader_that_cannot_renew_says_hold_once_and_nothing_more() -> None:
    desk = running()
    desk.do("renewal_failing")
    assert len(desk.sent(Hold)) == 2
    assert desk.do("renewal_failing") == []
    assert desk.says(1, Ping(5.0)) == []
    assert desk.do("task_observed", record(99)) == []


def test_what_comes_after_the_sure_time_waits_for_the_next() -> None:
    desk = running()
    desk.leader.leading_until(1000.0)
    assert desk.says(1, Result(A1, b"{}")) == []
    desk.leader.leading_until(2000.0)
    desk.at(1001.0)
    assert desk.phase == "Succeeded"


def test_a_newer_epoch_in_status_ends_the_leadership() -> None:
    desk = running()
    assert desk.do("task_observed", assigned(20, epoch=EPOCH + 1)) == []
    assert desk.leader.over


def test_older_views_are_ignored() -> None:
    desk = running()
    assert desk.do("task_observed", record(10)) == []


def test_what_is_left_of_an_attempt_that_is_over_is_stopped_before_anything_else_is_sent() -> None:
    """Its machine slept over the end of its lease, and over the grant of another Task: that one waits for its stop."""
    desk = Desk(QUEUE, record())
    desk.connect(1)
    desk.answer(Written(assigned(), b"{}"))
    desk.says(1, Started(A1))
    desk.at(1016.1)
    failed = record(12, attempt=1, epoch=EPOCH, failures=1, agent_uid="u1")
    desk.answer(Written(replace(failed, task=replace(failed.task, failures=1, not_before=2000.0))))
    other = replace(record(20), task=replace(record().task, uid="b", name="task-b"))
    desk.do("task_observed", other)
    sent = assigned(21)
    desk.answer(Written(replace(sent, task=replace(sent.task, uid="b", name="task-b")), b"{}"))
    assert [grant.lease.task_uid for grant in desk.sent(Grant)] == ["b"]
    desk.t = 1017.0
    desk.connect(3, 1, A1)
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [A1]
    assert [action for action in desk.out if isinstance(action, ReadTask)] == [], "the grant that never arrived waits"
    assert desk.leader.core.agent_states()["ns", "p"][AgentState.NOT_READY] == 1
    desk.says(3, Stopped(A1))
    (read,) = [action for action in desk.out if isinstance(action, ReadTask)]
    desk.do("read_done", read.token, Found(replace(sent, task=replace(sent.task, uid="b", name="task-b")), b"{}"))
    assert [grant.lease for grant in desk.sent(Grant)] == [LeaseName("b", 1, EPOCH)]


def test_progress_is_written_after_two_seconds_and_then_twice_a_minute() -> None:
    desk = Desk(QUEUE, record())
    desk.connect(1)
    desk.answer(Written(assigned(), b"{}"))
    begin = desk.t
    written: list[tuple[int, float]] = []
    for second in range(1, 70):
        desk.at(begin + second)
        desk.says(1, Ping(desk.t))
        desk.says(1, Progress(A1, second / 100))
        desk.at(desk.t)
        if desk.writes[-1].resource_version == 11 + len(written) and "progress" in desk.writes[-1].status:
            written.append((second, desk.writes[-1].status["progress"]["fraction"]))
            desk.answer_to(10 + len(written), Written(assigned(11 + len(written)), b"{}"))
    assert written == [(2, 0.01), (32, 0.31), (62, 0.61)]


def test_a_cancel_that_was_lost_on_the_way_is_said_again() -> None:
    desk = running()
    desk.do("task_observed", assigned(12, cancel=True))
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [A1]
    desk.do("disconnected", 1)
    desk.connect(2, 1, A1)
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [A1]


class WantsTheFirstGone(CoreDouble):
    """It has one agent deleted, as idle, with the first decision."""

    said = False

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        if self.said:
            return super().decide(now, limit)
        self.said = True
        return [decisions.DeletePod("u1", "ns", "p-1", Reason.FIXED_SIZE, "one too many")]


def test_no_agent_is_deleted_that_may_hold_what_a_former_leader_did_not_record() -> None:
    """Lazy: it passes for idle until it has said what it holds."""
    desk = Desk(replace(QUEUE, dispatch=Dispatch.LAZY), record(), core=WantsTheFirstGone())
    assert not [action for action in desk.out if isinstance(action, RemovePod)]
    desk.connect(2, 2)
    assert not [action for action in desk.out if isinstance(action, RemovePod)]
    desk.connect(1)
    assert [action.uid for action in desk.out if isinstance(action, RemovePod)] == ["u1"]


@pytest.mark.parametrize("phase", [Phase.FAILED, Phase.DEAD_LETTERED])
def test_a_failure_of_a_task_that_another_has_ended_meanwhile_gets_its_final_reply(phase: Phase) -> None:
    """A former leader's word of its end landed late: without a reply the agent would keep the outcome for ever."""
    desk = running()
    desk.do("task_observed", replace(assigned(12), phase=phase))
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "it broke", True))
    assert [(final.lease, final.verdict) for final in desk.sent(Final)] == [(A1, Verdict.ALREADY_FINAL)]
