"""The archive's process: from start to clean end. What it does is `archiver`'s."""

import asyncio
import signal

import structlog

from taskdist.archive.archiver import Archiver
from taskdist.archive.buffer import Buffer
from taskdist.archive.database import Database
from taskdist.archive.feed import Feed
from taskdist.archive.metrics import ArchiveMetrics
from taskdist.archive.schema import SchemaTooNew
from taskdist.archive.settings import Settings
from taskdist.archive.word import Word
from taskdist.kube import Client, ConfigurationError, KubeError
from taskdist.observability.logs import configure
from taskdist.observability.serve import HealthServer, MetricsServer

_log = structlog.get_logger("taskdist.archive")

UNREADY_SECONDS = 30.0
"""Seconds without an answer of the database after which the process is unready."""


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    configure(settings.log_level)
    try:
        return asyncio.run(_run(settings))
    except ConfigurationError as error:
        _log.error("the API server cannot be reached with what is configured", why=str(error))
        return 1


async def _run(settings: Settings) -> int:
    stopping = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    metrics = ArchiveMetrics()
    async with Client.connect(settings.kubeconfig, user_agent="taskdist-archive") as client:

        def failed(_: KubeError) -> None:
            metrics.failed("tasks")

        def feeds(buffer: Buffer) -> list[Feed]:
            scopes = settings.watch_namespaces or (None,)
            return [Feed(client, scope, buffer, settings.cluster, failed, asyncio.sleep) for scope in scopes]

        archiver = Archiver(
            Database(settings.dsn, settings.lock),
            feeds,
            Word(client, settings.namespace, settings.installation),
            metrics,
            settings.keep_months,
        )

        def unready() -> str | None:
            if archiver.failing_for < UNREADY_SECONDS:
                return None
            return f"the database has not answered for {archiver.failing_for:.0f} s: {archiver.last_failure}"

        async with (
            HealthServer(settings.health_port, healthy=lambda: None, ready=unready, host=settings.host),
            MetricsServer(metrics, settings.metrics_port, host=settings.host),
        ):
            return await _until(archiver, stopping)


async def _until(archiver: Archiver, stopping: asyncio.Event) -> int:
    """Run it until it is asked to stop, or a part fails for good."""
    running = asyncio.create_task(archiver.run())
    stopper = asyncio.create_task(stopping.wait())
    await asyncio.wait({running, stopper}, return_when=asyncio.FIRST_COMPLETED)
    stopper.cancel()
    if not running.done():
        running.cancel()
        await asyncio.wait({running})
        _log.info("stopped")
        return 0
    error = running.exception()
    for each in error.exceptions if isinstance(error, BaseExceptionGroup) else (error,):
        if isinstance(each, SchemaTooNew):
            _log.error(str(each))
        else:
            _log.error("a part of the archive failed; the process ends", exc_info=each)
    return 1
