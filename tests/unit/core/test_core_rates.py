"""Buckets of tokens: what stands of what was taken never exceeds what time brings, whatever is given back when."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.limits.token_bucket import PEAKS, Bucket
from taskdist.core.model import TokenRate


@pytest.mark.parametrize(
    ("burst", "takes", "back", "left"),
    [
        pytest.param(3, [(0.0, 3.0)], 0.0, 3.0, id="at once: all of it"),
        pytest.param(3, [(0.0, 3.0)], 2.0, 3.0, id="before it would have been full again: all of it"),
        pytest.param(3, [(0.0, 3.0), (3.0, 3.0)], 3.5, 0.5, id="full in between: nothing of it"),
        pytest.param(3, [(0.0, 3.0), (1.0, 1.0)], 1.0, 2.0, id="it would have been full: what had room"),
        pytest.param(3, [(0.0, 1.0), (0.0, 1.0), (0.0, 1.0)], 0.0, 1.0, id="several at one time"),
        pytest.param(2, [(0.0, 1.0), (0.0, 1.0), (1.0, 1.0)], 1.0, 1.0, id="the room of one that came back is gone"),
    ],
)
def test_what_is_given_back_is_what_would_be_there(
    burst: int, takes: list[tuple[float, float]], back: float, left: float
) -> None:
    bucket = Bucket(TokenRate(1.0, burst))
    for at, amount in takes:
        bucket.take(at, amount)
    since, amount = takes[0]
    bucket.give_back(back, amount=amount, since=since)
    assert bucket.tokens(back) == pytest.approx(left)


def test_of_two_that_come_back_only_so_much_returns_as_would_have_had_room() -> None:
    bucket = Bucket(TokenRate(1.0, 2))
    bucket.take(0.0)
    bucket.take(0.0)
    bucket.take(1.0)
    bucket.give_back(1.0, since=0.0)
    bucket.give_back(1.0, since=0.0)
    assert bucket.tokens(1.0) == pytest.approx(1.0), "it would have been full at 1.0, when one was taken"


@given(
    st.integers(1, 4),
    st.sampled_from((0.25, 1.0, 3.0)),
    st.lists(st.tuples(st.sampled_from(("take", "back")), st.floats(0.0, 3.0), st.integers(0, 5)), max_size=60),
)
def test_over_any_window_what_stands_is_at_most_what_there_was_and_what_came(
    burst: int, per_second: float, steps: list[tuple[str, float, int]]
) -> None:
    bucket, now = Bucket(TokenRate(per_second, burst)), 10.0
    standing: list[tuple[float, float]] = []
    for what, later, number in steps:
        now += later
        if what == "take" and bucket.has(amount := float(min(1 + number, burst)), now):
            bucket.take(now, amount)
            standing.append((now, amount))
        elif what == "back" and standing:
            since, amount = standing.pop(number % len(standing))
            bucket.give_back(now, amount=amount, since=since)
        assert bucket.tokens(now) <= burst
    for n, (first, _) in enumerate(standing):
        total = 0.0
        for at, amount in standing[n:]:
            total += amount
            assert total <= burst + per_second * (at - first) + 1e-6


def test_the_memory_of_levels_is_bounded_and_errs_towards_giving_back_less() -> None:
    bucket = Bucket(TokenRate(0.001, 1000))
    for n in range(500):
        bucket.take(float(n))
    assert len(bucket._peaks) <= PEAKS
    before = bucket.tokens(500.0)
    bucket.give_back(500.0, since=499.0)
    assert bucket.tokens(500.0) == pytest.approx(before + 1.0)
    bucket.give_back(500.0, since=0.0)
    assert bucket.tokens(500.0) <= before + 2.0
