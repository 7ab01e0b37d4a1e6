"""The tables on a real PostgreSQL: migrations, each Task once, the lock, months, and what the database refuses."""

from __future__ import annotations

import asyncio
import copy
import secrets
from datetime import date
from typing import Any

import psycopg
import pytest

from postgres import Postgres
from taskdist.archive import schema
from taskdist.archive.database import Database, DatabaseFailed, Saved
from taskdist.archive.rows import Row, row
from taskdist.archive.schema import Migration, SchemaTooNew

TASK: dict[str, Any] = {
    "metadata": {"namespace": "ns", "creationTimestamp": "2026-11-30T08:00:00Z", "labels": {"batch": "nightly"}},
    "spec": {"queue": "q", "type": "echo", "payload": {"a": 1}},
    "status": {
        "phase": "Failed",
        "attempt": 2,
        "assignedAt": "2026-11-30T08:00:01Z",
        "startedAt": "2026-11-30T08:00:01Z",
        "attempts": [{"attempt": 1, "reason": "HandlerError"}],
    },
}


def made(uid: str, version: int = 1, ended: str = "2026-11-30T08:00:05Z", **status: Any) -> Row:
    task = copy.deepcopy(TASK)
    task["metadata"] |= {"uid": uid, "name": uid, "resourceVersion": str(version)}
    task["status"] |= {"finishedAt": ended, **status}
    return row(task)


@pytest.fixture
async def dsn(postgres: Postgres) -> str:
    """A database of its own."""
    name = f"t{secrets.token_hex(4)}"
    async with await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True) as admin:
        await admin.execute(f"CREATE DATABASE {name}".encode())
    return postgres.dsn.replace("/postgres", f"/{name}")


async def ask(dsn: str, text: str) -> list[Any]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(text.encode())
        return [found[0] if len(found) == 1 else found for found in await cursor.fetchall()]


async def opened(dsn: str) -> Database:
    database = Database(dsn, "here")
    assert await database.open()
    return database


async def test_each_task_is_there_once_in_its_latest_state(dsn: str) -> None:
    database = await opened(dsn)
    assert await database.save([made("a"), made("b"), made("a", 2, message="later in one batch")]) == Saved(new=2)
    assert await database.save([made("a", 2), made("b")]) == Saved(known=2)
    assert await database.save([made("a", 1, message="older")]) == Saved(known=1)
    assert await database.save([made("b", 3, message="newer"), made("c")]) == Saved(new=1, replaced=1)
    found = await ask(dsn, "SELECT uid, version, message FROM taskdist.tasks ORDER BY uid")
    assert found == [("a", 2, "later in one batch"), ("b", 3, "newer"), ("c", 1, "")]
    attempts = await ask(dsn, "SELECT uid, attempt, reason FROM taskdist.attempts ORDER BY uid, attempt")
    assert attempts == [(uid, number, reason) for uid in "abc" for number, reason in ((1, "HandlerError"), (2, ""))]
    await database.close()


async def test_a_redriven_dead_letter_moves_to_the_month_of_its_end(dsn: str) -> None:
    database = await opened(dsn)
    await database.save([made("a", 5, "2026-10-31T23:59:59Z", phase="DeadLettered")])
    # After a restore of etcd versions begin again: the later end decides.
    assert await database.save([made("a", 2, "2026-11-01T00:00:00Z")]) == Saved(replaced=1)
    assert await ask(dsn, "SELECT phase FROM taskdist.tasks") == ["Failed"]
    assert await ask(dsn, "SELECT count(*) FROM taskdist.tasks_2026_11") == [1]
    assert await ask(dsn, "SELECT count(*) FROM taskdist.attempts_2026_10") == [0]
    await database.close()


async def test_one_at_a_time_holds_the_lock_and_the_next_takes_it(dsn: str) -> None:
    first, second, other = Database(dsn, "here"), Database(dsn, "here"), Database(dsn, "elsewhere")
    assert (await first.open(), await second.open(), await other.open()) == (True, False, True)
    assert not second.is_open
    await first.close()
    assert await second.open()
    await second.close()
    await other.close()


async def test_one_whose_connection_was_cut_writes_nothing_any_more(dsn: str) -> None:
    database = await opened(dsn)
    await ask(dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'taskdist archive'")
    with pytest.raises(DatabaseFailed):
        await database.save([made("a")])
    assert not database.is_open
    with pytest.raises(DatabaseFailed, match="no connection"):
        await database.save([made("a")])
    assert await database.open()
    assert await database.save([made("a")]) == Saved(new=1)
    await database.close()


async def test_a_database_that_is_not_there_is_said(postgres: Postgres) -> None:
    with pytest.raises(DatabaseFailed, match="nowhere"):
        await Database(postgres.dsn.replace("/postgres", "/nowhere"), "here").open()
    with pytest.raises(DatabaseFailed):
        await Database("postgresql://127.0.0.1:1/x", "here").open()


async def test_two_that_start_at_once_make_the_tables_once(dsn: str) -> None:
    several = [Database(dsn, f"i{number}") for number in range(4)]
    assert await asyncio.gather(*(each.open() for each in several)) == [True] * 4
    assert await ask(dsn, "SELECT count(*) FROM taskdist.schema_version") == [len(schema.migrations())]
    for each in several:
        await each.close()


async def test_later_steps_are_applied_to_tables_that_are_there(dsn: str) -> None:
    await (await opened(dsn)).close()
    known = schema.migrations()
    further = Migration(known[-1].version + 1, "further", "ALTER TABLE tasks ADD COLUMN more text")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        assert await schema.migrate(connection, [*known, further]) == further.version
        assert await schema.migrate(connection, [*known, further]) == further.version
    assert await ask(dsn, "SELECT count(*) FROM information_schema.columns WHERE column_name = 'more'") == [1]
    with pytest.raises(SchemaTooNew, match=f"version {further.version}, and this release of taskdist knows"):
        await Database(dsn, "here").open()


async def test_a_step_that_fails_changes_nothing(dsn: str) -> None:
    known = schema.migrations()
    broken = Migration(known[-1].version + 1, "broken", "ALTER TABLE tasks ADD COLUMN more text; SELECT 1 / 0")
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await schema.migrate(connection, [*known, broken])
    assert await ask(dsn, "SELECT count(*) FROM information_schema.schemata WHERE schema_name = 'taskdist'") == [0]


async def test_months_are_dropped_whole_and_come_again_if_asked(dsn: str) -> None:
    database = await opened(dsn)
    months = ["2025-12", "2026-01", "2026-02"]
    await database.save([made(month, ended=f"{month}-28T12:00:00Z") for month in months])
    assert await database.drop_before(date(2026, 2, 1)) == [date(2025, 12, 1), date(2026, 1, 1)]
    assert await database.drop_before(date(2026, 2, 1)) == []
    assert await ask(dsn, "SELECT uid FROM taskdist.tasks") == ["2026-02"]
    assert await ask(dsn, "SELECT DISTINCT uid FROM taskdist.attempts") == ["2026-02"]
    assert await database.save([made("2026-01", ended="2026-01-28T12:00:00Z")]) == Saved(new=1)
    await database.close()


async def test_what_the_database_refuses_is_kept_without_what_users_wrote(dsn: str) -> None:
    database = await opened(dsn)
    odd = made("odd")
    refused = Row(odd.task._replace(result='{"a": "\\u0000"}'), odd.attempts)
    assert await database.save([made("a"), refused, made("b")]) == Saved(new=3, bare=1)
    found = await ask(dsn, "SELECT uid, left_out <> '', spec IS NULL FROM taskdist.tasks ORDER BY uid")
    assert found == [("a", False, False), ("b", False, False), ("odd", True, True)]
    hopeless = Row(odd.task._replace(uid="\0"), ())
    with pytest.raises(DatabaseFailed, match="is refused"):
        await database.save([hopeless])
    await database.close()


async def test_characters_that_text_cannot_hold_are_replaced_before(dsn: str) -> None:
    database = await opened(dsn)
    task = copy.deepcopy(TASK)
    task["metadata"] |= {"uid": "u", "name": "n", "resourceVersion": "1", "labels": {"l": "\ud800"}}
    task["spec"]["payload"] = {"k\0": ["\0", "\udfff", "ü"], "n": 1.7976931348623157e308, "i": 2**80}
    assert await database.save([row(task)]) == Saved(new=1)
    await database.close()
