"""The interface between a source and its broker, whatever protocol is spoken, and the errors of both."""

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple, Protocol

from taskdist.api import SourceReason
from taskdist.intake.message import Message, Poison


class Trouble(Exception):
    """The source cannot go on as it is, for a reason that has a name: it is begun again."""

    def __init__(self, reason: SourceReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class NotPublished(Exception):
    """A message could not be published to the dead letters: the text says why."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A message as the broker handed it over."""

    tag: int
    message: Message
    raw: Any = None
    """The message in the library's form, from which it is published elsewhere as it came."""
    unreadable: Poison | None = None
    """Set where the message cannot be read at all."""
    crowded: bool = False
    """True if the body was left out, as too much is in hand: the message is given back, and comes again."""
    group: str | None = None
    """The group within which the broker keeps messages in order, where it has such."""


def told_of(poison: Poison, source: str) -> dict[str, str]:
    """Return what every dead letter tells of itself, by header. `source`: its namespace and name."""
    return {
        "x-taskdist-reason": str(poison.reason),
        "x-taskdist-message": str(poison)[:1000].encode("utf-8", "replace").decode(),
        "x-taskdist-source": source,
    }


class Waiting(NamedTuple):
    """The messages that wait at the broker, as far as it can be told."""

    messages: int
    oldest: datetime | None = None
    """The time at which the oldest known one was published."""


class Session(Protocol):
    """A connection to a broker, on which messages are consumed. Any call may raise `Trouble`: then it is over."""

    async def consume(self) -> None:
        """Have messages handed over."""

    async def pause(self) -> None:
        """Have no more handed over; on return none is on its way any more."""

    async def acknowledge(self, tag: int) -> None:
        """Tell the broker that the message is dealt with."""

    async def give_back(self, tag: int) -> None:
        """Have the broker put the message back where it was; forget it if it was withdrawn."""

    async def dead_letter(self, delivery: Delivery, poison: Poison) -> None:
        """Publish it to the dead letters with the reason; return once that is confirmed. Raises `NotPublished`."""

    async def backlog(self) -> Waiting:
        """Count what waits for being handed over."""

    async def close(self) -> None:
        """End it. What is not acknowledged goes back to the queue."""


@dataclass(frozen=True, slots=True)
class Told:
    """The listeners of a session: one for each thing that happens."""

    arrived: Callable[[Delivery], None]
    """A message came; in order."""
    lost: Callable[[str], None]
    """The session is over, and why."""
    withdrawn: Callable[[Iterable[int]], None] = lambda _: None
    """Messages are somebody else's from now on: each is to be acknowledged or given back soon."""


Open = Callable[[Told], Awaitable[Session]]
"""Opens a session. Raises `Trouble`."""
