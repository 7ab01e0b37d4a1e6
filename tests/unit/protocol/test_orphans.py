"""Leases of Tasks that a leader does not know: each agent that speaks of one has it read, and is answered."""

from typing import Any

import pytest

from taskdist.protocol.messages import Cancel, Final, HeldLease, LeaseName, Result, Stopped, Verdict
from taskdist.protocol.observations import Found, Gone, ReadFailed, ReadTask
from unit.protocol.desk import EPOCH, QUEUE, Desk, assigned

FIRST, SECOND = LeaseName("a", 1, EPOCH - 1), LeaseName("a", 2, EPOCH - 1)


def reads(desk: Desk) -> list[ReadTask]:
    return [action for action in desk.out if isinstance(action, ReadTask)]


def two_that_hold_it(names: tuple[str, str] = ("task-a", "task-a")) -> tuple[Desk, list[ReadTask]]:
    """Two agents announce attempts of one Task that is unknown here; each says what its name is."""
    desk = Desk(QUEUE)
    asked = []
    for session, (lease, name) in enumerate(zip((FIRST, SECOND), names, strict=True), start=1):
        desk.connect(session, session, lease, held=(HeldLease(lease, "ns", name, 15.0, 120.0),))
        asked += reads(desk)
    return desk, asked


@pytest.mark.parametrize("turned", [False, True], ids=["in-order", "turned"])
def test_each_agent_that_holds_an_unknown_task_is_told_to_stop(turned: bool) -> None:
    desk, asked = two_that_hold_it()
    told = []
    for read in asked[:: -1 if turned else 1]:
        desk.do("read_done", read.token, Gone())
        told += [cancel.lease for cancel in desk.sent(Cancel)]
    assert sorted(told) == [FIRST, SECOND]


def test_each_result_of_an_unknown_task_is_answered() -> None:
    desk, asked = two_that_hold_it()
    desk.says(1, Result(FIRST, b"{}"))
    desk.says(2, Result(SECOND, b"{}"))
    finals: list[Any] = []
    for read in asked:
        desk.do("read_done", read.token, Gone())
        finals += desk.sent(Final)
    assert [(final.lease, final.verdict) for final in finals] == [(FIRST, Verdict.GONE), (SECOND, Verdict.GONE)]


def test_what_one_agent_says_of_a_task_s_name_is_not_asked_for_another() -> None:
    desk, (lie, truth) = two_that_hold_it(("no-such", "task-a"))
    assert (lie.name, truth.name) == ("no-such", "task-a")
    desk.do("read_done", lie.token, Gone())
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [FIRST]
    desk.do("read_done", truth.token, Found(assigned(epoch=EPOCH - 1, attempt=2, pod="u2")))
    assert desk.sent(Cancel) == []
    desk.says(2, Result(SECOND, b"{}"))
    assert desk.phase == "Succeeded"


def test_a_read_that_failed_is_asked_again_for_each() -> None:
    desk, asked = two_that_hold_it()
    for read in asked:
        desk.do("read_done", read.token, ReadFailed())
    desk.at(1001.0)
    again = reads(desk)
    assert len(again) == 2
    for read in again:
        desk.do("read_done", read.token, Gone())
        assert len(desk.sent(Cancel)) == 1
    desk.says(1, Stopped(FIRST))
    desk.says(2, Stopped(SECOND))
    assert desk.at(1010.0) == []


def failing_reads(desk: Desk, asked: list[ReadTask], until: float) -> list[float]:
    """Let each read fail until then; return when they were asked."""
    times = []
    while asked:
        for read in asked:
            times.append(desk.t - 1000.0)
            desk.do("read_done", read.token, ReadFailed())
        asked = []
        while not asked and (wake := desk.leader.next_wake()) is not None and wake <= until:
            desk.at(max(wake, desk.t))
            asked = reads(desk)
    return times


def test_what_cannot_be_read_is_asked_for_ever_more_rarely() -> None:
    desk = Desk(QUEUE)
    desk.connect(1, 1, FIRST)
    times = failing_reads(desk, reads(desk), 1130.0)
    assert times == [0.0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, 91.5, 121.5]


def test_what_cannot_be_read_is_not_asked_for_an_agent_that_left_and_is_once_it_is_back() -> None:
    desk = Desk(QUEUE)
    desk.connect(1, 1, FIRST)
    asked = reads(desk)
    desk.do("disconnected", 1)
    assert failing_reads(desk, asked, 1100.0) == [0.0]
    desk.connect(2, 1, FIRST)
    (read,) = reads(desk)
    desk.do("read_done", read.token, Gone())
    assert [cancel.lease for cancel in desk.sent(Cancel)] == [FIRST]
