"""Messages that wait at sources count as work that is still to come in: how many, for which pools, and for how long."""

from __future__ import annotations

from dataclasses import replace

import pytest

from builders import NAMESPACE, PoolBuilder, QueueBuilder, make_pool, make_queue, make_task
from taskdist.core import Core
from taskdist.core.decisions import Decision, Scale
from taskdist.core.events import BacklogSeen, Event, PoolApplied, QueueApplied, QueueDeleted, TaskGone, TaskWaiting
from taskdist.core.model import Overflow, Queue, Quota
from taskdist.core.views import Outside

Q = (NAMESPACE, "q")


def seen(messages: int, until: float = 90.0, source: str = "s") -> BacklogSeen:
    return BacklogSeen(Q, source, messages, until)


def core_with(queue: QueueBuilder | Queue, pools: list[PoolBuilder], *events: Event) -> Core:
    core = Core()
    made = queue if isinstance(queue, Queue) else queue.build()
    for event in (QueueApplied(made), *(PoolApplied(pool.build()) for pool in pools), *events):
        core.handle(event, 0.0)
    return core


def sizes(decisions: list[Decision]) -> dict[str, int]:
    return {decision.pool[1]: decision.replicas for decision in decisions if isinstance(decision, Scale)}


WAITS = [TaskWaiting(make_task(f"t{number}").build()) for number in range(3)]


@pytest.mark.parametrize(
    ("queue", "pools", "events", "expected"),
    [
        pytest.param(make_queue().pools("p"), [make_pool().elastic(0, 9)], [seen(5)], {"p": 5}, id="each-takes-a-slot"),
        pytest.param(
            make_queue().pools("p"), [make_pool().slots(4).elastic(0, 9)], [seen(5)], {"p": 2}, id="slots-are-shared"
        ),
        pytest.param(
            make_queue().pools("p"), [make_pool().elastic(0, 3)], [seen(10**9)], {"p": 3}, id="never-beyond-maxReplicas"
        ),
        pytest.param(make_queue().pools("p"), [make_pool().fixed(2)], [seen(9)], {"p": 2}, id="a-fixed-size-stays"),
        pytest.param(
            make_queue().pools("p"), [make_pool().elastic(0, 9)], [*WAITS, seen(4)], {"p": 7}, id="beside-what-waits"
        ),
        pytest.param(
            make_queue().pools("p"),
            [make_pool().elastic(0, 9)],
            [seen(2), seen(3, source="other")],
            {"p": 5},
            id="sources-add-up",
        ),
        pytest.param(
            make_queue().pools("p"),
            [make_pool().elastic(0, 9)],
            [seen(5), seen(2)],
            {"p": 2},
            id="the-last-word-counts",
        ),
        pytest.param(
            make_queue().pools("p"), [make_pool().elastic(0, 9)], [seen(5), seen(0)], {"p": 0}, id="none-any-more"
        ),
        pytest.param(
            replace(make_queue().pools("p").build(), overflow=Overflow(3, 1)),
            [make_pool().elastic(0, 9)],
            [seen(500)],
            {"p": 3},
            id="no-more-than-may-wait-in-the-queue",
        ),
        pytest.param(
            replace(make_queue().pools("p").build(), quota=Quota(waiting=4)),
            [make_pool().elastic(0, 9)],
            [seen(500)],
            {"p": 4},
            id="nor-than-its-quota-lets-wait",
        ),
        pytest.param(
            replace(make_queue().pools("p").build(), quota=Quota(leased=2)),
            [make_pool().elastic(0, 9)],
            [seen(500)],
            {"p": 2},
            id="nor-than-its-quota-lets-run",
        ),
        pytest.param(
            make_queue().pools("p", "p2"),
            [make_pool().elastic(0, 2), make_pool("p2").elastic(0, 9)],
            [seen(5)],
            {"p": 2, "p2": 3},
            id="what-the-first-pool-has-no-room-for-is-the-next-one's",
        ),
        pytest.param(
            make_queue().pools("p").paused(),
            [make_pool().elastic(0, 9)],
            [seen(5)],
            {"p": 0},
            id="a-paused-queue-asks-for-none",
        ),
        pytest.param(
            make_queue().pools("p"),
            [make_pool().elastic(0, 9)],
            [seen(5), QueueDeleted(Q)],
            {"p": 0},
            id="a-queue-that-is-gone-asks-for-none",
        ),
        pytest.param(
            make_queue().pools("p"),
            [make_pool().elastic(0, 9).target(30.0)],
            [seen(60)],
            {"p": 9},
            id="with-a-target-by-what-each-is-expected-to-take",
        ),
    ],
)
def test_what_waits_outside_is_work_for_the_pools(
    queue: QueueBuilder | Queue, pools: list[PoolBuilder], events: list[Event], expected: dict[str, int]
) -> None:
    assert sizes(core_with(queue, pools, *events).decide(0.0)) == expected


def test_what_is_not_told_again_is_not_believed_for_ever() -> None:
    core = core_with(make_queue().pools("p"), [make_pool().elastic(0, 9, delay=0.0)], seen(5, until=90.0))
    assert sizes(core.decide(0.0)) == {"p": 5}
    assert core.waiting_outside(Q) == 5
    assert core.next_wake() == 90.0
    core.handle(seen(5, until=120.0), 60.0)
    assert sizes(core.decide(90.0)) == {}
    assert core.next_wake() == 120.0
    assert sizes(core.decide(120.0)) == {"p": 0}
    assert core.waiting_outside(Q) == 0


def test_a_message_that_became_a_task_counts_once() -> None:
    core = core_with(make_queue().pools("p"), [make_pool().elastic(0, 9, delay=0.0)], seen(3))
    assert sizes(core.decide(0.0)) == {"p": 3}
    became: list[Event] = [*WAITS, seen(0)]
    for event in became:
        core.handle(event, 5.0)
    assert sizes(core.decide(5.0)) == {}
    for number in range(3):
        core.handle(TaskGone(f"t{number}"), 6.0)
    assert sizes(core.decide(6.0)) == {"p": 0}


def test_the_oldest_message_names_its_source() -> None:
    core = core_with(make_queue().pools("p"), [make_pool().elastic(0, 9)], seen(5, source="most"))
    assert core.outside(Q) == Outside(5, "most", None)
    core.handle(BacklogSeen(Q, "later", 1, 90.0, 20.0), 0.0)
    core.handle(BacklogSeen(Q, "old", 2, 60.0, 10.0), 0.0)
    assert core.outside(Q) == Outside(8, "old", 10.0)
    core.decide(60.0)
    assert core.outside(Q) == Outside(6, "later", 20.0), "what is not told again is not believed for ever"
    core.decide(90.0)
    assert core.outside(Q) is None
