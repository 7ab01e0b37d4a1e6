"""Waits grow to their bound and no further, and chance only ever shortens them."""

import random
from itertools import pairwise

import pytest

from taskdist.common.backoff import Backoff


@pytest.mark.parametrize("attempt", [0, 1, 4, 5, 64, 65, 10_000, 10**400])
def test_backoff_grows_to_its_most_and_never_beyond(attempt: int) -> None:
    backoff, rng = Backoff(first=0.1, most=3, factor=2, jitter=0.5), random.Random(1)
    full = min(3, 0.1 * 2 ** min(attempt, 64))
    assert backoff.full(attempt) == full
    for _ in range(20):
        assert full * 0.5 < backoff.wait(attempt, rng) <= full


def test_without_jitter_nothing_is_left_to_chance() -> None:
    backoff = Backoff(first=1, most=5, jitter=0)
    assert [backoff.wait(n, random.Random(n)) for n in range(5)] == [1, 2, 4, 5, 5]


def test_many_do_not_come_back_together() -> None:
    backoff, rng = Backoff(first=1, most=1), random.Random(1)
    waits = sorted(backoff.wait(0, rng) for _ in range(1000))
    assert waits[0] < 0.55
    assert waits[-1] > 0.95
    assert max(b - a for a, b in pairwise(waits)) < 0.01
