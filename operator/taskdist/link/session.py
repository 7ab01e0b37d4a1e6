"""An agent's stream as the server holds it: its outbox, the bound on reading, the cause of its end.

No gRPC and no clock of its own: the server moves the bytes, passes the time in, and asks.
"""

import asyncio
from collections import deque
from enum import Enum

from taskdist.core.limits.token_bucket import Bucket
from taskdist.core.model import TokenRate
from taskdist.protocol.messages import AgentIdentity

QUEUE_MESSAGES = 4096
QUEUE_BYTES = 16 * 1024 * 1024
RATE = 1000.0  # messages a second that an agent may send for long
BURST = 2000
_READING = TokenRate(RATE, BURST)
BYTES_PER_MESSAGE = 4096  # a large message counts as several
MESSAGES_PER_SESSION = 20.0  # what beginning one costs, beside its hello
MESSAGES_PER_LEASE = 2  # each lease in a hello: one that is not known here is read from the API server


class End(Enum):
    """Causes of a stream's end. Each has its gRPC status, which the public format lists."""

    REPLACED = "replaced"  # or closed for another reason of the protocol: connect again
    REFUSED = "refused"
    TOKEN = "token"
    AGENT = "agent"
    BAD_MESSAGE = "bad message"
    OVERFLOW = "overflow"
    SILENT = "silent"
    STOPPING = "stopping"


class Throttle:
    """A bound on reading the messages of one pod, however many sessions it has: a token a message."""

    __slots__ = ("_bucket",)

    def __init__(self) -> None:
        self._bucket = Bucket(_READING)

    def take(self, size: int, now: float) -> float:
        """A message of `size` bytes was read: return how many seconds to wait before reading on."""
        self.charge(1.0 + size / BYTES_PER_MESSAGE, now)
        return max(0.0, self._bucket.opens_at(0.0) - now)

    def charge(self, messages: float, now: float) -> None:
        """Take for what a message brings about beside its own size, in messages."""
        self._bucket.take(now, messages)

    def left(self, now: float) -> float:
        """How many messages may be read at once; below zero: how many were read ahead."""
        return self._bucket.tokens(now)

    def is_full(self, now: float) -> bool:
        """Whether nothing of it is spent: it may be forgotten."""
        return self._bucket.full(now)


class Outbox:
    """Messages that wait to be sent: bounded, in order. Once closed it takes no more."""

    def __init__(self, messages: int = QUEUE_MESSAGES, size: int = QUEUE_BYTES) -> None:
        self._items: deque[bytes] = deque()
        self._bytes = 0
        self._most_messages = messages
        self._most_bytes = size
        self._changed = asyncio.Event()
        self._closed = False

    def put(self, item: bytes) -> bool:
        """Add the item; False if the bound is reached (the item is not added). Ignored once closed."""
        if self._closed:
            return True
        if len(self._items) >= self._most_messages or self._bytes + len(item) > self._most_bytes:
            return False
        self._items.append(item)
        self._bytes += len(item)
        self._changed.set()
        return True

    def close(self) -> None:
        """Take no more; what is in is still given out."""
        self._closed = True
        self._changed.set()

    async def get(self) -> bytes | None:
        """Return the next item, or None when closed and empty."""
        while not self._items:
            if self._closed:
                return None
            self._changed.clear()
            await self._changed.wait()
        item = self._items.popleft()
        self._bytes -= len(item)
        return item


class AgentStream:
    """The stream of one admitted agent. It has a session's number once its hello was read."""

    def __init__(
        self, identity: AgentIdentity, now: float, token_ends: float, outbox: Outbox, throttle: Throttle
    ) -> None:
        self.identity = identity
        self.number: int | None = None
        self.heard = now
        self.token_ends = token_ends
        self.outbox = outbox
        self.throttle = throttle
        self.refused = False  # the last word to it was Refused
        self.ended: asyncio.Future[tuple[End, str]] = asyncio.get_running_loop().create_future()

    @property
    def open(self) -> bool:
        return not self.ended.done()

    def end(self, why: End, message: str) -> None:
        """End the session. The first reason stands; nothing is read or taken to send after it."""
        if not self.ended.done():
            self.ended.set_result((why, message))
        self.outbox.close()
