"""A pool whose template changes: its agents are replaced a few at a time, and no work lacks them meanwhile."""

from dataclasses import replace

import pytest

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from taskdist.core import Core
from taskdist.core.decisions import Assign, Decision, DeletePod, Drain
from taskdist.core.events import AgentDrained, AgentReady, PodGone, PodSeen, PoolApplied, QueueApplied, TaskGone
from taskdist.core.events import TaskWaiting as Waiting
from taskdist.core.model import Pool
from taskdist.core.scaling.sizing import at_once, surge

KEY = (NAMESPACE, "p")


@pytest.mark.parametrize(
    ("desired", "outdated", "leaving", "expected"),
    [
        pytest.param(0, 3, 0, 0, id="none-is-wanted"),
        pytest.param(1, 1, 0, 1, id="one-at-least"),
        pytest.param(4, 4, 0, 1, id="a-quarter"),
        pytest.param(8, 8, 0, 2, id="a-quarter-of-eight"),
        pytest.param(100, 3, 0, 3, id="no-more-than-are-outdated"),
        pytest.param(4, 3, 1, 0, id="one-that-finishes-its-work-is-being-replaced"),
        pytest.param(8, 8, 1, 1, id="the-rest-of-the-quarter"),
        pytest.param(4, 0, 0, 0, id="all-are-new"),
    ],
)
def test_surge(desired: int, outdated: int, leaving: int, expected: int) -> None:
    assert surge(desired, outdated, leaving) == expected


class World:
    """A pool, and a keeper that makes the pods that are wanted."""

    def __init__(self, pool: Pool) -> None:
        self.core = Core()
        self.pool = replace(pool, template="old")
        self.now = 0.0
        self.pods: dict[str, str] = {}  # name → template
        self.draining: set[str] = set()
        self.decisions: list[Decision] = []
        self.core.handle(QueueApplied(make_queue().build()), 0.0)
        self.apply("old")

    def apply(self, template: str) -> None:
        self.pool = replace(self.pool, template=template)
        self.core.handle(PoolApplied(self.pool), self.now)

    def decide(self) -> list[Decision]:
        decisions = self.core.decide(self.now)
        for decision in decisions:
            if isinstance(decision, Drain):
                self.draining.add(decision.agent_uid)
            elif isinstance(decision, DeletePod):
                del self.pods[decision.uid]
                self.draining.discard(decision.uid)
                self.core.handle(PodGone(decision.uid), self.now)
        self.decisions += decisions
        assert self.core.audit() == []
        return decisions

    def create(self) -> list[str]:
        """Make what is missing; the pods are not ready yet."""
        view = self.core.pool_view(KEY)
        missing = view.desired + view.surge - (len(self.pods) - len(self.draining))
        made = [f"{self.pool.template}-{len(self.decisions)}-{self.now:g}-{i}" for i in range(max(0, missing))]
        for name in made:
            self.pods[name] = self.pool.template
            self.core.handle(PodSeen(name, NAMESPACE, name, "p", self.now, self.pool.template), self.now)
        return made

    def ready(self, *names: str) -> None:
        for name in names:
            self.core.handle(AgentReady(make_agent(name).slots(self.pool.slots).build()), self.now)

    def drained(self, *names: str) -> None:
        for name in names or tuple(self.draining):
            self.core.handle(AgentDrained(name), self.now)

    def settle(self) -> None:
        """Let time pass until nothing changes."""
        for _ in range(100):
            self.now += 1.0
            before = dict(self.pods)
            self.decide()
            self.drained()
            self.decide()
            self.ready(*self.create())
            if self.pods == before:
                return
        raise AssertionError("it never settles")


def fixed(replicas: int) -> World:
    world = World(make_pool().fixed(replicas).build())
    world.settle()
    assert list(world.pods.values()) == ["old"] * replicas
    return world


def busy(world: World, tasks: int) -> dict[str, str]:
    """Have so many Tasks run; by Task, the agent."""
    for i in range(tasks):
        world.core.handle(Waiting(make_task(f"t{i}").build()), world.now)
    return {d.task_uid: d.agent_uid for d in world.decide() if isinstance(d, Assign)}


@pytest.mark.parametrize("replicas", [1, 3, 8])
def test_every_agent_is_replaced_and_never_are_fewer_ready_than_wanted(replicas: int) -> None:
    world = fixed(replicas)
    world.apply("new")
    world.decide()
    for _ in range(100):
        made = world.create()
        assert len(made) <= at_once(replicas)
        assert len(world.pods) <= replicas + at_once(replicas)
        world.now += 1.0
        assert not [d for d in world.decide() if isinstance(d, Drain | DeletePod)], "none goes before its successor"
        world.ready(*made)
        world.decide()
        assert world.core.pool_view(KEY).ready - len(world.draining) >= replicas
        world.drained()
        world.decide()
        if set(world.pods.values()) == {"new"}:
            break
    assert list(world.pods.values()) == ["new"] * replicas
    assert world.core.pool_view(KEY).surge == 0


def test_a_template_whose_agents_never_come_up_costs_no_agent() -> None:
    world = fixed(4)
    world.apply("broken")
    for _ in range(10):
        world.now += 100.0
        world.decide()
        world.create()
    assert sorted(world.pods.values()) == ["broken", "old", "old", "old", "old"]


def test_a_template_that_is_taken_back_takes_the_replacement_away() -> None:
    world = fixed(4)
    old = set(world.pods)
    world.apply("broken")
    world.decide()
    world.create()
    world.apply("old")
    world.settle()
    assert set(world.pods) == old


def test_idle_agents_go_first_and_busy_ones_once_they_are_free() -> None:
    world = fixed(2)
    task, agent = next(iter(busy(world, 1).items()))
    world.apply("new")
    world.settle()
    assert agent in world.pods
    assert len(world.pods) == 3, "a busy one finishes beside its successor"
    assert agent in world.draining
    world.core.handle(TaskGone(task), world.now)
    world.settle()
    assert list(world.pods.values()) == ["new", "new"]


def test_busy_agents_of_an_elastic_pool_are_replaced_one_after_the_other() -> None:
    world = World(make_pool().elastic(0, 4).build())
    running = busy(world, 4)
    world.settle()
    running = busy(world, 0) | {d.task_uid: d.agent_uid for d in world.decisions if isinstance(d, Assign)}
    assert len(running) == 4
    world.apply("new")
    world.settle()
    assert len(world.draining) == 1
    assert sorted(world.pods.values()) == ["new", "old", "old", "old", "old"]
    for task in running:
        world.core.handle(TaskGone(task), world.now)
        world.settle()
    assert "old" not in world.pods.values()


def test_a_pool_that_shrinks_lets_outdated_agents_go_first() -> None:
    world = fixed(3)
    world.apply("new")
    world.decide()
    made = world.create()
    world.ready(*made)
    world.pool = replace(world.pool, minimum=1, maximum=1)
    world.apply("new")
    world.settle()
    assert list(world.pods) == made


def test_pods_of_an_unknown_template_are_left_alone() -> None:
    world = World(make_pool().fixed(1).build())
    world.core.handle(PodSeen("a", NAMESPACE, "a", "p", 0.0), 0.0)
    world.pods["a"] = ""
    world.apply("new")
    world.settle()
    assert list(world.pods) == ["a"]
