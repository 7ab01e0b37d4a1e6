"""The world around the scheduler: what the scenario says happens, when it says, and nothing is lost on the way."""

import json
from collections import Counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sim_worlds import NOWHERE, ends, played, playing, scenario, starts, stream

from doubles import CoreDouble
from taskdist.api import Reason
from taskdist.core import Core, events
from taskdist.core.decisions import Decision, Fail
from taskdist.simulation import parse, play_all
from taskdist.simulation.figures import figures
from taskdist.simulation.loop import Loop, UnknownDecision
from taskdist.simulation.record import Outcome, Record, Step
from taskdist.simulation.runs import world
from taskdist.simulation.workload import EPOCH, jobs


def burst(count: int, service: Any = 1, at: float = 0, **more: Any) -> dict[str, Any]:
    return stream({"burst": {"at": at, "count": count}}, service, **more)


# Work.


def test_service_is_divided_by_the_agent_s_speed() -> None:
    assert ends(playing(burst(1, 3), agents={"p": {"speed": 1.5}})) == [2]


def test_order_is_the_core_s() -> None:
    tasks = [burst(1, 5), burst(1, at=1), burst(1, at=2, task={"priority": "High"})]
    assert starts(playing(*tasks)) == [0, 6, 5]


def test_a_task_of_no_service_takes_no_time() -> None:
    assert ends(playing(burst(4, 0))) == [0, 0, 0, 0]


def test_what_comes_at_once_is_decided_at_once() -> None:
    """The dispatch hands over all that happened before it asks: the higher of two at one moment goes first."""
    assert starts(playing(burst(1), burst(1, task={"priority": "High"}))) == [1, 0]


def test_choices_of_the_template_have_their_weights() -> None:
    task = {"priority": {"choose": [{"weight": 3, "value": "Low"}, {"weight": 1, "value": "High"}]}, "tenant": "red"}
    record = playing(burst(4_000, 0, task=task))
    found = Counter(life.task.priority for life in record.tasks)
    assert found[1] / 4_000 == pytest.approx(0.75, abs=0.03)
    assert {life.job.tenant for life in record.tasks} == {"red"}


def test_a_task_without_tenant_belongs_to_its_namespace() -> None:
    assert playing().tasks[0].job.tenant == "simulation"


def test_deadlines() -> None:
    slack = playing(burst(1, 2, deadline={"slack": 3}, at=1)).tasks[0].job.deadline
    within = playing(burst(1, 2, deadline={"within": {"constant": 3}}, at=1)).tasks[0].job.deadline
    assert (slack, within) == (EPOCH + 6, EPOCH + 4)


# Failures.


def test_failed_attempts_wait_for_their_back_off() -> None:
    record = playing(
        burst(1, 4),
        faults={"attemptFailure": {"probability": 1, "at": 0.25}},
        queue={"retry": {"limit": 2, "initialSeconds": 10, "factor": 2, "jitter": 0}},
    )
    life = record.tasks[0]
    assert [attempt.start - EPOCH for attempt in life.attempts] == [0, 11, 32]
    assert [since - EPOCH for since in life.eligible] == [0, 11, 32]
    assert (life.outcome, life.ended, life.retries) == (Outcome.FAILED, EPOCH + 33, 2)


def test_a_dead_agent_takes_its_work_along_and_is_replaced() -> None:
    record = playing(
        burst(2, 7),
        pools={"p": {"replicas": 1, "slots": 2}},
        faults={"agentDeath": {"every": 4, "replaceAfter": 3}},
        queue={"retry": {"agentDeaths": 2, "initialSeconds": 0}},
        until=30,
    )
    assert [[round(a.start - EPOCH, 6) for a in life.attempts] for life in record.tasks] == [[0, 7], [0, 7]]
    # The replacement, there since 7, dies at 8: the second and last attempt.
    assert [life.outcome for life in record.tasks] == [Outcome.FAILED] * 2
    first, second = record.agents[:2]
    assert (first.gone, second.ready) == (EPOCH + 4, EPOCH + 7)
    assert (first.ordinal, second.ordinal) == (0, 0)
    assert first.uid != second.uid


def test_a_death_that_is_found_out_later() -> None:
    """Slots of an agent whose death is not known yet are granted; what is granted there starts nothing."""
    record = playing(
        burst(1, 10),
        burst(1, 1, at=5),
        pools={"p": {"replicas": 1, "slots": 2}},
        faults={"agentDeath": {"every": 4, "replaceAfter": 2, "detectAfter": 3, "pools": ["p"]}},
        queue={"retry": {"limit": 9, "initialSeconds": 0}},
        until=7.5,
    )
    granted = record.tasks[1]
    assert [attempt.begun for attempt in granted.attempts] == [False, True]
    assert granted.started == EPOCH + 7
    first = record.tasks[0]
    assert [(a.start - EPOCH, a.end and a.end - EPOCH) for a in first.attempts] == [(0, 4), (7, None)]
    assert figures(record)["priority_inversions"] == 0


def test_a_slow_agent_stretches_what_it_runs_and_recovers() -> None:
    record = playing(burst(1, 10), faults={"slowAgent": {"every": 4, "factor": 0.5, "for": 2}}, until=60)
    # 4 s at full speed, 2 s at half, 2 at full (the second fault comes at 8), 2 at half, 2 at full.
    assert ends(record) == pytest.approx([12])
    assert [speed for _, speed in record.agents[0].speeds[:3]] == [1, 0.5, 1]


def test_the_last_task_does_not_wait_for_faults_to_end() -> None:
    record = playing(burst(1, 1), faults={"agentDeath": {"every": 0.4}, "slowAgent": {"every": 0.3}}, until=9)
    assert record.ended <= EPOCH + 9


def test_a_lost_zone_comes_back() -> None:
    record = playing(
        burst(6, 100),
        pools={"p": {"replicas": 6}},
        agents={"p": {"zones": ["a", "b", "c"]}},
        faults={"zoneLoss": [{"zone": "b", "at": 10, "for": 20}]},
        queue={"retry": {"initialSeconds": 0}},
    )
    gone = [agent for agent in record.agents if agent.gone is not None]
    assert [(agent.zone, agent.gone - EPOCH if agent.gone else 0) for agent in gone] == [("b", 10), ("b", 10)]
    assert sorted(ends(record)) == [100] * 4 + [130] * 2
    assert Counter(agent.zone for agent in record.agents) == {"a": 2, "b": 4, "c": 2}


# Pools.


def test_an_elastic_pool_grows_after_its_start_and_shrinks_after_its_delay() -> None:
    record = playing(
        burst(4, 10),
        burst(1, 1, at=60),
        pools={"p": {"slots": 2, "scaling": {"minReplicas": 0, "maxReplicas": 2, "scaleDownDelaySeconds": 20}}},
        agents={"p": {"startSeconds": 5}},
    )
    lives = [(agent.born - EPOCH, agent.ready and agent.ready - EPOCH, agent.gone) for agent in record.agents]
    assert [(born, ready) for born, ready, _ in lives] == [(0, 5), (0, 5), (60, 65)]
    assert [gone for _, _, gone in lives[:2]] == [EPOCH + 35] * 2
    assert starts(record) == [5, 5, 5, 5, 65]


def test_the_fixed_part_of_a_pool_is_there_from_the_start() -> None:
    pools = {"p": {"scaling": {"minReplicas": 2, "maxReplicas": 3}}}
    assert starts(playing(burst(2), pools=pools)) == [0, 0]


def test_agents_carry_zone_and_skills() -> None:
    task = {"agentSelector": {"matchLabels": {"topology.kubernetes.io/zone": "b"}}, "skills": ["gpu"]}
    record = playing(
        burst(3, task=task),
        pools={"p": {"replicas": 2, "skills": ["gpu"]}},
        agents={"p": {"zones": ["a", "b"]}},
    )
    assert {life.attempts[0].agent.zone for life in record.tasks} == {"b"}


# Ends.


def test_what_nobody_can_run_waits_and_the_run_ends() -> None:
    record = playing(burst(1, task={"skills": ["none"]}), burst(1), faults={"agentDeath": {"every": 3}})
    assert [life.outcome for life in record.tasks] == [Outcome.WAITING, Outcome.COMPLETED]
    assert figures(record)["lost"] == 0


def test_time_is_up() -> None:
    record = playing(burst(3, 4), until=6)
    assert [life.outcome for life in record.tasks] == [Outcome.COMPLETED, Outcome.RUNNING, Outcome.WAITING]
    assert record.ended == EPOCH + 6
    found = figures(record)
    assert (found["completed"], found["lost"]) == (1, 0)


def test_tasks_that_had_not_come_are_not_counted() -> None:
    found = figures(playing(burst(1), burst(1, at=50), until=10))
    assert (found["tasks"], found["completed"]) == (1, 1)


def test_no_tasks_at_all() -> None:
    found = figures(playing(stream({"poisson": {"perSecond": 0.001}}, duration=1)))
    assert (found["tasks"], found["wait"]["mean"], found["utilization"]) == (0, None, None)


# The scheduler's side.


class Odd(CoreDouble):
    """A core that says something new."""

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        return ["surprise"]  # type: ignore[list-item]


def loop(given: dict[str, Any], scheduler: Core | CoreDouble) -> Loop:
    loaded = parse(given, NOWHERE)
    return Loop(world(loaded.scenario, 1), jobs(loaded.scenario.workload.streams, {}, 1), scheduler)


def test_a_decision_that_is_not_known_is_not_ignored() -> None:
    with pytest.raises(UnknownDecision, match="cannot carry out str"):
        loop(scenario(burst(1)), Odd()).run()


class Forgetful(CoreDouble):
    """A core that loses every Task that fails."""

    def handle(self, event: events.Event, now: float) -> list[Decision]:
        found = super().handle(event, now)
        if isinstance(event, events.AttemptFailed):
            super().handle(events.TaskGone(event.uid), now)
            return []
        return found


def test_a_task_that_the_scheduler_lost_is_seen() -> None:
    given = scenario(burst(5), faults={"attemptFailure": {"probability": 0.5}})
    lost = figures(loop(given, Forgetful()).run())["lost"]
    assert lost > 0
    assert lost == 5 - figures(loop(given, Forgetful()).run())["completed"]


class Final(CoreDouble):
    """A core that fails at once."""

    def handle(self, event: events.Event, now: float) -> list[Decision]:
        super().handle(event, now)
        if isinstance(event, events.AttemptFailed):
            return [Fail(event.uid, 1, Reason.RETRIES_EXHAUSTED, "")]
        return []


def test_failed_tasks_are_counted() -> None:
    given = scenario(burst(5), faults={"attemptFailure": {"probability": 1}})
    found = figures(loop(given, Final()).run())
    assert (found["failed"], found["completed"], found["lost"]) == (5, 0, 0)


def test_progress_is_told_up_to_the_end() -> None:
    told: list[tuple[int, int]] = []
    loop(scenario(burst(6_000, 0)), Core()).run(lambda ended, of: told.append((ended, of)))
    assert told[-1] == (6_000, 6_000)
    assert len(told) >= 2
    assert told == sorted(told)


# Sameness.


def busy_world() -> dict[str, Any]:
    """Everything at once: levels, tenants, two pools, elastic, faults."""
    return scenario(
        stream(
            {"poisson": {"perSecond": 6}},
            {"lognormal": {"mean": 1, "sigma": 1}},
            400,
            task={
                "priority": {"choose": [{"value": "Low"}, {"value": "Critical"}]},
                "tenant": {"choose": [{"value": "red"}, {"value": "blue"}]},
                "slots": {"choose": [{"weight": 4, "value": 1}, {"value": 2}]},
            },
            deadline={"slack": {"exponential": {"mean": 2}}},
        ),
        pools={
            "p": {"replicas": 2, "slots": 2},
            "e": {"slots": 2, "scaling": {"maxReplicas": 4, "scaleDownDelaySeconds": 5}},
        },
        agents={"p": {"zones": ["a", "b"], "speed": 1.5, "watts": 50, "costPerHour": 1}},
        faults={
            "attemptFailure": {"probability": 0.1},
            "agentDeath": {"every": 7, "replaceAfter": 3, "detectAfter": 0.5},
            "slowAgent": {"every": 5, "factor": 0.5, "for": 4},
            "zoneLoss": [{"zone": "a", "at": 20, "for": 5}],
        },
        queue={"retry": {"initialSeconds": 0.2, "limit": 20}},
    )


def test_the_same_seed_gives_the_same_json_and_another_does_not() -> None:
    one, two, other = (json.dumps(figures(played(busy_world(), seed))) for seed in (3, 3, 4))
    assert one == two
    assert one != other


def test_variants_see_the_same_arrivals_services_failures_and_deaths() -> None:
    given = scenario(
        stream({"poisson": {"perSecond": 3}}, {"exponential": {"mean": 1}}, 200),
        pools={"p": {"replicas": 4}},
        faults={"attemptFailure": {"probability": 0.2}, "agentDeath": {"every": 3, "replaceAfter": 1}},
        queue={"retry": {"limit": 99}},
        compare={"a": {}, "b": {"policy": "random"}},
    )
    one, two = (run.record for run in play_all(parse(given, NOWHERE), [5]))

    def coming(record: Record) -> list[tuple[float, float]]:
        return [(life.job.created, life.job.service) for life in record.tasks]

    def deaths(record: Record, until: float) -> list[tuple[int, float]]:
        return sorted((a.ordinal, a.gone) for a in record.agents if a.gone is not None and a.gone < until)

    assert coming(one) == coming(two)
    together = min(one.ended, two.ended)
    assert deaths(one, together) == deaths(two, together)
    assert deaths(one, together)
    # A first attempt that no death ended failed in both, or in none.
    unlucky = {agent.uid: agent.gone for record in (one, two) for agent in record.agents if agent.gone is not None}
    compared = 0
    for ours, theirs in zip(one.tasks, two.tasks, strict=True):
        first, other = ours.attempts[0], theirs.attempts[0]
        if first.end in unlucky.values() or other.end in unlucky.values():
            continue
        compared += 1
        assert first.completed == other.completed
        assert first.end is not None
        assert other.end is not None
        assert first.end - first.start == pytest.approx(other.end - other.start)
    assert compared > 100


# Properties.


def broken(record: Record) -> list[str]:
    """What does not hold in a record, by its log alone."""
    wrong: list[str] = []
    held: dict[str, dict[str, int]] = {}
    where: dict[str, str] = {}
    last = record.begun
    for at, step, life, agent in record.log:
        uid = life.job.task.uid
        if at < last:
            wrong.append("time ran back")
        last = at
        if step is Step.WAITS and uid in where:
            wrong.append(f"{uid} waits while it runs")
        elif step is Step.STARTS and agent is not None:
            if uid in where:
                wrong.append(f"{uid} is leased twice")
            where[uid] = agent.uid
            held.setdefault(agent.uid, {})[uid] = life.task.slots
            if sum(held[agent.uid].values()) > agent.slots:
                wrong.append(f"{agent.uid} has more than its slots busy")
        elif step is Step.STOPS and agent is not None:
            if where.pop(uid, None) != agent.uid:
                wrong.append(f"{uid} stops where it did not run")
            held[agent.uid].pop(uid, None)
    for life in record.tasks:
        done = sum(attempt.completed for attempt in life.attempts)
        if done != (life.outcome is Outcome.COMPLETED):
            wrong.append(f"{life.job.task.uid} has {done} accepted results and is {life.outcome}")
    return wrong


worlds = st.fixed_dictionaries(
    {
        "policy": st.sampled_from(["core", "core", "core", "fifo", "round-robin", "power-of-two", "least-loaded"]),
        "slots": st.integers(1, 3),
        "replicas": st.integers(1, 4),
        "rate": st.sampled_from([0.5, 2.0, 6.0]),
        "large": st.booleans(),
        "failing": st.sampled_from([0.0, 0.3, 1.0]),
        "dying": st.sampled_from([None, 1.0, 5.0]),
        "noticed": st.sampled_from([0.0, 0.7]),
        "slow": st.sampled_from([None, 2.0]),
        "elastic": st.booleans(),
        "limit": st.integers(0, 4),
        "seed": st.integers(0, 1_000),
    }
)


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(worlds)
def test_whatever_happens_every_task_is_accounted_for(made: dict[str, Any]) -> None:
    faults: dict[str, Any] = {"attemptFailure": {"probability": made["failing"]}}
    if made["dying"]:
        faults["agentDeath"] = {"every": made["dying"], "replaceAfter": 1.5, "detectAfter": made["noticed"]}
    if made["slow"]:
        faults["slowAgent"] = {"every": made["slow"], "factor": 0.3, "for": 5}
    elastic = made["elastic"] and made["policy"] == "core"
    size = (
        {"scaling": {"maxReplicas": made["replicas"], "scaleDownDelaySeconds": 1}}
        if elastic
        else {"replicas": made["replicas"]}
    )
    slots = {"choose": [{"value": 1}, {"value": made["slots"]}]} if made["large"] else 1
    record = playing(
        stream(
            {"poisson": {"perSecond": made["rate"]}},
            {"exponential": {"mean": 1}},
            60,
            task={"priority": {"choose": [{"value": n} for n in ("Low", "Normal", "High")]}, "slots": slots},
        ),
        pools={"p": {"slots": made["slots"], **size}},
        policy=made["policy"],
        faults=faults,
        queue={"retry": {"limit": made["limit"], "initialSeconds": 0.5}},
        until=400,
        seed=made["seed"],
    )
    assert broken(record) == []
    found = figures(record)
    assert found["lost"] == 0
    if made["policy"] == "core":
        assert found["priority_inversions"] == 0
    if record.ended < EPOCH + 400:
        assert found["completed"] + found["failed"] == found["tasks"] == 60
