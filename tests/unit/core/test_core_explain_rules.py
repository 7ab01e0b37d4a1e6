"""What limits, keys, dependencies and holds say of the Tasks that wait for them, and the command that helps."""

import json
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase, Reason
from taskdist.core import Core
from taskdist.core.decisions import Assign, Explanation
from taskdist.core.events import AgentReady, Event, PoolApplied, QueueApplied, TaskGone, TaskLeased, TaskWaiting
from taskdist.core.explaining.wording import clock, duration, text
from taskdist.core.model import EMERGENCY, TOP, Budget, Parent, Queue, Quota, Route, RouteStep, Task, TokenRate

PLAIN = make_task("t").build()
OTHER = make_task("o").build()
QUEUE = make_queue().build()


def rules(**fields: Any) -> Queue:
    return replace(QUEUE, **fields)


def waits(task: Task = PLAIN, **fields: Any) -> TaskWaiting:
    return TaskWaiting(replace(task, **fields))


def runs(task: Task = OTHER, **fields: Any) -> TaskLeased:
    return TaskLeased(replace(task, **fields), "a")


def explained(queue: Queue, events: Sequence[Event], slots: int = 4, now: float = 0.0) -> Explanation:
    core = Core()
    for event in (
        PoolApplied(make_pool().slots(slots).fixed(1).build()),
        QueueApplied(queue),
        AgentReady(make_agent("a").slots(slots).build()),
        *events,
    ):
        core.handle(event, now)
    core.decide(now)
    found = core.explain("t", now)
    assert found is not None
    counted = core.waiting_by_reason(now)
    assert counted[QUEUE.key, found.reason] >= 1
    return found


@pytest.mark.parametrize(
    ("queue", "events", "reason", "message", "unblock", "command"),
    [
        pytest.param(
            QUEUE,
            [waits(not_before=90.0)],
            Reason.SCHEDULED,
            "not to start before 1970-01-01T00:01:30Z, as its notBefore says: in 1 min 30 s",
            "earlier notBefore",
            "",
            id="scheduled",
        ),
        pytest.param(
            QUEUE,
            [waits(not_before=5.0, deaths=("x",))],
            Reason.BACKING_OFF,
            "Tried again in 5 s, after its agent died.",
            "Wait",
            "",
            id="its-agent-died",
        ),
        pytest.param(
            QUEUE,
            [waits(not_before=30.0, throttled=True, put_off=90.0)],
            Reason.THROTTLED,
            "its handler put it off; tried again at 1970-01-01T00:00:30Z, in 30 s",
            "put off for 1 min 30 s in all; from the queue's retry.throttledSeconds on",
            "",
            id="throttled",
        ),
        pytest.param(
            QUEUE,
            [waits(suspended=True)],
            Reason.SUSPENDED,
            "suspended",
            "suspend to false",
            "taskdist resume t -n ns",
            id="suspended",
        ),
        pytest.param(
            QUEUE,
            [waits(parents=(Parent("o", "o"),)), runs()],
            Reason.DEPENDENCY,
            "It depends on o, which has not ended.",
            "Wait",
            "taskdist explain o -n ns",
            id="dependency",
        ),
        pytest.param(
            QUEUE,
            [waits(parents=(Parent("none"),))],
            Reason.DEPENDENCY_NOT_FOUND,
            "It depends on none: no such Task",
            "Create the Task",
            "",
            id="dependency-not-found",
        ),
        pytest.param(
            QUEUE,
            [waits(parents=(Parent("o", "o"),)), waits(OTHER, parents=(Parent("t", "t"),))],
            Reason.DEPENDENCY_CYCLE,
            "It waits for itself: t → o → t.",
            "Cancel or delete one of them",
            "taskdist cancel t -n ns",
            id="dependency-cycle",
        ),
        pytest.param(
            QUEUE,
            [waits(OTHER, ordering_key="k", suspended=True), waits(ordering_key="k", created=1.0)],
            Reason.OUT_OF_TURN,
            "Tasks with the ordering key k run one after the other: it is the turn of o; 2 of them have not ended.",
            "Wait for o to end",
            "taskdist explain o -n ns",
            id="out-of-turn",
        ),
        pytest.param(
            QUEUE,
            [runs(concurrency_key="k"), waits(concurrency_key="k")],
            Reason.KEY_IN_USE,
            "Queue q runs 1 of at most 1 Tasks of the concurrency key k.",
            "raise spec.concurrencyLimit",
            "",
            id="key-in-use",
        ),
        pytest.param(
            rules(quota=Quota(leased=1)),
            [runs(), waits()],
            Reason.QUOTA_EXCEEDED,
            "Queue q runs 1 of at most 1 Tasks.",
            "raise spec.quota.leased",
            {"quota": {"leased": 2}},
            id="quota-of-the-queue",
        ),
        pytest.param(
            rules(tenant_quota=Quota(slots=2)),
            [runs(tenant="x"), waits(tenant="x", slots=2)],
            Reason.QUOTA_EXCEEDED,
            "Tenant x of queue q occupies 1 of at most 2 slots.",
            "raise spec.quota.perTenant.slots",
            {"quota": {"perTenant": {"slots": 3}}},
            id="quota-of-the-tenant",
        ),
        pytest.param(
            rules(quota=Quota(slots=2)),
            [waits(slots=3)],
            Reason.QUOTA_EXCEEDED,
            "may occupy 2 slots in all",
            "fewer slots",
            {"quota": {"slots": 3}},
            id="more-than-the-quota-at-once",
        ),
        pytest.param(
            rules(rate=TokenRate(0.1)),
            [waits(OTHER), waits(created=1.0)],
            Reason.RATE_LIMITED,
            "Queue q may start 0.1 attempts a second, 1 at once; the next in 10 s.",
            "Wait 10 s, or raise spec.rate.queue",
            {"rate": {"queue": {"perSecond": 0.2}}},
            id="rate-limited",
        ),
        pytest.param(
            rules(budgets=(Budget("b", 3), Budget("c", rate=TokenRate(2.0, 5)))),
            [runs(budgets=(("q", "b", 2),)), waits(budgets=(("q", "b", 2),))],
            Reason.BUDGET_SHORT,
            "The Task takes 2 of the budget q/b, of which 2 of 3 are held.",
            "Wait for Tasks that hold it to end; if there is more of it, raise limit of the budget b in spec.budgets",
            "",
            id="budget-held",
        ),
        pytest.param(
            rules(budgets=(Budget("b", 3),)),
            [waits(budgets=(("q", "b", 5),))],
            Reason.BUDGET_SHORT,
            "takes 5 of the budget q/b, of which 0 of 3 are held",
            "It will never do for this Task: raise limit",
            "",
            id="more-than-the-budget-in-all",
        ),
        pytest.param(
            rules(budgets=(Budget("c", rate=TokenRate(2.0, 5)),)),
            [waits(OTHER, budgets=(("q", "c", 4),)), waits(created=1.0, budgets=(("q", "c", 4),))],
            Reason.BUDGET_SHORT,
            "takes 4 of the budget q/c, of which 1 of 5 are left and 2 come a second: enough in 1.5 s.",
            "Wait 1.5 s; if there is more of it, raise perSecond",
            "",
            id="budget-spent",
        ),
        pytest.param(
            rules(budgets=(Budget("c", rate=TokenRate(2.0, 5)),)),
            [waits(budgets=(("q", "c", 8),))],
            Reason.BUDGET_SHORT,
            "takes 8 of the budget q/c, of which 5 of 5 are left",
            "raise burst",
            "",
            id="more-than-the-burst",
        ),
        pytest.param(
            QUEUE,
            [waits(budgets=(("q", "b", 1),))],
            Reason.BUDGET_NOT_FOUND,
            "budget q/b, which is not there: TaskQueue q defines no budget b",
            "Add b to spec.budgets of TaskQueue q",
            "",
            id="no-such-budget",
        ),
        pytest.param(
            QUEUE,
            [waits(budgets=(("far", "b", 1),))],
            Reason.BUDGET_NOT_FOUND,
            "TaskQueue far does not exist",
            "Add b to spec.budgets of TaskQueue far",
            "",
            id="no-such-queue-of-a-budget",
        ),
        pytest.param(
            QUEUE,
            [waits(agent="b")],
            Reason.AGENT_NOT_FOUND,
            "It is to run on agent b only, and no agent of this name has come up in namespace ns.",
            "remove spec.agent",
            {"agent": None},
            id="no-such-agent",
        ),
        pytest.param(
            rules(routes=(Route("way", (RouteStep(("p",)), RouteStep(("q", "r"), 90.0))),)),
            [PoolApplied(make_pool().slots(4).elastic(1, 9).build()), runs(slots=4), waits()],
            Reason.QUEUED,
            "slots busy. Its route way has 2 steps, of which 1 is open; the next, pools q, r, opens in 1 min 30 s.",
            "pool's size",
            "",
            id="first-step-of-a-route",
        ),
        pytest.param(
            rules(routes=(Route("way", (RouteStep(("x",)), RouteStep(("y",), 90.0))),)),
            [waits()],
            Reason.POOL_NOT_FOUND,
            "Route way of TaskQueue q names pools x, y: no such AgentPool",
            "Create the pool",
            "",
            id="route-to-nowhere",
        ),
        pytest.param(
            QUEUE,
            [waits(priority=EMERGENCY, tenant="x")],
            Reason.TENANT_NOT_ALLOWED,
            "Tenant x may not use the level Emergency in queue q.",
            "Lower the Task's priority",
            {"priority": "Critical"},
            id="tenant-not-allowed",
        ),
        pytest.param(
            rules(emergency=frozenset("x"), emergency_leased=1),
            [runs(priority=EMERGENCY, tenant="x"), waits(priority=EMERGENCY, tenant="x")],
            Reason.QUOTA_EXCEEDED,
            "runs 1 of at most 1 Tasks of the level Emergency",
            "emergencyLeased",
            {"tenants": {"emergencyLeased": 2}},
            id="emergency-quota",
        ),
        pytest.param(
            QUEUE,
            [runs(slots=4), waits()],
            Reason.QUEUED,
            "has 4 of 4 slots busy.",
            "Wait for running Tasks to end, or raise the pool's size.",
            "kubectl scale agentpools.taskdist.dev/p -n ns --replicas=2",
            id="queued-alone",
        ),
        pytest.param(
            QUEUE,
            [runs(slots=4), waits(OTHER, uid="first", name="first"), waits(created=1.0)],
            Reason.QUEUED,
            "has 4 of 4 slots busy.",
            "raise the Task's priority or the pool's size",
            {"priority": "High"},
            id="queued-behind-another",
        ),
        pytest.param(
            QUEUE,
            [runs(slots=4), waits(OTHER, uid="first", name="first", priority=3), waits(created=1.0)],
            Reason.QUEUED,
            "has 4 of 4 slots busy.",
            "Wait for running Tasks to end, or raise the pool's size.",
            "kubectl scale agentpools.taskdist.dev/p -n ns --replicas=2",
            id="queued-behind-a-higher-level-only",
        ),
        pytest.param(
            QUEUE,
            [runs(slots=4), waits(OTHER, uid="first", name="first", priority=TOP), waits(priority=TOP, created=1.0)],
            Reason.QUEUED,
            "has 4 of 4 slots busy.",
            "Wait for running Tasks to end, or raise the pool's size.",
            "kubectl scale agentpools.taskdist.dev/p -n ns --replicas=2",
            id="queued-at-the-top",
        ),
        pytest.param(
            rules(quota=Quota(leased=1)),
            [runs(slots=4), waits()],
            Reason.QUOTA_EXCEEDED,
            "Queue q runs 1 of at most 1 Tasks.",
            "raise spec.quota.leased",
            {"quota": {"leased": 2}},
            id="quota-of-the-queue-while-all-agents-are-busy",
        ),
        pytest.param(
            QUEUE,
            [runs(slots=4, concurrency_key="k"), waits(concurrency_key="k")],
            Reason.KEY_IN_USE,
            "Queue q runs 1 of at most 1 Tasks of the concurrency key k.",
            "Wait for one of them to end",
            "",
            id="key-in-use-while-all-agents-are-busy",
        ),
        pytest.param(
            rules(budgets=(Budget("b", 3),)),
            [runs(slots=4, budgets=(("q", "b", 2),)), waits(budgets=(("q", "b", 2),))],
            Reason.BUDGET_SHORT,
            "takes 2 of the budget q/b, of which 2 of 3 are held",
            "Wait for Tasks that hold it to end",
            "",
            id="budget-held-while-all-agents-are-busy",
        ),
        pytest.param(
            QUEUE,
            [waits(ordering_key="k", created=1.0), runs(slots=4, ordering_key="k")],
            Reason.OUT_OF_TURN,
            "it is the turn of o; 2 of them have not ended.",
            "Wait for o to end",
            "taskdist explain o -n ns",
            id="out-of-turn-while-all-agents-are-busy",
        ),
        pytest.param(
            QUEUE,
            [runs(slots=3), waits(slots=2)],
            Reason.NO_FREE_SLOTS,
            "has 2 slots free at once; 1 of 4",
            "running Tasks",
            "kubectl scale agentpools.taskdist.dev/p -n ns --replicas=2",
            id="no-free-slots",
        ),
        pytest.param(
            QUEUE,
            [waits(skills=frozenset(["gpu"]))],
            Reason.SKILL_MISSING,
            "has skill gpu",
            "Run agents that have the skill",
            "",
            id="skill-missing",
        ),
        pytest.param(
            QUEUE,
            [waits(slots=9)],
            Reason.TOO_LARGE,
            "9 slots in all",
            "whose pods have the room",
            "",
            id="too-large",
        ),
        pytest.param(
            rules(paused=True),
            [waits()],
            Reason.QUEUE_PAUSED,
            "paused",
            "paused to false",
            {"paused": False},
            id="paused",
        ),
        pytest.param(
            rules(pools=("none",)),
            [waits()],
            Reason.POOL_NOT_FOUND,
            "names pool none",
            "name another",
            "",
            id="pool-of-the-queue-not-found",
        ),
        pytest.param(
            QUEUE,
            [waits(pool="none")],
            Reason.POOL_NOT_FOUND,
            "names pool none",
            "name another",
            {"pool": None},
            id="pool-of-the-task-not-found",
        ),
    ],
)
def test_words_and_command(
    queue: Queue, events: list[Event], reason: Reason, message: str, unblock: str, command: str | dict[str, Any]
) -> None:
    found = explained(queue, events)
    assert found.reason is reason, found
    assert message in found.message
    assert unblock in found.unblock
    if isinstance(command, str):
        assert found.command == command
    else:
        words = shlex.split(found.command)
        assert words[:2] == ["kubectl", "patch"]
        assert json.loads(words[-1]) == {"spec": command}


def test_a_queue_that_is_not_there_is_not_made_up() -> None:
    """Which pools are to serve it only its owner knows; the name may be mistyped."""
    core = Core()
    core.handle(PoolApplied(make_pool().build()), 0.0)
    core.handle(QueueApplied(make_queue("nine").build()), 0.0)
    core.handle(waits(queue="none"), 0.0)
    found = core.explain("t", 0.0)
    assert found is not None
    assert found.reason is Reason.QUEUE_NOT_FOUND
    assert found.message == "TaskQueue none does not exist in namespace ns; there are: nine."
    assert found.command == ""


def test_agents_held_for_a_large_task_are_named_with_it() -> None:
    """Two Tasks of two slots each run; a large one gets the agent held, and a small long one has to wait."""
    core = Core()
    queue = rules(hold_after=10.0, expected_service=100.0)
    for event in (
        PoolApplied(make_pool().slots(4).fixed(1).build()),
        QueueApplied(queue),
        AgentReady(make_agent("a").slots(4).build()),
        waits(OTHER, uid="one", name="one", slots=2),
        waits(OTHER, uid="two", name="two", slots=1),
    ):
        core.handle(event, 0.0)
    core.decide(0.0)
    core.handle(waits(uid="big", name="big", slots=4), 0.0)
    core.decide(0.0)
    core.decide(20.0)
    core.handle(waits(created=20.0), 20.0)
    assert not [each for each in core.decide(20.0) if isinstance(each, Assign)]
    big, small = core.explain("big", 20.0), core.explain("t", 20.0)
    assert big is not None
    assert small is not None
    assert "Agent a is held for it: it needs 4 slots at once, and 1 of 4 slots are free there." in big.message
    assert small.reason is Reason.AGENT_HELD
    assert "held for Tasks that need much room at once: a for big." in small.message
    assert core.waiting_by_reason(20.0) == {(QUEUE.key, big.reason): 1, (QUEUE.key, Reason.AGENT_HELD): 1}


def test_agents_are_counted_by_what_refuses_them() -> None:
    found = explained(
        QUEUE,
        [
            AgentReady(make_agent("b").types(["x"]).build()),
            AgentReady(make_agent("c").types(["x"]).build()),
            AgentReady(make_agent("d").skills("gpu").build()),
            waits(skills=frozenset(["gpu"]), slots=2),
        ],
    )
    assert found.rejections == (("without a handler", 2), ("without the skills", 1), ("too small", 1))


def test_a_rate_puts_the_expected_start_off() -> None:
    core = Core()
    for event in (
        PoolApplied(make_pool().slots(4).fixed(1).build()),
        QueueApplied(rules(rate=TokenRate(0.01))),
        AgentReady(make_agent("a").slots(4).build()),
    ):
        core.handle(event, 0.0)
    core.learn(OTHER, 2.0)
    core.learn(OTHER, 3.0)
    core.handle(waits(OTHER), 0.0)
    core.decide(0.0)
    core.handle(waits(), 1.0)
    core.decide(1.0)
    found = core.explain("t", 1.0)
    assert found is not None
    assert (found.reason, found.position) == (Reason.RATE_LIMITED, 1)
    assert found.start == pytest.approx(100.0)


@pytest.mark.parametrize(
    ("queue", "fields", "starts"),
    [
        pytest.param({"rate": TokenRate(0.5)}, {}, [2.0, 4.0, 6.0, 8.0], id="of-the-queue"),
        # Two of each tenant.
        pytest.param({"tenant_rate": TokenRate(0.5)}, {}, [2.0, 2.0, 4.0, 4.0], id="of-each-tenant"),
        pytest.param(
            {"budgets": (Budget("b", rate=TokenRate(5.0, 10)),)},
            {"budgets": (("q", "b", 10),)},
            [2.0, 4.0, 6.0, 8.0],
            id="of-a-budget",
        ),
    ],
)
def test_who_waits_for_a_rate_is_expected_when_there_was_enough_for_all_before_it(
    queue: dict[str, Any], fields: dict[str, Any], starts: list[float]
) -> None:
    core = Core()
    for event in (
        PoolApplied(make_pool().slots(9).fixed(1).build()),
        QueueApplied(rules(aging_step=0.0, **queue)),
        AgentReady(make_agent("a").slots(9).build()),
    ):
        core.handle(event, 0.0)
    for seconds in (0.1, 0.2):
        core.learn(OTHER, seconds)
    # The first of each tenant take what is there at first.
    tasks = [
        replace(make_task(f"t{n}").created(n / 1000).build(), tenant="xy"[n % 2], **fields)
        for n in range(6 if "tenant_rate" in queue else 5)
    ]
    for task in tasks:
        core.handle(TaskWaiting(task), 0.0)
    core.decide(0.0)
    found = [core.explain(task.uid, 0.0) for task in tasks[-4:]]
    assert [each.start for each in found if each is not None] == [pytest.approx(start, abs=0.01) for start in starts]


def test_what_comes_above_takes_of_a_rate_first() -> None:
    """Every other token goes to the level above."""
    core = Core()
    for event in (
        PoolApplied(make_pool().slots(99).fixed(1).build()),
        QueueApplied(rules(aging_step=0.0, rate=TokenRate(2.0, 1))),
        AgentReady(make_agent("a").slots(99).build()),
    ):
        core.handle(event, 0.0)
    core.learn(OTHER, 0.1)
    core.learn(OTHER, 0.2)
    for second in range(600):
        core.handle(TaskWaiting(make_task(f"h{second}").priority(3).created(float(second)).build()), float(second))
        core.decide(float(second))
        core.handle(TaskGone(f"h{second}", Phase.SUCCEEDED), float(second))
    for number in range(11):
        core.handle(TaskWaiting(make_task(f"t{number:02d}").priority(1).created(599.0).build()), 599.0)
    core.decide(599.0)
    found = core.explain("t10", 599.0)
    assert found is not None
    assert found.reason is Reason.RATE_LIMITED
    assert found.start is not None
    assert found.start - 599.0 == pytest.approx(11.0, rel=0.15)


TASKS = st.fixed_dictionaries(
    {
        "priority": st.integers(0, 5),
        "tenant": st.sampled_from("xy"),
        "slots": st.sampled_from((1, 1, 3)),
        "suspended": st.sampled_from((False, False, True)),
        "not_before": st.sampled_from((0.0, 0.0, 50.0)),
        "concurrency_key": st.sampled_from((None, None, "k")),
        "ordering_key": st.sampled_from((None, None, "o")),
        "skills": st.sampled_from((frozenset[str](), frozenset[str](), frozenset(["gpu"]))),
        "parents": st.sampled_from(((), (), (Parent("none"),))),
    }
)


@given(st.lists(TASKS, max_size=25), st.sampled_from((None, 3)), st.sampled_from((None, TokenRate(0.1, 2))))
def test_reasons_are_counted_as_they_are_told(
    fields: list[dict[str, Any]], leased: int | None, rate: TokenRate | None
) -> None:
    core = Core()
    queue = rules(emergency=frozenset("x"), tenant_quota=Quota(leased=leased), rate=rate)
    for event in (
        PoolApplied(make_pool().slots(4).fixed(1).build()),
        QueueApplied(queue),
        AgentReady(make_agent("a").slots(4).build()),
    ):
        core.handle(event, 0.0)
    for number, each in enumerate(fields):
        core.handle(waits(uid=f"t{number:02}", name=f"t{number}", **each), 0.0)
    core.decide(0.0)
    told = [core.why(f"t{number:02}", 0.0) for number in range(len(fields))]
    assert core.waiting_by_reason(0.0) == Counter((QUEUE.key, each.reason) for each in told if each is not None)
    for number, why in enumerate(told):
        if why is not None:
            full = core.explain(f"t{number:02}", 0.0)
            assert full is not None
            assert (full.reason, full.message) == (why.reason, why.message)
            # Who goes before it only the full answer knows, and so whether a higher priority helps.
            assert full.unblock == why.unblock or ("priority" in full.unblock and (full.position or 0) > 1)
            assert why.message.endswith(".")
            assert why.unblock.endswith(".")


@pytest.mark.parametrize(
    ("seconds", "words"),
    [
        (0.0, "0 s"),
        (0.25, "0.2 s"),
        (9.0, "9 s"),
        (9.96, "10 s"),
        (59.6, "1 min"),
        (90.0, "1 min 30 s"),
        (3600.0, "1 h"),
        (5400.0, "1 h 30 min"),
        (100_000.0, "1 d 3 h"),
    ],
)
def test_lengths_of_time(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_status_says_when_in_times_that_stay_true() -> None:
    found = Explanation(Reason.QUEUED, "Busy.", "Wait.", 12, True, 100.0, (60.0, 3700.0))
    assert text(found) == (
        "Busy. Wait. Position 12. Expected start 1970-01-01T00:01:40Z (80%: 1970-01-01T00:01:00Z to "
        "1970-01-01T01:01:40Z)."
    )
    assert text(replace(found, position=5000, position_exact=False, start=None)) == "Busy. Wait. Position about 5000."
    assert text(Explanation(Reason.QUEUED, "Busy.", "Wait.")) == "Busy. Wait."
    assert clock(0.0) == "1970-01-01T00:00:00Z"
