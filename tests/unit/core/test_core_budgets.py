"""Budgets that Tasks of several queues share: on the core as a whole, named cases."""

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from checkers import Mirror
from taskdist.api import Phase, Reason
from taskdist.core import Core
from taskdist.core.decisions import Assign, Drain
from taskdist.core.events import (
    AgentNotReady,
    AgentReady,
    AttemptFailed,
    AttemptUsed,
    Event,
    PodSeen,
    PoolApplied,
    QueueApplied,
    QueueDeleted,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import EMERGENCY, Budget, Queue, Quota, Task, TokenRate

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


def test_of_what_is_held_who_asks_for_less_may_go_before() -> None:
    world = World()
    world.told(task("1", 3), task("much", 2, created=1.0), task("few", 1, created=2.0))
    assert world.starts() == ["1", "few"]


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
    world.told(task("4", left, "tokens", priority=3), now=1.0)
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


# What comes to a rate is for the first in order.


def small(number: int, now: float, **fields: Any) -> Task:
    return task(f"small{number:02}", 2, "tokens", **{"created": now, "queue": "other", **fields})


def test_small_amounts_do_not_keep_a_large_one_waiting() -> None:
    """Two a second come, and each second somebody asks for two: who asks for eight starts once they are there."""
    world = World()
    world.told(task("1", 8, "tokens"))
    assert world.starts() == ["1"]
    world.told(task("large", 8, "tokens", created=0.5), now=0.5)
    assert world.starts(0.5) == []
    found = []
    for second in range(1, 9):
        world.told(small(second, float(second)), now=float(second))
        found += [(uid, float(second)) for uid in world.starts(float(second))]
    assert found == [("large", 4.0), ("small01", 5.0), ("small02", 6.0), ("small03", 7.0), ("small04", 8.0)]


def claimed() -> World:
    """At second 1 two tokens are there, and `large` waits for eight since second 0.5."""
    world = World()
    world.told(task("1", 8, "tokens"))
    assert world.starts() == ["1"]
    world.told(task("large", 8, "tokens", created=0.5), now=0.5)
    assert world.starts(0.5) == []
    return world


@pytest.mark.parametrize(
    ("fields", "starts"),
    [
        pytest.param({}, [], id="later-in-order"),
        pytest.param({"queue": "q"}, [], id="later-in-its-line"),
        pytest.param({"priority": 1}, [], id="lower-level"),
        pytest.param({"priority": 3}, ["small01"], id="higher-level"),
        pytest.param({"priority": EMERGENCY}, ["small01"], id="emergency"),
        pytest.param({"queue": "q", "created": 0.1}, ["small01"], id="earlier-in-its-line"),
        pytest.param({"budgets": (("q", "slots", 1),)}, ["small01"], id="another-budget"),
        pytest.param({"budgets": ()}, ["small01"], id="no-budget"),
    ],
)
def test_who_passes_one_that_waits_for_a_rate(fields: dict[str, Any], starts: list[str]) -> None:
    world = claimed()
    world.told(replace(small(1, 1.0), **fields), now=1.0)
    assert world.starts(1.0) == starts
    if not starts:
        assert world.why("small01", 1.0) is Reason.BUDGET_SHORT
        explanation = world.core.why("small01", 1.0)
        assert explanation is not None
        assert "Task large goes first: enough in 3 s." in explanation.message


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(TaskGone("large", Phase.CANCELLED), id="cancelled"),
        pytest.param(TaskGone("large", None), id="deleted"),
        pytest.param(TaskWaiting(task("large", 8, "tokens", created=0.5, suspended=True)), id="suspended"),
        pytest.param(TaskWaiting(task("large", 8, "tokens", created=0.5, not_before=99.0)), id="backing-off"),
        pytest.param(TaskWaiting(task("large", 8, "tokens", created=0.5, priority=1)), id="lower-level"),
        pytest.param(TaskHeld(task("large", 8, "tokens", created=0.5), Reason.RECOVERING), id="held-outside"),
        pytest.param(TaskLeased(task("large", 8, "tokens", created=0.5), "a"), id="found-to-run"),
        pytest.param(QueueApplied(rules(HELD, SPENT, paused=True)), id="queue-paused"),
        pytest.param(QueueApplied(rules(HELD, SPENT, quota=Quota(leased=1))), id="quota-full"),
        pytest.param(QueueApplied(rules(HELD, SPENT, rate=TokenRate(0.001))), id="queue-without-a-token"),
        pytest.param(QueueApplied(rules(HELD, Budget("tokens", rate=TokenRate(2.0, 7)))), id="never-enough"),
    ],
)
def test_what_is_kept_in_vain_is_let_go(event: Event) -> None:
    world = claimed()
    world.told(small(1, 1.0), now=1.0)
    assert world.starts(1.0) == []
    if isinstance(event, QueueApplied) and event.queue.rate is not None:
        # Its token is taken by one that has come first.
        world.told(event, task("free", of="slots", created=0.2), now=1.0)
        assert sorted(world.starts(1.0)) == ["free", "small01"]
    else:
        world.told(event, now=1.0)
        assert world.starts(1.0) == ["small01"]


def test_one_that_has_no_room_keeps_nothing() -> None:
    world = World()
    world.told(PoolApplied(make_pool("there").slots(2).fixed(1).build()))
    world.told(AgentReady(make_agent("b").pool("there").slots(2).build()))
    world.told(task("1", 8, "tokens"))
    assert world.starts() == ["1"]
    world.told(task("large", 8, "tokens", slots=2, created=0.5), now=0.5)
    assert world.starts(0.5) == []
    world.told(small(1, 1.0, queue="q", pool="there"), now=1.0)
    assert world.starts(1.0) == []
    world.told(AgentNotReady("a"), now=1.5)
    assert world.starts(1.5) == ["small01"], "with its agent gone, it could not start anyway"
    world.told(AgentReady(make_agent("a").slots(50).build()), small(2, 2.0, queue="q", pool="there"), now=2.0)
    assert world.starts(2.0) == []
    filler = replace(task("filler", slots=49, created=2.1), budgets=())
    world.told(filler, now=2.1)
    assert world.starts(2.1) == ["filler", "small02"], "its room was taken"


def test_one_that_got_room_later_goes_before_those_that_ask_for_less() -> None:
    """While all slots are taken it is set aside with nothing kept for it."""
    world = World()
    world.told(PoolApplied(make_pool().slots(1).elastic(1, 2).build()), AgentReady(make_agent("a").slots(1).build()))
    world.told(task("1", 8, "tokens"))
    assert world.starts() == ["1"]
    world.told(task("large", 8, "tokens", created=0.5), now=0.5)
    assert world.starts(0.5) == []
    world.told(small(1, 1.0, queue="q"), small(2, 1.0, queue="q"), now=1.0)
    assert world.starts(1.0) == []
    assert world.ends("1", now=2.0) == [], "there is room and enough for a small one"
    assert world.starts(4.0) == ["large"]
    assert world.ends("large", now=6.0) == ["small01"]


def test_of_two_rates_both_are_kept() -> None:
    world = World(SPENT, Budget("calls", rate=TokenRate(1.0, 8)))
    both = replace(task("both", created=0.5), budgets=(("q", "calls", 8), ("q", "tokens", 8)))
    world.told(task("1", 8, "tokens"), task("2", 8, "calls"))
    assert world.starts() == ["1", "2"]
    world.told(both, now=0.5)
    assert world.starts(0.5) == []
    for second in range(1, 8):
        world.told(
            small(second, float(second)), task(f"call{second}", 1, "calls", created=float(second)), now=float(second)
        )
        assert world.starts(float(second)) == []
    assert world.core.next_wake() == 8.0
    assert world.starts(8.0) == ["both"]


def test_nobody_is_told_to_wait_for_itself() -> None:
    world = World(SPENT, Budget("calls", rate=TokenRate(1.0, 8)))
    world.told(task("1", 8, "tokens"), task("2", 8, "calls"))
    assert world.starts() == ["1", "2"]
    world.told(replace(task("both"), budgets=(("q", "tokens", 8), ("q", "calls", 8))))
    assert world.starts() == []
    explanation = world.core.why("both", 0.0)
    assert explanation is not None
    assert "enough in 4 s" in explanation.message
    assert "goes first" not in explanation.message


@pytest.mark.parametrize(
    ("now", "counted"),
    [
        pytest.param(3.0, {Reason.BUDGET_SHORT: 2}, id="not-yet"),
        pytest.param(4.0, {Reason.BUDGET_SHORT: 1, Reason.QUEUED: 1}, id="enough-for-whose-turn-it-is"),
    ],
)
def test_reasons_are_counted_as_each_task_gives_them_when_time_has_brought_enough(
    now: float, counted: dict[Reason, int]
) -> None:
    """Between decisions as well: the one whose turn it is waits no longer for the rate, those behind it do."""
    world = claimed()
    world.told(task("later", 8, "tokens", created=0.75), now=1.0)
    assert world.starts(1.0) == []
    found = world.core.waiting_by_reason(now)
    assert {reason: tasks for (_, reason), tasks in found.items()} == counted
    assert Counter(world.why(uid, now) for uid in ("large", "later")) == counted


@pytest.mark.parametrize(
    "fields",
    [
        pytest.param({"budgets": (("q", "slots", 4), ("q", "tokens", 8))}, id="a-budget-that-is-held"),
        pytest.param({"budgets": (("q", "tokens", 8), ("x", "slots", 4))}, id="a-budget-that-is-not-there"),
        pytest.param({"budgets": (("q", "tokens", 9),)}, id="more-than-ever"),
        pytest.param({"concurrency_key": "k"}, id="a-key-in-use"),
    ],
)
def test_one_that_something_else_holds_keeps_nothing(fields: dict[str, Any]) -> None:
    world = World()
    world.told(task("1", 8, "tokens"), task("2", 4, concurrency_key="k"))
    assert world.starts() == ["1", "2"]
    world.told(replace(task("large", 8, "tokens", created=0.5), **fields), now=0.5)
    assert world.starts(0.5) == []
    world.told(small(1, 1.0), now=1.0)
    assert world.starts(1.0) == ["small01"]


def test_a_higher_level_takes_over_what_is_kept() -> None:
    world = claimed()
    world.told(task("higher", 6, "tokens", priority=3, created=1.0), now=1.0)
    assert world.starts(1.0) == []
    world.told(small(1, 2.0, queue="q"), now=2.0)
    assert world.starts(2.0) == []
    assert world.starts(3.0) == ["higher"]
    assert world.starts(6.9) == []
    assert world.starts(7.0) == ["large"]
    assert world.starts(8.0) == ["small01"]


def test_one_that_is_passed_by_a_higher_level_goes_first_of_its_own_still() -> None:
    world = claimed()
    world.told(task("higher", 2, "tokens", priority=3, created=4.0), small(1, 4.0, tenant="y"), now=4.0)
    assert world.starts(4.0) == ["higher"]
    assert world.starts(5.0) == ["large"]
    assert world.starts(6.0) == ["small01"]


def test_what_comes_back_is_for_whom_it_is_kept() -> None:
    world = claimed()
    world.told(small(1, 1.0), AttemptUsed("1", (("q", "tokens", 3),)), now=1.0)
    assert world.starts(1.0) == []
    assert world.core.next_wake() == 1.5
    assert world.starts(1.5) == ["large"]
    assert world.starts(2.5) == ["small01"]


steps = st.lists(
    st.tuples(
        st.sampled_from(("comes", "comes", "comes", "ends", "fails", "goes", "rests")),
        st.sampled_from((("tokens",), ("tokens",), ("calls",), ("calls", "tokens"), ("slots", "tokens"), ())),
        st.integers(1, 9),
        st.sampled_from((1, 2, 2, 2, 3, EMERGENCY)),
        st.sampled_from(("q", "other")),
        st.sampled_from((0.0, 0.5, 1.0, 4.0)),
        st.integers(1, 2),
    ),
    min_size=8,
    max_size=40,
)


# What comes back is less where the bucket would have been full meanwhile: two of the four tokens here.
@example(
    [
        *(("comes", ("tokens",), amount, 1, "q", later, 1) for amount, later in ((1, 0.0), (4, 0.0), (5, 0.5))),
        *(("comes", ("tokens",), 1, 1, "q", later, 1) for later in (0.0, 0.0, 0.0, 1.0)),
        ("ends", ("tokens",), 1, 1, "q", 0.0, 1),
    ]
)
# The first of its group asks for more than there ever is: the next one, of a higher level than `06`, has the claim.
@example(
    [
        *(("comes", ("tokens",), amount, 1, "q", 0.0, 1) for amount in (1, 1, 1, 1, 8)),
        ("comes", ("tokens",), 9, 2, "q", 0.0, 1),
        ("comes", ("tokens",), 1, 1, "q", 4.0, 1),
        ("comes", ("tokens",), 2, 2, "q", 0.0, 1),
    ]
)
@given(steps)
def test_what_comes_with_time_is_for_the_first_in_order(
    steps: list[tuple[str, tuple[str, ...], int, int, str, float, int]],
) -> None:
    """By a checker that counts for itself: who goes first, what is corrected, and that nothing is kept in vain."""
    core, mirror, now = Core(), Mirror(), 0.0

    def told(*events: Event) -> None:
        for event in events:
            mirror.take(event, now)
            core.handle(event, now)

    def decided() -> None:
        for decision in core.decide(now):
            assert mirror.apply(decision, now) == []
        assert core.audit() == []
        assert mirror.at_rest(now) == []
        wake = core.next_wake()
        assert wake is None or wake > now

    told(PoolApplied(make_pool().slots(3).fixed(2).build()), QueueApplied(rules(name="other")))
    told(QueueApplied(rules(HELD, SPENT, Budget("calls", rate=TokenRate(1.0, 6)))))
    told(*(AgentReady(make_agent(uid).slots(3).build()) for uid in "ab"))
    for number, (kind, takes, amount, level, queue, later, slots) in enumerate(steps):
        now += later
        running = sorted(mirror.leased)
        uid = running[amount % len(running)] if running else ""
        match kind:
            case "comes":
                made = task(f"{number:02}", queue=queue, priority=level, created=now - amount / 4, slots=slots)
                made = replace(made, budgets=tuple(("q", of, amount) for of in takes))
                told(TaskWaiting(made))
            case "ends" if uid:
                told(AttemptUsed(uid, tuple(("q", of, amount - 1) for of in takes)), TaskGone(uid, Phase.SUCCEEDED))
            case "fails" if uid:
                told(
                    AttemptFailed(uid, Reason.HANDLER_ERROR, ""),
                    TaskWaiting(replace(mirror.leased[uid][0], failures=1)),
                )
            case "goes" if mirror.waiting:
                told(TaskGone(sorted(mirror.waiting)[amount % len(mirror.waiting)], None))
        decided()
    for _ in range(50):
        if (wake := core.next_wake()) is None:
            break
        now = wake
        decided()


def test_an_agent_stays_for_a_task_that_only_waits_for_what_time_brings() -> None:
    """It is what lets the Task claim. Without it another one would wait for room, and the agent be called back."""
    core, rate = Core(), Budget("tokens", rate=TokenRate(0.25, 4))
    core.handle(QueueApplied(rules(rate)), 0.0)
    core.handle(PoolApplied(replace(make_pool().slots(1).elastic(0, 4).build(), scale_down_delay=0.0)), 0.0)
    core.handle(TaskWaiting(task("first", 4, "tokens", priority=3)), 0.0)
    core.handle(PodSeen("a", NAMESPACE, "a", "p", 0.0), 0.0)
    core.handle(AgentReady(make_agent("a").slots(1).build()), 0.0)
    assert [each.task_uid for each in core.decide(0.0) if isinstance(each, Assign)] == ["first"]
    core.handle(TaskGone("first", Phase.SUCCEEDED), 1.0)
    core.handle(TaskWaiting(task("large", 4, "tokens", priority=3)), 1.0)
    core.handle(TaskWaiting(task("small", 1, "tokens", created=1.0)), 1.0)
    told = [each for now in (1.0, 4.0, 8.0) for each in core.decide(now)]
    assert not [each for each in told if isinstance(each, Drain)]
    assert [each.task_uid for each in core.decide(16.0) if isinstance(each, Assign)] == ["large"]
