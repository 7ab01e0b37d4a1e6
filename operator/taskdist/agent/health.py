"""The probes' endpoint: `/readyz` is 200 only while the agent takes work, `/healthz` while its event loop turns.

A few lines of HTTP/1.1 by hand: a server library would cost each agent more memory than all the rest of it.
"""

import asyncio
import contextlib
from collections.abc import Callable

_REQUEST_SECONDS = 5.0
_MAX_REQUEST = 8192


class HealthServer:
    """Answers GET /readyz and GET /healthz. `not_ready` returns why the agent is not ready, or an empty string."""

    def __init__(self, not_ready: Callable[[], str], port: int, host: str = "0.0.0.0") -> None:
        self._not_ready = not_ready
        self._port = port
        self._host = host
        self._server: asyncio.Server | None = None

    async def start(self) -> int:
        """Start to listen; return the port, chosen by the system if it was 0."""
        self._server = await asyncio.start_server(self._serve, self._host, self._port, limit=_MAX_REQUEST)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def stop(self) -> None:
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with asyncio.timeout(_REQUEST_SECONDS):
                request = await reader.readuntil(b"\r\n\r\n")
                status, text = self._answer(request.split(b"\r\n", 1)[0].decode("latin-1"))
                body = text.encode() + b"\n"
                writer.write(
                    f"HTTP/1.1 {status}\r\ncontent-type: text/plain; charset=utf-8\r\n"
                    f"content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode()
                    + body
                )
                await writer.drain()
        writer.close()

    def _answer(self, line: str) -> tuple[str, str]:
        method, _, rest = line.partition(" ")
        path = rest.split(" ")[0].split("?")[0]
        if method != "GET":
            return "405 Method Not Allowed", "only GET"
        if path == "/healthz":
            return "200 OK", "ok"
        if path != "/readyz":
            return "404 Not Found", "there are /readyz and /healthz"
        why = self._not_ready()
        return ("503 Service Unavailable", why) if why else ("200 OK", "ok")
