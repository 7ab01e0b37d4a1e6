"""Small HTTP servers: /metrics on one port, /healthz and /readyz on another.

Own the routes and the sockets. What healthy means is the callables' business. Two ports, so that a network policy can
open the one without the other.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol, Self

from aiohttp import web
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

Check = Callable[[], str | None]
"""What is wrong, in words; None where all is well. Called on the server's event loop, so it must not block."""


class _Server:
    def __init__(self, application: web.Application, port: int, host: str) -> None:
        self._application = application
        self._port = port
        self._host = host
        self._runner: web.AppRunner | None = None

    async def start(self) -> int:
        """Listen. Returns the port, which matters where 0 was asked for. Raises OSError if it is taken."""
        # Scrapes and probes by the second would drown the log.
        runner = web.AppRunner(self._application, access_log=None, shutdown_timeout=1.0)
        await runner.setup()
        try:
            await web.TCPSite(runner, self._host, self._port).start()
        except OSError:
            await runner.cleanup()
            raise
        self._runner = runner
        return int(runner.addresses[0][1])

    async def stop(self) -> None:
        """Close the socket. Safe to repeat."""
        runner, self._runner = self._runner, None
        if runner is not None:
            await runner.cleanup()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


class Registered(Protocol):
    """Metrics of a process."""

    @property
    def registry(self) -> CollectorRegistry: ...


class MetricsServer(_Server):
    """Serves `/metrics` in the format that the scraper asks for."""

    def __init__(self, metrics: Registered, port: int, *, host: str = "0.0.0.0") -> None:
        application = web.Application()
        application.router.add_get("/metrics", self._scrape)
        super().__init__(application, port, host)
        self._registry = metrics.registry

    async def _scrape(self, request: web.Request) -> web.Response:
        # Collected here, at one moment between two events of the loop; the slow part, the text, is made in a thread.
        families = _Families(self._registry.collect())
        encode, content_type = choose_encoder(request.headers.get("Accept", ""))
        body = await asyncio.to_thread(encode, families)
        return web.Response(body=body, headers={"Content-Type": content_type})


class HealthServer(_Server):
    """Serves `/healthz` (restart me if not) and `/readyz` (send me no traffic if not): 200, or 503 with the reason."""

    def __init__(self, port: int, *, healthy: Check, ready: Check, host: str = "0.0.0.0") -> None:
        application = web.Application()
        application.router.add_get("/healthz", _handler(healthy))
        application.router.add_get("/readyz", _handler(ready))
        super().__init__(application, port, host)


class _Families(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _handler(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handle(_: web.Request) -> web.Response:
        problem = check()
        return web.Response(status=200 if problem is None else 503, text=f"{problem or 'ok'}\n")

    return handle
