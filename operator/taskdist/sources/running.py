"""Running one source: its spec compiled, its kind begun, and begun again with growing pauses where it fails.

A source that fails is set aside with a reason on its status; the others go on. What only a change of it can mend is
said once, and it then waits for that change.
"""

import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Final, Protocol

import structlog

from taskdist.api import SourceReason, TaskSource
from taskdist.elected.keeper import AGAIN
from taskdist.intake.mapping import MappingError, compile_mapping
from taskdist.intake.schedule import ScheduleError, parse_schedule
from taskdist.intake.signatures import compile_signature
from taskdist.kube import Client, KubeError
from taskdist.kube.own_status import Changed, Gone
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

# A source that went on for so long before it failed is begun again at once, in seconds.
WELL_SECONDS: Final = 60.0


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
        failures = 0
        while True:
            began = self._now()
            try:
                await self._once()
                return
            except Gone:
                self._metrics.gone(self._reporter.key)
                return
            except Changed:
                return  # what it is now is on its way
            except Exception as error:
                if (self._now() - began).total_seconds() >= WELL_SECONDS:
                    failures = 0
                pause = AGAIN.full(failures)
                await self._tell(error, pause)
            await self._sleep(pause)
            failures += 1

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

    async def _tell(self, error: Exception, pause: float) -> None:
        """Say that it failed; where not even that can be written, the log has it."""
        self._metrics.failed(self._reporter.key)
        # What the API server says is clear enough; anything else is a defect, and wants its place told.
        known = isinstance(error, KubeError | Trouble)
        namespace, name = self._reporter.key
        _log.warning(
            "a source failed and is begun again",
            namespace=namespace,
            name=name,
            why=str(error) or repr(error),
            seconds=pause,
            exc_info=None if known else error,
        )
        reason = error.reason if isinstance(error, Trouble) else SourceReason.FAILING
        self._reporter.say(reason, f"It failed and is begun again: {str(error) or repr(error)}")
        # Whatever keeps it from being written, the failure itself is what counts.
        with contextlib.suppress(Exception):
            await self._reporter.flush()
