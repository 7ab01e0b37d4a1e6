"""A connection to a broker, shared by all ends that are on their way: opened when it is needed, and anew when lost."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from taskdist.api import SinkReason
from taskdist.kube import KubeError
from taskdist.outgoing.delivery import Failure
from taskdist.sinks.receiver import NotTold, Trouble

# After a connection has failed the next one is tried no sooner, in seconds.
PAUSE_SECONDS: Final = 1.0

C = TypeVar("C")


class Connection(Generic[C]):
    """Opens a connection for whoever needs it first; the others wait for the same one.

    Args:
        open_it: raises `Trouble` and KubeError.
        close_it: ends one; never raises.
    """

    def __init__(
        self,
        open_it: Callable[[], Awaitable[C]],
        close_it: Callable[[C], Awaitable[None]],
        ticks: Callable[[], float],
    ) -> None:
        self._open = open_it
        self._close = close_it
        self._ticks = ticks
        self._turn = asyncio.Lock()
        self._there: C | None = None
        self._failed: NotTold | None = None
        self._rests_until = 0.0

    async def get(self) -> C:
        """Return the connection. Raises `NotTold`: no end has a part in that there is none."""
        async with self._turn:
            if self._there is not None:
                return self._there
            if self._failed is not None and self._ticks() < self._rests_until:
                raise _again(self._failed)
            try:
                self._there = await self._open()
            except Trouble as error:
                self._failed = NotTold(Failure.UNAVAILABLE, str(error), reason=error.reason)
            except KubeError as error:
                words = f"its Secret cannot be read: {error}"
                self._failed = NotTold(Failure.UNAVAILABLE, words, reason=SinkReason.FAILING)
            else:
                self._failed = None
                return self._there
            self._rests_until = self._ticks() + PAUSE_SECONDS
            raise _again(self._failed)

    async def drop(self, connection: C) -> None:
        """End a connection that is of no use any more. Another one that took its place stays."""
        if self._there is connection:
            self._there = None
            await self._close(connection)

    async def close(self) -> None:
        """End it, if there is one."""
        if self._there is not None:
            await self.drop(self._there)


def _again(failed: NotTold) -> NotTold:
    """Return the same once more: an exception is raised once."""
    return NotTold(failed.failure, str(failed), failed.rest, failed.reason)
