"""The database: rows in, each Task once. The only place that writes ended Tasks.

One connection, which holds the installation's lock for as long as it lives: what is written is written under the lock,
so no two archives ever write at once, and one that is cut off can write nothing any more.
"""

import asyncio
import zlib
from collections.abc import Awaitable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection

from taskdist.archive import schema
from taskdist.archive.rows import ATTEMPT_COLUMNS, TASK_COLUMNS, Row

T = TypeVar("T")

CALL_SECONDS = 60.0
"""How long one step may take; then the connection is given up."""
_CONNECT: Mapping[str, Any] = {
    "connect_timeout": 5,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 30_000,
    "application_name": "taskdist archive",
}
_LOCK_CLASS = 0x7461736B
_COPY_TASKS = f"COPY tasks ({', '.join(TASK_COLUMNS)}) FROM STDIN"
_COPY_ATTEMPTS = f"COPY attempts ({', '.join(ATTEMPT_COLUMNS)}) FROM STDIN"


class DatabaseFailed(Exception):
    """The database does not answer, or not as it should: it is tried again."""


@dataclass(frozen=True, slots=True)
class Saved:
    """Numbers of a batch's Tasks by what the database made of them."""

    new: int = 0
    replaced: int = 0
    known: int = 0
    bare: int = 0  # of these, those that the database refused whole and took without what users wrote


class Database:
    """A connection that holds the lock, or none."""

    def __init__(self, dsn: str, installation: str) -> None:
        """
        Args:
            installation: names whose archive this is; two of one name take turns.
        """
        self._dsn = dsn
        self._lock = zlib.crc32(installation.encode()) - 2**31
        self._connection: AsyncConnection[Any] | None = None
        self._months: set[date] = set()

    @property
    def is_open(self) -> bool:
        """Whether the last call left a connection that holds the lock."""
        return self._connection is not None

    async def open(self) -> bool:
        """Connect and bring the tables up to date. False: another archive of the installation is at work.

        Raises:
            DatabaseFailed: it cannot be reached, or refuses.
            SchemaTooNew: its tables are of a later release.
        """
        await self.close()
        connection: AsyncConnection[Any] | None = None
        try:
            async with asyncio.timeout(CALL_SECONDS):
                connection = await AsyncConnection.connect(self._dsn, autocommit=True, **_CONNECT)
                await schema.migrate(connection)
                cursor = await connection.execute("SELECT pg_try_advisory_lock(%s, %s)", (_LOCK_CLASS, self._lock))
                row = await cursor.fetchone()
                self._months = set(await schema.partitions(connection))
        except (psycopg.Error, OSError, TimeoutError) as error:
            await _close(connection)
            raise DatabaseFailed(_words(error)) from error
        except BaseException:
            await _close(connection)
            raise
        if row is None or not row[0]:
            await _close(connection)
            return False
        self._connection = connection
        return True

    async def close(self) -> None:
        """Let the lock and the connection go."""
        connection, self._connection = self._connection, None
        await _close(connection)

    async def ping(self) -> None:
        """Ask whether it is there. Raises DatabaseFailed."""
        await self._guarded(self._connected().execute("SELECT 1"))

    async def save(self, rows: Iterable[Row]) -> Saved:
        """Write these, each Task once and in its latest state. All are committed on return, or none.

        Raises:
            DatabaseFailed: whether they were written is not known. The connection is given up.
        """
        latest: dict[str, Row] = {}
        for row in rows:
            before = latest.get(row.task.uid)
            if before is None or row.key > before.key:
                latest[row.task.uid] = row
        if not latest:
            return Saved()
        try:
            return await self._guarded(self._save(list(latest.values())))
        except psycopg.DataError:
            return await self._one_by_one(list(latest.values()))

    async def drop_before(self, month: date) -> list[date]:
        """Drop what ended before this month; return the months that went. Raises DatabaseFailed."""
        gone = await self._guarded(schema.drop_before(self._connected(), month))
        self._months.difference_update(gone)
        return gone

    # -- within ----------------------------------------------------------------------------------------------------

    def _connected(self) -> AsyncConnection[Any]:
        if self._connection is None:
            raise DatabaseFailed("there is no connection")
        return self._connection

    async def _guarded(self, step: Awaitable[T]) -> T:
        """Do one step in bounded time. What the data itself is at fault for is the caller's; all else ends it."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await step
        except psycopg.DataError:
            raise
        except (psycopg.Error, OSError, TimeoutError) as error:
            await self.close()
            raise DatabaseFailed(_words(error)) from error
        except asyncio.CancelledError:
            # In the midst of a step: the connection is of no use any more.
            await self.close()
            raise

    async def _save(self, rows: list[Row]) -> Saved:
        connection = self._connected()
        wanted = {schema.month_of(row.task.ended_at) for row in rows} - self._months
        async with connection.transaction():
            await schema.ensure(connection, wanted)
            cursor = await connection.execute(
                "SELECT uid, ended_at, version FROM tasks WHERE uid = ANY(%s)", ([row.task.uid for row in rows],)
            )
            there: dict[str, tuple[datetime, int]] = {uid: (ended, at) for uid, ended, at in await cursor.fetchall()}
            fresh = [row for row in rows if row.task.uid not in there or row.key > there[row.task.uid]]
            replaced = [row.task.uid for row in fresh if row.task.uid in there]
            if replaced:
                await connection.execute("DELETE FROM tasks WHERE uid = ANY(%s)", (replaced,))
                await connection.execute("DELETE FROM attempts WHERE uid = ANY(%s)", (replaced,))
            if fresh:
                async with connection.cursor() as copying:
                    async with copying.copy(_COPY_TASKS) as copy:
                        for row in fresh:
                            await copy.write_row(row.task)
                    async with copying.copy(_COPY_ATTEMPTS) as copy:
                        for row in fresh:
                            for attempt in row.attempts:
                                await copy.write_row(attempt)
        self._months |= wanted
        return Saved(len(fresh) - len(replaced), len(replaced), len(rows) - len(fresh))

    async def _one_by_one(self, rows: list[Row]) -> Saved:
        """One of them is refused: it must not hold up the others. It is kept without what users wrote."""
        new = replaced = known = bare = 0
        for row in rows:
            try:
                saved = await self._guarded(self._save([row]))
            except psycopg.DataError as error:
                try:
                    saved = await self._guarded(self._save([row.bare(_words(error))]))
                except psycopg.DataError as again:
                    await self.close()
                    raise DatabaseFailed(f"Task {row.task.uid} is refused: {_words(again)}") from again
                bare += 1
            new, replaced, known = new + saved.new, replaced + saved.replaced, known + saved.known
        return Saved(new, replaced, known, bare)


async def _close(connection: AsyncConnection[Any] | None) -> None:
    if connection is not None:
        try:
            await connection.close()
        except (psycopg.Error, OSError):
            return


def _words(error: BaseException) -> str:
    """The first line of what went wrong; no statement and no data, as these may be users'."""
    if isinstance(error, TimeoutError):
        return f"no answer within {CALL_SECONDS:g} s"
    text = str(error).strip().splitlines()
    return text[0] if text else type(error).__name__
