"""Concurrency and ordering keys in the core as a whole: who goes on when one opens, whatever else holds them."""

from dataclasses import replace
from typing import Any

import pytest

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase, Reason
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import (
    AgentReady,
    AttemptFailed,
    Event,
    PoolApplied,
    QueueApplied,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import Parent, Queue, Quota, Task


def task(uid: str, **fields: Any) -> Task:
    return replace(make_task(uid).build(), **{"tenant": "a", "concurrency_key": "k", **fields})


def ordered(uid: str, created: float, **fields: Any) -> Task:
    return task(uid, concurrency_key=None, ordering_key="o", created=created, **fields)


def queue(**fields: Any) -> Queue:
    return replace(make_queue().build(), **{"aging_step": 0.0, **fields})


class World:
    """A core with one agent of many slots, in queue `q`."""

    def __init__(self, rules: Queue | None = None, slots: int = 9) -> None:
        self.core = Core()
        self.told(
            QueueApplied(rules or queue()),
            PoolApplied(make_pool().fixed(9).build()),
            AgentReady(make_agent("a").slots(slots).build()),
        )

    def told(self, *events: Event | Task, now: float = 0.0) -> None:
        for event in events:
            self.core.handle(TaskWaiting(event) if isinstance(event, Task) else event, now)

    def starts(self, now: float = 0.0) -> list[str]:
        found = [each.task_uid for each in self.core.decide(now) if isinstance(each, Assign)]
        assert self.core.audit() == []
        return found

    def ends(self, uid: str, now: float = 0.0) -> list[str]:
        self.told(TaskGone(uid, Phase.SUCCEEDED), now=now)
        return self.starts(now)


def test_one_after_the_other_by_level_then_age() -> None:
    world = World()
    world.told(task("b", created=1), task("c", priority=1), task("a"), task("d", priority=3, created=9))
    order = world.starts()
    while len(order) < 4:
        order += world.ends(order[-1])
    assert order == ["d", "a", "b", "c"]


@pytest.mark.parametrize(
    "opens",
    [
        pytest.param(TaskGone("x", Phase.SUCCEEDED), id="ended"),
        pytest.param(TaskGone("x", None), id="deleted"),
        pytest.param(TaskWaiting(task("x", not_before=99.0)), id="not-written-and-scheduled"),
        pytest.param(TaskHeld(task("x"), Reason.RECOVERING), id="held"),
        pytest.param(TaskWaiting(task("x", suspended=True)), id="suspended"),
    ],
)
def test_it_opens_once_its_holder_runs_no_more(opens: Event) -> None:
    world = World()
    world.told(task("x"), task("t", created=1))
    assert world.starts() == ["x"]
    found = world.core.why("t", 0.0)
    assert found is not None
    assert found.reason is Reason.KEY_IN_USE
    world.told(opens)
    assert world.starts() == ["t"]


def test_it_stays_closed_while_an_attempt_that_failed_may_still_run() -> None:
    world = World()
    world.told(task("x"), task("t", created=1))
    world.starts()
    world.told(AttemptFailed("x", Reason.HANDLER_ERROR, "boom"))
    assert world.starts() == []
    world.told(task("x", failures=1, not_before=5.0))
    assert world.starts() == ["t"]


def test_a_lease_that_was_found_holds_it() -> None:
    world = World()
    world.told(TaskLeased(task("x"), "far"), task("t"))
    assert world.starts() == []
    assert world.ends("x") == ["t"]


def test_as_many_as_the_queue_says_and_more_at_once_if_it_says_more() -> None:
    world = World(queue(concurrency_limit=2))
    world.told(*(task(f"t{n}", created=n) for n in range(7)))
    assert world.starts() == ["t0", "t1"]
    world.told(QueueApplied(queue(concurrency_limit=5)))
    assert world.starts() == ["t2", "t3", "t4"]
    world.told(QueueApplied(queue(concurrency_limit=1)))
    assert world.ends("t0") == world.ends("t1") == world.ends("t2") == world.ends("t3") == []
    assert world.ends("t4") == ["t5"]


def test_it_is_of_one_queue() -> None:
    world = World()
    world.told(QueueApplied(replace(queue(), name="other")), task("a"), task("b", queue="other"))
    assert sorted(world.starts()) == ["a", "b"]


def test_the_cancel_of_the_one_that_was_woken_wakes_the_next() -> None:
    world = World(slots=2)
    world.told(task("x"), task("y", concurrency_key=None), task("t", created=1), task("u", created=2))
    assert world.starts() == ["x", "y"]
    world.told(task("z", concurrency_key=None, priority=4))
    assert world.ends("x") == ["z"]  # t was woken and finds no room
    assert world.ends("t") == []
    assert world.ends("z") == ["u"]


@pytest.mark.parametrize(
    ("rules", "woken", "other"),
    [
        pytest.param(queue(), {"created": 1.0, "ordering_key": "o"}, {"created": 2.0}, id="an-older-one-has-the-turn"),
        pytest.param(queue(), {"created": 1.0, "slots": 9}, {"created": 2.0}, id="it-fits-no-agent-now"),
        pytest.param(
            queue(quota=Quota(slots=4)),
            {"created": 1.0, "slots": 4},
            {"created": 2.0},
            id="the-quota-of-slots-is-short",
        ),
    ],
)
def test_others_go_on_if_the_one_that_was_woken_cannot(
    rules: Queue, woken: dict[str, Any], other: dict[str, Any]
) -> None:
    world = World(rules)
    # One that is in the way of the first, without the key.
    world.told(task("x", tenant="c"), task("rest", concurrency_key=None))
    assert "x" in world.starts()
    world.told(task("first", **woken), task("second", **other), now=2.0)
    assert world.starts(2.0) == []
    if "ordering_key" in woken:
        world.told(ordered("older", 0.0, suspended=True), now=2.0)
    assert world.ends("x", 2.0) == ["second"]


def test_those_of_another_tenant_go_on_if_the_quota_of_the_one_that_was_woken_is_full() -> None:
    world = World(queue(tenant_quota=Quota(leased=1)))
    world.told(task("x", tenant="c"))
    assert world.starts() == ["x"]
    world.told(task("first", created=1), task("second", tenant="b", created=2))
    assert world.starts() == []
    world.told(TaskLeased(task("rest", concurrency_key=None), "far"))
    assert world.ends("x") == ["second"]


@pytest.mark.parametrize(
    "lifts",
    [
        pytest.param([task("u", created=2, priority=4)], id="its-priority-is-raised"),
        pytest.param([TaskGone("d"), task("t", created=1, priority=0)], id="that-of-the-one-woken-is-lowered"),
        pytest.param(
            [replace(task("c", priority=4), parents=(Parent("u", "u"),))], id="one-of-higher-level-waits-for-it"
        ),
        pytest.param([TaskGone("d")], id="the-one-that-lifted-the-woken-one-is-gone"),
    ],
)
def test_order_among_those_that_wait_for_a_key_holds_at_the_moment_of_the_start(lifts: list[Event | Task]) -> None:
    world = World(slots=2)
    below = replace(task("d", priority=3), parents=(Parent("t", "t"),))
    world.told(task("x", priority=4), task("t", created=1, priority=1), task("u", created=2), below)
    assert world.starts() == ["x"]
    world.told(TaskGone("x"), TaskLeased(task("far", concurrency_key=None, slots=2), "a"))
    assert world.starts() == []
    world.told(*lifts)
    assert world.ends("far") == ["u"]


def test_one_that_was_woken_and_is_too_late_by_now_lets_another_try() -> None:
    world = World(queue(expected_service=1.0), slots=2)
    world.told(task("x", priority=4), task("t", created=1, deadline=10.0), task("u", created=2))
    assert world.starts() == ["x"]
    world.told(TaskGone("x"), TaskLeased(task("far", concurrency_key=None, slots=2), "a"), now=3.0)
    assert world.starts(3.0) == []
    assert world.ends("far", 20.0) == ["u"]


def test_one_of_another_class_tries_once_agents_come_that_serve_it_alone() -> None:
    world = World(slots=1)
    skilled = make_agent("a").slots(1).skills("s", "t").build()
    world.told(AgentReady(skilled), task("x", priority=4))
    assert world.starts() == ["x"]
    world.told(task("first", created=1, skills=frozenset("s")), task("second", created=2, skills=frozenset("t")))
    assert world.starts() == []
    world.told(TaskGone("x"), TaskLeased(task("far", concurrency_key=None), "a"))
    assert world.starts() == []
    world.told(AgentReady(make_agent("b").slots(1).skills("t").build()))
    assert world.starts() == ["second"]


def test_only_one_of_many_classes_is_woken_where_the_same_holds_them() -> None:
    world = World(slots=2)
    world.told(task("x", priority=4), *(task(f"t{n}", type=f"type{n}", created=n) for n in range(1, 50)))
    assert world.starts() == ["x"]
    parked = list(world.core._parking.records())
    assert len(parked) == 49
    world.told(TaskGone("x"), TaskLeased(task("far", concurrency_key=None, slots=2), "a"))
    assert world.starts() == []
    assert [each.task.uid for each in parked if each.blocker is None] == ["t1"]
    assert world.ends("far") == ["t1"]


def test_they_age_while_they_wait_for_a_key() -> None:
    world = World(queue(aging_step=10.0), slots=2)
    world.told(task("x", priority=4), now=0.0)
    assert world.starts() == ["x"]
    world.told(task("old", priority=1), task("new", priority=2, created=25.0), now=25.0)
    assert world.starts(25.0) == []
    # At 25 the old one has gone up twice, to 3.
    assert world.ends("x", 26.0) == ["old"]


def test_one_that_is_woken_ages_beside_those_that_are_not() -> None:
    """Both are of the line of one key; the second goes up a level while the first, already woken, finds no room."""
    world = World(queue(aging_step=10.0), slots=2)
    world.told(task("x", priority=4), now=0.0)
    world.starts()
    world.told(task("t", priority=4, created=9.0, slots=1), task("u", priority=3, created=0.0), now=9.0)
    assert world.starts(9.0) == []
    world.told(TaskGone("x"), TaskLeased(task("far", concurrency_key=None, slots=2), "a"), now=9.0)
    assert world.starts(9.0) == []
    assert world.core.next_wake() == 10.0
    assert world.starts(10.0) == []
    # Of the same level since, and older.
    assert world.ends("far", 11.0) == ["u"]


def test_those_that_can_meet_their_deadlines_go_first_among_those_of_a_key() -> None:
    world = World(queue(expected_service=10.0))
    world.told(task("x", created=0.0))
    world.starts()
    world.told(task("late", deadline=15.0), task("able", deadline=50.0))
    assert world.starts() == []
    assert world.ends("x", 6.0) == ["able"]
    assert world.ends("able", 7.0) == ["late"]


# Ordering keys.


def test_ordered_tasks_run_one_after_the_other_oldest_first_whatever_their_levels() -> None:
    world = World()
    world.told(ordered("b", 2.0, priority=4), ordered("a", 1.0, priority=0), ordered("c", 2.0))
    assert world.starts() == ["a"]
    found = world.core.why("b", 0.0)
    assert found is not None
    assert found.reason is Reason.OUT_OF_TURN
    assert world.ends("a") == ["b"]
    assert world.ends("b") == ["c"]


@pytest.mark.parametrize(
    "held",
    [
        pytest.param({"suspended": True}, id="suspended"),
        pytest.param({"not_before": 50.0}, id="scheduled"),
        pytest.param({"skills": frozenset({"gpu"})}, id="no-agent-can"),
    ],
)
def test_those_behind_one_that_is_held_wait(held: dict[str, Any]) -> None:
    world = World()
    world.told(ordered("a", 1.0, **held), ordered("b", 2.0))
    assert world.starts() == []
    assert world.ends("a") == ["b"]


def test_one_that_was_started_keeps_its_turn_over_an_older_one() -> None:
    world = World()
    world.told(ordered("b", 2.0))
    assert world.starts() == ["b"]
    world.told(ordered("a", 1.0), AttemptFailed("b", Reason.HANDLER_ERROR, "boom"))
    world.told(ordered("b", 2.0, failures=1, not_before=5.0, attempted=True))
    assert world.starts(1.0) == []
    assert world.starts(5.0) == ["b"]
    assert world.ends("b", 6.0) == ["a"]


def test_one_that_timed_out_makes_way() -> None:
    world = World()
    world.told(ordered("a", 1.0, suspended=True, waiting_limit=5.0), ordered("b", 2.0))
    assert world.starts(6.0) == []
    assert world.ends("a", 7.0) == ["b"]


def test_of_an_ordering_key_the_one_with_a_lease_is_named_though_an_older_one_goes_next() -> None:
    """A lease that was found at a change of leader, and an older Task that was heard of after it."""
    world = World()
    world.told(TaskLeased(ordered("younger", 2.0), "a"), ordered("older", 1.0), ordered("last", 3.0))
    assert world.starts() == []
    for uid in ("older", "last"):
        found = world.core.explain(uid, 0.0)
        assert found is not None
        assert found.reason is Reason.OUT_OF_TURN
        assert "it is the turn of younger; 3 of them have not ended" in found.message
    assert world.ends("younger") == ["older"]


def test_who_is_parked_under_a_key_asks_who_holds_it_now() -> None:
    """The key was given back and taken again: it is another use of it, which is as full as the first."""
    world = World()
    world.told(*(task(f"k{number}", created=float(number)) for number in range(4)))
    assert world.starts() == ["k0"]
    assert world.ends("k0") == ["k1"]
    parked = world.core._tasks["k2"].blocker
    assert parked is not None
    assert not parked.open(0.0)
