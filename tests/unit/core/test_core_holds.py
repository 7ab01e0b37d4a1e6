"""Agents held for large Tasks, when what they wait for changes; and books that agree while limits hold Tasks."""

from dataclasses import replace

import pytest

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, Event, PoolApplied, QueueApplied, TaskGone, TaskWaiting
from taskdist.core.model import Quota

LARGE = replace(make_queue("large").build(), hold_after=1.0)
OFFER = make_agent("a").slots(2).build()


def held() -> Core:
    """An agent of two slots, one of them busy, is held for a Task that takes both."""
    core = Core()
    for event in (
        QueueApplied(LARGE),
        QueueApplied(make_queue().build()),
        PoolApplied(make_pool().slots(2).build()),
        AgentReady(OFFER),
        TaskWaiting(make_task("busy").build()),
    ):
        core.handle(event, 0.0)
    assert assigned(core, 0.0) == ["busy"]
    core.handle(TaskWaiting(make_task("two").queue("large").slots(2).build()), 0.0)
    assert assigned(core, 2.0) == []
    assert core._fleet.agents["a"].reserved
    return core


def assigned(core: Core, now: float) -> list[str]:
    return [each.task_uid for each in core.decide(now) if isinstance(each, Assign)]


@pytest.mark.parametrize(
    ("change", "started"),
    [
        pytest.param([], ["two"], id="nothing"),
        pytest.param([QueueApplied(replace(LARGE, paused=True))], [], id="its-queue-is-paused"),
        pytest.param([QueueApplied(replace(LARGE, pools=()))], [], id="its-queue-has-no-pool"),
        pytest.param(
            [AgentReady(replace(OFFER, types=frozenset({"other"})))], [], id="the-agent-takes-its-type-no-more"
        ),
    ],
)
def test_a_hold_is_worth_what_its_task_may_do_now(change: list[Event], started: list[str]) -> None:
    core = held()
    for event in (*change, TaskGone("busy", Phase.SUCCEEDED)):
        core.handle(event, 3.0)
    assert assigned(core, 3.0) == started
    assert core._fleet.agents["a"].reserved is (not started and not change)
    assert core.audit() == []


def test_what_a_limit_parks_is_no_fault_of_the_books() -> None:
    core = Core()
    for event in (
        QueueApplied(replace(make_queue().build(), quota=Quota(leased=0))),
        PoolApplied(make_pool().build()),
        AgentReady(make_agent("a").build()),
        TaskWaiting(make_task("t").build()),
    ):
        core.handle(event, 0.0)
    assert assigned(core, 0.0) == []
    assert core.audit() == []


def test_one_that_comes_back_waits_anew_for_a_hold() -> None:
    core = held()
    three = make_task("three").queue("large").slots(2).priority(4).build()
    two = make_task("two").queue("large").slots(2).build()
    core.handle(TaskWaiting(three), 2.0)
    assert assigned(core, 3.0) == []
    core.handle(TaskGone("busy", Phase.SUCCEEDED), 3.0)
    # The agent is held for the other at once.
    assert assigned(core, 3.0) == ["two"]
    core.handle(TaskWaiting(two), 4.0)
    assert assigned(core, 4.0) == ["three"]
    assert not core._fleet.agents["a"].reserved
    assert assigned(core, 5.5) == []
    assert core._fleet.agents["a"].reserved


def test_who_waits_already_gets_an_agent_held_once_the_queue_says_so() -> None:
    core = Core()
    for event in (
        QueueApplied(replace(LARGE, hold_after=0.0)),
        QueueApplied(make_queue().build()),
        PoolApplied(make_pool().slots(2).build()),
        AgentReady(OFFER),
        TaskWaiting(make_task("busy").build()),
    ):
        core.handle(event, 0.0)
    assert assigned(core, 0.0) == ["busy"]
    core.handle(TaskWaiting(make_task("two").queue("large").slots(2).build()), 0.0)
    assert assigned(core, 50.0) == []
    assert not core._fleet.agents["a"].reserved
    core.handle(QueueApplied(LARGE), 50.0)
    assert assigned(core, 50.0) == []
    assert assigned(core, 51.0) == []
    assert core._fleet.agents["a"].reserved


def test_one_that_starts_elsewhere_is_not_started_again_where_room_was_held_for_it() -> None:
    core = held()
    core.handle(AgentReady(replace(OFFER, uid="b", name="b")), 3.0)
    core.handle(TaskGone("busy", Phase.SUCCEEDED), 3.0)
    assert assigned(core, 3.0) == ["two"]
    assert core.audit() == []
