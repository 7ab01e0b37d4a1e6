"""Leases that a former leader granted: timed by their own rules, and never sent if they came too late."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Delivery, Dispatch, Phase, Reclaim
from taskdist.core.model import Queue
from taskdist.protocol import convert
from taskdist.protocol.messages import Grant, HeldLease, LeaseName
from taskdist.protocol.observations import ObservedTask, RemovePod, Terms, Written
from unit.protocol.desk import EPOCH, QUEUE, Desk, assigned, record

OLD = LeaseName("a", 1, EPOCH - 1)
LONG = Terms(60.0, 600.0, Reclaim.LEASE, Delivery.AT_LEAST_ONCE, True)


def taken_over(queue: Queue, terms: Terms | None = LONG) -> Desk:
    """Take over from a leader that granted Task `a` to u1 by these rules; its queue is by now as given."""
    return Desk(queue, assigned(epoch=EPOCH - 1, terms=terms))


def ended_at(desk: Desk, latest: float = 2000.0) -> tuple[float, Any]:
    """Let time pass until the Task's status is written; return after how many seconds that was, and what."""
    while (wake := desk.leader.next_wake()) is not None and wake <= latest:
        desk.at(max(wake, desk.t))
        if desk.writes:
            return round(desk.t - 1000.0, 1), desk.writes[0].status
    raise AssertionError("nothing was written")


@pytest.mark.parametrize(
    "queue",
    [
        pytest.param(replace(QUEUE, lease_seconds=2.0, hold_seconds=10.0), id="shortened"),
        pytest.param(replace(QUEUE, hold_seconds=9000.0), id="lengthened"),
        pytest.param(replace(QUEUE, reclaim=Reclaim.FAST), id="made fast"),
        pytest.param(replace(QUEUE, reclaim=Reclaim.CONFIRMED), id="made to wait for death"),
        pytest.param(replace(QUEUE, dispatch=Dispatch.LAZY), id="made lazy"),
        pytest.param(replace(QUEUE, delivery=Delivery.AT_MOST_ONCE), id="made at-most-once"),
        pytest.param(Queue("ns", "another"), id="deleted"),
    ],
)
def test_a_former_lease_ends_by_the_rules_it_was_granted_by(queue: Queue) -> None:
    at, status = ended_at(taken_over(queue))
    assert at == 601.6, "holdSeconds of the grant, and the margin"
    # A queue that is stricter by now has its way.
    assert status["phase"] == ("Failed" if queue.delivery is Delivery.AT_MOST_ONCE else "Pending")
    assert status["reason"] == "LeaseExpired"


def test_a_lease_that_was_granted_fast_is_reclaimed_fast() -> None:
    at, _ = ended_at(taken_over(QUEUE, LONG._replace(reclaim=Reclaim.FAST)))
    assert at == 5.0


def test_a_lease_that_waits_for_death_does_so_though_its_queue_does_not_any_more() -> None:
    desk = taken_over(QUEUE, LONG._replace(reclaim=Reclaim.CONFIRMED))
    desk.at(1700.0)
    assert [action.uid for action in desk.out if isinstance(action, RemovePod)] == ["u1"]
    assert desk.writes == []


def test_what_was_granted_at_most_once_is_not_tried_again_though_its_queue_allows_it_now() -> None:
    desk = taken_over(QUEUE, LONG._replace(delivery=Delivery.AT_MOST_ONCE))
    assert ended_at(desk)[1]["phase"] == "Failed"


@pytest.mark.parametrize(
    ("queue", "at"),
    [
        pytest.param(replace(QUEUE, lease_seconds=2.0, hold_seconds=10.0), 121.1, id="no shorter than by default"),
        pytest.param(replace(QUEUE, hold_seconds=500.0), 501.5, id="as long as the queue says now"),
        pytest.param(replace(QUEUE, reclaim=Reclaim.FAST), 121.1, id="not fast"),
        pytest.param(Queue("ns", "another"), 121.1, id="without its queue"),
    ],
)
def test_a_lease_of_another_release_is_timed_with_care(queue: Queue, at: float) -> None:
    assert ended_at(taken_over(queue, None))[0] == at


def test_the_rules_are_written_with_the_assignment_and_gone_with_it() -> None:
    queue = replace(QUEUE, lease_seconds=7.0, hold_seconds=70.0, reclaim=Reclaim.CONFIRMED)
    desk = Desk(queue, record())
    desk.connect(1)
    told = desk.write().status
    assert convert.terms(told) == Terms(7.0, 70.0, Reclaim.CONFIRMED, Delivery.AT_LEAST_ONCE, True)
    desk.answer(Written(assigned(), b"{}"))
    desk.do("pod_gone", "u1")
    assert desk.write().status["lease"] is None


@pytest.mark.parametrize(
    "odd",
    [
        {},
        {"reclaim": "Never"},
        {"delivery": "Twice"},
        {"dispatch": "Someday"},
        {"leaseSeconds": None},
        {"holdSeconds": None},
    ],
)
def test_rules_that_are_not_all_understood_are_none(odd: dict[str, Any]) -> None:
    whole = {"leaseSeconds": 7, "holdSeconds": 70, "reclaim": "Fast", "delivery": "AtMostOnce", "dispatch": "Lazy"}
    found = convert.terms({"lease": whole | odd})
    assert found == (None if odd else Terms(7.0, 70.0, Reclaim.FAST, Delivery.AT_MOST_ONCE, False))
    assert convert.terms({}) is None


# --- an assignment that lands after the takeover ---


def late(terms: Terms | None, **more: Any) -> ObservedTask:
    return assigned(20, epoch=EPOCH - 1, terms=terms, **more)


@pytest.mark.parametrize("delivery", list(Delivery))
@pytest.mark.parametrize("connected", [True, False], ids=["its agent is there", "its agent is away"])
def test_what_a_former_leader_could_not_send_any_more_is_given_back(delivery: Delivery, connected: bool) -> None:
    desk = Desk(replace(QUEUE, delivery=delivery, paused=True), record())
    if connected:
        desk.connect(1)
    desk.do("task_observed", late(LONG._replace(delivery=delivery)))
    status = desk.write().status
    assert (status["phase"], status["reason"], status["failures"]) == ("Pending", "GivenBack", 0)
    assert desk.sent(Grant) == []


@pytest.mark.parametrize(
    ("terms", "held"),
    [
        pytest.param(LONG._replace(recorded_first=False), False, id="sent before it was recorded"),
        pytest.param(None, False, id="of another release"),
        pytest.param(LONG, True, id="its agent holds it all the same"),
    ],
)
def test_what_may_have_been_sent_is_waited_for(terms: Terms | None, held: bool) -> None:
    desk = Desk(replace(QUEUE, paused=True), record())
    if held:
        desk.connect(1, 1, OLD, held=(HeldLease(OLD, "ns", "task-a", 60.0, 600.0),))
    desk.do("task_observed", late(terms))
    assert desk.writes == []
    assert desk.leader.live().__next__()[0].phase is Phase.ASSIGNED


@pytest.mark.parametrize("read_before", [False, True])
def test_what_could_not_be_read_at_the_takeover_may_have_been_sent(read_before: bool) -> None:
    desk = Desk(QUEUE, *([record()] if read_before else []))
    desk.do("task_set_aside", "a")
    desk.t += 10.0
    desk.do("task_observed", late(LONG))
    assert desk.writes == [], "its agent may run it for as long as it may hold it"
    desk.at(2000.0)
    assert desk.write().status["phase"] == "Pending"


def test_a_task_that_was_read_in_between_is_known() -> None:
    desk = Desk(replace(QUEUE, paused=True))
    desk.do("task_set_aside", "a")
    desk.do("task_observed", record())
    desk.do("task_observed", late(LONG))
    assert desk.write().status["reason"] == "GivenBack"


def test_a_deleted_one_that_could_not_be_read_at_the_takeover_is_waited_for_too() -> None:
    desk = Desk(QUEUE)
    desk.do("task_set_aside", "a")
    desk.do("task_observed", late(LONG, deleting=True))
    assert desk.leader.stats().leases == {("ns", "q"): 1}
    desk.do("task_deleted", "a")
    desk.at(2000.0)
    assert desk.leader.stats().leases == {}
