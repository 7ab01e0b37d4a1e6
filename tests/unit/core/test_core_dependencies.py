"""Dependencies: gates and verdicts case by case, cycles by name, and levels and chains against brute force."""

from __future__ import annotations

import graphlib
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import OnDependencyFailure, Phase, Reason
from taskdist.core.model import EMERGENCY, NORMAL, TOP, Parent, Task
from taskdist.core.ordering.dependencies import LONGEST_CHAIN, Dependencies, Gate

FAIL, SKIP, RUN = OnDependencyFailure.FAIL, OnDependencyFailure.SKIP, OnDependencyFailure.RUN


def task(uid: str, *parents: str | Parent, on_failure: OnDependencyFailure = FAIL) -> Task:
    """A Task named as its uid; a parent given as text has that name and uid."""
    made = tuple(each if isinstance(each, Parent) else Parent(each, each) for each in parents)
    return Task(uid, "ns", uid, "q", "work", 0.0, parents=made, on_parent_failure=on_failure)


def build(*tasks: Task, level: int = NORMAL) -> Dependencies:
    made = Dependencies()
    for each in tasks:
        made.add(each, level)
    assert sound(made)
    return made


def sound(dependencies: Dependencies) -> bool:
    assert list(dependencies.findings()) == []
    return True


def reason(gate: Gate | None) -> Reason | None:
    return None if gate is None else gate.reason


# --- gates ---

PENDING, DONE, BAD = Parent("p", "p"), Parent("p", "p", Phase.SUCCEEDED), Parent("p", "p", Phase.FAILED)
CANCELLED, DEAD = Parent("p", "p", Phase.CANCELLED), Parent("p", "p", Phase.DEAD_LETTERED)
GONE, UNSEEN = Parent("p", "p", gone=True), Parent("p")


@pytest.mark.parametrize(
    ("parents", "policy", "expected", "phase"),
    [
        pytest.param([], FAIL, None, None, id="no parents"),
        pytest.param([DONE], FAIL, None, None, id="the parent succeeded"),
        pytest.param([PENDING], FAIL, Reason.DEPENDENCY, None, id="the parent has not ended"),
        pytest.param([UNSEEN], FAIL, Reason.DEPENDENCY_NOT_FOUND, None, id="no such Task"),
        pytest.param([BAD], FAIL, Reason.DEPENDENCY_FAILED, Phase.FAILED, id="failed: Fail"),
        pytest.param([CANCELLED], FAIL, Reason.DEPENDENCY_FAILED, Phase.FAILED, id="cancelled: Fail"),
        pytest.param([GONE], FAIL, Reason.DEPENDENCY_FAILED, Phase.FAILED, id="deleted: Fail"),
        pytest.param([BAD], SKIP, Reason.SKIPPED, Phase.CANCELLED, id="failed: Skip"),
        pytest.param([GONE], SKIP, Reason.SKIPPED, Phase.CANCELLED, id="deleted: Skip"),
        pytest.param([BAD], RUN, None, None, id="failed: Run"),
        pytest.param([GONE], RUN, None, None, id="deleted: Run"),
        pytest.param([DEAD], FAIL, Reason.DEPENDENCY, None, id="a dead letter has not ended"),
        pytest.param([BAD, Parent("o", "o")], FAIL, Reason.DEPENDENCY_FAILED, Phase.FAILED, id="one failed: at once"),
        pytest.param([BAD, Parent("o", "o")], RUN, Reason.DEPENDENCY, None, id="Run waits for the others"),
        pytest.param([BAD, Parent("o")], RUN, Reason.DEPENDENCY_NOT_FOUND, None, id="Run waits for missing ones"),
        pytest.param([Parent("o"), PENDING], FAIL, Reason.DEPENDENCY_NOT_FOUND, None, id="missing before pending"),
    ],
)
def test_gate(parents: list[Parent], policy: OnDependencyFailure, expected: Reason | None, phase: Phase | None) -> None:
    made = Dependencies()
    gate = made.add(task("c", *parents, on_failure=policy), NORMAL)
    assert reason(gate) is expected
    assert gate == made.gate("c")
    assert (gate.phase if gate else None) is phase
    assert sound(made)


@pytest.mark.parametrize(
    ("ends", "policy", "expected"),
    [
        pytest.param([("a", Phase.SUCCEEDED)], FAIL, Reason.DEPENDENCY, id="one of two"),
        pytest.param([("a", Phase.SUCCEEDED), ("b", Phase.SUCCEEDED)], FAIL, None, id="both"),
        pytest.param([("a", Phase.FAILED)], FAIL, Reason.DEPENDENCY_FAILED, id="one fails"),
        pytest.param([("a", None)], FAIL, Reason.DEPENDENCY_FAILED, id="one is deleted"),
        pytest.param([("a", Phase.SUCCEEDED), ("a", None)], FAIL, Reason.DEPENDENCY, id="deleted after its end"),
        pytest.param([("a", None), ("a", Phase.SUCCEEDED)], FAIL, Reason.DEPENDENCY_FAILED, id="deleted is final"),
        pytest.param([("a", Phase.FAILED), ("b", Phase.CANCELLED)], RUN, None, id="Run, all bad"),
        pytest.param([("a", Phase.DEAD_LETTERED)], FAIL, Reason.DEPENDENCY, id="a dead letter"),
        pytest.param(
            [("a", Phase.DEAD_LETTERED), ("a", Phase.SUCCEEDED), ("b", Phase.SUCCEEDED)], FAIL, None, id="redriven"
        ),
        pytest.param([("other", Phase.FAILED)], FAIL, Reason.DEPENDENCY, id="somebody else's end"),
    ],
)
def test_parents_end(
    ends: list[tuple[str, Phase | None]], policy: OnDependencyFailure, expected: Reason | None
) -> None:
    made = build(task("c", "a", "b", on_failure=policy))
    for uid, phase in ends:
        assert made.ended(uid, phase) == ([] if uid == "other" else ["c"])
    assert reason(made.gate("c")) is expected
    assert sound(made)


def test_what_has_ended_stays_so_in_an_older_view() -> None:
    made = build(task("c", "a"))
    made.ended("a", Phase.SUCCEEDED)
    assert made.add(task("c", "a"), NORMAL) is None


def test_a_missing_parent_is_waited_for_once_it_is_there() -> None:
    made = build(task("c", Parent("a")))
    gate = made.add(task("c", "a"), NORMAL)
    assert reason(gate) is Reason.DEPENDENCY
    assert made.ended("a", Phase.SUCCEEDED) == ["c"]
    assert made.gate("c") is None


def test_a_child_that_is_gone_hears_nothing_and_leaves_nothing() -> None:
    made = build(task("c", "a", "b"), task("d", "c"))
    made.remove("d")
    made.remove("c")
    made.remove("never-there")
    assert made.ended("a", Phase.FAILED) == []
    assert (made.level("a", 0), made.chain("a")) == (0, 0)
    made.take_changed()
    made.take_regated()
    assert not made
    assert sound(made)


def test_messages_name_who_is_to_blame() -> None:
    made = build(task("c", "a", Parent("b", "b", Phase.FAILED), on_failure=SKIP))
    gate = made.gate("c")
    assert gate is not None
    assert gate.parent == "b"
    assert "b (Failed)" in gate.message
    many = build(task("c", *(f"p{n}" for n in range(9)))).gate("c")
    assert many is not None
    assert "p0, p1, p2, p3 and 5 more" in many.message


# --- cycles ---


@pytest.mark.parametrize(
    ("edges", "cyclic", "path"),
    [
        pytest.param(["a>a"], "a", "a → a", id="itself"),
        pytest.param(["a>b", "b>a"], "ab", "b → a → b", id="two"),
        pytest.param(["a>b", "b>c", "c>a"], "abc", "c → a → b → c", id="three"),
        pytest.param(["x>a", "a>b", "b>a"], "ab", "b → a → b", id="one that hangs below is in none"),
        pytest.param(["a>b", "b>ac"], "ab", "b → a → b", id="a way out does not help"),
        pytest.param(["a>b", "b>c", "d>c"], "", "", id="none"),
        pytest.param(["a>bc", "b>d", "c>d"], "", "", id="two ways are no cycle"),
    ],
)
def test_cycles(edges: list[str], cyclic: str, path: str) -> None:
    made = Dependencies()
    last = None
    for edge in edges:
        child, parents = edge.split(">")
        last = made.add(task(child, *parents), NORMAL)
        assert sound(made)
    found = "".join(uid for uid in "abcdx" if reason(made.gate(uid)) is Reason.DEPENDENCY_CYCLE)
    assert found == cyclic
    assert set(made.take_regated()) == set(cyclic) - set(edges[-1][0])
    if path:
        assert last is not None
        assert path in last.message


def test_a_long_cycle_is_named_in_short() -> None:
    made = build(*(task(f"t{n}", f"t{(n + 1) % 50}") for n in range(50)))
    gate = made.gate("t7")
    assert gate is not None
    assert "t7 → t8 → t9 → t10 → … 46 more … → t7" in gate.message


@pytest.mark.parametrize("leaver", "abc")
def test_a_cycle_ends_with_any_of_its_members(leaver: str) -> None:
    made = build(task("a", "b"), task("b", "c"), task("c", "a"))
    made.take_regated()
    made.remove(leaver)
    assert sound(made)
    left = set("abc") - {leaver}
    assert set(made.take_regated()) == left
    assert {reason(made.gate(uid)) for uid in left} == {Reason.DEPENDENCY}
    (child,) = made.ended(leaver, None)
    assert reason(made.gate(child)) is Reason.DEPENDENCY_FAILED
    assert sound(made)


def test_a_cycle_beside_the_one_that_was_named_is_found_next() -> None:
    made = build(task("a", "b", "c", on_failure=RUN), task("b", "a"), task("c", "a"))
    made.ended("b", Phase.CANCELLED)
    made.remove("b")
    assert reason(made.gate("a")) is Reason.DEPENDENCY_CYCLE
    assert reason(made.gate("c")) is Reason.DEPENDENCY_CYCLE
    assert sound(made)


def test_who_is_in_a_cycle_lifts_nobody_without_end() -> None:
    made = build(task("a", "b"), task("b", "a"))
    made.add(task("a", "b"), TOP)
    made.remove("a")
    made.ended("a", None)
    assert made.level("b", NORMAL) == NORMAL
    assert sound(made)


# --- levels and chains ---


def test_a_child_lifts_its_parents_to_its_level_and_no_further_than_the_top() -> None:
    made = build(task("b", "a"), task("c", "b"))
    made.take_changed()
    made.add(task("c", "b"), EMERGENCY)
    assert set(made.take_changed()) == {"a", "b"}
    assert made.level("a", 0) == made.level("b", NORMAL) == TOP
    assert made.level("a", EMERGENCY) == EMERGENCY
    made.remove("c")
    assert set(made.take_changed()) == {"a", "b"}
    assert made.level("a", 0) == NORMAL, "b itself still waits for it"
    made.remove("b")
    assert made.level("a", 0) == 0


def test_a_parent_is_never_lowered() -> None:
    made = build(task("b", "a"), level=0)
    assert made.level("a", 3) == 3


def test_chain_counts_the_longest_way_down() -> None:
    made = build(task("b", "a"), task("c", "b"), task("d", "a"))
    assert [made.chain(uid) for uid in "abcd"] == [2, 1, 0, 0]
    made.remove("c")
    assert [made.chain(uid) for uid in "abcd"] == [1, 0, 0, 0]


def test_chains_count_up_to_a_bound() -> None:
    made = build(*(task(f"t{n}", f"t{n - 1}") for n in range(1, 3 * LONGEST_CHAIN)))
    assert made.chain("t0") == LONGEST_CHAIN
    assert made.chain(f"t{3 * LONGEST_CHAIN - 3}") == 2


@st.composite
def histories(draw: st.DrawFn, acyclic: bool) -> list[tuple[object, ...]]:
    count = draw(st.integers(2, 7))
    steps: list[tuple[object, ...]] = []
    for _ in range(draw(st.integers(1, 25))):
        match draw(st.sampled_from(["add", "add", "add", "remove", "ended"])):
            case "add":
                child = draw(st.integers(0, count - 1))
                others = range(child) if acyclic else range(count)
                parents = draw(st.lists(st.sampled_from(others), unique=True, max_size=4)) if others else []
                steps.append(
                    ("add", child, parents, draw(st.integers(0, EMERGENCY)), draw(st.sampled_from([FAIL, RUN])))
                )
            case "remove":
                steps.append(("remove", draw(st.integers(0, count - 1))))
            case _:
                phase = draw(st.sampled_from([Phase.SUCCEEDED, Phase.FAILED, Phase.DEAD_LETTERED, None]))
                steps.append(("ended", draw(st.integers(0, count - 1)), phase))
    return steps


class Model:
    """The same, said plainly: all is computed anew from what is known."""

    def __init__(self) -> None:
        self.tasks: dict[str, tuple[dict[str, Phase | str | None], int, OnDependencyFailure]] = {}

    def add(self, uid: str, parents: Iterable[str], level: int, policy: OnDependencyFailure) -> None:
        known = self.tasks[uid][0] if uid in self.tasks else {}
        kept = {p: known[p] if known.get(p) not in (None, Phase.DEAD_LETTERED) else None for p in parents if p in known}
        self.tasks[uid] = ({p: kept.get(p) for p in parents}, level, policy)

    def ended(self, uid: str, phase: Phase | None) -> None:
        for parents, _, _ in self.tasks.values():
            if parents.get(uid, "no parent") in (None, Phase.DEAD_LETTERED):
                parents[uid] = phase or "gone"

    def waits(self) -> dict[str, list[str]]:
        return {
            uid: [p for p, phase in parents.items() if phase in (None, Phase.DEAD_LETTERED)]
            for uid, (parents, _, _) in self.tasks.items()
        }

    def fails(self, uid: str) -> bool:
        parents, _, policy = self.tasks[uid]
        return policy is not RUN and any(phase in ("gone", Phase.FAILED) for phase in parents.values())

    def children(self, uid: str) -> list[str]:
        return [child for child, waits in self.waits().items() if uid in waits]

    def lift(self, uid: str) -> int:
        return max((min(TOP, max(self.tasks[c][1], self.lift(c))) for c in self.children(uid)), default=-1)

    def chain(self, uid: str) -> int:
        return max((1 + self.chain(c) for c in self.children(uid)), default=0)

    def in_cycle(self, uid: str) -> bool:
        waits, seen, todo = self.waits(), set[str](), list(self.waits().get(uid, ()))
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += waits.get(at, ())
        return uid in seen


def play(steps: Iterable[tuple[object, ...]], made: Dependencies, model: Model) -> Iterable[set[str]]:
    """Do each step on both; yield the Tasks of which a change was told."""
    for step in steps:
        match step:
            case ("add", int(child), list(parents), int(level), OnDependencyFailure() as policy):
                uid, names = f"t{child}", [f"t{each}" for each in parents]
                made.add(task(uid, *names, on_failure=policy), level)
                if names or uid in model.tasks:
                    model.add(uid, names, level, policy)
                told = {uid}
            case ("remove", int(child)):
                made.remove(f"t{child}")
                model.tasks.pop(f"t{child}", None)
                told = {f"t{child}"}
            case ("ended", int(child), phase):
                assert phase is None or isinstance(phase, Phase)
                told = set(made.ended(f"t{child}", phase))
                model.ended(f"t{child}", phase)
            case _:
                raise AssertionError(step)
        assert sound(made)
        yield told | set(made.take_regated())


UIDS = [f"t{n}" for n in range(7)]


@given(histories(acyclic=True))
def test_levels_and_chains_are_those_of_brute_force(steps: list[tuple[object, ...]]) -> None:
    made, model = Dependencies(), Model()
    shown = dict.fromkeys(UIDS, (0, 0))
    for _ in play(steps, made, model):
        now = {uid: (made.level(uid, 0), made.chain(uid)) for uid in UIDS}
        assert now == {uid: (max(0, model.lift(uid)), model.chain(uid)) for uid in UIDS}
        changed = {uid for uid in UIDS if now[uid] != shown[uid]}
        assert changed <= set(made.take_changed()), "a change was not told"
        shown = now
        graphlib.TopologicalSorter(model.waits()).prepare()


@given(histories(acyclic=False))
def test_gates_are_those_of_brute_force_and_every_change_is_told(steps: list[tuple[object, ...]]) -> None:
    made, model = Dependencies(), Model()
    shown: dict[str, Gate | None] = dict.fromkeys(UIDS)
    for told in play(steps, made, model):
        for uid in UIDS:
            gate = made.gate(uid)
            assert gate == shown[uid] or uid in told, "a change was not told"
            shown[uid] = gate
            if uid not in model.tasks:
                assert gate is None
            elif model.fails(uid):
                assert reason(gate) is Reason.DEPENDENCY_FAILED
            elif reason(gate) is Reason.DEPENDENCY_CYCLE:
                assert model.in_cycle(uid)
            else:
                assert reason(gate) is (Reason.DEPENDENCY if model.waits()[uid] else None)
        named = {uid for uid in model.tasks if model.fails(uid) or reason(made.gate(uid)) is Reason.DEPENDENCY_CYCLE}
        left = {uid: [p for p in waits if p not in named] for uid, waits in model.waits().items() if uid not in named}
        graphlib.TopologicalSorter(left).prepare()  # no cycle goes unnamed
