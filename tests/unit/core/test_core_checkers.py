"""The checkers see what they are for: each wrong decision is found, and the right one is not."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from checkers import Mirror
from taskdist.api import BreakerState, OnDependencyFailure, OnHopeless, OnOverflow, OrderPolicy, Phase, Reason, Strategy
from taskdist.core import Core
from taskdist.core.decisions import Assign, BreakerTurned, Decision, DeletePod, Drain, Fail, Scale, Spill, Undrain
from taskdist.core.events import (
    AgentNotReady,
    AgentReady,
    AttemptFailed,
    Event,
    PoolApplied,
    QueueApplied,
    QueueDeleted,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import Breaker, Overflow, Parent, Quota, Route, RouteStep, Task, Timeouts, TokenRate
from taskdist.core.ordering.lines import Line

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


def assign(task: str, agent: str, strategy: Strategy = Strategy.ADAPTIVE, score: float = 0.0) -> Assign:
    return Assign(task, agent, agent, "p", Reason.ASSIGNED, "", strategy=strategy, score=score)


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


# Rules of queues.


def rules(**fields: Any) -> QueueApplied:
    return QueueApplied(replace(make_queue().build(), aging_step=0.0, **fields))


def waits(uid: str, **fields: Any) -> TaskWaiting:
    return TaskWaiting(task(uid, **fields))


def task(uid: str, **fields: Any) -> Task:
    return replace(make_task(uid).build(), **{"tenant": "x", **fields})


def runs(uid: str, **fields: Any) -> TaskLeased:
    return TaskLeased(task(uid, **fields), "b")


def parent(uid: str = "p", phase: Phase | None = None) -> dict[str, Any]:
    return {"parents": (Parent(uid, uid, phase),)}


def ends(reason: Reason, phase: Phase = Phase.FAILED) -> Fail:
    return Fail("t", 0, reason, "", phase)


SPILLS = Overflow(1, 1, OnOverflow.SPILL, "spare")


@pytest.mark.parametrize(
    ("events", "now", "found"),
    [
        pytest.param([waits("t", **parent())], 0.0, "cannot start yet", id="before-its-parent"),
        pytest.param([waits("t", **parent()), TaskGone("p", Phase.DEAD_LETTERED)], 0.0, "cannot", id="dead-letter"),
        pytest.param([waits("t", **parent()), TaskGone("p", Phase.SUCCEEDED)], 0.0, "", id="after-its-parent"),
        pytest.param([waits("t", **parent()), TaskGone("p", None)], 0.0, "cannot", id="its-parent-is-deleted"),
        pytest.param(
            [waits("t", **parent(phase=Phase.FAILED), on_parent_failure=OnDependencyFailure.RUN)], 0.0, "", id="runs"
        ),
        pytest.param([waits("t", ordering_key="o"), runs("u", ordering_key="o")], 0.0, "cannot", id="two-of-an-order"),
        pytest.param(
            [waits("t", ordering_key="o", created=2.0), waits("u", ordering_key="o", suspended=True)],
            2.0,
            "cannot",
            id="out-of-turn",
        ),
        pytest.param(
            [
                runs("u", ordering_key="o", created=9.0),
                AttemptFailed("u", Reason.HANDLER_ERROR, ""),
                waits("u", ordering_key="o", created=9.0, suspended=True, attempted=True),
                waits("t", ordering_key="o"),
            ],
            9.0,
            "cannot",
            id="before-one-that-was-started",
        ),
        pytest.param([rules(quota=Quota(leased=1)), waits("t"), runs("u")], 0.0, "quota", id="over-the-quota"),
        pytest.param([rules(quota=Quota(slots=1)), waits("t"), runs("u")], 0.0, "slots", id="over-the-slots"),
        pytest.param([rules(tenant_quota=Quota(leased=1)), waits("t"), runs("u")], 0.0, "tenant", id="of-its-tenant"),
        pytest.param(
            [rules(tenant_quota=Quota(leased=1)), waits("t"), runs("u", tenant="y")], 0.0, "", id="of-another-tenant"
        ),
        pytest.param([waits("t", concurrency_key="k"), runs("u", concurrency_key="k")], 0.0, "key", id="key-in-use"),
        pytest.param([waits("t", concurrency_key="k"), runs("u", concurrency_key="l")], 0.0, "", id="another-key"),
        pytest.param([rules(), waits("t", priority=5)], 0.0, "not being allowed", id="no-right-to-emergencies"),
        pytest.param(
            [rules(emergency=frozenset("x"), emergency_leased=1), waits("t", priority=5), runs("u", priority=5)],
            0.0,
            "cap",
            id="too-many-emergencies",
        ),
        pytest.param(
            [rules(policy=OrderPolicy.FIFO), waits("t", priority=5)], 0.0, "", id="levels-that-the-queue-ignores"
        ),
        pytest.param([waits("t"), waits("u", created=-300.0, priority=2)], 0.0, "overtakes", id="inversion-by-age"),
        pytest.param(
            [waits("t"), waits("u", priority=1), waits("v", priority=4, **parent("u"))],
            0.0,
            "overtakes",
            id="inversion-by-a-lift",
        ),
        pytest.param([waits("t", created=1.0), waits("u")], 1.0, "first in its line", id="before-an-older-one"),
        pytest.param([waits("t", created=1.0), waits("u", tenant="y")], 1.0, "", id="before-another-tenants"),
        pytest.param(
            [rules(critical_path_first=True), waits("t"), waits("u"), waits("v", **parent("u"))],
            1.0,
            "first in its line",
            id="before-a-critical-path",
        ),
        pytest.param([waits("t"), QueueDeleted((NAMESPACE, "q"))], 0.0, "cannot", id="no-queue"),
    ],
)
def test_grants_against_a_rule_are_found(events: list[Event], now: float, found: str) -> None:
    broken = mirror(*events).apply(assign("t", "a"), now)
    assert bool(broken) is bool(found), broken
    assert found in " ".join(broken)


WAY = Route("way", (RouteStep(("p",), strategy=Strategy.PACK), RouteStep(("q",))))


@pytest.mark.parametrize(
    ("agent", "strategy", "score", "found"),
    [
        pytest.param("b", Strategy.PACK, -0.5, "", id="all-right"),
        pytest.param("b", Strategy.ADAPTIVE, 0.5, "not by Pack", id="the-queue-s-strategy"),
        pytest.param("b", Strategy.PACK, 0.5, "a score of 0.5", id="another-score"),
        pytest.param("a", Strategy.PACK, 0.0, "b is fuller", id="not-the-fullest"),
    ],
)
def test_wrong_words_of_a_step_are_found(agent: str, strategy: Strategy, score: float, found: str) -> None:
    seen = mirror(rules(routes=(WAY,)), waits("t"), runs("u"))
    decision = replace(assign("t", agent, strategy, score), rule="way", step=1)
    broken = seen.apply(decision, 0.0)
    assert bool(broken) is bool(found), broken
    assert found in " ".join(broken)


def test_grants_without_a_token_are_found() -> None:
    seen = mirror(rules(rate=TokenRate(0.5, 2)), *(waits(f"t{n}") for n in range(5)), waits("e", priority=5))
    assert seen.apply(assign("t0", "a"), 0.0) == seen.apply(assign("t1", "b"), 0.0) == []
    seen.take(TaskGone("t0", Phase.SUCCEEDED), 1.0)
    assert seen.at_rest(1.0) == []
    assert "without a token" in " ".join(seen.apply(assign("t2", "a"), 1.0))
    # That one is paid back when the grant is not written; a failed attempt is not.
    seen.take(waits("t2"), 1.0)
    seen.take(AttemptFailed("t1", Reason.HANDLER_ERROR, ""), 1.0)
    seen.take(waits("t1"), 1.0)
    assert seen.tokens(seen.waiting["t2"], 1.0) == (0.5, 0.5)
    assert seen.apply(assign("t1", "a"), 2.0) == []


@pytest.mark.parametrize(
    ("events", "decision", "found"),
    [
        pytest.param([waits("t", waiting_limit=5.0)], ends(Reason.WAITED_TOO_LONG), "", id="waited-too-long"),
        pytest.param([waits("t", waiting_limit=6.0)], ends(Reason.WAITED_TOO_LONG), "is not", id="not-yet"),
        pytest.param([waits("t", waiting_limit=5.0, attempted=True)], ends(Reason.WAITED_TOO_LONG), "is", id="started"),
        pytest.param(
            [rules(timeouts=Timeouts(5.0)), waits("t")], ends(Reason.WAITED_TOO_LONG), "", id="by-the-queues-word"
        ),
        pytest.param([waits("t", deadline=1.0)], ends(Reason.DEADLINE_HOPELESS), "is not", id="hopeless-ones-run"),
        pytest.param(
            [rules(on_hopeless=OnHopeless.FAIL), waits("t", deadline=1.0)],
            ends(Reason.DEADLINE_HOPELESS),
            "",
            id="fail",
        ),
        pytest.param(
            [rules(on_hopeless=OnHopeless.DEAD_LETTER), waits("t", deadline=1.0)],
            ends(Reason.DEADLINE_HOPELESS),
            "is not",
            id="not-as-a-dead-letter",
        ),
        pytest.param(
            [waits("t", **parent(phase=Phase.FAILED))], ends(Reason.DEPENDENCY_FAILED), "", id="its-parent-failed"
        ),
        pytest.param([waits("t", **parent())], ends(Reason.DEPENDENCY_FAILED), "is not", id="its-parent-runs"),
        pytest.param([waits("t", **parent(phase=Phase.FAILED))], ends(Reason.SKIPPED), "is not", id="not-skipped"),
        pytest.param([rules(overflow=Overflow(1, 1)), waits("u"), waits("t")], ends(Reason.QUEUE_FULL), "", id="full"),
        pytest.param([rules(overflow=Overflow(1, 1)), waits("t")], ends(Reason.QUEUE_FULL), "is not", id="not-full"),
        pytest.param(
            [rules(quota=Quota(payload_bytes=5)), waits("u", payload_bytes=3), waits("t", payload_bytes=3)],
            ends(Reason.QUEUE_FULL),
            "",
            id="too-many-bytes",
        ),
        pytest.param([runs("t")], ends(Reason.WAITED_TOO_LONG), "does not wait", id="it-runs"),
        pytest.param(
            [rules(overflow=SPILLS), QueueApplied(make_queue("spare").build()), waits("u"), waits("t")],
            Spill("t", "spare", Reason.QUEUE_FULL, ""),
            "",
            id="spills",
        ),
        pytest.param(
            [rules(overflow=SPILLS), waits("u"), waits("t")],
            Spill("t", "spare", Reason.QUEUE_FULL, ""),
            "cannot go",
            id="spills-nowhere",
        ),
        pytest.param([runs("t")], Spill("t", "spare", Reason.QUEUE_FULL, ""), "does not wait", id="spills-what-runs"),
    ],
)
def test_ends_without_ground_are_found(events: list[Event], decision: Decision, found: str) -> None:
    seen = mirror(*events)
    broken = seen.apply(decision, 5.0)
    assert bool(broken) is bool(found), broken
    assert found in " ".join(broken)
    assert seen.apply(decision, 5.0) != [], "once is enough"


def test_what_is_to_end_is_not_to_be_assigned() -> None:
    seen = mirror(waits("t", waiting_limit=5.0))
    assert seen.apply(ends(Reason.WAITED_TOO_LONG), 5.0) == []
    assert seen.at_rest(5.0) == []
    assert "cannot start" in " ".join(seen.apply(assign("t", "a"), 5.0))


@pytest.mark.parametrize(
    ("event", "found"),
    [
        pytest.param(waits("t"), "could start it", id="it-could-start"),
        pytest.param(waits("t", suspended=True, waiting_limit=5.0), "too long", id="it-has-waited-too-long"),
        pytest.param(waits("t", **parent(phase=Phase.FAILED)), "did not succeed", id="its-parent-failed"),
    ],
)
def test_idling_is_found(event: Event, found: str) -> None:
    assert mirror().at_rest(5.0) == []
    assert found in " ".join(mirror(event).at_rest(5.0))
    assert mirror(waits("t")).at_rest(0.0, kept=("a", "b")) == []


def test_what_is_let_into_a_full_queue_is_found() -> None:
    full = rules(overflow=Overflow(1, 1))
    assert mirror(full, waits("t")).overflown(["t"]) == []
    assert mirror(full, waits("u"), waits("t")).overflown(["t"]) != []
    assert mirror(full, waits("u"), waits("t", attempted=True)).overflown(["t"]) == []


def test_breakers_that_hold_too_many_are_found() -> None:
    turned = BreakerTurned("a", "a", KEY, BreakerState.OPEN, Reason.BREAKER_OPEN, "")
    plain = mirror()
    assert "its pool has none" in " ".join(plain.apply(turned, 0.0))
    guarded = PoolApplied(replace(make_pool().slots(2).elastic(1, 3).build(), breaker=Breaker()))
    seen = mirror(guarded)
    assert seen.apply(turned, 0.0) == []
    assert seen.overheld() == []
    seen.take(AgentNotReady("b"))
    assert seen.overheld() != []
    assert seen.apply(replace(turned, state=BreakerState.CLOSED), 0.0) == []
    assert seen.overheld() == []


# The core's own books.


def core() -> Core:
    made = Core()
    told: list[Event] = [
        QueueApplied(make_queue().build()),
        PoolApplied(make_pool().slots(2).build()),
        AgentReady(make_agent("a").slots(2).resources(mem=2).build()),
        *(TaskWaiting(make_task(f"t{n}").resources(mem=1).build()) for n in range(4)),
        TaskWaiting(make_task("s").suspended().build()),
    ]
    for event in told:
        made.handle(event, 0.0)
    made.decide(0.0)
    assert made.audit() == []
    return made


def mislead(line: Line) -> None:
    """Let its tenant take another line for the first."""
    assert line.share is not None
    line.share.firsts[1] = Line(line.shape, line.band, line.tenant)


def miscount(core: Core) -> None:
    counts = core._counts[("ns", "q"), 2]
    counts.waiting = counts.leased = 9


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        pytest.param(lambda c: setattr(c._states, "accepted", 99), "accepted − ended", id="a-task-lost"),
        pytest.param(miscount, "queue counts", id="a-queue-miscounted"),
        pytest.param(lambda c: setattr(c._tasks["t0"], "gate", Reason.SUSPENDED), "exactly one", id="in-two-places"),
        pytest.param(lambda c: setattr(c._tasks["t3"], "line", None), "exactly one place", id="a-task-in-no-place"),
        pytest.param(lambda c: setattr(c._tasks["t3"].shape, "eligible", 9), "counts", id="a-class-miscounted"),
        pytest.param(lambda c: setattr(c._tasks["t3"].shape.demand, "tasks", 9), "demand", id="demand-miscounted"),
        pytest.param(lambda c: setattr(c._fleet.agents["a"], "busy", 1), "busy slots", id="a-slot-given-twice"),
        pytest.param(lambda c: c._fleet.agents["a"].resources_free.update(mem=1), "free", id="a-resource-given-twice"),
        pytest.param(lambda c: c._fleet.agents["a"].leases.pop("t0"), "agent a holds", id="a-lease-forgotten"),
        pytest.param(
            lambda c: setattr(c._fleet.agents["a"], "soonest", 1.0), "another time", id="an-end-misremembered"
        ),
        pytest.param(
            lambda c: setattr(c._fleet.agents["a"], "breaker", BreakerState.OPEN),
            "its breaker",
            id="held-by-no-breaker",
        ),
        pytest.param(lambda c: setattr(c._fleet.agents["a"], "cap", 1), "nobody says", id="kept-back-by-nobody"),
        pytest.param(lambda c: c._fleet.free.__setitem__(0, 255), "free profiles", id="a-mask-out-of-date"),
        pytest.param(lambda c: c._waiting._masks.__setitem__(6, 0), "waiting profiles", id="a-level-out-of-date"),
        pytest.param(lambda c: mislead(c._tasks["t3"].line), "whose turn", id="a-turn-out-of-date"),
    ],
)
def test_damaged_books_are_found(damage: Callable[[Core], object], found: str) -> None:
    made = core()
    damage(made)
    assert found in "; ".join(made.audit())


# The audit in small steps, as production runs it.


def inspected(core: Core, most: int) -> tuple[list[str], int]:
    """Return what a whole round finds, and how many steps it took."""
    for steps in range(1, 1000):
        if (found := core.inspect(most)) is not None:
            return found, steps
    raise AssertionError("a round never ends")


@pytest.mark.parametrize(
    ("damage", "found"),
    [
        pytest.param(lambda c: setattr(c._states, "accepted", 99), "99 have not ended", id="a-task-lost"),
        pytest.param(lambda c: c._tasks.pop("s"), "4 Tasks are known, 5 have not ended", id="a-record-lost"),
        pytest.param(miscount, "9 wait and 9", id="a-queue-miscounted"),
        pytest.param(lambda c: setattr(c._tasks["t0"], "gate", Reason.SUSPENDED), "exactly one", id="in-two-places"),
        pytest.param(lambda c: setattr(c._tasks["t3"], "line", None), "exactly one place", id="a-task-in-no-place"),
        pytest.param(lambda c: c._tasks["t3"].line.heap.clear(), "lost count", id="a-task-that-nobody-finds"),
        pytest.param(lambda c: c._waiting._lines.clear(), "a forgotten line", id="a-line-lost"),
        pytest.param(lambda c: setattr(c._tasks["t3"].shape, "eligible", 9), "another length", id="a-class-miscounted"),
        pytest.param(lambda c: setattr(c._tasks["t3"].shape, "tasks", 9), "by their shapes", id="a-class-too-large"),
        pytest.param(lambda c: setattr(c._fleet.agents["a"], "busy", 1), "busy slots", id="a-slot-given-twice"),
        pytest.param(lambda c: c._fleet.agents["a"].resources_free.update(mem=1), "free", id="a-resource-given-twice"),
        pytest.param(lambda c: c._fleet.agents["a"].leases.pop("t0"), "does not know of it", id="a-lease-forgotten"),
        pytest.param(
            lambda c: setattr(c._fleet.agents["a"].kind, "busy_slots", 0), "agent class", id="a-kind-miscounted"
        ),
    ],
)
@pytest.mark.parametrize("most", [1, 1000])
def test_damaged_books_are_found_in_small_steps(damage: Callable[[Core], object], found: str, most: int) -> None:
    made = core()
    assert inspected(made, most)[0] == []
    damage(made)
    assert found in "; ".join(inspected(made, most)[0])


def test_a_round_of_the_audit_is_cut_into_steps_and_bears_what_happens_between() -> None:
    made = core()
    assert inspected(made, 1000)[1] == 2
    assert inspected(made, 1)[1] > 8
    for uid in ("t0", "t3", "s"):
        assert made.inspect(1) is None
        made.handle(TaskGone(uid), 1.0)
    made.handle(QueueDeleted(("ns", "q")), 1.0)
    made.handle(AgentNotReady("a"), 1.0)
    made.decide(1.0)
    assert inspected(made, 1)[0] == []


def test_a_step_of_the_audit_looks_at_no_more_than_it_was_told() -> None:
    made = core()
    for n in range(3000):
        made.handle(TaskWaiting(replace(make_task(f"more{n}").build(), tenant=f"t{n % 30}")), 1.0)
    found, steps = inspected(made, 100)
    assert (found, steps > 60) == ([], True)
