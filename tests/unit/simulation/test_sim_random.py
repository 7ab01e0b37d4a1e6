"""Uniform numbers, distributions and arrival processes: what they say of themselves is so."""

from itertools import islice, pairwise, takewhile
from math import exp, inf, isinf, sqrt
from typing import Any

import pytest
from pydantic import ValidationError

from taskdist.simulation.arrivals import Arrivals, Bursts, Diurnal
from taskdist.simulation.chance import Chance, Sequence
from taskdist.simulation.distributions import OneOf
from taskdist.simulation.faults import AttemptFailure, Failures

# Uniforms.


def test_a_number_does_not_depend_on_others() -> None:
    chance = Chance(7, "service", "web")
    forward = [chance(number) for number in range(100)]
    backward = [Chance(7, "service", "web")(number) for number in reversed(range(100))]
    assert forward == backward[::-1]
    assert len(set(forward)) == 100


def test_the_numbers_stay_what_they_are() -> None:
    """Scenarios that were published name a seed: it has to go on meaning the same run."""
    chance = Chance(7, "service", "web")
    assert [chance(number) for number in (0, 1, 2, 10**9, 2**63)] == [
        0.6708021020523102,
        0.5301705239374278,
        0.08154530317511399,
        0.5889027217659032,
        0.04612576609916996,
    ]


@pytest.mark.parametrize("other", [Chance(8, "service", "web"), Chance(7, "service"), Chance(7, "servicew", "eb")])
def test_another_seed_or_purpose_gives_other_numbers(other: Chance) -> None:
    assert Chance(7, "service", "web")(1) != other(1)


def test_numbers_are_uniform_and_hang_together_no_more_than_chance_would() -> None:
    count = 20_000
    found = [Chance(1, "test")(number) for number in range(count)]
    assert min(found) > 0
    assert max(found) < 1
    # Four standard errors of mean, variance, and of the correlation of neighbours.
    assert abs(sum(found) / count - 0.5) < 4 * sqrt(1 / 12 / count)
    assert abs(sum((each - 0.5) ** 2 for each in found) / count - 1 / 12) < 4 * sqrt(1 / 180 / count)
    lagged = sum((a - 0.5) * (b - 0.5) for a, b in pairwise(found)) / count * 12
    assert abs(lagged) < 4 / sqrt(count)
    tenths = [sum(n / 10 <= each < (n + 1) / 10 for each in found) for n in range(10)]
    assert sum((each - count / 10) ** 2 / (count / 10) for each in tenths) < 33.7  # 99.99% of chi² with 9


# Distributions.

DISTRIBUTIONS: dict[str, tuple[Any, float]] = {
    "a number": (2, 2),
    "constant": ({"constant": 0.5}, 0.5),
    "exponential": ({"exponential": {"mean": 3}}, 3),
    "uniform": ({"uniform": {"low": 1, "high": 2}}, 1.5),
    "lognormal by median": ({"lognormal": {"median": 2, "sigma": 0.5}}, 2 * exp(0.125)),
    "lognormal by mean": ({"lognormal": {"mean": 2, "sigma": 0.5}}, 2),
    "lognormal without spread": ({"lognormal": {"median": 2, "sigma": 0}}, 2),
    "pareto": ({"pareto": {"shape": 3, "minimum": 2}}, 3),
    "pareto with a cut": ({"pareto": {"shape": 1.5, "minimum": 1, "maximum": 100}}, 2.8),
    "pareto of shape 1 with a cut": ({"pareto": {"shape": 1, "minimum": 1, "maximum": 10}}, 3.302585),
    "weibull": ({"weibull": {"shape": 2, "scale": 1}}, 0.886227),
    "hyperexponential": (
        {"hyperexponential": {"branches": [{"weight": 1, "mean": 1}, {"weight": 3, "mean": 5}]}},
        4,
    ),
    "empirical": ({"empirical": [1, 2, 6]}, 3),
}


@pytest.mark.parametrize(("given", "mean"), DISTRIBUTIONS.values(), ids=DISTRIBUTIONS.keys())
def test_the_mean_is_the_mean_of_the_quantiles(given: Any, mean: float) -> None:
    distribution = OneOf.model_validate(given)
    assert distribution.mean == pytest.approx(mean, rel=1e-4)
    count = 40_000
    sample = distribution.sampler()
    # The midpoints of equal parts: no chance in it, but a heavy tail is missed a little.
    average = sum(sample((number + 0.5) / count) for number in range(count)) / count
    assert average == pytest.approx(mean, rel=0.01)


@pytest.mark.parametrize("given", [case[0] for case in DISTRIBUTIONS.values()], ids=DISTRIBUTIONS.keys())
def test_no_value_is_negative_or_infinite(given: Any) -> None:
    sample = OneOf.model_validate(given).sampler()
    assert all(0 <= sample(uniform) < inf for uniform in (2.0**-53, 1e-9, 0.25, 0.5, 0.75, 1 - 1e-9, 1 - 2.0**-53))


def test_a_mean_that_does_not_exist_is_infinite() -> None:
    assert isinf(OneOf.model_validate({"pareto": {"shape": 1, "minimum": 1}}).mean)


# Arrivals.


def times(given: dict[str, Any], until: float, seed: int = 1) -> list[float]:
    draw = Sequence(seed, "arrivals")
    return list(takewhile(lambda at: at < until, Arrivals.model_validate(given).times(draw)))


RATES: dict[str, tuple[dict[str, Any], float]] = {
    "poisson": ({"poisson": {"perSecond": 4}}, 4),
    "constant": ({"constant": {"perSecond": 4}}, 4),
    "bursts": ({"bursts": {"perSecond": 2, "burstPerSecond": 10, "for": 5, "every": 20}}, 4),
    "bursts without pause": ({"bursts": {"perSecond": 2, "burstPerSecond": 10, "for": 20, "every": 20}}, 10),
    "mmpp": (
        {"mmpp": {"states": [{"perSecond": 0, "meanSeconds": 3}, {"perSecond": 12, "meanSeconds": 1}]}},
        3,
    ),
    "mmpp of three": (
        {"mmpp": {"states": [{"perSecond": rate, "meanSeconds": 1} for rate in (1, 2, 6)]}},
        3,
    ),
    "diurnal": ({"diurnal": {"perSecond": 4, "amplitude": 1, "period": 100, "peakAt": 20}}, 4),
    "repeated burst": ({"burst": {"at": 5, "count": 8, "every": 2}}, 4),
}


@pytest.mark.parametrize(("given", "rate"), RATES.values(), ids=RATES.keys())
def test_the_long_run_rate(given: dict[str, Any], rate: float) -> None:
    found = times(given, 5_000)
    assert found == sorted(found)
    assert found[0] >= 0
    assert len(found) / 5_000 == pytest.approx(rate, rel=0.06)


def test_a_burst_ends() -> None:
    assert times({"burst": {"at": 3, "count": 4}}, 100) == [3, 3, 3, 3]


def test_the_first_of_constant_comes_at_once() -> None:
    assert times({"constant": {"perSecond": 2}}, 2) == [0, 0.5, 1, 1.5]


def test_bursts_come_when_they_should() -> None:
    process = Bursts.model_validate({"perSecond": 1, "burstPerSecond": 50, "for": 2, "every": 10, "at": 3})
    found = list(islice(process.times(Sequence(1, "arrivals")), 20_000))
    inside = [at for at in found if at >= 3 and (at - 3) % 10 < 2]
    span = found[-1]
    assert len(inside) / (span / 10 * 2) == pytest.approx(50, rel=0.05)
    assert (len(found) - len(inside)) / (span / 10 * 8) == pytest.approx(1, rel=0.1)
    assert sum(at < 3 for at in found) < 12


def test_the_day_has_its_peak_where_it_says() -> None:
    process = Diurnal.model_validate({"perSecond": 10, "amplitude": 0.5, "period": 24, "peakAt": 14})
    assert process.rate(14) == pytest.approx(15)
    assert process.rate(2) == pytest.approx(5)
    found = list(islice(process.times(Sequence(1, "arrivals")), 30_000))
    peak, low = (sum(abs(at % 24 - hour) < 1 for at in found) for hour in (14, 2))
    assert peak / low == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"poisson": {"perSecond": 1}, "constant": {"perSecond": 1}},
        {"poisson": None},
        {"bursts": {"perSecond": 1, "burstPerSecond": 2, "for": 3, "every": 2}},
        {"mmpp": {"states": [{"perSecond": 0, "meanSeconds": 1}] * 2}},
        {"mmpp": {"states": [{"perSecond": 1, "meanSeconds": 1}]}},
    ],
    ids=["none", "two", "null", "overlap", "silent", "one state"],
)
def test_processes_that_cannot_be(given: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Arrivals.model_validate(given)


# Failures.


def test_attempts_fail_as_often_as_said_and_anywhere_in_their_service() -> None:
    failures = Failures(AttemptFailure(probability=0.2), 1)
    found = [failures.fraction(task, 1) for task in range(20_000)]
    failed = [each for each in found if each is not None]
    assert len(failed) / len(found) == pytest.approx(0.2, rel=0.05)
    assert sum(failed) / len(failed) == pytest.approx(0.5, rel=0.03)
    assert failures.fraction(3, 1) == found[3]
    again = [failures.fraction(task, 2) for task in range(20_000)]
    assert again != found


def test_failures_at_a_fixed_place_and_none() -> None:
    assert Failures(AttemptFailure(probability=1, at=0.25), 1).fraction(0, 1) == 0.25
    assert Failures(None, 1).fraction(0, 1) is None
