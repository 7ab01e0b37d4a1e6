"""Sets of indexes against Python's own sets, and their text."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.protocol.arrays.indexes import EMPTY, IndexSet

SETS = st.sets(st.integers(0, 60)).map(frozenset)


@given(SETS, SETS, st.integers(0, 70))
def test_operations_are_those_of_sets(a: frozenset[int], b: frozenset[int], n: int) -> None:
    one, other = IndexSet.of(a), IndexSet.of(b)
    assert set(one | other) == a | b
    assert set(one - other) == a - b
    assert set(one & other) == a & b
    assert (one <= other) == (a <= b)
    assert (n in one) == (n in a)
    assert list(one.take(n)) == sorted(a)[:n]
    assert len(one) == len(a)
    assert bool(one) == bool(a)
    assert set(IndexSet.union((one, other, one))) == a | b


@given(SETS, SETS)
def test_equal_sets_have_one_form(a: frozenset[int], b: frozenset[int]) -> None:
    for made in (IndexSet.of(a) | IndexSet.of(b), IndexSet.of(a | b), IndexSet.parse(str(IndexSet.of(a | b)))):
        assert made == IndexSet.of(sorted(a | b, reverse=True))


@pytest.mark.parametrize(
    ("text", "items"),
    [("", []), ("0", [0]), ("0-2", [0, 1, 2]), ("0-1,3,5-6", [0, 1, 3, 5, 6]), ("999999", [999_999])],
)
def test_a_text_is_read(text: str, items: list[int]) -> None:
    assert list(IndexSet.parse(text)) == items
    assert str(IndexSet.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        *("-", "-1", "1-", "a", "1,", ",1", "1 ", "+1", "1.0", "٣", "01", "0x1"),
        *("3-2", "2-2", "1,1", "1,0", "0-4,5", "0-4,4", "1000000", "99999999999999999999"),
    ],
)
def test_any_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"is no|is beyond"):
        IndexSet.parse(text)


def test_a_million_in_a_run_is_short() -> None:
    all_of_them = IndexSet.span(0, 999_999)
    assert str(all_of_them - IndexSet.of([500_000])) == "0-499999,500001-999999"
    assert len(all_of_them) == 1_000_000
    assert IndexSet.span(3, 2) == EMPTY
