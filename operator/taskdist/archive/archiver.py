"""The work of the archive: feeds into the buffer, the buffer into the database, then the word to the operator.

Each part fails by itself and is tried again, with a back-off. The order is the promise: a mark is told only of what is
committed. After a lost connection everything is listed once more, as the database may have forgotten its last moments.
"""

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from typing import Protocol

import structlog

from taskdist.archive.buffer import Buffer
from taskdist.archive.database import DatabaseFailed, Saved
from taskdist.archive.metrics import ArchiveMetrics, State
from taskdist.archive.progress import Item, Progress
from taskdist.archive.rows import Row
from taskdist.archive.schema import month_of, months_before
from taskdist.archive.word import Disputed
from taskdist.common.backoff import Backoff
from taskdist.kube import KubeError

_log = structlog.get_logger("taskdist.archive")

BATCH_TASKS = 500
BATCH_BYTES = 8 * 2**20
WORD_SECONDS = 1.0
"""Between two words to the operator: each is a write."""
STANDBY_SECONDS = 2.0
"""Between two looks of one that waits for another's lock."""
SWEEP_SECONDS = 3600.0
PING_SECONDS = 20.0
"""Without anything to write, the database is asked so often whether it is there."""
_WAITS = Backoff(first=0.2, most=30.0)


class Rows(Protocol):
    """The database, as it is used here."""

    @property
    def is_open(self) -> bool: ...

    async def open(self) -> bool: ...

    async def close(self) -> None: ...

    async def ping(self) -> None: ...

    async def save(self, rows: Iterable[Row]) -> Saved: ...

    async def drop_before(self, month: date) -> list[date]: ...


class Feeding(Protocol):
    """A feed: reads into the buffer until cancelled."""

    async def run(self) -> None: ...


class Telling(Protocol):
    """Where the word is written. Raises KubeError, or Disputed."""

    async def write(self, marks: dict[str, int]) -> None: ...


class Archiver:
    """Copies until cancelled.

    Args:
        feeds: makes the feeds, which begin with a list.
        keep_months: as the setting; 0 keeps all.
    """

    def __init__(
        self,
        database: Rows,
        feeds: Callable[[Buffer], Sequence[Feeding]],
        word: Telling,
        metrics: ArchiveMetrics,
        keep_months: int = 0,
        *,
        wall: Callable[[], float] = time.time,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._database = database
        self._feeds = feeds
        self._word = word
        self._metrics = metrics
        self._keep_months = keep_months
        self._wall = wall
        self._clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._buffer = Buffer()
        self._progress = Progress()
        self._reading: list[asyncio.Task[None]] = []
        self._failing_since: float | None = None
        self._swept_at = float("-inf")
        self._last_failure = ""
        # Counts how often what was read turned out to be of another history.
        self._history = 0
        metrics.observe(self._state)

    async def run(self) -> None:
        """Copy and tell until cancelled. Raises what ends it for good: SchemaTooNew, or a defect."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._write(group), name="archive")
                group.create_task(self._tell(group), name="word")
        finally:
            await self._database.close()

    @property
    def failing_for(self) -> float:
        """Seconds since the first of the tries of the database that failed; 0 while it answers."""
        return 0.0 if self._failing_since is None else max(0.0, self._clock() - self._failing_since)

    @property
    def last_failure(self) -> str:
        return self._last_failure

    # -- into the database -----------------------------------------------------------------------------------------

    async def _write(self, group: asyncio.TaskGroup) -> None:
        failures = 0
        while True:
            try:
                if not self._database.is_open:
                    if not await self._database.open():
                        self._answered()
                        failures = 0
                        await self._sleep(STANDBY_SECONDS)
                        continue
                    _log.info("archiving")
                    await self._read_anew(group)
                    self._swept_at = float("-inf")
                await self._step()
            except DatabaseFailed as error:
                self._metrics.failed("database")
                self._last_failure = str(error)
                if self._failing_since is None:
                    self._failing_since = self._clock()
                wait = _WAITS.wait(failures, self._rng)
                failures += 1
                _log.warning("the database failed; it is tried again", why=str(error), again_in=round(wait, 1))
                await self._sleep(wait)
            else:
                self._answered()
                failures = 0

    async def _step(self) -> None:
        """Commit one batch, and drop old months now and then."""
        if self._keep_months and self._clock() >= self._swept_at + SWEEP_SECONDS:
            gone = await self._database.drop_before(self._oldest_month())
            self._swept_at = self._clock()
            self._metrics.dropped(len(gone))
            if gone:
                _log.info("dropped what is over its time", months=[f"{month:%Y-%m}" for month in gone])
        try:
            async with asyncio.timeout(PING_SECONDS):
                items = await self._buffer.batch(BATCH_TASKS, BATCH_BYTES)
        except TimeoutError:
            await self._database.ping()
            return
        history = self._history
        rows = [item.row for item in items if item.row is not None]
        kept = self._kept(rows)
        saved = await self._database.save(kept)
        await self._buffer.take(len(items))
        if history == self._history:
            self._progress.committed(items)
        for outcome, count in (
            ("new", saved.new),
            ("replaced", saved.replaced),
            ("known", saved.known),
            ("expired", len(rows) - len(kept)),
        ):
            self._metrics.archived(outcome, count)
        if saved.bare:
            self._metrics.bare(saved.bare)
            _log.warning("the database took Tasks only without what users wrote: see left_out", tasks=saved.bare)

    def _kept(self, rows: list[Row]) -> list[Row]:
        """Leave out what ended before the months that are kept: its month would be dropped again."""
        if not self._keep_months:
            return rows
        oldest = self._oldest_month()
        return [row for row in rows if month_of(row.task.ended_at) >= oldest]

    def _oldest_month(self) -> date:
        return months_before(month_of(datetime.fromtimestamp(self._wall(), UTC)), self._keep_months)

    def _answered(self) -> None:
        self._failing_since = None

    async def _read_anew(self, group: asyncio.TaskGroup) -> None:
        """Have the feeds begin with a list."""
        for task in self._reading:
            task.cancel()
        if self._reading:
            await asyncio.wait(self._reading)
        self._reading = [group.create_task(feed.run(), name="feed") for feed in self._feeds(self._buffer)]

    # -- to the operator -------------------------------------------------------------------------------------------

    async def _tell(self, group: asyncio.TaskGroup) -> None:
        failures = 0
        while True:
            await self._sleep(WORD_SECONDS)
            word = self._progress.due()
            if word is None or not self._database.is_open:
                continue
            try:
                await self._word.write(word)
            except Disputed as error:
                self._metrics.failed("word")
                _log.warning("the word to the operator is disputed; all is listed anew", why=str(error))
                self._history += 1
                self._progress.forget()
                self._buffer.without_marks()
                await self._read_anew(group)
            except KubeError as error:
                self._metrics.failed("word")
                wait = _WAITS.wait(failures, self._rng)
                failures += 1
                _log.info("the operator could not be told yet", why=str(error), again_in=round(wait, 1))
                await self._sleep(wait)
            else:
                failures = 0
                self._progress.told(word)
                self._metrics.told()

    # -- what is so ------------------------------------------------------------------------------------------------

    def _state(self) -> State:
        oldest: Item | None = self._buffer.oldest
        lag = 0.0
        if oldest is not None and oldest.row is not None:
            lag = max(0.0, self._wall() - oldest.row.task.ended_at.timestamp())
        return State(self._database.is_open, len(self._buffer), self._buffer.size, lag)
