"""Idempotency keys: who is run, who follows, and when a key is free again."""

from __future__ import annotations

from dataclasses import replace
from itertools import permutations

import pytest

from taskdist.api import Phase
from taskdist.core.model import Task
from taskdist.protocol.duplicates import Duplicates, Original
from taskdist.protocol.observations import ObservedTask


def record(
    uid: str, created: float = 0.0, phase: Phase = Phase.PENDING, attempt: int = 0, of: str = ""
) -> ObservedTask:
    task = Task(uid, "ns", f"task-{uid}", "q", "work", created)
    return ObservedTask(task, 1, phase, attempt=attempt, idempotency=("q", "k"), duplicate_of=of)


def duplicates(*records: ObservedTask) -> Duplicates:
    made = Duplicates()
    for each in records:
        made.seen(each)
    return made


@pytest.mark.parametrize(
    ("records", "first"),
    [
        pytest.param([record("b", 1), record("a", 2)], "b", id="the oldest"),
        pytest.param([record("b", 1), record("a", 1)], "a", id="of one second: by uid"),
        pytest.param([record("a", 1), record("b", 2, Phase.ASSIGNED, 1)], "b", id="one that runs before older ones"),
        pytest.param([record("a", 1), record("b", 2, attempt=1)], "b", id="one that was begun"),
        pytest.param([record("a", 1), record("b", 2, Phase.FAILED)], "b", id="one that has ended"),
        pytest.param(
            [record("b", 2), record("a", 1, Phase.SUCCEEDED, of="b")], "b", id="not one that followed another"
        ),
    ],
)
def test_who_is_first(records: list[ObservedTask], first: str) -> None:
    for order in (records, records[::-1]):
        made = duplicates(*order)
        assert made.original(first) is None
        for each in records:
            if each.task.uid != first and not each.phase.terminal:
                found = made.original(each.task.uid)
                assert found is not None
                assert (found.uid, found.name) == (first, f"task-{first}")


@pytest.mark.parametrize(
    "other",
    [
        pytest.param(replace(record("b"), idempotency=None), id="no key"),
        pytest.param(replace(record("b"), idempotency=("q", "other")), id="another key"),
        pytest.param(replace(record("b"), idempotency=("other", "k")), id="another queue"),
        pytest.param(replace(record("b"), task=replace(record("b").task, namespace="other")), id="another namespace"),
    ],
)
def test_what_is_no_duplicate(other: ObservedTask) -> None:
    made = duplicates(record("a"), other)
    assert made.original("a") is None
    assert made.original("b") is None


def test_the_first_stays_so_whoever_comes_later() -> None:
    made = duplicates(record("b", 1))
    assert made.original("b") is None
    made.seen(record("a", 1))
    assert made.original("b") is None
    assert made.original("a") == Original("b", "task-b", None)


def test_who_waits_is_told_of_the_end_and_how_it_was() -> None:
    made = duplicates(record("a"), record("b"), record("c"))
    made.original("b")
    made.seen(record("a", phase=Phase.ASSIGNED, attempt=1))
    assert not made.again
    made.seen(record("a", phase=Phase.FAILED, attempt=1))
    assert list(made.again) == ["b", "c"]
    assert made.original("b") == Original("a", "task-a", Phase.FAILED)


def test_a_dead_letter_has_not_ended() -> None:
    made = duplicates(record("a"), record("b"))
    made.original("b")
    made.seen(record("a", phase=Phase.DEAD_LETTERED, attempt=1))
    assert not made.again
    assert made.original("b") == Original("a", "task-a", None)


def test_the_key_is_free_once_the_first_is_deleted() -> None:
    made = duplicates(record("a", 1), record("b", 2), record("c", 3))
    made.original("c")
    made.deleted("a")
    assert list(made.again) == ["b", "c"]
    assert made.original("b") is None
    assert made.original("c") == Original("b", "task-b", None)


@pytest.mark.parametrize("order", list(permutations("bcd")), ids="".join)
@pytest.mark.parametrize("asked", ["", "b", "d"])
def test_each_of_those_that_wait_is_looked_at_again_whoever_comes_next(order: tuple[str, ...], asked: str) -> None:
    """The next one is run, whatever the order in which they came: else all of them would wait for ever."""
    made = duplicates(record("a", 1), *(record(each, 2.0 + "bcd".index(each)) for each in order))
    if asked:
        made.original(asked)
    assert made.original("a") is None
    made.deleted("a")
    assert sorted(made.again) == ["b", "c", "d"]
    assert [each for each in "bcd" if made.original(each) is None] == ["b"]


def test_who_was_there_at_its_end_ends_as_it_did_though_it_is_deleted() -> None:
    made = duplicates(record("a", 1), record("b", 2))
    made.original("b")
    made.seen(record("a", 1, Phase.SUCCEEDED, 1))
    made.deleted("a")
    made.seen(record("c", 3))
    assert made.original("b") == Original("a", "task-a", Phase.SUCCEEDED)
    assert made.original("c") is None, "the key is free for those that come later"


def test_those_that_ended_as_duplicates_do_not_hold_the_key() -> None:
    made = duplicates(record("a", phase=Phase.SUCCEEDED), record("b"))
    made.original("b")
    made.seen(record("b", phase=Phase.SUCCEEDED, of="task-a"))
    made.deleted("a")
    made.seen(record("c", 9))
    assert made.original("c") is None


def test_nothing_is_left_of_what_is_gone() -> None:
    made = duplicates(record("a"), record("b"))
    made.original("b")
    for uid in ("a", "b", "b", "never"):
        made.deleted(uid)
    assert [value for value in vars(made).values() if value] == []
