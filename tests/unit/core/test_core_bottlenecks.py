"""What holds most waiting time, in which words, and from when on it is said."""

from collections.abc import Sequence
from dataclasses import replace

import pytest

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from taskdist.api import Reason
from taskdist.core import Core
from taskdist.core.decisions import Assign, Explanation
from taskdist.core.events import AgentReady, Event, PoolApplied, QueueApplied, TaskGone, TaskLeased, TaskWaiting
from taskdist.core.explaining.bottlenecks import HELD, Damper, Holdup
from taskdist.core.model import Budget, Quota, TokenRate

QUEUE, POOL = (NAMESPACE, "q"), (NAMESPACE, "p")
PLAIN = make_queue().build()
ZONE = "topology.kubernetes.io/zone"
ONE = make_agent("a").slots(2).resources(gpu=1).skills("io").labels(**{ZONE: "east"})
T, X = make_task("t").build(), make_task("x").build()
BUSY = TaskLeased(make_task("busy").slots(2).build(), "a")


def core_of(*events: Event, now: float = 100.0) -> Core:
    core = Core()
    for event in (QueueApplied(PLAIN), PoolApplied(make_pool().slots(2).fixed(2).build()), *events):
        core.handle(event, now)
    core.decide(now)
    return core


def first(core: Core, now: float = 100.0) -> Holdup:
    queues, pools = core.holdups(now)
    # What holds the queue's Tasks holds what its pool could serve, where it has one.
    assert not pools or pools[POOL] == queues[QUEUE]
    return queues[QUEUE][0]


@pytest.mark.parametrize(
    ("events", "reason", "what", "command"),
    [
        pytest.param(
            [AgentReady(ONE.build()), BUSY, TaskWaiting(make_task("t").build())],
            Reason.QUEUED,
            "slots",
            "kubectl scale agentpools.taskdist.dev/p -n ns --replicas=3",
            id="slots",
        ),
        pytest.param(
            [
                AgentReady(ONE.build()),
                TaskLeased(make_task("x").resources(gpu=1).build(), "a"),
                TaskWaiting(make_task("t").resources(gpu=1).build()),
            ],
            Reason.NO_FREE_SLOTS,
            "resource gpu",
            "kubectl scale agentpools.taskdist.dev/p -n ns --replicas=3",
            id="resource",
        ),
        pytest.param(
            [
                AgentReady(ONE.build()),
                BUSY,
                AgentReady(make_agent("b").slots(2).build()),
                TaskWaiting(make_task("t").skills("io").build()),
            ],
            Reason.QUEUED,
            "skill io",
            "kubectl scale agentpools.taskdist.dev/p -n ns --replicas=3",
            id="skill-of-busy-agents-while-others-are-free",
        ),
        pytest.param(
            [AgentReady(make_agent("b").slots(2).build()), TaskWaiting(make_task("t").skills("io").build())],
            Reason.SKILL_MISSING,
            "skill io",
            "",
            id="skill-that-nobody-has",
        ),
        pytest.param(
            [
                AgentReady(ONE.build()),
                BUSY,
                AgentReady(make_agent("b").slots(2).labels(**{ZONE: "west"}).build()),
                TaskWaiting(make_task("t").selector(ZONE, "In", "east").build()),
            ],
            Reason.QUEUED,
            f"label {ZONE}",
            "kubectl scale agentpools.taskdist.dev/p -n ns --replicas=3",
            id="zone",
        ),
        pytest.param(
            [AgentReady(ONE.build()), TaskWaiting(make_task("t").placed(zones=("west",)).build())],
            Reason.ZONE_MISMATCH,
            "zone west",
            "",
            id="zone-that-nobody-is-in",
        ),
        pytest.param(
            [
                AgentReady(ONE.build()),
                BUSY,
                PoolApplied(make_pool().slots(2).fixed(2).worth(cost_per_hour=3.0).build()),
                TaskWaiting(make_task("t").placed(max_cost=2.0).build()),
            ],
            Reason.TOO_EXPENSIVE,
            "agents that cost 2 an hour or less",
            "",
            id="cost-of-agents-that-are-busy",
        ),
        pytest.param(
            [
                QueueApplied(replace(PLAIN, budgets=(Budget("b", 1),))),
                AgentReady(ONE.build()),
                TaskLeased(replace(X, budgets=(("q", "b", 1),)), "a"),
                TaskWaiting(replace(T, budgets=(("q", "b", 1),))),
            ],
            Reason.BUDGET_SHORT,
            "budget q/b",
            "",
            id="budget",
        ),
        pytest.param(
            [
                QueueApplied(replace(PLAIN, quota=Quota(leased=1))),
                AgentReady(ONE.build()),
                TaskLeased(make_task("x").build(), "a"),
                TaskWaiting(make_task("t").build()),
            ],
            Reason.QUOTA_EXCEEDED,
            "spec.quota.leased",
            '{"spec":{"quota":{"leased":2}}}',
            id="quota",
        ),
        pytest.param(
            [
                QueueApplied(replace(PLAIN, rate=TokenRate(0.001, 1))),
                AgentReady(ONE.build()),
                TaskWaiting(make_task("s").build()),
                TaskWaiting(make_task("t").build()),
            ],
            Reason.RATE_LIMITED,
            "spec.rate.queue",
            "perSecond",
            id="rate",
        ),
        pytest.param(
            [
                AgentReady(ONE.build()),
                TaskLeased(replace(X, concurrency_key="k"), "a"),
                TaskWaiting(replace(T, concurrency_key="k")),
            ],
            Reason.KEY_IN_USE,
            "spec.concurrencyLimit",
            "",
            id="concurrency-key",
        ),
        pytest.param([TaskWaiting(make_task("t").build())], Reason.NO_AGENT, "an agent", "kubectl", id="no-agent"),
        pytest.param(
            [QueueApplied(replace(PLAIN, paused=True)), TaskWaiting(make_task("t").build())],
            Reason.QUEUE_PAUSED,
            "spec.paused",
            "paused",
            id="paused",
        ),
        pytest.param(
            [QueueApplied(replace(PLAIN, pools=("none",))), TaskWaiting(make_task("t").build())],
            Reason.POOL_NOT_FOUND,
            "a pool",
            "",
            id="no-pool",
        ),
    ],
)
def test_what_holds(events: Sequence[Event], reason: Reason, what: str, command: str) -> None:
    found = first(core_of(*events))
    assert (found.reason, found.what, found.tasks) == (reason, what, 1)
    assert command in found.found.command if command else not found.found.command
    assert found.found.unblock


@pytest.mark.parametrize(
    "event",
    [
        pytest.param(TaskWaiting(make_task("t").suspended().build()), id="suspended"),
        pytest.param(TaskWaiting(make_task("t").not_before(900.0).build()), id="later"),
        pytest.param(TaskGone("t"), id="nothing"),
    ],
)
def test_what_is_wanted_so_is_none(event: Event) -> None:
    assert not any(core_of(AgentReady(ONE.build()), event).holdups(100.0)[0].values())


def test_waiting_time_counts_not_the_number_of_tasks() -> None:
    """Three new Tasks behind a quota have waited for less than one that has been there for long."""
    core = core_of(
        QueueApplied(replace(PLAIN, tenant_quota=Quota(leased=1))),
        AgentReady(ONE.build()),
        TaskLeased(replace(X, tenant="red"), "a"),
        *[TaskWaiting(replace(T, uid=f"new{n}", tenant="red", created=98.0)) for n in range(3)],
        TaskWaiting(make_task("old").skills("gpu").created(40.0).build()),
    )
    found = core.holdups(100.0)[0][QUEUE]
    assert [(each.what, each.tasks, round(each.seconds, 6)) for each in found] == [
        ("skill gpu", 1, 60.0),
        ("spec.quota.perTenant.leased", 3, 6.0),
    ]


def test_an_attempt_that_ended_begins_a_new_wait() -> None:
    core = core_of(AgentReady(ONE.build()), TaskWaiting(make_task("t").created(0.0).build()), BUSY)
    core.handle(TaskWaiting(make_task("t").created(0.0).build()), 130.0)
    assert core.holdups(150.0)[0][QUEUE][0].seconds == pytest.approx(150.0)
    core.handle(TaskGone("busy"), 150.0)
    assert any(isinstance(each, Assign) for each in core.decide(150.0))
    core.handle(TaskWaiting(make_task("t").created(0.0).failures(1).build()), 160.0)
    core.handle(BUSY, 160.0)
    core.decide(160.0)
    assert core.holdups(165.0)[0][QUEUE][0].seconds == pytest.approx(5.0)


def held(what: str, tasks: int, mean: float) -> Holdup:
    return Holdup(Reason.QUEUED, what, tasks, tasks * mean, Explanation(Reason.QUEUED, "Why.", "Do it.", command="do"))


class TestWatch:
    def said(self, *looks: tuple[float, list[Holdup]]) -> list[str | None]:
        watch, found = Damper(), []
        for now, here in looks:
            said = watch.look({QUEUE: sorted(here, key=lambda each: -each.seconds)}, now).get(QUEUE)
            found.append(None if said is None else said.holdup.what)
        return found

    @pytest.mark.parametrize(
        ("looks", "expected"),
        [
            pytest.param(
                [(0, [held("a", 1, 60)]), (29, [held("a", 1, 89)]), (30, [held("a", 1, 90)])], "--a", id="held"
            ),
            pytest.param([(0, [held("a", 1, 60)]), (20, []), (30, [held("a", 1, 60)])], "---", id="not-all-the-while"),
            pytest.param([(0, [held("a", 9, 29)]), (60, [held("a", 9, 29)])], "--", id="a-short-wait-is-none"),
            pytest.param(
                [
                    (0, [held("a", 1, 60)]),
                    (30, [held("a", 1, 90)]),
                    *[(now, [held("b", 9, 90)]) for now in (31, 60, 61)],
                ],
                "-aaab",
                id="another-one-has-to-hold-as-long",
            ),
            pytest.param(
                [
                    (0, [held("a", 1, 60)]),
                    (30, [held("a", 1, 90)]),
                    (35, []),
                    (40, [held("a", 1, 60)]),
                    *[(now, []) for now in (70, 99, 100)],
                ],
                "-aaaaa-",
                id="gone-for-as-long",
            ),
            pytest.param(
                [(9, [held("a", 1, 60)]), (0, [held("a", 1, 60)]), (30, [held("a", 1, 90)])], "--a", id="clock"
            ),
        ],
    )
    def test_over_time(self, looks: list[tuple[float, list[Holdup]]], expected: str) -> None:
        assert self.said(*looks) == [None if each == "-" else each for each in expected]

    def test_it_forgets_what_it_need_not_know(self) -> None:
        watch = Damper()
        for now in range(0, 200, 5):
            watch.look({QUEUE: [held("a", 1, 60)]} if now < 100 else {}, float(now))
        assert not watch.look({}, 300.0)
        assert not watch._since

    def test_words(self) -> None:
        watch = Damper()
        both = [held("slots", 3, 90), held("skill x", 1, 90)]
        watch.look({QUEUE: both}, 0.0)
        said = watch.look({QUEUE: both}, HELD)[QUEUE]
        assert said.message == (
            "3 Tasks wait for slots, 1 min 30 s on average: 75% of all waiting time. Why. Do it. Command: do"
        )
