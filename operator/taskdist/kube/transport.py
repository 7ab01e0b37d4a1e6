"""The wire: one HTTP exchange, or one stream of lines, with the API server.

Owns connections, credentials on each request and the line between "never sent" and "sent, no answer". Knows nothing of
Kubernetes objects, and tries nothing twice but a request refused with 401, once, with fresh credentials (a 401 is
given before anything is done).
"""

from __future__ import annotations

import asyncio
import contextlib
import io
import math
import socket
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Protocol

import aiohttp
from yarl import URL

from taskdist.kube.credentials import Access, Credentials, Loaded
from taskdist.kube.errors import ApiError, ConfigurationError, Unanswered, Unreachable

CONNECT_SECONDS = 5.0
RELOAD_SECONDS = 5.0
"""After a 401, credentials are loaded at most this often: a plugin is not run once per refused request."""


@dataclass(frozen=True, slots=True)
class Request:
    """A request: path and query already encoded, the body already bytes. `timeout` is in seconds, for all of it."""

    method: str
    path: str
    query: str = ""
    body: bytes | None = None
    content_type: str = "application/json"
    accept: str = "application/json"
    timeout: float = 10.0
    authorization: str | None = None
    """Whose request it is, where it is not our own: sent in place of our credentials, and never renewed."""
    headers: tuple[tuple[str, str], ...] = ()
    """For whom a request is passed on to, through the API server."""


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, whatever its status. `retry_after` is the value of its Retry-After header."""

    status: int
    body: bytes
    retry_after: str | None = None


class Transport(Protocol):
    """The port under the client. A test scripts it; production is `HttpTransport`."""

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def exchange(self, request: Request) -> Answer:
        """One request and its whole answer, whatever its status. Raises `Unreachable` or `Unanswered`."""
        ...

    def stream(self, request: Request, stall: float) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The lines of an answer as they come. `request.timeout` bounds the wait for its start, `stall` each silence.

        An error status raises `ApiError` on entering; a lost or silent connection raises `Unanswered` while iterating;
        the end of the iteration is the server's orderly end.
        """
        ...


class HttpTransport:
    """The transport of production: aiohttp, over a pool of connections that are kept open."""

    def __init__(
        self, credentials: Credentials | Loaded, *, connections: int = 100, user_agent: str = "taskdist"
    ) -> None:
        self._credentials = credentials
        self._connections = connections
        self._user_agent = user_agent
        self._session: aiohttp.ClientSession | None = None
        self._access: Access | None = None
        self._loaded_at = -math.inf
        self._loading = asyncio.Lock()

    @property
    def access(self) -> Access:
        if self._access is None:
            raise RuntimeError("the transport is not open")
        return self._access

    async def open(self) -> None:
        """Load the credentials (`ConfigurationError`); the first connection is made by the first request."""
        await self._load()
        session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(
                limit=self._connections,
                # Below the idle time-out of any load balancer met so far, so that we are the side that closes.
                keepalive_timeout=30,
                # Time-outs are promises (a leader's request ends before its lease): not rounded to whole seconds.
                timeout_ceil_threshold=math.inf,
                socket_factory=_socket,
            ),
            cookie_jar=aiohttp.DummyCookieJar(),
            # Compression costs the API server more than the bytes cost the network inside a cluster.
            headers={"User-Agent": self._user_agent, "Accept-Encoding": "identity"},
            auto_decompress=False,
        )
        # aiohttp sends PUT and DELETE again by itself when a kept-alive connection turns out dead. The first may have
        # been done, and the second's 409 or 404 would then be told as the outcome. There is no public switch.
        if not isinstance(getattr(session, "_retry_connection", None), bool):
            await session.close()
            raise RuntimeError(
                f"aiohttp {aiohttp.__version__} cannot be kept from sending a PUT or DELETE twice: install the version "
                "that requirements-runtime.lock names"
            )
        session._retry_connection = False
        self._session = session

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def exchange(self, request: Request) -> Answer:
        deadline = time.monotonic() + request.timeout
        try:
            async with asyncio.timeout(request.timeout):
                access = await self._fresh()
        except TimeoutError as error:
            raise Unreachable(f"{request.method} {request.path}: the credentials were not loaded in time") from error
        answer = await self._exchange(access, request, max(deadline - time.monotonic(), 0.001))
        if answer.status == 401 and request.authorization is None:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(deadline - time.monotonic()):
                    renewed = await self._renew(access)
                left = deadline - time.monotonic()
                if renewed is not access and left > 0:
                    answer = await self._exchange(renewed, request, left)
        return answer

    async def _exchange(self, access: Access, request: Request, seconds: float) -> Answer:
        timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=min(seconds, CONNECT_SECONDS))
        try:
            async with await self._send(access, request, timeout) as response:
                return Answer(response.status, await response.read(), response.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _classified(error, request) from error

    @contextlib.asynccontextmanager
    async def stream(self, request: Request, stall: float) -> AsyncIterator[AsyncIterator[bytes]]:
        access = await self._fresh()
        response = await self._begin(access, request, stall)
        try:
            if response.status == 401 and request.authorization is None:
                renewed = await self._renew(access)
                if renewed is not access:
                    _drop(response)
                    response = await self._begin(renewed, request, stall)
            if response.status >= 400:
                try:
                    async with asyncio.timeout(request.timeout):
                        body = await response.read()
                except (aiohttp.ClientError, TimeoutError, OSError) as error:
                    raise _classified(error, request) from error
                raise ApiError.from_answer(response.status, body, response.headers.get("Retry-After"))
            lines = _lines(response, request)
            try:
                yield lines
            finally:
                await lines.aclose()
        finally:
            _drop(response)

    async def _begin(self, access: Access, request: Request, stall: float) -> aiohttp.ClientResponse:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=min(request.timeout, CONNECT_SECONDS), sock_read=stall)
        try:
            async with asyncio.timeout(request.timeout):
                return await self._send(access, request, timeout)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _classified(error, request) from error

    async def _send(self, access: Access, request: Request, timeout: aiohttp.ClientTimeout) -> aiohttp.ClientResponse:
        if self._session is None:
            raise RuntimeError("the transport is not open")
        headers = [("Accept", request.accept), *request.headers]
        if request.authorization is not None:
            headers.append(("Authorization", request.authorization))
        else:
            # Several may bear the same name: groups to act as.
            headers += access.headers
            if access.authorization is not None:
                headers.append(("Authorization", access.authorization))
        if request.body is not None:
            headers.append(("Content-Type", request.content_type))
        query = f"?{request.query}" if request.query else ""
        return await self._session.request(
            request.method,
            URL(f"{access.server}{request.path}{query}", encoded=True),
            data=_payload(request.body),
            headers=headers,
            # The credentials are for this server, not for wherever it points.
            allow_redirects=False,
            timeout=timeout,
            ssl=access.tls if access.tls is not None else True,
            server_hostname=access.server_name,
            proxy=access.proxy,
        )

    async def _fresh(self) -> Access:
        """The credentials in force, loaded again first where they are due."""
        access = self.access
        age = self._credentials.max_age
        if age is not None and time.monotonic() - self._loaded_at > age:
            return await self._renew(access, age)
        return access

    async def _renew(self, used: Access, at_most_every: float = RELOAD_SECONDS) -> Access:
        """Load again unless that has just been done; returns `used` itself where nothing changed."""
        async with self._loading:
            if self._access is used and time.monotonic() - self._loaded_at > at_most_every:
                # Half-written files are seen while they rotate. What we have may still do; if not, 401 leads back here.
                with contextlib.suppress(Exception):
                    await self._load()
                self._loaded_at = time.monotonic()
        access = self.access
        return used if access == used else access

    async def _load(self) -> None:
        self._access = await asyncio.to_thread(self._credentials.load)
        self._loaded_at = time.monotonic()


class OnBehalf:
    """The same connections, with the requests of somebody else: each carries their token in place of our credentials.

    Raises ConfigurationError where our own credentials are a client certificate: the connection itself would speak for
    us, whatever token a request carries.
    """

    def __init__(self, transport: HttpTransport, token: str) -> None:
        if transport.access.certificate:
            raise ConfigurationError(
                "requests of others cannot be sent with a client certificate of our own: run with the token of a "
                "service account"
            )
        self._transport = transport
        self._authorization = f"Bearer {token}"

    async def open(self) -> None:
        """Nothing: the connections belong to the transport."""

    async def close(self) -> None:
        """Nothing, as above."""

    async def exchange(self, request: Request) -> Answer:
        return await self._transport.exchange(replace(request, authorization=self._authorization))

    def stream(self, request: Request, stall: float) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        return self._transport.stream(replace(request, authorization=self._authorization), stall)


def _payload(body: bytes | None) -> bytes | io.BytesIO | None:
    # Beyond this size aiohttp wants a file, so that writing it does not hold up the event loop.
    return io.BytesIO(body) if body is not None and len(body) > 2**20 else body


def _socket(address: Any) -> socket.socket:
    """A socket that notices a peer that is gone: without it a watch over a cut network waits for its stall time."""
    family, kind, protocol = address[:3]
    sock = socket.socket(family, kind, protocol)
    sock.setblocking(False)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    # Names and presence differ by platform; these three and the last exist on Linux, where the operator runs.
    for option, seconds in (("TCP_KEEPIDLE", 10), ("TCP_KEEPINTVL", 5), ("TCP_KEEPCNT", 3)):
        if hasattr(socket, option):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, option), seconds)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, 20_000)
    return sock


async def _lines(response: aiohttp.ClientResponse, request: Request) -> AsyncGenerator[bytes, None]:
    # Not readline(): it refuses a line beyond its buffer, and an object may have up to 3 MiB.
    buffer = bytearray()
    searched = 0
    try:
        async for chunk in response.content.iter_any():
            buffer += chunk
            while (end := buffer.find(b"\n", searched)) >= 0:
                line = bytes(buffer[:end])
                del buffer[: end + 1]
                searched = 0
                if line:
                    yield line
            searched = len(buffer)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _classified(error, request) from error
    # A rest without its newline is an object cut off in the middle: dropped, the next watch starts before it.


def _drop(response: aiohttp.ClientResponse) -> None:
    """End the connection of an answer whose rest is not wanted: that of a watch is endless.

    At once: a server that takes its time over TLS's goodbye would keep the socket open beyond the end of the loop.
    """
    connection = response.connection
    if connection is not None and connection.transport is not None:
        connection.transport.abort()
    response.close()


def _classified(error: BaseException, request: Request) -> Unreachable | Unanswered:
    what = f"{request.method} {request.path}: {type(error).__name__} {error}".rstrip()
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)):
        return Unreachable(what)
    # When in doubt it counts as sent: a read more is cheaper than a write taken for undone.
    return Unanswered(what)
