"""What the checker excuses, and that it excuses nothing beside it."""

from types import SimpleNamespace

import pytest

from faults.checker import Checker
from faults.machines import AgentMachine, Work
from faults.plan import Plan, make_plan
from faults.violation import Violation
from faults.world import World
from taskdist.api import Dispatch, Reason
from taskdist.protocol.messages import Grant, LeaseName, Ping
from taskdist.protocol.observations import WriteStatus

FORMER, PRESENT = 1, 2
LEASE = LeaseName("t0", 1, FORMER)


def unseen(dispatch: Dispatch = Dispatch.LAZY) -> tuple[Checker, Work]:
    """A former leader sent the Task unrecorded, its pod went out of sight, then another began to lead."""
    world = World(0, Plan(dispatch=dispatch))
    machine = AgentMachine(world, "pod1")
    work = Work(machine, Grant(LEASE, "ns", "task-0", "work", 1, 0.0, 6.0, 20.0), 1, 10.0, stubborn=False)
    check = world.check
    check.works["t0"] = [work]
    machine.hidden, machine.hidden_at = True, 2.0
    check.began_leading |= {FORMER: 0.0, PRESENT: 3.0}
    return check, work


def ends(check: Checker, epoch: int = PRESENT, reason: str = "WaitedTooLong") -> None:
    status = {"phase": "Failed", "reason": reason, "attempt": 0, "epoch": epoch}
    check._ended(WriteStatus(1, "t0", "ns", "task-0", 101, status))


def test_what_runs_without_a_trace_may_be_ended_as_what_waits() -> None:
    check, _ = unseen()
    ends(check)


def test_not_in_a_queue_that_records_first() -> None:
    check, _ = unseen(Dispatch.STRICT)
    with pytest.raises(Violation, match="cancel"):
        ends(check)


def test_not_what_was_recorded() -> None:
    check, _ = unseen()
    check.recorded.add((*LEASE, "pod1"))
    with pytest.raises(Violation, match="cancel"):
        ends(check)


def test_not_by_the_leader_that_sent_it() -> None:
    check, _ = unseen()
    with pytest.raises(Violation, match="cancel"):
        ends(check, FORMER)


@pytest.mark.parametrize("since", [3.5, float("inf")])
def test_not_while_its_pod_was_in_sight_when_the_leadership_began(since: float) -> None:
    check, work = unseen()
    work.machine.hidden_at = since
    with pytest.raises(Violation, match="cancel"):
        ends(check)


def test_not_once_its_agent_has_spoken_to_this_leader() -> None:
    check, _ = unseen()
    check.heard(PRESENT, "pod1", Ping(0.0))
    with pytest.raises(Violation, match="cancel"):
        ends(check)


def welcomed() -> tuple[Checker, Work]:
    """A leader has welcomed an agent that runs something, and has not heard it yet."""
    world = World(0, Plan(gentle=True))
    work = Work(
        AgentMachine(world, "pod1"),
        Grant(LEASE, "ns", "task-0", "work", 1, 0.0, 6.0, 20.0),
        1,
        10.0,
        stubborn=False,
    )
    work.machine.works[LEASE] = work
    world.check.names.add(LEASE)
    return world.check, work


def lapses(check: Checker, work: Work, reason: Reason = Reason.LEASE_EXPIRED) -> None:
    """The agent gives up, and status tells of it at the end."""
    check.gave_up(work.machine, LEASE, reason)
    check._waste(SimpleNamespace(uid="t0", status={"attempts": [{"attempt": 1, "reason": "LeaseExpired"}]}))


def test_what_lapses_may_be_lost_where_its_leader_stepped_down_before_it_heard_the_agent() -> None:
    check, work = welcomed()
    check.welcomed_in_vain(work.machine)
    lapses(check, work)


def test_not_where_the_leader_had_heard_the_agent() -> None:
    check, work = welcomed()
    with pytest.raises(Violation, match="waste"):
        lapses(check, work)


def test_not_once_a_later_leader_has_heard_it() -> None:
    check, work = welcomed()
    check.welcomed_in_vain(work.machine)
    check.heard(PRESENT, "pod1", Ping(0.0))
    with pytest.raises(Violation, match="waste"):
        lapses(check, work)


def test_not_what_it_did_not_run_then() -> None:
    check, work = welcomed()
    del work.machine.works[LEASE]
    check.welcomed_in_vain(work.machine)
    with pytest.raises(Violation, match="waste"):
        lapses(check, work)


def test_not_another_agent_s() -> None:
    check, work = welcomed()
    check.welcomed_in_vain(AgentMachine(check.world, "pod2"))
    with pytest.raises(Violation, match="waste"):
        lapses(check, work)


def test_not_what_its_agent_gave_up_for_another_reason() -> None:
    check, work = welcomed()
    check.welcomed_in_vain(work.machine)
    with pytest.raises(Violation, match="waste"):
        lapses(check, work, Reason.CANCELLED)


def test_a_leader_that_steps_down_right_after_its_welcome_costs_the_attempt() -> None:
    world = World(713143, make_plan(713143))
    world.run()
    assert world.check.excused == {LeaseName("t0", 1, 1)}


def test_an_assignment_that_lands_twice_takes_one_token() -> None:
    # Lazy: what runs is recorded, the answer is lost, and it is recorded again on the version that the watch brought.
    World(401337, make_plan(401337)).run()
