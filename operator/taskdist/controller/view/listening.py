"""The view's port: TLS with the certificate of this moment, and few connections at a time, each opened at a pace.

A handshake is the costliest thing that somebody unknown can ask of the dispatch loop, so they are spaced out; and a
connection over which nothing is asked is closed.
"""

import asyncio
import socket
import ssl
import tempfile
from collections.abc import Callable
from pathlib import Path

import structlog

from taskdist.link.ca import Pair

HANDSHAKES_A_SECOND = 50.0
BURST = 50
MOST_CONNECTIONS = 512
HANDSHAKE_SECONDS = 5.0
# How long a connection may be open without a question: at first, and later.
FIRST_SECONDS, IDLE_SECONDS = 10.0, 60.0
BACKLOG = 256

_log = structlog.get_logger("taskdist.view")


class Listener:
    """Accepts connections and hands each to a protocol of its own.

    Args:
        protocol: makes one for each connection.
        certificate: says what to serve, asked for each connection.
    """

    def __init__(self, protocol: Callable[[], asyncio.Protocol], certificate: Callable[[], Pair]) -> None:
        self._protocol = protocol
        self._certificate = certificate
        self._socket: socket.socket | None = None
        self._room = asyncio.Semaphore(MOST_CONNECTIONS)
        self._tasks: set[asyncio.Task[None]] = set()
        self._timers: dict[asyncio.BaseTransport, asyncio.TimerHandle] = {}
        self._context: tuple[Pair, ssl.SSLContext] | None = None
        self._next_at = 0.0

    def open(self, host: str, port: int) -> int:
        """Listen, and return the port. Raises OSError if it is taken."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._socket = socket.create_server((host, port), family=family, backlog=BACKLOG)
        self._socket.setblocking(False)
        return int(self._socket.getsockname()[1])

    async def run(self) -> None:
        """Accept until cancelled."""
        assert self._socket is not None
        loop = asyncio.get_running_loop()
        try:
            while True:
                await self._room.acquire()
                await self._paced(loop)
                try:
                    accepted, _ = await loop.sock_accept(self._socket)
                except OSError as error:  # too many open files, say: they come back
                    self._room.release()
                    _log.warning("a connection could not be accepted", error=str(error))
                    await asyncio.sleep(0.5)
                    continue
                task = loop.create_task(self._serve(accepted))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)
        finally:
            for each in list(self._tasks):
                each.cancel()
            for transport, timer in list(self._timers.items()):
                timer.cancel()
                if isinstance(transport, asyncio.Transport):
                    transport.abort()
            self._timers.clear()
            self._socket.close()

    def asked(self, transport: asyncio.BaseTransport | None) -> None:
        """A question has come over this connection: while it is answered it may take its time."""
        if transport is not None and (timer := self._timers.get(transport)) is not None:
            timer.cancel()

    def answered(self, transport: asyncio.BaseTransport | None) -> None:
        """It was answered: another one may follow."""
        if transport is not None and transport in self._timers:
            self._arm(transport, IDLE_SECONDS)

    async def _serve(self, accepted: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        over = asyncio.Event()
        transport: asyncio.BaseTransport | None = None
        try:
            transport, _ = await loop.connect_accepted_socket(
                lambda: _Watched(self._protocol(), over, self._opened),
                accepted,
                ssl=self._tls(),
                ssl_handshake_timeout=HANDSHAKE_SECONDS,
            )
            await over.wait()
        except (OSError, ssl.SSLError):
            accepted.close()  # it did not come to a handshake, which is the caller's affair
        finally:
            if transport is not None and (timer := self._timers.pop(transport, None)) is not None:
                timer.cancel()
            self._room.release()

    def _opened(self, transport: asyncio.BaseTransport) -> None:
        self._arm(transport, FIRST_SECONDS)

    def _arm(self, transport: asyncio.BaseTransport, seconds: float) -> None:
        assert isinstance(transport, asyncio.Transport)
        if (timer := self._timers.get(transport)) is not None:
            timer.cancel()
        self._timers[transport] = asyncio.get_running_loop().call_later(seconds, transport.abort)

    async def _paced(self, loop: asyncio.AbstractEventLoop) -> None:
        apart, now = 1 / HANDSHAKES_A_SECOND, loop.time()
        self._next_at = max(self._next_at, now - BURST * apart) + apart
        if self._next_at > now:
            await asyncio.sleep(self._next_at - now)

    def _tls(self) -> ssl.SSLContext:
        """The context of the certificate that stands now."""
        pair = self._certificate()
        if self._context is None or self._context[0] != pair:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.minimum_version = ssl.TLSVersion.TLSv1_2
            context.set_alpn_protocols(["http/1.1"])
            with tempfile.TemporaryDirectory(prefix="taskdist-") as scratch:  # ssl reads certificates from files only
                certificate, key = Path(scratch) / "tls.crt", Path(scratch) / "tls.key"
                key.touch(mode=0o600)
                certificate.write_bytes(pair.certificate)
                key.write_bytes(pair.key)
                context.load_cert_chain(certificate, key)
            self._context = (pair, context)
        return self._context[1]


class _Watched(asyncio.Protocol):
    """The protocol of one connection, and word of its end."""

    def __init__(
        self, inner: asyncio.Protocol, over: asyncio.Event, opened: Callable[[asyncio.BaseTransport], None]
    ) -> None:
        self._inner = inner
        self._over = over
        self._opened = opened
        self.data_received = inner.data_received  # type: ignore[method-assign]  # no call more for each packet
        self.eof_received = inner.eof_received  # type: ignore[method-assign]
        self.pause_writing = inner.pause_writing  # type: ignore[method-assign]
        self.resume_writing = inner.resume_writing  # type: ignore[method-assign]

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._opened(transport)  # before the first question can come over it
        self._inner.connection_made(transport)

    def connection_lost(self, error: Exception | None) -> None:
        self._over.set()
        self._inner.connection_lost(error)
