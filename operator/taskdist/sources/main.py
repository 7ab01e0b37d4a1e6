"""The process of sources: what it does while it leads."""

import asyncio
import contextlib
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final

import kopf
import structlog

from taskdist.api import GROUP, VERSION, TaskSource
from taskdist.elected.keeper import Keeper
from taskdist.elected.process import Elected
from taskdist.kube import Client, ConfigurationError
from taskdist.kube.kopf_setup import bound_depth, build_settings
from taskdist.observability.logs import configure
from taskdist.sources.connecting import connect
from taskdist.sources.keeper import keep_sources
from taskdist.sources.metrics import SourceMetrics
from taskdist.sources.queues import QueueView
from taskdist.sources.reporting import Reporter
from taskdist.sources.running import Brokers
from taskdist.sources.settings import Settings

_log = structlog.get_logger("taskdist.sources")

# How long kopf may take to end, and how often what it still does is cancelled meanwhile, in seconds.
END_SECONDS: Final = 3.0
CANCEL_SECONDS: Final = 0.2


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    configure(settings.log_level)
    try:
        return asyncio.run(process(settings).run())
    except ConfigurationError as error:
        _log.error("the API server cannot be reached with what is configured", why=str(error))
        return 1


def build_registry(sources: Keeper[Reporter]) -> kopf.OperatorRegistry:
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


def process(settings: Settings) -> Elected:
    """Return the process that runs the sources."""
    metrics = SourceMetrics()

    async def work(client: Client, leading: Callable[[], bool], failed: Callable[[BaseException], None]) -> None:
        queues = QueueView(client, settings.watch_namespaces)
        opens = partial(connect, identity_namespaces=settings.identity_namespaces)
        brokers = Brokers(queues, asyncio.get_running_loop().time, opens)
        sources = keep_sources(client, metrics, leading, failed, lambda: datetime.now(UTC), brokers)
        bound_depth()
        watching = asyncio.create_task(
            kopf.operator(
                registry=build_registry(sources),
                settings=build_settings(),
                # kopf would ask who runs it, and fails where the user of a container is a number without a name.
                identity="taskdist-sources",  # type: ignore[arg-type]
                standalone=True,
                clusterwide=not settings.watch_namespaces,
                namespaces=settings.watch_namespaces,
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

    return Elected("sources", settings, metrics, work)


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
