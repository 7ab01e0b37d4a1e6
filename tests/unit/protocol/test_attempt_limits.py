"""Limits of an attempt: kept by the agent, and by the operator where an agent does not."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import Delivery, Phase, Reason, Reclaim
from taskdist.core.model import Queue, Timeouts
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.agent.work import AgentAction, CancelWork, KillWork, SendUp
from taskdist.protocol.attempt_limits import Due, next_due
from taskdist.protocol.messages import (
    Cancel,
    Failure,
    Final,
    FromAgent,
    Grant,
    HeldLease,
    Hello,
    LeaseName,
    Ping,
    Progress,
    Renew,
    Result,
    Started,
    Stopped,
    Welcome,
)
from taskdist.protocol.observations import WriteStatus, Written
from taskdist.protocol.settings import AgentSettings, Capabilities
from unit.protocol.desk import A1, EPOCH, QUEUE, Desk, assigned, record, running

A = LeaseName("a", 1, 5)


@pytest.mark.parametrize(
    ("limits", "reported", "expected"),
    [
        pytest.param((0.0, 0.0), 10.0, None, id="none"),
        pytest.param(
            (5.0, 0.0), 10.0, Due(15.0, Reason.EXECUTION_TIMED_OUT, 5.0), id="execution-counts-from-the-start"
        ),
        pytest.param((0.0, 5.0), 12.0, Due(17.0, Reason.PROGRESS_TIMED_OUT, 5.0), id="progress-from-the-last-report"),
        pytest.param((9.0, 5.0), 12.0, Due(17.0, Reason.PROGRESS_TIMED_OUT, 5.0), id="the-first-of-both"),
        pytest.param((5.0, 5.0), 10.0, Due(15.0, Reason.EXECUTION_TIMED_OUT, 5.0), id="at-once-execution-is-told"),
    ],
)
def test_which_limit_is_passed_first(limits: tuple[float, float], reported: float, expected: Due | None) -> None:
    assert next_due(*limits, 10.0, reported) == expected


@given(st.floats(0.001, 31_536_000))
def test_the_grace_is_a_tenth_within_bounds(limit: float) -> None:
    grace = Due(0.0, Reason.EXECUTION_TIMED_OUT, limit).grace
    assert 0.5 <= grace <= 10.0
    if 5.0 <= limit <= 100.0:
        assert grace == limit / 10


# --- the agent ---


def working(execution: float = 0.0, progress: float = 0.0, lease: float = 1000.0) -> AgentEnd:
    """An agent that runs `A` since 101 under these limits."""
    end = AgentEnd("i1", Capabilities(slots=2), AgentSettings(silence_seconds=1e6))
    end.connected(100.0)
    end.received(Welcome(5, 2), 100.0)
    grant = Grant(A, "ns", "a", "work", 1, 100.0, lease, lease, execution_seconds=execution, progress_seconds=progress)
    end.received(grant, 100.0)
    end.started(A, 101.0)
    return end


def said(actions: list[AgentAction]) -> list[FromAgent]:
    return [a.message for a in actions if isinstance(a, SendUp) and not isinstance(a.message, Ping)]


def kinds(actions: list[AgentAction]) -> list[type]:
    return [type(a) for a in actions if not isinstance(a, SendUp)]


def test_what_runs_too_long_is_asked_then_killed_and_has_failed() -> None:
    end = working(execution=10.0)
    assert kinds(end.tick(110.9)) == []
    (cancel,) = [a for a in end.tick(111.0) if isinstance(a, CancelWork)]
    assert (cancel.reason, "10 s" in cancel.message) == (Reason.EXECUTION_TIMED_OUT, True)
    assert kinds(end.tick(111.9)) == []
    assert kinds(end.tick(112.0)) == [KillWork]
    (failure,) = said(end.stopped(A, 112.1))
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.retryable) == (Reason.EXECUTION_TIMED_OUT, True)
    assert failure.since_start == pytest.approx(11.1)
    assert end.kept == (A,)


@pytest.mark.parametrize("how", ["finished", "failed", "stopped"])
def test_whatever_it_leaves_after_the_limit_is_a_failure_by_time(how: str) -> None:
    end = working(execution=10.0)
    end.tick(111.0)
    rest = {"finished": (b"{}",), "failed": (Reason.HANDLER_ERROR, "x", False), "stopped": ()}[how]
    (failure,) = said(getattr(end, how)(A, *rest, 111.2))
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.retryable) == (Reason.EXECUTION_TIMED_OUT, True)


def test_what_slept_past_its_limit_and_its_lease_is_killed_and_has_failed_by_time() -> None:
    end = working(execution=10.0, lease=15.0)
    assert kinds(end.tick(500.0)) == [CancelWork, KillWork]
    (failure,) = said(end.finished(A, b"{}", 500.1))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.EXECUTION_TIMED_OUT


def test_a_report_of_progress_puts_its_limit_off_and_not_the_other() -> None:
    end = working(execution=60.0, progress=5.0)
    for at in range(105, 160, 4):
        assert kinds(end.tick(float(at))) == []
        end.progress(A, 0.5, "", float(at))
    assert kinds(end.tick(161.0)) == [CancelWork]
    assert [each.reason for each in said(end.stopped(A, 161.1)) if isinstance(each, Failure)] == [
        Reason.EXECUTION_TIMED_OUT
    ]


def test_without_a_report_the_time_counts_from_the_start() -> None:
    end = working(progress=5.0)
    assert end.next_wake() is not None
    assert kinds(end.tick(105.9)) == []
    assert kinds(end.tick(106.0)) == [CancelWork]
    (failure,) = said(end.stopped(A, 106.1))
    assert isinstance(failure, Failure)
    assert failure.reason is Reason.PROGRESS_TIMED_OUT


def test_the_limit_is_kept_without_a_session_and_told_in_the_next() -> None:
    end = working(execution=10.0)
    end.disconnected(105.0)
    assert end.next_wake() == 111.0
    assert kinds(end.tick(111.0)) == [CancelWork]
    assert said(end.stopped(A, 111.5)) == []
    (hello,) = said(end.connected(120.0))
    assert isinstance(hello, Hello)
    assert hello.leases == (A,)
    (failure,) = said(end.received(Welcome(5, 2), 120.1))
    assert isinstance(failure, Failure)
    assert failure.since_start == pytest.approx(19.1)


def test_work_that_has_not_started_has_no_limit_yet() -> None:
    end = AgentEnd("i1", Capabilities(slots=2), AgentSettings(silence_seconds=1e6))
    end.connected(100.0)
    end.received(Welcome(5, 2), 100.0)
    end.received(Grant(A, "ns", "a", "work", 1, 100.0, 1000.0, 1000.0, execution_seconds=1.0), 100.0)
    assert kinds(end.tick(150.0)) == []


def test_a_cancel_before_the_limit_stays_a_cancel() -> None:
    end = working(execution=10.0)
    end.received(Cancel(A, Reason.CANCELLED, "as asked"), 105.0)
    end.tick(112.0)
    assert [type(m) for m in said(end.stopped(A, 112.1))] == [Stopped]


def test_a_cancel_does_not_prolong_the_run() -> None:
    end = working(execution=10.0)
    end.received(Cancel(A, Reason.CANCELLED, "as asked"), 110.5)
    assert kinds(end.tick(111.9)) == []
    assert kinds(end.tick(112.0)) == [KillWork], "at the limit and its grace, not 10 s after the cancel"


def test_each_welcome_hears_since_when_it_runs_and_under_which_limits() -> None:
    end = working(execution=50.0, progress=40.0)
    end.disconnected(105.0)
    (hello,) = said(end.connected(110.0))
    assert isinstance(hello, Hello)
    assert hello.held == (HeldLease(A, "ns", "a", 1000.0, 1000.0, 50.0, 40.0),)
    assert said(end.received(Welcome(6, 2), 111.0)) == [Started(A, 10.0)]


# --- the operator ---

TIMED = replace(QUEUE, timeouts=Timeouts(execution=10.0, progress=4.0))


@pytest.mark.parametrize(
    ("queue", "own", "expected"),
    [
        pytest.param(QUEUE, {}, (0.0, 0.0), id="none"),
        pytest.param(TIMED, {}, (10.0, 4.0), id="the-queue-s"),
        pytest.param(TIMED, {"execution_limit": 99.0}, (99.0, 4.0), id="the-task-s-own-instead"),
        pytest.param(QUEUE, {"progress_limit": 3.0}, (0.0, 3.0), id="the-task-s-own-alone"),
    ],
)
def test_a_lease_carries_its_limits(queue: Queue, own: dict[str, Any], expected: tuple[float, float]) -> None:
    desk = Desk(queue, record(**own))
    desk.connect(1)
    desk.answer(Written(assigned(**own)))
    (grant,) = desk.sent(Grant)
    assert (grant.execution_seconds, grant.progress_seconds) == expected


def keep_up(desk: Desk, until: float, *, progress: bool = False) -> float | None:
    """Ping every second; return when the lease was asked to stop."""
    t = desk.t
    while t < until:
        t += 1.0
        desk.at(t)
        if desk.sent(Cancel):
            return t
        desk.says(1, Ping(t))
        if progress:
            desk.says(1, Progress(A1, 0.5))
            for write in [a for a in desk.out if isinstance(a, WriteStatus)]:
                desk.do("write_done", write.token, Written(assigned(write.resource_version + 1)))
    return None


def test_the_operator_asks_an_agent_that_does_not_keep_the_limit() -> None:
    desk = running(replace(QUEUE, timeouts=Timeouts(execution=10.0)))
    assert keep_up(desk, 1100.0) == 1016.0, "10 s, a grace of 1 s and a margin of 5 s"
    (cancel,) = desk.sent(Cancel)
    assert cancel.reason is Reason.EXECUTION_TIMED_OUT
    desk.says(1, Ping(1016.5))
    assert desk.sent(Renew) == [Renew(EPOCH, 1016.5, ())], "and it is not renewed any more"
    desk.says(1, Stopped(A1))
    status = desk.write().status
    assert (status["phase"], status["reason"], status["failures"]) == ("Pending", "ExecutionTimedOut", 1)


def test_reports_of_progress_put_off_what_the_operator_asks() -> None:
    queue = replace(QUEUE, timeouts=Timeouts(progress=4.0))
    assert keep_up(running(queue), 1100.0) == 1010.0  # 4 s + 0.5 s + 5 s, seen at the next second
    assert keep_up(running(queue), 1100.0, progress=True) is None


@pytest.mark.parametrize(
    ("end", "delivery"),
    [
        pytest.param("lease", Delivery.AT_LEAST_ONCE, id="its-lease-ends"),
        pytest.param("death", Delivery.AT_LEAST_ONCE, id="its-pod-is-gone"),
        pytest.param("restart", Delivery.AT_LEAST_ONCE, id="it-starts-anew"),
        pytest.param("lease", Delivery.AT_MOST_ONCE, id="at-most-once"),
    ],
)
def test_however_it_ends_once_asked_it_failed_by_time(end: str, delivery: Delivery) -> None:
    desk = running(replace(QUEUE, timeouts=Timeouts(execution=10.0), delivery=delivery))
    keep_up(desk, 1100.0)
    if end == "lease":
        desk.at(1100.0)
    elif end == "death":
        desk.do("pod_gone", "u1")
    else:
        desk.t += 1.0
        desk.connect(9, 1, instance="i2")
    status = desk.write().status
    assert status["reason"] == "ExecutionTimedOut"
    assert status["phase"] == ("Pending" if delivery is Delivery.AT_LEAST_ONCE else "Failed")
    assert "lostAgents" not in status


def test_confirmed_waits_for_the_death_of_what_does_not_stop() -> None:
    desk = running(replace(QUEUE, timeouts=Timeouts(execution=10.0), reclaim=Reclaim.CONFIRMED))
    keep_up(desk, 1100.0)
    desk.at(1100.0)
    assert not [a for a in desk.out if isinstance(a, WriteStatus)]
    desk.do("pod_gone", "u1")
    assert desk.write().status["reason"] == "ExecutionTimedOut"


def test_a_new_leader_counts_from_the_start_that_the_agent_tells() -> None:
    desk = Desk(replace(QUEUE, timeouts=Timeouts(execution=500.0)), assigned(epoch=2, assigned_at=900.0))
    old = LeaseName("a", 1, 2)
    held = HeldLease(old, "ns", "task-a", 15.0, 120.0, execution_seconds=20.0)
    desk.connect(1, 1, old, held=(held,))
    desk.says(1, Started(old, 8.0))
    assert keep_up(desk, 1100.0) == 1019.0, "what the grant said holds, from 8 s ago: 20 s, 2 s and 5 s"


def test_the_start_is_in_status_at_the_end() -> None:
    desk = Desk(QUEUE, assigned(epoch=2, assigned_at=900.0))
    old = LeaseName("a", 1, 2)
    desk.connect(1, 1, old)
    desk.says(1, Result(old, b"{}", since_start=30.0))
    assert desk.write().status["startedAt"].endswith("00:16:10.000000Z")


def test_a_start_is_never_before_its_assignment() -> None:
    desk = Desk(QUEUE, assigned(epoch=2, assigned_at=990.0))
    old = LeaseName("a", 1, 2)
    desk.connect(1, 1, old)
    desk.says(1, Failure(old, Reason.HANDLER_ERROR, "x", since_start=9999.0))
    assert desk.write().status["attempts"][0]["startedAt"].endswith("00:16:30.000000Z")


def test_a_failure_by_time_is_tried_again() -> None:
    desk = running(TIMED)
    desk.says(1, Failure(A1, Reason.EXECUTION_TIMED_OUT, "too long"))
    assert (desk.phase, desk.write().status["reason"]) == (Phase.PENDING, "ExecutionTimedOut")
    desk.answer(Written(record(12, attempt=1, epoch=EPOCH, failures=1, agent_uid="u1")))
    assert [final.lease for final in desk.sent(Final)] == [A1]
