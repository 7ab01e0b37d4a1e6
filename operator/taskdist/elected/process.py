"""A process from start to clean end. One of several leads and works; the others stand by.

A part that fails for good ends the process, and so does a leadership that is lost: whoever starts next begins from what
the API server holds.
"""

import asyncio
import signal
from collections.abc import Callable
from typing import Final, Protocol

import structlog
from prometheus_client import CollectorRegistry

from taskdist.kube import Client, Identity, LeaderElector
from taskdist.observability.serve import HealthServer, MetricsServer

# How long the election may take to end, in seconds.
END_SECONDS: Final = 5.0
# How long the API server may not have answered before the process counts as unready, in seconds.
UNREADY_SECONDS: Final = 30.0


class Settings(Protocol):
    """Settings that such a process has, whatever it does."""

    @property
    def namespace(self) -> str: ...
    @property
    def lease_name(self) -> str: ...
    @property
    def pod_name(self) -> str: ...
    @property
    def pod_uid(self) -> str: ...
    @property
    def metrics_port(self) -> int: ...
    @property
    def health_port(self) -> int: ...
    @property
    def host(self) -> str: ...
    @property
    def kubeconfig(self) -> str | None: ...


class Metrics(Protocol):
    """Metrics of such a process."""

    @property
    def registry(self) -> CollectorRegistry: ...

    def leads(self, leading: bool) -> None: ...


class Work(Protocol):
    """The work of the process that leads."""

    async def __call__(
        self, client: Client, leading: Callable[[], bool], failed: Callable[[BaseException], None]
    ) -> None:
        """Work until cancelled. The process ends with it: well where it returns, and with an error where it raises.

        Args:
            leading: whether this process leads now.
            failed: told of what ended a part although nothing ever should.
        """


class Elected:
    """The process around its work: signals, election, health, metrics.

    Args:
        what: it works at, such as `sources`: names its client and its log.
    """

    def __init__(self, what: str, settings: Settings, metrics: Metrics, work: Work) -> None:
        self._what = what
        self._settings = settings
        self._metrics = metrics
        self._do = work
        self._log = structlog.get_logger(f"taskdist.{what}")
        self._stopping = asyncio.Event()
        self._failed = False
        self._answered = 0.0
        self._work: asyncio.Task[None] | None = None

    async def run(self) -> int:
        """Run until SIGTERM, SIGINT or `stop`; return the exit code."""
        settings, loop = self._settings, asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        self._answered = loop.time()
        agent = f"taskdist-{self._what}"
        async with (
            HealthServer(settings.health_port, healthy=self._unhealthy, ready=self._unready, host=settings.host),
            MetricsServer(self._metrics, settings.metrics_port, host=settings.host),
            Client.connect(settings.kubeconfig, user_agent=agent, on_request=self._requested) as client,
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
                self._log.error("the election failed; the process ends", exc_info=error)
                self._failed = True
            elector.resign()
            await asyncio.wait({campaign}, timeout=END_SECONDS)
            campaign.cancel()
            # Where the election itself has failed, nobody else ends it.
            await self._cancel_work()
        self._log.info("stopped")
        return 1 if self._failed else 0

    def stop(self) -> None:
        """Have the process end."""
        self._stopping.set()

    def _begin(self, client: Client, elector: LeaderElector, epoch: int) -> None:
        self._log.info(f"this process runs the {self._what}", epoch=epoch)
        self._metrics.leads(True)
        work = self._do(client, lambda: elector.leading() is not None, self._part_failed)
        self._work = asyncio.create_task(work, name="leadership")
        self._work.add_done_callback(self._over)

    async def _end(self, _deadline: float) -> None:
        """The leadership ends: nothing is done or written any more."""
        self._metrics.leads(False)
        await self._cancel_work()
        if not self._stopping.is_set():
            self._log.warning("the leadership was lost; the process ends and begins anew")
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
            self._log.error(f"the {self._what} ended; the process ends", exc_info=error)
            self._fail()
        # kopf, while it runs, catches the signals itself, and ends well at no other word.
        self.stop()

    def _part_failed(self, error: BaseException) -> None:
        self._log.error(f"a part of the {self._what} failed; the process ends", exc_info=error)
        self._fail()

    def _fail(self) -> None:
        self._failed = True
        self.stop()

    def _requested(self, _verb: str, _resource: str, outcome: str, _seconds: float) -> None:
        if outcome.isdecimal() and int(outcome) < 500:
            self._answered = asyncio.get_running_loop().time()

    def _unhealthy(self) -> str | None:
        """Tell what only a restart can mend. That it is answered shows that the loop turns over."""
        return "a part has failed and the process does not come to its end" if self._failed else None

    def _unready(self) -> str | None:
        silent = asyncio.get_running_loop().time() - self._answered
        return f"the API server has not answered for {silent:.0f} s" if silent > UNREADY_SECONDS else None
