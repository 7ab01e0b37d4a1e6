"""The gateway's process: from start to clean end.

A part that fails for good ends the process.
"""

import asyncio
import signal
import ssl
from typing import Any

import structlog
import uvicorn

from taskdist.gateway import measures
from taskdist.gateway.app import build
from taskdist.gateway.board import Board, Seen, seen
from taskdist.gateway.callers import Callers
from taskdist.gateway.hooks import Hooks, Secrets, SeenSource, seen_source
from taskdist.gateway.leader import LeadersView
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

_log = structlog.get_logger("taskdist.gateway")

CONNECTIONS = 200
"""To the API server, at most; each is held for one request."""
SILENT_SECONDS = 120.0
"""A watch that has said nothing for so long is not to be believed: the server bookmarks about once a minute."""
END_SECONDS = 5
"""How long requests under way may take at the end, in seconds: well within a pod's grace."""


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
        leader = LeadersView(client, settings.view, settings.lease)
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
        """All that is watched."""
        return [self.tasks, self.queues, *([] if self.sources is None else [self.sources])]

    def _told(self, namespace: str) -> str | None:
        return self.tasks.version_in(namespace)

    def _gauges(self) -> dict[str, float]:
        return {
            measures.TASKS: self.board.rows,
            measures.WAITING: self.places.taken,
            measures.SILENT: self.tasks.silent_for,
        }


class _Server(uvicorn.Server):
    """uvicorn, without its own hold on signals: the process decides when it ends."""

    def install_signal_handlers(self) -> None:
        """Nothing."""


async def _serve(settings: Settings) -> int:
    stopping, loop = asyncio.Event(), asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stopping.set)
    transport = HttpTransport(Credentials(settings.kubeconfig), connections=CONNECTIONS, user_agent="taskdist-gateway")
    await transport.open()
    try:
        gateway = Gateway(settings, transport)
        server = _Server(
            uvicorn.Config(
                gateway.app,
                host=settings.host,
                port=settings.port,
                ssl_certfile=settings.tls_cert or None,
                ssl_keyfile=settings.tls_key or None,
                log_config=None,
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_graceful_shutdown=END_SECONDS,
            )
        )
        async with (
            HealthServer(settings.health_port, healthy=lambda: None, ready=gateway.unready, host=settings.host),
            MetricsServer(gateway.measures, settings.metrics_port, host=settings.host),
        ):
            return await _until(stopping, gateway, server)
    finally:
        await transport.close()


async def _until(stopping: asyncio.Event, gateway: Gateway, server: uvicorn.Server) -> int:
    """Run all parts until the word to end, or until one of them ends by itself."""
    parts = {
        asyncio.create_task(part, name=name)
        for name, part in (
            *((each.resource.plural, each.run()) for each in gateway.informers()),
            ("server", server.serve()),
        )
    }
    stop = asyncio.create_task(stopping.wait(), name="stop")
    begun = asyncio.create_task(gateway.begun())
    done, _ = await asyncio.wait({*parts, stop}, return_when=asyncio.FIRST_COMPLETED)
    failed = [each for each in done if each is not stop]
    for each in failed:
        error = None if each.cancelled() else each.exception()
        _log.error("a part of the gateway ended; the process ends", part=each.get_name(), exc_info=error)
    server.should_exit = True
    rest = [each for each in parts if each.get_name() == "server"]
    await asyncio.wait(rest, timeout=END_SECONDS + 2)
    for each in (*parts, stop, begun):
        each.cancel()
    await asyncio.gather(*parts, stop, begun, return_exceptions=True)
    _log.info("stopped")
    return 1 if failed else 0
