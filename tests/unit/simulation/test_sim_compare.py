"""Means over seeds, intervals, and paired differences."""

import random
from typing import Any

import pytest
from sim_worlds import NOWHERE, scenario, stream

from taskdist.simulation import parse, play_all
from taskdist.simulation.compare import interval, over_seeds, paired, result, student
from taskdist.simulation.figures import Figures


@pytest.mark.parametrize(
    ("freedom", "value"), [(1, 12.7062), (9, 2.2622), (30, 2.0423), (31, 2.0395), (60, 2.0003), (1000, 1.9623)]
)
def test_student(freedom: int, value: float) -> None:
    assert student(freedom) == pytest.approx(value, abs=2e-4)


def test_an_interval_covers_as_often_as_it_says() -> None:
    chance = random.Random(5)
    covered = 0
    for _ in range(2_000):
        found = interval([chance.gauss(3, 2) for _ in range(5)])
        assert found is not None
        covered += found[0] <= 3 <= found[1]
    assert covered / 2_000 == pytest.approx(0.95, abs=0.015)


def test_one_value_has_no_interval() -> None:
    assert interval([1]) is None
    assert interval([2, 2, 2]) == (2, 2)


def made(wait: float, success: float | None = None) -> Figures:
    summary = {"mean": wait, "p50": wait, "p95": wait, "p99": wait, "max": wait}
    return {
        "tasks": 10,
        "completed": 10,
        "wait": summary,
        "turnaround": summary,
        "deadline_success": success,
        "utilization": 0.5,
        "load_variance": None,
        "fairness_jain": None,
        "priority_inversions": 0,
        "cost": 1.0,
        "energy_wh": 0.0,
        "per_level": {"0": {"tasks": 10, "wait": summary}},
    }


def test_one_seed_is_told_as_it_is() -> None:
    figures = made(1)
    assert over_seeds({4: figures}) is figures


def test_several_seeds_are_averaged_with_their_spread() -> None:
    found = over_seeds({1: made(1, 0.9), 2: made(3, None)})
    assert found["wait"]["mean"] == 2
    assert found["per_level"]["0"]["wait"]["max"] == 2
    assert (found["tasks"], found["load_variance"], found["deadline_success"]) == (10, None, 0.9)
    assert found["spread"]["wait.mean"]["min"] == 1
    assert found["spread"]["wait.mean"]["interval_95"] == pytest.approx([2 - 12.7062, 2 + 12.7062], abs=1e-3)
    assert "load_variance" not in found["spread"]
    assert found["spread"]["deadline_success"]["interval_95"] is None
    assert list(found["seeds"]) == ["1", "2"]


def test_a_level_that_one_seed_lacks() -> None:
    other = made(3)
    other["per_level"] = {"5": {"tasks": 1, "wait": {"mean": 4}}}
    found = over_seeds({1: made(1), 2: other})
    assert found["per_level"]["5"]["wait"]["mean"] == 4
    assert found["per_level"]["0"]["wait"]["mean"] == 1


def test_pairs_are_tighter_than_what_they_compare() -> None:
    chance = random.Random(1)
    base = {seed: made(10 + chance.gauss(0, 3), 0.9) for seed in range(10)}
    better = {seed: made(each["wait"]["mean"] * 0.8 + chance.gauss(0, 0.05), 0.95) for seed, each in base.items()}
    found = paired({"better": better, "base": base})["better vs base"]
    wait = found["wait.mean"]
    assert wait["ratio"] == pytest.approx(0.8, abs=0.02)
    assert wait["ratio_95"][0] < wait["ratio"] < wait["ratio_95"][1] < 0.82
    assert found["deadline_misses"]["ratio"] == pytest.approx(0.5)
    assert wait["pairs"] == 10
    spread = over_seeds(base)["spread"]["wait.mean"]["interval_95"]
    assert spread[1] - spread[0] > 10 * (wait["ratio_95"][1] - wait["ratio_95"][0])


def test_a_ratio_to_nothing_is_none() -> None:
    found = paired({"a": {1: made(1)}, "b": {1: made(0)}})["a vs b"]["wait.mean"]
    assert (found["difference"], found["ratio"], found["difference_95"]) == (1, None, None)


def test_what_is_not_defined_is_not_compared() -> None:
    found = paired({"a": {1: made(1)}, "b": {1: made(1, 0.9)}})["a vs b"]
    assert "deadline_success" not in found
    assert "load_variance" not in found


def test_every_two_variants_are_compared() -> None:
    found = paired({name: {1: made(1)} for name in "abc"})
    assert list(found) == ["a vs b", "a vs c", "b vs c"]


def test_a_comparison_from_end_to_end() -> None:
    given = scenario(
        stream({"poisson": {"perSecond": 3}}, {"exponential": {"mean": 1}}, 400),
        pools={"p": {"replicas": 4}},
        compare={"core": {}, "random": {"policy": "random"}},
    )
    found: dict[str, dict[int, Any]] = {"core": {}, "random": {}}
    for run in play_all(parse(given, NOWHERE), range(4)):
        found[run.variant][run.seed] = run.figures
    told = result(found)
    assert set(told) == {"variants", "paired"}
    assert set(told["variants"]) == {"core", "random"}
    ratio = told["paired"]["core vs random"]["wait.mean"]
    assert ratio["ratio_95"][1] < 1


def test_without_variants_the_figures_stand_alone() -> None:
    figures = made(1)
    assert result({"": {1: figures}}) is figures
