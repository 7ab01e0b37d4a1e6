"""Where queueing theory has closed forms, the simulator around the real core agrees with them."""

import heapq
from math import factorial
from typing import Any

import pytest
from sim_worlds import playing, stream, waits

from taskdist.api import Priority
from taskdist.simulation.compare import student

pytestmark = pytest.mark.statistical

SEEDS = tuple(range(1, 11))
# The intervals are those of 99.9%, not 95%: many cases are tried, and each has to hold. Student's t for ten seeds.
T_999 = 4.781


def erlang_c(servers: int, load: float) -> float:
    """The probability that an arrival waits in M/M/c, with `load` in Erlangs (Erlang 1917)."""
    waiting = load**servers / factorial(servers) * servers / (servers - load)
    return waiting / (sum(load**n / factorial(n) for n in range(servers)) + waiting)


def kiefer_wolfowitz(arrivals: list[float], services: list[float], servers: int) -> list[float]:
    """Waits of first come, first served with like servers, by the recursion (Kiefer and Wolfowitz 1955)."""
    free = [0.0] * servers
    found = []
    for at, service in zip(arrivals, services, strict=True):
        start = max(at, heapq.heappop(free))
        heapq.heappush(free, start + service)
        found.append(start - at)
    return found


def poisson(rate: float, service: Any, count: int, **more: Any) -> dict[str, Any]:
    return stream({"poisson": {"perSecond": rate}}, service, count, **more)


def slots(servers: int) -> dict[str, dict[str, Any]]:
    """So many like servers, as agents of one or two slots."""
    each = 2 if servers % 2 == 0 else 1
    return {"p": {"replicas": servers // each, "slots": each}}


def settled(values: list[float], part: float = 0.2) -> float:
    """The mean without the first part, in which the queue was filling."""
    kept = values[int(part * len(values)) :]
    return sum(kept) / len(kept)


def agrees(samples: list[float], expected: float, within: float) -> None:
    """The interval of the samples' mean covers what is expected, and is narrow enough to say something."""
    mean = sum(samples) / len(samples)
    spread = (sum((each - mean) ** 2 for each in samples) / (len(samples) - 1)) ** 0.5
    half = T_999 * spread / len(samples) ** 0.5
    assert abs(mean - expected) <= half, f"{mean:.4f} ± {half:.4f}, theory says {expected:.4f}"
    assert half <= within * expected, f"± {half:.4f} is too wide to say that {mean:.4f} is {expected:.4f}"


MMC = {
    "one server, half busy": (1, 0.5, 4_000, 0.25),
    "three servers": (3, 0.7, 5_000, 0.4),
    "ten servers": (10, 0.6, 5_000, 0.5),
}
NEARLY_FULL = {
    "one server": (1, 0.95, 120_000, 0.25),
    "four servers": (4, 0.95, 120_000, 0.25),
    "twenty servers": (20, 0.95, 120_000, 0.25),
    "five servers, nine tenths busy": (5, 0.9, 80_000, 0.15),
}


def mmc(servers: int, busy: float, count: int, within: float) -> None:
    expected = erlang_c(servers, servers * busy) / (servers - servers * busy)
    found = [
        settled(
            waits(playing(poisson(servers * busy, {"exponential": {"mean": 1}}, count), pools=slots(servers), seed=s))
        )
        for s in SEEDS
    ]
    agrees(found, expected, within)


@pytest.mark.parametrize(("servers", "busy", "count", "within"), MMC.values(), ids=MMC.keys())
def test_mean_wait_of_mmc(servers: int, busy: float, count: int, within: float) -> None:
    mmc(servers, busy, count, within)


@pytest.mark.long
@pytest.mark.parametrize(("servers", "busy", "count", "within"), NEARLY_FULL.values(), ids=NEARLY_FULL.keys())
def test_mean_wait_of_mmc_nearly_full(servers: int, busy: float, count: int, within: float) -> None:
    mmc(servers, busy, count, within)


@pytest.mark.parametrize("servers", [1, 3, 20])
@pytest.mark.parametrize("service", [{"exponential": {"mean": 1}}, {"lognormal": {"mean": 1, "sigma": 1}}], ids=str)
def test_each_wait_is_that_of_the_recursion(servers: int, service: Any) -> None:
    """Nearly full, where means converge slowly: path by path instead, which is exact."""
    record = playing(poisson(servers * 0.95, service, 3_000), pools={"p": {"replicas": servers}})
    jobs = [life.job for life in record.tasks]
    expected = kiefer_wolfowitz([job.created for job in jobs], [job.service for job in jobs], servers)
    assert waits(record) == pytest.approx(expected, abs=1e-6)
    assert max(expected) > 1


MG1 = {
    # Name: service, its squared coefficient of variation.
    "constant": (1, 0.0),
    "uniform": ({"uniform": {"low": 0, "high": 2}}, 1 / 3),
    "lognormal": ({"lognormal": {"mean": 1, "sigma": 0.8}}, 0.8964808793),
    "hyperexponential": (
        {"hyperexponential": {"branches": [{"weight": 9, "mean": 0.5}, {"weight": 1, "mean": 5.5}]}},
        5.5,
    ),
}


@pytest.mark.parametrize(("service", "variation"), MG1.values(), ids=MG1.keys())
def test_mean_wait_of_mg1(service: Any, variation: float) -> None:
    """Pollaczek and Khinchine: ρ/(1 − ρ) · (1 + c²)/2 mean services."""
    busy = 0.7
    expected = busy / (1 - busy) * (1 + variation) / 2
    found = [settled(waits(playing(poisson(busy, service, 4_000), seed=seed))) for seed in SEEDS]
    agrees(found, expected, 0.6 if variation > 1 else 0.35)


LEVELS = list(Priority)[1:]
PRIORITIES = {
    # Name: servers, arrival rates of the levels from the highest on (mean service 1).
    "two levels, one server": (1, (0.3, 0.5)),
    "three levels, four servers": (4, (0.8, 1.0, 1.0)),
}


@pytest.mark.parametrize(("servers", "rates"), PRIORITIES.values(), ids=PRIORITIES.keys())
def test_mean_waits_of_priority_mmc(servers: int, rates: tuple[float, ...]) -> None:
    """Without preemption and with one mean service, by Cobham 1954 (Kella and Yechiali 1985 for more).

    W_k = C(c, ρ) / (c μ (1 − σ_{k−1})(1 − σ_k)), σ_k the load of the k highest levels per server.
    """
    total = sum(rates)
    choices = [{"weight": rate, "value": LEVELS[level]} for level, rate in enumerate(rates)]
    streams = poisson(total, {"exponential": {"mean": 1}}, 5_000, task={"priority": {"choose": choices}})
    found: list[list[float]] = [[] for _ in rates]
    for seed in SEEDS:
        lives = playing(streams, pools=slots(servers), seed=seed).tasks[1_000:]
        for level in range(len(rates)):
            own = [
                life.started - life.job.created
                for life in lives
                if life.task.priority == LEVELS[level].level and life.started
            ]
            found[level].append(sum(own) / len(own))
    above = 0.0
    for level, rate in enumerate(rates):
        upto = above + rate / servers
        expected = erlang_c(servers, total) / (servers * (1 - above) * (1 - upto))
        agrees(found[level], expected, 0.5)
        above = upto


def test_the_quantiles_that_intervals_use() -> None:
    assert student(4) == pytest.approx(2.7764)
