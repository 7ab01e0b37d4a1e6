"""Times at which something is due, against a plain dictionary."""

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from builders import make_task
from taskdist.core.agents.filters import need_of
from taskdist.core.engine.wakeups import Wakeups
from taskdist.core.fleet.equivalence import Shape
from taskdist.core.ordering.lines import TaskCounts, TaskRecord
from taskdist.core.primitives.alarms import Alarms

NAMES = [f"t{number}" for number in range(5)]
TIMES = st.integers(0, 9).map(float)
# Set one (at an infinite time: clear it), clear one, or take what is due.
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("set"), st.sampled_from(NAMES), TIMES | st.just(inf)),
        st.tuples(st.just("clear"), st.sampled_from(NAMES), st.just(0.0)),
        st.tuples(st.just("due"), st.just(""), TIMES),
    ),
    max_size=200,
)


def record(name: str) -> TaskRecord:
    task = make_task(name).build()
    key = (task.queue_key, None, "work", 1, (), frozenset[str](), (), False, None)
    shape = Shape(key, need_of(task, False))
    return TaskRecord(task, shape, TaskCounts())


@given(STEPS)
def test_a_watch_rings_for_whom_it_was_set_last(steps: list[tuple[str, str, float]]) -> None:
    watch, records = Wakeups(), {name: record(name) for name in NAMES}
    expected: dict[str, float] = {}
    for step, name, at in steps:
        if step == "due":
            due = sorted((when, name) for name, when in expected.items() if when <= at)
            found = [(expected.pop(each.task.uid), each.task.uid) for each in watch.due(at)]
            assert sorted(found) == due
            assert [when for when, _ in found] == [when for when, _ in due]
        elif step == "set":
            watch.set(records[name], at)
            expected.pop(name, None)
            if at < inf:
                expected[name] = at
        else:
            watch.clear(records[name])
            expected.pop(name, None)
        assert watch.next() == min(expected.values(), default=None)


@given(STEPS)
def test_alarms_ring_for_what_was_set_last(steps: list[tuple[str, str, float]]) -> None:
    alarms, expected = Alarms(), dict[str, float]()
    for step, name, at in steps:
        if step == "due":
            found = alarms.due(at)
            first = min(((when, name) for name, when in expected.items() if when <= at), default=None)
            assert found == (first[1] if first is not None else None)
            if found is not None:
                del expected[found]
        elif step == "set" and at < inf:
            alarms.set(name, at)
            expected[name] = at
        elif step == "clear":
            alarms.clear(name)
            expected.pop(name, None)
        assert alarms.next() == min(expected.values(), default=None)


def test_heaps_do_not_grow_with_what_was_set_before() -> None:
    watch, alarms, one = Wakeups(), Alarms(), record("t")
    for number in range(10_000):
        watch.set(one, float(number))
        alarms.set("t", float(number))
    assert len(watch._heap) <= 70
    assert len(alarms._heap) <= 70
