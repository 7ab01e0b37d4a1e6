"""Running one source: its spec compiled, its kind begun, and begun again with growing pauses where it fails.

A source that fails is set aside with a reason on its status; the others go on. What only a change of it can mend is
said once, and it then waits for that change.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Protocol

import structlog

from taskdist.api import SourceReason, TaskSource
from taskdist.elected.again import log_failure, work_again
from taskdist.intake.mapping import MappingError, compile_mapping
from taskdist.intake.schedule import ScheduleError, parse_schedule
from taskdist.intake.signatures import compile_signature
from taskdist.kube import Client, KubeError
from taskdist.sources.broker import Open, Trouble
from taskdist.sources.connecting import connect
from taskdist.sources.consumer import BrokerSource
from taskdist.sources.creating import Creator
from taskdist.sources.cron import CronSource
from taskdist.sources.metrics import SourceMetrics
from taskdist.sources.queues import Queues
from taskdist.sources.reporting import Reporter
from taskdist.sources.webhook import WebhookSource

_log = structlog.get_logger("taskdist.sources")


class Unusable(Exception):
    """No work can come of this spec: `reason` for programs, the text for people."""

    def __init__(self, reason: SourceReason, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class Kind(Protocol):
    """A source of any kind at work."""

    async def run(self) -> None:
        """Work until cancelled; return where only a change of the source helps, and say so before."""


@dataclass(frozen=True, slots=True)
class Brokers:
    """The parts that only sources of brokers need.

    Args:
        queues: which queues take no Tasks now.
        connect: opens a session for a source.
        ticks: a clock that nobody sets, in seconds.
    """

    queues: Queues
    ticks: Callable[[], float]
    connect: Callable[[Client, TaskSource], Open] = connect


class Running:
    """Runs one source.

    Args:
        now: the wall clock.
        sleep: waits for so many seconds.
    """

    def __init__(
        self,
        client: Client,
        source: TaskSource,
        reporter: Reporter,
        metrics: SourceMetrics,
        now: Callable[[], datetime],
        sleep: Callable[[float], Awaitable[None]],
        brokers: Brokers,
    ) -> None:
        self._client = client
        self._source = source
        self._reporter = reporter
        self._metrics = metrics
        self._now = now
        self._sleep = sleep
        self._brokers = brokers
        self._creator = Creator(client, metrics, reporter.key, source.metadata.uid)

    async def run(self) -> None:
        """Run it until it is cancelled, deleted, changed, or waits for a change."""

        def gone() -> None:
            self._metrics.gone(self._reporter.key)

        await work_again(self._once, gone, self._failed, self._brokers.ticks, self._sleep)

    async def _once(self) -> None:
        if self._source.spec.suspend:
            self._reporter.say(SourceReason.SUSPENDED, "spec.suspend is true: no Tasks are made until it is false")
            await self._reporter.flush()
            return
        try:
            kind = self._kind()
        except Unusable as error:
            self._reporter.say(error.reason, str(error))
            await self._reporter.flush()
            return
        await kind.run()

    def _kind(self) -> Kind:
        spec = self._source.spec
        try:
            mapping = compile_mapping(spec.task)
            if spec.webhook is not None:
                compile_signature(spec.webhook)
        except MappingError as error:
            raise Unusable(SourceReason.INVALID_TEMPLATE, str(error)) from None
        if spec.webhook is not None:
            return WebhookSource(self._reporter)
        if spec.cron is not None:
            try:
                schedule = parse_schedule(spec.cron)
            except ScheduleError as error:
                raise Unusable(SourceReason.INVALID_SCHEDULE, f"spec.cron.{error.field}: {error}") from None
            return CronSource(self._source, mapping, schedule, self._creator, self._reporter, self._now, self._sleep)
        if spec.rabbitmq is not None or spec.kafka is not None or spec.sqs is not None:
            return BrokerSource(
                self._source,
                mapping,
                replace(self._creator, queues=self._brokers.queues),
                self._reporter,
                self._brokers.queues,
                self._brokers.connect(self._client, self._source),
                self._now,
                self._brokers.ticks,
                self._sleep,
            )
        raise Unusable(
            SourceReason.UNREADABLE, "spec names no source that this release knows: upgrade `taskdist sources`"
        )

    async def _failed(self, error: Exception, pause: float) -> bool:
        """Say that it failed; where not even that can be written, the log has it."""
        self._metrics.failed(self._reporter.key)
        # What the API server says is clear enough.
        known = isinstance(error, KubeError | Trouble)
        log_failure(_log, "source", self._reporter.key, error, pause, known=known)
        reason = error.reason if isinstance(error, Trouble) else SourceReason.FAILING
        self._reporter.say(reason, f"It failed and is begun again: {str(error) or repr(error)}")
        # Whatever keeps it from being written, the failure itself is what counts.
        with contextlib.suppress(Exception):
            await self._reporter.flush()
        return False
