"""Budgets that Tasks of several queues share: on the core as a whole, named cases."""

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase, Reason
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import (
    AgentReady,
    AttemptFailed,
    AttemptUsed,
    Event,
    PoolApplied,
    QueueApplied,
    QueueDeleted,
    TaskGone,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import EMERGENCY, Budget, Queue, Task, TokenRate

HELD = Budget("slots", 4)
SPENT = Budget("tokens", rate=TokenRate(2.0, 8))


def task(uid: str, amount: int = 1, of: str = "slots", queue: str = "q", **fields: Any) -> Task:
    return replace(make_task(uid).queue(queue).build(), budgets=(("q", of, amount),), **{"tenant": "x", **fields})


def rules(*budgets: Budget, name: str = "q", **fields: Any) -> Queue:
    return replace(
        make_queue(name).build(), budgets=budgets, aging_step=0.0, emergency=frozenset({"x"}), hold_after=0.0, **fields
    )


class World:
    """One agent with room for all, queue `q` with both budgets, and queue `other` without any."""

    def __init__(self, *budgets: Budget) -> None:
        self.core = Core()
        self.told(PoolApplied(make_pool().slots(50).fixed(1).build()))
        self.told(QueueApplied(rules(*(budgets or (HELD, SPENT)))), QueueApplied(rules(name="other")))
        self.told(AgentReady(make_agent("a").slots(50).build()))

    def told(self, *events: Event | Task, now: float = 0.0) -> None:
        for event in events:
            self.core.handle(TaskWaiting(event) if isinstance(event, Task) else event, now)

    def starts(self, now: float = 0.0) -> list[str]:
        found = [each.task_uid for each in self.core.decide(now) if isinstance(each, Assign)]
        assert self.core.audit() == []
        return found

    def ends(self, *uids: str, now: float = 0.0) -> list[str]:
        self.told(*(TaskGone(uid, Phase.SUCCEEDED) for uid in uids), now=now)
        return self.starts(now)

    def why(self, uid: str, now: float = 0.0) -> Reason | None:
        found = self.core.why(uid, now)
        return None if found is None else found.reason


def test_what_is_held_is_held_over_queues_until_the_end() -> None:
    world = World()
    world.told(task("1", 3))
    assert world.starts() == ["1"]
    world.told(task("2", 2, queue="other"), task("3", 1, queue="other", created=1.0), now=1.0)
    assert world.starts(1.0) == ["3"], "the second asks for more than is left"
    assert world.why("2") is Reason.BUDGET_SHORT
    assert world.ends("3") == []
    assert world.ends("1") == ["2"]


def test_a_task_that_takes_nothing_passes() -> None:
    world = World()
    free = replace(task("3", created=2.0), budgets=())
    world.told(task("1", 4), task("2", 1, created=1.0), free, now=2.0)
    assert world.starts(2.0) == ["1", "3"]


def test_the_first_in_order_takes_what_comes_back() -> None:
    world = World()
    world.told(task("1", 4))
    assert world.starts() == ["1"]
    world.told(task("low", 4, priority=1), task("high", 4, queue="other", priority=4, created=1.0), now=1.0)
    assert world.starts(1.0) == []
    assert world.ends("1", now=2.0) == ["high"]
    assert world.ends("high", now=3.0) == ["low"]


def test_an_attempt_that_failed_gives_back_what_it_held() -> None:
    world = World()
    world.told(task("1", 4))
    assert world.starts() == ["1"]
    world.told(task("2", 4, created=1.0))
    assert world.starts() == []
    world.told(AttemptFailed("1", Reason.HANDLER_ERROR, ""), now=1.0)
    world.told(task("1", 4, failures=1, not_before=9.0), now=1.0)
    assert world.starts(1.0) == ["2"]


def test_what_is_spent_comes_back_with_time() -> None:
    world = World()
    world.told(task("1", 6, "tokens"))
    assert world.starts() == ["1"]
    world.told(task("2", 5, "tokens", queue="other"))
    assert world.starts() == []
    assert world.ends("1") == [], "ends give nothing back"
    assert world.core.next_wake() == 1.5
    assert world.starts(1.4) == []
    assert world.starts(1.5) == ["2"]


def test_who_asks_for_less_may_go_before() -> None:
    world = World()
    world.told(task("1", 6, "tokens"), task("much", 5, "tokens", created=1.0), task("few", 2, "tokens", created=2.0))
    assert world.starts() == ["1", "few"]
    assert world.starts(2.4) == []
    assert world.starts(2.5) == ["much"]


@pytest.mark.parametrize(
    ("used", "starts_at"),
    [
        pytest.param([], 4.0, id="no-report"),
        pytest.param([2], 1.0, id="less-than-taken"),
        pytest.param([0], 0.0, id="nothing-used"),
        pytest.param([8], 4.0, id="as-much"),
        pytest.param([12], 6.0, id="more-than-taken"),
        pytest.param([20], 10.0, id="more-than-the-burst"),
        pytest.param([0, 12], 6.0, id="the-last-counts"),
        pytest.param([12, 2], 1.0, id="the-last-counts-downwards"),
    ],
)
@pytest.mark.parametrize("failed", [False, True], ids=["result", "failure"])
def test_what_is_reported_corrects_what_was_spent(used: list[int], starts_at: float, failed: bool) -> None:
    world = World()
    world.told(task("1", 8, "tokens"))
    assert world.starts() == ["1"]
    world.told(task("2", 8, "tokens", queue="other"))
    assert world.starts() == []
    world.told(*(AttemptUsed("1", (("q", "tokens", amount),)) for amount in used))
    if failed:
        world.told(AttemptFailed("1", Reason.HANDLER_ERROR, "", retryable=False))
    world.told(TaskGone("1", Phase.FAILED if failed else Phase.SUCCEEDED))
    if starts_at:
        assert world.starts() == []
        assert world.core.next_wake() == starts_at
        assert world.starts(starts_at - 0.1) == []
    assert world.starts(starts_at) == ["2"]


@pytest.mark.parametrize(
    ("report", "left"),
    [
        pytest.param(AttemptUsed("1", (("q", "tokens", 0),)), 8, id="never-above-the-burst"),
        pytest.param(AttemptUsed("1", (("q", "slots", 0), ("x", "y", 0))), 4, id="not-spent-of"),
        pytest.param(AttemptUsed("2", (("q", "tokens", 0),)), 4, id="a-task-that-waits"),
        pytest.param(AttemptUsed("none", (("q", "tokens", 0),)), 4, id="unknown-task"),
    ],
)
def test_what_a_report_leaves_in_the_bucket(report: AttemptUsed, left: int) -> None:
    world = World()
    world.told(task("1", 6, "tokens"), replace(task("2", 6, "tokens"), suspended=True))
    assert world.starts() == ["1"]
    world.told(report, now=1.0)
    world.told(task("3", left + 1, "tokens", tenant="y"), now=1.0)
    assert world.starts(1.0) == []
    world.told(task("4", left, "tokens", created=-1.0), now=1.0)
    assert world.starts(1.0) == ["4"]


def test_a_report_on_what_ran_before_this_life_changes_nothing() -> None:
    world = World()
    world.told(TaskLeased(task("1", 8, "tokens"), "a"))
    world.told(AttemptUsed("1", (("q", "tokens", 20),)), task("2", 8, "tokens"))
    assert world.starts() == ["2"]


def test_a_concurrent_budget_is_held_whatever_is_reported() -> None:
    world = World()
    world.told(task("1", 4), task("2", 4))
    assert world.starts() == ["1"]
    world.told(AttemptUsed("1", (("q", "slots", 0),)))
    assert world.starts() == []
    assert world.ends("1") == ["2"]


def test_what_could_not_be_written_is_given_back() -> None:
    world = World()
    one = task("1", 8, "tokens")
    world.told(one)
    assert world.starts() == ["1"]
    world.told(replace(one, suspended=True), task("2", 8, "tokens"), now=1.0)
    assert world.starts(1.0) == ["2"]


def test_what_ran_before_this_life_is_held_and_not_spent() -> None:
    world = World()
    world.told(TaskLeased(task("1", 4), "a"), TaskLeased(task("2", 8, "tokens"), "a"))
    world.told(task("3"), task("4", 8, "tokens"))
    assert world.starts() == ["4"]
    assert world.ends("1") == ["3"]


def test_emergencies_wait_for_what_is_held_and_overdraw_what_is_spent() -> None:
    world = World()
    world.told(task("1", 4), task("2", 8, "tokens"))
    assert world.starts() == ["1", "2"]
    world.told(task("3", 1, priority=EMERGENCY), task("4", 4, "tokens", priority=EMERGENCY), task("5", 1, "tokens"))
    assert world.starts() == ["4"]
    assert world.why("3") is Reason.BUDGET_SHORT
    assert world.starts(2.4) == []
    assert world.starts(2.5) == ["5"], "once the debt is paid"


def test_of_several_budgets_all_must_do() -> None:
    world = World()
    both = replace(task("1"), budgets=(("q", "slots", 3), ("q", "tokens", 8)))
    world.told(both)
    assert world.starts() == ["1"]
    world.told(replace(both, uid="2", name="2", budgets=(("q", "slots", 2), ("q", "tokens", 2))))
    assert world.starts(1.0) == []
    assert world.ends("1", now=1.5) == ["2"]


@pytest.mark.parametrize("amount", [5, 9])
def test_more_than_there_ever_is_waits_for_another_budget(amount: int) -> None:
    world = World()
    world.told(task("1", amount), task("2", amount + 4, "tokens"))
    assert world.starts(1000.0) == []
    assert world.why("1", 1000.0) is Reason.BUDGET_SHORT
    assert world.core.next_wake() is None
    world.told(QueueApplied(rules(Budget("slots", 9), Budget("tokens", rate=TokenRate(1.0, 13)))), now=1000.0)
    assert world.starts(1013.0) == ["1", "2"]


def test_a_budget_that_nobody_defines_is_waited_for() -> None:
    world = World()
    world.told(task("1", of="new"), replace(task("2"), budgets=(("later", "slots", 1),)))
    assert world.starts() == []
    assert world.why("1") is world.why("2") is Reason.BUDGET_NOT_FOUND
    world.told(QueueApplied(rules(HELD, Budget("new", 1))), QueueApplied(rules(HELD, name="later")))
    assert world.starts() == ["1", "2"]


def test_what_is_held_outlives_the_queue_that_defines_it() -> None:
    world = World()
    world.told(task("1", 3, queue="other"))
    assert world.starts() == ["1"]
    world.told(QueueDeleted((NAMESPACE, "q")), task("2", 3, queue="other"))
    assert world.starts() == []
    assert world.why("2") is Reason.BUDGET_NOT_FOUND
    world.told(QueueApplied(rules(HELD)))
    assert world.starts() == []
    assert world.ends("1") == ["2"]


def test_budgets_that_nobody_defines_are_forgotten_with_their_tasks() -> None:
    world = World()
    for number in range(100):
        world.told(replace(task(f"{number}"), budgets=((f"none{number}", "b", 1),)))
    assert world.starts() == []
    world.told(*(TaskGone(f"{number}", Phase.CANCELLED) for number in range(100)))
    assert world.starts() == []
    assert len(world.core._limits._books) == 2


def test_a_rate_that_changes_keeps_what_is_there() -> None:
    world = World()
    world.told(task("1", 8, "tokens"))
    assert world.starts() == ["1"]
    world.told(task("2", 4, "tokens"), QueueApplied(rules(HELD, Budget("tokens", rate=TokenRate(0.5, 8)))), now=1.0)
    assert world.starts(4.9) == []
    assert world.starts(5.0) == ["2"], "two came at the former rate, two since at the new one"


@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from((0.0, 0.5, 1.0, 4.0))), max_size=40))
def test_what_is_spent_keeps_within_the_bucket(arrivals: list[tuple[int, float]]) -> None:
    """Over any window of t seconds at most burst + perSecond × t is spent, and nothing waits while enough is there."""
    world, now, spent = World(), 0.0, list[tuple[float, int]]()
    for number, (amount, later) in enumerate(arrivals):
        now += later
        world.told(task(f"{number}", amount, "tokens", created=now), now=now)
        spent += [(now, arrivals[int(uid)][0]) for uid in world.starts(now)]
        for at, _ in spent:
            assert sum(each for since, each in spent if since >= at) <= 8 + 2.0 * (now - at) + 1e-9
    while (wake := world.core.next_wake()) is not None:
        now = wake
        spent += [(now, arrivals[int(uid)][0]) for uid in world.starts(now)]
    assert sorted(each for _, each in spent) == sorted(amount for amount, _ in arrivals)
