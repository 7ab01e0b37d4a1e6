"""How one agent is picked: each strategy by cases, against its theory, and at a bounded cost."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import AgentBuilder, PoolBuilder, QueueBuilder, TaskBuilder, make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase, Reason, Strategy
from taskdist.core import Core
from taskdist.core.agents.rings import HashRing, Roll, around, round_from
from taskdist.core.decisions import Assign
from taskdist.core.events import (
    AgentReady,
    AttemptFailed,
    PodGone,
    PoolApplied,
    QueueApplied,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.placement.pickers import BOUND

PLENTY = 999


def core_of(
    queue: QueueBuilder, agents: Sequence[AgentBuilder], *pools: PoolBuilder, busy: dict[str, int] | None = None
) -> Core:
    core = Core()
    for pool in pools or [make_pool().slots(64).fixed(PLENTY)]:
        core.handle(PoolApplied(pool.build()), 0.0)
    core.handle(QueueApplied(queue.build()), 0.0)
    for agent in agents:
        core.handle(AgentReady(agent.build()), 0.0)
    for uid, slots in (busy or {}).items():
        core.handle(TaskLeased(make_task(f"on-{uid}").slots(slots).build(), uid), 0.0)
    return core


def run(core: Core, task: TaskBuilder, now: float = 0.0) -> Assign:
    """Let the Task start."""
    core.handle(TaskWaiting(task.created(now).build()), now)
    (found,) = [each for each in core.decide(now) if isinstance(each, Assign)]
    assert core.audit() == []
    return found


def passing(core: Core, task: TaskBuilder, now: float = 0.0) -> Assign:
    """Let the Task start and end at once."""
    found = run(core, task, now)
    core.handle(TaskGone(found.task_uid, Phase.SUCCEEDED), now)
    return found


def granted(core: Core, now: float) -> list[str]:
    """Decide, and return the agents that were given a Task."""
    return [each.agent_uid for each in core.decide(now) if isinstance(each, Assign)]


def by(strategy: Strategy) -> QueueBuilder:
    return make_queue().strategy(strategy)


def agents(number: int, slots: int = 4) -> list[AgentBuilder]:
    return [make_agent(f"a{n:03}").slots(slots) for n in range(number)]


THREE = [make_agent(name).slots(4) for name in "abc"]
ZONES = [make_agent("a").slots(4).zone("z1"), make_agent("b").slots(4).zone("z1"), make_agent("c").slots(4).zone("z2")]
CHEAP, DEAR = (
    make_pool().slots(4).fixed(9).worth(cost_per_hour=1.0),
    make_pool("dear").slots(4).fixed(9).worth(cost_per_hour=3.0),
)
FRUGAL = make_pool().slots(4).fixed(9).worth(watts_busy=90.0, watts_idle=50.0)
GREEDY = make_pool("dear").slots(4).fixed(9).worth(watts_busy=100.0, watts_idle=20.0)
BOTH = ("p", "dear")
TWO_POOLS = [make_agent("a").slots(4).pool("dear"), make_agent("b").slots(4)]


@pytest.mark.parametrize(
    ("strategy", "members", "busy", "task", "expected", "says"),
    [
        pytest.param(Strategy.LEAST_LOADED, THREE, {"a": 2, "b": 1, "c": 3}, "t", "b", "1 of its 4", id="least-loaded"),
        pytest.param(Strategy.PACK, THREE, {"a": 2, "b": 1, "c": 3}, "t", "c", "fullest", id="pack"),
        pytest.param(Strategy.PACK, THREE, {"a": 2, "b": 1, "c": 4}, "t", "a", "fullest", id="pack-where-room-is"),
        pytest.param(Strategy.PACK, THREE, {"a": 2, "b": 1, "c": 3}, "two", "a", "fullest", id="pack-what-is-large"),
        pytest.param(Strategy.SPREAD, ZONES, {"a": 3, "c": 1}, "t", "c", "25% of its zone", id="spread-over-zones"),
        pytest.param(Strategy.SPREAD, ZONES, {"a": 1, "c": 1}, "t", "b", "12% of its zone", id="spread-in-a-zone"),
        pytest.param(Strategy.ZONE_AWARE, ZONES, {"a": 3, "b": 3}, "z1", "a", "nearest zone", id="zone-if-it-fits"),
        pytest.param(Strategy.ZONE_AWARE, ZONES, {"a": 4, "b": 4}, "z1", "c", "full", id="zone-spills-when-full"),
        pytest.param(Strategy.ZONE_AWARE, ZONES, {"c": 3}, "z2", "c", "nearest zone", id="zone-in-the-task-s-order"),
        pytest.param(Strategy.ROUND_ROBIN, THREE, {"a": 4}, "t", "b", "after 1 without", id="round-robin-skips-full"),
    ],
)
def test_choice(
    strategy: Strategy, members: list[AgentBuilder], busy: dict[str, int], task: str, expected: str, says: str
) -> None:
    tasks = {
        "t": make_task("t"),
        "two": make_task("t").slots(2),
        "z1": make_task("t").placed(zones=("z1", "z2")),
        "z2": make_task("t").placed(zones=("z2", "z1")),
    }
    found = run(core_of(by(strategy), members, busy=busy), tasks[task])
    assert (found.agent_uid, found.strategy) == (expected, strategy)
    assert found.message.startswith(f"{strategy.value}: ")
    assert says in found.message


@pytest.mark.parametrize(
    ("strategy", "pools", "busy", "expected"),
    [
        pytest.param(Strategy.COST, (CHEAP, DEAR), {"b": 3}, "b", id="the-cheap-one-however-full"),
        pytest.param(Strategy.COST, (CHEAP, DEAR), {"b": 4}, "a", id="the-dear-one-when-full"),
        pytest.param(Strategy.COST, (DEAR.worth(cost_per_hour=0.5), CHEAP), {}, "a", id="by-cost-not-by-name"),
        pytest.param(Strategy.ENERGY, (FRUGAL, GREEDY), {"a": 1}, "b", id="least-watts-added"),
        pytest.param(Strategy.ENERGY, (FRUGAL.elastic(0, 9), GREEDY), {"a": 1}, "a", id="waking-one-costs-its-idling"),
        pytest.param(Strategy.ENERGY, (FRUGAL.elastic(0, 9), GREEDY), {"b": 1}, "b", id="one-that-is-awake-does-not"),
    ],
)
def test_choice_by_what_pools_say(
    strategy: Strategy, pools: Sequence[PoolBuilder], busy: dict[str, int], expected: str
) -> None:
    found = run(core_of(by(strategy).pools(*BOTH), TWO_POOLS, *pools, busy=busy), make_task("t"))
    assert found.agent_uid == expected


def test_a_pool_s_new_price_counts_at_once() -> None:
    core = core_of(by(Strategy.COST).pools(*BOTH), TWO_POOLS, CHEAP, DEAR)
    assert passing(core, make_task("t1")).agent_uid == "b"
    core.handle(PoolApplied(DEAR.worth(cost_per_hour=0.5).build()), 0.0)
    assert passing(core, make_task("t2")).agent_uid == "a"


def test_adaptive_keeps_scarce_skills_for_those_who_need_them() -> None:
    members = [
        make_agent("a").slots(2).skills("gpu", "io"),
        make_agent("b").slots(2).skills("io"),
        make_agent("c").slots(2).skills("io"),
    ]
    core = core_of(make_queue(), members)
    # As long as nobody asks for a skill, none is scarce.
    assert run(core, make_task("t0")).agent_uid == "a"
    core.handle(TaskGone("t0"), 0.0)
    core.handle(TaskWaiting(make_task("g").skills("gpu").suspended().build()), 0.0)
    assert [run(core, make_task(f"t{n}"), float(n)).agent_uid for n in range(1, 7)] == ["b", "c", "c", "b", "a", "a"]


@pytest.mark.parametrize("strategy", [each for each in Strategy if each is not Strategy.CONSISTENT_HASH])
def test_a_sticky_key_goes_where_it_was_last(strategy: Strategy) -> None:
    core = core_of(by(strategy), agents(8, 2))
    home = run(core, make_task("t0").sticky("k")).agent_uid
    assert run(core, make_task("t1").sticky("k")).agent_uid == home
    # Full: another takes it, and has it from then on.
    other = run(core, make_task("t2").sticky("k")).agent_uid
    assert other != home
    core.handle(TaskGone("t0", Phase.SUCCEEDED), 0.0)
    assert run(core, make_task("t3").sticky("k")).agent_uid == other
    core.handle(PodGone(other), 0.0)
    assert run(core, make_task("t4").sticky("k")).agent_uid != other


def test_affinity_keeps_types_where_their_like_ran() -> None:
    core = core_of(by(Strategy.AFFINITY), agents(3, 2))
    homes = {kind: passing(core, make_task(f"first-{kind}").type(kind)).agent_uid for kind in "xy"}
    for number in range(6):
        kind = "xy"[number % 2]
        found = passing(core, make_task(f"t{number}").type(kind), float(number))
        assert found.agent_uid == homes[kind]
        assert f"it had the last Task of type {kind}" in found.message


@pytest.mark.parametrize("strategy", list(Strategy))
def test_what_is_preferred_goes_before_any_strategy(strategy: Strategy) -> None:
    members = [make_agent(f"a{n}").slots(2).labels(disk="ssd" if n == 2 else "hdd", gpu=str(n % 2)) for n in range(4)]
    core = core_of(by(strategy), members)
    task = make_task("t").prefers("disk", "ssd", 3).prefers("gpu", "1", 2)
    first = [run(core, task.named(f"t{n}")) for n in range(4)]
    assert [each.agent_uid for each in first[:2]] == ["a2", "a2"], "the heavier of the two preferences"
    assert {each.agent_uid for each in first[2:]} <= {"a1", "a3"}, "then those that meet the other"
    assert "preferences of weight 3" in first[0].message
    assert "preferences of weight 2" in first[2].message


# Waiting for what is preferred.


def test_a_task_waits_for_what_it_prefers_and_then_goes_anywhere() -> None:
    core = core_of(make_queue(), [make_agent("a").labels(disk="hdd")])
    core.handle(TaskWaiting(make_task("t").prefers("disk", "ssd", wait=5.0).build()), 0.0)
    assert granted(core, 0.0) == []
    found = core.explain("t", 2.0)
    assert found is not None
    assert found.reason is Reason.AFFINITY_WAIT
    assert "In 3 s, at 1970-01-01T00:00:05Z, any other will do." in found.message
    assert core.waiting_by_reason(2.0) == {(("ns", "q"), Reason.AFFINITY_WAIT): 1}
    assert core.next_wake() == 5.0
    assert granted(core, 4.999) == []
    assert granted(core, 5.0) == ["a"]
    assert core.audit() == []


def test_an_agent_that_is_preferred_is_taken_at_once() -> None:
    core = core_of(make_queue(), [make_agent("a").labels(disk="hdd"), make_agent("b").labels(disk="ssd")])
    task = make_task("t").prefers("disk", "ssd", wait=5.0)
    assert run(core, task.named("t1")).agent_uid == "b"
    core.handle(TaskWaiting(task.named("t2").build()), 0.0)
    assert core.decide(0.0) == []
    found = core.explain("t2", 0.0)
    assert found is not None
    assert found.reason is Reason.AFFINITY_WAIT
    assert "1 slots are free on others" in found.message
    core.handle(TaskGone("t1", Phase.SUCCEEDED), 1.0)
    assert granted(core, 1.0) == ["b"]


def test_each_wait_for_what_is_preferred_is_as_long() -> None:
    core = core_of(make_queue(), [make_agent("a").labels(disk="hdd")])
    task = make_task("t").prefers("disk", "ssd", wait=5.0)
    core.handle(TaskWaiting(task.build()), 0.0)
    assert granted(core, 5.0) == ["a"]
    core.handle(AttemptFailed("t", Reason.HANDLER_ERROR, "boom"), 6.0)
    core.handle(TaskWaiting(task.failures(1).build()), 6.0)
    assert granted(core, 10.9) == []
    assert granted(core, 11.0) == ["a"]


def test_the_end_of_the_wait_does_not_let_go_what_is_held_otherwise() -> None:
    core = core_of(make_queue(), [make_agent("a").labels(disk="hdd")])
    task = make_task("t").prefers("disk", "ssd", wait=5.0).build()
    core.handle(TaskWaiting(task), 0.0)
    core.handle(TaskHeld(task, Reason.RECOVERING), 1.0)
    assert granted(core, 6.0) == []
    core.handle(TaskWaiting(task), 7.0)
    assert granted(core, 7.0) == ["a"]


def test_a_new_leader_does_not_let_it_wait_anew() -> None:
    core = core_of(make_queue(), [make_agent("a").labels(disk="hdd")])
    core.handle(TaskWaiting(make_task("t").prefers("disk", "ssd", wait=5.0).created(100.0).build()), 106.0)
    assert granted(core, 106.0) == ["a"]


# Turns.


def strays(picks: Sequence[str], weights: dict[str, int]) -> tuple[float, float]:
    """Return by how much the picks stray from the exact proportion: from the first on, and in the worst window."""
    whole, first, window = sum(weights.values()), 0.0, 0.0
    for uid, weight in weights.items():
        count, found = 0, [0.0]
        for number, pick in enumerate(picks, 1):
            count += pick == uid
            found.append(count - number * weight / whole)
        first = max(first, max(map(abs, found)))
        window = max(window, max(found) - min(found))
    return first, window


@pytest.mark.parametrize("slots", [(5, 1, 1), (1, 1, 1, 1), (8, 4, 2, 1, 1), (3, 5, 7, 11, 13), (16, *[2] * 5, 1)])
def test_smooth_weighted_never_strays_by_a_whole_pick(slots: tuple[int, ...]) -> None:
    weights = {f"a{n}": each for n, each in enumerate(slots)}
    core = core_of(by(Strategy.SMOOTH_WEIGHTED), [make_agent(uid).slots(each) for uid, each in weights.items()])
    picks = [passing(core, make_task(f"t{n}"), float(n)).agent_uid for n in range(10 * sum(slots))]
    first, window = strays(picks, weights)
    assert first <= 1 - 1 / (2 * len(slots) - 2) + 1e-9, "Tijdeman's bound"
    assert window < 2


@settings(deadline=None, max_examples=40)
@given(st.lists(st.integers(1, 9), min_size=2, max_size=9))
def test_smooth_weighted_keeps_its_bound_for_any_weights(slots: list[int]) -> None:
    weights = {f"a{n}": each for n, each in enumerate(slots)}
    core = core_of(by(Strategy.SMOOTH_WEIGHTED), [make_agent(uid).slots(each) for uid, each in weights.items()])
    picks = [passing(core, make_task(f"t{n}"), float(n)).agent_uid for n in range(3 * sum(slots))]
    assert strays(picks, weights)[0] <= 1 - 1 / (2 * len(slots) - 2) + 1e-9
    assert Counter(picks) == {uid: 3 * each for uid, each in weights.items()}


def test_smooth_weighted_forgets_no_agent_of_many() -> None:
    """What more than a thousand agents are owed is kept, and what those are owed that are no more is not."""
    core = core_of(by(Strategy.SMOOTH_WEIGHTED), agents(1_200, slots=1), make_pool().fixed(1_200))
    counts: Counter[str] = Counter()
    for number in range(3_600):
        core.handle(TaskWaiting(make_task(f"t{number}").created(float(number)).build()), float(number))
        (found,) = [each for each in core.decide(float(number)) if isinstance(each, Assign)]
        core.handle(TaskGone(found.task_uid, Phase.SUCCEEDED), float(number))
        counts[found.agent_uid] += 1
    assert len(counts) == 1_200
    assert max(counts.values()) - min(counts.values()) <= 2


@pytest.mark.parametrize("strategy", [Strategy.ROUND_ROBIN, Strategy.SMOOTH_WEIGHTED])
@pytest.mark.parametrize("number", [5, 200])
def test_turns_come_to_all_alike(strategy: Strategy, number: int) -> None:
    core = core_of(by(strategy), agents(number))
    picks = [passing(core, make_task(f"t{n}"), float(n)).agent_uid for n in range(4 * number)]
    counts = Counter(picks)
    if strategy is Strategy.ROUND_ROBIN:
        assert picks[:number] == picks[number : 2 * number] == sorted(counts), "in the order of uids, around"
        assert set(counts.values()) == {4}
    else:
        assert max(counts.values()) - min(counts.values()) <= (0 if number <= 64 else 2)


# Lots.


def test_random_is_even_and_follows_from_the_uid() -> None:
    members, number = agents(20), 4000
    one, other = (core_of(by(Strategy.RANDOM), members) for _ in range(2))
    picks = [passing(one, make_task(f"t{n}"), float(n)).agent_uid for n in range(number)]
    assert picks == [passing(other, make_task(f"t{n}"), float(n)).agent_uid for n in range(number)]
    counts = Counter(picks)
    expected = number / len(members)
    # χ² with 19 degrees of freedom stays below 43.8 but once in a thousand draws.
    assert sum((counts[each.agent.uid] - expected) ** 2 / expected for each in members) < 43.8


def test_random_draws_from_all_that_have_room_also_where_few_have() -> None:
    core = core_of(by(Strategy.RANDOM), agents(30, 1), busy={f"a{n:03}": 1 for n in range(27)})
    counts = Counter(passing(core, make_task(f"t{n}"), float(n)).agent_uid for n in range(900))
    assert set(counts) == {"a027", "a028", "a029"}
    assert all(abs(count - 300) < 60 for count in counts.values())


def test_two_choices_keep_agents_more_even_than_one() -> None:
    """Balls into bins: the fullest of n has about ln n ÷ ln ln n by lot, and ln ln n ÷ ln 2 by two choices."""
    fullest = {}
    for strategy in (Strategy.RANDOM, Strategy.POWER_OF_TWO, Strategy.LEAST_LOADED):
        core = core_of(by(strategy), agents(200, 64))
        for n in range(200):
            core.handle(TaskWaiting(make_task(f"t{n}").build()), 0.0)
        load = Counter(each.agent_uid for each in core.decide(0.0) if isinstance(each, Assign))
        fullest[strategy] = max(load.values())
    assert fullest[Strategy.LEAST_LOADED] == 1
    assert fullest[Strategy.POWER_OF_TWO] <= 3 < fullest[Strategy.RANDOM] <= 7


# The ring.

KEYS = [f"key-{n}" for n in range(2000)]


def homes(core: Core) -> dict[str, str]:
    return {key: passing(core, make_task(key).sticky(key)).agent_uid for key in KEYS}


def test_consistent_hash_moves_the_ideal_share_and_its_spread() -> None:
    """Only to an agent that joins and from one that goes: 1 ÷ n of the keys, within a quarter (2 ÷ √64)."""
    core = core_of(by(Strategy.CONSISTENT_HASH), agents(20))
    before = homes(core)
    core.handle(AgentReady(make_agent("new").slots(4).build()), 1.0)
    joined = homes(core)
    moved = [key for key in KEYS if before[key] != joined[key]]
    assert {joined[key] for key in moved} == {"new"}
    assert len(moved) <= len(KEYS) / 21 * BOUND
    core.handle(PodGone("new"), 2.0)
    assert homes(core) == before, "back to where they were"
    core.handle(PodGone("a007"), 3.0)
    gone = homes(core)
    left = [key for key in KEYS if gone[key] != before[key]]
    assert {before[key] for key in left} == {"a007"}
    assert len(left) <= len(KEYS) / 20 * BOUND


def test_a_pod_that_takes_another_s_name_takes_its_keys() -> None:
    core = core_of(by(Strategy.CONSISTENT_HASH), agents(20))
    before = homes(core)
    core.handle(PodGone("a003"), 1.0)
    core.handle(AgentReady(replace(make_agent("again").slots(4).build(), name="a003")), 1.0)
    assert homes(core) == {key: "again" if uid == "a003" else uid for key, uid in before.items()}


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 10**6), st.integers(1, 100))
def test_no_agent_of_a_ring_is_filled_beyond_its_bound(seed: int, tasks: int) -> None:
    core = core_of(by(Strategy.CONSISTENT_HASH), agents(12, 10))
    chance, load = Random(seed), Counter[str]()
    for number in range(tasks):
        uid = run(core, make_task(f"t{number}").sticky(f"k{int(chance.paretovariate(1))}")).agent_uid
        load[uid] += 1
        assert load[uid] <= ceil(BOUND * (number + 1) / 120 * 10)


def test_a_key_whose_home_is_full_goes_to_the_next_on_the_ring_at_once() -> None:
    core = core_of(by(Strategy.CONSISTENT_HASH), agents(5, 1))
    found = [run(core, make_task(f"t{n}").sticky("k")) for n in range(5)]
    assert len({each.agent_uid for each in found}) == 5
    assert [each.score for each in found] == sorted(each.score for each in found)
    assert "home of its key" in found[0].message


@given(st.sets(st.text("abc", min_size=1, max_size=4)), st.sets(st.text("abc", min_size=1, max_size=4)), st.text("abc"))
def test_rolls_and_rings_are_kept_as_members_come_and_go(first: set[str], then: set[str], last: str) -> None:
    roll, ring = Roll(first), HashRing((uid, uid) for uid in first)
    for uid in sorted(first - then):
        roll.remove(uid)
        ring.remove(uid)
    for uid in sorted(then - first):
        roll.add(uid)
        ring.add(uid, uid)
    fresh = HashRing((uid, uid) for uid in then)
    assert list(round_from([roll], last)) == [
        *sorted(u for u in then if u > last),
        *sorted(u for u in then if u <= last),
    ]
    assert list(around([ring], 7 << 50)) == list(around([fresh], 7 << 50))
    halves = [Roll(uid for uid in then if uid < "b"), Roll(uid for uid in then if uid >= "b")]
    assert list(round_from(halves, last)) == list(round_from([roll], last))
    parts = [HashRing((uid, uid) for uid in then if uid < "b"), HashRing((uid, uid) for uid in then if uid >= "b")]
    assert list(around(parts, 7 << 50)) == list(around([ring], 7 << 50))


# Any.


@pytest.mark.parametrize("strategy", list(Strategy))
def test_what_is_full_is_never_picked_and_what_is_free_always(strategy: Strategy) -> None:
    """Many agents with one slot free in all, after more full ones than are looked at."""
    members = [each.zone("z1" if n % 2 else "z2") for n, each in enumerate(agents(150, 1))]
    core = core_of(by(strategy), members, busy={f"a{n:03}": 1 for n in range(150) if n != 77})
    found = passing(core, make_task("t").placed(zones=("z1", "z2")).sticky("k"))
    assert found.agent_uid == "a077"
    core.handle(TaskLeased(make_task("last").build(), "a077"), 0.0)
    core.handle(TaskWaiting(make_task("t2").build()), 0.0)
    assert core.decide(0.0) == []


@pytest.mark.parametrize("strategy", list(Strategy))
def test_named_resources_are_kept_by_every_strategy(strategy: Strategy) -> None:
    members = [make_agent(f"a{n}").slots(4).resources(gpu=1) for n in range(3)]
    core = core_of(by(strategy), members, make_pool().slots(4).resources(gpu=1).fixed(9))
    found = [run(core, make_task(f"t{n}").resources(gpu=1).sticky("k")).agent_uid for n in range(3)]
    assert sorted(found) == ["a0", "a1", "a2"]
