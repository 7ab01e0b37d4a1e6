"""Ended Tasks that are read and not committed yet: bounded in number and bytes, whatever the database does."""

import asyncio
from collections import deque
from dataclasses import replace

from taskdist.archive.progress import Item

MOST_ITEMS = 2000
MOST_BYTES = 32 * 2**20


class Buffer:
    """First in, first out, for one loop. Whoever puts waits while it is full: then Tasks stay with the API server."""

    def __init__(self, most_items: int = MOST_ITEMS, most_bytes: int = MOST_BYTES) -> None:
        self._most_items = most_items
        self._most_bytes = most_bytes
        self._items: deque[Item] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()

    def __len__(self) -> int:
        return len(self._items)

    @property
    def size(self) -> int:
        """Bytes that its items take, about."""
        return self._bytes

    @property
    def oldest(self) -> Item | None:
        """The first one that holds a Task."""
        return next((item for item in self._items if item.row is not None), None)

    async def put(self, item: Item) -> None:
        """Add it, as soon as there is room. One alone always has room."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: (
                    not self._items
                    or (len(self._items) < self._most_items and self._bytes + item.size <= self._most_bytes)
                )
            )
            self._items.append(item)
            self._bytes += item.size
            self._changed.notify_all()

    async def batch(self, most_items: int, most_bytes: int) -> list[Item]:
        """Wait until there is something, and return the first of it, without taking it out."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._items))
            found: list[Item] = []
            size = 0
            for item in self._items:
                if found and (len(found) >= most_items or size + item.size > most_bytes):
                    break
                found.append(item)
                size += item.size
            return found

    async def take(self, count: int) -> None:
        """The first so many are committed."""
        async with self._changed:
            for _ in range(count):
                self._bytes -= self._items.popleft().size
            self._changed.notify_all()

    def without_marks(self) -> None:
        """Forget its items' versions, which are of another history. The Tasks stay: nobody may tell of them again."""
        self._items = deque(replace(item, mark=0) for item in self._items)
