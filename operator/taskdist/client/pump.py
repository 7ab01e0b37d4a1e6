"""What an iterator gives, taken on a thread of its own, so that it may block, and handed to an event loop.

A thread for each item would cost more than most items are worth. So one thread takes them, a bounded number ahead.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Iterable
from typing import Generic, TypeVar

ItemT = TypeVar("ItemT")
AHEAD = 64
"""How many items are taken before anybody asks for them."""


class Pump(Generic[ItemT]):
    """Reads ahead, on a thread that ends with the items, or one item after `stop`."""

    def __init__(self, items: Iterable[ItemT], ahead: int = AHEAD) -> None:
        self._items = items
        self._ready: deque[ItemT] = deque()
        self._room = threading.Semaphore(max(1, ahead))
        self._came: asyncio.Event | None = None
        self._told = False  # the loop knows already that something came
        self._over = self._stopped = False
        self._error: BaseException | None = None

    async def some(self) -> list[ItemT]:
        """Return the next items, as many as there are: at least one, none at the end. Raises what the iterator does."""
        if self._came is None:
            self._came = asyncio.Event()
            run = threading.Thread(
                target=self._take, args=(asyncio.get_running_loop(),), name="taskdist-map", daemon=True
            )
            run.start()
        while True:
            self._came.clear()
            self._told = False
            over = self._over  # looked at first: what came before the end is handed over
            found = [self._ready.popleft() for _ in range(len(self._ready))]
            if found:
                self._room.release(len(found))
                return found
            if over:
                if self._error is not None:
                    raise self._error
                return []
            await self._came.wait()

    def stop(self) -> None:
        """Take no more."""
        self._stopped = True
        self._room.release()

    def _take(self, loop: asyncio.AbstractEventLoop) -> None:
        try:
            for item in self._items:
                self._ready.append(item)
                self._tell(loop)
                self._room.acquire()
                if self._stopped:
                    return
        except BaseException as error:
            self._error = error
        finally:
            self._over = True
            self._told = False
            self._tell(loop)

    def _tell(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._told or self._came is None:
            return
        self._told = True
        try:
            loop.call_soon_threadsafe(self._came.set)
        except RuntimeError:
            self._stopped = True  # the loop is closed: nobody listens
