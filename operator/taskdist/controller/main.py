"""The operator's process: from start to clean end.

A part that fails for good ends the process: a fresh start from what the API server holds is the one recovery that is
tested every day. What the parts are and how they are wired is `wiring`'s.
"""

import asyncio
import os
import signal
import sys

import structlog

from taskdist.controller.collector import look_rarely
from taskdist.controller.failures import end_on_failure
from taskdist.controller.handlers import KopfThread
from taskdist.controller.reach import Reach, served
from taskdist.controller.settings import Settings
from taskdist.controller.wiring import Operator
from taskdist.kube import (
    TASKS,
    Client,
    ConfigurationError,
)
from taskdist.observability.logs import configure
from taskdist.observability.metrics import Metrics
from taskdist.observability.serve import HealthServer, MetricsServer

_log = structlog.get_logger("taskdist.operator")

# How long the reconciling loop may not turn over before the process counts as unhealthy, in seconds.
STUCK_SECONDS = 30.0


def run(settings: Settings) -> int:
    """Run the operator until SIGTERM or SIGINT; return the exit code."""
    configure(settings.log_level)
    look_rarely()
    process = _Process(settings)
    try:
        code = asyncio.run(process.run())
    except ConfigurationError as error:
        _log.error("the API server cannot be reached with what is configured", why=str(error))
        return 1
    if KopfThread.running():
        # One hangs: the interpreter would wait for its helpers for ever.
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)
    return code


class _Process:
    """The process around the operator: signals, health, the way to the API server."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._metrics = Metrics()
        self._stopping = asyncio.Event()
        self._failed = False
        self._reach = Reach()
        self._operator: Operator | None = None

    async def run(self) -> int:
        settings, loop = self._settings, asyncio.get_running_loop()
        end_on_failure(loop, self._fail)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        async with (
            HealthServer(settings.health_port, healthy=self._unhealthy, ready=self._unready, host=settings.host),
            MetricsServer(self._metrics, settings.metrics_port, host=settings.host),
            Client.connect(settings.kubeconfig, on_request=self._requested) as client,
        ):
            if not await self._begins(client):
                return 1
            operator = self._operator = Operator(settings, client, self._metrics, self._reach, self._fail)
            try:
                await operator.run(self._stopping)
            except* Exception as failures:
                for error in failures.exceptions:
                    _log.error("a part of the operator failed", exc_info=error)
                self._failed = True
            await operator.close()
        _log.info("stopped")
        return 1 if self._failed else 0

    async def _begins(self, client: Client) -> bool:
        """Wait for the API server, or for the word to end."""
        scope = self._settings.watch_namespaces[0] if self._settings.watch_namespaces else None
        waiting = asyncio.create_task(served(lambda: client.probe(TASKS, scope)))
        stopper = asyncio.create_task(self._stopping.wait())
        await asyncio.wait({waiting, stopper}, return_when=asyncio.FIRST_COMPLETED)
        stopper.cancel()
        if waiting.done():
            return waiting.result()
        waiting.cancel()
        return True

    def _fail(self) -> None:
        """End the process, and say that it was not asked to."""
        self._failed = True
        self._stopping.set()

    def _requested(self, verb: str, resource: str, outcome: str, seconds: float) -> None:
        self._metrics.api_request(verb, resource, outcome, seconds)
        self._reach.request(verb, outcome)

    def _unhealthy(self) -> str | None:
        """What only a restart can mend. That it is answered shows that the dispatch loop turns over: it answers."""
        if self._failed:
            return "a part has failed and the process does not come to its end"
        if self._operator is not None and (silent := self._operator.silent_for) > STUCK_SECONDS:
            return f"the reconciling loop has not turned over for {silent:.0f} s"
        return None

    def _unready(self) -> str | None:
        if (problem := self._reach.problem()) is not None:
            return problem
        return "waiting for the API server" if self._operator is None else self._operator.unready()
