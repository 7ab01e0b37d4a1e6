"""The position is the place in which the core would hand Tasks out if there was room for all of them at once."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.api import OrderPolicy
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentNotReady, AgentReady, PoolApplied, QueueApplied, TaskLeased, TaskWaiting
from taskdist.core.forecasting.position import EXACT
from taskdist.core.model import EMERGENCY, Budget, Queue, Task

NOW = 1000.0
QUEUES = (
    replace(make_queue("a").build(), weight=3, tenant_weights=(("x", 2), ("y", 1)), expected_service=4.0),
    replace(make_queue("b").build(), weight=1, tenant_weights=(("x", 4),), expected_service=8.0, aging_step=100.0),
    replace(make_queue("c").build(), policy=OrderPolicy.FIFO, level=2, expected_service=2.0),
    replace(make_queue("d").build(), policy=OrderPolicy.DEADLINE_FIRST, level=3),
)


def core_with(tasks: list[Task], queues: tuple[Queue, ...] = QUEUES) -> Core:
    core = Core()
    core.handle(PoolApplied(make_pool().slots(100).elastic(0, 9).build()), NOW)
    for queue in queues:
        core.handle(QueueApplied(queue), NOW)
    for task in tasks:
        core.handle(TaskWaiting(task), NOW)
    core.decide(NOW)
    return core


def handed_out(core: Core, slots: int = 100) -> list[str]:
    core.handle(AgentReady(make_agent("agent").slots(slots).build()), NOW)
    return [each.task_uid for each in core.decide(NOW) if isinstance(each, Assign)]


def positions(core: Core, tasks: list[Task]) -> dict[str, int | None]:
    found = {}
    for task in tasks:
        explanation = core.explain(task.uid, NOW)
        assert explanation is not None
        assert explanation.position_exact
        found[task.uid] = explanation.position
    return found


@st.composite
def waiting(draw: st.DrawFn) -> list[Task]:
    tasks = []
    for number in range(draw(st.integers(1, 40))):
        task = make_task(f"t{number:02d}").queue(draw(st.sampled_from("abcd"))).type(draw(st.sampled_from("mn")))
        task = task.priority(draw(st.integers(0, 4))).slots(draw(st.sampled_from((1, 1, 2))))
        task = task.created(float(draw(st.integers(900, 999))))
        deadline = draw(st.one_of(st.none(), st.integers(980, 1100)))
        tasks.append(
            replace(
                task.build(),
                tenant=draw(st.sampled_from("xyz")),
                deadline=None if deadline is None else float(deadline),
            )
        )
    return tasks


@settings(deadline=None)
@given(waiting())
def test_it_is_the_place_in_which_the_core_hands_out(tasks: list[Task]) -> None:
    core = core_with(tasks)
    found = positions(core, tasks)
    order = handed_out(core)
    assert len(order) == len(tasks)
    assert found == {uid: place for place, uid in enumerate(order, 1)}


@settings(deadline=None)
@given(waiting(), st.integers(0, 30))
def test_so_it_is_when_shares_were_charged_before(tasks: list[Task], served: int) -> None:
    """Some are served first, so that virtual times differ; by an agent that is large enough for all."""
    core = core_with(tasks)
    core.handle(AgentReady(make_agent("first").slots(max(2, served)).build()), NOW)
    started = {each.task_uid for each in core.decide(NOW) if isinstance(each, Assign)}
    left = [task for task in tasks if task.uid not in started]
    found = positions(core, left)
    assert found == {uid: place for place, uid in enumerate(handed_out(core), 1)}


@settings(deadline=None)
@given(waiting(), st.data())
def test_so_it_is_among_those_that_one_limit_holds(tasks: list[Task], data: st.DataObject) -> None:
    """All take of one budget, which another one holds; those that take nothing wait for room."""
    share = ("a", "b", 1)
    tasks = [replace(task, budgets=(share,)) for task in tasks]
    queues = tuple(replace(queue, budgets=(Budget("b", 1),) if queue.name == "a" else ()) for queue in QUEUES)
    core = core_with([], queues)
    core.handle(TaskLeased(replace(make_task("holder").queue("a").build(), budgets=(share,)), "far"), NOW)
    core.handle(AgentReady(make_agent("first").slots(data.draw(st.integers(2, 9))).build()), NOW)
    for task in tasks:
        core.handle(TaskWaiting(task), NOW)
    assert not any(isinstance(each, Assign) for each in core.decide(NOW))
    found = positions(core, tasks)
    core.handle(AgentNotReady("first"), NOW)
    core.handle(QueueApplied(replace(queues[0], budgets=(Budget("b", 1000),))), NOW)
    assert found == {uid: place for place, uid in enumerate(handed_out(core), 1)}


def test_an_emergency_goes_before_all() -> None:
    tasks = [make_task(f"t{n}").queue("a").priority(4).created(float(n)).build() for n in range(5)]
    late = make_task("late").queue("a").priority(EMERGENCY).created(999.0).build()
    core = core_with([*tasks, late], (replace(QUEUES[0], emergency=frozenset([late.tenant])),))
    assert positions(core, [late])["late"] == 1


@pytest.mark.parametrize("before", [EXACT - 1, EXACT, EXACT + 1])
def test_it_is_exact_up_to_a_bound(before: int) -> None:
    tasks = [make_task(f"t{n:05d}").queue("a").created(n / 100).build() for n in range(before + 1)]
    core = core_with(tasks)
    found = core.explain(tasks[-1].uid, NOW)
    assert found is not None
    assert found.position_exact is (before <= EXACT)
    assert found.position == pytest.approx(before + 1, rel=0.02)


def test_beyond_the_bound_it_is_near() -> None:
    """Three tenants of two queues, of unlike weights and costs."""
    tasks = [
        replace(
            make_task(f"t{n:05d}").queue("ab"[n % 2]).created(n / 100).slots(1 + n % 3).build(), tenant="xyz"[n % 3]
        )
        for n in range(9000)
    ]
    queues = tuple(replace(queue, aging_step=0.0) for queue in QUEUES)
    core = core_with(tasks, queues)
    asked = [tasks[n].uid for n in range(3000, 9000, 613)]
    found = {uid: core.explain(uid, NOW) for uid in asked}
    places = {uid: place for place, uid in enumerate(handed_out(core, 20_000), 1)}
    for uid, explanation in found.items():
        assert explanation is not None
        assert explanation.position is not None
        assert not explanation.position_exact or places[uid] <= EXACT + 1
        assert explanation.position == pytest.approx(places[uid], rel=0.05), uid
