"""Large Tasks: an agent is held for the first of them; others go there only if they are gone before."""

from dataclasses import replace
from typing import Any

import pytest

from builders import make_agent, make_pool, make_queue, make_task
from taskdist.api import Phase, Reason, Strategy
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import (
    AgentNotReady,
    AgentReady,
    Event,
    PodGone,
    PoolApplied,
    QueueApplied,
    TaskGone,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import Queue, Quota, Route, RouteStep, Task, TokenRate

PLENTY = 20.0


def task(uid: str, **fields: Any) -> Task:
    return replace(make_task(uid).build(), **fields)


def queue(name: str = "q", **fields: Any) -> Queue:
    rules = {"hold_after": 10.0, "expected_service": PLENTY, "aging_step": 0.0}
    return replace(make_queue(name).build(), **{**rules, **fields})


class World:
    """Agents `a` and `b` of two slots, each with one Task on it, `on-a` since 0 and `on-b` since 5.

    `big`, of queue `large`, wants two slots since 0.
    """

    def __init__(self, large: Queue | None = None, **big: Any) -> None:
        self.core = Core()
        self.large = large or queue("large")
        self.told(QueueApplied(queue()), QueueApplied(self.large), PoolApplied(make_pool().slots(2).fixed(2).build()))
        self.told(AgentReady(make_agent("a").slots(2).build()), task("on-a"))
        assert self.starts() == ["on-a"]
        self.told(AgentNotReady("a"), AgentReady(make_agent("b").slots(2).build()), task("on-b"), now=5.0)
        assert self.starts(5.0) == ["on-b"]
        self.told(AgentReady(make_agent("a").slots(2).build()), task("big", queue="large", slots=2, **big), now=5.0)
        assert self.starts(5.0) == []

    def told(self, *events: Event | Task, now: float = 0.0) -> None:
        for event in events:
            self.core.handle(TaskWaiting(event) if isinstance(event, Task) else event, now)

    def starts(self, now: float = 0.0, limit: int | None = None) -> list[str]:
        found = [each.task_uid for each in self.core.decide(now, limit) if isinstance(each, Assign)]
        assert self.core.audit() == []
        return found

    def held(self) -> dict[str, str]:
        return {reservation.agent.uid: reservation.record.task.uid for reservation in self.core._reservations}


def test_after_its_time_it_gets_the_agent_on_which_it_fits_first() -> None:
    world = World()
    assert world.core.next_wake() == 15.0
    assert world.held() == {}
    assert world.starts(15.0) == []
    assert world.held() == {"a": "big"}
    found = world.core.why("big", 15.0)
    assert found is not None
    assert found.reason in (Reason.NO_FREE_SLOTS, Reason.QUEUED)
    world.told(TaskGone("on-a", Phase.SUCCEEDED), now=16.0)
    assert world.starts(16.0) == ["big"]
    assert world.held() == {}


def test_it_is_told_the_strategy_of_the_step_that_has_the_agent_it_gets() -> None:
    """Nobody competes for an agent that is held, and another step may be the first that has room."""
    steps = (RouteStep(("p",), strategy=Strategy.PACK), RouteStep(("spare",)))
    world = World(queue("large", routes=(Route("way", steps),)))
    world.told(PoolApplied(make_pool("spare").slots(2).fixed(1).build()), now=6.0)
    world.told(AgentReady(make_agent("s").pool("spare").slots(2).build()), now=6.0)
    world.told(TaskLeased(task("on-s", slots=2), "s"), now=6.0)
    assert world.starts(15.0) == []
    assert "a" in world.held()
    world.told(TaskGone("on-a", Phase.SUCCEEDED), now=16.0)
    (found,) = world.core.decide(16.0)
    assert isinstance(found, Assign)
    assert (found.task_uid, found.agent_uid, found.step) == ("big", "a", 1)
    assert (found.strategy, found.score) == (Strategy.PACK, 0.0)


def test_not_if_its_queue_never_holds() -> None:
    world = World(queue("large", hold_after=0.0))
    assert world.core.next_wake() is None
    world.starts(1000.0)
    assert world.held() == {}


def test_not_for_small_ones() -> None:
    world = World()
    world.told(*(task(f"t{n}", created=5.0) for n in range(3)), now=5.0)
    world.starts(5.0)
    world.starts(1000.0)
    assert set(world.held().values()) <= {"big"}


def test_only_the_first_in_order_has_one_in_a_pool() -> None:
    world = World(priority=3)
    world.told(
        task("older", queue="large", slots=2),
        task("higher", queue="large", slots=2, priority=4),
        now=5.0,
    )
    world.starts(15.0)
    assert world.held() == {"a": "higher"}
    world.told(TaskGone("on-a", Phase.SUCCEEDED), now=16.0)
    assert world.starts(16.0) == ["higher"]
    assert world.held() == {"b": "big"}


@pytest.mark.parametrize(
    ("seconds", "started"),
    [
        pytest.param(4.0, ["t"], id="ends-before"),
        pytest.param(5.0, ["t"], id="ends-just-then"),
        pytest.param(6.0, [], id="ends-later"),
    ],
)
def test_others_go_there_only_if_they_are_expected_to_end_before(seconds: float, started: list[str]) -> None:
    # From 15 on `a` is held until 20, when the Task on it is expected to end; `b` is full.
    world = World()
    world.told(task("fills", created=5.0, priority=4), AgentNotReady("a"), now=5.0)
    assert world.starts(5.0) == ["fills"]
    world.told(AgentReady(make_agent("a").slots(2).build()), now=5.0)
    assert world.starts(15.0) == []
    assert world.held() == {"a": "big"}
    world.told(QueueApplied(queue("other", expected_service=seconds)), task("t", queue="other", priority=4), now=15.0)
    assert world.starts(15.0) == started
    found = world.core.why("t", 15.0)
    assert (found is None) is bool(started)
    assert found is None or found.reason is Reason.AGENT_HELD


@pytest.mark.parametrize(
    "change",
    [
        pytest.param([TaskGone("big", None)], id="it-is-deleted"),
        pytest.param([task("big", queue="large", slots=2, suspended=True)], id="it-is-suspended"),
        pytest.param([QueueApplied(queue("large", paused=True))], id="its-queue-is-paused"),
        pytest.param([QueueApplied(queue("large", pools=()))], id="its-queue-goes-elsewhere"),
        pytest.param([QueueApplied(queue("large", quota=Quota(slots=1)))], id="its-quota-forbids-it"),
        pytest.param([QueueApplied(queue("large", tenant_quota=Quota(leased=0)))], id="its-tenants-quota-is-full"),
        pytest.param([AgentNotReady("a")], id="the-agent-is-silent"),
        pytest.param([PodGone("a")], id="the-agent-is-gone"),
    ],
)
def test_it_is_let_go_if_it_serves_nothing_and_goes_to_others_at_once(change: list[Event | Task]) -> None:
    world = World()
    world.told(task("t0", created=5.0, priority=4), now=5.0)
    world.starts(5.0)
    world.starts(15.0)
    assert world.held() == {"a": "big"}
    world.told(task("t", created=15.0), now=15.0)
    world.starts(15.0)
    world.told(*change, now=16.0)
    world.starts(16.0)
    assert world.held().get("a") != "big"
    if not isinstance(change[0], AgentNotReady | PodGone):
        assert world.core.why("t", 16.0) is None


def test_an_older_one_of_its_ordering_key_goes_first_even_on_an_agent_that_is_held_for_it() -> None:
    world = World(ordering_key="o", created=4.0)
    world.starts(15.0)
    assert "big" in world.held().values()
    world.told(task("older", queue="large", slots=9, ordering_key="o", created=1.0), now=16.0)
    world.told(TaskGone("on-a"), TaskGone("on-b"), now=16.0)
    assert world.starts(16.0) == []
    assert world.held() == {}


def test_it_is_held_on_while_a_token_is_awaited() -> None:
    """Tokens come by themselves; let go, the agent would never be free at the moment one is there."""
    rate = TokenRate(0.1, 1)
    world = World(queue("large", rate=rate))
    world.told(task("first", queue="large", created=5.0, priority=4), now=5.0)
    assert world.starts(5.0) == ["first"]
    world.starts(15.0)
    assert "big" in world.held().values()


def test_what_is_left_of_an_agent_goes_to_others_at_once() -> None:
    world = World()
    world.told(AgentNotReady("b"), AgentReady(make_agent("a").slots(3).build()), TaskGone("on-a"), now=6.0)
    world.told(task("x", created=6.0, priority=4), task("y", created=6.0, priority=4), now=6.0)
    assert world.starts(6.0) == ["x", "y"]
    assert world.starts(15.0) == []
    assert world.held() == {"a": "big"}
    world.told(task("t", created=15.0), now=15.0)
    assert world.starts(15.0) == []
    world.told(TaskGone("x"), now=16.0)
    assert world.starts(16.0) == ["big"]
    world.told(TaskGone("y"), now=17.0)
    assert world.starts(17.0) == ["t"]


def test_decisions_about_held_agents_are_cut_short_too() -> None:
    world = World()
    world.starts(15.0)
    world.told(TaskGone("on-a"), now=16.0)
    assert world.starts(16.0, 0) == []
    assert world.core.next_wake() == 16.0
    assert world.starts(16.0, 1) == ["big"]
