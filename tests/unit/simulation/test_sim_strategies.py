"""Strategies against their theory, and against Adaptive, over whole runs of the real core. No seed is chosen."""

from collections import Counter, defaultdict
from typing import Any

import pytest
from sim_worlds import played, scenario, stream

from taskdist.simulation.figures import figures
from taskdist.simulation.record import Record

SEEDS = (1, 2, 3)
SERVICE = {"exponential": {"mean": 10}}


def erlang_loss(servers: int, load: float) -> float:
    """B(c, a): the part of Poisson arrivals that find all c servers busy (Erlang, 1917)."""
    blocked = 1.0
    for number in range(1, servers + 1):
        blocked = load * blocked / (number + load * blocked)
    return blocked


def zoned(load: float, agents: int) -> Record:
    """Zones a and b, each with so many agents of 4 slots; Tasks of a keep its slots busy by `load`, those of b a
    quarter of theirs."""
    rate = load * agents * 4 / 10
    tasks = [
        stream(
            {"poisson": {"perSecond": rate if home == "a" else 0.25 * agents * 4 / 10}},
            SERVICE,
            name=home,
            duration=2500,
            task={"zones": [home, "b" if home == "a" else "a"]},
        )
        for home in ("a", "b")
    ]
    return played(
        scenario(
            *tasks,
            pools={"p": {"replicas": 2 * agents, "slots": 4}},
            agents={"p": {"zones": ["a", "b"]}},
            queue={"strategy": "ZoneAware"},
        )
    )


def local(record: Record, home: str) -> float:
    where = Counter(
        life.attempts[0].agent.zone == home for life in record.tasks if life.job.stream == home and life.attempts
    )
    return where[True] / (where[True] + where[False])


@pytest.mark.statistical
@pytest.mark.parametrize(("load", "least"), [(0.5, 0.95), (0.7, 0.95), (0.79, 0.95), (1.2, 0.5)])
def test_zone_aware_stays_local_and_spills_by_load(load: float, least: float) -> None:
    agents = 15
    record = zoned(load, agents)
    found = local(record, "a")
    assert found >= least
    # What spills is what Erlang's formula says of a zone that loses what finds it full.
    assert found == pytest.approx(1 - erlang_loss(4 * agents, load * 4 * agents), abs=0.03)
    assert figures(record)["wait"]["p99"] == 0, "whoever finds its zone full does not wait for it"
    if load > 1:
        assert found < 0.9, "what is too much for the zone goes to the other"


# Five minutes of more than all agents can do, after twenty that keep three of four plain slots busy.
BURSTS = {"mmpp": {"states": [{"perSecond": 3, "meanSeconds": 1200}, {"perSecond": 9, "meanSeconds": 300}]}}


def over_seeds(strategy: str, arrivals: dict[str, Any], elastic: bool) -> dict[str, float]:
    """Ten plain agents, and ten equally quick that cost and draw three times as much; with `elastic` these come and go.

    Returns sums of what was measured: the bill, the energy, the Tasks' own cost by slot time, the mean wait.
    """
    dear: dict[str, Any] = {"scaling": {"maxReplicas": 10}} if elastic else {"replicas": 10}
    given = scenario(
        stream(arrivals, SERVICE, duration=7200),
        pools={
            "plain": {"replicas": 10, "slots": 4, "costPerHour": 0.1, "wattsBusy": 100, "wattsIdle": 40},
            "dear": {**dear, "slots": 4, "costPerHour": 0.3, "wattsBusy": 300, "wattsIdle": 120},
        },
        queue={"strategy": strategy},
    )
    found: dict[str, float] = defaultdict(float)
    for seed in SEEDS:
        record = played(given, seed)
        shown = figures(record)
        found["bill"] += shown["cost"]
        found["energy"] += shown["energy_wh"]
        found["wait"] += shown["wait"]["mean"]
        for life in record.tasks:
            for attempt in life.attempts:
                hours = ((record.ended if attempt.end is None else attempt.end) - attempt.start) / 3600
                found["tasks"] += record.traits[attempt.agent.pool].cost_per_hour / 4 * hours
    return found


@pytest.mark.statistical
def test_cost_and_energy_let_dear_agents_go_between_bursts() -> None:
    adaptive = over_seeds("Adaptive", BURSTS, True)
    for strategy in ("Cost", "Energy"):
        found = over_seeds(strategy, BURSTS, True)
        assert found["bill"] <= 0.85 * adaptive["bill"]
        assert found["energy"] <= 0.85 * adaptive["energy"]
        assert found["wait"] <= 1.1 * adaptive["wait"]


@pytest.mark.statistical
def test_where_agents_stay_only_the_tasks_own_part_can_be_saved() -> None:
    steady = {"poisson": {"perSecond": 2}}
    adaptive = over_seeds("Adaptive", steady, False)
    cost, energy = over_seeds("Cost", steady, False), over_seeds("Energy", steady, False)
    assert adaptive["wait"] == cost["wait"] == energy["wait"] == 0
    assert cost["bill"] == pytest.approx(adaptive["bill"], rel=0.01), "pods stay"
    assert cost["tasks"] <= 0.85 * adaptive["tasks"]
    # What they draw when idle is drawn whatever they do.
    assert energy["energy"] < 0.95 * adaptive["energy"]


@pytest.mark.statistical
def test_spread_keeps_zones_equally_busy() -> None:
    """Three agents in zone a for each in b."""
    record = played(
        scenario(
            stream({"poisson": {"perSecond": 0.8}}, SERVICE, duration=2000),
            pools={"p": {"replicas": 8, "slots": 4}},
            agents={"p": {"zones": ["a", "a", "a", "b"]}},
            queue={"strategy": "Spread"},
        )
    )
    seconds: dict[str, float] = defaultdict(float)
    for life in record.tasks:
        for attempt in life.attempts:
            end = record.ended if attempt.end is None else attempt.end
            seconds[attempt.agent.zone] += end - attempt.start
    assert seconds["b"] / (seconds["a"] + seconds["b"]) == pytest.approx(0.25, abs=0.05)
