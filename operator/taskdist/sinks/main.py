"""The process of sinks: what it does while it leads."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import structlog

from taskdist.elected.process import Elected
from taskdist.kube import TASKSINKS, Client, ConfigurationError, Informer, Obj
from taskdist.observability.logs import configure
from taskdist.sinks.connecting import connect
from taskdist.sinks.dialling import GuardedLoop
from taskdist.sinks.keeper import keep_sinks
from taskdist.sinks.metrics import SinkMetrics
from taskdist.sinks.settings import Settings

_log = structlog.get_logger("taskdist.sinks")

# Names are looked up in threads, each for as long as the slowest name server of any receiver takes.
LOOKUPS: Final = 64


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    configure(settings.log_level)
    try:
        with asyncio.Runner(loop_factory=GuardedLoop) as runner:
            runner.get_loop().set_default_executor(ThreadPoolExecutor(LOOKUPS, "lookup"))
            return runner.run(process(settings).run())
    except ConfigurationError as error:
        _log.error("the API server cannot be reached with what is configured", why=str(error))
        return 1


def process(settings: Settings) -> Elected:
    """Return the process that runs the sinks."""
    metrics = SinkMetrics()

    async def work(client: Client, leading: Callable[[], bool], failed: Callable[[BaseException], None]) -> None:
        ticks = asyncio.get_running_loop().time
        sinks = keep_sinks(
            client,
            metrics,
            lambda sink: connect(client, sink, settings.allowed, ticks, settings.identity_namespaces),
            leading,
            failed,
            lambda: datetime.now(UTC),
            ticks,
        )
        # As it came: what it means is read by whoever runs it, and an odd one is told so.
        informer: Informer[Obj] = Informer(
            client,
            TASKSINKS,
            transform=lambda obj: obj,
            on_event=sinks.hear,
            namespaces=settings.watch_namespaces or None,
        )
        try:
            await informer.run()
        finally:
            await sinks.close()
        raise RuntimeError("the informer of TaskSinks ended by itself")

    return Elected("sinks", settings, metrics, work)
