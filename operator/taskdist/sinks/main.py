"""The process: from start to clean end. One of several leads and runs the sinks; the others stand by.

A part that fails for good ends the process, and so does a leadership that is lost: whoever starts next begins from what
the API server holds.
"""

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Final

import structlog

from taskdist.kube import TASKSINKS, Client, ConfigurationError, Identity, Informer, LeaderElector, Obj
from taskdist.observability.logs import configure
from taskdist.observability.serve import HealthServer, MetricsServer
from taskdist.sinks.connecting import connect
from taskdist.sinks.dialling import GuardedLoop
from taskdist.sinks.keeper import Sinks
from taskdist.sinks.metrics import SinkMetrics
from taskdist.sinks.settings import Settings

_log = structlog.get_logger("taskdist.sinks")

# How long the election may take to end, in seconds.
END_SECONDS: Final = 5.0
# How long the API server may not have answered before the process counts as unready, in seconds.
UNREADY_SECONDS: Final = 30.0
# Names are looked up in threads, each for as long as the slowest name server of any receiver takes.
LOOKUPS: Final = 64


def run(settings: Settings) -> int:
    """Run until SIGTERM or SIGINT; return the exit code."""
    configure(settings.log_level)
    try:
        with asyncio.Runner(loop_factory=GuardedLoop) as runner:
            return runner.run(_Process(settings).run())
    except ConfigurationError as error:
        _log.error("the API server cannot be reached with what is configured", why=str(error))
        return 1


class _Process:
    """The process around the sinks: signals, election, health."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = SinkMetrics()
        self._stopping = asyncio.Event()
        self._failed = False
        self._answered = 0.0
        self._work: asyncio.Task[None] | None = None

    async def run(self) -> int:
        settings, loop = self._settings, asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.set_default_executor(ThreadPoolExecutor(LOOKUPS, "lookup"))
        self._answered = loop.time()
        async with (
            HealthServer(settings.health_port, healthy=self._unhealthy, ready=self._unready, host=settings.host),
            MetricsServer(self._metrics, settings.metrics_port, host=settings.host),
            Client.connect(settings.kubeconfig, user_agent="taskdist-sinks", on_request=self._requested) as client,
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
            if campaign.done() and (campaign.cancelled() or campaign.exception() is not None):
                _log.error(
                    "the election failed; the process ends",
                    exc_info=None if campaign.cancelled() else campaign.exception(),
                )
                self._failed = True
            elector.resign()
            await asyncio.wait({campaign}, timeout=END_SECONDS)
            campaign.cancel()
            # Where the election itself has failed, nobody else ends it.
            await self._cancel_work()
        _log.info("stopped")
        return 1 if self._failed else 0

    def _begin(self, client: Client, elector: LeaderElector, epoch: int) -> None:
        _log.info("this process runs the sinks", epoch=epoch)
        self._metrics.leads(True)
        self._work = asyncio.create_task(self._lead(client, elector), name="leadership")
        self._work.add_done_callback(self._over)

    async def _end(self, _deadline: float) -> None:
        """The leadership ends: nothing is told or written any more."""
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
        if not work.cancelled():
            _log.error("the sinks ended; the process ends", exc_info=work.exception())
            self._fail()

    def _fail(self) -> None:
        self._failed = True
        self._stopping.set()

    async def _lead(self, client: Client, elector: LeaderElector) -> None:
        def failed(error: BaseException) -> None:
            _log.error("a part of the sinks failed; the process ends", exc_info=error)
            self._fail()

        sinks = Sinks(
            client,
            self._metrics,
            lambda sink: connect(client, sink, self._settings.allowed, asyncio.get_running_loop().time),
            lambda: elector.leading() is not None,
            failed,
            lambda: datetime.now(UTC),
            asyncio.get_running_loop().time,
        )
        # As it came: what it means is read by whoever runs it, and an odd one is told so.
        informer: Informer[Obj] = Informer(
            client,
            TASKSINKS,
            transform=lambda obj: obj,
            on_event=sinks.hear,
            namespaces=self._settings.watch_namespaces or None,
        )
        try:
            await informer.run()
        finally:
            await sinks.close()

    def _requested(self, _verb: str, _resource: str, outcome: str, _seconds: float) -> None:
        if outcome.isdecimal() and int(outcome) < 500:
            self._answered = asyncio.get_running_loop().time()

    def _unhealthy(self) -> str | None:
        """What only a restart can mend. That it is answered shows that the loop turns over."""
        return "a part has failed and the process does not come to its end" if self._failed else None

    def _unready(self) -> str | None:
        silent = asyncio.get_running_loop().time() - self._answered
        return f"the API server has not answered for {silent:.0f} s" if silent > UNREADY_SECONDS else None
