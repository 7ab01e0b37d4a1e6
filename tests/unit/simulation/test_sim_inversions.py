"""The checker finds inversions that are there, none that are not, and agrees with trying every pair."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sim_worlds import playing, stream
from test_sim_figures import agent, made, task

from builders import make_pool
from taskdist.core.agents.filters import covers, need_of, offer_of, refusal
from taskdist.core.model import Agent, Match, Requirement, Route, RouteStep, Task
from taskdist.simulation.inversions import inversions
from taskdist.simulation.record import Outcome, Record, Step, TaskLife

T = {"name": "t", "amount": 7}


def pairwise(record: Record) -> list[str]:
    """Starts that are inversions, found by looking at every waiting Task at every start: nothing is indexed."""
    found: list[str] = []
    for number, (at, step, life, where) in enumerate(record.log):
        if step is not Step.STARTS or where is None:
            continue
        former = record.log[:number]
        last: dict[str, tuple[Step, Any]] = {}
        seen: dict[str, int] = {}
        lives: dict[str, TaskLife] = {}
        for _, kind, other, there in former:
            uid = other.job.task.uid
            last[uid], lives[uid] = (kind, there), other
            seen[uid] = seen.get(uid, 0) + (kind is Step.WAITS)
        held = [lives[uid].job.task for uid, (kind, there) in last.items() if kind is Step.STARTS and there is where]
        if any(
            kind is Step.WAITS
            and lives[uid].task.priority > life.task.priority
            and lives[uid].eligible[seen[uid] - 1] <= at
            and could_take(record, where.agent, held, lives[uid].job.task)
            for uid, (kind, _) in last.items()
        ):
            found.append(life.job.task.uid)
    return found


def could_take(record: Record, where: Agent, held: list[Task], wanted: Task) -> bool:
    queue = record.queues[wanted.queue_key]
    offer = offer_of(where, record.pools.get(where.pool_key))
    pools = (wanted.pool,) if wanted.pool is not None else queue.pools
    free = dict(where.resources)
    for each in held:
        for name, amount in each.resources:
            free[name] = free.get(name, 0) - amount
    return (
        where.pool in pools
        and refusal(need_of(wanted, queue.allows_unfenced), offer) is None
        and where.slots - sum(each.slots for each in held) >= wanted.slots
        and covers(free.items(), wanted.resources)
    )


def two(low: dict[str, Any], high: dict[str, Any], slots: int = 1) -> Callable[[], Record]:
    """A Task of low priority starts at 5 while one of high priority waits, created at 1, which starts at 9."""

    def build() -> Record:
        a = agent("a", slots)
        first = task("low", 0, (a, 5, 9), priority=0, **low)
        second = task("high", 1, (a, 9, 10), priority=1, **high)
        return made([first, second], [a], 0, 20)

    return build


def later(at: float) -> Callable[[], Record]:
    def build() -> Record:
        record = two({}, {})()
        record.tasks[1].eligible[0] = at
        # Its wait itself begins later.
        return made(record.tasks, record.agents, 0, 20)

    return build


def with_gate(at: float) -> Callable[[], Record]:
    def build() -> Record:
        record = two({}, {})()
        record.tasks[1].eligible[0] = at
        return record

    return build


PLANTED: dict[str, tuple[Callable[[], Record], list[str]]] = {
    "planted": (two({}, {}), ["low"]),
    "the high one needs more than was free": (two({}, {"slots": 2}), []),
    "the high one needs more, and it was free": (two({}, {"slots": 2}, slots=2), ["low"]),
    "the high one may not run there": (two({}, {"skills": frozenset({"gpu"})}), []),
    "the high one is of another pool": (two({}, {"pool": "x"}), []),
    "the high one was gated": (with_gate(6), []),
    "the gate opened at that moment": (with_gate(5), ["low"]),
    "the gate opened before": (with_gate(4), ["low"]),
    "the high one came later": (later(7), []),
}


@pytest.mark.parametrize(("build", "expected"), PLANTED.values(), ids=PLANTED.keys())
def test_planted(build: Callable[[], Record], expected: list[str]) -> None:
    record = build()
    found = inversions(record)
    assert [each.started.job.task.uid for each in found] == expected
    assert pairwise(record) == expected
    assert all(each.overtaken.job.task.uid == "high" and each.at == 5 for each in found)


ROUTED = {
    # Name: the pools, the route's steps → whether the Task that waits since 1 could have gone to pool p at 5.
    "it was open from the start": ({}, (RouteStep(("p",)),), True),
    "it opened by the wait": ({"x": make_pool("x").elastic(0, 9)}, (RouteStep(("x",)), RouteStep(("p",), 3.0)), True),
    "it was not open yet": ({"x": make_pool("x").elastic(0, 9)}, (RouteStep(("x",)), RouteStep(("p",), 5.0)), False),
    "no pool before it was there": ({}, (RouteStep(("x",)), RouteStep(("p",), 99.0)), True),
    "no pool before it grows": ({"x": make_pool("x").fixed(1)}, (RouteStep(("x",)), RouteStep(("p",), 99.0)), True),
    "of another pool": ({"x": make_pool("x").fixed(1)}, (RouteStep(("x",)),), False),
}


@pytest.mark.parametrize(("pools", "steps", "open_then"), ROUTED.values(), ids=ROUTED.keys())
def test_routes(pools: dict[str, Any], steps: tuple[RouteStep, ...], open_then: bool) -> None:
    record = two({}, {"labels": (("way", "r"),)})()
    (key, queue), *_ = record.queues.items()
    way = Route("r", steps, Match((Requirement("way", "Exists"),)))
    record.queues[key] = replace(queue, routes=(way,))
    record.pools.update({(key[0], name): replace(made.build(), namespace=key[0]) for name, made in pools.items()})
    assert [each.started.job.task.uid for each in inversions(record)] == (["low"] if open_then else [])


def test_the_core_inverts_nothing_with_routes_and_budgets() -> None:
    """Two pools of a chain and a budget that both queues' Tasks share; some Tasks go past the route."""
    record = playing(
        stream(
            {"poisson": {"perSecond": 6}},
            {"exponential": {"mean": 1}},
            300,
            task={
                "priority": {"choose": [{"value": level} for level in ("Low", "Normal", "High")]},
                "labels": {"choose": [{"value": {"way": "chain"}}, {"value": {}}]},
                "budgets": {"choose": [{"value": []}, {"value": [{"name": "b", "amount": 2}]}, {"value": [T]}]},
            },
        ),
        pools={"p": {"scaling": {"maxReplicas": 2}, "slots": 2}, "g": {"replicas": 1, "slots": 3}},
        queue={
            "pools": ["g"],
            "routes": [
                {
                    "name": "chain",
                    "match": {"matchLabels": {"way": "chain"}},
                    "steps": [{"pools": ["p"]}, {"pools": ["g"], "afterSeconds": 2}],
                }
            ],
            "budgets": [
                {"name": "b", "kind": "Concurrent", "limit": 5},
                {"name": "t", "kind": "Rate", "perSecond": 20, "burst": 30},
            ],
        },
        seed=3,
    )
    assert inversions(record) == []
    assert {life.outcome for life in record.tasks} == {Outcome.COMPLETED}
    chained = [life.attempts[0].agent.pool for life in record.tasks if life.task.labels]
    assert set(chained) == {"p", "g"}
    assert {life.attempts[0].agent.pool for life in record.tasks if not life.task.labels} == {"g"}


def test_a_resource_that_was_taken_excuses() -> None:
    a = agent("a", 3)
    a.agent = Agent("a", "simulation", "a", "p", 3, resources=(("gpu", 1),))
    gpu = (("gpu", 1),)
    tasks = [
        task("holds", 0, (a, 0, 8), resources=gpu),
        task("wants", 1, (a, 8, 9), resources=gpu, priority=4),
        task("low", 2, (a, 3, 4)),
        task("after", 3.5, (a, 9.5, 10), priority=1),
    ]
    record = made(tasks, [a], 0, 20)
    assert inversions(record) == []
    assert pairwise(record) == []


CHECKED = {
    "core": ("core", 0),
    "fifo": ("fifo", 1),
    "round-robin": ("round-robin", 1),
    "least-loaded": ("least-loaded", 1),
}


@pytest.mark.parametrize(("policy", "least"), CHECKED.values(), ids=CHECKED.keys())
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_it_agrees_with_trying_every_pair(policy: str, least: int, seed: int) -> None:
    record = playing(
        stream(
            {"poisson": {"perSecond": 5}},
            {"exponential": {"mean": 1}},
            150,
            task={
                "priority": {"choose": [{"value": level} for level in ("Low", "Normal", "High")]},
                "slots": {"choose": [{"weight": 3, "value": 1}, {"value": 2}]},
                "skills": {"choose": [{"weight": 3, "value": []}, {"value": ["gpu"]}]},
            },
        ),
        pools={"p": {"replicas": 2, "slots": 2}, "g": {"replicas": 1, "slots": 2, "skills": ["gpu"]}},
        policy=policy,
        faults={"attemptFailure": {"probability": 0.2}, "agentDeath": {"every": 4, "replaceAfter": 1}},
        queue={"retry": {"initialSeconds": 0.7, "limit": 9}},
        seed=seed,
    )
    found = [each.started.job.task.uid for each in inversions(record)]
    assert found == pairwise(record)
    assert len(found) >= least
    if policy == "core":
        assert found == []
