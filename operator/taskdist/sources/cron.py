"""A cron source at work: a Task for each run that is due, made before it is recorded.

A run's Task is named by the source and the run's time. So a process that dies between the Task and the record finds the
Task there when it makes the run again, and two processes that both think they lead make one Task between them.
"""

import json
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Final

import structlog

from taskdist.api import SourceReason, TaskSource
from taskdist.api.tasksource import Cron
from taskdist.intake.consuming import RETRY
from taskdist.intake.mapping import Mapping
from taskdist.intake.message import Message, Poison, wire
from taskdist.intake.schedule import Schedule, plan
from taskdist.sources.creating import Closed, Creator, Outcome
from taskdist.sources.reporting import Reporter

_log = structlog.get_logger("taskdist.sources")

# The longest that the clock is not looked at, in seconds: it may be set.
LOOK_SECONDS: Final = 30.0
# A clock that is so far behind what was handled is worth telling.
BEHIND: Final = timedelta(minutes=1)

Sleep = Callable[[float], Awaitable[None]]


def message_of(run: datetime, name: str, cron: Cron) -> Message:
    """Return the message that a run is to the template."""
    body = {"scheduledTime": wire(run), "source": name, "schedule": cron.schedule, "timeZone": cron.time_zone}
    return Message(body=json.dumps(body).encode(), id=wire(run), time=run)


class CronSource:
    """Runs one source until it is cancelled; returns where only a change of it helps."""

    def __init__(
        self,
        source: TaskSource,
        mapping: Mapping,
        schedule: Schedule,
        creator: Creator,
        reporter: Reporter,
        now: Callable[[], datetime],
        sleep: Sleep,
    ) -> None:
        assert source.spec.cron is not None
        self._cron = source.spec.cron
        self._name = source.metadata.name
        self._born = source.metadata.creation_timestamp
        self._mapping = mapping
        self._schedule = schedule
        self._creator = creator
        self._reporter = reporter
        self._now = now
        self._sleep = sleep
        self._refusals = 0
        self._handled = self._begin()

    def _begin(self) -> datetime:
        """Return the time since which runs count."""
        status, now = self._reporter.cron, self._now()
        if self._reporter.reason == SourceReason.SUSPENDED or (status.schedule not in ("", self._schedule.label)):
            # What was due while it was suspended, or by another schedule, is not missed.
            since = now
        else:
            since = status.handled_until or self._born or now
        status.schedule = self._schedule.label
        status.handled_until = since
        return since.astimezone(UTC)

    async def run(self) -> None:
        """Raises `Gone`, `Changed` and `KubeError`."""
        while True:
            now = self._now()
            due = plan(self._schedule, self._cron, self._handled, now)
            self._creator.metrics.lag(self._reporter.key, (now - due.make[0]).total_seconds() if due.make else 0.0)
            try:
                await self._make(due.make)
            except Closed as error:
                self._say_closed(error)
                await self._reporter.flush()
                await self._sleep(RETRY.full(self._refusals))
                self._refusals += 1
                continue
            self._refusals = 0
            self._skip(due.skipped)
            self._handled = max(self._handled, due.until)
            following = self._schedule.after(max(self._handled, now))
            self._say(following, now)
            await self._reporter.flush()
            if following is None:
                return
            await self._sleep(max(0.0, min(LOOK_SECONDS, (following - self._now()).total_seconds())))

    async def _make(self, runs: tuple[datetime, ...]) -> None:
        if runs:
            # One that was changed or deleted meanwhile makes no more.
            await self._reporter.confirm()
        for run in runs:
            try:
                outcome, name = await self._creator.create(self._mapping.of(message_of(run, self._name, self._cron)))
            except Poison as poison:
                _log.warning("no Task can be made of a run", source=self._name, run=wire(run), why=str(poison))
                self._reporter.rejected(poison)
            else:
                if outcome is Outcome.CREATED:
                    self._reporter.created()
                self._reporter.cron.last_scheduled_time = run
                self._reporter.cron.last_task = name
            self._handled = run
            self._reporter.cron.handled_until = run

    def _skip(self, count: int) -> None:
        if count:
            _log.warning("runs were missed and are not made up for", source=self._name, count=count)
            self._reporter.cron.skipped += count
            self._creator.metrics.skipped(self._reporter.key, count)

    def _say(self, following: datetime | None, now: datetime) -> None:
        status = self._reporter.cron
        status.handled_until, status.next_scheduled_time = self._handled, following
        if following is None:
            self._reporter.say(SourceReason.NEVER_DUE, "spec.cron.schedule is never due again: change it")
        elif self._handled - now > BEHIND:
            self._reporter.say(
                SourceReason.CLOCK_BEHIND,
                f"runs up to {wire(self._handled)} were handled, which is yet to come: the clock was ahead, or is "
                "behind now. Nothing is due before; to begin now, set spec.suspend to true, and back",
            )
        else:
            self._reporter.say(SourceReason.RUNNING, "Tasks are made as the schedule says")

    def _say_closed(self, error: Closed) -> None:
        status = self._reporter.cron
        status.handled_until = self._handled
        reason = SourceReason.QUEUE_CLOSED if error.full else SourceReason.REFUSED
        self._reporter.say(reason, f"{error} The run is tried again for as long as it is in time")
