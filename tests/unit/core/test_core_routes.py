"""Routes, step by step, and the agent that a Task names: on the core as a whole, named cases."""

from dataclasses import replace
from itertools import count
from typing import Any

import pytest

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase, Reason, Strategy
from taskdist.core import Core
from taskdist.core.decisions import Assign, Scale
from taskdist.core.events import (
    AgentReady,
    AttemptFailed,
    Event,
    PodGone,
    PodSeen,
    PoolApplied,
    PoolDeleted,
    QueueApplied,
    TaskGone,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.fleet.routes import matches, opened, opens_at, reached, route_of, step_taken
from taskdist.core.model import EMERGENCY, Match, Queue, Requirement, Route, RouteStep, Task

PLAIN = make_task("t").build()
STEPS = (RouteStep(("p",)), RouteStep(("q",), 10.0), RouteStep(("r",), 20.0))
ROUTE = Route("r", STEPS)


def routed(*steps: RouteStep, **fields: Any) -> Queue:
    """A queue whose Tasks all go by one route."""
    return replace(make_queue().build(), aging_step=0.0, routes=(Route("way", steps, Match()),), **fields)


class World:
    """A core with elastic pools `p`, `q` and `r` of at most two agents of one slot each."""

    def __init__(self, queue: Queue, most: int = 2) -> None:
        self.core = Core()
        self.told(*(PoolApplied(make_pool(name).elastic(0, most).build()) for name in "pqr"), QueueApplied(queue))

    def told(self, *events: Event | Task, now: float = 0.0) -> None:
        for event in events:
            self.core.handle(TaskWaiting(event) if isinstance(event, Task) else event, now)

    def agent(self, uid: str, pool: str, now: float = 0.0) -> None:
        self.told(PodSeen(uid, NAMESPACE, uid, pool, now), AgentReady(make_agent(uid).pool(pool).build()), now=now)

    def starts(self, now: float = 0.0) -> list[tuple[str, str, int]]:
        """Which Tasks start, on which agent, by which step."""
        found = self.core.decide(now)
        assert self.core.audit() == []
        return [(each.task_uid, each.agent_uid, each.step) for each in found if isinstance(each, Assign)]

    def wanted(self, now: float = 0.0) -> dict[str, int]:
        found = self.core.decide(now)
        return {each.pool[1]: each.replicas for each in found if isinstance(each, Scale) and each.replicas}


@pytest.mark.parametrize(
    ("match", "fields", "expected"),
    [
        pytest.param(Match(), {}, True, id="all"),
        pytest.param(Match(types=frozenset({"work"})), {}, True, id="type"),
        pytest.param(Match(types=frozenset({"rest"})), {}, False, id="another-type"),
        pytest.param(Match(levels=frozenset({4, 5})), {"priority": 4}, True, id="level"),
        pytest.param(Match(levels=frozenset({4, 5})), {"priority": 3}, False, id="another-level"),
        pytest.param(Match(tenants=frozenset({"x"})), {"tenant": "x"}, True, id="tenant"),
        pytest.param(Match(tenants=frozenset({"x"})), {"tenant": "y"}, False, id="another-tenant"),
        pytest.param(Match(min_slots=2), {"slots": 2}, True, id="at-least-so-many-slots"),
        pytest.param(Match(min_slots=2), {"slots": 1}, False, id="too-few-slots"),
        pytest.param(Match(max_slots=2), {"slots": 2}, True, id="at-most-so-many-slots"),
        pytest.param(Match(max_slots=2), {"slots": 3}, False, id="too-many-slots"),
        pytest.param(
            Match((Requirement("tier", "In", frozenset({"gold"})),)), {"labels": (("tier", "gold"),)}, True, id="label"
        ),
        pytest.param(Match((Requirement("tier", "In", frozenset({"gold"})),)), {}, False, id="no-label"),
        pytest.param(Match((Requirement("tier", "DoesNotExist"),)), {}, True, id="without-the-label"),
        pytest.param(
            Match((Requirement("tier", "Exists"), Requirement("zone", "Exists"))),
            {"labels": (("tier", "gold"),)},
            False,
            id="one-of-two-labels",
        ),
        pytest.param(Match(types=frozenset({"work"}), min_slots=2), {}, False, id="all-that-is-said-must-hold"),
    ],
)
def test_who_takes_a_route(match: Match, fields: dict[str, Any], expected: bool) -> None:
    task = replace(PLAIN, **fields)
    assert matches(match, task, dict(task.labels)) is expected


@pytest.mark.parametrize(
    ("fields", "number"),
    [
        pytest.param({"type": "rest"}, 0, id="the-first-that-matches"),
        pytest.param({}, 1, id="the-last-is-for-all"),
        pytest.param({"pool": "p"}, -1, id="none-for-one-that-names-its-pool"),
        pytest.param({"agent": "a"}, -1, id="none-for-one-that-names-its-agent"),
    ],
)
def test_which_route_is_taken(fields: dict[str, Any], number: int) -> None:
    ways = (Route("a", STEPS, Match(types=frozenset({"rest"}))), Route("b", STEPS))
    assert route_of(replace(make_queue().build(), routes=ways), replace(PLAIN, **fields)) == number


@pytest.mark.parametrize(
    ("waited", "last", "next_at"),
    [(0.0, 0, 110.0), (9.9, 0, 110.0), (10.0, 1, 130.0), (29.9, 1, 130.0), (30.0, 2, float("inf"))],
)
def test_steps_open_one_after_the_other(waited: float, last: int, next_at: float) -> None:
    assert reached(ROUTE, 100.0, 100.0 + waited) == last
    assert opens_at(ROUTE, last + 1, 100.0) == next_at


@pytest.mark.parametrize(
    ("step", "growing", "count"),
    [
        pytest.param(0, "p", 1, id="the-first-may-grow"),
        pytest.param(0, "q", 2, id="the-first-is-at-its-limit"),
        pytest.param(0, "", 3, id="all-are"),
        pytest.param(1, "p", 2, id="the-wait-is-over-for-the-second"),
        pytest.param(2, "pqr", 3, id="the-wait-is-over-for-all"),
    ],
)
def test_a_step_opens_when_none_before_it_may_grow(step: int, growing: str, count: int) -> None:
    assert opened(ROUTE, step, lambda pool: pool in growing) == count


def test_the_step_of_a_pool_is_the_first_that_has_it() -> None:
    twice = Route("way", (RouteStep(("p",)), RouteStep(("p", "q"))))
    assert [step_taken(twice, pool) for pool in "pqr"] == [("way", 1), ("way", 2), ("way", 0)]
    assert step_taken(None, "p") == ("", 0)


def test_a_task_waits_for_its_first_step_and_then_goes_on() -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 10.0)))
    world.agent("a-q", "q")
    world.told(PLAIN)
    assert world.starts() == []
    assert world.core.next_wake() == 10.0
    assert world.starts(9.9) == []
    assert world.starts(10.0) == [("t", "a-q", 2)]


def test_an_earlier_step_is_taken_first_even_if_it_is_busier() -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",))))
    world.told(PodSeen("a", NAMESPACE, "a", "p", 0.0), AgentReady(make_agent("a").slots(2).build()))
    world.agent("a-q", "q")
    world.told(*(replace(PLAIN, uid=uid, name=uid, created=float(uid)) for uid in "123"), now=3.0)
    assert world.starts(3.0) == [("1", "a", 1), ("2", "a", 1), ("3", "a-q", 2)]


def test_opened_steps_stay_open() -> None:
    """A Task whose wait has opened the second step goes to the first all the same, if that has room before."""
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 10.0)))
    world.told(PLAIN)
    assert world.starts(15.0) == []
    world.agent("a-p", "p", 15.0)
    world.agent("a-q", "q", 15.0)
    assert world.starts(15.0) == [("t", "a-p", 1)]


def test_a_pool_at_its_limit_opens_the_next_step_at_once() -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 1000.0)), most=1)
    world.agent("a-q", "q")
    world.told(PLAIN, replace(PLAIN, uid="u", name="u", created=1.0), now=1.0)
    assert world.starts(1.0) == [], "p may yet grow"
    world.agent("a-p", "p", 1.0)
    assert world.starts(1.0) == [("t", "a-p", 1), ("u", "a-q", 2)]


def test_a_step_closes_again_when_a_pool_before_it_may_grow_again() -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 1000.0)), most=1)
    world.agent("a-p", "p")
    world.told(PLAIN)
    assert world.starts() == [("t", "a-p", 1)]
    world.told(replace(PLAIN, uid="u", name="u", created=1.0), now=1.0)
    assert world.starts(1.0) == []
    world.told(PodGone("a-p"), TaskGone("t", Phase.FAILED), now=2.0)
    world.agent("a-q", "q", 2.0)
    assert world.starts(2.0) == []


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(PoolDeleted((NAMESPACE, "p")), id="gone"),
        pytest.param(PoolApplied(make_pool().fixed(0).build()), id="of-fixed-size-and-empty"),
        pytest.param(PoolApplied(make_pool().slots(1).elastic(0, 9).build()), id="too-small-for-the-task"),
    ],
)
def test_a_pool_that_is_unavailable_opens_the_next_step_at_once(event: Event) -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 1000.0)))
    world.told(AgentReady(make_agent("a").pool("q").slots(2).build()))
    world.told(event, replace(PLAIN, slots=2))
    assert world.starts() == [("t", "a", 2)]


def test_pools_grow_in_the_order_of_open_steps() -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 10.0)))
    world.told(*(replace(PLAIN, uid=f"t{number}", name=f"t{number}") for number in range(3)))
    assert world.wanted() == {"p": 2}, "q is not open yet"
    assert world.wanted(10.0) == {"q": 1}, "what p may not have, q gets"


def test_each_wait_begins_with_the_first_step() -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 10.0)))
    world.agent("a-q", "q")
    world.told(PLAIN)
    assert world.starts(10.0) == [("t", "a-q", 2)]
    world.told(AttemptFailed("t", Reason.HANDLER_ERROR, ""), now=11.0)
    world.told(replace(PLAIN, failures=1, not_before=12.0, attempted=True), now=11.0)
    assert world.starts(12.0) == []
    assert world.starts(21.9) == []
    assert world.starts(22.0) == [("t", "a-q", 2)]


def test_what_does_not_interrupt_a_wait_does_not_begin_it_anew() -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 10.0)))
    world.agent("a-q", "q")
    world.told(PLAIN)
    world.told(replace(PLAIN, priority=4), now=6.0)
    world.told(replace(PLAIN, priority=4, pool="r"), now=7.0)
    world.told(replace(PLAIN, priority=4), now=8.0)
    assert world.starts(10.0) == [("t", "a-q", 2)]


def test_after_a_restart_the_wait_counts_from_the_creation() -> None:
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 10.0)))
    world.agent("a-q", "q")
    world.told(replace(PLAIN, created=100.0), now=115.0)
    assert world.starts(115.0) == [("t", "a-q", 2)]


def test_a_task_of_an_earlier_step_overtakes_no_one_and_is_not_in_the_way() -> None:
    """The first in order may not use q yet: one behind it that may does, and the order of those that may both holds."""
    world = World(routed(RouteStep(("p",)), RouteStep(("q",), 10.0)))
    world.told(replace(PLAIN, uid="low", name="low", priority=1))
    world.told(replace(PLAIN, uid="high", name="high", priority=4, created=5.0), now=5.0)
    world.agent("a-q", "q", 10.0)
    assert world.starts(10.0) == [("low", "a-q", 2)]
    world.told(TaskGone("low", Phase.SUCCEEDED), replace(PLAIN, uid="next", name="next", created=11.0), now=11.0)
    assert world.starts(25.0) == [("high", "a-q", 2)]


def test_an_emergency_may_use_all_steps_and_all_other_pools_last() -> None:
    queue = routed(RouteStep(("p",)), RouteStep(("q",), 10.0), emergency=frozenset({"x"}))
    world = World(queue)
    for pool in "rq":
        world.agent(f"a-{pool}", pool)
    urgent = [replace(PLAIN, uid=uid, name=uid, priority=EMERGENCY, tenant="x") for uid in "12"]
    world.told(*urgent)
    assert world.starts() == [("1", "a-q", 2), ("2", "a-r", 0)]


def test_other_routes_of_the_queue_take_effect_on_those_that_wait() -> None:
    world = World(routed(RouteStep(("p",))))
    world.agent("a-q", "q")
    world.told(PLAIN)
    assert world.starts() == []
    world.told(QueueApplied(routed(RouteStep(("q",)))), now=1.0)
    assert world.starts(1.0) == [("t", "a-q", 1)]


# Strategies of steps.


LEAST, TURNS, PACK = Strategy.LEAST_LOADED, Strategy.ROUND_ROBIN, Strategy.PACK


class Steps:
    """A queue of strategy `own` with a step of pool `p` and one of pool `q`, each of two agents of two slots: `p1`,
    `p2`, `q1` and `q2`."""

    def __init__(self, *strategies: Strategy | None, own: Strategy = LEAST, **fields: Any) -> None:
        steps = [RouteStep((pool,), 0.0, word) for pool, word in zip("pq", strategies, strict=True)]
        self.world = World(routed(*steps, strategy=own, **fields))
        self.told = self.world.told
        self.told(*(PoolApplied(make_pool(pool).slots(2).fixed(2).build()) for pool in "pq"))
        for uid in ("p1", "p2", "q1", "q2"):
            self.told(AgentReady(make_agent(uid).pool(uid[0]).slots(2).build()))
        self.numbers = count()

    def runs(self, *agents: str) -> None:
        for agent in agents:
            uid = f"on-{agent}-{next(self.numbers)}"
            self.told(TaskLeased(replace(PLAIN, uid=uid, name=uid), agent))

    def starts(self, **fields: Any) -> tuple[str, str, float]:
        """The agent that the next Task is given, by which strategy, with which score."""
        uid = f"t{next(self.numbers)}"
        self.told(replace(PLAIN, uid=uid, name=uid, **fields))
        (found,) = [each for each in self.world.core.decide(0.0) if isinstance(each, Assign)]
        assert self.world.core.audit() == []
        return found.agent_uid, found.strategy.value, found.score


@pytest.mark.parametrize(
    ("first", "second", "own", "busy", "expected"),
    [
        pytest.param(PACK, None, LEAST, ["p2"], ("p2", "Pack", -0.5), id="the-first-step-s-word"),
        pytest.param(None, PACK, LEAST, ["p1"], ("p2", "LeastLoaded", 0.0), id="the-queue-s-where-it-says-nothing"),
        pytest.param(
            PACK,
            None,
            LEAST,
            ["p1", "p1", "p2", "p2", "q1"],
            ("q2", "LeastLoaded", 0.0),
            id="the-queue-s-in-the-second",
        ),
        pytest.param(
            None,
            PACK,
            LEAST,
            ["p1", "p1", "p2", "p2", "q1"],
            ("q1", "Pack", -0.5),
            id="the-second-step-s-where-first-is-full",
        ),
        pytest.param(PACK, PACK, LEAST, ["p1", "p1", "p2", "p2", "q2"], ("q2", "Pack", -0.5), id="both-alike"),
        pytest.param(Strategy.ADAPTIVE, PACK, PACK, ["p1"], ("p2", "Adaptive", 0.0), id="adaptive-by-a-step"),
    ],
)
def test_the_strategy_is_that_of_the_step_that_is_chosen_from(
    first: Strategy | None, second: Strategy | None, own: Strategy, busy: list[str], expected: tuple[str, str, float]
) -> None:
    steps = Steps(first, second, own=own)
    steps.runs(*busy)
    assert steps.starts() == expected


def test_what_takes_no_route_goes_by_the_queue_s_strategy() -> None:
    steps = Steps(PACK, PACK)
    steps.runs("p1")
    assert steps.starts(pool="p") == ("p2", "LeastLoaded", 0.0)
    assert steps.starts() == ("p1", "Pack", -0.5)


def test_an_emergency_beyond_the_steps_goes_by_the_queue_s_strategy() -> None:
    steps = Steps(PACK, PACK, emergency=frozenset({"x"}))
    steps.told(PoolApplied(make_pool("r").fixed(1).build()), AgentReady(make_agent("r1").pool("r").build()))
    steps.runs(*(uid for uid in ("p1", "p2", "q1", "q2") for _ in range(2)))
    assert steps.starts(priority=EMERGENCY, tenant="x") == ("r1", "LeastLoaded", 0.0)


def test_each_step_keeps_its_own_turns() -> None:
    """The one that is next in the first step is so whoever was picked in the second in between."""
    steps = Steps(TURNS, TURNS)
    assert steps.starts() == ("p1", "RoundRobin", 0.0)
    steps.runs("p1", "p2", "p2")
    assert [steps.starts()[0] for _ in range(3)] == ["q1", "q2", "q1"]
    steps.told(*(TaskGone(uid, Phase.SUCCEEDED) for uid in list(steps.world.core._tasks)))
    assert [steps.starts()[0] for _ in range(4)] == ["p2", "p1", "p2", "p1"]
    assert steps.starts()[0] == "q2"


def test_routes_that_share_pools_keep_their_own_turns() -> None:
    ways = [Route(name, (RouteStep(("p",), 0.0, TURNS),), Match(types=frozenset({name}))) for name in "ab"]
    steps = Steps(None, None)
    steps.told(QueueApplied(replace(make_queue().build(), routes=tuple(ways))))
    assert [steps.starts(type=name)[0] for name in "aabb"] == ["p1", "p2", "p1", "p2"]


def test_bounds_are_those_of_the_agents_that_compete() -> None:
    """The idle slots of a later step do not lower how far the agents of the first may be filled."""
    steps = Steps(Strategy.CONSISTENT_HASH, None)
    for number in range(9):
        uid = f"q{number}-more"
        steps.told(AgentReady(make_agent(uid).pool("q").slots(2).build()))
    home = steps.starts(sticky_key="k")[0]
    steps.runs(({"p1", "p2"} - {home}).pop())
    assert steps.starts(sticky_key="k") == (home, "ConsistentHash", 0.0)


def test_a_step_may_spread_over_zones() -> None:
    queue = routed(RouteStep(("p",), 0.0, Strategy.SPREAD))
    world = World(queue)
    for uid, zone in (("a", "z1"), ("b", "z1"), ("c", "z2")):
        world.told(AgentReady(make_agent(uid).zone(zone).build()))
    world.told(TaskLeased(replace(PLAIN, uid="x", name="x"), "a"), PLAIN)
    assert world.starts() == [("t", "c", 1)]


def test_another_strategy_of_a_step_takes_effect_at_once() -> None:
    steps = Steps(PACK, None)
    steps.runs("p1")
    steps.told(QueueApplied(routed(RouteStep(("p",), 0.0, Strategy.LEAST_LOADED))))
    assert steps.starts() == ("p2", "LeastLoaded", 0.0)


def test_turns_begin_anew_when_routes_change() -> None:
    steps = Steps(TURNS, None)
    assert [steps.starts()[0] for _ in range(2)] == ["p1", "p2"]
    steps.told(*(TaskGone(f"t{number}", Phase.SUCCEEDED) for number in range(2)))
    assert steps.starts()[0] == "p1"
    steps.told(QueueApplied(routed(RouteStep(("p",), 0.0, TURNS), RouteStep(("r",)))))
    assert steps.starts()[0] == "p1"


def test_the_strategy_follows_classes_of_agents_that_are_forgotten() -> None:
    """Classes that have no agents any more are dropped now and then, and with them perhaps all that a step has."""
    steps = Steps(PACK, TURNS)
    steps.runs("q1", "q1", "q2", "q2")
    steps.told(PodGone("p1"), PodGone("p2"), PLAIN)
    assert steps.world.starts() == []
    for number in range(300):
        away = make_agent("z").pool("r").resources(mem=number + 1).build()
        steps.told(AgentReady(replace(away, namespace="elsewhere")))
    steps.told(TaskGone("on-q2-2", Phase.SUCCEEDED))
    (found,) = [each for each in steps.world.core.decide(0.0) if isinstance(each, Assign)]
    assert (found.agent_uid, found.step, found.strategy) == ("q2", 2, TURNS)


# One agent.


def test_a_task_runs_on_the_agent_it_names_and_on_no_other() -> None:
    world = World(make_queue().pools("p").build())
    world.agent("a-p", "p")
    world.agent("b-q", "q")
    world.told(replace(PLAIN, agent="b-q"))
    assert world.starts() == [("t", "b-q", 0)], "of whichever pool"


def test_an_agent_that_is_not_there_is_waited_for_and_said() -> None:
    world = World(make_queue().pools("p").build())
    world.agent("a-p", "p")
    world.told(replace(PLAIN, agent="late"))
    assert world.starts() == []
    found = world.core.explain("t", 0.0)
    assert found is not None
    assert found.reason is Reason.AGENT_NOT_FOUND
    assert "agent late only" in found.message
    assert world.core.waiting_by_reason(0.0) == {((NAMESPACE, "q"), Reason.AGENT_NOT_FOUND): 1}
    assert world.wanted() == {}, "no other agent would help"
    world.agent("late", "p", 1.0)
    assert world.starts(1.0) == [("t", "late", 0)]


def test_an_agent_that_is_gone_is_not_there() -> None:
    world = World(make_queue().pools("p").build())
    world.agent("a-p", "p")
    world.told(replace(PLAIN, agent="a-p", suspended=True))
    world.told(PodGone("a-p"), replace(PLAIN, agent="a-p"), now=1.0)
    assert world.starts(1.0) == []
    found = world.core.explain("t", 1.0)
    assert found is not None
    assert found.reason is Reason.AGENT_NOT_FOUND


@pytest.mark.parametrize("pool", ["p", None])
def test_an_override_is_taken_back(pool: str | None) -> None:
    world = World(make_queue().pools("p").build())
    world.told(replace(PLAIN, agent="none", pool="r"))
    assert world.starts() == []
    world.told(replace(PLAIN, pool=pool), now=1.0)
    world.agent("a-p", "p", 1.0)
    assert world.starts(1.0) == [("t", "a-p", 0)]


def test_an_agent_of_another_pool_than_the_task_s_does_not_do() -> None:
    world = World(make_queue().pools("p").build())
    world.agent("a-q", "q")
    world.told(replace(PLAIN, agent="a-q", pool="p"))
    assert world.starts() == []
    found = world.core.explain("t", 0.0)
    assert found is not None
    assert (found.reason, "in pool p" in found.message) == (Reason.AGENT_NOT_FOUND, True)


def test_agents_that_are_named_are_told_from_others_and_no_one_else_is() -> None:
    world = World(make_queue().pools("p").build(), most=99)
    for number in range(20):
        world.agent(f"a{number}", "p")
    world.told(
        replace(PLAIN, agent="a7", suspended=True), replace(PLAIN, uid="u", name="u", agent="a7", suspended=True)
    )
    assert len(world.core._catalogue.classes) == 2
