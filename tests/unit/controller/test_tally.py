"""Counts by queue: what is added is taken away again, whatever a deletion shows."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from taskdist.api import Phase
from taskdist.controller.tally import Tally
from taskdist.core.model import Task
from taskdist.protocol.observations import ObservedTask


def record(uid: str, phase: Phase, size: int = 10, queue: str = "q") -> ObservedTask:
    return ObservedTask(Task(uid, "ns", uid, queue, "t", 1.0), 1, phase, payload_bytes=size)


def test_a_task_s_way() -> None:
    tally, key = Tally(), ("ns", "q")
    tally.seen(record("a", Phase.PENDING))
    tally.seen(record("b", Phase.ASSIGNED, 5))
    assert tally.payload_bytes(key) == 15
    tally.seen(record("a", Phase.DEAD_LETTERED))
    assert (tally.payload_bytes(key), tally.dead_letters(key)) == (5, 1)
    assert tally.all_dead_letters() == {key: 1}
    tally.seen(record("a", Phase.CANCELLED))
    assert tally.all_dead_letters() == {}
    tally.seen(record("b", Phase.PENDING, 5, queue="spilled"))
    assert (tally.payload_bytes(key), tally.payload_bytes(("ns", "spilled"))) == (0, 5)


states = st.tuples(
    st.sampled_from("abc"), st.none() | st.sampled_from(list(Phase)), st.integers(0, 9), st.sampled_from("pq")
)


@given(st.lists(states, max_size=40))
def test_numbers_are_those_of_what_is_there(history: list[tuple[str, Phase | None, int, str]]) -> None:
    tally = Tally()
    there: dict[str, ObservedTask] = {}
    for uid, phase, size, queue in history:
        if phase is None:
            tally.gone(uid)
            there.pop(uid, None)
        else:
            there[uid] = record(uid, phase, size, queue)
            tally.seen(there[uid])
    for queue in "pq":
        of = [r for r in there.values() if r.task.queue == queue]
        live = [r.payload_bytes for r in of if r.phase in (Phase.PENDING, Phase.ASSIGNED)]
        assert tally.payload_bytes(("ns", queue)) == sum(live)
        assert tally.dead_letters(("ns", queue)) == sum(r.phase is Phase.DEAD_LETTERED for r in of)
    for uid in there:
        tally.gone(uid)
    assert not tally._counted
    assert not tally._payload_bytes
    assert not tally._dead_letters


def test_what_is_in_another_installation_s_namespaces_is_not_told() -> None:
    others: set[str] = set()
    tally = Tally(lambda namespace: namespace not in others)
    for uid in "abc":
        tally.seen(record(uid, Phase.DEAD_LETTERED))
    task = Task("d", "elsewhere", "d", "q", "t", 1.0)
    tally.seen(ObservedTask(task, 1, Phase.DEAD_LETTERED))
    others.add("ns")
    assert (tally.accepted, tally.all_dead_letters()) == (1, {("elsewhere", "q"): 1})
    tally.gone("a")
    others.clear()
    assert (tally.accepted, tally.all_dead_letters()) == (3, {("elsewhere", "q"): 1, ("ns", "q"): 2})


def test_what_was_accepted_is_all_that_there_is_but_what_is_deleted_before_its_end() -> None:
    tally = Tally()
    for uid, phase in (("a", Phase.PENDING), ("b", Phase.SUCCEEDED), ("c", Phase.DEAD_LETTERED)):
        tally.seen(record(uid, phase))
        tally.seen(record(uid, phase))
    assert tally.accepted == 3
    tally.seen(replace(record("a", Phase.ASSIGNED), deleting=True))
    tally.seen(replace(record("b", Phase.SUCCEEDED), deleting=True))
    assert tally.accepted == 2
    tally.gone("a")
    tally.gone("b")
    assert tally.accepted == 1
