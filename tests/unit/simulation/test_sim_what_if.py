"""Playing a snapshot forward: when a Task starts as things are, and what a change would do."""

from dataclasses import replace
from typing import Any

import pytest

from taskdist.api import Priority, Reason
from taskdist.core import events
from taskdist.core.model import Agent, Pool, Queue, Task
from taskdist.core.primitives.service_times import Estimate
from taskdist.simulation.what_if import FEWEST, RUNS, Change, NotPlayed, Snapshot, likely, what_if

NS, NOW = "ns", 1_000.0
WORK = ((NS, "q"), "work")


def waiting(uid: str, **fields: Any) -> events.TaskWaiting:
    fields = {"created": NOW - 1} | fields
    return events.TaskWaiting(Task(uid, NS, uid, "q", "work", **fields))


def there(name: str, pool: str = "p", slots: int = 1) -> list[events.Event]:
    return [
        events.PodSeen(name, NS, name, pool, 0.0),
        events.AgentReady(Agent(name, NS, name, pool, slots)),
    ]


def snapshot(*more: events.Event, took: float | list[float] = 4.0, **queue: Any) -> Snapshot:
    """Pools p and r of one agent each; what runs there runs since `NOW - 1`."""
    given: list[events.Event] = [
        events.QueueApplied(replace(Queue(NS, "q", ("p",), aging_step=0), **queue)),
        events.PoolApplied(Pool(NS, "p")),
        events.PoolApplied(Pool(NS, "r")),
        *there("a"),
        *there("b", "r"),
        *more,
    ]
    leased = [each.task.uid for each in given if isinstance(each, events.TaskLeased)]
    return Snapshot(NOW, given, dict.fromkeys(leased, NOW - 1), {WORK: took if isinstance(took, list) else [took]})


RUNNING = events.TaskLeased(Task("running", NS, "running", "q", "work", 0.0, attempted=True), "a")
AHEAD = [waiting("first", created=NOW - 3), waiting("second", created=NOW - 2)]

CASES: dict[str, tuple[Snapshot, Change, float | None, float | None]] = {
    # Name: snapshot, change, start before, start after; from now on.
    "at once": (snapshot(waiting("z")), Change(), 0, 0),
    "after what runs": (snapshot(RUNNING, waiting("z")), Change(), 3, 3),
    "after those ahead": (snapshot(RUNNING, *AHEAD, waiting("z")), Change(), 11, 11),
    "with a higher priority": (
        snapshot(RUNNING, *AHEAD, waiting("z")),
        Change(priority=Priority.HIGH.level),
        11,
        3,
    ),
    "in another pool": (snapshot(RUNNING, *AHEAD, waiting("z")), Change(pool="r"), 11, 0),
    "with one agent more": (snapshot(RUNNING, *AHEAD, waiting("z")), Change(agents={"p": 1}), 11, 6),
    "with two agents more": (snapshot(RUNNING, *AHEAD, waiting("z")), Change(agents={"p": 2}), 11, 3),
    "where nobody can": (snapshot(waiting("z", skills=frozenset({"gpu"}))), Change(priority=5), None, None),
    "where another pool could": (snapshot(waiting("z", pool="none")), Change(pool="p"), None, 0),
    "not before its time": (snapshot(waiting("z", not_before=NOW + 7)), Change(priority=4), 7, 7),
    "suspended": (snapshot(waiting("z", suspended=True)), Change(agents={"p": 3}), None, None),
    "held for a former leader": (
        snapshot(
            events.TaskHeld(waiting("z").task, Reason.RECOVERING),
            hold_seconds=30.0,
        ),
        Change(),
        30,
        30,
    ),
}


@pytest.mark.parametrize(("given", "change", "before", "after"), CASES.values(), ids=CASES.keys())
def test_when_it_starts(given: Snapshot, change: Change, before: float | None, after: float | None) -> None:
    found = what_if(given, "z", change, runs=3, start_seconds=2)
    for course, expected in ((found.before, before), (found.after, after)):
        assert course.start == (None if expected is None else pytest.approx(NOW + expected))
        assert course.started == (expected is not None)
        assert (course.interval is None) == (expected is None)


def test_a_pool_that_scales_does_so_here_too() -> None:
    elastic = events.PoolApplied(Pool(NS, "p", elastic=True, minimum=0, maximum=3))
    given = snapshot(RUNNING, *AHEAD, waiting("z"))
    given = replace(given, events=[*given.events, elastic])
    assert what_if(given, "z", Change(), runs=1, start_seconds=2).before.start == pytest.approx(NOW + 3)


def test_intervals_follow_from_what_was_seen() -> None:
    took = [float(n) for n in range(2, 102)]
    found = what_if(snapshot(RUNNING, waiting("z"), took=took), "z", Change(), runs=400)
    assert found.before.interval is not None
    low, high = (each - NOW for each in found.before.interval)
    assert low == pytest.approx(10, abs=4)
    assert high == pytest.approx(90, abs=4)


def test_without_history_services_are_exponential() -> None:
    given = replace(snapshot(RUNNING, waiting("z"), expected_service=10.0), services={})
    found = what_if(given, "z", Change(), runs=600)
    assert found.before.start == pytest.approx(NOW + 6.93, abs=1.2)


def test_both_courses_draw_the_same() -> None:
    given = replace(snapshot(RUNNING, *AHEAD, waiting("z")), services={})
    found = what_if(given, "z", Change(priority=Priority.NORMAL.level), runs=20)
    assert found.before == found.after
    assert found == what_if(given, "z", Change(), runs=20)


@pytest.mark.parametrize(
    ("uid", "change"), [("nobody", Change()), ("z", Change(pool="x")), ("z", Change(agents={"x": 1}))]
)
def test_what_is_not_there_is_refused(uid: str, change: Change) -> None:
    with pytest.raises(NotPlayed):
        what_if(snapshot(waiting("z")), uid, change)


def test_where_time_is_short_a_few_runs_are_played() -> None:
    given = snapshot(RUNNING, *AHEAD, waiting("z"))
    found = what_if(given, "z", Change(), go_on=lambda: False)
    assert (found.runs, found) == (FEWEST, what_if(given, "z", Change(), runs=FEWEST))
    assert what_if(given, "z", Change()).runs == RUNS


def test_more_agents_are_of_the_first_pool_that_it_may_use() -> None:
    given = snapshot(RUNNING, *AHEAD, waiting("z"))
    pool = next(each.pool.name for each in given.events if isinstance(each, events.PoolApplied))
    assert what_if(given, "z", Change(more=2)) == what_if(given, "z", Change(agents={pool: 2}))
    both = what_if(given, "z", Change(agents={pool: 1}, more=1))
    assert both == what_if(given, "z", Change(agents={pool: 2}))


def test_what_is_known_by_mean_and_variance_is_drawn_so() -> None:
    known = Estimate()
    for seconds in (10.0, 20.0, 30.0, 20.0) * 10:
        known.add(seconds)
    drawn = likely(known)
    assert sum(drawn) / len(drawn) == pytest.approx(20.0, rel=0.02)
    assert drawn == sorted(drawn)
    assert drawn[0] > 5.0
    assert likely(Estimate()) == [0.0] * len(drawn)
