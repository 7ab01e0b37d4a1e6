"""What is decided of a waiting Task stands, once, until it is recorded; what others lend it is never out of date."""

from dataclasses import replace
from typing import Any

import pytest

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.api import OnDependencyFailure, OnOverflow, OrderPolicy, Phase, Reason
from taskdist.core import Core
from taskdist.core.decisions import Assign, Fail, Spill
from taskdist.core.events import (
    AgentReady,
    Event,
    PoolApplied,
    QueueApplied,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import Overflow, Parent, Queue, Task, Timeouts

FULL = Overflow(1, 1)


def task(uid: str, **fields: Any) -> Task:
    return replace(make_task(uid).build(), **{"tenant": "a", **fields})


def queue(name: str = "q", **fields: Any) -> Queue:
    return replace(make_queue(name).build(), **fields)


def child(uid: str, *parents: str, **fields: Any) -> Task:
    return task(uid, parents=tuple(Parent(each, each) for each in parents), **fields)


def core_with(*told: Event | Task, now: float = 0.0) -> Core:
    core = Core()
    for event in (QueueApplied(queue()), PoolApplied(make_pool().fixed(9).build())):
        core.handle(event, now)
    core.decide(now)
    tell(core, *told, now=now)
    return core


def tell(core: Core, *told: Event | Task, now: float = 0.0) -> None:
    for event in told:
        core.handle(TaskWaiting(event) if isinstance(event, Task) else event, now)


def about_tasks(core: Core, now: float = 0.0) -> list[Assign | Fail | Spill]:
    found = [each for each in core.decide(now) if isinstance(each, Assign | Fail | Spill)]
    assert core.audit() == []
    return found


def started(core: Core, now: float = 0.0, agents: int = 1) -> list[str]:
    """Give it agents of one slot, one after the other; return who was given to them."""
    found = []
    for _ in range(agents):
        busy = sum(bool(agent.leases) for agent in core._fleet.agents.values())
        core.handle(AgentReady(make_agent(f"a{busy}").build()), now)
        found += [each.task_uid for each in about_tasks(core, now) if isinstance(each, Assign)]
    return found


ANOTHER_ORDER = QueueApplied(queue(aging_step=7.0))


@pytest.mark.parametrize(
    ("told", "at", "reason"),
    [
        pytest.param(
            [QueueApplied(queue(overflow=FULL)), task("b"), task("t", created=1)], 1.0, Reason.QUEUE_FULL, id="full"
        ),
        pytest.param([task("t", waiting_limit=5.0)], 5.0, Reason.WAITED_TOO_LONG, id="timed-out"),
        pytest.param([child("t", "p"), TaskGone("p", Phase.FAILED)], 1.0, Reason.DEPENDENCY_FAILED, id="parent-failed"),
    ],
)
@pytest.mark.parametrize(
    "then",
    [
        pytest.param([], id="nothing"),
        pytest.param([ANOTHER_ORDER], id="other-rules"),
        pytest.param([TaskGone("q", Phase.SUCCEEDED), TaskGone("p2", Phase.FAILED)], id="parents-end"),
        pytest.param([TaskGone("b", None)], id="room"),
    ],
)
def test_a_task_that_is_to_end_is_ended_once_and_not_handed_out(
    told: list[Event | Task], at: float, reason: Reason, then: list[Event]
) -> None:
    core = core_with(*told)
    assert [each.reason for each in about_tasks(core, at) if isinstance(each, Fail)] == [reason]
    tell(core, *then, now=at)
    assert "t" not in started(core, at, 3)
    tell(core, TaskGone("t", Phase.FAILED), now=at)
    assert about_tasks(core, at) == []


def test_a_task_that_was_turned_away_counts_again_if_that_could_not_be_recorded() -> None:
    core = core_with(QueueApplied(queue(overflow=FULL)), task("b"), task("t", created=1))
    about_tasks(core, 1.0)
    tell(core, ANOTHER_ORDER, task("t", created=1), now=2.0)
    assert started(core, 2.0, 2) == ["b", "t"]


def test_one_that_was_turned_away_hears_nothing_of_its_turn() -> None:
    core = core_with(
        QueueApplied(queue(overflow=Overflow(2, 1))), task("b", ordering_key="o"), task("c", ordering_key="o")
    )
    tell(core, task("t", ordering_key="o", created=1), now=1.0)
    assert [each.reason for each in about_tasks(core, 1.0) if isinstance(each, Fail)] == [Reason.QUEUE_FULL]
    tell(core, TaskGone("b", None), TaskGone("c", None), now=1.0)
    assert started(core, 1.0) == []


def test_told_twice_before_it_was_asked_a_task_is_ended_once() -> None:
    bad = replace(child("t"), parents=(Parent("p", "p", Phase.FAILED),))
    core = core_with(bad, replace(bad, priority=3))
    assert [each.task_uid for each in about_tasks(core) if isinstance(each, Fail)] == ["t"]


def test_what_is_to_end_does_not_time_out_too() -> None:
    core = core_with(child("t", "p", waiting_limit=5.0), TaskGone("p", Phase.FAILED))
    assert [each.reason for each in about_tasks(core, 1.0) if isinstance(each, Fail)] == [Reason.DEPENDENCY_FAILED]
    assert core.next_wake() is None
    assert about_tasks(core, 6.0) == []


def test_a_decision_that_was_cut_short_is_dropped_if_the_task_was_told_anew() -> None:
    core = core_with(task("t", waiting_limit=5.0))
    assert core.decide(6.0, 0) == []
    tell(core, task("t", waiting_limit=9.0), now=6.0)
    assert about_tasks(core, 6.0) == []
    assert core.next_wake() == 9.0


def test_spilled_tasks_wait_in_the_other_queue_and_move_once() -> None:
    spills = Overflow(1, 1, OnOverflow.SPILL, "spare")
    core = core_with(QueueApplied(queue(overflow=spills)), QueueApplied(queue("spare")), task("b"), task("t"))
    (found,) = about_tasks(core)
    assert isinstance(found, Spill)
    assert (found.task_uid, found.queue) == ("t", "spare")
    tell(core, ANOTHER_ORDER)
    assert started(core, 0.0, 2) == ["b"]
    tell(core, task("t", queue="spare", spilled=True))
    assert [each.task_uid for each in about_tasks(core) if isinstance(each, Assign)] == ["t"]


# What dependants lend.


@pytest.mark.parametrize(
    "told",
    [
        pytest.param([task("p", priority=1), child("c", "p", priority=4)], id="parent-first"),
        pytest.param([child("c", "p", priority=4), task("p", priority=1)], id="child-first"),
        pytest.param(
            [child("c", "p", priority=4), TaskHeld(task("p", priority=1), Reason.RECOVERING), task("p", priority=1)],
            id="parent-was-held",
        ),
        pytest.param(
            [task("p"), child("c", "p", priority=4), TaskGone("p", Phase.DEAD_LETTERED), task("p", priority=1)],
            id="parent-is-redriven",
        ),
        pytest.param([task("p", priority=1), child("c", "p", priority=4, suspended=True)], id="child-is-suspended"),
        pytest.param(
            [task("p", priority=1), child("c", "p", priority=4), child("c", "p", priority=4, suspended=True)],
            id="child-is-suspended-later",
        ),
        pytest.param(
            [task("p", priority=1), child("m", "p", priority=0), child("c", "m", priority=4)], id="through-another"
        ),
    ],
)
def test_a_child_lifts_its_parent_in_whatever_order_they_come(told: list[Event | Task]) -> None:
    core = core_with(*told, task("other", priority=3))
    assert started(core)[0] == "p"


@pytest.mark.parametrize(
    "then",
    [
        pytest.param(TaskGone("c", None), id="deleted"),
        pytest.param(TaskGone("c", Phase.CANCELLED), id="cancelled"),
        pytest.param(TaskGone("c", Phase.DEAD_LETTERED), id="a-dead-letter"),
        pytest.param(TaskHeld(child("c", "p", priority=4), Reason.RECOVERING), id="held"),
        pytest.param(TaskLeased(child("c", "p", priority=4), "far"), id="found-with-an-agent"),
    ],
)
def test_what_no_longer_waits_lifts_no_longer(then: Event) -> None:
    core = core_with(task("p", priority=1), child("c", "p", priority=4), task("other", priority=3), then)
    assert started(core)[0] == "other"


def test_other_rules_of_the_childs_queue_change_what_it_lends() -> None:
    core = core_with(QueueApplied(queue("fifo")), task("p", priority=1), task("other", priority=3))
    tell(core, child("c", "p", priority=0, queue="fifo"))
    tell(core, QueueApplied(queue("fifo", policy=OrderPolicy.FIFO, level=4)))
    assert started(core)[0] == "p"


def test_so_they_do_where_its_end_was_decided_and_is_not_recorded_yet() -> None:
    fifo = queue("fifo", policy=OrderPolicy.FIFO, level=0)
    core = core_with(QueueApplied(fifo), task("p", priority=1), task("other", priority=3))
    tell(core, child("c", "p", priority=0, queue="fifo", waiting_limit=5.0))
    assert [each.task_uid for each in about_tasks(core, 5.0)] == ["c"]
    tell(core, QueueApplied(replace(fifo, level=4)), now=5.0)
    assert started(core, 5.0)[0] == "p"


def test_critical_paths_count_as_soon_as_the_queue_asks_for_it() -> None:
    core = core_with(task("a"), task("p", created=1), child("c", "p"))
    tell(core, QueueApplied(queue(critical_path_first=True)))
    assert started(core) == ["p"]


def test_other_rules_hold_for_those_that_come_back_too() -> None:
    core = core_with(task("old", deadline=None), AgentReady(make_agent("a").build()))
    assert [each.task_uid for each in about_tasks(core) if isinstance(each, Assign)] == ["old"]
    tell(core, QueueApplied(queue(max_queue_seconds=10.0)), task("new", created=1), task("old"))
    assert [each.task_uid for each in about_tasks(core) if isinstance(each, Assign)] == ["old"]


@pytest.mark.parametrize("policy", list(OnDependencyFailure))
def test_a_suspended_child_of_a_failed_parent_ends_once_it_is_resumed(policy: OnDependencyFailure) -> None:
    waits = child("c", "p", on_parent_failure=policy)
    core = core_with(task("p"), replace(waits, suspended=True), TaskGone("p", Phase.FAILED))
    assert about_tasks(core) == []
    tell(core, waits)
    ends = [(each.reason, each.phase) for each in about_tasks(core) if isinstance(each, Fail)]
    assert (
        ends
        == {
            OnDependencyFailure.FAIL: [(Reason.DEPENDENCY_FAILED, Phase.FAILED)],
            OnDependencyFailure.SKIP: [(Reason.SKIPPED, Phase.CANCELLED)],
            OnDependencyFailure.RUN: [],
        }[policy]
    )
    assert started(core) == (["c"] if policy is OnDependencyFailure.RUN else [])


def test_waiting_times_out_while_suspended() -> None:
    core = core_with(QueueApplied(queue(timeouts=Timeouts(waiting=5.0))), task("t", suspended=True))
    assert core.next_wake() == 5.0
    assert [each.reason for each in about_tasks(core, 5.0) if isinstance(each, Fail)] == [Reason.WAITED_TOO_LONG]
