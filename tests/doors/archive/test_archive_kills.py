"""The archive's loops on a real PostgreSQL that is killed at any moment, commits in doubt included."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any, cast

import psycopg
import pytest

from archive_server import Server
from postgres import Postgres
from taskdist.archive import archiver as archiving
from taskdist.archive.archiver import Archiver
from taskdist.archive.buffer import Buffer
from taskdist.archive.database import Database
from taskdist.archive.feed import Feed
from taskdist.archive.metrics import ArchiveMetrics
from taskdist.kube import Client

TASKS = 2000


class Told:
    """The operator's end: it deletes what a word covers, as all of it is over its time."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.deleted: set[str] = set()

    async def write(self, marks: dict[str, int]) -> None:
        for uid, obj in list(self._server.tasks.items()):
            if int(obj["metadata"]["resourceVersion"]) <= marks.get("*", 0):
                self._server.delete(int(uid[1:]))
                self.deleted.add(uid)


@pytest.mark.parametrize("kills", [pytest.param(6, id="some"), pytest.param(100, id="many", marks=pytest.mark.long)])
async def test_what_is_deleted_is_there_once_however_often_the_database_is_killed(
    kills: int, postgres: Postgres, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(archiving, "WORD_SECONDS", 0.05)
    monkeypatch.setattr(archiving, "STANDBY_SECONDS", 0.1)
    seed, begun = random.randrange(10**6), time.monotonic()
    rng, server, metrics = random.Random(seed), Server(), ArchiveMetrics()
    told = Told(server)

    def feeds(buffer: Buffer) -> list[Feed]:
        return [Feed(cast(Client, server), None, buffer, "", lambda _: None, asyncio.sleep)]

    def begin() -> asyncio.Task[None]:
        return asyncio.create_task(Archiver(Database(postgres.dsn, "here"), feeds, told, metrics).run())

    async def end_tasks() -> None:
        for number in range(TASKS):
            server.end(number)
            await asyncio.sleep(rng.random() * kills / TASKS)

    work, ending = begin(), asyncio.create_task(end_tasks())
    try:
        for _ in range(kills):
            await asyncio.sleep(rng.random() * 0.5)
            if rng.random() < 0.5:
                await asyncio.to_thread(postgres.kill)
                await asyncio.to_thread(postgres.start)
            else:
                work.cancel()
                await asyncio.wait({work})
                work = begin()
        await ending
        async with asyncio.timeout(60):
            while len(told.deleted) < TASKS:
                assert not work.done(), f"seed {seed}"
                await asyncio.sleep(0.05)
    finally:
        ending.cancel()
        work.cancel()
        await asyncio.wait({work, ending})
    with psycopg.connect(postgres.dsn) as connection:
        uids: list[Any] = [uid for (uid,) in connection.execute("SELECT uid FROM taskdist.tasks").fetchall()]
    assert sorted(uids) == sorted(f"u{number}" for number in range(TASKS)), f"seed {seed}"
    with capsys.disabled():
        print(f"\n{TASKS} Tasks, each there once; {kills} kills in {time.monotonic() - begun:.0f} s (seed {seed})")
