"""The operator's end of the link, in memory and scripted: for tests of the supervisor without a network."""

import asyncio
import time
from collections.abc import Callable
from typing import TypeVar

from taskdist.agent.supervisor import LinkLost
from taskdist.api import Reason
from taskdist.common.boottime import boottime
from taskdist.protocol.messages import (
    Cancel,
    Failure,
    Final,
    FromAgent,
    Grant,
    Hello,
    LeaseName,
    Ping,
    Refused,
    Renew,
    Result,
    Stopped,
    ToAgent,
    Verdict,
    Welcome,
)

MessageT = TypeVar("MessageT")

TIMEOUT = 20.0


async def until(condition: Callable[[], object], what: str, timeout: float = TIMEOUT) -> None:
    """Await a condition on the world outside the event loop."""
    end = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < end, f"not within {timeout} s: {what}"
        await asyncio.sleep(0.005)


class PeerSession:
    """One session as the agent sees it."""

    def __init__(self, peer: "Peer") -> None:
        self._peer = peer
        self.to_agent: asyncio.Queue[ToAgent | None] = asyncio.Queue()
        self.closed = False
        self.flushed = False

    def send(self, message: FromAgent) -> None:
        if not self.closed:
            self._peer.take(message, self)

    async def receive(self) -> ToAgent:
        message = None if self.closed else await self.to_agent.get()
        if message is None:
            raise LinkLost("cut")
        return message

    async def close(self, *, flush: bool = False) -> None:
        self.closed, self.flushed = True, flush
        self.to_agent.put_nowait(None)


class Peer:
    """Welcomes, renews and gives final replies, until it is told otherwise."""

    def __init__(self, *, epoch: int = 1, ping_seconds: float = 0.05) -> None:
        self.epoch = epoch
        self.ping_seconds = ping_seconds
        self.reachable = True
        self.frozen = False  # takes everything, answers nothing
        self.renewing = True
        self.answering = True
        self.refusal: Refused | None = None  # what a hello is answered with instead
        self.held: set[LeaseName] = set()
        self.seen: list[FromAgent] = []
        self.sessions: list[PeerSession] = []
        self._changed = asyncio.Event()

    async def connect(self) -> PeerSession:
        if not self.reachable:
            raise LinkLost("unreachable")
        session = PeerSession(self)
        self.sessions.append(session)
        return session

    def take(self, message: FromAgent, session: PeerSession) -> None:
        self.seen.append(message)
        self._changed.set()
        if self.frozen:
            return
        match message:
            case Hello() if self.refusal is not None:
                session.to_agent.put_nowait(self.refusal)
            case Hello():
                session.to_agent.put_nowait(Welcome(self.epoch, message.slots, self.ping_seconds))
            case Ping():
                if self.renewing:
                    session.to_agent.put_nowait(Renew(self.epoch, message.boot, tuple(self.held)))
            case Result() | Failure():
                if self.answering:
                    self.held.discard(message.lease)
                    session.to_agent.put_nowait(Final(message.lease, Verdict.ACCEPTED))
            case Stopped():
                self.held.discard(message.lease)

    def say(self, message: ToAgent) -> None:
        self.sessions[-1].to_agent.put_nowait(message)

    def cut(self) -> None:
        self.sessions[-1].closed = True
        self.sessions[-1].to_agent.put_nowait(None)

    def grant(self, type: str, payload: bytes = b"{}", *, uid: str = "", seconds: float = 15.0) -> LeaseName:
        lease = LeaseName(uid or f"uid-{len(self.seen)}-{type}", 1, self.epoch)
        self.held.add(lease)
        self.say(Grant(lease, "ns", f"task-{type}", type, 1, boottime(), seconds, 120.0, payload=payload))
        return lease

    def cancel(self, lease: LeaseName) -> None:
        self.say(Cancel(lease, Reason.CANCELLED, "cancelled by its owner"))

    def of(self, kind: type[MessageT], lease: LeaseName | None = None) -> list[MessageT]:
        return [m for m in self.seen if isinstance(m, kind) and (lease is None or getattr(m, "lease", None) == lease)]

    async def wait_for(
        self, kind: type[MessageT], lease: LeaseName | None = None, *, count: int = 1, timeout: float = TIMEOUT
    ) -> MessageT:
        """Return the `count`-th message of this kind."""
        async with asyncio.timeout(timeout):
            while len(found := self.of(kind, lease)) < count:
                self._changed.clear()
                await self._changed.wait()
        return found[count - 1]
