"""The parts that make the index fast say the same as plain ones."""

from hypothesis import given
from hypothesis import strategies as st

from builders import NAMESPACE, make_agent, make_pool, make_queue, make_task
from taskdist.core import Core
from taskdist.core.decisions import Assign
from taskdist.core.events import AgentReady, PodGone, PoolApplied, QueueApplied, TaskGone, TaskWaiting
from taskdist.core.primitives.bitsets import OrTree, bits


@given(st.sets(st.integers(0, 200)))
def test_bits_are_the_members_ascending(members: set[int]) -> None:
    assert list(bits(sum(1 << member for member in members))) == sorted(members)


@given(st.lists(st.tuples(st.integers(0, 40), st.integers(0, 2**70 - 1))), st.integers(0, 2**70 - 1))
def test_the_tree_is_its_leaves(writes: list[tuple[int, int]], wanted: int) -> None:
    tree, plain = OrTree(), dict[int, int]()
    for leaf, mask in writes:
        tree[leaf] = mask
        plain[leaf] = mask
    union = 0
    for mask in plain.values():
        union |= mask
    assert tree.union == union
    assert tree.first(wanted) == min((leaf for leaf, mask in plain.items() if mask & wanted), default=None)
    assert all(tree[leaf] == plain.get(leaf, 0) for leaf in range(64))


def test_what_no_task_needs_any_more_is_forgotten() -> None:
    core = Core()
    core.handle(QueueApplied(make_queue().build()), 0.0)
    core.handle(PoolApplied(make_pool().slots(2).resources(mem=9).build()), 0.0)
    core.handle(AgentReady(make_agent("a").slots(2).resources(mem=9).build()), 0.0)
    for number in range(5000):
        uid = f"t{number}"
        task = make_task(uid).type(f"type{number}").resources(mem=1 + number % 9).slots(1 + number % 2)
        core.handle(TaskWaiting(task.build()), 0.0)
        assert len(core.decide(0.0)) <= 2
        core.handle(TaskGone(uid), 0.0)
    assert len(core._catalogue.shapes) <= 2048
    assert core.audit() == []


def test_agents_that_are_gone_are_forgotten_with_their_kind() -> None:
    core = Core()
    core.handle(PoolApplied(make_pool().resources(mem=10**6).build()), 0.0)
    for number in range(2000):
        agent = make_agent(f"a{number}").resources(mem=number + 1)
        core.handle(AgentReady(agent.build()), 0.0)
        core.handle(PodGone(f"a{number}"), 0.0)
    assert len(core._catalogue.classes) <= 512
    assert not core._fleet.agents
    assert core.audit() == []


def test_one_kind_for_agents_that_only_labels_nobody_asks_for_tell_apart() -> None:
    core = Core()
    core.handle(QueueApplied(make_queue().build()), 0.0)
    core.handle(PoolApplied(make_pool().fixed(50).build()), 0.0)
    for number in range(50):
        core.handle(AgentReady(make_agent(f"a{number}").labels(pod=str(number), zone="ab"[number % 2]).build()), 0.0)
    assert len(core._catalogue.kinds((NAMESPACE, "p"))) == 1
    core.handle(TaskWaiting(make_task("t").selector("zone", "In", "b").build()), 0.0)
    assert len(core._catalogue.kinds((NAMESPACE, "p"))) == 2
    assert core.audit() == []
    assert [decision.agent_uid for decision in core.decide(0.0) if isinstance(decision, Assign)] == ["a1"]
