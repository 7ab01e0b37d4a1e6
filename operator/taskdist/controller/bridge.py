"""The one passage between the two event loops: typed, thread-safe, and nothing else is shared.

The dispatch loop owns the core. The reconciling loop asks it for facts and is told which keys to look at again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from taskdist.controller.status import PoolFacts, QueueFacts
from taskdist.core.model import Key

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class PodFact:
    """A pod of a pool, as the reconciling loop needs it."""

    uid: str
    name: str
    deleting: bool
    ended: bool
    draining: bool


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool's facts and all its pods."""

    facts: PoolFacts
    pods: tuple[PodFact, ...]


class Facts(Protocol):
    """What the dispatch loop answers, on its own loop. None: this operator does not lead any more."""

    def pool_view(self, key: Key) -> PoolView | None: ...

    def queue_facts(self, key: Key) -> QueueFacts | None: ...


class NotLeading(Exception):
    """The dispatch loop has no core: leadership was lost."""


class Bridge:
    """Built on the dispatch loop; used from the reconciling one."""

    def __init__(self, facts: Facts, loop: asyncio.AbstractEventLoop) -> None:
        self._facts = facts
        self._loop = loop

    async def pool_view(self, key: Key) -> PoolView:
        return self._known(await self._ask(lambda: self._facts.pool_view(key)))

    async def queue_facts(self, key: Key) -> QueueFacts:
        return self._known(await self._ask(lambda: self._facts.queue_facts(key)))

    @staticmethod
    def _known(answer: T | None) -> T:
        if answer is None:
            raise NotLeading
        return answer

    async def _ask(self, question: Callable[[], T]) -> T:
        async def answer() -> T:
            return question()

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer(), self._loop))
