"""The same scripted operator behind the real server: TLS, gRPC, and an authenticator that admits every token."""

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from agents.peer import Peer, PeerSession
from taskdist.link.auth import Authenticator, PodOwner
from taskdist.link.server import LinkServer
from taskdist.protocol.messages import AgentIdentity, FromAgent, Hello, ToAgent
from unit.link.certificates import Certificates
from unit.link.tokens import status_of, token_of


class _Outgoing(asyncio.Queue[ToAgent | None]):
    """Puts what the peer says on the wire."""

    def __init__(self, server: LinkServer, session: int) -> None:
        super().__init__()
        self._link, self._session = server, session

    def put_nowait(self, item: ToAgent | None) -> None:
        if item is None:
            self._link.close(self._session, "cut by the test")
        else:
            self._link.send(self._session, item)


class LinkPeer(Peer):
    """A peer that agents reach over the link."""

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self.certificates = Certificates()
        self.ca_file, self.token_file = directory / "ca.crt", directory / "token"
        self.ca_file.write_bytes(self.certificates.bundle())
        self.identities: list[AgentIdentity] = []
        self.tokens: list[str] = []
        self.port = 0
        self._by_number: dict[int, PeerSession] = {}
        self.server: LinkServer

    def write_token(self, ends: float) -> str:
        token = token_of("pod", ends)
        self.token_file.write_text(token + "\n")
        return token

    async def _review(self, token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        self.tokens.append(token)
        return status_of("pod")

    async def start(self) -> None:
        async def read(namespace: str, name: str) -> PodOwner | None:
            return None

        authenticator = Authenticator(
            self._review,
            "here",
            lambda uid: PodOwner(uid, "ns", "pod", "pool", "pool-uid"),
            read,
            lambda namespace, name: "pool-uid",
        )
        self.server = LinkServer(self, authenticator, self.certificates, self.port, host="127.0.0.1")
        self.port = await self.server.start()

    def connected(self, session: int, identity: AgentIdentity, hello: Hello) -> None:
        self.identities.append(identity)
        made = PeerSession(self)
        made.to_agent = _Outgoing(self.server, session)
        self.sessions.append(made)
        self._by_number[session] = made
        self.take(hello, made)

    def received(self, session: int, message: FromAgent) -> None:
        self.take(message, self._by_number[session])

    def disconnected(self, session: int) -> None:
        self._by_number.pop(session).closed = True


@asynccontextmanager
async def link_peer(directory: Path) -> AsyncIterator[LinkPeer]:
    peer = LinkPeer(directory)
    await peer.start()
    try:
        yield peer
    finally:
        await peer.server.stop(1.0)
