"""Circuit breakers and slow starts: who gets less than they offer, for how long, and never too many at once."""

import itertools
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from taskdist.api import BreakerState, Phase, Reason
from taskdist.core import Core
from taskdist.core.agents.circuit_breaker import Votes, most_open, open_seconds
from taskdist.core.decisions import Assign, BreakerTurned, Decision
from taskdist.core.events import (
    AgentNotReady,
    AgentReady,
    AttemptFailed,
    PodGone,
    PodSeen,
    PoolApplied,
    PoolDeleted,
    QueueApplied,
    TaskGone,
    TaskWaiting,
)
from taskdist.core.model import Breaker, Pool

KEY = (NAMESPACE, "p")
OPEN, HALF, CLOSED = BreakerState.OPEN, BreakerState.HALF_OPEN, BreakerState.CLOSED
RULES = Breaker(min_attempts=3, open_seconds=10.0, max_open_seconds=40.0, probes=2)


class World:
    """Agents `a`, `b`, … of a pool; Tasks name the agent that they want by its label."""

    def __init__(self, agents: int, slots: int = 1, **rules: Any) -> None:
        self.core, self.now = Core(), 0.0
        self.numbers = itertools.count()
        self.turned: list[BreakerTurned] = []
        self.pool = replace(make_pool().slots(slots).fixed(agents).build(), **({"breaker": RULES} | rules))
        self.core.handle(QueueApplied(make_queue().build()), 0.0)
        self.core.handle(PoolApplied(self.pool), 0.0)
        self.agents = [chr(ord("a") + n) for n in range(agents)]
        for uid in self.agents:
            self.join(uid)

    def join(self, uid: str) -> None:
        self.core.handle(PodSeen(uid, NAMESPACE, uid, "p", self.now), self.now)
        self.ready(uid)

    def ready(self, uid: str) -> None:
        self.core.handle(AgentReady(make_agent(uid).slots(self.pool.slots).labels(name=uid).build()), self.now)

    def apply(self, **rules: Any) -> None:
        self.pool = replace(self.pool, **rules)
        self.core.handle(PoolApplied(self.pool), self.now)

    def decided(self) -> list[Assign]:
        decisions: list[Decision] = self.core.decide(self.now)
        self.turned += [each for each in decisions if isinstance(each, BreakerTurned)]
        assert self.core.audit() == []
        return [each for each in decisions if isinstance(each, Assign)]

    def wants(self, agent: str, type: str = "work", failures: int = 0) -> str:
        uid = f"t{next(self.numbers)}"
        task = make_task(uid).type(type).selector("name", "In", agent).created(self.now).failures(failures)
        self.core.handle(TaskWaiting(task.build()), self.now)
        return uid

    def starts(self, agent: str, type: str = "work", failures: int = 0) -> str | None:
        """A Task for this agent; its uid if it is given there."""
        uid = self.wants(agent, type, failures)
        if [each.agent_uid for each in self.decided() if each.task_uid == uid] == [agent]:
            return uid
        self.core.handle(TaskGone(uid), self.now)
        return None

    def ends(self, uid: str, well: bool, counted: bool = True) -> None:
        if not well:
            self.core.handle(AttemptFailed(uid, Reason.HANDLER_ERROR, "boom", counted=counted), self.now)
        self.core.handle(TaskGone(uid, Phase.SUCCEEDED if well else Phase.FAILED), self.now)

    def tries(self, agent: str, well: bool, times: int = 1, **task: Any) -> None:
        """So many attempts on the agent, a second each."""
        for _ in range(times):
            uid = self.starts(agent, **task)
            assert uid is not None, f"{agent} gets nothing"
            self.now += 1.0
            self.ends(uid, well)

    def passes(self, seconds: float) -> None:
        self.now += seconds
        self.decided()

    def breakers(self) -> dict[str, BreakerState]:
        self.decided()
        return {each.uid: each.state for each in self.core.breakers(KEY)}


def failing(agents: int = 11, **rules: Any) -> World:
    """All others did well, and the breaker of `a` has just opened."""
    world = World(agents, **rules)
    for uid in world.agents[1:]:
        world.tries(uid, True)
    while "a" not in world.breakers():
        world.tries("a", False)
    return world


def failures_until_open(world: World) -> int:
    """Let `a` fail until a breaker opens; how often it did."""
    for n in range(1, 20):
        world.tries("a", False)
        if world.breakers():
            return n
    pytest.fail("no breaker opens")


# The rule.


def test_one_that_fails_where_others_succeed_gets_nothing() -> None:
    world = World(4)
    for uid in "bcd":
        world.tries(uid, True)
    world.tries("a", False, 3)
    assert world.breakers() == {}, "the three that speak against it weigh 3 × (1 − 1/4)"
    world.tries("a", False)
    assert world.breakers() == {"a": OPEN}
    assert world.starts("a") is None
    assert [(each.agent_name, each.pool, each.state, each.reason) for each in world.turned] == [
        ("a", KEY, OPEN, Reason.BREAKER_OPEN)
    ]
    assert world.turned[0].message == (
        "Agent a: 4 of its last 4 attempts failed, where other agents of the pool succeed; it gets no Tasks for 10 s."
    )


def everywhere(world: World) -> None:
    for _ in range(20):
        for uid in world.agents:
            world.tries(uid, False)


def alone(world: World) -> None:
    for uid in world.agents[1:]:
        world.tries(uid, True, 5)
    world.tries("a", False, 20, type="rare")


def by_chance(world: World) -> None:
    for n in range(30):
        for uid in world.agents:
            world.tries(uid, n % 3 == 0)


def one_task_again_and_again(world: World) -> None:
    for uid in world.agents[1:]:
        world.tries(uid, True, 5)
    world.tries("a", False)
    world.tries("a", False, 20, failures=1)


def given_back(world: World) -> None:
    for uid in world.agents[1:]:
        world.tries(uid, True, 5)
    for _ in range(20):
        started = world.starts("a")
        assert started is not None
        world.ends(started, False, counted=False)


def long_ago(world: World) -> None:
    for _ in range(10):
        for uid in world.agents[1:]:
            world.tries(uid, True)
        world.tries("a", False)
        world.passes(400.0)


def half_of_it(world: World) -> None:
    for uid in world.agents[1:]:
        world.tries(uid, True, 5)
    for n in range(40):
        world.tries("a", n % 2 == 0)


def switched_off(world: World) -> None:
    world.apply(breaker=None)
    for uid in world.agents[1:]:
        world.tries(uid, True, 5)
    world.tries("a", False, 20)


@pytest.mark.parametrize(
    "story",
    [everywhere, alone, by_chance, one_task_again_and_again, given_back, long_ago, half_of_it, switched_off],
    ids=lambda story: story.__name__.replace("_", "-"),
)
def test_no_breaker_opens(story: Any) -> None:
    world = World(4)
    story(world)
    assert world.breakers() == {}
    assert world.turned == []


def test_one_that_draws_most_of_the_work_does_not_outvote_the_others() -> None:
    world = World(4)
    for uid in "bcd":
        world.tries(uid, True)
    opened = failures_until_open(world)
    busy = World(4)
    for uid in "bcd":
        busy.tries(uid, True)
    busy.tries("a", True, 500)
    again = failures_until_open(busy)
    assert (opened, again) == (4, 9), "of its last ten attempts, that is"


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.booleans(), st.floats(0, 40)), max_size=60))
def test_votes_are_the_last_of_each_within_the_window(cast: list[tuple[str, bool, float]]) -> None:
    votes, last, now = Votes(), dict[str, tuple[float, bool]](), 0.0
    for uid, failed, later in cast:
        now += later
        votes.cast(uid, failed, now)
        last.pop(uid, None)
        last[uid] = (now, failed)
        for other in [each for each, (at, _) in last.items() if at < now - 100.0]:
            del last[other]
        for uid in "abcde":
            others = [failed for each, (_, failed) in last.items() if each != uid]
            assert votes.odds(uid, now, 100.0) == (1 + sum(others)) / (1 + len(others))


# What it does then.


def test_after_its_time_it_is_probed_with_one_task_at_a_time() -> None:
    world = failing(slots=3)
    assert world.core.next_wake() == world.now + 10.0
    world.passes(9.0)
    assert world.breakers() == {"a": OPEN}
    world.passes(1.0)
    assert world.breakers() == {"a": HALF}
    probe = world.starts("a")
    assert probe is not None
    assert world.starts("a") is None
    world.now += 1.0
    world.ends(probe, True)
    assert world.breakers() == {"a": HALF}
    world.tries("a", True)
    assert world.breakers() == {}
    assert world.turned[-1].reason is Reason.BREAKER_CLOSED
    assert [world.starts("a") is not None for _ in range(4)] == [True, True, True, False]


def test_each_failed_probe_doubles_the_time_up_to_the_bound() -> None:
    world = failing()
    waited = []
    for _ in range(4):
        since = world.now
        while world.breakers() != {"a": HALF}:
            wake = world.core.next_wake()
            assert wake is not None
            world.now = wake
        waited.append(world.now - since)
        world.tries("a", False)
    assert waited == [10.0, 20.0, 40.0, 40.0]
    assert [open_seconds(RULES, times) for times in (1, 2, 3, 4, 10_000)] == [10.0, 20.0, 40.0, 40.0, 40.0]


@pytest.mark.parametrize(("agents", "failures"), [(11, 1), (4, 2), (2, 4)])
def test_probes_that_fail_are_judged_by_the_others(agents: int, failures: int) -> None:
    """With so many others, all of whom did well, it is (1 ÷ agents)^failures that comes to a tenth or less."""
    world = failing(agents, breaker=replace(RULES, min_attempts=5))
    world.passes(10.0)
    world.tries("a", False, failures - 1)
    assert world.breakers() == {"a": HALF}
    world.tries("a", False)
    assert world.breakers() == {"a": OPEN}
    world.passes(20.0)
    world.tries("a", False, failures - 1)
    world.tries("a", True)
    world.tries("a", False, failures - 1)
    assert world.breakers() == {"a": HALF}, "a success takes the doubt"
    world.tries("a", True)
    assert world.breakers() == {}


def test_a_probe_that_failed_elsewhere_before_says_nothing_by_failing() -> None:
    world = failing()
    world.passes(10.0)
    world.tries("a", False, failures=1)
    assert world.breakers() == {"a": HALF}
    world.tries("a", True, 2, failures=1)
    assert world.breakers() == {}


def test_what_it_ran_before_is_no_probe() -> None:
    world = World(4, slots=2)
    for uid in "bcd":
        world.tries(uid, True)
    long = world.starts("a")
    assert long is not None
    while "a" not in world.breakers():
        world.tries("a", False)
    world.passes(10.0)
    assert world.breakers() == {"a": HALF}
    world.ends(long, False)
    assert world.breakers() == {"a": HALF}


def test_a_closed_one_begins_anew() -> None:
    world = failing()
    world.passes(10.0)
    world.tries("a", True, 2)
    world.tries("a", False, 3)
    assert world.breakers() == {}
    world.tries("a", False)
    assert world.breakers() == {"a": OPEN}
    assert "for 10 s" in world.turned[-1].message


@pytest.mark.parametrize("how", ["off", "pool gone"])
def test_without_rules_all_close(how: str) -> None:
    world = failing()
    if how == "off":
        world.apply(breaker=None)
        assert world.starts("a") is not None
        assert world.turned[-1].state is CLOSED
    else:
        world.core.handle(PoolDeleted(KEY), world.now)
        assert world.breakers() == {}


def test_one_that_is_gone_is_forgotten() -> None:
    world = failing()
    world.core.handle(AgentNotReady("a"), world.now)
    world.core.handle(PodGone("a"), world.now)
    assert world.breakers() == {}
    world.join("a")
    assert world.starts("a") is not None


def test_it_keeps_its_breaker_while_it_is_not_connected() -> None:
    world = failing()
    world.core.handle(AgentNotReady("a"), world.now)
    assert world.breakers() == {"a": OPEN}
    world.ready("a")
    assert world.starts("a") is None


# The bound.


@pytest.mark.parametrize(
    ("agents", "percent", "held"), [(1, 50, 0), (2, 50, 1), (3, 50, 1), (4, 50, 2), (4, 90, 3), (4, 24, 0), (4, 25, 1)]
)
def test_never_more_than_the_bound(agents: int, percent: int, held: int) -> None:
    rules = replace(RULES, most_open_percent=percent)
    assert most_open(rules, agents) == held
    world = World(agents, breaker=rules)
    # The last always does well: there is somebody to compare with.
    for bad in world.agents[:-1]:
        for other in world.agents:
            if other != bad and other not in world.breakers():
                world.tries(other, True, type=bad)
        for _ in range(20):
            if bad not in world.breakers():
                world.tries(bad, False, type=bad)
            assert len(world.breakers()) <= held
    assert len(world.breakers()) == held


def test_where_fewer_are_left_those_that_opened_least_are_let_go() -> None:
    world = failing(4)
    world.passes(10.0)
    world.tries("a", False, 2)  # it opens twice in a row
    while "b" not in world.breakers():
        world.tries("c", True)
        world.tries("d", True)
        world.tries("b", False)
    assert world.breakers().keys() == {"a", "b"}
    world.core.handle(AgentNotReady("d"), world.now)
    assert world.breakers().keys() == {"a"}
    assert world.turned[-1].message.startswith("Agent b: too few other agents of its pool are ready")


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("fails"), st.sampled_from("abcde"), st.integers(1, 10)),
        st.tuples(st.just("does well"), st.sampled_from("abcde"), st.integers(1, 3)),
        st.tuples(st.just("leaves"), st.sampled_from("abcde"), st.just(1)),
        st.tuples(st.just("comes"), st.sampled_from("abcde"), st.just(1)),
        st.tuples(st.just("dies"), st.sampled_from("abcde"), st.just(1)),
        st.tuples(st.just("passes"), st.just(""), st.sampled_from((1, 10, 700))),
    ),
    max_size=40,
)


@given(STEPS, st.integers(1, 3), st.sampled_from((20, 50, 90)))
def test_whatever_happens_the_bound_holds_and_the_books_agree(
    steps: list[tuple[str, str, int]], slots: int, percent: int
) -> None:
    world = World(5, slots=slots, breaker=replace(RULES, most_open_percent=percent, failure_ratio=0.5))
    ready = set(world.agents)
    for uid in world.agents:
        world.tries(uid, True)
    for what, uid, number in steps:
        match what:
            case "fails" | "does well":
                for _ in range(number):
                    task = world.starts(uid)
                    world.now += 1.0
                    if task is not None:
                        assert uid in ready
                        assert world.breakers().get(uid) is not OPEN
                        world.ends(task, what == "does well")
            case "leaves":
                world.core.handle(AgentNotReady(uid), world.now)
                ready.discard(uid)
            case "comes":
                world.join(uid)
                ready.add(uid)
            case "dies":
                world.core.handle(PodGone(uid), world.now)
                ready.discard(uid)
            case _:
                world.passes(number)
        held = world.breakers().keys() & ready
        assert len(held) <= len(ready) * percent // 100


# Slow starts.


def test_a_new_agent_gets_its_slots_one_after_the_other() -> None:
    world = World(1, slots=5, slow_start=40.0)
    found = []
    for _ in range(6):
        given = 0
        while world.starts("a") is not None:
            given += 1
        found.append((world.now, given))
        wake = world.core.next_wake()
        world.now = wake if wake is not None else world.now
    assert found == [(0.0, 1), (10.0, 1), (20.0, 1), (30.0, 1), (40.0, 1), (40.0, 0)]
    assert world.core.next_wake() is None


def test_it_is_new_once_and_not_if_it_is_older_than_this_life() -> None:
    world = World(1, slots=3, slow_start=40.0)
    world.apply(minimum=2, maximum=2)
    world.passes(40.0)
    world.core.handle(AgentNotReady("a"), world.now)
    world.ready("a")
    assert [world.starts("a") is not None for _ in range(3)] == [True, True, True]
    world.core.handle(PodSeen("old", NAMESPACE, "old", "p", -1.0), world.now)
    world.ready("old")
    assert [world.starts("old") is not None for _ in range(3)] == [True, True, True]


@pytest.mark.parametrize(("slots", "slow"), [(1, 40.0), (3, 0.0)])
def test_nothing_to_ramp(slots: int, slow: float) -> None:
    world = World(1, slots=slots, slow_start=slow)
    assert [world.starts("a") is not None for _ in range(slots)] == [True] * slots
    assert world.core.next_wake() is None


def test_switched_off_it_gets_all() -> None:
    world = World(1, slots=3, slow_start=40.0)
    world.apply(slow_start=0.0)
    assert [world.starts("a") is not None for _ in range(3)] == [True, True, True]


@given(st.integers(2, 1000), st.floats(0.01, 3600), st.floats(0, 2_000_000_000))
def test_a_ramp_comes_to_its_end(slots: int, seconds: float, begins: float) -> None:
    core = Core()
    core.handle(QueueApplied(make_queue().build()), begins)
    core.handle(PoolApplied(Pool(NAMESPACE, "p", slots, maximum=1, slow_start=seconds)), begins)
    core.handle(PodSeen("a", NAMESPACE, "a", "p", begins), begins)
    core.handle(AgentReady(make_agent("a").slots(slots).build()), begins)
    core.decide(begins)
    looks = 0
    while (wake := core.next_wake()) is not None:
        looks += 1
        core.decide(wake)
        assert looks <= 2 * slots
    assert core.breakers(KEY) == ()
    assert core.audit() == []


# What is said of it.


def test_a_task_that_waits_for_such_an_agent_alone_says_so() -> None:
    world = failing()
    uid = world.wants("a")
    world.decided()
    found = world.core.explain(uid, world.now)
    assert found is not None
    assert found.reason is Reason.BREAKER_OPEN
    assert found.message == (
        "The agents of pool p that may run it fail where others succeed, and are held by their circuit breakers: a."
    )
    assert ("held by their circuit breakers", 1) in found.rejections
    assert found.command == "kubectl get pods -n ns -l taskdist.dev/pool=p"
    assert world.core.waiting_by_reason(world.now) == {((NAMESPACE, "q"), Reason.BREAKER_OPEN): 1}


def test_where_others_are_busy_it_is_counted_among_the_rejections() -> None:
    world = failing()
    for uid in world.agents[1:]:
        assert world.starts(uid) is not None
    core = world.core
    core.handle(TaskWaiting(make_task("any").created(world.now).build()), world.now)
    world.decided()
    found = core.explain("any", world.now)
    assert found is not None
    assert found.reason is Reason.QUEUED
    assert found.rejections == (("held by their circuit breakers", 1),)


def test_slots_that_are_kept_back_are_not_called_free() -> None:
    world = World(1, slots=4, slow_start=60.0)
    assert world.starts("a") is not None
    uid = world.wants("a")
    world.decided()
    found = world.core.explain(uid, world.now)
    assert found is not None
    assert found.reason is Reason.SLOW_START
    assert found.message == "3 of 4 slots of pool p are kept back: 1 agents are new, and starting slowly."
    assert found.rejections == (("new, and starting slowly", 1),)


def test_of_one_that_is_probed() -> None:
    world = failing(slots=4)
    world.passes(10.0)
    assert world.starts("a") is not None
    uid = world.wants("a")
    world.decided()
    found = world.core.explain(uid, world.now)
    assert found is not None
    assert found.reason is Reason.BREAKER_OPEN
    assert "1 agents are probed by their circuit breakers, one Task at a time" in found.message
