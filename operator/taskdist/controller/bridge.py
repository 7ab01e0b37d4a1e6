"""The passage between the two event loops, typed and thread-safe. Nothing else is shared by them.

The dispatch loop owns the core. The reconciling loop asks it for facts and is told which keys to look at again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from taskdist.controller.seen import SpecVersion
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
class PoolReport:
    """A pool's facts and all its pods."""

    facts: PoolFacts
    pods: tuple[PodFact, ...]


class Facts(Protocol):
    """The facts that the dispatch loop tells, on its own loop. None: this operator does not lead any more."""

    def tell_pool(self, key: Key) -> PoolReport | None: ...

    def tell_queue(self, key: Key) -> QueueFacts | None: ...


class NoFacts(Exception):
    """There is nothing to be said of this spec."""


class NotLeading(NoFacts):
    """The dispatch loop has no core: leadership was lost."""


class Behind(NoFacts):
    """The dispatch loop has not seen this spec yet. Once it has, it asks for another look."""


class Bridge:
    """Built on the dispatch loop; used from the reconciling one.

    Each loop has a watch of its own. Facts are of the spec that is asked for, or a newer one: status must not say of a
    spec what was true of the one before.

    Args:
        pool_version, queue_version: say, on the dispatch loop, which spec it goes by.
    """

    def __init__(
        self,
        facts: Facts,
        pool_version: Callable[[Key], SpecVersion | None],
        queue_version: Callable[[Key], SpecVersion | None],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._facts = facts
        self._pool_version = pool_version
        self._queue_version = queue_version
        self._loop = loop

    async def tell_pool(self, key: Key, version: SpecVersion) -> PoolReport:
        return await self._ask(self._facts.tell_pool, self._pool_version, key, version)

    async def tell_queue(self, key: Key, version: SpecVersion) -> QueueFacts:
        return await self._ask(self._facts.tell_queue, self._queue_version, key, version)

    async def _ask(
        self,
        facts: Callable[[Key], T | None],
        known: Callable[[Key], SpecVersion | None],
        key: Key,
        version: SpecVersion,
    ) -> T:
        async def answer() -> T:
            seen = known(key)
            if seen is None or seen.uid != version.uid or seen.generation < version.generation:
                raise Behind
            if (found := facts(key)) is None:
                raise NotLeading
            return found

        return await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(answer(), self._loop))
