"""How long ended Tasks are kept: named cases, and the rule recounted over random histories."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from taskdist.api import Phase
from taskdist.controller.retention import Keep, Retention, Withheld
from taskdist.core.model import Parent, Task
from taskdist.kube.archived import Archived
from taskdist.protocol.observations import ObservedTask

Q = ("ns", "q")


def record(
    uid: str,
    phase: Phase = Phase.SUCCEEDED,
    finished: float = 100.0,
    *,
    ttl: float | None = None,
    name: str = "",
    queue: str = "q",
    parents: tuple[Parent, ...] = (),
) -> ObservedTask:
    task = Task(uid, "ns", name or uid, queue, "t", 1.0, parents=parents)
    ended = phase.terminal or phase is Phase.DEAD_LETTERED
    return ObservedTask(task, 7, phase, finished_at=finished if ended else 0.0, ttl=ttl)


def child(uid: str, phase: Phase, finished: float = 0.0, pin: str = "a") -> ObservedTask:
    return record(uid, phase, finished, parents=(Parent("a", pin),))


@pytest.mark.parametrize(
    ("keep", "seen", "due"),
    [
        pytest.param(Keep(), record("a"), None, id="nobody says how long"),
        pytest.param(Keep(60), record("a"), 160, id="the queue's word"),
        pytest.param(Keep(60), record("a", ttl=5), 105, id="the Task's own word goes before"),
        pytest.param(Keep(60), record("a", ttl=0), 100, id="0 is a word"),
        pytest.param(Keep(), record("a", ttl=5), 105, id="only the Task's own"),
        pytest.param(Keep(60), record("a", Phase.FAILED), 160, id="failed"),
        pytest.param(Keep(60), record("a", Phase.CANCELLED), 160, id="cancelled"),
        pytest.param(Keep(60), record("a", Phase.PENDING), None, id="one that waits"),
        pytest.param(Keep(60), record("a", Phase.ASSIGNED, ttl=0), None, id="one that runs"),
        pytest.param(Keep(60), record("a", Phase.DEAD_LETTERED), None, id="dead letters are kept"),
        pytest.param(Keep(60, 600), record("a", Phase.DEAD_LETTERED), 700, id="but for their own time"),
        pytest.param(Keep(60, 600), record("a", Phase.DEAD_LETTERED, ttl=1), 700, id="whatever the Task says of ends"),
        pytest.param(Keep(60), record("a", queue="other"), None, id="another queue's word is none"),
        pytest.param(Keep(60), replace(record("a"), deleting=True), None, id="it goes already"),
        pytest.param(Keep(60), record("a", finished=0.0), None, id="no end is known"),
    ],
)
def test_due_at(keep: Keep, seen: ObservedTask, due: float | None) -> None:
    for queue_first in (True, False):
        retention = Retention()
        if queue_first:
            retention.queue_applied(Q, keep)
        retention.seen(seen)
        if not queue_first:
            retention.queue_applied(Q, keep)
        assert retention.due_at("a") == due
        assert [r.task.uid for r in retention.due(10**6, 10)] == (["a"] if due is not None else [])


@pytest.mark.parametrize(
    ("children", "due"),
    [
        pytest.param([child("c", Phase.PENDING)], None, id="a dependant waits"),
        pytest.param([child("c", Phase.PENDING, pin="")], None, id="one that is not pinned yet may mean this one"),
        pytest.param([child("c", Phase.PENDING, pin="former")], 110, id="one that means a former Task of this name"),
        pytest.param([child("c", Phase.ASSIGNED)], None, id="a dependant runs"),
        pytest.param([child("c", Phase.DEAD_LETTERED, 150)], None, id="a dependant may be redriven"),
        pytest.param([child("c", Phase.SUCCEEDED, 150)], 160, id="counted from its end"),
        pytest.param([child("c", Phase.CANCELLED, 50)], 110, id="it ended before"),
        pytest.param([child("c", Phase.SUCCEEDED, 150), child("d", Phase.FAILED, 200)], 210, id="from the last end"),
        pytest.param([child("c", Phase.SUCCEEDED, 150), child("d", Phase.PENDING)], None, id="one of two is left"),
    ],
)
def test_a_parent_is_kept_for_those_that_depend_on_it(children: list[ObservedTask], due: float | None) -> None:
    parent = record("a", ttl=10)
    for order in ([parent, *children], [*children, parent]):
        retention = Retention()
        for each in order:
            retention.seen(each)
        assert retention.due_at("a") == due


def test_a_dependant_that_is_deleted_before_its_end_ends_then() -> None:
    retention = Retention()
    retention.seen(record("a", ttl=10))
    retention.seen(child("c", Phase.PENDING))
    retention.gone(child("c", Phase.PENDING), 300.0)
    assert retention.due_at("a") == 310


def test_a_dependant_that_ended_and_went_is_still_counted() -> None:
    retention = Retention()
    retention.seen(record("a", ttl=10))
    retention.seen(child("c", Phase.SUCCEEDED, 150))
    retention.gone(child("c", Phase.SUCCEEDED, 150), 151.0)
    assert retention.due_at("a") == 160


def test_a_dependant_that_went_while_its_parent_ran_leaves_nothing() -> None:
    retention = Retention()
    retention.seen(child("c", Phase.CANCELLED, 50))
    retention.gone(child("c", Phase.CANCELLED, 50), 60.0)
    assert not retention._families


def test_each_state_is_named_once_and_again_when_asked() -> None:
    retention = Retention()
    retention.seen(record("a", ttl=0))
    assert [r.task.uid for r in retention.due(100.0, 5)] == ["a"]
    assert retention.due(200.0, 5) == []
    retention.again("a", 230.0)
    assert retention.due(229.0, 5) == []
    assert [r.task.uid for r in retention.due(230.0, 5)] == ["a"]
    retention.seen(replace(record("a", ttl=0), resource_version=8))
    assert [r.resource_version for r in retention.due(230.0, 5)] == [8]


def test_a_redriven_dead_letter_is_not_due_any_more() -> None:
    retention = Retention()
    retention.queue_applied(Q, Keep(None, 5))
    retention.seen(record("a", Phase.DEAD_LETTERED))
    retention.seen(record("a", Phase.PENDING))
    assert retention.due(10**6, 5) == []
    retention.again("a", 0.0)
    assert retention.due(10**6, 5) == []


def test_the_longest_due_go_first_and_no_more_than_asked_for() -> None:
    retention = Retention()
    for uid, finished in (("b", 20.0), ("a", 10.0), ("c", 30.0)):
        retention.seen(record(uid, finished=finished, ttl=1))
    assert [r.task.uid for r in retention.due(25.0, 1)] == ["a"]
    assert [r.task.uid for r in retention.due(25.0, 5)] == ["b"]
    assert [r.task.uid for r in retention.due(31.0, 5)] == ["c"]


def test_with_its_queue_gone_only_the_task_s_own_word_holds() -> None:
    retention = Retention()
    retention.queue_applied(Q, Keep(5))
    retention.seen(record("a"))
    retention.seen(record("b", ttl=5))
    retention.queue_deleted(Q)
    assert [r.task.uid for r in retention.due(10**6, 5)] == ["b"]


def test_one_that_is_not_pinned_may_mean_the_next_of_that_name() -> None:
    """Its parent became a dead letter, was deleted and created anew: that one is kept for it."""
    retention = Retention()
    former = record("p-1", Phase.DEAD_LETTERED, 1.0, name="p")
    retention.seen(former)
    retention.seen(record("c", Phase.PENDING, 1.0, parents=(Parent("p", ""),)))
    retention.gone(former, 2.0)
    retention.seen(record("p-2", Phase.SUCCEEDED, 3.0, ttl=0.0, name="p"))
    assert retention.due_at("p-2") is None


class Histories(RuleBasedStateMachine):
    """Tasks that depend on each other come, change and go as time passes; what is due follows from what was there."""

    uids = st.integers(0, 5)
    phases = st.sampled_from(list(Phase))
    spans = st.integers(0, 50).map(float)

    def __init__(self) -> None:
        super().__init__()
        self.retention = Retention()
        self.there: dict[str, ObservedTask] = {}
        self.keep = Keep()
        self.now = 1.0
        self.lives = 0
        # Ends of dependants that are not there any more, by the uid of what they depended on.
        self.former: dict[str, float] = {}
        # Names that some Task used before it was pinned: it may have meant this one, or one before it.
        self.vague: set[str] = set()

    @rule(number=uids, phase=phases, after=spans, ttl=st.none() | spans, on=st.none() | uids, pinned=st.booleans())
    def comes_or_changes(
        self, number: int, phase: Phase, after: float, ttl: float | None, on: int | None, pinned: bool
    ) -> None:
        name = f"t{number}"
        self.now += after
        known = self.there.get(name)
        if known is None:
            self.lives += 1
            parents: tuple[Parent, ...] = ()
            if on is not None and on != number:
                target = self.there.get(f"t{on}")
                parents = (Parent(f"t{on}", target.task.uid if target and pinned else ""),)
                self.vague |= {parent.name for parent in parents if not parent.uid}
            new = record(f"{name}-{self.lives}", phase, self.now, ttl=ttl, name=name, parents=parents)
        elif known.phase.terminal:
            return
        else:
            new = replace(known, phase=phase, finished_at=record("x", phase, self.now).finished_at)
        self.there[name] = new
        self.retention.seen(new)

    @rule(number=uids, after=spans)
    def goes(self, number: int, after: float) -> None:
        self.now += after
        old = self.there.pop(f"t{number}", None)
        if old is None:
            return
        self.retention.gone(old, self.now)
        for parent in old.task.parents:
            at = old.finished_at if old.phase.terminal else self.now
            self.former[parent.uid] = max(self.former.get(parent.uid, 0.0), at)

    @rule(ended=st.none() | spans, dead=st.none() | spans)
    def queue_says(self, ended: float | None, dead: float | None) -> None:
        self.keep = Keep(ended, dead)
        self.retention.queue_applied(Q, self.keep)

    def expected(self, each: ObservedTask) -> float | None:
        uid, dead = each.task.uid, each.phase is Phase.DEAD_LETTERED
        ttl = self.keep.dead_letters if dead else self.keep.ended if each.ttl is None else each.ttl
        if ttl is None or not (each.phase.terminal or dead):
            return None
        since = max(each.finished_at, self.former.get(uid, 0.0))
        for other in self.there.values():
            for parent in other.task.parents:
                if parent.name == each.task.name and parent.uid in ("", uid):
                    if not other.phase.terminal:
                        return None
                    since = max(since, other.finished_at)
        return since + ttl

    @invariant()
    def due_is_what_the_rule_says(self) -> None:
        for name, each in self.there.items():
            got, expected = self.retention.due_at(each.task.uid), self.expected(each)
            if name not in self.vague:
                assert got == expected
            elif expected is None:
                assert got is None

    @invariant()
    def nothing_is_kept_of_what_is_gone(self) -> None:
        there = {each.task.uid for each in self.there.values()}
        assert self.retention._kept.keys() <= there
        assert self.retention._stamps.keys() <= there
        assert {uid for family in self.retention._families.values() for uid in family.open} <= there
        named = {parent.uid for each in self.there.values() for parent in each.task.parents}
        # Whom a dependant meant that was never pinned is told by the name alone.
        assert {uid for family in self.retention._families.values() for uid in family.ended if uid} <= there | named


TestHistories = Histories.TestCase
TestHistories.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)


# -- the archive -----------------------------------------------------------------------------------------------------


def due(retention: Retention, now: float = 1000.0) -> list[str]:
    return [each.task.uid for each in retention.due(now, 10)]


def archiving(*seen: ObservedTask) -> Retention:
    retention = Retention()
    retention.queue_applied(Q, Keep(10, 20, archive=True))
    for each in seen:
        retention.seen(each)
    return retention


def at(uid: str, version: int, **more: Any) -> ObservedTask:
    return replace(record(uid, **more), resource_version=version)


def test_a_task_stays_until_the_archive_has_this_state_of_it() -> None:
    retention = archiving(at("a", 7), at("b", 9, phase=Phase.DEAD_LETTERED, finished=150.0))
    assert due(retention, 109.0) == []
    assert retention.withheld(Q) == Withheld(), "neither is over its time"
    assert due(retention) == []
    assert retention.withheld(Q) == Withheld(2, 110.0)
    retention.archive_told(Archived({"ns": 6}))
    assert due(retention) == []
    retention.archive_told(Archived({"ns": 8}))
    assert due(retention) == ["a"]
    assert retention.withheld(Q) == Withheld(1, 170.0)
    retention.archive_told(Archived({"*": 9}))
    assert due(retention) == ["b"]
    assert retention.all_withheld() == {}


def test_what_is_archived_before_it_is_due_goes_in_time() -> None:
    retention = archiving(at("a", 7))
    retention.archive_told(Archived({"ns": 7}))
    assert (due(retention, 109.0), due(retention, 110.0)) == ([], ["a"])


@pytest.mark.parametrize(
    "word",
    [
        pytest.param(Archived({"other": 100}), id="of another namespace"),
        pytest.param(Archived(), id="the ConfigMap is gone"),
        pytest.param(Archived({"ns": 7, "*": 100}), id="a namespace's own mark goes before that of all"),
    ],
)
def test_a_word_that_does_not_cover_it_keeps_it(word: Archived) -> None:
    retention = archiving(at("a", 8))
    assert due(retention) == []
    retention.archive_told(word)
    assert due(retention) == []
    assert retention.withheld(Q).count == 1


def test_a_task_that_changes_waits_for_its_new_state() -> None:
    retention = archiving(at("a", 7))
    assert due(retention) == []
    retention.seen(at("a", 12))
    assert due(retention) == []
    retention.archive_told(Archived({"ns": 7}))
    assert due(retention) == []
    retention.archive_told(Archived({"ns": 12}))
    assert due(retention) == ["a"]


def test_a_mark_that_goes_back_holds_for_what_is_not_deleted_yet() -> None:
    retention = archiving(at("a", 7))
    retention.archive_told(Archived({"ns": 7}))
    retention.archive_told(Archived({"ns": 3}))
    assert due(retention) == []


def test_who_waits_no_more_is_not_counted() -> None:
    seen = at("a", 7)
    changes: list[Callable[[Retention], None]] = [
        lambda r: r.gone(seen, 1000.0),
        lambda r: r.seen(at("a", 8, phase=Phase.PENDING)),
        lambda r: r.queue_applied(Q, Keep(10)),
        lambda r: r.queue_deleted(Q),
    ]
    for change in changes:
        retention = archiving(seen)
        assert due(retention) == []
        change(retention)
        assert retention.withheld(Q) == Withheld()
        assert retention.all_withheld() == {}


def test_a_queue_that_asks_for_it_no_more_lets_them_go() -> None:
    retention = archiving(at("a", 7))
    assert due(retention) == []
    retention.queue_applied(Q, Keep(10))
    assert due(retention) == ["a"]


def test_others_do_not_wait_behind_those_that_do() -> None:
    retention = archiving(*(at(f"w{number}", 7) for number in range(150)))
    retention.seen(at("free", 7, queue="other", finished=200.0, ttl=0.0))
    assert due(retention) == []
    assert retention.withheld(Q).count == 100, "a look is bounded"
    assert due(retention) == ["free"]
    assert retention.withheld(Q).count == 150
