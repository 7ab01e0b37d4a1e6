"""Pools whose pods do not come up: not grown for it, grown on once they do, and told with the cause."""

from collections.abc import Iterable

import pytest

from builders import NAMESPACE, PoolBuilder, make_agent, make_pool, make_queue, make_task
from taskdist.api import Reason
from taskdist.core import Core
from taskdist.core.agents.roster import AgentRecord
from taskdist.core.decisions import Decision, Scale
from taskdist.core.events import AgentNotReady, AgentReady, PodGone, PodSeen, PoolApplied, QueueApplied, TaskWaiting
from taskdist.core.fleet.failing import allowed, command, told_of, words
from taskdist.core.model import Trouble
from taskdist.core.views import FailingPods

P = (NAMESPACE, "p")
CRASH = Trouble("CrashLoopBackOff", "container agent ends again and again, last with exit code 3", "agent")
NO_NODE = Trouble("Unschedulable", "0/3 nodes are available")


class World:
    """A core with one queue over the pools p and p2."""

    def __init__(self, pool: PoolBuilder | None = None, *more: PoolBuilder) -> None:
        self.core = Core()
        self.core.handle(QueueApplied(make_queue().pools("p", "p2").build()), 0.0)
        for each in (pool or make_pool().elastic(0, 20), *more):
            self.core.handle(PoolApplied(each.build()), 0.0)
        self.tasks = 0

    def submit(self, number: int) -> dict[str, int]:
        """So many Tasks come; returns the sizes that are decided on that."""
        for _ in range(number):
            self.tasks += 1
            self.core.handle(TaskWaiting(make_task(f"t{self.tasks}").build()), 0.0)
        return self.sizes()

    def sizes(self) -> dict[str, int]:
        decided: list[Decision] = self.core.decide(0.0)
        return {each.pool[1]: each.replicas for each in decided if isinstance(each, Scale)}

    def pods(self, names: Iterable[str], trouble: Trouble | None = CRASH, template: str = "") -> None:
        for name in names:
            self.core.handle(PodSeen(name, NAMESPACE, name, "p", 0.0, template, trouble), 0.0)

    def ready(self, *names: str) -> None:
        for name in names:
            self.core.handle(AgentReady(make_agent(name).build()), 0.0)


def test_a_pool_of_which_nothing_comes_up_is_not_grown_for_more_work() -> None:
    world = World()
    assert world.submit(4) == {"p": 4}
    world.pods("abcd")
    assert world.submit(6) == {}
    view = world.core.pool_view(P)
    assert (view.desired, view.reason) == (4, Reason.PODS_FAILING)
    assert view.message == "Work for 10 agents, but pods of the pool do not come up: it is not grown before they do."
    assert view.failing == FailingPods(4, "a", CRASH)


def test_it_grows_on_once_they_come_up() -> None:
    world = World()
    world.submit(4)
    world.pods("abcd")
    world.submit(6)
    world.pods("abcd", None)
    assert world.sizes() == {"p": 10}
    assert world.core.pool_view(P).failing is None


def test_the_first_that_are_ready_let_it_grow_to_twice_as_many() -> None:
    world = World()
    world.submit(3)
    world.pods("abc")
    world.ready("a", "b")
    assert world.submit(9) == {"p": 4}


def test_pods_that_replace_outdated_ones_do_not_make_it_grow() -> None:
    world = World(make_pool().elastic(0, 20).made_from("old"))
    world.submit(1)
    world.pods("a", template="old")
    world.submit(9)
    world.core.handle(PoolApplied(make_pool().elastic(0, 20).made_from("new").build()), 0.0)
    for name in "bcd":
        assert world.sizes() == {}
        world.pods(name, None, "new")
    assert world.core.pool_view(P).desired == 1


def test_an_agent_that_was_ready_and_is_not_any_more_fails_again() -> None:
    world = World()
    world.submit(1)
    world.pods("a")
    world.ready("a")
    assert world.core.pool_view(P).failing is None
    world.core.handle(AgentNotReady("a"), 0.0)
    assert world.core.pool_view(P).failing == FailingPods(1, "a", CRASH)
    world.core.handle(PodGone("a"), 0.0)
    assert world.core.pool_view(P).failing is None


def test_what_is_over_goes_to_another_pool_that_may_take_it() -> None:
    world = World(make_pool().elastic(0, 20).costs(1), make_pool("p2").elastic(0, 20).costs(2))
    assert world.submit(2) == {"p": 2, "p2": 0}
    world.pods("ab", NO_NODE)
    assert world.submit(3) == {"p2": 3}


def test_a_fixed_size_is_the_users_word() -> None:
    world = World(make_pool().fixed(3))
    world.sizes()
    world.pods("abc")
    world.core.handle(PoolApplied(make_pool().fixed(5).build()), 0.0)
    assert world.sizes() == {"p": 5}


@pytest.mark.parametrize(
    ("desired", "ready", "failing", "expected"),
    [
        pytest.param(4, 0, 0, 9, id="none fails"),
        pytest.param(4, 0, 4, 4, id="all fail"),
        pytest.param(4, 3, 1, 6, id="most are ready: as many more may be tried"),
        pytest.param(4, 2, 2, 4, id="as many fail as are ready"),
        pytest.param(4, 1, 1, 4, id="what was wanted stays wanted"),
        pytest.param(8, 7, 1, 9, id="never beyond the maximum"),
        pytest.param(0, 0, 1, 2, id="never below the minimum"),
    ],
)
def test_how_far_a_pool_may_grow(desired: int, ready: int, failing: int, expected: int) -> None:
    assert allowed(make_pool().elastic(2, 9).build(), desired, ready, failing) == expected


@pytest.mark.parametrize(
    ("troubles", "said", "helps"),
    [
        pytest.param(
            {"p-1-0": CRASH},
            "p-1-0 fails: CrashLoopBackOff, container agent ends again and again, last with exit code 3.",
            "kubectl logs p-1-0 -n ns --previous -c agent",
            id="one that crashes",
        ),
        pytest.param(
            {"p-1-0": CRASH, "p-1-1": NO_NODE, "p-1-2": NO_NODE},
            "3 pods do not come up, such as p-1-1: Unschedulable, 0/3 nodes are available.",
            "kubectl describe pod p-1-1 -n ns",
            id="the most common cause",
        ),
    ],
)
def test_what_is_said_of_them(troubles: dict[str, Trouble], said: str, helps: str) -> None:
    agents = []
    for name, trouble in troubles.items():
        agent = AgentRecord(name, 0.0)
        agent.name, agent.trouble = name, trouble
        agents.append(agent)
    found = told_of(agents)
    assert found is not None
    assert words(found) == said
    assert command(P, found) == helps


def test_a_pod_of_the_name_of_one_that_goes_is_told_of_as_well() -> None:
    agents = []
    for uid in ("former", "present"):
        agent = AgentRecord(uid, 0.0)
        agent.name, agent.trouble = "p-1-0", CRASH
        agents.append(agent)
    assert told_of(agents) == FailingPods(2, "p-1-0", CRASH)
