"""Payloads that a thread takes: all of them, in order, a bounded number ahead, and however the iterator ends."""

import asyncio
import threading
from collections.abc import Iterator

import pytest

from taskdist.client.pump import Pump


async def all_of(pump: Pump[int]) -> list[int]:
    found: list[int] = []
    while some := await pump.some():
        found += some
    return found


@pytest.mark.parametrize("ahead", [1, 2, 64])
@pytest.mark.parametrize("count", [0, 1, 63, 64, 65, 5000])
async def test_all_come_in_order(count: int, ahead: int) -> None:
    assert await all_of(Pump(range(count), ahead)) == list(range(count))


async def test_an_error_comes_after_what_came_before_it() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    pump = Pump(items())
    assert await pump.some() == [1]
    with pytest.raises(LookupError, match="no more"):
        await pump.some()


async def test_no_more_are_taken_ahead_than_it_may() -> None:
    taken: list[int] = []

    def items() -> Iterator[int]:
        for n in range(100):
            taken.append(n)
            yield n

    pump = Pump(items(), ahead=5)
    found = await pump.some()
    while len(found) < 100:
        assert len(taken) <= len(found) + 5 + 1
        found += await pump.some()


async def test_it_may_block_while_the_loop_goes_on() -> None:
    go = threading.Event()

    def items() -> Iterator[int]:
        yield 1
        assert go.wait(20)
        yield 2

    pump = Pump(items())
    assert await pump.some() == [1]
    coming = asyncio.ensure_future(pump.some())
    await asyncio.sleep(0)
    assert not coming.done()
    go.set()
    assert await coming == [2]


async def test_after_a_stop_the_thread_ends() -> None:
    def items() -> Iterator[int]:
        mine.append(threading.current_thread())
        while True:
            yield 1

    mine: list[threading.Thread] = []
    pump = Pump(items())
    await pump.some()
    pump.stop()
    await asyncio.to_thread(mine[0].join, 20)
    assert not mine[0].is_alive()
