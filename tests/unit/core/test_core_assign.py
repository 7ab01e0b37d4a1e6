"""Who runs what: the order of Tasks, the choice of the agent, and what keeps a Task from being handed out."""

from collections.abc import Iterable

import pytest

from builders import NAMESPACE, AgentBuilder, TaskBuilder, make_agent, make_pool, make_queue, make_task
from taskdist.api import Reason, Reclaim
from taskdist.core import Core
from taskdist.core.decisions import Assign, Retry
from taskdist.core.events import (
    AgentNotReady,
    AgentReady,
    AttemptFailed,
    Event,
    PodGone,
    PodSeen,
    PoolApplied,
    PoolDeleted,
    QueueApplied,
    QueueDeleted,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)


def core_with(*events: Event) -> Core:
    """A core with queue `q`, served by pool `p`, and these events."""
    core = Core()
    for event in (QueueApplied(make_queue().build()), PoolApplied(make_pool().fixed(9).build()), *events):
        core.handle(event, 0.0)
    return core


def granted(core: Core, now: float = 0.0, limit: int | None = None) -> list[tuple[str, str]]:
    """Decide, and return who was given to whom."""
    given = [(each.task_uid, each.agent_uid) for each in core.decide(now, limit) if isinstance(each, Assign)]
    assert core.audit() == []
    return given


def waiting(*tasks: TaskBuilder) -> Iterable[Event]:
    return (TaskWaiting(task.build()) for task in tasks)


def ready(*agents: AgentBuilder) -> Iterable[Event]:
    return (AgentReady(agent.build()) for agent in agents)


@pytest.mark.parametrize(
    ("tasks", "expected"),
    [
        pytest.param([make_task("a").priority(3), make_task("b").priority(4)], "ba", id="level-first"),
        pytest.param([make_task("a").created(2), make_task("b").created(1)], "ba", id="then-the-older"),
        pytest.param([make_task("b"), make_task("a")], "ab", id="then-the-uid"),
        pytest.param(
            [make_task("a").priority(1), make_task("b").created(5), make_task("c").priority(0)],
            "bac",
            id="below-normal",
        ),
        pytest.param(
            [make_task("a").type("x"), make_task("b").type("y").priority(3), make_task("c").type("x").priority(4)],
            "cba",
            id="across-kinds-of-tasks",
        ),
        pytest.param(
            [make_task("a").queue("q2"), make_task("b"), make_task("c").queue("q2").priority(3)],
            "cba",
            id="across-queues-that-share-a-pool",
        ),
        pytest.param(
            [make_task("a").slots(2), make_task("b").slots(1).priority(1), make_task("c").slots(1).priority(3)],
            "cb",
            id="a-large-one-does-not-block-smaller-ones",
        ),
    ],
)
def test_order(tasks: list[TaskBuilder], expected: str) -> None:
    core = core_with(QueueApplied(make_queue("q2").build()), *waiting(*tasks))
    done = ""
    for number in range(len(tasks)):
        core.handle(AgentReady(make_agent(f"a{number}").build()), 0.0)
        done += "".join(task for task, _ in granted(core))
    assert done == expected


def test_a_changed_priority_changes_the_place() -> None:
    core = core_with(*waiting(make_task("a"), make_task("b")), TaskWaiting(make_task("b").priority(3).build()))
    core.handle(AgentReady(make_agent("x").build()), 0.0)
    assert granted(core) == [("b", "x")]


@pytest.mark.parametrize(
    ("agents", "busy", "expected"),
    [
        pytest.param([make_agent("b"), make_agent("a")], {}, "a", id="uid-decides-between-equals"),
        pytest.param([make_agent("a").slots(2), make_agent("b").slots(2)], {"a": 1}, "b", id="the-less-busy"),
        pytest.param([make_agent("a").slots(4), make_agent("b").slots(3)], {"a": 2, "b": 1}, "b", id="by-fraction"),
        pytest.param(
            [make_agent("a").slots(2), make_agent("b").slots(4)], {"a": 1, "b": 1}, "b", id="of-its-own-slots"
        ),
        pytest.param([make_agent("a").slots(2), make_agent("b").slots(4)], {"a": 1, "b": 2}, "a", id="like-fractions"),
        pytest.param([make_agent("a"), make_agent("b").pool("p2")], {"a": 1}, "b", id="in-any-pool-of-the-queue"),
    ],
)
def test_the_least_busy_agent_is_chosen(agents: list[AgentBuilder], busy: dict[str, int], expected: str) -> None:
    core = core_with(PoolApplied(make_pool("p2").build()), QueueApplied(make_queue().pools("p", "p2").build()))
    for event in ready(*agents):
        core.handle(event, 0.0)
    for uid, slots in busy.items():
        core.handle(TaskLeased(make_task(f"on-{uid}").slots(slots).build(), uid), 0.0)
    core.handle(TaskWaiting(make_task("t").build()), 0.0)
    assert granted(core) == [("t", expected)]


def test_between_equally_busy_agents_the_one_that_worked_less_is_chosen() -> None:
    core = core_with(*ready(make_agent("a"), make_agent("b")), *waiting(make_task("t1"), make_task("t2")))
    assert granted(core) == [("t1", "a"), ("t2", "b")]
    core.handle(TaskGone("t2"), 5.0)
    core.handle(TaskGone("t1"), 9.0)
    core.handle(TaskWaiting(make_task("t3").build()), 10.0)
    assert granted(core, 10.0) == [("t3", "b")]


def test_work_spreads_evenly_over_like_agents() -> None:
    core = core_with(*ready(*(make_agent(f"a{n}") for n in range(5))))
    times: dict[str, int] = {}
    for number in range(50):
        core.handle(TaskWaiting(make_task(f"t{number}").build()), float(number))
        (_, agent) = granted(core, float(number))[0]
        times[agent] = times.get(agent, 0) + 1
        core.handle(TaskGone(f"t{number}"), number + 0.5)
    assert set(times.values()) == {10}


@pytest.mark.parametrize(
    ("events", "reason"),
    [
        pytest.param([TaskWaiting(make_task("t").suspended().build())], Reason.SUSPENDED, id="suspended"),
        pytest.param([TaskWaiting(make_task("t").not_before(9).build())], Reason.SCHEDULED, id="scheduled"),
        pytest.param(
            [TaskWaiting(make_task("t").not_before(9).failures(1).build())], Reason.BACKING_OFF, id="backing-off"
        ),
        pytest.param([TaskHeld(make_task("t").build(), Reason.RECOVERING)], Reason.RECOVERING, id="held"),
        pytest.param(
            [*waiting(make_task("t")), QueueApplied(make_queue().paused().build())],
            Reason.QUEUE_PAUSED,
            id="queue-paused",
        ),
        pytest.param([*waiting(make_task("t").queue("none"))], Reason.QUEUE_NOT_FOUND, id="queue-never-was"),
        pytest.param(
            [*waiting(make_task("t")), QueueDeleted((NAMESPACE, "q"))], Reason.QUEUE_NOT_FOUND, id="queue-gone"
        ),
        pytest.param([*waiting(make_task("t")), PoolDeleted((NAMESPACE, "p"))], Reason.POOL_NOT_FOUND, id="pool-gone"),
        pytest.param([*waiting(make_task("t").pool("none"))], Reason.POOL_NOT_FOUND, id="pool-named-never-was"),
        pytest.param([*waiting(make_task("t")), AgentNotReady("a")], Reason.NO_AGENT, id="agent-not-ready"),
        pytest.param([*waiting(make_task("t")), PodGone("a")], Reason.NO_AGENT, id="pod-gone"),
        pytest.param([*waiting(make_task("t").slots(9))], Reason.TOO_LARGE, id="too-large"),
        pytest.param([*waiting(make_task("t").skills("gpu"))], Reason.SKILL_MISSING, id="skill-missing"),
        pytest.param([TaskLeased(make_task("x").build(), "a"), *waiting(make_task("t"))], Reason.QUEUED, id="no-slot"),
    ],
)
def test_what_may_not_run_waits_with_its_reason_and_runs_once_it_may(events: list[Event], reason: Reason) -> None:
    core = core_with(*ready(make_agent("a")))
    for event in events:
        core.handle(event, 0.0)
    assert granted(core) == []
    found = core.explain("t", 0.0)
    assert found is not None
    assert (found.reason, core.waiting_by_reason(0.0)) == (reason, {(_queue_of(events), reason): 1})
    # And all of it mended.
    for mend in (
        QueueApplied(make_queue().build()),
        PoolApplied(make_pool().fixed(9).build()),
        TaskGone("x"),
        AgentReady(make_agent("b").build()),
        TaskWaiting(make_task("t").build()),
    ):
        core.handle(mend, 0.0)
    assert [task for task, _ in granted(core)] == ["t"]
    assert core.explain("t", 0.0) is None


def _queue_of(events: list[Event]) -> tuple[str, str]:
    return next(
        event.task.queue_key for event in events if isinstance(event, TaskWaiting | TaskHeld) and event.task.uid == "t"
    )


def test_a_pool_that_the_task_names_serves_it_though_its_queue_does_not() -> None:
    core = core_with(PoolApplied(make_pool("other").build()), *ready(make_agent("a").pool("other")))
    core.handle(TaskWaiting(make_task("t1").build()), 0.0)
    core.handle(TaskWaiting(make_task("t2").pool("other").build()), 0.0)
    assert granted(core) == [("t2", "a")]


@pytest.mark.parametrize("reclaim", list(Reclaim))
def test_unfenced_agents_serve_only_queues_that_do_not_count_on_the_fence(reclaim: Reclaim) -> None:
    core = core_with(QueueApplied(make_queue().reclaim(reclaim).build()), *ready(make_agent("a").fenced(False)))
    core.handle(TaskWaiting(make_task("t").build()), 0.0)
    assert bool(granted(core)) is (reclaim is not Reclaim.LEASE)


def test_a_payload_in_a_store_waits_for_an_agent_that_has_one_and_holds_nobody_up() -> None:
    core = core_with(*ready(make_agent("a").slots(1)))
    core.handle(TaskWaiting(make_task("large").stored().build()), 0.0)
    core.handle(TaskWaiting(make_task("small").created(1).build()), 0.0)
    assert granted(core) == [("small", "a")]
    # The same agent, told of a store now: it is another one to the core.
    core.handle(TaskGone("small"), 1.0)
    assert granted(core, 1.0) == []
    core.handle(AgentReady(make_agent("a").slots(1).stores().build()), 2.0)
    assert granted(core, 2.0) == [("large", "a")]


def test_pools_of_other_namespaces_serve_nobody_here() -> None:
    core = core_with()
    foreign = make_agent("a").build()
    core.handle(AgentReady(type(foreign)("a", "elsewhere", "a", "p")), 0.0)
    core.handle(TaskWaiting(make_task("t").build()), 0.0)
    assert granted(core) == []


def test_resources_bound_what_runs_at_once() -> None:
    core = core_with(*ready(make_agent("a").slots(9).resources(mem=5)))
    for number in range(4):
        core.handle(TaskWaiting(make_task(f"t{number}").resources(mem=2).build()), 0.0)
    core.handle(TaskWaiting(make_task("u").created(9).build()), 0.0)
    assert [task for task, _ in granted(core)] == ["t0", "t1", "u"]
    found = core.explain("t2", 0.0)
    assert found is not None
    assert found.reason is Reason.NO_FREE_SLOTS
    core.handle(TaskGone("t0"), 1.0)
    assert granted(core, 1.0) == [("t2", "a")]


def test_leases_count_on_agents_that_are_not_known_yet() -> None:
    core = core_with(TaskLeased(make_task("old").slots(2).build(), "a"), *waiting(make_task("t1"), make_task("t2")))
    core.handle(AgentReady(make_agent("a").slots(3).build()), 1.0)
    assert granted(core, 1.0) == [("t1", "a")]
    core.handle(TaskGone("old"), 2.0)
    assert granted(core, 2.0) == [("t2", "a")]


def test_leases_stand_while_an_agent_is_silent() -> None:
    core = core_with(*ready(make_agent("a")), *waiting(make_task("t1"), make_task("t2")))
    assert granted(core) == [("t1", "a")]
    core.handle(AgentNotReady("a"), 1.0)
    core.handle(AgentReady(make_agent("a").build()), 2.0)
    assert granted(core, 2.0) == []
    assert core._fleet.agents["a"].busy == 1


def test_an_agent_with_more_on_it_than_it_has_room_for_gets_nothing_until_there_is_room() -> None:
    core = core_with(*ready(make_agent("a").slots(2)))
    for number in range(3):
        core.handle(TaskLeased(make_task(f"old{number}").build(), "a"), 0.0)
    core.handle(TaskWaiting(make_task("t").build()), 0.0)
    assert granted(core) == []
    core.handle(TaskGone("old0"), 0.0)
    assert granted(core) == []
    core.handle(TaskGone("old1"), 0.0)
    assert granted(core) == [("t", "a")]


def test_an_offer_may_shrink_and_grow() -> None:
    core = core_with(*ready(make_agent("a").slots(2)), *waiting(make_task("t1"), make_task("t2"), make_task("t3")))
    assert len(granted(core)) == 2
    core.handle(AgentReady(make_agent("a").slots(1).build()), 1.0)
    core.handle(TaskGone("t1"), 1.0)
    assert granted(core, 1.0) == []
    core.handle(AgentReady(make_agent("a").slots(2).build()), 2.0)
    assert granted(core, 2.0) == [("t3", "a")]


def test_a_failed_task_keeps_its_slot_until_the_outcome_is_written() -> None:
    core = core_with(*ready(make_agent("a")), *waiting(make_task("t1"), make_task("t2").created(1)))
    granted(core)
    (answer,) = core.handle(AttemptFailed("t1", Reason.HANDLER_ERROR, "boom"), 1.0)
    assert isinstance(answer, Retry)
    assert granted(core, 1.0) == []
    core.handle(TaskWaiting(make_task("t1").failures(1).not_before(answer.not_before).build()), 1.5)
    assert granted(core, 1.5) == [("t2", "a")]
    core.handle(TaskGone("t2"), 1.6)
    assert core.next_wake() == answer.not_before == 2.0
    assert granted(core, 1.9) == []
    assert granted(core, 2.0) == [("t1", "a")]


def test_failures_of_tasks_that_are_not_known_are_not_answered() -> None:
    assert core_with().handle(AttemptFailed("t", Reason.HANDLER_ERROR, "boom"), 0.0) == []


def test_tasks_outlive_their_queue() -> None:
    core = core_with(*ready(make_agent("a")), *waiting(make_task("t")))
    granted(core)
    core.handle(QueueDeleted((NAMESPACE, "q")), 0.0)
    (answer,) = core.handle(AttemptFailed("t", Reason.HANDLER_ERROR, "boom"), 0.0)
    assert isinstance(answer, Retry)
    assert core.queue_counts() == {(NAMESPACE, "q"): (0, 1)}


def test_a_limit_cuts_decisions_short_and_says_so() -> None:
    core = core_with(*ready(make_agent("a").slots(5)), *waiting(*(make_task(f"t{n}") for n in range(5))))
    assert granted(core, 3.0, limit=2) == [("t0", "a"), ("t1", "a")]
    assert core.next_wake() == 3.0
    assert len(granted(core, 3.0)) == 3
    assert core.next_wake() is None


def test_repeated_events_change_nothing() -> None:
    core = core_with(*ready(make_agent("a").slots(3)), *waiting(make_task("t1"), make_task("t2")))
    assert len(granted(core)) == 2
    repeats: list[Event] = [
        PodSeen("a", NAMESPACE, "a", "p", 0.0),
        QueueApplied(make_queue().build()),
        PoolApplied(make_pool().fixed(9).build()),
        AgentReady(make_agent("a").slots(3).build()),
        TaskGone("never-was"),
        PodGone("never-was"),
        AgentNotReady("never-was"),
    ]
    for event in repeats * 2:
        core.handle(event, 1.0)
    assert core.decide(1.0) == []
    assert core._fleet.agents["a"].busy == 2
    assert core.audit() == []
