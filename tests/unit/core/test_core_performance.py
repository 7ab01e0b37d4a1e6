"""What is learnt of agents, classes and pools, and where it sends new work."""

from dataclasses import replace
from math import inf, sqrt
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase, Reason
from taskdist.core import Core
from taskdist.core.agents.performance import (
    TOLD,
    Conduct,
    Performance,
    Track,
    TypePerformance,
    nine_in_ten,
    weakest,
)
from taskdist.core.decisions import Assign
from taskdist.core.events import (
    AgentReady,
    AttemptFailed,
    PoolApplied,
    PoolDeleted,
    QueueApplied,
    TaskGone,
    TaskWaiting,
)

FAST, SLOW = (NAMESPACE, "fast"), (NAMESPACE, "slow")


class World:
    """Pools `fast` and `slow` of one agent of one slot each, by these names; both serve queue `q`."""

    def __init__(self) -> None:
        self.core, self.now, self.made = Core(), 0.0, 0
        self.core.handle(QueueApplied(make_queue().pools("fast", "slow").build()), 0.0)
        for pool in ("fast", "slow"):
            self.core.handle(PoolApplied(make_pool(pool).fixed(1).build()), 0.0)
            self.core.handle(AgentReady(make_agent(pool).pool(pool).build()), 0.0)

    def given(self, pool: str | None = None, left: float | None = None, type: str = "work") -> tuple[str, str]:
        """A new Task's uid, and the agent that gets it."""
        self.made += 1
        task = make_task(f"t{self.made}").type(type).pool(pool).created(self.now).build()
        task = replace(task, deadline=None if left is None else self.now + left)
        self.core.handle(TaskWaiting(task), self.now)
        found = [each for each in self.core.decide(self.now) if isinstance(each, Assign)]
        assert [each.task_uid for each in found] == [task.uid]
        return task.uid, found[0].agent_uid

    def took(self, pool: str, seconds: float, type: str = "work", fails: bool = False) -> None:
        uid, agent = self.given(pool, type=type)
        assert agent == pool
        self.now += seconds
        if fails:
            self.core.handle(AttemptFailed(uid, Reason.HANDLER_ERROR, "boom"), self.now)
        self.core.handle(TaskGone(uid, Phase.FAILED if fails else Phase.SUCCEEDED), self.now)

    def goes(self, left: float | None = None, type: str = "work") -> str:
        """Where a Task goes that may go anywhere; it takes no time and teaches nothing."""
        uid, agent = self.given(left=left, type=type)
        self.core.handle(TaskGone(uid), self.now)
        return agent


def long_tailed(world: World) -> None:
    """On `slow` each takes 4 s; on `fast` nine of ten take 1 s and one takes 20 s, 2.9 s on average."""
    for n in range(100):
        world.took("slow", 4.0)
        world.took("fast", 20.0 if n % 10 == 4 else 1.0)


def test_the_swifter_class_at_the_type_goes_first() -> None:
    world = World()
    for _ in range(40):
        world.took("slow", 1.0, "a")
        world.took("fast", 4.0, "a")
        world.took("slow", 16.0, "b")
        world.took("fast", 4.0, "b")
    assert (world.goes(type="a"), world.goes(type="b")) == ("slow", "fast")


@pytest.mark.parametrize(
    ("left", "agent"),
    [
        pytest.param(None, "fast", id="no deadline: the mean decides"),
        pytest.param(1000.0, "fast", id="time enough for both"),
        pytest.param(5.0, "slow", id="nine in ten end in time on one only"),
        pytest.param(1.0, "slow", id="on none: the nearest"),
        pytest.param(-1.0, "fast", id="over already"),
    ],
)
def test_a_long_tailed_type_goes_where_it_ends_in_time(left: float | None, agent: str) -> None:
    world = World()
    long_tailed(world)
    assert world.goes(left) == agent


def test_nothing_is_said_of_a_type_that_hardly_ran() -> None:
    world = World()
    for _ in range(4):
        world.took("fast", 30.0)
        world.took("slow", 1.0)
    # Least busy time so far, as if nothing was known.
    assert world.goes(5.0) == world.goes() == "slow"
    for _ in range(130):
        world.took("slow", 1.0, "other")
    assert world.goes(5.0) == "fast"


def test_nine_in_ten_of_a_lognormal() -> None:
    assert nine_in_ten(0.0, 1.0) == 0.0
    assert nine_in_ten(2.0, 0.0) == 2.0
    # exp(μ + 1.2816 σ) for μ = 0.5, σ = 0.8.
    mean = 2.718281828 ** (0.5 + 0.32)
    variance = mean**2 * (2.718281828**0.64 - 1)
    assert nine_in_ten(mean, variance) == pytest.approx(4.5967, rel=1e-3)


@given(st.lists(st.floats(0.01, 100), min_size=2, max_size=200))
def test_a_track_knows_mean_and_spread_of_the_pace(ratios: list[float]) -> None:
    track = Track()
    for ratio in ratios:
        track.add(ratio, ratio)
    mean = sum(ratios) / len(ratios)
    assert track.pace == pytest.approx(mean)
    variance = sum((ratio - mean) ** 2 for ratio in ratios) / len(ratios)
    error = sqrt(variance / len(ratios)) / mean
    if len(ratios) >= 10 and abs(error - 0.04558) > 1e-4:
        assert track.sure == (error < 0.04558)


def test_classes_as_good_as_alike_are_not_told_apart_by_little() -> None:
    track = Track()
    for n in range(400):
        track.add(1.0, (0.05, 0.5, 3.2)[n % 3])
        assert not track.sure
    for _ in range(2000):
        track.add(1.0, 1.0)
    assert track.sure
    assert track.swiftness == 0


# Agents.


def test_an_agent_s_conduct() -> None:
    """Half of what it was given succeeds, at twice the time expected; failures take as long."""
    conduct = Conduct()
    for n in range(200):
        conduct.add(n % 2 == 0, 2.0, 10.0, 20.0)
    assert conduct.success == pytest.approx(0.5, abs=0.02)
    assert conduct.pace == pytest.approx(2.0)
    assert conduct.efficiency == pytest.approx(0.25, abs=0.01)
    for _ in range(500):
        conduct.add(True, 1.0, 10.0, 10.0)
    assert (conduct.success, conduct.pace, conduct.efficiency) == pytest.approx((1.0, 1.0, 1.0), abs=0.01)
    assert Conduct().efficiency == 1.0


def test_a_pool_tells_of_its_weakest_agents() -> None:
    world = World()
    assert world.core.performance(FAST).efficiency == 1.0
    for n in range(40):
        world.took("fast", 2.0, fails=n % 4 == 3)
    found = world.core.performance(FAST)
    assert found.efficiency == pytest.approx(0.75, abs=0.02)
    # What takes as long as its type does is as efficient as can be, whatever others take: it is a class of its own.
    (fast,) = found.weakest
    assert (fast.name, fast.attempts) == ("fast", 40)
    assert (fast.success, fast.pace) == pytest.approx((0.75, 1.0))
    many = []
    for n in range(20):
        conduct = Conduct()
        for _ in range(10 if n else 9):
            conduct.add(True, 1.0, float(n), 20.0)
        many.append((f"a{n:02}", conduct))
    assert [each.name for each in weakest(many)] == [f"a{n:02}" for n in range(1, 9)]


# Pools.


def test_what_a_pool_tells_of_types() -> None:
    world = World()
    for n in range(8):
        world.took("fast", 2.0 + n % 2, fails=n >= 6)
    world.took("fast", 1.0, "other", fails=True)
    world.took("slow", 9.0)
    other, work = world.core.performance(FAST).types
    assert other == TypePerformance("other", 1, 0.0, 0.0, 0.0)
    assert (work.type, work.attempts) == ("work", 8)
    assert (work.mean, work.deviation, work.success) == pytest.approx((2.5, 0.5, 0.75))
    assert world.core.performance(SLOW).types[0].mean == 9.0
    world.core.handle(PoolDeleted(FAST), world.now)
    assert world.core.performance(FAST).types == ()


def test_it_is_bounded_and_tells_those_tried_most() -> None:
    books = Performance(types=100)
    for n in range(500):
        for _ in range(1 + n % 7):
            books.book(FAST, f"t{n:03}").add(1.0, True)
    told = books.of(FAST)
    assert len(told) == TOLD
    assert [each.type for each in told] == sorted(each.type for each in told)
    assert min(each.attempts for each in told) >= 5
    assert books.book(FAST, "t399").attempts == 0, "it was forgotten"


def test_what_was_told_is_taken_over() -> None:
    before = World()
    for n in range(60):
        before.took("fast", 1.0 + n % 3)
        before.took("fast", 5.0, "fails", fails=True)
    told = before.core.performance(FAST).types
    after = World()
    after.core.recall(FAST, told)
    assert after.core.performance(FAST).types == told
    # What was seen in this life goes before what is told of another.
    after.core.recall(FAST, [TypePerformance("work", 1, 99.0, 0.0, 0.0)])
    assert after.core.performance(FAST).types == told
    after.took("fast", 2.0)
    assert {each.type: each.attempts for each in after.core.performance(FAST).types} == {"fails": 60, "work": 61}


@pytest.mark.parametrize(("recalls", "expected"), [(True, 2.0), (False, 10.0)])
def test_expected_ends_survive_a_restart(recalls: bool, expected: float) -> None:
    """The queue's word is 10 s; the pool's status knows of 2 s."""
    world = World()
    if recalls:
        world.core.recall(SLOW, [TypePerformance("work", 60, 2.0, 0.5, 1.0)])
    world.given("slow")
    leases = world.core._fleet.agents["slow"].leases
    assert [lease.ends for lease in leases.values()] == [expected]


def test_a_deadline_is_judged_by_what_was_told() -> None:
    """Of `fast` nothing is known but how long the type takes at all: its pace at other types says the rest."""
    world = World()
    for _ in range(30):
        world.took("fast", 8.0, "other")
        world.took("slow", 2.0, "other")
    world.core.recall(SLOW, [TypePerformance("work", 60, 10.0, 0.0, 1.0)])
    assert world.goes(8.0) == "slow"
    shape = next(each for each in world.core._catalogue.shapes.values() if each.need.type == "work")
    kinds = world.core._catalogue.classes.values()
    ranks = {kind.offer.pool: kind.rank(shape.work, shape.estimate, 8.0) for kind in kinds}
    assert ranks[FAST] > ranks[SLOW]
    free: dict[Any, int] = {kind.offer.pool: kind.rank(shape.work, shape.estimate, inf) for kind in kinds}
    assert free[FAST] < 1000
    assert free[SLOW] < 0
