"""What is left of rates and budgets: told by one core, taken in by another, which then goes on alike."""

from dataclasses import replace

import pytest

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PoolApplied, QueueApplied, TaskLeased, TaskWaiting
from taskdist.core.limits.levels import TENANTS, Level
from taskdist.core.model import Budget, Queue, Task, TokenRate

QUEUE = make_queue().build()
RATED = replace(
    QUEUE,
    rate=TokenRate(0.5, 4),
    tenant_rate=TokenRate(0.25, 3),
    budgets=(Budget("held", 9), Budget("spent", rate=TokenRate(2.0, 20))),
)


def core_with(queue: Queue) -> Core:
    core = Core()
    for event in (
        PoolApplied(make_pool().slots(64).fixed(1).build()),
        QueueApplied(queue),
        AgentReady(make_agent("a").slots(64).build()),
    ):
        core.handle(event, 0.0)
    return core


def task(number: int, tenant: str = "x") -> Task:
    uses = (("q", "held", 2), ("q", "spent", 5))
    return replace(make_task(f"t{number}").created(number / 100).build(), tenant=tenant, budgets=uses)


def assigned(core: Core, now: float) -> list[str]:
    return [each.task_uid for each in core.decide(now) if isinstance(each, Assign)]


def test_levels_are_what_grants_have_left() -> None:
    core = core_with(RATED)
    assert {each.name: each.level for each in core.levels(QUEUE.key, 10.0)} == {
        "rate.queue": 4.0,
        "rate.perTenant": 3.0,
        "budgets/held": 9.0,
        "budgets/spent": 20.0,
    }
    for number in range(2):
        core.handle(TaskWaiting(task(number)), 10.0)
    assert len(assigned(core, 10.0)) == 2
    told = core.levels(QUEUE.key, 11.0)
    assert {each.name: each.level for each in told} == {
        "rate.queue": 2.5,
        "rate.perTenant/x": 1.25,
        "rate.perTenant": 3.0,
        "budgets/held": 5.0,
        "budgets/spent": 12.0,
    }
    assert {each.name: (each.capacity, each.per_second) for each in told}["budgets/spent"] == (20, 2.0)
    assert core.all_levels(11.0) == {QUEUE.key: told}


def test_a_level_is_played_forward_by_what_comes_back() -> None:
    assert Level("rate.queue", 1.0, 4, 0.5, 10.0).expected(12.0) == 2.0
    assert Level("rate.queue", 1.0, 4, 0.5, 10.0).expected(99.0) == 4.0
    assert Level("budgets/held", 1.0, 4, 0.0, 10.0).expected(99.0) == 1.0


@pytest.mark.parametrize("later", [0.0, 1.0, 1.9, 2.0, 3.5, 6.0, 60.0])
def test_another_core_goes_on_from_there(later: float) -> None:
    first, now = core_with(RATED), 100.0
    tasks = [task(number) for number in range(9)]
    for each in tasks:
        first.handle(TaskWaiting(each), now)
    running = assigned(first, now)
    assert 0 < len(running) < len(tasks)
    second = core_with(RATED)
    for each in tasks:
        second.handle(TaskLeased(each, "a") if each.uid in running else TaskWaiting(each), now)
    full = core_with(RATED)
    for each in tasks:
        full.handle(TaskLeased(each, "a") if each.uid in running else TaskWaiting(each), now)
    second.recall_levels(QUEUE.key, first.levels(QUEUE.key, now))
    waiting = next(each.uid for each in tasks if each.uid not in running)
    told, meant = second.why(waiting, now + later), first.why(waiting, now + later)
    assert told is not None
    assert meant is not None
    assert (told.reason, told.message) == (meant.reason, meant.message)
    assert assigned(second, now + later) == assigned(first, now + later)
    # Full buckets would have let more go.
    assert later > 1.0 or assigned(full, now + later)


def test_only_so_many_tenants_are_told_of_those_with_least() -> None:
    core = core_with(replace(QUEUE, tenant_rate=TokenRate(0.001, 3)))
    for number in range(40):
        for each in range(2 if number % 2 else 1):
            named = replace(make_task(f"t{number}-{each}").build(), tenant=f"n{number:02}")
            core.handle(TaskWaiting(named), 0.0)
    core.decide(0.0)
    told = core.levels(QUEUE.key, 0.0)
    assert len(told) == TENANTS
    assert {each.level for each in told} == {1.0}
    # Of the others it is not said that they have all.
    assert "rate.perTenant" not in {each.name for each in told}


def test_what_the_queue_has_no_more_is_not_taken_in() -> None:
    core = core_with(QUEUE)
    core.handle(TaskWaiting(task(1)), 0.0)
    names = ("rate.queue", "rate.perTenant/x", "rate.perTenant/gone", "budgets/spent", "budgets/none", "odd")
    core.recall_levels(QUEUE.key, [Level(name, 0.0, 1, 1.0, 0.0) for name in names])
    core.recall_levels(("ns", "none"), [Level("rate.queue", 0.0, 1, 1.0, 0.0)])
    assert core.levels(QUEUE.key, 0.0) == ()
    assert core.audit() == []
