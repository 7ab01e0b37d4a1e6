"""The baselines are what their names say: known order, known size, own queues, the core's own rules beside it."""

from collections import Counter
from typing import Any

import pytest
from sim_worlds import ends, playing, starts, stream

from taskdist.simulation.record import Outcome, Record

PUSH = ["round-robin", "weighted-round-robin", "random", "power-of-two", "least-loaded"]
ALL = [*PUSH, "fifo"]


def turnaround(record: Record) -> float:
    lives = record.tasks[len(record.tasks) // 4 :]
    return sum(life.ended - life.job.created for life in lives if life.ended is not None) / len(lives)


def supermarket(busy: float, choices: int) -> float:
    """Mean time in system of many M/M/1 queues, each Task joining the shortest of so many (Mitzenmacher 1996)."""
    if choices == 1:
        return 1 / (1 - busy)
    mean: float = sum(busy ** ((choices**i - choices) / (choices - 1)) for i in range(1, 20))
    return mean


@pytest.mark.statistical
def test_power_of_two_and_least_loaded_against_random() -> None:
    """Random is M/M/1, two choices shorten queues exponentially, and the least loaded hardly lets any wait."""
    busy, servers = 0.8, 30
    load = stream({"poisson": {"perSecond": busy * servers}}, {"exponential": {"mean": 1}}, 16_000)
    found = {
        policy: turnaround(playing(load, pools={"p": {"replicas": servers}}, policy=policy))
        for policy in ("random", "power-of-two", "least-loaded", "fifo")
    }
    assert found["random"] == pytest.approx(supermarket(busy, 1), rel=0.12)
    # With 30 queues, not infinitely many, a little above the limit.
    assert found["power-of-two"] == pytest.approx(supermarket(busy, 2), rel=0.08)
    # Join the shortest queue: nearly all find an idle one; above the central queue's.
    assert found["fifo"] < found["least-loaded"] < 1.25
    assert found["fifo"] < found["least-loaded"] < found["power-of-two"] < found["random"]


@pytest.mark.statistical
def test_round_robin_beats_random_and_weights_beat_it_where_speeds_differ() -> None:
    load = stream({"poisson": {"perSecond": 12}}, {"exponential": {"mean": 1}}, 5_000)
    unlike: dict[str, Any] = {
        "pools": {"fast": {"replicas": 5}, "slow": {"replicas": 5}},
        "agents": {"fast": {"speed": 2}, "slow": {"speed": 1}},
    }
    found = {policy: turnaround(playing(load, policy=policy, **unlike)) for policy in ALL}
    assert found["weighted-round-robin"] < found["round-robin"]
    assert found["fifo"] < min(found[policy] for policy in PUSH)
    alike: dict[str, Any] = {"pools": {"p": {"replicas": 15}}}
    assert turnaround(playing(load, policy="round-robin", **alike)) < turnaround(
        playing(load, policy="random", **alike)
    )


def test_pushed_tasks_stay_where_they_are() -> None:
    """Round-robin gives the third Task to the first agent, although the second is free sooner."""
    streams = [stream({"burst": {"at": at, "count": 1}}, service) for at, service in ((0, 10), (1, 1), (2, 1))]
    record = playing(*streams, pools={"p": {"replicas": 2}}, policy="round-robin")
    assert starts(record) == [0, 1, 10]
    assert starts(playing(*streams, pools={"p": {"replicas": 2}}, policy="fifo")) == [0, 1, 2]


def test_fifo_takes_the_fastest_free_agent_and_ignores_priority() -> None:
    streams = [
        stream({"burst": {"at": at, "count": 1}}, 10, task={"priority": level})
        for at, level in enumerate(("Low", "Normal", "High"))
    ]
    record = playing(
        *streams,
        pools={"slow": {"replicas": 1}, "fast": {"replicas": 1}},
        agents={"fast": {"speed": 5}},
        policy="fifo",
    )
    assert [life.attempts[0].agent.pool for life in record.tasks] == ["fast", "slow", "fast"]


def test_weights_are_slots_times_speed() -> None:
    load = stream({"constant": {"perSecond": 1}}, 0.001, 60)
    record = playing(
        load,
        pools={"a": {"replicas": 1, "slots": 2}, "b": {"replicas": 1, "slots": 1}},
        agents={"a": {"speed": 1}, "b": {"speed": 4}},
        policy="weighted-round-robin",
    )
    assert Counter(life.attempts[0].agent.pool for life in record.tasks) == {"a": 20, "b": 40}


@pytest.mark.parametrize("policy", ALL)
def test_only_agents_that_may_run_a_task_get_it(policy: str) -> None:
    tasks = stream({"burst": {"at": 0, "count": 6}}, 1, task={"skills": ["gpu"]})
    record = playing(tasks, pools={"plain": {"replicas": 3}, "gpu": {"replicas": 1, "skills": ["gpu"]}}, policy=policy)
    assert {life.attempts[0].agent.pool for life in record.tasks} == {"gpu"}
    assert ends(record) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("policy", ALL)
def test_slots_and_resources_are_never_overbooked(policy: str) -> None:
    tasks = [
        stream({"burst": {"at": 0, "count": 5}}, 2, task={"slots": 3}),
        stream({"burst": {"at": 0, "count": 5}}, 2, task={"resources": {"gpu": 1}}),
    ]
    record = playing(*tasks, pools={"p": {"replicas": 2, "slots": 4, "resources": {"gpu": 1}}}, policy=policy)
    assert {life.outcome for life in record.tasks} == {Outcome.COMPLETED}
    for each in record.log:
        holding = [
            life
            for life in record.tasks
            for attempt in life.attempts
            if attempt.agent is each[3] and attempt.start <= each[0] < (attempt.end or 0)
        ]
        assert sum(life.task.slots for life in holding) <= 4
        assert sum(bool(life.task.resources) for life in holding) <= 1


@pytest.mark.parametrize("policy", ALL)
def test_the_queue_of_a_dead_agent_goes_to_others(policy: str) -> None:
    tasks = stream({"burst": {"at": 0, "count": 9}}, 4)
    record = playing(
        tasks,
        pools={"p": {"replicas": 3}},
        policy=policy,
        faults={"agentDeath": {"every": 5, "replaceAfter": 1}},
        queue={"retry": {"limit": 50, "initialSeconds": 0}},
    )
    assert {life.outcome for life in record.tasks} == {Outcome.COMPLETED}
    assert record.known == 0


@pytest.mark.parametrize("policy", ALL)
def test_failures_follow_the_queue_s_retry(policy: str) -> None:
    record = playing(
        stream(service=2),
        policy=policy,
        faults={"attemptFailure": {"probability": 1, "at": 0.5}},
        queue={"retry": {"limit": 2, "initialSeconds": 4, "factor": 2, "jitter": 0}},
    )
    life = record.tasks[0]
    assert [attempt.start - record.begun for attempt in life.attempts] == [0, 5, 14]
    assert (life.outcome, life.retries) == (Outcome.FAILED, 2)
