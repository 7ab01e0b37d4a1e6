"""The process of the MCP door over HTTP: from start to clean end.

One server answers all callers; each call has a client of its own, with the caller's token. There are no sessions: any
replica answers any call, and one that ends loses nothing.
"""

import asyncio
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

import structlog

from taskdist.client import AsyncClient
from taskdist.client.kube import KubeBackend
from taskdist.client.leaders_view import LeadersView, ViewOfOne
from taskdist.kube import Client, ConfigurationError, Credentials, HttpTransport, OnBehalf, Reviews
from taskdist.kube.reviews import AT_ONCE
from taskdist.mcp.long_calls import MOST_LISTENED_AT_ONCE
from taskdist.mcp.measures import Measures
from taskdist.mcp.notices import Notices
from taskdist.mcp.rim import Places, Rim
from taskdist.mcp.server import build
from taskdist.mcp.settings import Settings
from taskdist.observability.logs import configure
from taskdist.observability.serve import HealthServer, MetricsServer
from taskdist.observability.web import serve_until, told_to_end, web_server

_log = structlog.get_logger("taskdist.mcp")

TIMEOUT = 30.0


def run(settings: Settings) -> int:
    """Serve until SIGTERM or SIGINT; return the exit code."""
    configure(settings.log_level)
    try:
        return asyncio.run(_serve(settings))
    except (ConfigurationError, ssl.SSLError, OSError) as error:
        _log.error("the MCP door cannot start with what is configured", why=str(error))
        return 1


class Callers:
    """Clients of the calls that run: each has its own, with its caller's token."""

    def __init__(self, transport: HttpTransport, notices: Notices, leaders: LeadersView) -> None:
        OnBehalf(transport, "")  # refuses what would not work before anybody calls
        self._transport = transport
        self._notices = notices
        self._leaders = leaders
        self._here: ContextVar[AsyncClient] = ContextVar("taskdist-mcp-client")

    def client(self) -> AsyncClient:
        return self._here.get()

    @asynccontextmanager
    async def on_behalf(self, token: str, namespace: str) -> AsyncIterator[None]:
        client = Client(OnBehalf(self._transport, token), timeout=TIMEOUT)
        backend = KubeBackend(client, namespace, "taskdist-mcp")
        view = ViewOfOne(self._leaders, token, namespace)
        async with AsyncClient(backend=backend, on_warning=self._notices.hear, view=view) as mine:
            was = self._here.set(mine)
            try:
                yield
            finally:
                self._here.reset(was)


async def _serve(settings: Settings) -> int:
    stopping = told_to_end()
    # Of each call that waits one is held by its watch, and of each Task that is listened to: there is one left for all
    # who ask, and for the reviews of who calls.
    connections = 2 * settings.most_calls + MOST_LISTENED_AT_ONCE + AT_ONCE
    transport = HttpTransport(Credentials(settings.kubeconfig), connections=connections, user_agent="taskdist-mcp")
    await transport.open()
    try:
        places = Places(settings.most_calls, settings.most_calls_each)
        measures = Measures(lambda: places.taken)
        notices = Notices()
        leaders = LeadersView(Client(transport, timeout=TIMEOUT), settings.view, settings.lease, "TASKDIST_MCP_VIEW")
        callers = Callers(transport, notices, leaders)
        protocol = build(callers.client, notices)
        # Without sessions: what a call needs comes with it. Names are checked by the rim.
        protocol.streamable_http_app(streamable_http_path="/", stateless_http=True, host=settings.host)
        rim = Rim(
            protocol.session_manager.handle_request,
            Reviews(Client(transport)).caller,
            callers.on_behalf,
            places,
            namespaces=settings.watch_namespaces,
            hosts=settings.hosts,
            origins=settings.origins,
            told=measures.request,
        )
        server = web_server(
            rim, host=settings.host, port=settings.port, tls_cert=settings.tls_cert, tls_key=settings.tls_key
        )
        async with (
            HealthServer(
                settings.health_port,
                healthy=lambda: None,
                ready=lambda: None if server.started else "it does not listen yet",
                host=settings.host,
            ),
            MetricsServer(measures, settings.metrics_port, host=settings.host),
            protocol.session_manager.run(),
        ):
            return await serve_until(stopping, server)
    finally:
        await transport.close()
