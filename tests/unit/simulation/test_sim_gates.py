"""Levels and gates as the checker works them out: from the log, by hand, and in agreement with the core."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sim_worlds import playing, starts, stream
from test_sim_figures import NS, agent, made, task

from taskdist.api import OnDependencyFailure, OrderPolicy
from taskdist.core.model import EMERGENCY, NORMAL, TOP, Budget, Parent, Queue, Quota, TokenRate
from taskdist.simulation.figures import figures
from taskdist.simulation.gates import Gates, without
from taskdist.simulation.inversions import Checker, inversions
from taskdist.simulation.levels import Levels
from taskdist.simulation.record import AgentLife, Outcome, Record, TaskLife

QUEUE = Queue(NS, "q", ("p",), aging_step=10)


def record_of(tasks: list[TaskLife], *agents: AgentLife, queue: Queue = QUEUE, ended: float = 100) -> Record:
    return made(tasks, list(agents), 0, ended, queues={queue.key: queue})


# Levels.

AGED = {
    # Name: priority, queue, at → level, of a Task created at 0.
    "new": (1, QUEUE, 0, 1),
    "just before a step": (1, QUEUE, 9.99, 1),
    "after a step": (1, QUEUE, 10, 2),
    "after three": (1, QUEUE, 35, 4),
    "never into emergency": (1, QUEUE, 1e6, TOP),
    "an emergency stays": (EMERGENCY, QUEUE, 1e6, EMERGENCY),
    "no aging": (1, replace(QUEUE, aging_step=0), 1e6, 1),
    "a queue with a level of its own": (4, replace(QUEUE, policy=OrderPolicy.FIFO, level=NORMAL), 35, NORMAL),
    "such a queue at emergency": (0, replace(QUEUE, policy=OrderPolicy.FIFO, level=EMERGENCY), 35, TOP),
}


@pytest.mark.parametrize(("priority", "queue", "at", "level"), AGED.values(), ids=AGED.keys())
def test_aging(priority: int, queue: Queue, at: float, level: int) -> None:
    life = task("one", 0, priority=priority)
    assert Levels(record_of([life], queue=queue))(life, at) == level


def test_a_span_is_cut_at_its_steps() -> None:
    life = task("one", 0, priority=2)
    levels = Levels(record_of([life]))
    assert list(levels.steps(life, (5, 27))) == [(5, 10, 2), (10, 20, 3), (20, 27, 4)]
    assert list(levels.steps(life, (40, 90))) == [(40, 90, TOP)]
    assert list(levels.steps(life, (4, 4))) == []


def test_children_that_wait_lift_their_parents() -> None:
    a = agent("a")
    grandparent, parent = task("g", 0, priority=0), task("p", 0, priority=1, parents=(Parent("g"),))
    child = task("c", 2, (a, 8, 9), priority=3, parents=(Parent("p"),))
    levels = Levels(record_of([grandparent, parent, child], a, queue=replace(QUEUE, aging_step=0)))
    assert [levels(grandparent, at) for at in (1, 2, 7.9, 8)] == [1, 3, 3, 1]
    assert [levels(parent, at) for at in (1, 2, 8)] == [1, 3, 1]


def test_a_cycle_of_parents_ends() -> None:
    one, two = task("a", 0, priority=0, parents=(Parent("b"),)), task("b", 0, priority=2, parents=(Parent("a"),))
    assert Levels(record_of([one, two]))(one, 1) == 2


# Gates.


def followed(record: Record) -> Gates:
    gates = Gates(record)
    list(Checker(record, Levels(record), gates).found())
    return gates


def limits(**more: Any) -> Queue:
    return replace(QUEUE, **more)


def running(name: str, begin: float, end: float, **more: Any) -> Callable[[AgentLife], TaskLife]:
    return lambda where: task(name, begin, (where, begin, end), **more)


OPEN = {
    # Name: queue, Tasks that ran before, the waiting one's fields → when it was eligible, of 0 to 20.
    "nothing limits": (QUEUE, [running("x", 2, 8)], {}, [(0, 20)]),
    "leased": (
        limits(quota=Quota(leased=1)),
        [running("x", 2, 8), running("y", 9, 12)],
        {},
        [(0, 2), (8, 9), (12, 20)],
    ),
    "leased by two": (limits(quota=Quota(leased=2)), [running("x", 2, 8), running("y", 5, 12)], {}, [(0, 5), (8, 20)]),
    "slots": (limits(quota=Quota(slots=3)), [running("x", 2, 8, slots=2)], {"slots": 2}, [(0, 2), (8, 20)]),
    "slots that suffice": (limits(quota=Quota(slots=3)), [running("x", 2, 8, slots=2)], {}, [(0, 20)]),
    "another tenant": (limits(tenant_quota=Quota(leased=1)), [running("x", 2, 8, tenant="b")], {}, [(0, 20)]),
    "its tenant": (limits(tenant_quota=Quota(leased=1)), [running("x", 2, 8)], {}, [(0, 2), (8, 20)]),
    "a key": (QUEUE, [running("x", 2, 8, concurrency_key="k")], {"concurrency_key": "k"}, [(0, 2), (8, 20)]),
    "another key": (QUEUE, [running("x", 2, 8, concurrency_key="k")], {"concurrency_key": "l"}, [(0, 20)]),
    "a key for two": (
        limits(concurrency_limit=2),
        [running("x", 2, 8, concurrency_key="k"), running("y", 3, 6, concurrency_key="k")],
        {"concurrency_key": "k"},
        [(0, 3), (6, 20)],
    ),
    "a budget": (
        limits(budgets=(Budget("b", 3),)),
        [running("x", 2, 8, budgets=(("q", "b", 2),))],
        {"budgets": (("q", "b", 2),)},
        [(0, 2), (8, 20)],
    ),
    "a budget that suffices": (
        limits(budgets=(Budget("b", 3),)),
        [running("x", 2, 8, budgets=(("q", "b", 2),))],
        {"budgets": (("q", "b", 1),)},
        [(0, 20)],
    ),
    "a budget it takes nothing of": (
        limits(budgets=(Budget("b", 1),)),
        [running("x", 2, 8, budgets=(("q", "b", 1),))],
        {},
        [(0, 20)],
    ),
    "a budget of nobody": (QUEUE, [], {"budgets": (("q", "b", 1),)}, []),
    "a budget that is spent": (
        limits(budgets=(Budget("b", rate=TokenRate(0.5, 4)),)),
        [running("x", 2, 3, budgets=(("q", "b", 3),))],
        {"budgets": (("q", "b", 3),)},
        [(0, 2), (6, 20)],
    ),
    "more than a budget has": (
        limits(budgets=(Budget("b", rate=TokenRate(0.5, 4)),)),
        [],
        {"budgets": (("q", "b", 5),)},
        [],
    ),
    "a rate": (limits(rate=TokenRate(0.25)), [running("x", 2, 3)], {}, [(0, 2), (6, 20)]),
    "a rate with burst": (
        limits(rate=TokenRate(0.25, 2)),
        [running("x", 2, 3), running("y", 3, 4)],
        {},
        [(0, 3), (6, 20)],
    ),
    "a rate that an emergency overdrew": (
        limits(rate=TokenRate(0.25), emergency=frozenset({NS})),
        [running("x", 2, 3), running("y", 3, 4, priority=EMERGENCY)],
        {},
        [(0, 2), (10, 20)],
    ),
    "the rate of another tenant": (
        limits(tenant_rate=TokenRate(0.25)),
        [running("x", 2, 3, tenant="b")],
        {},
        [(0, 20)],
    ),
    "an emergency needs no token": (
        limits(rate=TokenRate(0.25), emergency=frozenset({NS})),
        [running("x", 2, 3)],
        {"priority": EMERGENCY},
        [(0, 20)],
    ),
    "an emergency of a tenant that may not": (QUEUE, [], {"priority": EMERGENCY}, []),
    "an emergency too many": (
        limits(emergency=frozenset({NS}), emergency_leased=1),
        [running("x", 2, 3, priority=EMERGENCY)],
        {"priority": EMERGENCY},
        [(0, 2), (3, 20)],
    ),
    "a paused queue": (limits(paused=True), [], {}, []),
    "its turn": (QUEUE, [running("x", 0, 8, ordering_key="o")], {"ordering_key": "o"}, [(8, 20)]),
    "a parent": (QUEUE, [running("x", 2, 8)], {"parents": (Parent("x"),)}, [(8, 20)]),
    "a parent that never came": (QUEUE, [], {"parents": (Parent("x"),)}, []),
}


@pytest.mark.parametrize(("queue", "others", "fields", "expected"), OPEN.values(), ids=OPEN.keys())
def test_when_a_task_is_eligible(
    queue: Queue, others: list[Callable[[AgentLife], TaskLife]], fields: dict[str, Any], expected: list[Any]
) -> None:
    a = agent("a", 4)
    waiting = task("z", 0, **fields)
    record = record_of([*(build(a) for build in others), waiting], a, queue=queue, ended=20)
    assert followed(record).spans(waiting) == expected


@pytest.mark.parametrize(
    ("outcome", "policy", "opens"),
    [
        (Outcome.FAILED, OnDependencyFailure.FAIL, False),
        (Outcome.FAILED, OnDependencyFailure.RUN, True),
        (Outcome.WITHDRAWN, OnDependencyFailure.RUN, True),
        (Outcome.DEAD_LETTERED, OnDependencyFailure.RUN, False),
    ],
)
def test_parents_that_did_not_succeed(outcome: Outcome, policy: OnDependencyFailure, opens: bool) -> None:
    parent = task("x", 0)
    parent.outcome, parent.ended = outcome, 7
    child = task("z", 0, parents=(Parent("x"),), on_parent_failure=policy)
    spans = followed(record_of([parent, child], ended=20)).spans(child)
    assert spans == ([(7, 20)] if opens else [])


def test_what_is_in_no_hole() -> None:
    assert list(without([(0, 10), (12, 20)], [(2, 3), (2.5, 4), (9, 13), (19, 30)])) == [(0, 2), (4, 9), (13, 19)]


# Inversions that follow from them.


def overtaken(low: dict[str, Any], high: dict[str, Any], queue: Queue, *others: TaskLife, at: float = 5) -> list[str]:
    """A Task of level 1 starts on one slot while one of level 2 waits; both are there from 0 and 1."""
    a = agent("a", 1)
    first = task("low", 0, (a, at, at + 4), **({"priority": 1} | low))
    second = task("high", 1, (a, at + 4, at + 5), **({"priority": 2} | high))
    return [each.overtaken.task.uid for each in inversions(record_of([*others, first, second], a, queue=queue))]


def test_without_gates_it_is_one() -> None:
    assert overtaken({}, {}, QUEUE) == ["high"]


def test_one_that_aged_is_not_overtaken() -> None:
    assert overtaken({}, {}, QUEUE, at=10.5) == []
    assert overtaken({}, {}, QUEUE, at=11.5) == ["high"]


def test_an_aged_one_can_be_overtaken() -> None:
    a = agent("a")
    old, young = task("old", 0, (a, 33, 34), priority=1), task("young", 25, (a, 31, 33), priority=3)
    assert [each.overtaken.task.uid for each in inversions(record_of([old, young], a))] == ["old"]


def test_queues_with_a_level_of_their_own_compete_at_it() -> None:
    fifo = limits(policy=OrderPolicy.FIFO, level=NORMAL)
    assert overtaken({}, {}, fifo) == []
    other = replace(QUEUE, name="r")
    a = agent("a")
    first, second = task("low", 0, (a, 5, 9), priority=1, queue="r"), task("high", 1, (a, 9, 10), priority=0)
    record = made([first, second], [a], 0, 20, queues={fifo.key: fifo, other.key: other})
    assert [each.overtaken.task.uid for each in inversions(record)] == ["high"]


GATED = {
    "its turn was not come": ({"ordering_key": "o"}, QUEUE, {"ordering_key": "o"}),
    "its key was held": ({"concurrency_key": "k"}, QUEUE, {"concurrency_key": "k"}),
    "its tenant's quota was full": ({"tenant": "t"}, limits(tenant_quota=Quota(leased=1)), {"tenant": "t"}),
    "its tenant's rate was short": ({"tenant": "t"}, limits(tenant_rate=TokenRate(0.01)), {"tenant": "t"}),
    "a budget may be kept for others": (
        {"budgets": (("q", "b", 1),)},
        limits(budgets=(Budget("b", rate=TokenRate(0.01, 10)),)),
        {"budgets": (("q", "b", 8),)},
    ),
    "its parent had not ended": ({"parents": (Parent("other"),)}, QUEUE, {}),
    "its tenant may not": ({"priority": EMERGENCY}, QUEUE, {}),
}


@pytest.mark.parametrize(("fields", "queue", "other"), GATED.values(), ids=GATED.keys())
def test_what_is_gated_is_not_overtaken(fields: dict[str, Any], queue: Queue, other: dict[str, Any]) -> None:
    elsewhere = agent("b")
    holder = task("other", 0, (elsewhere, 0, 8), priority=1, **other)
    assert overtaken({}, fields, queue, holder) == []
    # The same a moment after the other has ended, where that is what it waited for.
    if queue.tenant_rate is None and not queue.budgets and fields.get("priority") != EMERGENCY:
        holder = task("other", 0, (elsewhere, 0, 4.9), priority=1, **other)
        assert overtaken({}, fields, queue, holder) == ["high"]


def test_an_emergency_may_use_any_pool() -> None:
    queue = limits(emergency=frozenset({NS}))
    a = agent("a")
    first, second = task("low", 0, (a, 5, 9), queue="q"), task("high", 1, priority=EMERGENCY, queue="r")
    other = replace(queue, name="r", pools=("elsewhere",))
    record = made([first, second], [a], 0, 20, queues={queue.key: queue, other.key: other})
    assert [each.overtaken.task.uid for each in inversions(record)] == ["high"]


# What a scenario says of it.


def test_tasks_start_after_their_time() -> None:
    record = playing(stream({"burst": {"at": 1, "count": 1}}, 1, notBefore={"constant": 3}))
    assert starts(record) == [4]
    assert figures(record)["eligible_wait"]["mean"] == 0


def test_cancelled_tasks_are_gone_where_they_stand() -> None:
    cancelled = {"probability": 1, "after": 3}
    record = playing(
        stream({"burst": {"count": 2}}, 10, cancel=cancelled, deadline={"slack": 1}),
        stream({"burst": {"count": 1}}, 1, deadline={"within": 4.5}),
    )
    assert [life.outcome for life in record.tasks] == [Outcome.WITHDRAWN] * 2 + [Outcome.COMPLETED]
    assert starts(record) == [0, 3]
    found = figures(record)
    assert (found["cancelled"], found["deadline_success"], found["lost"]) == (2, 1.0, 0)
    # The one that never started waited until its end.
    assert found["wait"]["max"] == 3


def test_attempts_that_run_too_long_fail() -> None:
    by_queue = playing(stream(service=5), queue={"timeouts": {"executionSeconds": 2}, "retry": {"limit": 0}})
    assert (by_queue.tasks[0].outcome, by_queue.ended - by_queue.begun) == (Outcome.FAILED, 2)
    by_task = playing(
        stream(service=5, task={"timeouts": {"executionSeconds": 3}}),
        queue={"timeouts": {"executionSeconds": 2}, "retry": {"limit": 0}},
    )
    assert by_task.ended - by_task.begun == 3


def test_a_stream_can_follow_another() -> None:
    record = playing(
        stream({"constant": {"perSecond": 1}}, 1, 4, name="parts"),
        stream({"burst": {"count": 2}}, 1, name="sums", after={"stream": "parts", "each": 2}),
    )
    parents = {life.task.name: [parent.name for parent in life.task.parents] for life in record.tasks}
    # The first part comes at 0, before the sums; the others after them.
    assert parents["task-00000001"] == ["task-00000000", "task-00000003"]
    assert parents["task-00000002"] == ["task-00000004", "task-00000005"]


@pytest.mark.parametrize(
    ("waited", "slots", "after", "expected"),
    [(61.0, 2, 60.0, []), (59.0, 2, 60.0, ["high"]), (61.0, 1, 60.0, ["high"]), (61.0, 2, 0.0, ["high"])],
    ids=["held for it", "not yet", "a small one", "never held"],
)
def test_a_large_task_may_have_an_agent_held(waited: float, slots: int, after: float, expected: list[str]) -> None:
    a = agent("a", 2)
    large = task("large", 0, (a, waited, waited + 5), priority=1, slots=slots)
    high = task("high", 1, (a, waited + 5, waited + 6), priority=4)
    record = record_of([large, high], a, queue=limits(hold_after=after, aging_step=0))
    assert [each.overtaken.task.uid for each in inversions(record)] == expected
