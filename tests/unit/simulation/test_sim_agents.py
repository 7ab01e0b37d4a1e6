"""Agents that fail, agents that are new, and types with long tails: what the rules of the agent model are worth."""

from typing import Any

import pytest
from sim_worlds import playing, stream

from taskdist.simulation.record import Outcome, Record
from taskdist.simulation.workload import EPOCH

SEEDS = (1, 2, 3, 4, 5)
AGENTS = 20
LOGNORMAL = {"lognormal": {"mean": 1, "sigma": 1}}


def bad(ordinal: int) -> bool:
    """The 10th and the 20th of the agents."""
    return ordinal in (9, 19)


def spoilt(seed: int, service: Any, slots: int, at: Any, seconds: int = 400, **pool: Any) -> Record:
    """A pool of 20 agents at a load of 0.8, of which two fail all they get."""
    rate = 0.8 * AGENTS * slots
    return playing(
        stream({"poisson": {"perSecond": rate}}, service, int(rate * seconds)),
        seed=seed,
        pools={"p": {"replicas": AGENTS, "slots": slots, **pool}},
        faults={"badAgents": {"share": 0.1, "at": at}},
        queue={"retry": {"limit": 100}},
    )


def lost(record: Record, since: float) -> float:
    """The part of the attempts from then on that went to bad agents."""
    attempts = [each for life in record.tasks for each in life.attempts if each.start >= EPOCH + since]
    return sum(bad(each.agent.ordinal) for each in attempts) / len(attempts)


@pytest.mark.statistical
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("at", ["uniform", 0.05], ids=["midway", "at once"])
@pytest.mark.parametrize("slots", [1, 4])
@pytest.mark.parametrize("service", [1, LOGNORMAL], ids=["constant", "lognormal"])
def test_agents_that_fail_all_get_less_than_one_in_a_hundred_after_a_minute(
    service: Any, slots: int, at: Any, seed: int
) -> None:
    record = spoilt(seed, service, slots, at)
    assert lost(record, 60.0) < 0.01
    assert {life.outcome for life in record.tasks} == {Outcome.COMPLETED}


def test_one_history_of_them() -> None:
    """The same, short enough for each change's check; and what it would be without."""
    assert lost(spoilt(1, 1, 1, "uniform", 240), 60.0) < 0.01
    assert lost(spoilt(1, 1, 1, "uniform", 240, breaker={"enabled": False}), 60.0) > 0.1


def test_they_come_back_once_they_are_well() -> None:
    record = playing(
        stream({"poisson": {"perSecond": 16}}, 1, 16 * 1200),
        pools={"p": {"replicas": AGENTS}},
        faults={"badAgents": {"share": 0.1, "from": 100, "for": 200}},
        queue={"retry": {"limit": 100}},
    )

    def part(since: float, until: float) -> float:
        attempts = [each for life in record.tasks for each in life.attempts if since <= each.start - EPOCH < until]
        return sum(bad(each.agent.ordinal) for each in attempts) / len(attempts)

    assert part(0, 100) == pytest.approx(0.1, abs=0.02)
    assert part(160, 300) < 0.01
    # Their last probe failed before 300 s, the next is at most as long after as the breaker was open until then.
    assert part(700, 1200) == pytest.approx(0.1, abs=0.02)


@pytest.mark.parametrize("probability", [0.05, 0.3, 1.0])
def test_failures_that_are_nobody_s_fault_take_no_agent_away(probability: float) -> None:
    """Each attempt anywhere fails so often: agents go on sharing the work alike."""
    record = playing(
        stream({"poisson": {"perSecond": 16}}, 1, 16 * 400),
        pools={"p": {"replicas": AGENTS}},
        faults={"attemptFailure": {"probability": probability}},
        queue={"retry": {"limit": 0}},
    )
    shares = [0] * AGENTS
    for life in record.tasks:
        for attempt in life.attempts:
            shares[attempt.agent.ordinal] += 1
    assert min(shares) > 0.8 * sum(shares) / AGENTS


def test_a_new_agent_is_filled_slowly() -> None:
    """One agent of ten slots, more work than it can do: by 1 + 9 × t ÷ 90 slots at most, and soon by as many."""
    record = playing(
        stream({"burst": {"at": 0, "count": 900}}, 1),
        pools={"p": {"replicas": 1, "slots": 10, "slowStartSeconds": 90}},
    )
    for second in range(5, 100, 5):
        busy = sum(
            each.start <= EPOCH + second + 0.5 < (each.end or 0.0) for life in record.tasks for each in life.attempts
        )
        assert busy == min(10, 1 + int(9 * (second + 0.5) / 90)), second


def in_time(seed: int, **more: Any) -> float:
    """The part of the Tasks after 200 s that are done within 1.2 s of their creation.

    Of two pools `quick` takes a third of the time that `steady` does, but three of its ten agents are ten times slower
    at any time. There is room enough in both.
    """
    record = playing(
        stream({"poisson": {"perSecond": 4}}, 1, 3200, **more),
        seed=seed,
        pools={"quick": {"replicas": 10}, "steady": {"replicas": 10}},
        agents={"quick": {"speed": 3}},
        faults={"slowAgent": {"every": 1, "factor": 0.1, "for": 3, "pools": ["quick"]}},
    )
    lives = [life for life in record.tasks if life.job.created > EPOCH + 200 and life.ended is not None]
    return sum((life.ended or 0.0) - life.job.created <= 1.2 for life in lives) / len(lives)


@pytest.mark.statistical
@pytest.mark.parametrize("seed", SEEDS)
def test_a_type_with_a_long_tail_goes_where_it_ends_in_time(seed: int) -> None:
    """The same Tasks with that as their deadline, and without one."""
    with_deadline, without = in_time(seed, deadline={"within": 1.2}), in_time(seed)
    assert 1 - with_deadline < (1 - without) / 4
