"""The agent's end: what starts, what is refused, when work is cancelled and killed, what is kept."""

from dataclasses import replace

import pytest

from taskdist.api import Reason
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.agent.work import AgentAction, CancelWork, Disconnect, Exit, KillWork, SendUp, StartWork
from taskdist.protocol.messages import (
    Cancel,
    Drain,
    Draining,
    Failure,
    Final,
    FromAgent,
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
from taskdist.protocol.settings import AgentSettings, Capabilities

A = LeaseName("a", 1, 5)
B = LeaseName("b", 1, 5)
LEASE = 15.0


def grant(name: LeaseName = A, ping: float = 100.0, slots: int = 1) -> Grant:
    return Grant(name, "ns", name.task_uid, "work", slots, ping, LEASE, 120.0)


def agent(slots: int = 2, at: float = 100.0) -> AgentEnd:
    """An agent that is connected and welcomed by epoch 5 at this time."""
    end = AgentEnd("i1", Capabilities(slots=slots), AgentSettings(silence_seconds=1e6))
    end.connected(at)
    end.received(Welcome(5, slots), at)
    return end


def said(actions: list[AgentAction]) -> list[FromAgent]:
    return [a.message for a in actions if isinstance(a, SendUp) and not isinstance(a.message, Ping)]


def kinds(actions: list[AgentAction]) -> list[type]:
    return [type(a) for a in actions if not isinstance(a, SendUp)]


def test_nothing_is_said_between_hello_and_welcome() -> None:
    end = AgentEnd("i1", Capabilities(slots=2))
    first = end.connected(1.0)
    assert [type(m) for m in said(first)] == [Hello]
    assert end.tick(2.0) == []
    answer = end.received(Welcome(5, 2), 2.5)
    assert isinstance(answer[0], SendUp)
    assert answer[0].message == Ping(2.5)


@pytest.mark.parametrize(
    ("offers", "asks", "refused"),
    [
        pytest.param({"gpu": 1}, {"gpu": 1}, "needs 1 of gpu, 0 of 1 are free", id="taken"),
        pytest.param({"gpu": 2}, {"gpu": 1}, "", id="room for both"),
        pytest.param({"gpu": 3}, {"gpu": 3}, "needs 3 of gpu, 2 of 3 are free", id="too much beside the first"),
        pytest.param({"gpu": 1}, {"disk": 1}, "needs 1 of disk, 0 of 0 are free", id="one it does not offer"),
        pytest.param({"gpu": 1}, {}, "", id="none"),
        pytest.param({}, {"gpu": 9}, "", id="what it offers is its pool's word, and not known here"),
    ],
)
def test_named_resources_are_counted_as_slots_are(offers: dict[str, int], asks: dict[str, int], refused: str) -> None:
    end = AgentEnd("i1", Capabilities(slots=2, resources=tuple(offers.items())), AgentSettings())
    end.connected(100.0)
    end.received(Welcome(5, 2), 100.0)
    end.received(replace(grant(), resources=(("gpu", 1),) if offers else ()), 100.1)
    assert end.leases == (A,)
    answer = end.received(replace(grant(B), resources=tuple(asks.items())), 100.2)
    assert said(answer) == ([Stopped(B, refused, ran=False)] if refused else [])
    end.started(A, 100.3)
    end.finished(A, b"{}", 100.4)
    if refused:
        answer = end.received(replace(grant(B), resources=tuple(asks.items())), 100.5)
        assert kinds(answer) == ([StartWork] if "disk" not in asks else [])


def test_room_is_counted_by_what_the_agent_offers_and_not_by_an_old_welcome() -> None:
    """Its pool was not known when it was welcomed, or has been changed since: the operator counts by the pool."""
    end = AgentEnd("i1", Capabilities(slots=2), AgentSettings(silence_seconds=1e6))
    end.connected(100.0)
    end.received(Welcome(5, 0), 100.0)
    assert kinds(end.received(grant(), 100.1)) == [StartWork]
    assert kinds(end.received(grant(B), 100.1)) == [StartWork]


def test_a_grant_starts_work_and_its_start_and_result_are_told() -> None:
    end = agent()
    assert kinds(end.received(grant(), 100.1)) == [StartWork]
    assert said(end.started(A, 100.2)) == [Started(A)]
    assert said(end.progress(A, 7.0, "half", 100.3)) == [Progress(A, 1.0, "half")]
    assert said(end.finished(A, b'{"x":1}', 100.7)) == [Result(A, b'{"x":1}', since_start=0.5)]
    assert end.kept == (A,)
    assert said(end.received(Final(A, Verdict.ACCEPTED), 100.8)) == []
    assert end.leases == ()


@pytest.mark.parametrize(
    ("given", "at", "word"),
    [
        pytest.param(grant(ping=80.0), 100.0, "too late", id="arrives dead"),
        pytest.param(grant(LeaseName("a", 1, 4)), 100.0, "epoch", id="from the past"),
        pytest.param(grant(slots=3), 100.0, "slots", id="does not fit"),
    ],
)
def test_a_grant_is_refused(given: Grant, at: float, word: str) -> None:
    actions = agent().received(given, at)
    assert kinds(actions) == []
    (stopped,) = said(actions)
    assert isinstance(stopped, Stopped)
    assert not stopped.ran
    assert word in stopped.message


def test_the_same_grant_again_changes_nothing() -> None:
    end = agent()
    end.received(grant(), 100.0)
    assert kinds(end.received(grant(ping=101.0), 101.0)) == []


def test_a_newer_attempt_kills_the_older_and_is_refused_for_now() -> None:
    end = agent()
    end.received(grant(), 100.0)
    actions = end.received(grant(LeaseName("a", 2, 5)), 100.5)
    assert kinds(actions) == [KillWork]
    assert [type(m) for m in said(actions)] == [Stopped]


def test_work_is_cancelled_before_the_end_and_killed_by_it() -> None:
    end = agent()
    end.received(grant(), 100.0)
    assert kinds(end.tick(111.9)) == []
    assert kinds(end.tick(112.0)) == [CancelWork]
    assert kinds(end.tick(114.4)) == []
    assert kinds(end.tick(114.5)) == [KillWork]
    assert kinds(end.tick(115.5)) == [KillWork]  # again, until it is gone
    assert [type(m) for m in said(end.stopped(A, 115.6))] == [Stopped]


def test_a_tick_after_a_long_sleep_kills_at_once() -> None:
    end = agent()
    end.received(grant(), 100.0)
    assert kinds(end.tick(10_000.0)) == [KillWork]


def test_every_wake_is_asked_for() -> None:
    end = agent()
    end.disconnected(100.0)
    end.received(grant(), 100.0)
    assert end.next_wake() == 112.0


@pytest.mark.parametrize(
    ("renewal", "cancelled_at"),
    [
        pytest.param(Renew(5, 104.0, (A,)), 116.0, id="counts from the echoed ping"),
        pytest.param(Renew(5, 104.0, (B,)), 112.0, id="names another lease"),
        pytest.param(Renew(4, 104.0, (A,)), 112.0, id="from the past"),
        pytest.param(Renew(5, 99.0, (A,)), 112.0, id="never shortens"),
        pytest.param(Hold(5), 217.0, id="hold: from the last renewal"),
        pytest.param(Hold(4), 112.0, id="hold from the past"),
    ],
)
def test_renewals_and_holds(renewal: Renew | Hold, cancelled_at: float) -> None:
    end = agent()
    end.received(grant(), 100.0)
    end.received(renewal, 105.0)
    assert kinds(end.tick(cancelled_at - 0.1)) == []
    assert kinds(end.tick(cancelled_at)) == [CancelWork]


def test_a_hold_ends_with_the_next_welcome() -> None:
    end = agent()
    end.received(grant(), 100.0)
    end.received(Hold(5), 101.0)
    end.disconnected(102.0)
    end.connected(110.0)
    end.received(Welcome(6, 2), 110.1)
    assert kinds(end.tick(121.9)) == []
    assert kinds(end.tick(122.0)) == [CancelWork]  # 110 + 15 - 3


def test_a_leader_of_the_past_is_not_welcome() -> None:
    end = agent()
    end.disconnected(101.0)
    end.connected(102.0)
    assert kinds(end.received(Welcome(4, 2), 102.1)) == [Disconnect]


def test_hello_lists_exactly_what_is_held_and_outcomes_are_said_again() -> None:
    end = agent()
    end.received(grant(), 100.0)
    end.received(grant(B), 100.0)
    end.disconnected(101.0)
    assert said(end.finished(A, b"{}", 101.5)) == []
    (hello,) = said(end.connected(102.0))
    assert isinstance(hello, Hello)
    assert hello.leases == (A, B)
    assert [held.lease_seconds for held in hello.held] == [LEASE, LEASE]
    assert said(end.received(Welcome(5, 2), 102.1)) == [Result(A, b"{}")]


def test_a_stop_is_listed_until_a_later_ping_was_answered() -> None:
    end = agent()
    end.received(grant(), 100.0)
    end.stopped(A, 101.0)
    end.received(Renew(5, 101.0, ()), 101.1)
    assert list(end.leases) == [A]  # that ping may have been sent before
    end.received(Renew(5, 102.0, ()), 102.1)
    assert list(end.leases) == []


def test_an_outcome_in_hand_beats_a_cancel() -> None:
    end = agent()
    end.received(grant(), 100.0)
    end.finished(A, b"{}", 101.0)
    assert list(end.received(Cancel(A, Reason.CANCELLED), 101.1)) == []
    assert end.kept == (A,)


def test_a_cancel_is_answered_and_escalates() -> None:
    end = agent()
    end.received(grant(), 100.0)
    assert kinds(end.received(Cancel(A, Reason.CANCELLED, "stop"), 101.0)) == [CancelWork]
    end.received(Renew(5, 110.0, (A,)), 110.0)
    assert kinds(end.tick(111.0)) == [KillWork]
    assert said(end.received(Cancel(B, Reason.CANCELLED), 111.0)) == [Stopped(B, "not held")]


def test_a_failure_while_stopping_is_a_stop() -> None:
    end = agent()
    end.received(grant(), 100.0)
    end.received(Cancel(A, Reason.CANCELLED, "cancelled"), 101.0)
    assert [type(m) for m in said(end.failed(A, Reason.HANDLER_ERROR, "x", True, 101.1))] == [Stopped]


def test_a_failure_is_told_and_kept() -> None:
    end = agent()
    end.received(grant(), 100.0)
    failure = Failure(A, Reason.HANDLER_ERROR, "x", False)
    assert said(end.failed(A, Reason.HANDLER_ERROR, "x", False, 101.0)) == [failure]
    assert end.kept == (A,)


USED = (("q/tokens", 7),)


def test_what_was_used_of_budgets_is_told_with_the_result_and_again() -> None:
    end = agent()
    end.received(grant(), 100.0)
    assert said(end.finished(A, b"{}", 101.0, USED)) == [Result(A, b"{}", used=USED)]
    end.disconnected(102.0)
    end.connected(103.0)
    assert Result(A, b"{}", used=USED) in said(end.received(Welcome(5, 2), 103.0))


def test_what_was_used_of_budgets_is_told_with_a_failure() -> None:
    end = agent()
    end.received(grant(), 100.0)
    failure = Failure(A, Reason.HANDLER_ERROR, "x", used=USED)
    assert said(end.failed(A, Reason.HANDLER_ERROR, "x", True, 101.0, USED)) == [failure]


@pytest.mark.parametrize("returned", [True, False], ids=["returned", "failed"])
def test_what_was_used_of_budgets_is_told_of_an_attempt_that_ran_too_long(returned: bool) -> None:
    end = agent()
    end.received(replace(grant(), execution_seconds=5.0), 100.0)
    end.started(A, 100.0)
    end.tick(105.0)
    ended = (
        end.finished(A, b"{}", 105.1, USED) if returned else end.failed(A, Reason.HANDLER_ERROR, "", True, 105.1, USED)
    )
    (failure,) = said(ended)
    assert isinstance(failure, Failure)
    assert (failure.reason, failure.used) == (Reason.EXECUTION_TIMED_OUT, USED)


def test_stopping_gives_back_what_does_not_finish_and_then_exits() -> None:
    end = agent()
    end.received(grant(ping=100.0), 100.0)
    assert said(end.stop_requested(101.0, 8.0)) == [Draining()]
    assert not end.ready
    assert [type(m) for m in said(end.received(grant(B), 101.1))] == [Stopped]
    assert kinds(end.tick(104.0)) == [CancelWork]
    assert kinds(end.tick(109.0)) == [KillWork]
    end.stopped(A, 109.1)
    assert kinds(end.received(Renew(5, 109.5, ()), 109.6)) == [Exit]


def test_an_idle_agent_exits_at_once() -> None:
    assert kinds(agent().stop_requested(101.0, 8.0)) == [Exit]


def test_silence_ends_the_session() -> None:
    end = AgentEnd("i1", Capabilities())
    end.connected(1.0)
    assert kinds(end.tick(7.0)) == [Disconnect]


def test_a_drain_makes_it_unready_until_it_is_undone() -> None:
    end = agent()
    end.received(Drain(), 101.0)
    assert not end.ready
    end.received(Drain(undo=True), 102.0)
    assert end.ready


def test_kept_results_are_bounded() -> None:
    end = AgentEnd("i1", Capabilities(slots=9), AgentSettings(max_kept=2, silence_seconds=1e6))
    end.connected(100.0)
    end.received(Welcome(5, 9), 100.0)
    for uid in "abc":
        end.received(grant(LeaseName(uid, 1, 5)), 100.0)
        end.finished(LeaseName(uid, 1, 5), b"{}", 101.0)
    assert [name.task_uid for name in end.kept] == ["b", "c"]
