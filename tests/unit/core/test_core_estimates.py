"""What is expected of a type follows what was observed of it, and takes no more room than it may."""

from random import Random
from statistics import fmean, pvariance

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.core.model import Queue
from taskdist.core.primitives.service_times import MEMORY, Estimates

QUEUE = Queue("ns", "q", expected_service=7.0)


def test_the_queues_word_counts_until_something_is_seen() -> None:
    estimates = Estimates()
    assert estimates.expected(QUEUE.key, "work", QUEUE.expected_service) == 7.0
    assert estimates.of(QUEUE.key, "work") is None
    estimates.observe(QUEUE.key, "work", 2.0)
    assert estimates.expected(QUEUE.key, "work", QUEUE.expected_service) == 2.0
    assert estimates.expected(QUEUE.key, "other", QUEUE.expected_service) == 7.0
    assert estimates.expected(("ns", "other"), "work", 10.0) == 10.0


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=MEMORY))
def test_the_first_ones_count_alike(seconds: list[float]) -> None:
    estimates = Estimates()
    for each in seconds:
        estimates.observe(QUEUE.key, "work", each)
    found = estimates.of(QUEUE.key, "work")
    assert found is not None
    assert found.count == len(seconds)
    assert found.mean == pytest.approx(fmean(seconds), abs=1e-6)
    assert found.variance == pytest.approx(pvariance(seconds), rel=1e-6, abs=1e-3)


@given(st.lists(st.floats(0.0, 1e6), min_size=1, max_size=200))
def test_it_stays_within_what_was_seen(seconds: list[float]) -> None:
    estimates = Estimates()
    for each in seconds:
        estimates.observe(QUEUE.key, "work", each)
    found = estimates.of(QUEUE.key, "work")
    assert found is not None
    assert min(seconds) - 1e-6 <= found.mean <= max(seconds) + 1e-6
    assert 0.0 <= found.variance <= (max(seconds) - min(seconds)) ** 2 / 4 * (1 + 1e-9) + 1e-6


def test_it_follows_a_change_within_its_memory() -> None:
    estimates = Estimates()
    for _ in range(500):
        estimates.observe(QUEUE.key, "work", 1.0)
    for _ in range(3 * MEMORY):
        estimates.observe(QUEUE.key, "work", 9.0)
    assert estimates.expected(QUEUE.key, "work", QUEUE.expected_service) > 8.5


def test_the_type_seen_longest_ago_is_forgotten_first() -> None:
    estimates = Estimates(types=3)
    for name in ("a", "b", "c", "a", "d", "e"):
        estimates.observe(QUEUE.key, name, 1.0)
    assert len(estimates) == 3
    assert [estimates.of(QUEUE.key, name) is not None for name in "abcde"] == [True, False, False, True, True]


def test_how_quick_one_in_ten_is() -> None:
    estimates = Estimates()
    draws = Random(1)
    for _ in range(5):
        estimates.observe(QUEUE.key, "constant", 3.0)
    for _ in range(4_000):
        estimates.observe(QUEUE.key, "varied", draws.lognormvariate(0.0, 0.5))
    estimates.observe(QUEUE.key, "once", 2.0)
    estimates.observe(QUEUE.key, "nothing", 0.0)

    def quickest(type: str) -> float:
        found = estimates.of(QUEUE.key, type)
        assert found is not None
        return found.quickest

    assert quickest("constant") == pytest.approx(3.0)
    # The tenth of this lognormal is exp(−0.5 · 1.2816).
    assert quickest("varied") == pytest.approx(0.527, rel=0.25)
    assert 0 < quickest("once") < 1
    assert quickest("nothing") == 0
