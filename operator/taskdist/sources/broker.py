"""What a source asks of a broker, whatever speaks its protocol; and how it is told that something is amiss."""

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
    """What the session needs to publish it elsewhere as it came."""
    unreadable: Poison | None = None
    """Set where the message cannot be read at all."""
    crowded: bool = False
    """It came without its body, as too much is in hand: it has to be given back, and comes again."""


def told_of(poison: Poison, source: str) -> dict[str, str]:
    """Return what every dead letter tells of itself, by header. `source`: its namespace and name."""
    return {
        "x-taskdist-reason": str(poison.reason),
        "x-taskdist-message": str(poison)[:1000].encode("utf-8", "replace").decode(),
        "x-taskdist-source": source,
    }


class Waiting(NamedTuple):
    """What waits at the broker, as far as it can be told."""

    messages: int
    oldest: datetime | None = None
    """When the oldest message that is known of was published."""


class Session(Protocol):
    """One connection to a broker, on which messages are consumed. Any call may raise `Trouble`: then it is over."""

    async def consume(self) -> None:
        """Have messages handed over."""

    async def pause(self) -> None:
        """Have no more handed over; on return none is on its way any more."""

    async def acknowledge(self, tag: int) -> None:
        """The message is dealt with."""

    async def give_back(self, tag: int) -> None:
        """Have the broker put the message back where it was; forget it if it was withdrawn."""

    async def dead_letter(self, delivery: Delivery, poison: Poison) -> None:
        """Publish it to the dead letters with the reason; return once that is confirmed. Raises `NotPublished`."""

    async def backlog(self) -> Waiting:
        """What waits for being handed over."""

    async def close(self) -> None:
        """End it. What is not acknowledged goes back to the queue."""


@dataclass(frozen=True, slots=True)
class Told:
    """Whom a session tells what happens."""

    arrived: Callable[[Delivery], None]
    """A message came; in order."""
    lost: Callable[[str], None]
    """The session is over, and why."""
    withdrawn: Callable[[Iterable[int]], None] = lambda _: None
    """These messages are somebody else's from now on: each is to be acknowledged or given back soon."""


Open = Callable[[Told], Awaitable[Session]]
"""Opens a session. Raises `Trouble`."""
