"""Each figure on runs small enough to work out by hand."""

from typing import Any

import pytest
from sim_worlds import playing, stream

from taskdist.core.cost import NOTHING, share, spent
from taskdist.core.model import Agent, Pool, Queue, Task
from taskdist.simulation.fairness import fairness as fairness_of
from taskdist.simulation.fairness import jain, rivalries
from taskdist.simulation.figures import arrival_window, figures, percentile, summary
from taskdist.simulation.gates import Gates
from taskdist.simulation.inversions import Checker
from taskdist.simulation.levels import Levels
from taskdist.simulation.record import AgentLife, Attempt, Entry, Outcome, PoolTraits, Record, Step, TaskLife
from taskdist.simulation.spans import busy_by_window, joined, uses, variation, windows
from taskdist.simulation.workload import Job

NS = "simulation"


def made(tasks: list[TaskLife], agents: list[AgentLife], begun: float, ended: float, **more: Any) -> Record:
    """A record by hand; its log follows from the lives."""
    log: list[Entry] = []
    for life in tasks:
        log += [(since, Step.WAITS, life, None) for since in life.eligible]
        for attempt in life.attempts:
            log.append((attempt.start, Step.STARTS, life, attempt.agent))
            if attempt.end is not None:
                log.append((attempt.end, Step.STOPS, life, attempt.agent))
        if life.ended is not None:
            log.append((life.ended, Step.ENDS, life, None))
    order = {Step.STOPS: 0, Step.ENDS: 1, Step.WAITS: 2, Step.STARTS: 3}
    log.sort(key=lambda entry: (entry[0], order[entry[1]]))
    fields: dict[str, Any] = {
        "queues": {(NS, "q"): Queue(NS, "q", ("p",))},
        "pools": {(NS, "p"): Pool(NS, "p")},
        "traits": {"p": PoolTraits()},
    }
    return Record(begun, ended, tasks, agents, log, **(fields | more))


def agent(name: str, slots: int = 1, ready: float = 0, gone: float | None = None, pool: str = "p") -> AgentLife:
    life = AgentLife(Agent(name, NS, name, pool, slots), 0, "zone", ready)
    life.ready, life.gone = ready, gone
    life.speeds = [(ready, 1.0)]
    return life


def task(
    name: str, created: float, *runs: tuple[AgentLife, float, float | None], done: bool = True, **fields: Any
) -> TaskLife:
    """A Task with its attempts; it waits again when one ends. The last one's result is accepted if `done`."""
    fields = {"tenant": NS, "queue": "q"} | fields
    job = Job(0, Task(name, NS, name, type="work", created=created, **fields), "s", 1.0)
    life = TaskLife(job)
    life.eligible.append(created)
    for number, (where, start, end) in enumerate(runs):
        attempt = Attempt(where, start)
        attempt.end = end
        last = number == len(runs) - 1
        attempt.completed = last and done and end is not None
        life.attempts.append(attempt)
        if not last and end is not None:
            life.eligible.append(end)
            life.retries += 1
        if attempt.completed:
            life.outcome, life.ended = Outcome.COMPLETED, end
        elif last and end is None:
            life.outcome = Outcome.RUNNING
    return life


# Waits.


@pytest.mark.parametrize(
    ("part", "value"), [(0.5, 2), (0.95, 4), (0.25, 1), (0.26, 2), (0.75, 3), (0.751, 4), (1, 4), (0, 1)]
)
def test_percentiles_are_values_that_occurred(part: float, value: float) -> None:
    assert percentile([1, 2, 3, 4], part) == value


def test_a_summary() -> None:
    assert summary([3, 1, 2]) == {"mean": 2, "p50": 2, "p95": 3, "p99": 3, "max": 3}
    assert summary([]) == {"mean": None, "p50": None, "p95": None, "p99": None, "max": None}


def test_percentiles_of_many() -> None:
    found = summary(range(1, 1001))
    assert (found["p50"], found["p95"], found["p99"]) == (500, 950, 990)


def test_waits_turnaround_and_deadlines() -> None:
    a = agent("a")
    record = made(
        [
            task("one", 0, (a, 0, 4), deadline=4),
            task("two", 1, (a, 4, 5), (a, 8, 9), deadline=8.5),
            task("late", 3, deadline=50),
            task("free", 2, (a, 5, 6)),
        ],
        [a],
        0,
        20,
        known=1,
    )
    found = figures(record)
    # The one that never started counts up to the end of the run.
    assert found["wait"]["mean"] == pytest.approx((0 + 3 + 17 + 3) / 4)
    assert found["wait"]["max"] == 17
    assert found["turnaround"]["mean"] == pytest.approx((4 + 8 + 4) / 3)
    assert found["deadline_success"] == pytest.approx(1 / 3)
    assert (found["tasks"], found["completed"], found["retries"], found["lost"]) == (4, 3, 1, 0)


def test_gated_time_is_no_eligible_wait() -> None:
    a = agent("a")
    life = task("one", 0, (a, 10, 11))
    life.eligible[0] = 7
    found = figures(made([life], [a], 0, 20))
    assert (found["wait"]["mean"], found["eligible_wait"]["mean"]) == (10, 3)


def test_back_off_after_the_first_start_is_no_wait() -> None:
    a = agent("a")
    life = task("one", 0, (a, 2, 3), (a, 9, 10))
    found = figures(made([life], [a], 0, 20))
    assert (found["wait"]["mean"], found["eligible_wait"]["mean"]) == (2, 2)


def test_no_deadline_at_all() -> None:
    a = agent("a")
    assert figures(made([task("one", 0, (a, 0, 1))], [a], 0, 1))["deadline_success"] is None


@pytest.mark.parametrize(("known", "lost"), [(2, 0), (1, 1), (3, 1)])
def test_lost_are_those_that_the_scheduler_does_not_know(known: int, lost: int) -> None:
    a = agent("a")
    record = made([task("one", 0), task("two", 0, (a, 1, None)), task("done", 0, (a, 0, 1))], [a], 0, 5, known=known)
    assert figures(record)["lost"] == lost


# Slots.


def test_utilization_is_weighted_by_speed_within_the_arrivals() -> None:
    fast, slow = agent("fast", 2), agent("slow", 1, pool="s")
    fast.speeds = [(0, 2.0)]
    first = task("one", 0, (fast, 0, 10))
    record = made(
        [first, task("two", 0, (slow, 4, 12)), task("last", 8)],
        [fast, slow],
        0,
        12,
        pools={(NS, "p"): Pool(NS, "p"), (NS, "s"): Pool(NS, "s")},
        traits={"p": PoolTraits(), "s": PoolTraits()},
    )
    assert arrival_window(record) == (0, 8)
    found = figures(record)
    # Within 0 to 8: 8 of 16 slot-seconds at speed 2, 4 of 8 at speed 1.
    assert found["slot_utilization"] == pytest.approx(12 / 24)
    assert found["utilization"] == pytest.approx((16 + 4) / (32 + 8))
    assert found["per_pool"]["p"]["utilization"] == pytest.approx(0.5)


def test_only_living_agents_count() -> None:
    a, late, gone = agent("a"), agent("late", ready=6), agent("gone", gone=2)
    never = AgentLife(Agent("never", NS, "never", "p", 1), 0, "zone", 0)
    record = made([task("one", 0, (a, 0, 5)), task("last", 10)], [a, late, gone, never], 0, 10)
    found = uses(record, (0, 10))
    assert {uid: use.slots for uid, use in found.items()} == {"a": 10, "late": 4, "gone": 2}
    assert figures(record)["slot_utilization"] == pytest.approx(5 / 16)


def test_a_speed_that_changed() -> None:
    a = agent("a")
    a.speeds = [(0, 1.0), (4, 0.5), (6, 1.0)]
    record = made([task("one", 0, (a, 3, 7)), task("last", 10)], [a], 0, 10)
    assert figures(record)["utilization"] == pytest.approx((1 + 2 * 0.5 + 1) / (4 + 1 + 4))


@pytest.mark.parametrize(
    ("loads", "expected"),
    [
        ([], None),
        ([(0, 10)], None),
        ([(5, 10), (5, 10)], 0),
        ([(2, 10), (6, 10)], 0.5),
        # Means are weighted: an agent that lived briefly says little. Mean 0.5, deviation √(0.9·0² + 0.1·0.5²)…
        ([(45, 90), (10, 10)], ((0.9 * 0.05**2 + 0.1 * 0.45**2) ** 0.5) / 0.55),
        ([(5, 10), (0, 0)], 0),
    ],
)
def test_variation_of_loads(loads: list[tuple[float, float]], expected: float | None) -> None:
    assert variation(loads) == (None if expected is None else pytest.approx(expected))


def test_load_variance_is_that_of_the_worst_pool() -> None:
    a, b, c, d = agent("a"), agent("b"), agent("c", pool="s"), agent("d", pool="s")
    record = made(
        [
            task("1", 0, (a, 0, 5)),
            task("2", 0, (b, 0, 5)),
            task("3", 0, (c, 0, 2)),
            task("4", 0, (d, 0, 6)),
            task("5", 10),
        ],
        [a, b, c, d],
        0,
        10,
        pools={(NS, "p"): Pool(NS, "p"), (NS, "s"): Pool(NS, "s")},
        traits={"p": PoolTraits(), "s": PoolTraits()},
    )
    found = figures(record)
    assert found["load_variance"] == pytest.approx(0.5)
    assert found["per_pool"]["p"]["load_variance"] == 0
    assert found["load_variance_30s"] is None


def test_short_windows_apart() -> None:
    """Loads that are even over the whole may be uneven in each window."""
    a, b = agent("a"), agent("b")
    record = made([task("1", 0, (a, 0, 30)), task("2", 0, (b, 30, 60)), task("3", 60)], [a, b], 0, 60)
    found = figures(record)
    assert (found["load_variance"], found["load_variance_30s"]) == (0, 1)


def test_windows_and_their_use() -> None:
    assert windows((5, 14), 3) == [(5, 8), (8, 11), (11, 14)]
    assert windows((5, 13.9), 3) == [(5, 8), (8, 11)]
    a = agent("a", 2, ready=4)
    record = made([task("1", 0, (a, 5, 9), slots=2)], [a], 0, 10)
    found = busy_by_window(record, windows((0, 9), 3))
    assert [{uid: (each.slots, each.busy) for uid, each in cut.items()} for cut in found] == [
        {},
        {"a": (4, 2)},
        {"a": (6, 6)},
    ]


def test_what_agents_cost_while_they_are_busy_is_what_their_tasks_cost() -> None:
    """The figures and a Task's status go by one rule: all of an agent is what Tasks took of it, and what nobody did."""
    traits = {"p": PoolTraits(cost_per_hour=2, watts=100, idle_watts=40)}
    pool = Pool(NS, "p", cost_per_hour=2, watts_busy=100)
    a, b = agent("a", slots=2, gone=600), agent("b", slots=3)
    tasks = [task("t", 0, (a, 0, 100), (b, 100, 400), slots=2), task("u", 0, (b, 50, 900)), task("v", 5, (a, 300, 600))]
    found = figures(made(tasks, [a, b], 0, 1800, traits=traits))
    told, busy = NOTHING, {"a": 0.0, "b": 0.0}
    for life in tasks:
        for attempt in life.attempts:
            assert attempt.end is not None
            where, held = attempt.agent, attempt.end - attempt.start
            busy[where.uid] += life.task.slots * held
            told = spent(told, pool, life.task.slots, where.slots, held)
    idle = {"a": 2 * 600 - busy["a"], "b": 3 * 1800 - busy["b"]}
    assert told.cost is not None
    assert told.energy is not None
    assert found["cost"] == pytest.approx(told.cost + share(idle["a"], 2, 2) + share(idle["b"], 3, 2))
    assert found["energy_wh"] == pytest.approx(told.energy + share(idle["a"], 2, 40) + share(idle["b"], 3, 40))


def test_cost_and_energy_run_from_the_pod_s_making_to_its_end() -> None:
    a = agent("a", 2)
    a.born, a.ready, a.gone = 0, 600, 3600
    traits = {"p": PoolTraits(cost_per_hour=2, watts=100, idle_watts=40)}
    record = made([task("one", 700, (a, 700, 2500)), task("last", 800)], [a], 0, 7200, traits=traits)
    found = figures(record)
    assert found["cost"] == pytest.approx(2)
    # 40 W for an hour, and 60 W more for half of the slots over half an hour.
    assert found["energy_wh"] == pytest.approx(40 + 60 * 0.5 * 0.5)


# Groups.


def test_groups() -> None:
    record = playing(
        stream({"burst": {"count": 2}}, 1, task={"priority": "Normal", "tenant": "red"}),
        stream({"burst": {"count": 1}}, 2, task={"priority": "Background", "tenant": "blue"}),
        stream({"burst": {"at": 9, "count": 1}}, 2, task={"priority": "Critical"}),
        queue={"tenants": {"weights": [{"name": "red", "weight": 3}]}},
    )
    found = figures(record)
    assert list(found["per_level"]) == ["Critical", "Normal", "Background"]
    assert found["per_level"]["Normal"]["wait"]["max"] == 1
    assert found["per_level"]["Background"]["wait"]["mean"] == 2
    tenants = found["per_tenant"]
    assert (tenants["red"]["weight"], tenants["blue"]["weight"]) == (3, 1)
    assert (tenants["red"]["slot_seconds"], tenants["blue"]["slot_seconds"]) == (2, 2)
    assert tenants["red"]["share"] == pytest.approx(0.5)
    assert found["per_queue"]["q"]["tasks"] == 4
    assert found["per_pool"]["p"]["attempts"] == 4


KEYS = {
    "tasks, completed, lost, wait, eligible_wait, turnaround, deadline_success, utilization, slot_utilization",
    "load_variance, fairness_jain, priority_inversions, retries, dead_lettered, cost, energy_wh, per_level, per_queue",
    "per_tenant, per_pool, decisions, decisions_per_second",
}


def test_all_keys_are_there() -> None:
    wanted = {key for line in KEYS for key in line.split(", ")}
    assert wanted <= set(figures(playing()))


# Fairness.


@pytest.mark.parametrize(
    ("shares", "index"), [([1, 1], 1), ([1, 0], 0.5), ([1, 0, 0, 0], 0.25), ([2, 1], 0.9), ([0, 0], 1)]
)
def test_jain(shares: list[float], index: float) -> None:
    assert jain(shares) == pytest.approx(index)


RIVALS = {
    "one alone": ({"a": [(0, 10)]}, []),
    "two at once": ({"a": [(0, 10)], "b": [(0, 10)]}, [("ab", 0, 10)]),
    "two that overlap": ({"a": [(0, 10)], "b": [(4, 20)]}, [("ab", 4, 10)]),
    "two that hardly overlap": ({"a": [(0, 10)], "b": [(9, 20)]}, []),
    "one after the other": ({"a": [(0, 10)], "b": [(10, 20)]}, []),
    "three, of which one leaves": (
        {"a": [(0, 20)], "b": [(0, 20)], "c": [(0, 8)]},
        [("abc", 0, 8), ("ab", 0, 20)],
    ),
    "three, of which one comes later": (
        {"a": [(0, 20)], "b": [(0, 20)], "c": [(8, 20)]},
        [("ab", 0, 20), ("abc", 8, 20)],
    ),
    "each with another": (
        {"a": [(0, 10)], "b": [(5, 15)], "c": [(10, 20)]},
        [("ab", 5, 10), ("bc", 10, 15)],
    ),
    "twice": ({"a": [(0, 10), (20, 30)], "b": [(0, 30)]}, [("ab", 0, 10), ("ab", 20, 30)]),
}


@pytest.mark.parametrize(("backlogs", "expected"), RIVALS.values(), ids=RIVALS.keys())
def test_maximal_times_of_rivalry(backlogs: dict[str, Any], expected: list[tuple[str, float, float]]) -> None:
    assert rivalries(backlogs, 5) == [(tuple(names), (begin, end)) for names, begin, end in expected]


def test_the_union_of_times() -> None:
    assert joined([(0, 4), (2, 6), (8, 9), (8, 8.5)]) == 7
    assert joined([]) == 0


def fairness(record: Record) -> float | None:
    levels, gates = Levels(record), Gates(record)
    list(Checker(record, levels, gates).found())
    return fairness_of(record, arrival_window(record), levels, gates)


def contest(split: int, weights: dict[str, int], level: int = 2) -> Record:
    """Two tenants with long backlogs on one slot for 100 services of 1 s: of each ten, red gets `split`."""
    a = agent("a")
    tasks: list[TaskLife] = []
    for number in range(100):
        tenant = "red" if number % 10 < split else "blue"
        tasks.append(task(f"{number:03d}", 0, (a, number, number + 1), tenant=tenant, priority=level))
    # Both stay backlogged to the end.
    tasks += [task(f"last-{tenant}", 0, tenant=tenant, priority=level) for tenant in ("red", "blue")]
    tasks.append(task("mark", 100, tenant="mark", priority=level))
    queue = Queue(NS, "q", ("p",), tenant_weights=tuple(sorted(weights.items())), aging_step=0)
    return made(tasks, [a], 0, 100, queues={(NS, "q"): queue})


@pytest.mark.parametrize(
    ("split", "weights", "index"),
    [(5, {}, 1), (8, {"red": 4}, 1), (8, {}, 1 / (2 * 0.68)), (10, {}, 0.5)],
    ids=["even", "as weighted", "uneven", "one has all"],
)
def test_fairness_between_two(split: int, weights: dict[str, int], index: float) -> None:
    record = contest(split, weights)
    assert fairness(record) == pytest.approx(index)


def test_fairness_is_not_defined_where_tenants_hardly_compete() -> None:
    a = agent("a")
    # Two Tasks of each: their backlogs are shorter than 20 mean services.
    tasks = [task(f"{n}", 0, (a, n, n + 1), tenant="rb"[n % 2]) for n in range(4)]
    record = made([*tasks, task("end", 100, tenant="r")], [a], 0, 100)
    assert fairness(record) is None


def test_tenants_of_different_levels_do_not_compete() -> None:
    record = contest(10, {})
    for life in record.tasks:
        if life.job.tenant == "blue":
            life.job.task = life.task = Task(life.task.uid, NS, life.task.name, "q", "work", 0.0, priority=1)
    assert fairness(record) is None


def test_one_tenant_alone() -> None:
    record = playing(stream({"burst": {"count": 50}}))
    assert figures(record)["fairness_jain"] is None
