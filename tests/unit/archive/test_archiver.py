"""Reading, copying and telling, with each part failing at any point: what is told is always true."""

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from datetime import date
from typing import Any, cast

import pytest

from archive_server import GONE, Server, task
from taskdist.archive import archiver as archiving
from taskdist.archive.archiver import Archiver
from taskdist.archive.buffer import Buffer
from taskdist.archive.database import DatabaseFailed, Saved
from taskdist.archive.feed import Feed
from taskdist.archive.metrics import ArchiveMetrics
from taskdist.archive.progress import Item
from taskdist.archive.rows import Row, row
from taskdist.archive.word import Disputed, Word
from taskdist.kube import ApiError, Client, KubeError, Obj, Unanswered, Unreachable


class Rows:
    """The database: what is committed, and a list of what its next calls raise."""

    def __init__(self) -> None:
        self.rows: dict[str, Row] = {}
        self.writes: list[str] = []
        self.is_open = False
        self.others = False
        self.failing: list[bool] = []
        self.dropped: list[date] = []
        self.opened = 0

    async def open(self) -> bool:
        await asyncio.sleep(0)
        self._fail()
        self.is_open = not self.others
        self.opened += self.is_open
        return self.is_open

    async def close(self) -> None:
        self.is_open = False

    async def ping(self) -> None:
        self._fail()

    async def save(self, rows: Iterable[Row]) -> Saved:
        await asyncio.sleep(0)
        self._fail()
        new = 0
        for each in rows:
            before = self.rows.get(each.task.uid)
            if before is None or each.key > before.key:
                new += before is None
                self.rows[each.task.uid] = each
                self.writes.append(each.task.uid)
        return Saved(new)

    async def drop_before(self, month: date) -> list[date]:
        self.dropped.append(month)
        return [month]

    def _fail(self) -> None:
        if self.failing and self.failing.pop(0):
            self.is_open = False
            raise DatabaseFailed("killed")


class Lab:
    """An archiver over these parts, whose sleeps are one turn of the loop."""

    def __init__(self, keep_months: int = 0) -> None:
        self.server, self.rows, self.metrics = Server(), Rows(), ArchiveMetrics()
        self.words: list[dict[str, int]] = []
        self.word_fails: list[Exception] = []
        self.failures: list[KubeError] = []
        self.expired: set[str] = set()  # Tasks of months that are not kept
        self.archiver = Archiver(
            self.rows,
            self._feeds,
            self,
            self.metrics,
            keep_months,
            wall=lambda: 1_796_040_000.0,  # 2026-11-30, noon
            sleep=lambda _: asyncio.sleep(0),
            rng=random.Random(0),
        )

    def _feeds(self, buffer: Buffer) -> list[Feed]:
        client = cast(Client, self.server)
        return [Feed(client, None, buffer, "", self.failures.append, lambda _: asyncio.sleep(0), random.Random(0))]

    async def write(self, marks: dict[str, int]) -> None:
        await asyncio.sleep(0)
        if self.word_fails:
            raise self.word_fails.pop(0)
        for obj in self.server.tasks.values():
            uid, version = obj["metadata"]["uid"], int(obj["metadata"]["resourceVersion"])
            there = uid in self.rows.rows or uid in self.expired
            assert version > marks.get("*", 0) or there, f"{uid} is told of and not committed"
        self.words.append(dict(marks))

    @property
    def told(self) -> int:
        return self.words[-1].get("*", 0) if self.words else 0

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(20):
            while not condition():  # noqa: ASYNC110  (turns of the loop are what time is here)
                await asyncio.sleep(0)


@asynccontextmanager
async def running(lab: Lab) -> AsyncIterator[Lab]:
    work = asyncio.create_task(lab.archiver.run())
    try:
        yield lab
    finally:
        work.cancel()
        await asyncio.wait({work})


async def test_what_is_listed_and_what_ends_is_copied_and_told() -> None:
    lab = Lab()
    for number in range(5):
        lab.server.end(number)
    async with running(lab):
        await lab.until(lambda: lab.told == lab.server.version)
        lab.server.end(5, "DeadLettered")
        await lab.until(lambda: lab.told == lab.server.version)
    assert sorted(lab.rows.writes) == [f"u{number}" for number in range(6)], "each once"
    assert len(lab.words) == 2


async def test_nothing_is_written_while_nothing_ends() -> None:
    lab = Lab()
    async with running(lab):
        await lab.until(lambda: bool(lab.words))
        for _ in range(200):
            await asyncio.sleep(0)
    assert lab.words == [{"*": 100}]


async def test_the_last_word_on_a_task_that_a_user_deleted_is_copied_and_the_operator_s_deletion_adds_nothing() -> None:
    lab = Lab()
    async with running(lab):
        await lab.until(lambda: bool(lab.words))
        lab.server.end(1)
        lab.server.delete(1)
        await lab.until(lambda: "u1" in lab.rows.rows and lab.told == lab.server.version)
        lab.server.events.clear()
        lab.server.tasks["u2"] = task(2, 90)
        lab.server.delete(2)
        await lab.until(lambda: "u2" in lab.rows.rows)
    assert lab.rows.writes.count("u1") == 1


async def test_a_watch_that_is_cut_goes_on_where_it_was_and_one_that_is_too_old_lists() -> None:
    lab = Lab()
    async with running(lab):
        await lab.until(lambda: bool(lab.words))
        lab.server.cut = True
        lab.server.end(1)
        await lab.until(lambda: lab.told == lab.server.version)
        lab.server.end(2)
        await lab.until(lambda: lab.told == lab.server.version)
        assert lab.server.lists == 1
        lab.server.cut = True
        lab.server.oldest = lab.server.version + 1
        lab.server.changed.set()
        await lab.until(lambda: lab.server.lists == 2)
        lab.server.oldest = 0
        lab.server.end(3)
        await lab.until(lambda: lab.told == lab.server.version)


async def test_a_lost_connection_leads_to_a_new_list() -> None:
    lab = Lab()
    async with running(lab):
        await lab.until(lambda: bool(lab.words))
        lab.rows.rows.clear()  # it forgets its last moments
        lab.server.tasks["u9"] = task(9, 50)
        lab.rows.failing = [True, True, True]
        lab.server.end(1)
        await lab.until(lambda: {"u1", "u9"} <= lab.rows.rows.keys())
    assert lab.rows.opened == 2
    assert lab.archiver.failing_for == 0.0


async def test_a_standby_reads_and_tells_nothing() -> None:
    lab = Lab()
    lab.rows.others = True
    lab.server.end(1)
    async with running(lab):
        for _ in range(200):
            await asyncio.sleep(0)
        assert (lab.server.lists, lab.words) == (0, [])
        lab.rows.others = False
        await lab.until(lambda: lab.told == lab.server.version)


async def test_a_disputed_word_is_told_again_only_after_a_list() -> None:
    lab = Lab()
    async with running(lab):
        await lab.until(lambda: bool(lab.words))
        lab.word_fails = [Disputed("restored"), Unreachable("down"), ApiError(500, "x", "y")]
        lab.server.end(1)
        await lab.until(lambda: lab.told == lab.server.version)
        assert lab.server.lists == 2


async def test_an_earlier_history_takes_the_word_back() -> None:
    lab = Lab()
    async with running(lab):
        await lab.until(lambda: lab.words == [{"*": 100}])
        lab.server.version, lab.server.oldest, lab.server.cut = 40, 10**9, True
        lab.server.changed.set()
        await lab.until(lambda: lab.told == 40)


async def test_old_months_are_dropped_and_not_filled_again() -> None:
    lab = Lab(keep_months=2)
    lab.server.end(1)
    old = task(2, 101)
    old["status"]["finishedAt"] = "2026-08-31T23:59:59Z"
    lab.server.tasks["u2"] = old
    lab.expired = {"u2"}
    async with running(lab):
        await lab.until(lambda: bool(lab.words))
    assert lab.rows.dropped[0] == date(2026, 9, 1)
    assert lab.rows.rows.keys() == {"u1"}


@pytest.mark.parametrize("seed", range(30))
async def test_whatever_fails_each_task_is_there_in_the_end_and_no_word_was_false(seed: int) -> None:
    rng, lab = random.Random(seed), Lab()
    number = 0
    async with running(lab):
        for _ in range(60):
            match rng.randrange(9):
                case 0:
                    lab.rows.failing = [rng.random() < 0.5 for _ in range(4)]
                case 1:
                    lab.server.failing = [rng.choice([Unreachable("x"), Unanswered("x"), GONE])]
                case 2:
                    lab.server.cut = True
                case 3:
                    lab.word_fails = [rng.choice([Disputed("x"), Unanswered("x")])]
                case 4:
                    lab.server.oldest = rng.choice([0, lab.server.version])
                case _:
                    lab.server.end(number)
                    number += 1
            lab.server.changed.set()
            for _ in range(rng.randrange(12)):
                await asyncio.sleep(0)
        lab.server.oldest = 0
        lab.server.end(number)
        await lab.until(lambda: lab.told == lab.server.version)
    assert lab.rows.rows.keys() == lab.server.tasks.keys()
    assert sorted(lab.rows.writes) == sorted(set(lab.rows.writes)), "each once"


async def test_an_idle_database_is_asked_whether_it_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archiving, "PING_SECONDS", 0.0)
    lab = Lab()
    async with running(lab):
        await lab.until(lambda: bool(lab.words))
        lab.rows.failing = [True]
        await lab.until(lambda: lab.rows.opened == 2)


async def test_the_gauges_say_what_waits() -> None:
    lab = Lab()
    await lab.archiver._buffer.put(Item("*", 5, None))
    for number in range(2):
        await lab.archiver._buffer.put(Item("*", 0, row(task(number, number + 1))))
    found = {each.name: each.samples[0].value for each in lab.metrics.registry.collect() if each.samples}
    assert found["taskdist_archive_backlog"] == 3
    assert found["taskdist_archive_active"] == 0
    assert found["taskdist_archive_lag_seconds"] > 0


# -- the word --------------------------------------------------------------------------------------------------------


class Maps:
    """One ConfigMap, behind the verbs of the client."""

    def __init__(self) -> None:
        self.obj: Obj | None = None
        self.version = 10
        self.lost: list[bool] = []  # whether the next write, which is done, goes unanswered

    async def get(self, *_: Any) -> Obj:
        if self.obj is None:
            raise ApiError(404, "NotFound", "none", {"name": "taskdist-archive"})
        return self.obj

    async def create(self, _: Any, body: Obj, __: str) -> Obj:
        if self.obj is not None:
            raise ApiError(409, "AlreadyExists", "there")
        return self._put(body)

    async def patch(self, _: Any, __: str, body: Obj, ___: str) -> Obj:
        if self.obj is None:
            raise ApiError(404, "NotFound", "none", {"name": "taskdist-archive"})
        if body["metadata"]["resourceVersion"] != self.obj["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "changed")
        return self._put(body)

    def _put(self, body: Obj) -> Obj:
        self.version += 1
        self.obj = {**body, "metadata": {**body["metadata"], "resourceVersion": str(self.version)}}
        if self.lost and self.lost.pop(0):
            raise Unanswered("lost")
        return self.obj


def marks(maps: Maps) -> str:
    assert maps.obj is not None
    return str(maps.obj["data"]["marks"])


async def test_a_word_is_created_and_changed() -> None:
    maps = Maps()
    word = Word(cast(Client, maps), "ns", "taskdist")
    await word.write({"*": 7})
    await word.write({"*": 9})
    assert marks(maps) == '{"*": 9}'
    await Word(cast(Client, maps), "ns", "taskdist").write({"*": 11})
    assert marks(maps) == '{"*": 11}', "a new process goes on"


async def test_a_write_without_an_answer_is_looked_after() -> None:
    maps = Maps()
    word = Word(cast(Client, maps), "ns", "taskdist")
    for mark in (7, 9):
        maps.lost = [True]
        with pytest.raises(Unanswered):
            await word.write({"*": mark})
        await word.write({"*": mark + 1})
        assert marks(maps) == f'{{"*": {mark + 1}}}'


@pytest.mark.parametrize("lost", [False, True], ids=["known", "in doubt"])
async def test_another_s_word_is_disputed(lost: bool) -> None:
    maps = Maps()
    word = Word(cast(Client, maps), "ns", "taskdist")
    await word.write({"*": 7})
    if lost:
        maps.lost = [True]
        with pytest.raises(Unanswered):
            await word.write({"*": 8})
    await Word(cast(Client, maps), "ns", "taskdist").write({"*": 3})
    with pytest.raises(Disputed):
        await word.write({"*": 9})
    assert marks(maps) == '{"*": 3}'
    await word.write({"*": 10})
    assert marks(maps) == '{"*": 10}', "after a list it is its own again"


async def test_a_word_that_somebody_deleted_is_disputed() -> None:
    maps = Maps()
    word = Word(cast(Client, maps), "ns", "taskdist")
    await word.write({"*": 7})
    maps.obj = None
    with pytest.raises(Disputed):
        await word.write({"*": 8})
    await word.write({"*": 9})
