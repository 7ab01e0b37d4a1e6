"""The process: from start to clean end. One of several leads and runs the sources; the others stand by.

A part that fails for good ends the process, and so does a leadership that is lost: whoever starts next begins from what
the API server holds.
"""

import asyncio
import contextlib
import signal
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import kopf
import structlog

from taskdist.api import GROUP, VERSION, TaskSource
from taskdist.kube import Client, ConfigurationError, Identity, LeaderElector
from taskdist.kube.kopf_setup import bound_depth, build_settings
from taskdist.observability.logs import configure
from taskdist.observability.serve import HealthServer, MetricsServer
from taskdist.sources.connecting import connect
from taskdist.sources.keeper import Sources
from taskdist.sources.metrics import SourceMetrics
from taskdist.sources.queues import QueueView
from taskdist.sources.running import Brokers
from taskdist.sources.settings import Settings

_log = structlog.get_logger("taskdist.sources")

# How long kopf may take to end, and how often what it still does is cancelled meanwhile, in seconds.
END_SECONDS: Final = 3.0
CANCEL_SECONDS: Final = 0.2
# How long the API server may not have answered the election before the process counts as unready, in seconds.
UNREADY_SECONDS: Final = 30.0


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    configure(settings.log_level)
    try:
        return asyncio.run(_Process(settings).run())
    except ConfigurationError as error:
        _log.error("the API server cannot be reached with what is configured", why=str(error))
        return 1


def build_registry(sources: Sources) -> kopf.OperatorRegistry:
    """Return kopf's handlers: delegate."""
    registry = kopf.OperatorRegistry()
    # The official client's ways in: in-cluster, or the kubeconfig that KUBECONFIG names, exec plugins included.
    kopf.on.login(registry=registry)(kopf.login_via_client)

    @kopf.on.event(GROUP, VERSION, TaskSource.plural, registry=registry)
    async def source(type: str | None, body: kopf.Body, namespace: str | None, name: str | None, **_: Any) -> None:
        if type == "DELETED":
            sources.deleted((str(namespace), str(name)))
        else:
            sources.seen(dict(body))

    return registry


class _Process:
    """The process around the sources: signals, election, health."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = SourceMetrics()
        self._stopping = asyncio.Event()
        self._failed = False
        self._answered = 0.0
        self._work: asyncio.Task[None] | None = None

    async def run(self) -> int:
        settings, loop = self._settings, asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        self._answered = loop.time()
        async with (
            HealthServer(settings.health_port, healthy=self._unhealthy, ready=self._unready, host=settings.host),
            MetricsServer(self._metrics, settings.metrics_port, host=settings.host),
            Client.connect(settings.kubeconfig, user_agent="taskdist-sources", on_request=self._requested) as client,
        ):
            elector = LeaderElector(
                client,
                namespace=settings.namespace,
                name=settings.lease_name,
                on_started=lambda epoch: self._begin(client, elector, epoch),
                on_stopping=self._end,
                identity=Identity(settings.pod_name, settings.pod_uid),
            )
            campaign = asyncio.create_task(elector.run(), name="election")
            stop = asyncio.create_task(self._stopping.wait(), name="stop")
            await asyncio.wait({campaign, stop}, return_when=asyncio.FIRST_COMPLETED)
            stop.cancel()
            # kopf, as it ends, cancels what was begun beside it: an election that ends its leadership too.
            if campaign.cancelled() or (campaign.done() and campaign.exception() is not None):
                error = None if campaign.cancelled() else campaign.exception()
                _log.error("the election failed; the process ends", exc_info=error)
                self._failed = True
            elector.resign()
            await asyncio.wait({campaign}, timeout=END_SECONDS + 2)
            campaign.cancel()
            # Where the election itself has failed, nobody else ends it.
            await self._cancel_work()
        _log.info("stopped")
        return 1 if self._failed else 0

    def _begin(self, client: Client, elector: LeaderElector, epoch: int) -> None:
        _log.info("this process runs the sources", epoch=epoch)
        self._metrics.leads(True)
        self._work = asyncio.create_task(self._lead(client, elector), name="leadership")
        self._work.add_done_callback(self._over)

    async def _end(self, _deadline: float) -> None:
        """The leadership ends: nothing is made or written any more."""
        self._metrics.leads(False)
        await self._cancel_work()
        if not self._stopping.is_set():
            _log.warning("the leadership was lost; the process ends and begins anew")
            self._fail()

    async def _cancel_work(self) -> None:
        work, self._work = self._work, None
        if work is not None:
            work.cancel()
            await asyncio.wait({work})

    def _over(self, work: asyncio.Task[None]) -> None:
        if work.cancelled():
            return
        if (error := work.exception()) is not None:
            _log.error("the sources ended; the process ends", exc_info=error)
            self._fail()
        # kopf, while it runs, catches the signals itself, and ends well at no other word.
        self._stopping.set()

    def _fail(self) -> None:
        self._failed = True
        self._stopping.set()

    async def _lead(self, client: Client, elector: LeaderElector) -> None:
        def failed(error: BaseException) -> None:
            _log.error("a part of the sources failed; the process ends", exc_info=error)
            self._fail()

        queues = QueueView(client, self._settings.watch_namespaces)
        sources = Sources(
            client,
            self._metrics,
            lambda: elector.leading() is not None,
            failed,
            lambda: datetime.now(UTC),
            Brokers(
                queues,
                asyncio.get_running_loop().time,
                partial(connect, identity_namespaces=self._settings.identity_namespaces),
            ),
        )
        bound_depth()
        watching = asyncio.create_task(
            kopf.operator(
                registry=build_registry(sources),
                settings=build_settings(),
                # kopf would ask who runs it, and fails where the user of a container is a number without a name.
                identity="taskdist-sources",  # type: ignore[arg-type]
                standalone=True,
                clusterwide=not self._settings.watch_namespaces,
                namespaces=self._settings.watch_namespaces,
            ),
            name="kopf",
        )
        viewing = asyncio.create_task(queues.run(), name="queues")
        try:
            # Neither ends by itself: which of the two it is, the process ends with it.
            await asyncio.wait({watching, viewing}, return_when=asyncio.FIRST_COMPLETED)
            for part in (viewing, watching):
                if part.done():
                    part.result()
        finally:
            viewing.cancel()
            await asyncio.gather(viewing, return_exceptions=True)
            await sources.close()
            await _ended(watching)

    def _requested(self, _verb: str, _resource: str, outcome: str, _seconds: float) -> None:
        if outcome.isdecimal() and int(outcome) < 500:
            self._answered = asyncio.get_running_loop().time()

    def _unhealthy(self) -> str | None:
        """Tell what only a restart can mend. That it is answered shows that the loop turns over."""
        return "a part has failed and the process does not come to its end" if self._failed else None

    def _unready(self) -> str | None:
        silent = asyncio.get_running_loop().time() - self._answered
        return f"the API server has not answered for {silent:.0f} s" if silent > UNREADY_SECONDS else None


async def _ended(watching: "asyncio.Task[None]") -> None:
    """Have kopf end. A cancellation that comes while it waits for a thread is lost, so there is more than one."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + END_SECONDS
    while not watching.done() and loop.time() < deadline:
        watching.cancel()
        await asyncio.wait({watching}, timeout=CANCEL_SECONDS)
    if watching.done():
        with contextlib.suppress(asyncio.CancelledError, Exception):
            watching.result()
