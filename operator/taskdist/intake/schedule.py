"""Runs of a cron source: due, missed, and made up for. Pure: the time is an argument.

All times in and out are UTC. Around a change of the clock the rules are Debian cron's: a run at a set time that the
clock skips comes right after the skip, one in an hour that comes twice comes once; where the minute or the hour is `*`
(or `*/n`), the hour that comes twice has its runs twice and the skipped one has none.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError

from taskdist.api.tasksource import MAX_CATCH_UP, SCHEDULE_PATTERN, Cron, OnMissed

_FORM = re.compile(SCHEDULE_PATTERN)
# Any time will do to see what a schedule is like.
_SOME_TIME: Final = datetime(2024, 1, 1, tzinfo=UTC)
# How far back missed runs are looked for at first.
_FIRST_LOOK: Final = timedelta(hours=1)


class ScheduleError(Exception):
    """The schedule or its time zone is none: `field` of the spec says which."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(why)
        self.field = field


@dataclass(frozen=True, slots=True)
class Schedule:
    """A schedule in its time zone."""

    text: str
    zone: ZoneInfo

    @property
    def label(self) -> str:
        """The text that tells it from another schedule."""
        return f"{self.text} {self.zone.key}"

    def after(self, moment: datetime) -> datetime | None:
        """Return the first run after the moment; None if there is none within 50 years."""
        return next(self._from(moment), None)

    def latest(self, start: datetime, end: datetime, most: int) -> tuple[list[datetime], bool]:
        """Return the runs after `start` up to `end`, the latest `most` of them in order; and whether there are more."""
        look, found = _FIRST_LOOK, list[datetime]()
        while True:
            begin = max(start, end - look) if end - start > look else start
            found = []
            for run in self._from(begin):
                if run > end:
                    break
                found.append(run)
            if begin == start or len(found) > most:
                return found[-most:], len(found) > most
            look *= 2

    def _from(self, moment: datetime) -> Iterator[datetime]:
        """Yield runs after the moment, each later than the one before."""
        last = moment
        try:
            for run in CronSim(self.text, moment.astimezone(self.zone)):
                found = run.astimezone(UTC)
                # Runs that the clock skips fall on one time, and before an hour that comes again lies the first one.
                if found > last:
                    last = found
                    yield found
        except OverflowError:  # beyond the year 9999
            return


def parse_schedule(cron: Cron) -> Schedule:
    """Read the schedule and its time zone. Raises `ScheduleError`."""
    text = " ".join(cron.schedule.split())
    if not _FORM.fullmatch(text):
        raise ScheduleError(
            "schedule",
            f"{text[:80]!r} has not the five fields minute, hour, day, month, day of the week: write 0 3 * * *",
        )
    try:
        CronSim(text, _SOME_TIME)
    except CronSimError as error:
        raise ScheduleError("schedule", f"{text[:80]!r} is no schedule of cron: {str(error).lower()}") from None
    try:
        zone = ZoneInfo(cron.time_zone)
    except (OSError, ValueError, KeyError):  # a folder, no name of a file, not there
        raise ScheduleError(
            "timeZone", f"{cron.time_zone!r} is no time zone: write a name such as Europe/Berlin, or UTC"
        ) from None
    return Schedule(text, zone)


@dataclass(frozen=True, slots=True)
class Plan:
    """The runs to make now, and those that are skipped."""

    make: tuple[datetime, ...]
    """Runs to make, the earliest first."""
    skipped: int
    """Missed runs that are not made up for, of the latest `MAX_CATCH_UP`."""
    until: datetime
    """The run up to which all are dealt with once those are made."""


def plan(schedule: Schedule, cron: Cron, handled: datetime, now: datetime) -> Plan:
    """Say which runs after `handled` are to be made now.

    A clock that went back makes no run twice: what was handled stays so.
    """
    if now <= handled:
        return Plan((), 0, handled)
    in_time_from = now - timedelta(seconds=cron.starting_deadline_seconds)
    # At most one run a minute is in time.
    due, _ = schedule.latest(handled, now, cron.starting_deadline_seconds // 60 + 2 + MAX_CATCH_UP)
    if not due:
        return Plan((), 0, handled)
    in_time = [run for run in due if run >= in_time_from]
    missed = [run for run in due if run < in_time_from]
    match cron.missed:
        case OnMissed.SKIP:
            made_up = []
        case OnMissed.ONE:
            made_up = [] if in_time else missed[-1:]
        case OnMissed.ALL:
            made_up = missed[-cron.most_missed :]
    return Plan((*made_up, *in_time), len(missed) - len(made_up), due[-1])
