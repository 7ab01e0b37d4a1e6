"""The headline scenario meets its bars, over ten seeds with the spread that they have; with skills, most of them."""

from pathlib import Path
from typing import Any

import pytest

from taskdist.simulation import load, play_all
from taskdist.simulation.compare import result

SCENARIOS = Path(__file__).parents[3] / "manifests" / "scenarios"
HEADLINE, ROUTED = SCENARIOS / "headline.yaml", SCENARIOS / "headline-routed.yaml"
SEEDS = range(1, 11)

pytestmark = [pytest.mark.long, pytest.mark.timeout(3600)]


def played(scenario: Path) -> dict[str, Any]:
    loaded = load(scenario)
    found: dict[str, dict[int, Any]] = {name: {} for name in loaded.variants}
    for run in play_all(loaded, SEEDS):
        found[run.variant][run.seed] = run.figures
    return result(found)


@pytest.fixture(scope="module")
def figures() -> dict[str, Any]:
    return played(HEADLINE)


@pytest.fixture(scope="module")
def routed() -> dict[str, Any]:
    return played(ROUTED)


def versus_fifo(figures: dict[str, Any], variant: str, name: str) -> dict[str, Any]:
    """The paired comparison with the central queue."""
    compared: dict[str, Any] = figures["paired"][f"{variant} vs fifo"][name]
    return compared


def test_it_is_the_scenario_that_was_agreed(figures: dict[str, Any]) -> None:
    for each in figures["variants"].values():
        assert (each["tasks"], each["lost"]) == (45_000, 0)
    loaded = load(HEADLINE)
    pools = {pool.metadata.name: (pool.spec.replicas, pool.spec.slots) for pool in loaded.scenario.pools}
    speeds = {name: loaded.scenario.traits(name).speed for name in pools}
    assert pools == {"fast": (40, 4), "middle": (80, 4), "slow": (40, 4)}
    assert speeds == {"fast": 1.5, "middle": 1.0, "slow": 0.6}


@pytest.mark.parametrize("variant", ["full", "deadline-first"])
def test_what_both_reach(figures: dict[str, Any], variant: str) -> None:
    found = figures["variants"][variant]
    assert found["utilization"] >= 0.88
    assert found["load_variance"] <= 0.05
    assert found["fairness_jain"] is None or found["fairness_jain"] >= 0.98
    assert found["completed"] == 45_000


def test_full(figures: dict[str, Any]) -> None:
    found = figures["variants"]["full"]
    assert found["priority_inversions"] == 0
    assert versus_fifo(figures, "full", "wait.mean")["ratio_95"][1] <= 1.02
    assert found["deadline_success"] >= 0.97
    for level in ("Critical", "High", "Normal", "Low"):
        assert found["per_level"][level]["deadline_success"] >= 0.99


def test_deadline_first(figures: dict[str, Any]) -> None:
    found = figures["variants"]["deadline-first"]
    assert found["priority_inversions"] == 0
    assert found["deadline_success"] >= 0.992
    assert versus_fifo(figures, "deadline-first", "deadline_misses")["ratio"] <= 0.65
    assert versus_fifo(figures, "deadline-first", "wait.mean")["ratio"] <= 0.55


def test_with_skills_it_is_the_headline_but_for_skills_and_a_route() -> None:
    loaded = load(ROUTED)
    pools = {pool.metadata.name: pool.spec for pool in loaded.scenario.pools}
    agents = {name: spec.replicas or 0 for name, spec in pools.items()}
    skilled = sum(agents[name] for name, spec in pools.items() if spec.skills)
    assert (sum(agents.values()), skilled) == (160, 64)
    for name, number in (("fast", 40), ("middle", 80), ("slow", 40)):
        assert agents[name] + agents[f"{name}-vision"] == number
    counts = {stream.name: stream.count for stream in loaded.scenario.workload.streams}
    assert counts == {"plain": 31_500, "skilled": 13_500}


def test_with_skills_full_keeps_its_bars_but_for_low_and_load_variance(routed: dict[str, Any]) -> None:
    found = routed["variants"]["full"]
    assert (found["completed"], found["priority_inversions"]) == (45_000, 0)
    assert versus_fifo(routed, "full", "wait.mean")["ratio_95"][1] <= 1.25
    assert found["deadline_success"] >= 0.97
    assert found["utilization"] >= 0.88
    for level in ("Critical", "High", "Normal"):
        assert found["per_level"][level]["deadline_success"] >= 0.99
    # Their bars are 0.99 and 0.05: docs/headline.md says what limits them.
    assert found["per_level"]["Low"]["deadline_success"] >= 0.985
    assert found["load_variance"] <= 0.075


def test_with_skills_deadline_first_keeps_its_wait_and_comes_near_its_bars(routed: dict[str, Any]) -> None:
    found = routed["variants"]["deadline-first"]
    assert (found["completed"], found["priority_inversions"]) == (45_000, 0)
    assert versus_fifo(routed, "deadline-first", "wait.mean")["ratio"] <= 0.55
    assert found["utilization"] >= 0.88
    # Their bars are 0.992, 0.65 and 0.05.
    assert found["deadline_success"] >= 0.99
    assert versus_fifo(routed, "deadline-first", "deadline_misses")["ratio"] <= 0.75
    assert found["load_variance"] <= 0.085
