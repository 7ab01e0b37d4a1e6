"""How much of the dispatch loop the view may have: a share, whoever asks how much.

Each question's work is one step, which is short. After it, the next one waits for so long that the steps together take
no more than the share.
"""

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import TypeVar

from taskdist.controller.view.problems import Problem

SHARE = 0.2
MOST_WAITING = 64
MOST_OF_ONE = 16
# What the HTTP around a step costs at least, in seconds.
AROUND_SECONDS = 0.0005

T = TypeVar("T")


class Pace:
    """Lets one step after the other, in the order of asking."""

    def __init__(
        self,
        share: float = SHARE,
        clock: Callable[[], float] = time.perf_counter,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._share = share
        self._clock = clock
        self._sleep = sleep
        self._turn = asyncio.Lock()
        self._free_at = 0.0
        self._waiting: Counter[str] = Counter()

    async def step(self, caller: str, work: Callable[[], T]) -> T:
        """Do this in its turn. Raises Problem where too many wait already, in all or of this caller."""
        if self._waiting.total() >= MOST_WAITING or self._waiting[caller] >= MOST_OF_ONE:
            raise Problem(429, "too many questions wait for an answer: ask again", retry_after=1)
        self._waiting[caller] += 1
        try:
            async with self._turn:
                pause = self._free_at - self._clock()
                if pause > 0:
                    await self._sleep(pause)
                began = self._clock()
                try:
                    return work()
                finally:
                    ended = self._clock()
                    self._free_at = ended + (ended - began + AROUND_SECONDS) * (1 / self._share - 1)
        finally:
            self._waiting[caller] -= 1
            if not self._waiting[caller]:
                del self._waiting[caller]
