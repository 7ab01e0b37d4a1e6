"""How far a Task goes through the files of the protocol: a change that sends it further is seen, and weighed."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from taskdist.protocol.messages import Capacity
from taskdist.protocol.observations import Written
from unit.protocol.desk import POOL, QUEUE, Desk, assigned, record
from walks import walk

ROOM = "protocol/"


def desk() -> Desk:
    """One queue, one pool, one agent of two slots."""
    one = Desk(QUEUE, pods=1, pool=replace(POOL, slots=2, minimum=1, maximum=1))
    one.connect(1, slots=2)
    return one


def observed(one: Desk) -> Callable[[], object]:
    return lambda: one.do("task_observed", record())


def answered(one: Desk) -> Callable[[], object]:
    one.do("task_observed", record())
    return lambda: one.answer(Written(assigned(), b"{}"))


def capacity(one: Desk) -> Callable[[], object]:
    return lambda: one.says(1, Capacity(1))


@pytest.mark.parametrize(
    ("begin", "files", "moves"),
    [
        pytest.param(observed, 10, 23, id="a Task is observed, its assignment is written"),
        pytest.param(answered, 10, 19, id="the write is answered, the agent gets its lease"),
        pytest.param(capacity, 7, 9, id="an agent reports capacity"),
    ],
)
def test_a_walk_stays_short(begin: Callable[[Desk], Callable[[], object]], files: int, moves: int) -> None:
    way = walk(begin(desk())).within(ROOM)
    assert way.files <= files, way.stops
    assert way.moves <= moves, way.stops
    assert way.moves > 0
