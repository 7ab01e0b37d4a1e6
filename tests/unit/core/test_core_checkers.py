"""The checkers see what they are for: each wrong decision is found, and the right one is not."""

from collections.abc import Callable

import pytest

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from checkers import Mirror
from taskdist.api import Reason
from taskdist.core import Core
from taskdist.core.decisions import Assign, Decision, DeletePod, Drain, Scale, Undrain
from taskdist.core.events import (
    AgentNotReady,
    AgentReady,
    Event,
    PoolApplied,
    QueueApplied,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)

KEY = (NAMESPACE, "p")


def mirror(*events: Event) -> Mirror:
    seen = Mirror()
    for event in (
        QueueApplied(make_queue().build()),
        PoolApplied(make_pool().slots(2).elastic(1, 3).build()),
        AgentReady(make_agent("a").slots(2).build()),
        AgentReady(make_agent("b").slots(2).build()),
        *events,
    ):
        seen.take(event)
    return seen


def assign(task: str, agent: str) -> Assign:
    return Assign(task, agent, agent, "p", Reason.ASSIGNED, "")


WAITS = TaskWaiting(make_task("t").build())
BUSY = TaskLeased(make_task("x").slots(2).build(), "a")


@pytest.mark.parametrize(
    ("events", "decision", "found"),
    [
        pytest.param([WAITS], assign("t", "a"), "", id="all-right"),
        pytest.param([], assign("t", "a"), "does not wait", id="a-task-that-does-not-wait"),
        pytest.param([TaskLeased(make_task("t").build(), "b")], assign("t", "a"), "does not wait", id="leased-twice"),
        pytest.param([WAITS, BUSY], assign("t", "a"), "cannot take it", id="over-capacity"),
        pytest.param([WAITS, AgentNotReady("a")], assign("t", "a"), "cannot take it", id="not-ready"),
        pytest.param([TaskHeld(make_task("t").build(), Reason.RECOVERING)], assign("t", "a"), "cannot", id="held"),
        pytest.param([TaskWaiting(make_task("t").not_before(5).build())], assign("t", "a"), "cannot", id="too-early"),
        pytest.param([TaskWaiting(make_task("t").skills("x").build())], assign("t", "a"), "may not", id="unskilled"),
        pytest.param(
            [WAITS, TaskWaiting(make_task("u").priority(3).build())], assign("t", "a"), "overtakes u", id="inversion"
        ),
        pytest.param(
            [WAITS, TaskWaiting(make_task("u").priority(3).slots(3).build())], assign("t", "a"), "", id="no-inversion"
        ),
        pytest.param(
            [WAITS, TaskLeased(make_task("x").build(), "a")],
            assign("t", "a"),
            "b is less busy",
            id="not-the-least-busy",
        ),
        pytest.param([], Scale(KEY, 3, Reason.WORK_WAITING, ""), "", id="within-bounds"),
        pytest.param([], Scale(KEY, 4, Reason.WORK_WAITING, ""), "outside its bounds", id="above-the-maximum"),
        pytest.param([], Scale(KEY, 0, Reason.IDLE, ""), "outside its bounds", id="below-the-minimum"),
        pytest.param([BUSY], Drain("a", Reason.IDLE, ""), "although busy", id="busy-victim"),
        pytest.param([], Drain("a", Reason.IDLE, ""), "", id="idle-victim"),
        pytest.param([], Undrain("a"), "was not draining", id="pardon-for-nobody"),
        pytest.param([BUSY], DeletePod("a", NAMESPACE, "a", Reason.IDLE, ""), "holds a lease", id="deletes-a-lease"),
    ],
)
def test_wrong_decisions_are_found(events: list[Event], decision: Decision, found: str) -> None:
    broken = mirror(*events).apply(decision, 0.0)
    assert bool(broken) is bool(found)
    assert found in " ".join(broken)


def test_idling_is_found() -> None:
    assert mirror().at_rest(0.0) == []
    assert mirror(WAITS).at_rest(0.0) != []


def core() -> Core:
    made = Core()
    for event in (
        QueueApplied(make_queue().build()),
        PoolApplied(make_pool().slots(2).build()),
        AgentReady(make_agent("a").slots(2).resources(mem=2).build()),
        *(TaskWaiting(make_task(f"t{n}").resources(mem=1).build()) for n in range(4)),
        TaskWaiting(make_task("s").suspended().build()),
    ):
        made.handle(event, 0.0)
    made.decide(0.0)
    assert made.audit() == []
    return made


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        pytest.param(lambda c: setattr(c, "_accepted", 99), "accepted − ended", id="a-task-lost"),
        pytest.param(lambda c: c._counts.update({("ns", "q"): [9, 9]}), "queue counts", id="a-queue-miscounted"),
        pytest.param(lambda c: setattr(c._tasks["t0"], "gate", Reason.SUSPENDED), "exactly one", id="in-two-places"),
        pytest.param(lambda c: setattr(c._tasks["t3"], "entry", None), "exactly one place", id="a-task-in-no-place"),
        pytest.param(lambda c: setattr(c._tasks["t3"].shape, "eligible", 9), "counts", id="a-class-miscounted"),
        pytest.param(lambda c: setattr(c._tasks["t3"].shape.demand, "tasks", 9), "demand", id="demand-miscounted"),
        pytest.param(lambda c: setattr(c._fleet.agents["a"], "busy", 1), "busy slots", id="a-slot-given-twice"),
        pytest.param(lambda c: c._fleet.agents["a"].resources_free.update(mem=1), "free", id="a-resource-given-twice"),
        pytest.param(lambda c: c._fleet.agents["a"].leases.pop("t0"), "agent a holds", id="a-lease-forgotten"),
        pytest.param(lambda c: c._fleet.free.__setitem__(0, 255), "free profiles", id="a-mask-out-of-date"),
        pytest.param(lambda c: c._waiting._masks.__setitem__(6, 0), "waiting profiles", id="a-level-out-of-date"),
    ],
)
def test_damaged_books_are_found(damage: Callable[[Core], object], found: str) -> None:
    made = core()
    damage(made)
    assert found in "; ".join(made.audit())
