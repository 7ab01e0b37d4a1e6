"""What a Task's status tells of its cost: once for each attempt, with writes that happen anyway."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Dispatch, Phase, Reason
from taskdist.core.cost import Spent
from taskdist.core.model import Pool, Queue
from taskdist.protocol.messages import Failure, HeldLease, LeaseName, Result, Started, Stopped
from taskdist.protocol.observations import Conflict, Found, ObservedPod, ReadTask, Unknown, WriteRefused, Written
from unit.protocol.desk import A1, EPOCH, POOL, QUEUE, Desk, assigned, record

# A slot costs 1 a second, and takes 2 Wh.
PRICED = replace(POOL, cost_per_hour=3600.0, watts_busy=7200.0)
LAZY = replace(QUEUE, dispatch=Dispatch.LAZY)
FORMER = LeaseName("a", 1, EPOCH - 1)


def running(pool: Pool = PRICED, spent: Spent | None = None, queue: Queue = QUEUE) -> Desk:
    """Task `a` runs on agent u1 since 1000; `spent`: what former attempts cost."""
    before: dict[str, Any] = {} if spent is None else {"spent": spent}
    desk = Desk(queue, pool=pool)
    desk.connect(1)
    desk.do("task_observed", record(**before))
    if queue is LAZY:
        (read,) = [action for action in desk.out if isinstance(action, ReadTask)]
        desk.do("read_done", read.token, Found(record(**before)))
    else:
        assert desk.costs() == (None, None), "none with the assignment"
        desk.answer(Written(assigned(assigned_at=1000.0, **before), b"{}"))
    desk.says(1, Started(A1))
    return desk


@pytest.mark.parametrize(
    ("pool", "spent", "expected"),
    [
        pytest.param(PRICED, None, (5.0, 10.0), id="its-only-attempt"),
        pytest.param(PRICED, Spent(2.0, 3.0), (7.0, 13.0), id="after-others"),
        pytest.param(replace(PRICED, slots=4), None, (5.0, 10.0), id="an-agent-of-fewer-slots-than-its-pool-gives"),
        pytest.param(replace(PRICED, watts_busy=0.0), None, (5.0, None), id="no-watts-are-said"),
        pytest.param(replace(PRICED, cost_per_hour=0.0), Spent(2.0), (2.0, 10.0), id="no-price-is-said"),
        pytest.param(POOL, None, (None, None), id="nothing-is-said"),
    ],
)
@pytest.mark.parametrize("queue", [QUEUE, LAZY], ids=["strict", "lazy"])
def test_the_end_tells_what_all_attempts_cost(
    queue: Queue, pool: Pool, spent: Spent | None, expected: tuple[float | None, float | None]
) -> None:
    desk = running(pool, spent, queue)
    desk.t = 1005.0
    writes = len(desk.writes)
    desk.says(1, Result(A1, b"{}"))
    assert (desk.phase, desk.costs()) == ("Succeeded", expected)
    assert len(desk.writes) == writes + 1


@pytest.mark.parametrize("queue", [QUEUE, LAZY], ids=["strict", "lazy"])
@pytest.mark.parametrize(
    ("message", "phase"),
    [
        pytest.param(Failure(A1, Reason.HANDLER_ERROR, "boom"), "Pending", id="it-is-tried-again"),
        pytest.param(Failure(A1, Reason.HANDLER_ERROR, "boom", retryable=False), "Failed", id="it-fails"),
        pytest.param(Stopped(A1, "stopped"), "Pending", id="it-is-given-back"),
    ],
)
def test_attempts_that_fail_cost_as_well(queue: Queue, message: Any, phase: str) -> None:
    desk = running(spent=Spent(1.0, 1.0), queue=queue)
    desk.t = 1003.0
    desk.says(1, message)
    assert (desk.phase, desk.costs()) == (phase, (4.0, 7.0))


def test_a_cancelled_task_has_cost_what_ran() -> None:
    desk = running()
    desk.t = 1001.0
    desk.do("task_observed", assigned(12, assigned_at=1000.0, cancel=True))
    desk.t = 1002.0
    desk.says(1, Stopped(A1))
    assert (desk.phase, desk.costs()) == ("Cancelled", (2.0, 4.0))


def test_what_never_ran_costs_nothing() -> None:
    desk = Desk(QUEUE, record(cancel=True), pool=PRICED)
    assert (desk.phase, desk.costs()) == ("Cancelled", (None, None))


def test_an_end_that_is_written_again_costs_the_same() -> None:
    """The first write may have landed: then status has it already."""
    desk = running()
    desk.t = 1005.0
    desk.says(1, Failure(A1, Reason.HANDLER_ERROR, "boom"))
    landed = record(12, attempt=1, epoch=EPOCH, failures=1, agent_uid="u1", spent=Spent(5.0, 10.0))
    desk.answer(Unknown(landed))
    desk.at(1010.0)
    assert (desk.phase, desk.costs()) == ("Pending", (5.0, 10.0))


def test_a_late_result_of_an_attempt_that_was_given_up_costs_nothing_more() -> None:
    desk = running()
    desk.t = 1005.0
    desk.do("disconnected", 1)
    desk.at(1030.0)
    assert desk.phase == "Pending"
    held = desk.costs()
    over = record(12, attempt=1, epoch=EPOCH, agent_uid="u1", spent=Spent(*held), suspended=True)
    desk.answer(Written(over))
    desk.connect(2, 1, A1)
    desk.says(2, Result(A1, b"{}", 40.0))
    assert (desk.phase, desk.costs()) == ("Succeeded", (None, None)), "what is left out stays"


def test_a_refused_result_is_paid_for_once() -> None:
    desk = running()
    desk.t = 1005.0
    desk.says(1, Result(A1, b"{}"))
    desk.t = 1006.0
    desk.answer(WriteRefused("too large", too_large=True))
    assert (desk.phase, desk.costs()) == ("Failed", (6.0, 12.0))


def test_the_price_is_that_of_the_grant_even_if_the_pool_goes() -> None:
    desk = running()
    desk.do("pool_applied", replace(PRICED, cost_per_hour=7200.0))
    desk.do("pool_deleted", ("ns", "p"))
    desk.t = 1005.0
    desk.says(1, Result(A1, b"{}"))
    assert desk.costs() == (5.0, 10.0)


def test_a_new_leader_counts_from_the_assignment_that_status_shows() -> None:
    found = assigned(epoch=EPOCH - 1, assigned_at=990.0, spent=Spent(1.0, 1.0))
    desk = Desk(QUEUE, found, pool=replace(PRICED, slots=4))
    desk.t = 1001.0
    desk.connect(1, 1, FORMER)
    desk.t = 1002.0
    desk.says(1, Result(FORMER, b"{}"))
    assert (desk.phase, desk.costs()) == ("Succeeded", (13.0, 25.0)), "of an agent of one slot"


def test_an_assignment_whose_time_is_not_known_costs_nothing() -> None:
    desk = Desk(QUEUE, assigned(epoch=EPOCH - 1), pool=PRICED)
    desk.connect(1, 1, FORMER)
    desk.says(1, Result(FORMER, b"{}"))
    assert (desk.phase, desk.costs()) == ("Succeeded", (None, None))


def test_what_a_former_leader_did_not_record_counts_from_when_it_is_heard_of() -> None:
    desk = Desk(LAZY, record(), pool=PRICED)
    desk.connect(1, 1, FORMER, held=(HeldLease(FORMER, "ns", "task-a", 15.0, 120.0),))
    desk.t = 1004.0
    desk.says(1, Result(FORMER, b"{}", 9.0))
    (write,) = [write for write in desk.writes if write.status["phase"] == "Assigned"]
    assert not {"cost", "energyWh"} & write.status.keys()
    desk.do("write_done", write.token, Written(assigned(epoch=EPOCH - 1, assigned_at=1000.0)))
    assert (desk.phase, desk.costs()) == ("Succeeded", (4.0, 8.0))


def test_a_former_leader_s_late_word_of_the_same_end_stays() -> None:
    """It lands while this leader records the lease, and knows better how long the attempt ran."""
    desk = Desk(LAZY, record(), pool=PRICED)
    desk.connect(1, 1, FORMER, held=(HeldLease(FORMER, "ns", "task-a", 15.0, 120.0),))
    (recording,) = [write for write in desk.writes if write.status["phase"] == "Assigned"]
    desk.says(1, Failure(FORMER, Reason.HANDLER_ERROR, "it broke", True))
    late = record(12, attempt=1, epoch=EPOCH - 1, failures=1, agent_uid="u1", spent=Spent(9.0, 18.0))
    desk.do("write_done", recording.token, Conflict(late))
    assert (desk.phase, desk.costs()) == ("Pending", (None, None))


def test_a_redrive_leaves_what_was_spent() -> None:
    letter = record(phase=Phase.DEAD_LETTERED, attempt=1, redrive=1, spent=Spent(5.0, 10.0))
    desk = Desk(QUEUE, letter, pool=PRICED)
    assert (desk.phase, desk.costs()) == ("Pending", (None, None))


def test_an_agent_is_of_another_size_when_it_says_so() -> None:
    pool = replace(PRICED, slots=2, minimum=1, maximum=1)
    desk = Desk(QUEUE, pool=pool, pods=0)
    desk.do("pod_observed", ObservedPod("u1", "ns", "p-1", "p", 0.0, ready=True))
    desk.connect(1, slots=2)
    desk.do("task_observed", record())
    desk.answer(Written(assigned(assigned_at=1000.0), b"{}"))
    desk.t = 1010.0
    desk.says(1, Result(A1, b"{}"))
    assert desk.costs() == (5.0, 10.0), "half of it"


def test_an_attempt_whose_end_a_former_leader_has_told_meanwhile_is_not_paid_for_again() -> None:
    desk = Desk(QUEUE, assigned(epoch=EPOCH - 1, assigned_at=990.0), pool=PRICED)
    told = record(12, attempt=1, epoch=EPOCH - 1, agent_uid="u1", failures=1, spent=Spent(5.0, 10.0))
    desk.do("task_observed", told)
    desk.connect(1)
    assert (desk.phase, desk.costs()) == ("Pending", (None, None))
