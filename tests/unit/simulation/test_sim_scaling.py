"""Pools with a target queue time: the target met, for little more than an oracle needs, without flapping."""

from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml
from scaling_oracle import Work, oracle

from taskdist.core import Core
from taskdist.core.decisions import Decision, Scale
from taskdist.simulation.figures import percentile, wait
from taskdist.simulation.loading import Loaded, parse
from taskdist.simulation.loop import Loop
from taskdist.simulation.record import Record
from taskdist.simulation.runs import world
from taskdist.simulation.workload import EPOCH, jobs

SCENARIOS = Path(__file__).parents[3] / "manifests" / "scenarios"
# The oracle may have another number of agents each minute: as an agent is paid for a minute at least.
INTERVAL = 60.0
MOST_HOURS = 1.35
MOST_TURNS = 2.0


class Noted:
    """The core, and the sizes that it decided on."""

    def __init__(self) -> None:
        self._core = Core()
        self.sizes: list[tuple[float, int]] = []
        self.handle: Callable[..., list[Decision]] = self._core.handle
        self.next_wake = self._core.next_wake
        self.queue_counts = self._core.queue_counts

    def decide(self, now: float) -> list[Decision]:
        decisions = self._core.decide(now)
        self.sizes += [(now - EPOCH, each.replicas) for each in decisions if isinstance(each, Scale)]
        return decisions


def played(loaded: Loaded, seed: int) -> tuple[Record, list[tuple[float, int]]]:
    noted, scenario = Noted(), loaded.scenario
    coming = jobs(scenario.workload.streams, loaded.rows, seed)
    return Loop(world(scenario, seed), coming, noted).run(), noted.sizes


def targeted(name: str, target: float) -> Loaded:
    """The scenario as it is, but for the target."""
    given = yaml.safe_load((SCENARIOS / f"{name}.yaml").read_text())
    given.pop("compare", None)
    given["pools"][0]["spec"]["scaling"]["targetQueueSeconds"] = target
    return parse(given, SCENARIOS)


def hours(record: Record, until: float) -> float:
    """Agent-hours from the making of each pod to its end, up to the last arrival."""
    ends = [min(until, record.ended if each.gone is None else each.gone) for each in record.agents]
    return sum(max(0.0, end - each.born) for each, end in zip(record.agents, ends, strict=True)) / 3600


def compared(loaded: Loaded, target: float, seed: int) -> tuple[float, float]:
    """Return the p95 of all waits, and the agent-hours as a multiple of the oracle's."""
    record, _ = played(loaded, seed)
    work = [Work(life.job.created - EPOCH, life.job.service, life.task.slots) for life in record.tasks]
    spec = loaded.scenario.pools[0].spec
    assert spec.scaling is not None
    best = oracle(work, spec.slots, target, INTERVAL, spec.scaling.min_replicas, spec.scaling.max_replicas)
    waits = sorted(wait(life, record) for life in record.tasks)
    return percentile(waits, 0.95), hours(record, record.tasks[-1].job.created) / best.hours


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("name", "target", "bound"), [("diurnal", 60.0, 2), ("burst", 30.0, 0)])
def test_the_target_is_met_for_little_more_than_an_oracle_needs(name: str, target: float, bound: int) -> None:
    """In `bound` of the ten seeds no size up to the maximum meets it: an agent for all that waits is as late."""
    loaded = targeted(name, target)
    found = {seed: compared(loaded, target, seed) for seed in range(1, 11)}
    late = {seed: p95 for seed, (p95, _) in found.items() if p95 > target}
    assert len(late) <= bound
    for seed, p95 in late.items():
        record, _ = played(targeted(name, 0.0), seed)
        assert percentile(sorted(wait(life, record) for life in record.tasks), 0.95) > target
        assert p95 <= 1.05 * percentile(sorted(wait(life, record) for life in record.tasks), 0.95)
    assert max(more for _, more in found.values()) <= MOST_HOURS


def steady(rate: float, mean: float, slots: int, delay: float) -> Loaded:
    """Poisson arrivals of Tasks of lognormal length, for four hours."""
    scaling = {"minReplicas": 0, "maxReplicas": 100, "scaleDownDelaySeconds": delay, "targetQueueSeconds": 30}
    stream = {
        "name": "s",
        "arrivals": {"poisson": {"perSecond": rate}},
        "service": {"lognormal": {"mean": mean, "sigma": 0.9}},
        "duration": 4 * 3600,
        "task": {"queue": "q", "type": "t"},
    }
    return parse(
        {
            "queues": [{"metadata": {"name": "q"}, "spec": {"pools": ["p"]}}],
            "pools": [{"metadata": {"name": "p"}, "spec": {"slots": slots, "scaling": scaling}}],
            "agents": {"p": {"startSeconds": 20, "zones": ["a", "b", "c"]}},
            "workload": {"streams": [stream]},
        },
        SCENARIOS,
    )


def turns(sizes: list[tuple[float, int]], begin: float, end: float) -> float:
    """How often an hour the size turned from growing to shrinking or back."""
    within = [size for at, size in sizes if begin <= at <= end]
    ways = [later > former for former, later in pairwise(within)]
    return sum(one is not other for one, other in pairwise(ways)) / ((end - begin) / 3600)


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(
    ("rate", "mean", "slots", "delay"),
    [
        pytest.param(0.5, 60.0, 4, 60, id="some-eight-agents-of-four"),
        pytest.param(5.0, 10.0, 4, 60, id="short-tasks"),
        pytest.param(0.05, 300.0, 1, 60, id="long-tasks-on-single-slots"),
    ],
)
def test_a_steady_load_does_not_make_pools_flap(rate: float, mean: float, slots: int, delay: float) -> None:
    found = []
    for seed in range(1, 11):
        record, sizes = played(steady(rate, mean, slots, delay), seed)
        found.append(turns(sizes, 1800.0, record.tasks[-1].job.created - EPOCH))
        waits = sorted(wait(life, record) for life in record.tasks)
        assert percentile(waits, 0.95) <= 30.0
    assert sum(found) / len(found) <= MOST_TURNS


def uneven(zones: list[str]) -> int:
    counts = [zones.count(zone) for zone in "abc"]
    return max(counts) - min(counts)


def test_zones_stay_even_as_the_pool_shrinks() -> None:
    loaded = steady(0.5, 60.0, 1, 10)
    record, _ = played(loaded, 3)

    def samples() -> Iterator[int]:
        for at in range(1800, 4 * 3600, 300):
            now = EPOCH + at
            there = [each for each in record.agents if each.born <= now and (each.gone is None or each.gone > now)]
            if len(there) >= 9:
                yield uneven([each.zone for each in there])

    found = list(samples())
    assert found
    # A third of thirty or so agents that were chosen at random would be apart by five, mostly.
    assert sum(found) / len(found) <= 3.0


ORACLE_CASES: list[Any] = [
    pytest.param([Work(0.0, 10.0)] * 4, 1, 0.0, [4], id="no-time-to-wait"),
    pytest.param([Work(0.0, 10.0)] * 4, 1, 10.0, [2], id="two-rounds-of-two"),
    pytest.param([Work(0.0, 10.0)] * 4, 4, 0.0, [1], id="slots-are-one-pool"),
    pytest.param([Work(0.0, 10.0, 2)] * 2, 1, 0.0, [4], id="a-task-may-take-two"),
    pytest.param([Work(0.0, 10.0)] * 2 + [Work(70.0, 1.0)] * 6, 1, 0.0, [2, 6], id="minute-by-minute"),
]


@pytest.mark.parametrize(("work", "slots", "target", "expected"), ORACLE_CASES)
def test_the_oracle_takes_the_fewest_agents_that_do(
    work: list[Work], slots: int, target: float, expected: list[int]
) -> None:
    # One more Task ends the last interval.
    late = [*work, Work(60.0 * len(expected), 0.0)]
    assert oracle(late, slots, target, 60.0, 0, 10).agents == expected


def test_the_oracle_pays_for_busy_slots_until_they_are_free() -> None:
    plan = oracle([*[Work(0.0, 90.0)] * 4, Work(120.0, 0.0)], 1, 0.0, 60.0, 0, 10)
    assert plan.agents == [4, 0]
    assert plan.hours == pytest.approx(4 * 90.0 / 3600)
