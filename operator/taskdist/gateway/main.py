"""The gateway's process: from start to clean end.

A part that fails for good ends the process.
"""

import asyncio
import ssl
from typing import Any

import structlog

from taskdist.client.leaders_view import LeadersView
from taskdist.gateway import measures
from taskdist.gateway.app import build
from taskdist.gateway.board import Board, Seen, seen
from taskdist.gateway.callers import Callers
from taskdist.gateway.hooks import Hooks, Secrets, SeenSource, seen_source
from taskdist.gateway.measures import Measures
from taskdist.gateway.queues import Queues, SeenQueue, seen_queue
from taskdist.gateway.routes import Routes
from taskdist.gateway.settings import Settings
from taskdist.gateway.submitting import Submitter
from taskdist.gateway.waiting import Places
from taskdist.gateway.webhooks import Webhooks
from taskdist.kube import (
    TASKQUEUES,
    TASKS,
    TASKSOURCES,
    Client,
    ConfigurationError,
    Credentials,
    HttpTransport,
    Informer,
    OnBehalf,
    Reviews,
)
from taskdist.observability.logs import configure
from taskdist.observability.serve import HealthServer, MetricsServer
from taskdist.observability.web import serve_until, told_to_end, web_server

_log = structlog.get_logger("taskdist.gateway")

CONNECTIONS = 200
"""To the API server, at most; each is held for one request."""
SILENT_SECONDS = 120.0
"""A watch that has said nothing for so long is not to be believed: the server bookmarks about once a minute."""


def run(settings: Settings) -> int:
    """Run the gateway until SIGTERM or SIGINT; return the exit code."""
    configure(settings.log_level)
    try:
        return asyncio.run(_serve(settings))
    except (ConfigurationError, ssl.SSLError, OSError) as error:
        _log.error("the gateway cannot start with what is configured", why=str(error))
        return 1


class Gateway:
    """The parts of one process, wired together."""

    def __init__(self, settings: Settings, transport: HttpTransport) -> None:
        OnBehalf(transport, "")  # refuses what would not work before anybody calls
        self._settings = settings
        self.measures = Measures()
        self.board = Board(self._told)
        self.places = Places(settings.most_waiting)
        queues = Queues(self.board)
        client = Client(transport)
        namespaces = list(settings.watch_namespaces) or None
        self.tasks: Informer[Seen] = Informer(
            client, TASKS, transform=seen, on_event=self.board.hear, namespaces=namespaces
        )
        self.queues: Informer[SeenQueue] = Informer(
            client, TASKQUEUES, transform=seen_queue, on_event=queues.hear, namespaces=namespaces
        )
        hooks = Hooks()
        # None where webhooks are off: then it has no right to look, and none is found.
        self.sources: Informer[SeenSource] | None = None
        if settings.webhook_namespaces:
            self.sources = Informer(
                client,
                TASKSOURCES,
                transform=seen_source,
                on_event=hooks.hear,
                namespaces=settings.webhook_namespaces,
            )
        callers = Callers(Reviews(client), transport)
        leader = LeadersView(client, settings.view, settings.lease, "TASKDIST_GATEWAY_VIEW")
        routes = Routes(self.board, callers, Submitter(queues), self.places, leader)
        webhooks = Webhooks(hooks, Secrets(client), queues, client, self.measures)
        self.app = build(routes, self.measures, settings.root_path, webhooks)
        self.measures.show(self._gauges)

    async def begun(self) -> None:
        """Return once all Tasks are in view."""
        await self.tasks.synced()
        self.board.begin(self._settings.watch_namespaces)

    def unready(self) -> str | None:
        """Say what keeps callers from being answered; None where nothing does."""
        for informer in self.informers():
            if not (informer.is_synced and self.board.begun):
                return f"waiting for the first list of {informer.resource}"
            if informer.silent_for > SILENT_SECONDS:
                return f"the API server has said nothing of {informer.resource} for {informer.silent_for:.0f} s"
        return None

    def informers(self) -> "list[Informer[Any]]":
        """Return the watches of all that is kept in memory."""
        return [self.tasks, self.queues, *([] if self.sources is None else [self.sources])]

    def _told(self, namespace: str) -> str | None:
        return self.tasks.version_in(namespace)

    def _gauges(self) -> dict[str, float]:
        return {
            measures.TASKS: self.board.rows,
            measures.WAITING: self.places.taken,
            measures.SILENT: self.tasks.silent_for,
        }


async def _serve(settings: Settings) -> int:
    stopping = told_to_end()
    transport = HttpTransport(Credentials(settings.kubeconfig), connections=CONNECTIONS, user_agent="taskdist-gateway")
    await transport.open()
    try:
        gateway = Gateway(settings, transport)
        server = web_server(
            gateway.app, host=settings.host, port=settings.port, tls_cert=settings.tls_cert, tls_key=settings.tls_key
        )
        async with (
            HealthServer(settings.health_port, healthy=lambda: None, ready=gateway.unready, host=settings.host),
            MetricsServer(gateway.measures, settings.metrics_port, host=settings.host),
        ):
            beginning = asyncio.create_task(gateway.begun())
            try:
                watches = {each.resource.plural: each.run() for each in gateway.informers()}
                return await serve_until(stopping, server, watches)
            finally:
                beginning.cancel()
                await asyncio.gather(beginning, return_exceptions=True)
    finally:
        await transport.close()
