"""How many agents a pool should have, when that changes, and who goes."""

from collections import Counter
from dataclasses import replace

import pytest

from builders import NAMESPACE, AgentBuilder, PoolBuilder, TaskBuilder, make_agent, make_pool, make_queue, make_task
from taskdist.api import Reason
from taskdist.core import AgentState, Core
from taskdist.core.decisions import Assign, Decision, DeletePod, Drain, Scale, Undrain
from taskdist.core.events import (
    AgentDrained,
    AgentNotReady,
    AgentReady,
    Event,
    PodGone,
    PodSeen,
    PoolApplied,
    PoolDeleted,
    QueueApplied,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.fleet.equivalence import Candidate, Demand
from taskdist.core.model import Quota, TokenRate
from taskdist.core.scaling.sizing import Layout, Sizing, TargetSize, agents, least_flexible_first, victims, work
from taskdist.core.scaling.sizing import zone as zone_of

P, P2 = (NAMESPACE, "p"), (NAMESPACE, "p2")
ZONE = "topology.kubernetes.io/zone"


def core_with(pool: PoolBuilder, *events: Event, now: float = 0.0) -> Core:
    core = Core()
    for event in (QueueApplied(make_queue().pools("p", "p2").build()), PoolApplied(pool.build()), *events):
        core.handle(event, now)
    return core


def agent_events(*builders: AgentBuilder) -> list[Event]:
    events: list[Event] = []
    for builder in builders:
        agent = builder.build()
        events += [PodSeen(agent.uid, NAMESPACE, agent.name, agent.pool, 0.0), AgentReady(agent)]
    return events


def tasks(number: int, like: TaskBuilder | None = None) -> list[Event]:
    return [TaskWaiting((like or make_task("")).named(f"t{n}").build()) for n in range(number)]


def sizes(decisions: list[Decision]) -> dict[str, int]:
    return {decision.pool[1]: decision.replicas for decision in decisions if isinstance(decision, Scale)}


def who(decisions: list[Decision], kind: type[Drain | Undrain]) -> list[str]:
    return [decision.agent_uid for decision in decisions if isinstance(decision, kind)]


def deleted(decisions: list[Decision]) -> list[str]:
    return [decision.uid for decision in decisions if isinstance(decision, DeletePod)]


@pytest.mark.parametrize(
    ("pool", "events", "expected", "reason"),
    [
        pytest.param(make_pool().fixed(3), tasks(9), 3, Reason.FIXED_SIZE, id="fixed-whatever-waits"),
        pytest.param(make_pool().elastic(0, 9), [], 0, Reason.IDLE, id="nothing-to-do"),
        pytest.param(make_pool().elastic(2, 9), [], 2, Reason.AT_MINIMUM, id="at-the-minimum"),
        pytest.param(make_pool().elastic(0, 9), tasks(5), 5, Reason.WORK_WAITING, id="an-agent-for-each"),
        pytest.param(make_pool().slots(2).elastic(0, 9), tasks(5), 3, Reason.WORK_WAITING, id="rounded-up"),
        pytest.param(make_pool().elastic(0, 3), tasks(5), 3, Reason.AT_MAXIMUM, id="at-the-maximum"),
        pytest.param(
            make_pool().slots(4).elastic(0, 9),
            tasks(4, make_task("").slots(3)),
            4,
            Reason.WORK_WAITING,
            id="large-tasks",
        ),
        pytest.param(
            make_pool().slots(8).resources(gpu=1).elastic(0, 9),
            tasks(3, make_task("").resources(gpu=1)),
            3,
            Reason.WORK_WAITING,
            id="a-resource-binds",
        ),
        pytest.param(
            make_pool().elastic(0, 9), tasks(5, make_task("").skills("gpu")), 0, Reason.IDLE, id="no-use-to-it"
        ),
        pytest.param(
            make_pool().skills("gpu").elastic(0, 9),
            tasks(2, make_task("").skills("gpu")),
            2,
            Reason.WORK_WAITING,
            id="from-zero-what-the-pool-declares-counts",
        ),
        pytest.param(
            make_pool().labels(zone="a").elastic(0, 9),
            tasks(2, make_task("").selector("zone", "In", "a")),
            2,
            Reason.WORK_WAITING,
            id="its-template's-labels-too",
        ),
        pytest.param(
            make_pool().elastic(0, 9),
            [*agent_events(make_agent("a").types(["other"])), *tasks(3)],
            1,
            Reason.PROGRESSING,
            id="agents-that-are-there-know-better-than-the-declaration",
        ),
        pytest.param(make_pool().elastic(0, 9), tasks(5, make_task("").suspended()), 0, Reason.IDLE, id="suspended"),
        pytest.param(
            make_pool().elastic(0, 9), tasks(5, make_task("").not_before(9)), 0, Reason.IDLE, id="backing-off"
        ),
        pytest.param(
            make_pool().slots(2).elastic(0, 9), tasks(5, make_task("").slots(3)), 0, Reason.IDLE, id="too-large"
        ),
        pytest.param(
            make_pool().slots(2).elastic(0, 9),
            [TaskLeased(make_task("x").slots(2).build(), "a"), *agent_events(make_agent("a").slots(2)), *tasks(3)],
            3,
            Reason.WORK_WAITING,
            id="busy-slots-count",
        ),
    ],
)
def test_sizes(pool: PoolBuilder, events: list[Event], expected: int, reason: Reason) -> None:
    core = core_with(pool, *events)
    assert sizes(core.decide(0.0)) == {"p": expected}
    view = core.pool_view(P)
    assert (view.desired, view.reason) == (expected, reason)
    assert view.message
    assert core.decide(0.0) == []


@pytest.mark.parametrize(
    ("first", "second", "number", "expected"),
    [
        pytest.param(make_pool().elastic(0, 5), make_pool("p2").elastic(0, 5), 3, (3, 0), id="the-first-of-the-list"),
        pytest.param(
            make_pool().elastic(0, 2), make_pool("p2").elastic(0, 5), 3, (2, 1), id="what-is-over-for-the-next"
        ),
        pytest.param(make_pool().elastic(0, 2), make_pool("p2").elastic(0, 2), 9, (2, 2), id="both-full"),
        pytest.param(make_pool().fixed(1), make_pool("p2").elastic(0, 5), 3, (1, 2), id="a-fixed-one-has-its-share"),
        pytest.param(make_pool().elastic(0, 5), make_pool("p2").fixed(0), 3, (3, 0), id="a-fixed-one-second"),
    ],
)
def test_work_that_several_pools_could_do_counts_once(
    first: PoolBuilder, second: PoolBuilder, number: int, expected: tuple[int, int]
) -> None:
    core = core_with(first, PoolApplied(second.build()), *tasks(number))
    assert sizes(core.decide(0.0)) == dict(zip(("p", "p2"), expected, strict=True))


@pytest.mark.parametrize(
    ("first", "second", "number", "expected"),
    [
        pytest.param(make_pool().costs(2), make_pool("p2").costs(1), 3, (0, 3), id="the-cheaper-one-first"),
        pytest.param(make_pool().costs(1), make_pool("p2").costs(1), 3, (3, 0), id="of-equals-the-first-of-the-list"),
        pytest.param(make_pool().costs(2), make_pool("p2"), 3, (0, 3), id="what-costs-nothing-is-cheapest"),
        pytest.param(make_pool().slots(4).costs(2), make_pool("p2").costs(1), 4, (1, 0), id="by-what-a-place-costs"),
        pytest.param(make_pool().costs(2), make_pool("p2").costs(1), 7, (2, 5), id="the-dearer-one-when-it-is-full"),
        pytest.param(make_pool().costs(2), make_pool("p2").costs(1), 99, (9, 5), id="what-none-has-room-for"),
    ],
)
def test_the_pool_grows_where_a_place_costs_least(
    first: PoolBuilder, second: PoolBuilder, number: int, expected: tuple[int, int]
) -> None:
    core = core_with(first.elastic(0, 9), PoolApplied(second.elastic(0, 5).build()), *tasks(number))
    assert sizes(core.decide(0.0)) == dict(zip(("p", "p2"), expected, strict=True))


def test_the_least_flexible_work_chooses_first() -> None:
    pools = {P: make_pool().elastic(0, 2).build(), P2: make_pool("p2").elastic(0, 5).build()}
    flexible, bound = Demand((Candidate(P, 1), Candidate(P2, 1))), Demand((Candidate(P, 1),))
    flexible.tasks, bound.tasks = 3, 2
    assert work(Layout(pools, least_flexible_first([flexible, bound])), [0, 0], [2, 5]) == [2.0, 3.0]


def test_thirds_add_up_to_whole_agents() -> None:
    pool = make_pool().slots(3).elastic(0, 9).build()
    demands = [Demand((Candidate(P, 3),)) for _ in range(3)]
    for demand in demands:
        demand.tasks = 1
    assert agents(work(Layout({P: pool}, demands), [0], [9])[0]) == 1


class TestSizing:
    """A pool grows at once, and shrinks to the most it wanted within the delay."""

    def run(self, *steps: tuple[float, int], existing: int = 0, delay: float = 60.0, maximum: int = 99) -> list[int]:
        pool, sizing, seen = make_pool().elastic(0, maximum, delay).build(), Sizing(), []
        for now, wanted in steps:
            sizing.step(pool, TargetSize(wanted, Reason.WORK_WAITING, ""), existing, now)
            seen.append(sizing.desired or 0)
        return seen

    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            pytest.param([(0, 1), (1, 5), (2, 6)], [1, 5, 6], id="up-at-once"),
            pytest.param([(0, 5), (1, 2), (60, 2), (61, 2)], [5, 5, 5, 2], id="down-after-the-delay"),
            pytest.param([(0, 5), (1, 2), (30, 4), (61, 2), (90, 2)], [5, 5, 5, 4, 4], id="to-the-most-of-the-window"),
            pytest.param([(0, 5), (1, 2), (30, 5), (61, 2), (120, 2), (121, 2)], [5, 5, 5, 5, 5, 2], id="wanted-again"),
            pytest.param(
                [(0, 5), (10, 5), (20, 0), (79, 0), (80, 0)], [5, 5, 5, 5, 0], id="counted-from-the-last-need"
            ),
        ],
    )
    def test_over_time(self, steps: list[tuple[float, int]], expected: list[int]) -> None:
        assert self.run(*steps) == expected

    def test_without_delay_at_once(self) -> None:
        assert self.run((0, 5), (0, 2), (0, 3), delay=0.0) == [5, 2, 3]

    def test_what_exists_at_first_sight_goes_by_the_delay_too(self) -> None:
        assert self.run((0, 0), (59, 0), (60, 0), existing=4) == [4, 4, 0]

    def test_never_above_the_maximum(self) -> None:
        assert self.run((0, 0), existing=9, maximum=3) == [3]

    def test_a_clock_set_back_only_delays(self) -> None:
        assert self.run((100, 5), (101, 1), (50, 1), (110, 1), (111, 1), delay=10.0) == [5, 5, 5, 5, 1]


@pytest.mark.parametrize(
    ("quota", "tenant_quota", "expected"),
    [
        pytest.param(Quota(leased=3), Quota(), 3, id="of-the-queue"),
        pytest.param(Quota(slots=3), Quota(), 3, id="of-its-slots"),
        pytest.param(Quota(), Quota(leased=2), 4, id="of-each-of-two-tenants"),
        pytest.param(Quota(leased=3), Quota(leased=2), 3, id="both"),
        pytest.param(Quota(leased=99), Quota(), 20, id="wide-enough"),
    ],
)
def test_pools_grow_for_no_more_than_quotas_let_start(quota: Quota, tenant_quota: Quota, expected: int) -> None:
    queue = replace(make_queue().pools("p").build(), quota=quota, tenant_quota=tenant_quota)
    core = core_with(make_pool().elastic(0, 30), QueueApplied(queue))
    for number in range(20):
        task = replace(make_task(f"t{number}").build(), tenant=f"tenant{number % 2}", priority=number % 3)
        core.handle(TaskWaiting(task), 0.0)
    assert sizes(core.decide(0.0)) == {"p": expected}
    assert core.decide(0.0) == []
    # With an agent for each, no more start, and no more are asked for.
    for event in agent_events(*(make_agent(f"a{number}") for number in range(expected))):
        core.handle(event, 1.0)
    assert len([each for each in core.decide(1.0) if isinstance(each, Assign)]) == expected
    assert core.pool_view(P).desired == expected
    core.handle(QueueApplied(replace(queue, quota=Quota(), tenant_quota=Quota())), 2.0)
    assert sizes(core.decide(2.0)) == ({"p": 20} if expected < 20 else {})


class TestGrowingLater:
    """Agents are added only after more were needed for the delay; then as many as were needed all the while."""

    def run(self, *steps: tuple[float, int], existing: int = 0, minimum: int = 0, delay: float = 0.0) -> list[int]:
        pool = make_pool().elastic(minimum, 99, delay).up_after(20.0).build()
        sizing, seen = Sizing(), []
        for now, wanted in steps:
            sizing.step(pool, TargetSize(max(wanted, minimum), Reason.WORK_WAITING, ""), existing, now)
            seen.append(sizing.desired or 0)
        return seen

    @pytest.mark.parametrize(
        ("steps", "expected"),
        [
            pytest.param([(0, 5), (19, 5), (20, 5)], [0, 0, 5], id="after-the-delay"),
            pytest.param([(0, 5), (10, 8), (20, 8), (30, 8)], [0, 0, 5, 8], id="as-many-as-all-the-while"),
            pytest.param([(0, 5), (10, 0), (11, 5), (25, 5), (31, 5)], [0, 0, 0, 0, 5], id="a-dip-begins-it-anew"),
            pytest.param([(0, 5), (20, 5), (25, 2), (26, 5)], [0, 5, 2, 2], id="down-at-once-all-the-same"),
        ],
    )
    def test_over_time(self, steps: list[tuple[float, int]], expected: list[int]) -> None:
        assert self.run(*steps) == expected

    def test_the_minimum_is_there_at_once(self) -> None:
        assert self.run((0, 5), (20, 5), minimum=2) == [2, 5]

    def test_what_exists_at_first_sight_stays(self) -> None:
        assert self.run((0, 5), (20, 5), existing=3) == [3, 5]

    def test_the_core_wakes_for_it(self) -> None:
        core = core_with(make_pool().elastic(0, 9).up_after(20.0), *tasks(2))
        assert sizes(core.decide(0.0)) == {"p": 0}
        assert "needed for 20 s" in core.pool_view(P).message
        assert core.next_wake() == 20.0
        assert sizes(core.decide(20.0)) == {"p": 2}


class TestTarget:
    """Where Tasks may wait, fewer agents do: in the queue's word of 10 s a Task, until more is known."""

    @pytest.mark.parametrize(
        ("pool", "number", "expected"),
        [
            # As many again may come while agents start, by what is known: (60 + 60) × 10 ÷ (10 + 60) is 17.1.
            pytest.param(make_pool().target(60.0), 60, 18, id="as-many-as-serve-it-within-the-target"),
            pytest.param(make_pool().slots(4).target(60.0), 60, 5, id="slots-count"),
            pytest.param(make_pool().target(60.0), 1, 1, id="one-task-has-one-agent"),
            pytest.param(make_pool().target(1e-9), 20, 20, id="no-time-to-wait"),
            pytest.param(make_pool().target(60.0), 0, 0, id="nothing-there"),
        ],
    )
    def test_sizes(self, pool: PoolBuilder, number: int, expected: int) -> None:
        core = core_with(pool.elastic(0, 99), *tasks(number))
        assert sizes(core.decide(0.0)) == {"p": expected}

    @pytest.mark.parametrize("number", [1, 7, 40, 300])
    @pytest.mark.parametrize("target", [1.0, 30.0, 600.0])
    def test_never_more_than_without_and_none_is_left(self, number: int, target: float) -> None:
        with_it = sizes(core_with(make_pool().target(target).elastic(0, 5000), *tasks(number)).decide(0.0))["p"]
        without = sizes(core_with(make_pool().elastic(0, 5000), *tasks(number)).decide(0.0))["p"]
        assert 1 <= with_it <= without == number

    def test_to_zero_and_back(self) -> None:
        core = core_with(make_pool().elastic(0, 9, 10.0).target(60.0), *agent_events(make_agent("a")), *tasks(1))
        core.decide(0.0)
        core.handle(TaskGone("t0"), 5.0)
        core.decide(5.0)
        assert sizes(core.decide(15.0)) == {"p": 0}
        core.handle(TaskWaiting(make_task("t9").created(16.0).build()), 16.0)
        assert sizes(core.decide(16.0)) == {"p": 1}

    def test_a_surplus_that_lapses_soon_after_sizes_were_judged_goes_in_time(self) -> None:
        core = core_with(make_pool().elastic(0, 9, 10.0).target(60.0), *agent_events(make_agent("a")), *tasks(1))
        core.decide(0.0)
        core.handle(TaskGone("t0"), 5.0)
        core.decide(5.0)
        assert core.decide(14.95) == []
        assert core.decide(14.96) == []
        assert core.next_wake() == 15.0
        assert sizes(core.decide(15.0)) == {"p": 0}

    def test_a_surplus_rests_so_that_it_becomes_idle_and_takes_what_others_cannot(self) -> None:
        pool = make_pool().slots(2).elastic(0, 9, 0.0).target(600.0)
        core = core_with(pool, *agent_events(*(make_agent(f"a{n}").slots(2) for n in range(3))), *tasks(5))
        core.decide(0.0)
        # a0: t0, t3; a1: t1, t4; a2: t2. All that is there needs one agent, if it may wait for 600 s.
        assert core.pool_view(P).desired == 1
        assert self.resting(core) == ["a0", "a2"], "those with least to finish"
        core.handle(TaskGone("t4"), 1.0)
        core.handle(TaskGone("t3"), 1.0)
        core.decide(1.0)
        chosen = []
        for number in range(5, 9):
            core.handle(TaskWaiting(make_task(f"t{number}").created(2.0).build()), 2.0)
            chosen += [each.agent_uid for each in core.decide(2.0) if isinstance(each, Assign)]
        assert chosen == ["a1", "a2", "a0"], "first the one that does not rest, then all that have room"
        assert core.queue_counts()[NAMESPACE, "q"] == (1, 6)
        assert core.audit() == []

    def test_agents_that_rest_are_the_first_to_go_and_no_busy_one_does(self) -> None:
        pool = make_pool().slots(2).elastic(0, 9, 0.0).target(600.0)
        core = core_with(pool, *agent_events(*(make_agent(f"a{n}").slots(2) for n in range(3))), *tasks(5))
        core.decide(0.0)
        assert self.resting(core) == ["a0", "a2"]
        core.handle(TaskGone("t2"), 1.0)
        assert who(core.decide(1.0), Drain) == ["a2"]
        core.handle(TaskGone("t0"), 2.0)
        assert who(core.decide(2.0), Drain) == [], "t3 still runs there"
        core.handle(TaskGone("t3"), 3.0)
        assert who(core.decide(3.0), Drain) == ["a0"]
        assert core.audit() == []

    def test_a_target_taken_away_ends_all_rest(self) -> None:
        pool = make_pool().slots(2).elastic(0, 9, 0.0)
        core = core_with(
            pool.target(600.0), *agent_events(*(make_agent(f"a{n}").slots(2) for n in range(3))), *tasks(5)
        )
        core.decide(0.0)
        core.handle(PoolApplied(pool.build()), 1.0)
        assert sizes(core.decide(1.0)) == {"p": 3}
        assert self.resting(core) == []

    def test_the_end_of_the_pool_ends_all_rest(self) -> None:
        pool = make_pool().slots(2).elastic(0, 9, 0.0).target(600.0)
        core = core_with(pool, *agent_events(*(make_agent(f"a{n}").slots(2) for n in range(3))), *tasks(5))
        core.decide(0.0)
        assert self.resting(core) == ["a0", "a2"]
        core.handle(PoolDeleted(P), 1.0)
        core.decide(1.0)
        assert self.resting(core) == []

    def test_a_target_taken_away_ends_the_watch_for_what_comes(self) -> None:
        pool = make_pool().slots(2).elastic(0, 9, 60.0)
        core = core_with(pool, *agent_events(*(make_agent(f"a{n}").slots(2) for n in range(3))), *tasks(5))
        core.decide(0.0)
        core.handle(PoolApplied(pool.target(600.0).build()), 0.0)
        core.decide(0.0)
        assert core.next_wake() == 5.0
        core.handle(PoolApplied(pool.build()), 1.0)
        core.decide(1.0)
        assert core.next_wake() is None

    @staticmethod
    def resting(core: Core) -> list[str]:
        return sorted(agent.uid for agent in core._fleet.agents.values() if agent.resting)


@pytest.mark.parametrize(
    ("zones", "idle", "surplus", "expected"),
    [
        pytest.param("aabbcc", "012345", 3, "024", id="one-of-each"),
        pytest.param("aaabbc", "012345", 2, "01", id="the-fullest-zone-first"),
        pytest.param("aaabbc", "345", 1, "3", id="busy-ones-count-too"),
        pytest.param("aaabbb", "012", 3, "012", id="where-only-one-zone-has-idle-ones"),
        pytest.param("......", "012345", 3, "012", id="no-zones-the-longest-idle"),
        pytest.param("aabbcc", "543210", 3, "531", id="in-a-zone-the-longest-idle"),
    ],
)
def test_victims_leave_the_zones_even(zones: str, idle: str, surplus: int, expected: str) -> None:
    """`idle`: agents by number, those that became idle first before the others."""
    core = core_with(make_pool().elastic(0, 9, 0.0), now=0.0)
    for number, zone in enumerate(zones):
        builder = make_agent(str(number))
        for event in agent_events(builder if zone == "." else builder.labels(**{ZONE: zone})):
            core.handle(event, 0.0)
    for event in tasks(6):
        core.handle(event, 0.0)
    held = {each.agent_uid: each.task_uid for each in core.decide(0.0) if isinstance(each, Assign)}
    for at, uid in enumerate(idle):
        core.handle(TaskGone(held[uid]), 1.0 + at)
    found = core._fleet.members(P)
    counted = Counter(zone_of(agent) for agent in found.agents.values())
    assert [agent.uid for agent in victims(found.idle.values(), [], surplus, counted)] == list(expected)


def test_idle_agents_go_first_and_busy_ones_of_an_elastic_pool_never() -> None:
    core = core_with(
        make_pool().elastic(0, 9, 10.0), *agent_events(*(make_agent(f"a{n}") for n in range(3))), *tasks(3)
    )
    assert sizes(core.decide(0.0)) == {"p": 3}
    core.handle(TaskGone("t1"), 5.0)
    assert core.decide(5.0) == []
    assert core.next_wake() == 15.0
    decisions = core.decide(15.0)
    assert sizes(decisions) == {"p": 2}
    assert who(decisions, Drain) == ["a1"]
    core.handle(PoolApplied(make_pool().elastic(0, 1, 10.0).build()), 16.0)
    assert [type(decision) for decision in core.decide(16.0)] == [Scale]
    assert core.pool_view(P).draining == ("a1",)
    core.handle(AgentDrained("a1"), 17.0)
    assert deleted(core.decide(17.0)) == ["a1"]
    assert core.audit() == []


def test_the_longest_idle_go_first_but_those_not_connected_before_them() -> None:
    core = core_with(make_pool().elastic(0, 9, 0.0), *agent_events(make_agent("a"), make_agent("b")), *tasks(4))
    core.decide(0.0)
    core.handle(PodSeen("new1", NAMESPACE, "new1", "p", 1.0), 1.0)
    core.handle(PodSeen("new2", NAMESPACE, "new2", "p", 2.0), 2.0)
    core.handle(TaskGone("t3"), 3.0)
    assert deleted(core.decide(3.0)) == ["new2"], "the latest pod that is not connected goes at once"
    core.handle(TaskGone("t1"), 4.0)
    decisions = core.decide(4.0)
    assert [(d.task_uid, d.agent_uid) for d in decisions if isinstance(d, Assign)] == [("t2", "b")]
    assert deleted(decisions) == ["new1"]
    core.handle(TaskGone("t2"), 5.0)
    core.handle(TaskGone("t0"), 6.0)
    assert who(core.decide(7.0), Drain) == ["b", "a"]


def test_a_fixed_pool_that_was_lowered_drains_busy_agents_too_and_deletes_them_once_free() -> None:
    core = core_with(make_pool().fixed(3), *agent_events(*(make_agent(f"a{n}") for n in range(3))), *tasks(2))
    core.decide(0.0)
    core.handle(PoolApplied(make_pool().fixed(1).build()), 1.0)
    decisions = core.decide(1.0)
    assert (sizes(decisions), who(decisions, Drain)) == ({"p": 1}, ["a2", "a0"])
    core.handle(AgentDrained("a2"), 2.0)
    core.handle(AgentDrained("a0"), 2.0)
    assert deleted(core.decide(2.0)) == ["a2"], "a0 still holds a Task"
    core.handle(TaskWaiting(make_task("t9").build()), 3.0)
    assert core.decide(3.0) == [], "no new work for those that drain"
    core.handle(TaskGone("t0"), 4.0)
    assert deleted(core.decide(4.0)) == ["a0"]
    assert core.audit() == []


def test_who_drains_is_kept_when_work_comes_and_gets_it() -> None:
    core = core_with(make_pool().elastic(0, 9, 0.0), *agent_events(make_agent("a"), make_agent("b")), *tasks(2))
    core.decide(0.0)
    core.handle(TaskGone("t0"), 1.0)
    core.handle(TaskGone("t1"), 2.0)
    assert set(who(core.decide(2.0), Drain)) == {"a", "b"}
    core.handle(TaskWaiting(make_task("t2").build()), 3.0)
    decisions = core.decide(3.0)
    assert sizes(decisions) == {"p": 1}
    assert who(decisions, Undrain) == ["b"], "the last to become idle"
    assert [d.agent_uid for d in decisions if isinstance(d, Assign)] == ["b"]
    core.handle(AgentDrained("b"), 4.0)
    assert core.decide(4.0) == [], "word of a drain that was taken back is void"


def test_who_is_to_be_deleted_is_not_kept() -> None:
    core = core_with(make_pool().elastic(0, 9, 0.0), *agent_events(make_agent("a")), *tasks(1))
    core.decide(0.0)
    core.handle(TaskGone("t0"), 1.0)
    assert who(core.decide(1.0), Drain) == ["a"]
    core.handle(AgentDrained("a"), 1.5)
    assert deleted(core.decide(1.5)) == ["a"]
    core.handle(TaskWaiting(make_task("t9").build()), 2.0)
    assert [type(decision) for decision in core.decide(2.0)] == [Scale]


def test_a_draining_agent_that_is_lost_is_deleted_without_its_word() -> None:
    core = core_with(make_pool().elastic(0, 9, 0.0), *agent_events(make_agent("a")), *tasks(1))
    core.decide(0.0)
    core.handle(TaskGone("t0"), 1.0)
    assert who(core.decide(1.0), Drain) == ["a"]
    core.handle(AgentNotReady("a"), 2.0)
    assert deleted(core.decide(2.0)) == ["a"]


def test_a_pool_is_started_again_once_the_rate_that_held_more_than_it_can_do_lets_one_go() -> None:
    core = core_with(make_pool().elastic(0, 2, delay=1.0))
    core.handle(QueueApplied(replace(make_queue().pools("p").build(), rate=TokenRate(0.1, 1))), 0.0)
    for event in agent_events(make_agent("a0")):
        core.handle(event, 0.0)
    core.handle(TaskWaiting(make_task("first").build()), 0.0)
    assert [each.task_uid for each in core.decide(0.0) if isinstance(each, Assign)] == ["first"]
    core.handle(TaskGone("first"), 1.0)
    core.decide(1.0)
    for event in (AgentDrained("a0"), PodGone("a0")):
        core.handle(event, 2.5)
    core.decide(2.5)
    assert core.pool_view(P).desired == 0
    for event in tasks(5):  # more than the pool may ever do at once
        core.handle(event, 3.0)
    assert sizes(core.decide(3.0)) == {}, "the rate holds all of them"
    assert core.next_wake() == 10.0
    assert sizes(core.decide(10.0)) == {"p": 2}


def test_a_silent_pod_stays_while_a_task_may_still_run_there() -> None:
    core = core_with(
        make_pool().elastic(0, 9, 0.0),
        PodSeen("a", NAMESPACE, "a", "p", 0.0),
        TaskHeld(make_task("t").build(), Reason.RECOVERING),
    )
    core.decide(0.0)
    assert core.decide(1.0) == []
    core.handle(TaskGone("t"), 2.0)
    assert deleted(core.decide(2.0)) == ["a"]


def test_an_agent_that_is_leased_by_word_of_status_is_no_victim() -> None:
    core = core_with(
        make_pool().elastic(0, 9, 0.0),
        PodSeen("a", NAMESPACE, "a", "p", 0.0),
        TaskLeased(make_task("t").build(), "a"),
    )
    assert sizes(core.decide(0.0)) == {"p": 1}
    assert core.decide(1.0) == []


def test_a_pool_that_is_deleted_is_not_sized_any_more() -> None:
    core = core_with(make_pool().elastic(0, 9, 5.0), *agent_events(make_agent("a")))
    core.decide(0.0)
    core.handle(PoolDeleted(P), 1.0)
    assert (core.decide(1.0), core.next_wake()) == ([], None)
    assert core.pool_view(P).desired == 0
    core.handle(PodGone("a"), 2.0)
    assert core.audit() == []


def test_limits_bound_changes_of_pools_too_and_lose_none() -> None:
    core = core_with(make_pool().fixed(0), *agent_events(*(make_agent(f"a{n}") for n in range(4))))
    seen: list[Decision] = []
    for _ in range(8):
        step = core.decide(0.0, limit=1)
        assert len(step) <= 1
        assert (core.next_wake() is not None) == bool(step)
        seen += step
    assert sizes(seen) == {"p": 0}
    assert sorted(who(seen, Drain)) == ["a0", "a1", "a2", "a3"]


def test_views() -> None:
    core = core_with(
        make_pool().slots(2).elastic(0, 9, 99.0),
        *agent_events(make_agent("a").slots(2), make_agent("b").slots(2)),
        PodSeen("c", NAMESPACE, "c", "p", 0.0),
        *tasks(1),
    )
    core.handle(AgentReady(make_agent("d").slots(2).build()), 0.0)
    core.handle(AgentNotReady("b"), 0.0)
    core.decide(0.0)
    view = core.pool_view(P)
    assert (view.pods, view.ready, view.slots, view.busy_slots) == (3, 2, 4, 1)
    assert core.agent_states() == {
        P: {AgentState.BUSY: 1, AgentState.NOT_READY: 1, AgentState.STARTING: 1, AgentState.IDLE: 1}
    }
    assert core._fleet.agents["a"].busy == 1


def test_a_size_that_a_full_answer_left_out_is_said_with_the_next() -> None:
    core = Core()
    for event in (
        QueueApplied(make_queue().build()),
        PoolApplied(make_pool().fixed(1).build()),
        AgentReady(make_agent("a").build()),
    ):
        core.handle(event, 0.0)
    core.decide(0.0)
    core.handle(PoolApplied(make_pool().fixed(2).build()), 1.0)
    core.handle(TaskWaiting(make_task("t").build()), 1.0)
    assert [type(each) for each in core.decide(1.0, limit=1)] == [Assign]
    (then,) = core.decide(1.0)
    assert isinstance(then, Scale)
    assert then.replicas == 2
