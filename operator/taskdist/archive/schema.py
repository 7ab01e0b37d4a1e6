"""The tables, by numbered files: each is applied once, in order, by one process at a time.

`migrations/NNNN_words.sql` are applied in one transaction each. A database whose tables are of a newer release is
refused: an older archive would write into columns whose meaning it does not know.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from importlib.resources import files
from typing import Any

from psycopg import AsyncConnection, sql

SCHEMA = "taskdist"
LOCK = 0x7461736B64697374
"""Of the schema, while it is changed: "taskdist" in ASCII."""
_TABLES = ("tasks", "attempts")


class SchemaTooNew(Exception):
    """The database's tables are of a later release than this one."""


@dataclass(frozen=True, slots=True)
class Migration:
    """One step of the schema."""

    version: int
    name: str
    text: str


def migrations() -> list[Migration]:
    """Return all steps that this release knows, in order."""
    found = []
    for file in files("taskdist.archive").joinpath("migrations").iterdir():
        stem, dot, ending = file.name.rpartition(".")
        if dot and ending == "sql":
            number, _, name = stem.partition("_")
            found.append(Migration(int(number), name, file.read_text(encoding="utf-8")))
    return sorted(found, key=lambda each: each.version)


async def migrate(connection: AsyncConnection[Any], steps: Iterable[Migration] | None = None) -> int:
    """Bring the tables to this release's form; return their version. `connection` is in autocommit.

    Raises:
        SchemaTooNew: they are of a later release. Nothing was changed.
    """
    known = list(migrations() if steps is None else steps)
    newest = known[-1].version
    async with connection.transaction():
        # Waits for another process that is at it.
        await connection.execute("SELECT pg_advisory_xact_lock(%s)", (LOCK,))
        await connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
        await connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(SCHEMA)))
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_version"
            " (version integer PRIMARY KEY, name text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now())"
        )
        there = await version(connection)
        if there > newest:
            raise SchemaTooNew(
                f"the database's tables are of version {there}, and this release of taskdist knows {newest}: use the "
                "later release, or another database"
            )
        for step in known:
            if step.version > there:
                await connection.execute(step.text.encode())
                await connection.execute(
                    "INSERT INTO schema_version (version, name) VALUES (%s, %s)", (step.version, step.name)
                )
    return newest


async def version(connection: AsyncConnection[Any]) -> int:
    """Return the version of the tables; 0 where there are none yet."""
    cursor = await connection.execute("SELECT coalesce(max(version), 0) FROM schema_version")
    row = await cursor.fetchone()
    return int(row[0]) if row is not None else 0


# -- partitions ------------------------------------------------------------------------------------------------------


def month_of(moment: datetime) -> date:
    """Return the first day of the month in which a moment lies, in UTC."""
    return moment.astimezone(UTC).date().replace(day=1)


def next_month(month: date) -> date:
    """Return the first day of the month after this one."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def months_before(month: date, count: int) -> date:
    """Return the month so many months before this one."""
    number = month.year * 12 + month.month - 1 - count
    return date(number // 12, number % 12 + 1, 1)


def partition(table: str, month: date) -> str:
    """Return the name of a table's partition for a month."""
    return f"{table}_{month:%Y_%m}"


async def ensure(connection: AsyncConnection[Any], months: Iterable[date]) -> None:
    """Make the partitions for these months, where they are not there."""
    for month in sorted(months):
        for table in _TABLES:
            await connection.execute(
                sql.SQL("CREATE TABLE IF NOT EXISTS {} PARTITION OF {} FOR VALUES FROM ({}) TO ({})").format(
                    sql.Identifier(partition(table, month)),
                    sql.Identifier(table),
                    sql.Literal(f"{month} 00:00:00+00"),
                    sql.Literal(f"{next_month(month)} 00:00:00+00"),
                )
            )


async def partitions(connection: AsyncConnection[Any]) -> list[date]:
    """Return the months that have a partition, in order."""
    cursor = await connection.execute(
        "SELECT child.relname FROM pg_inherits"
        " JOIN pg_class child ON child.oid = inhrelid JOIN pg_class parent ON parent.oid = inhparent"
        " JOIN pg_namespace ON pg_namespace.oid = parent.relnamespace"
        " WHERE parent.relname = 'tasks' AND nspname = %s",
        (SCHEMA,),
    )
    found = []
    for (name,) in await cursor.fetchall():
        _, year, month = str(name).rsplit("_", 2)
        found.append(date(int(year), int(month), 1))
    return sorted(found)


async def drop_before(connection: AsyncConnection[Any], month: date) -> list[date]:
    """Drop the partitions of all months before this one; return which."""
    old = [each for each in await partitions(connection) if each < month]
    for each in old:
        for table in _TABLES:
            await connection.execute(sql.SQL("DROP TABLE IF EXISTS {}").format(sql.Identifier(partition(table, each))))
    return old
