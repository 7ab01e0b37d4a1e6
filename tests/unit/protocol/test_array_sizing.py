"""Sizes of chunks: small at first, as large as fills the target, smaller again at the end."""

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.protocol.arrays import sizing
from taskdist.protocol.arrays.sizing import ChunkSizes, Paces


def grown(sizes: ChunkSizes, seconds: float, times: int) -> list[int]:
    """The sizes of so many chunks, one after the other, where an item takes so long."""
    seen = []
    for _ in range(times):
        seen.append(size := sizes.next(1_000_000, 1))
        sizes.measured(size, size * seconds)
    return seen


def test_the_first_chunk_is_one_item_and_sizes_grow_eightfold_while_chunks_are_short_then_twofold() -> None:
    assert grown(ChunkSizes(100_000, 5.0), 0.001, 9) == [1, 8, 64, 500, 1000, 2000, 4000, 5000, 5000]


def test_a_first_item_that_takes_long_for_once_is_soon_forgotten() -> None:
    sizes = ChunkSizes(100_000, 5.0)
    sizes.measured(1, 1.0)
    assert grown(sizes, 0.0001, 6)[-1] > 2000


@pytest.mark.parametrize("begun", [1, 3, 100, 1000])
def test_after_a_chunk_that_failed_the_next_is_at_most_half_as_large_and_sizes_double_only(begun: int) -> None:
    sizes = ChunkSizes(100_000, 5.0)
    sizes.measured(1000, 0.01)
    sizes.failed(begun)
    seen = grown(sizes, 0.00001, 6)
    assert seen[0] <= max(1, begun // 2)
    assert all(other <= 2 * one for one, other in pairwise(seen))
    assert seen[-1] > seen[0]


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
    for _ in range(20):
        sizes.measured(100, 100.0)
    assert sizes.next(1_000_000, 1) == 5


@given(
    st.lists(st.tuples(st.integers(-3, 10**6), st.floats(allow_nan=True, allow_infinity=True)), max_size=6),
    st.lists(st.integers(0, 10**6), max_size=2),
    st.integers(0, 10**6),
    st.integers(0, 2000),
    st.integers(1, 5000),
    st.floats(0.001, 1e6),
)
def test_a_size_is_always_within_its_bounds(
    measured: list[tuple[int, float]], failed: list[int], left: int, at_once: int, most: int, target: float
) -> None:
    sizes = ChunkSizes(most, target)
    for items, seconds in measured:
        sizes.measured(items, seconds)
    for items in failed:
        sizes.failed(items)
    assert 1 <= sizes.next(left, at_once) <= max(1, most)


class TestTheNextArrayOfAKind:
    KIND = (("ns", "q"), "resize")

    @pytest.mark.parametrize(
        ("each", "chunk", "first"),
        [
            pytest.param(0.001, 5000, 496, id="fills a tenth of the target with its first chunk"),
            pytest.param(0.001, 10, 80, id="begins with eight times what was seen at most"),
            pytest.param(60.0, 1, 1, id="begins with one item where an item takes long"),
            pytest.param(0.0, 10, 80, id="takes no time that cannot be measured for a promise"),
        ],
    )
    def test_begins_with_what_items_took_before(self, each: float, chunk: int, first: int) -> None:
        paces = Paces()
        paces.measured(self.KIND, chunk, chunk * each)
        assert paces.begin(self.KIND, 100_000, 5.0).next(1_000_000, 4) == first
        assert paces.begin((("ns", "q"), "other"), 100_000, 5.0).next(1_000_000, 4) == 1
        assert paces.begin((("ns", "other"), "resize"), 100_000, 5.0).next(1_000_000, 4) == 1

    def test_keeps_to_its_own_bound(self) -> None:
        paces = Paces()
        paces.measured(self.KIND, 5000, 5.0)
        assert paces.begin(self.KIND, 7, 5.0).next(1_000_000, 4) == 7

    def test_follows_what_chunks_take_now(self) -> None:
        paces = Paces()
        paces.measured(self.KIND, 1000, 1000.0)
        for _ in range(20):
            paces.measured(self.KIND, 1000, 1.0)
        assert paces.begin(self.KIND, 100_000, 5.0).next(1_000_000, 4) > 400

    def test_only_so_many_kinds_are_kept_and_those_measured_last(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sizing, "MOST_KINDS", 2)
        paces = Paces()
        for name in ("a", "b", "a", "c"):
            paces.measured((("ns", "q"), name), 1, 1.0)
        assert [name for _, name in paces.kinds] == ["a", "c"]
