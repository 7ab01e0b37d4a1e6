"""A receiver as its sink sees it, whatever it is, and the ways in which it fails."""

from collections.abc import Awaitable, Callable
from typing import Protocol

from taskdist.api import SinkReason
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End


class Trouble(Exception):
    """The sink cannot go on as it is, for a reason that has a name: it is begun again."""

    def __init__(self, reason: SinkReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Stopped(Exception):
    """The receiver wants nothing any more: only a change of the sink helps."""


class NotTold(Exception):
    """An end could not be told.

    Args:
        message: why, for people; nothing of what the receiver sent.
        rest: for how many seconds the receiver asks not to be tried.
        reason: what the status says while it is so.
    """

    def __init__(
        self, failure: Failure, message: str, rest: float = 0.0, reason: SinkReason = SinkReason.RETRYING
    ) -> None:
        super().__init__(message)
        self.failure = failure
        self.rest = rest
        self.reason = reason


class Receiver(Protocol):
    """A receiver that is connected: a URL, an exchange, a topic."""

    async def tell(self, end: End) -> None:
        """Tell this end; return once it is known to be taken. Raises `NotTold`, `Stopped` and `Trouble`."""

    async def close(self) -> None:
        """End it."""


Open = Callable[[], Awaitable[Receiver]]
"""Opens it. Raises `Trouble` and KubeError."""
