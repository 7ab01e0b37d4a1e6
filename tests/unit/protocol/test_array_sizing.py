"""Sizes of chunks: small at first, as large as fills the target, smaller again at the end."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.protocol.arrays.sizing import ChunkSizes


def test_the_first_chunk_is_one_item_and_sizes_double_at_most() -> None:
    sizes, seen = ChunkSizes(1000, 5.0), []
    for _ in range(12):
        seen.append(size := sizes.next(1_000_000, 8))
        sizes.measured(size, size * 0.0001)
    assert seen == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1000, 1000]


@pytest.mark.parametrize(
    ("seconds", "left", "at_once", "size"),
    [
        pytest.param(0.1, 100_000, 10, 50, id="as many as fill the target"),
        pytest.param(60.0, 100_000, 10, 1, id="one where an item takes longer than the target"),
        pytest.param(0.0001, 100_000, 10, 1000, id="never more than the most"),
        pytest.param(0.1, 400, 10, 20, id="half of what is left, shared by all parts"),
        pytest.param(0.1, 40, 10, 5, id="no less than a tenth of the target"),
        pytest.param(0.0, 100_000, 10, 1000, id="items that take no time that can be measured"),
    ],
)
def test_the_size_follows_the_time_of_an_item(seconds: float, left: int, at_once: int, size: int) -> None:
    sizes = ChunkSizes(1000, 5.0)
    sizes.measured(1000, 1000 * seconds)
    assert sizes.next(left, at_once) == size


def test_times_that_change_are_followed() -> None:
    sizes = ChunkSizes(1000, 5.0)
    sizes.measured(1000, 10.0)
    for _ in range(12):
        sizes.measured(100, 100.0)
    assert sizes.next(1_000_000, 1) == 5


@given(
    st.lists(st.tuples(st.integers(-3, 10**6), st.floats(allow_nan=True, allow_infinity=True)), max_size=6),
    st.integers(0, 10**6),
    st.integers(0, 2000),
    st.integers(1, 5000),
    st.floats(0.001, 1e6),
)
def test_a_size_is_always_within_its_bounds(
    measured: list[tuple[int, float]], left: int, at_once: int, most: int, target: float
) -> None:
    sizes = ChunkSizes(most, target)
    for items, seconds in measured:
        sizes.measured(items, seconds)
    assert 1 <= sizes.next(left, at_once) <= max(1, most)
