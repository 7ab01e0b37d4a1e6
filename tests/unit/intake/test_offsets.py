"""The offset that is told to a broker: never one before which something is not dealt with, and in the end the last."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from taskdist.intake.offsets import Partition


def test_the_mark_stays_before_the_oldest_that_is_not_dealt_with() -> None:
    made = Partition(5)
    assert (made.watermark, made.next, made.span) == (5, 5, 0)
    for offset in (5, 6, 7):
        made.read(offset)
    made.done(6)
    made.done(7)
    assert (made.watermark, made.next, made.span) == (5, 8, 3)
    made.done(5)
    assert (made.watermark, made.span) == (8, 0)


def test_offsets_that_are_no_messages_are_passed_over() -> None:
    made = Partition(0)
    made.read(10)
    assert made.watermark == 10
    made.read(20)
    made.done(10)
    assert made.watermark == 20
    made.done(20)
    assert made.watermark == 21


@given(st.integers(0, 5), st.lists(st.integers(1, 4), max_size=30), st.randoms(use_true_random=False))
def test_whatever_the_order_the_mark_is_the_first_that_is_open(start: int, gaps: list[int], rng: Random) -> None:
    made, waiting, last = Partition(start), list[int](), start - 1
    for gap in gaps:
        last += gap
        made.read(last)
        waiting.append(last)
        while waiting and rng.random() < 0.4:
            made.done(waiting.pop(rng.randrange(len(waiting))))
        assert made.watermark == min(waiting, default=last + 1)
        assert made.next == last + 1
    for each in waiting:
        made.done(each)
    assert made.watermark == max(last + 1, start)
