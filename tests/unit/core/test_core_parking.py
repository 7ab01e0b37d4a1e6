"""What limits hold is parked by tenant, level and profile, however many classes of Tasks there are."""

from dataclasses import replace
from typing import Any

import pytest

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.api import OrderPolicy, Phase
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PoolApplied, QueueApplied, TaskGone, TaskWaiting
from taskdist.core.model import Budget, Queue, Quota, Task, TokenRate

TENANTS, LEVELS, CLASSES = "abc", (0, 1), 40


def queue(**fields: Any) -> Queue:
    return replace(make_queue().build(), aging_step=0.0, **fields)


def waiting(**fields: Any) -> list[Task]:
    """One Task of each class, tenant and level."""
    found = []
    for tenant in TENANTS:
        for level in LEVELS:
            for number in range(CLASSES):
                task = make_task(f"{tenant}{level}{number:03d}").type(f"type{number}").priority(level).build()
                found.append(replace(task, tenant=tenant, **fields))
    return found


def parked(core: Core) -> int:
    """How many pieces stand under limits."""
    wholes = core._parking._wholes.values()
    return sum(len(each.lines) + len(each.groups) + len(each.shares) for each in wholes)


@pytest.mark.parametrize(
    ("rules", "fields", "pieces"),
    [
        pytest.param(queue(quota=Quota(leased=1)), {}, 6, id="quota"),
        pytest.param(queue(quota=Quota(leased=1)), {"slots": 2}, 6, id="quota-of-large-Tasks"),
        pytest.param(queue(quota=Quota(slots=2)), {"slots": 2}, 6, id="quota-of-slots"),
        pytest.param(queue(tenant_quota=Quota(leased=1)), {"slots": 2}, 6, id="tenants-quota-of-large-Tasks"),
        pytest.param(queue(rate=TokenRate(1.0, 1)), {"slots": 2}, 6, id="rate-of-large-Tasks"),
        pytest.param(queue(quota=Quota(leased=1), policy=OrderPolicy.FIFO), {}, 1, id="quota-of-a-fifo-queue"),
        pytest.param(queue(budgets=(Budget("b", 1),)), {"budgets": (("q", "b", 1),)}, 6, id="budget"),
        pytest.param(
            queue(budgets=(Budget("b", rate=TokenRate(1.0, 1)),)), {"budgets": (("q", "b", 1),)}, 6, id="budget-in-time"
        ),
        pytest.param(queue(), {"budgets": (("q", "none", 1),)}, 6, id="budget-that-is-not-there"),
    ],
)
def test_pieces_are_counted_by_tenant_and_level_not_by_class(rules: Queue, fields: dict[str, Any], pieces: int) -> None:
    core = Core()
    for event in (QueueApplied(rules), PoolApplied(make_pool().fixed(1).build())):
        core.handle(event, 0.0)
    core.handle(AgentReady(make_agent("a").slots(99).build()), 0.0)
    for task in waiting(**fields):
        core.handle(TaskWaiting(task), 0.0)
    running = [each.task_uid for each in core.decide(0.0) if isinstance(each, Assign)]
    for now in (1.0, 2.0, 3.0):
        assert parked(core) == pieces
        assert core.audit() == []
        for uid in running:
            core.handle(TaskGone(uid, Phase.SUCCEEDED), now)
        running = [each.task_uid for each in core.decide(now) if isinstance(each, Assign)]


HELD = queue(budgets=(Budget("b", 100),))
SPENT = queue(budgets=(Budget("b", rate=TokenRate(10.0, 100)),))


def budgeted(uid: str, amount: int, **fields: Any) -> Task:
    return replace(make_task(uid).build(), tenant="a", budgets=(("q", "b", amount),), **fields)


def prepared(rules: Queue, *tasks: Task) -> Core:
    """A core with much room, and these Tasks one after the other."""
    core = Core()
    for event in (QueueApplied(rules), PoolApplied(make_pool().fixed(1).build())):
        core.handle(event, 0.0)
    core.handle(AgentReady(make_agent("a").slots(999).build()), 0.0)
    for task in tasks:
        core.handle(TaskWaiting(task), 0.0)
    return core


def starts(core: Core, now: float) -> list[str]:
    found = [each.task_uid for each in core.decide(now) if isinstance(each, Assign)]
    assert core.audit() == []
    return found


@pytest.mark.parametrize("rules", [HELD, SPENT], ids=["held", "in-time"])
def test_what_is_short_for_the_least_holds_all_whatever_the_amounts(rules: Queue) -> None:
    core = prepared(rules, budgeted("x", 95), *(budgeted(f"t{n:02d}", 10 + n, created=1.0 + n) for n in range(50)))
    assert starts(core, 0.0) == ["x"]
    assert parked(core) == 1
    found = core.why("t07", 0.0)
    assert found is not None
    assert found.message.startswith("The Task takes 17 of the budget q/b")


@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        pytest.param(HELD, ["small"], id="held"),
        # What comes with time is kept for the first.
        pytest.param(SPENT, [], id="in-time"),
    ],
)
def test_one_that_comes_and_takes_less_than_all_that_are_held(rules: Queue, expected: list[str]) -> None:
    core = prepared(rules, budgeted("x", 95), budgeted("t", 10, created=1.0), budgeted("u", 11, created=2.0))
    assert starts(core, 0.0) == ["x"]
    core.handle(TaskWaiting(budgeted("small", 5, created=3.0)), 0.0)
    assert starts(core, 0.0) == expected


def test_those_that_take_less_go_on_beside_one_that_takes_more() -> None:
    core = prepared(HELD, budgeted("x", 60), budgeted("y", 40, created=1.0), budgeted("large", 90, created=2.0))
    assert starts(core, 0.0) == ["x", "y"]
    for number in range(5):
        core.handle(TaskWaiting(budgeted(f"t{number}", 20 + number, created=3.0 + number)), 0.0)
    assert starts(core, 0.0) == []
    core.handle(TaskGone("y", Phase.SUCCEEDED), 1.0)
    assert starts(core, 1.0) == ["t0"]
    core.handle(TaskGone("x", Phase.SUCCEEDED), 2.0)
    assert starts(core, 2.0) == ["t1", "t2", "t3"]


def test_the_first_of_many_amounts_goes_when_there_is_enough_for_it() -> None:
    amounts = [50, 20, 70, 30, 60, 40]
    core = prepared(SPENT, budgeted("x", 100), *(budgeted(f"t{n}", a, created=1.0 + n) for n, a in enumerate(amounts)))
    assert starts(core, 0.0) == ["x"]
    now = 0.0
    order: list[tuple[str, float]] = []
    while (wake := core.next_wake()) is not None and len(order) < len(amounts):
        now = max(now, wake)
        order += [(uid, round(now, 6)) for uid in starts(core, now)]
    assert order == [("t0", 5.0), ("t1", 7.0), ("t2", 14.0), ("t3", 17.0), ("t4", 23.0), ("t5", 27.0)]


@pytest.mark.parametrize(
    ("rules", "fields"),
    [
        pytest.param(queue(), {"budgets": (("q", "none", 1),)}, id="groups"),
        pytest.param(queue(tenant_quota=Quota(leased=0), policy=OrderPolicy.FIFO), {"tenant": "a"}, id="lines"),
    ],
)
def test_what_comes_and_goes_under_a_closed_limit_leaves_nothing(rules: Queue, fields: dict[str, Any]) -> None:
    core = Core()
    for event in (QueueApplied(rules), PoolApplied(make_pool().fixed(1).build())):
        core.handle(event, 0.0)
    core.handle(AgentReady(make_agent("a").slots(9).build()), 0.0)
    for number in range(500):
        task = make_task(f"t{number}").type(f"type{number}").build()
        core.handle(TaskWaiting(replace(task, **{"tenant": f"tenant{number}", **fields})), 0.0)
        assert not any(isinstance(each, Assign) for each in core.decide(0.0))
        # The first one stays, so that the limit goes on holding.
        if number:
            core.handle(TaskGone(task.uid), 0.0)
    assert parked(core) <= 65
    assert core.audit() == []
