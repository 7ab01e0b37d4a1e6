"""Work on many things, a bounded number at once, and hand each back as it is done."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Awaitable, Callable, Iterable
from typing import TypeVar

ItemT = TypeVar("ItemT")
DoneT = TypeVar("DoneT")


async def windowed(
    items: Iterable[ItemT] | AsyncIterable[ItemT],
    work: Callable[[int, ItemT], Awaitable[DoneT]],
    *,
    window: int,
    ordered: bool,
) -> AsyncGenerator[DoneT, None]:
    """Yield what `work` makes of each item: as they are done, or in their order.

    No more than `window` items are taken and not yet yielded. An error of `work` or `items` ends it; what is under way
    is cancelled then.
    """
    room = asyncio.Semaphore(max(1, window))
    done: asyncio.Queue[tuple[int, DoneT] | None] = asyncio.Queue()

    async def one(index: int, item: ItemT) -> None:
        done.put_nowait((index, await work(index, item)))

    async def feed() -> None:
        try:
            async with asyncio.TaskGroup() as group:
                index = 0
                async for item in _each(items):
                    await room.acquire()
                    group.create_task(one(index, item))
                    index += 1
        finally:
            done.put_nowait(None)

    feeding = asyncio.ensure_future(feed())
    kept: dict[int, DoneT] = {}
    following = 0
    try:
        while (made := await done.get()) is not None:
            kept[made[0]] = made[1]
            while kept and (not ordered or following in kept):
                found = kept.pop(following if ordered else next(iter(kept)))
                following += 1
                room.release()
                yield found
        try:
            await feeding
        except BaseExceptionGroup as group:
            raise group.exceptions[0] from None
    finally:
        feeding.cancel()
        await asyncio.gather(feeding, return_exceptions=True)


async def _each(items: Iterable[ItemT] | AsyncIterable[ItemT]) -> AsyncIterator[ItemT]:
    if isinstance(items, AsyncIterable):
        async for item in items:
            yield item
    else:
        for item in items:
            yield item
