"""Names, pins and ends of parents, as they are pieced together from what is seen of Tasks."""

from __future__ import annotations

import pytest

from taskdist.api import Phase
from taskdist.core.model import Parent, Task
from taskdist.protocol.dependencies import MAX_PARENT_RESULTS, Lineage, within_bounds
from taskdist.protocol.messages import ParentResult
from taskdist.protocol.observations import ObservedTask

OK, BAD = Phase.SUCCEEDED, Phase.FAILED


def record(
    name: str, phase: Phase = Phase.PENDING, *parents: str | Parent, uid: str = "", namespace: str = "ns"
) -> ObservedTask:
    """A Task; a parent given as text is not pinned yet."""
    made = tuple(Parent(each) if isinstance(each, str) else each for each in parents)
    return ObservedTask(Task(uid or f"u-{name}", namespace, name, "q", "work", 0.0, parents=made), 1, phase)


CHILD = record("c", Phase.PENDING, "a")


def lineage(*records: ObservedTask) -> Lineage:
    made = Lineage()
    made.listed(records)
    return made


def parent(made: Lineage, child: ObservedTask = CHILD) -> Parent:
    return made.parents(child.task)[0]


@pytest.mark.parametrize(
    ("listed", "expected"),
    [
        pytest.param([], Parent("a"), id="nobody of that name"),
        pytest.param([record("a")], Parent("a", "u-a"), id="it waits"),
        pytest.param([record("a", Phase.ASSIGNED)], Parent("a", "u-a"), id="it runs"),
        pytest.param([record("a", OK)], Parent("a", "u-a", OK), id="it ended before"),
        pytest.param([record("a", Phase.DEAD_LETTERED)], Parent("a", "u-a", Phase.DEAD_LETTERED), id="a dead letter"),
        pytest.param([record("a", namespace="other")], Parent("a"), id="another namespace"),
    ],
)
@pytest.mark.parametrize("later", [False, True], ids=["listed", "seen later"])
def test_names_are_resolved(listed: list[ObservedTask], expected: Parent, later: bool) -> None:
    made = lineage(CHILD) if later else lineage(CHILD, *listed)
    if later:
        assert parent(made) == Parent("a")
        for each in listed:
            made.seen(each)
        assert ("u-c" in made.again) is bool(expected.uid), "who waits for the name is told"
    assert parent(made) == expected


@pytest.mark.parametrize(
    ("pin", "listed", "expected"),
    [
        pytest.param(Parent("a", "u-a"), [record("a")], Parent("a", "u-a"), id="it is there"),
        pytest.param(Parent("a", "u-a"), [record("a", BAD)], Parent("a", "u-a", BAD), id="it ended meanwhile"),
        pytest.param(Parent("a", "old"), [], Parent("a", "old", gone=True), id="it was deleted meanwhile"),
        pytest.param(Parent("a", "old"), [record("a")], Parent("a", "old", gone=True), id="another has its name"),
        pytest.param(Parent("a", "old", OK), [], Parent("a", "old", OK), id="deleted after its end was written"),
        pytest.param(Parent("a", "old", OK), [record("a", BAD)], Parent("a", "old", OK), id="and its name taken"),
    ],
)
def test_a_new_leader_takes_pins_from_status(pin: Parent, listed: list[ObservedTask], expected: Parent) -> None:
    child = record("c", Phase.PENDING, pin)
    assert parent(lineage(child, *listed), child) == expected
    assert parent(lineage(*listed, child), child) == expected


def test_a_pin_of_a_task_that_was_never_seen_is_not_taken_for_gone() -> None:
    child = record("c", Phase.PENDING, Parent("a", "u-a"))
    made = lineage()
    made.seen(child)
    assert parent(made, child) == Parent("a", "u-a")
    made.seen(record("a", OK))
    assert list(made.again) == ["u-c"]
    assert parent(made, child) == Parent("a", "u-a", OK)


def test_a_pin_holds_when_the_name_is_used_again() -> None:
    made = lineage(CHILD, record("a"))
    made.over(record("a"), deleted=True)
    made.seen(record("a", OK, uid="second"))
    assert parent(made) == Parent("a", "u-a", gone=True)


def test_an_old_task_that_still_runs_keeps_its_dependents_when_its_name_is_used_again() -> None:
    made = lineage(CHILD, record("a"))
    made.seen(record("a", OK, uid="second"))
    assert parent(made) == Parent("a", "u-a")
    made.over(record("a"), deleted=True)
    assert parent(made).gone
    assert parent(made, record("d", Phase.PENDING, "a")) == Parent("a", "second", OK), "the name is the new one's"


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        pytest.param(["ok"], Parent("a", "u-a", OK), id="succeeds"),
        pytest.param(["ok", "deleted"], Parent("a", "u-a", OK), id="deleted after its end"),
        pytest.param(["gone"], Parent("a", "u-a", gone=True), id="deleted before its end"),
        pytest.param(["dead"], Parent("a", "u-a", Phase.DEAD_LETTERED), id="a dead letter"),
        pytest.param(["dead", "deleted"], Parent("a", "u-a", gone=True), id="a dead letter is deleted"),
        pytest.param(["dead", "redriven"], Parent("a", "u-a"), id="a dead letter is redriven"),
        pytest.param(["dead", "redriven", "ok"], Parent("a", "u-a", OK), id="and succeeds"),
    ],
)
def test_ends_of_parents(ends: list[str], expected: Parent) -> None:
    made = lineage(CHILD, record("a"))
    parent(made)
    for end in ends:
        made.again.clear()
        match end:
            case "ok":
                made.over(record("a", OK), deleted=False)
            case "gone":
                made.over(record("a"), deleted=True)
            case "dead":
                made.seen(record("a", Phase.DEAD_LETTERED))
            case "redriven":
                made.seen(record("a"))
            case _:
                made.deleted("u-a")
        assert (list(made.again) == ["u-c"]) is (end != "deleted" or ends[0] == "dead")
    assert parent(made) == expected


def test_each_dependent_is_told_once_and_those_that_are_gone_are_not() -> None:
    children = [record(f"c{n}", Phase.PENDING, "a", "b") for n in range(3)]
    made = lineage(record("a"), record("b"), *children)
    made.over(children[1], deleted=True)
    made.over(record("a", OK), deleted=False)
    made.seen(record("a", OK))
    assert list(made.again) == ["u-c0", "u-c2"]
    made.again.clear()
    made.over(record("a", OK), deleted=False)
    assert not made.again


def test_what_is_forgotten_leaves_nothing() -> None:
    made = lineage(CHILD, record("a"), record("d", Phase.PENDING, "nobody"))
    parent(made)
    made.over(CHILD, deleted=True)
    made.over(record("d", BAD), deleted=False)
    made.deleted("u-d")
    made.over(record("a", OK), deleted=False)
    made.deleted("u-a")
    left = [value for name, value in vars(made).items() if name != "_complete" and value]
    assert left == []


@pytest.mark.parametrize(
    ("stored", "listed", "unwritten", "unpinned"),
    [
        pytest.param("a", [], False, False, id="missing: nothing to say"),
        pytest.param("a", [record("a")], True, True, id="to be pinned"),
        pytest.param("a", [record("a", OK)], True, False, id="over before it was pinned"),
        pytest.param(Parent("a", "u-a"), [record("a")], False, False, id="pinned"),
        pytest.param(Parent("a", "u-a"), [record("a", OK)], True, False, id="pinned, has ended"),
        pytest.param(Parent("a", "u-a", OK), [record("a", OK)], False, False, id="all is written"),
        pytest.param(Parent("a", "u-a"), [record("a", Phase.DEAD_LETTERED)], False, False, id="a dead letter"),
    ],
)
def test_what_status_lacks(stored: str | Parent, listed: list[ObservedTask], unwritten: bool, unpinned: bool) -> None:
    child = record("c", Phase.PENDING, stored)
    made = lineage(child, *listed)
    assert (made.unwritten(child.task), made.unpinned(child.task)) == (unwritten, unpinned)


def test_what_is_written_names_each_known_parent() -> None:
    child = record("c", Phase.PENDING, "a", "nobody", "b")
    made = lineage(child, record("a", OK), record("b"))
    assert made.patch(child.task) == {
        "dependencies": [{"name": "a", "uid": "u-a", "phase": "Succeeded"}, {"name": "b", "uid": "u-b"}]
    }
    assert made.resolved(child.task).parents == (Parent("a", "u-a", OK), Parent("nobody"), Parent("b", "u-b"))
    plain = record("a").task
    assert made.resolved(plain) is plain


def test_results_beyond_the_bound_become_references() -> None:
    half = b'{"x":"%s"}' % (b"y" * (MAX_PARENT_RESULTS // 2))
    results = [ParentResult("a", OK, half), ParentResult("b", OK, half), ParentResult("c", OK, b"{}")]
    assert [each.result for each in within_bounds(results)] == [half, b'{"$ref":"task/b"}', b"{}"]
