"""Which word may be given, and what waits for the database."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.archive.buffer import Buffer
from taskdist.archive.progress import Item, Progress
from taskdist.archive.rows import row

TASK: dict[str, Any] = {"metadata": {"uid": "u", "name": "t", "resourceVersion": "1"}, "spec": {}, "status": {}}
ROW = row(TASK)


def after(*items: Item) -> dict[str, int] | None:
    progress = Progress()
    progress.committed(items)
    return progress.due()


@pytest.mark.parametrize(
    ("items", "word"),
    [
        pytest.param([], None, id="nothing is known"),
        pytest.param([Item("*", 0, ROW)], None, id="in the midst of a list"),
        pytest.param([Item("*", 0, ROW), Item("*", 9)], {"*": 9}, id="a whole list"),
        pytest.param([Item("*", 9), Item("*", 12, ROW)], {"*": 12}, id="a watch goes on"),
        pytest.param([Item("*", 9), Item("*", 0, ROW)], {"*": 9}, id="a second list says nothing before its end"),
        pytest.param([Item("a", 9), Item("b", 4)], {"a": 9, "b": 4}, id="each namespace by itself"),
        pytest.param([Item("*", 9), Item("*", -1)], None, id="taken back"),
        pytest.param([Item("*", 9), Item("*", -1), Item("*", 3)], {"*": 3}, id="a history that begins anew"),
    ],
)
def test_the_word_is_what_is_committed(items: list[Item], word: dict[str, int] | None) -> None:
    assert after(*items) == word


def test_a_word_is_given_once_and_taken_back_once() -> None:
    progress = Progress()
    progress.committed([Item("*", 9)])
    assert progress.due() == {"*": 9}
    assert progress.due() == {"*": 9}, "it was not written"
    progress.told({"*": 9})
    assert progress.due() is None
    progress.committed([Item("*", -1)])
    assert progress.due() == {}
    progress.told({})
    assert progress.due() is None


def test_what_is_committed_while_a_word_is_written_is_told_next() -> None:
    progress = Progress()
    progress.committed([Item("*", 9)])
    word = progress.due()
    assert word is not None
    progress.committed([Item("*", 12, ROW)])
    progress.told(word)
    assert progress.due() == {"*": 12}


@given(st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 50)), max_size=30), st.data())
def test_no_word_says_more_than_is_committed(marks: list[tuple[str, int]], data: st.DataObject) -> None:
    items = [Item(scope, mark, ROW) for scope, mark in marks]
    cut = data.draw(st.integers(0, len(items)))
    word = after(*items[:cut]) or {}
    for scope, mark in word.items():
        assert mark in [item.mark for item in items[:cut] if item.scope == scope]


# -- the buffer ------------------------------------------------------------------------------------------------------


def marks(items: list[Item]) -> list[int]:
    return [item.mark for item in items]


async def test_first_in_first_out_in_bounded_batches() -> None:
    buffer = Buffer()
    for number in range(1, 6):
        await buffer.put(Item("*", number, ROW if number == 3 else None))
    assert (len(buffer), buffer.oldest) == (5, Item("*", 3, ROW))
    assert marks(await buffer.batch(2, 10**6)) == [1, 2]
    assert marks(await buffer.batch(9, 250)) == [1, 2]
    assert marks(await buffer.batch(9, 1)) == [1], "one alone always goes"
    await buffer.take(2)
    assert marks(await buffer.batch(9, 10**6)) == [3, 4, 5]
    await buffer.take(3)
    assert (len(buffer), buffer.size) == (0, 0)


@pytest.mark.parametrize("bound", [{"most_items": 3}, {"most_bytes": 3 * ROW.size}], ids=["number", "bytes"])
async def test_who_puts_waits_while_it_is_full(bound: dict[str, int]) -> None:
    buffer = Buffer(**bound)

    async def fill() -> None:
        for number in range(5):
            await buffer.put(Item("*", number, ROW))

    filling = asyncio.create_task(fill())
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(buffer) == 3
    await buffer.batch(1, 10**6)
    await buffer.take(1)
    for _ in range(20):
        await asyncio.sleep(0)
    assert marks(await buffer.batch(9, 10**6)) == [1, 2, 3]
    await buffer.take(3)
    await filling
    assert marks(await buffer.batch(9, 10**6)) == [4]


async def test_one_that_is_larger_than_the_bound_has_room_alone() -> None:
    buffer = Buffer(most_bytes=1)
    await buffer.put(Item("*", 1, ROW))
    assert len(buffer) == 1


async def test_marks_of_another_history_go_and_tasks_stay() -> None:
    buffer = Buffer()
    await buffer.put(Item("*", 7, ROW))
    buffer.without_marks()
    assert await buffer.batch(9, 10**6) == [Item("*", 0, ROW)]
