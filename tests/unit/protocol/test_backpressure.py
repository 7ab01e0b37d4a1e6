"""When a queue takes new Tasks: marks, hysteresis, and the words for it."""

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.model import Overflow, Queue, Quota
from taskdist.protocol.backpressure import Cause, Doors, closed_by, marks, words

PLAIN = Queue("ns", "q", ("p",))
TANK = replace(PLAIN, overflow=Overflow(high_water=10, low_water=4))
QUOTA = replace(PLAIN, quota=Quota(waiting=20))
ARCHIVED = replace(PLAIN, archive_backlog=100)
BYTES = replace(PLAIN, quota=Quota(payload_bytes=1000))
OPEN: frozenset[Cause] = frozenset()


@pytest.mark.parametrize(
    ("queue", "waiting", "payload", "before", "closed"),
    [
        pytest.param(PLAIN, 10**6, 10**9, OPEN, OPEN, id="without bounds it is never full"),
        pytest.param(TANK, 9, 0, OPEN, OPEN, id="below the high mark"),
        pytest.param(TANK, 10, 0, OPEN, {Cause.OVERFLOW}, id="at the high mark it closes"),
        pytest.param(TANK, 5, 0, {Cause.OVERFLOW}, {Cause.OVERFLOW}, id="above the low mark it stays closed"),
        pytest.param(TANK, 5, 0, OPEN, OPEN, id="between the marks it stays open"),
        pytest.param(TANK, 4, 0, {Cause.OVERFLOW}, OPEN, id="at the low mark it opens"),
        pytest.param(QUOTA, 20, 0, OPEN, {Cause.WAITING}, id="a quota of waiting Tasks is reached"),
        pytest.param(QUOTA, 19, 0, {Cause.WAITING}, {Cause.WAITING}, id="a quota has a lower mark too"),
        pytest.param(QUOTA, 18, 0, {Cause.WAITING}, OPEN, id="at nine tenths it opens"),
        pytest.param(BYTES, 1, 1000, OPEN, {Cause.PAYLOAD}, id="a quota of bytes is reached"),
        pytest.param(BYTES, 1, 900, {Cause.PAYLOAD}, OPEN, id="and is not any more"),
        pytest.param(replace(PLAIN, drained=True), 0, 0, OPEN, {Cause.DRAINED}, id="drained"),
        pytest.param(PLAIN, 0, 0, {Cause.DRAINED}, OPEN, id="not drained any more"),
        pytest.param(replace(PLAIN, paused=True), 0, 0, OPEN, OPEN, id="a paused queue takes Tasks"),
        pytest.param(
            replace(TANK, quota=Quota(payload_bytes=1000)),
            5,
            1000,
            OPEN,
            {Cause.PAYLOAD},
            id="what closes it for one cause does not hold it for another",
        ),
        pytest.param(
            replace(PLAIN, overflow=Overflow(5, 9)), 4, 0, {Cause.OVERFLOW}, OPEN, id="a low mark above the high one"
        ),
        pytest.param(replace(PLAIN, quota=Quota(waiting=1)), 0, 0, {Cause.WAITING}, OPEN, id="the smallest quota"),
    ],
)
def test_closed_by(
    queue: Queue, waiting: int, payload: int, before: frozenset[Cause], closed: frozenset[Cause]
) -> None:
    assert closed_by(queue, waiting, payload, frozenset(before)) == closed


queues = st.builds(
    lambda high, low, waiting, size, drained: replace(
        PLAIN, overflow=Overflow(high, low) if high else None, quota=Quota(waiting, None, None, size), drained=drained
    ),
    st.integers(0, 30),
    st.integers(0, 30),
    st.none() | st.integers(1, 30),
    st.none() | st.integers(1, 100),
    st.booleans(),
)
numbers = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 120)), min_size=1, max_size=30)


@given(queues, numbers)
def test_a_full_queue_is_closed_an_empty_one_open_and_one_that_stands_still_does_not_swing(
    queue: Queue, history: list[tuple[int, int]]
) -> None:
    causes = OPEN
    for waiting, payload in history:
        causes = closed_by(queue, waiting, payload, causes)
        full = any((payload if m.cause is Cause.PAYLOAD else waiting) >= m.high for m in marks(queue))
        assert not full or causes
        assert closed_by(queue, waiting, payload, causes) == causes
        assert bool(words(queue, causes)) is bool(causes)
    assert bool(closed_by(queue, 0, 0, causes)) is queue.drained


@given(queues, numbers)
def test_between_two_turns_of_a_mark_lies_its_whole_band(queue: Queue, history: list[tuple[int, int]]) -> None:
    causes, turns = OPEN, {m.cause: [(0, False)] for m in marks(queue)}
    for waiting, payload in history:
        now = closed_by(queue, waiting, payload, causes)
        for mark in marks(queue):
            if (mark.cause in now) is not (mark.cause in causes):
                there = payload if mark.cause is Cause.PAYLOAD else waiting
                turns[mark.cause].append((there, mark.cause in now))
        causes = now
    for mark in marks(queue):
        for (_, was), (there, closed) in pairwise(turns[mark.cause]):
            assert was is not closed
            assert there >= mark.high if closed else there <= mark.low


@pytest.mark.parametrize(
    ("unarchived", "before", "closed"),
    [(99, OPEN, False), (100, OPEN, True), (91, {Cause.ARCHIVE}, True), (90, {Cause.ARCHIVE}, False)],
)
def test_a_queue_closes_while_too_many_wait_for_the_archive(
    unarchived: int, before: frozenset[Cause], closed: bool
) -> None:
    assert closed_by(ARCHIVED, 10**6, 10**6, frozenset(before), unarchived) == ({Cause.ARCHIVE} if closed else OPEN)
    assert closed_by(PLAIN, 0, 0, frozenset(before), unarchived) == OPEN


def test_words_name_the_field_and_what_to_do() -> None:
    assert "spec.overflow.highWater is 10; it opens again at 4 waiting." in words(TANK, frozenset({Cause.OVERFLOW}))
    assert "spec.quota.payloadBytes is 1000" in words(BYTES, frozenset({Cause.PAYLOAD}))
    assert "spec.drained" in words(replace(TANK, drained=True), frozenset({Cause.DRAINED, Cause.OVERFLOW}))
    archive = words(ARCHIVED, frozenset({Cause.ARCHIVE}))
    assert "spec.archiveBacklog is 100; it opens again at 90 that wait for the archive. Is the archive run" in archive
    assert words(TANK, OPEN) == ""


def test_a_turn_is_told_once() -> None:
    doors = Doors()
    doors.applied(TANK)
    assert doors.watched == (TANK.key,)
    assert [doors.look(TANK.key, n, 0) for n in (9, 10, 11, 5, 4, 4)] == [False, True, False, False, True, False]


def test_queues_that_are_never_full_are_not_looked_at() -> None:
    doors = Doors()
    doors.applied(PLAIN)
    assert doors.watched == ()
    assert doors.closed(PLAIN.key) == ""


def test_after_a_change_of_leader_a_closed_door_opens_at_its_low_mark_only() -> None:
    doors = Doors()
    doors.restore(TANK.key)
    doors.applied(TANK)
    doors.look(TANK.key, 7, 0)
    assert doors.closed(TANK.key)
    assert doors.look(TANK.key, 4, 0)
    assert not doors.closed(TANK.key)


def test_a_closed_door_whose_rule_is_gone_opens() -> None:
    doors = Doors()
    doors.restore(PLAIN.key)
    doors.applied(PLAIN)
    assert doors.look(PLAIN.key, 100, 0)
    assert doors.watched == ()


def test_a_queue_that_is_gone_leaves_nothing() -> None:
    doors = Doors()
    doors.applied(TANK)
    doors.look(TANK.key, 10, 0)
    doors.dropped(TANK.key)
    assert doors.watched == ()
    doors.applied(TANK)
    assert not doors.look(TANK.key, 5, 0)
