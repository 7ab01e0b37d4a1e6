"""What the gateway keeps of Tasks: rows by name, who waits, streams, how fast queues go. Against a plain model."""

import asyncio
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.gateway import board as rooms
from taskdist.gateway.board import Board, Expired, Overrun, Row, Seen, seen
from taskdist.gateway.shapes import TaskDocument, TaskRow
from taskdist.kube import Added, Aside, Deleted, Obj, Store, Updated


def task(name: str, version: int, phase: str = "Pending", *, uid: str = "", queue: str = "q", **rest: Any) -> Obj:
    metadata = {"name": name, "namespace": "ns", "uid": uid or f"uid-{name}", "resourceVersion": str(version)}
    return {"metadata": metadata, "spec": {"queue": queue, "type": "t"}, "status": {"phase": phase, **rest}}


class World:
    """A store as the informer has it, with a board that hears of each change."""

    def __init__(self) -> None:
        self.now = 0.0
        self.board = Board(lambda _: str(self.version), clock=lambda: self.now)
        self.store: Store[Seen] = Store(seen)
        self.version = 0
        self.board.begin()

    def put(self, name: str, phase: str = "Pending", **rest: Any) -> None:
        self.version += 1
        self._tell(self.store.put(task(name, self.version, phase, **rest)))

    def remove(self, name: str, phase: str = "Pending", **rest: Any) -> None:
        self.version += 1
        self._tell(self.store.remove(task(name, self.version, phase, **rest)))

    def _tell(self, events: list[Any]) -> None:
        for event in events:
            self.board.hear(event)


def everything(_: Row) -> bool:
    return True


async def names(board: Board, limit: int = 1000) -> list[str]:
    return [row.name for row in (await board.page("ns", everything, limit, ""))[0]]


@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sampled_from(("Pending", "Assigned", "Succeeded", "")))))
def test_rows_and_counts_are_those_of_what_is_there(steps: list[tuple[str, str]]) -> None:
    world, model = World(), dict[str, str]()
    for name, phase in steps:
        if phase:
            world.put(name, phase)
            model[name] = phase
        elif name in model:
            world.remove(name)
            del model[name]
        assert asyncio.run(names(world.board)) == sorted(model)
        assert world.board.pending("ns", "q") == list(model.values()).count("Pending")
        assert world.board.rows == len(model)


async def test_pages_go_on_where_the_last_one_ended_whatever_came_and_went() -> None:
    world = World()
    for name in "acegi":
        world.put(name)
    rows, more = await world.board.page("ns", everything, 2, "")
    assert ([row.name for row in rows], more) == (["a", "c"], "c")
    world.remove("c")
    world.put("b")
    world.put("d")
    rows, more = await world.board.page("ns", everything, 9, "c")
    assert ([row.name for row in rows], more) == (["d", "e", "g", "i"], None)


async def test_who_waits_gets_the_whole_task_and_nobody_else_keeps_it() -> None:
    world = World()
    world.put("a")
    waiters = [world.board.wait("uid-a") for _ in range(2)]
    world.put("a", "Assigned")
    assert world.board.waiting == 2
    world.put("a", "Succeeded", result={"n": 1})
    for waiter in waiters:
        found = await waiter
        assert found is not None
        assert found["status"]["result"] == {"n": 1}
    kept = world.store.get("uid-a")
    assert kept is not None
    assert kept.full is None
    assert world.board.waiting == 0


async def test_who_waits_hears_of_a_deletion_and_of_an_end_that_only_the_deletion_told() -> None:
    world = World()
    world.put("a")
    world.put("b")
    gone, ended = world.board.wait("uid-a"), world.board.wait("uid-b")
    world.remove("a")
    world.remove("b", "Succeeded", result={"n": 2})
    assert await gone is None
    assert (await ended or {})["status"]["result"] == {"n": 2}


async def test_who_gives_up_leaves_nothing_behind() -> None:
    world = World()
    world.put("a")
    waiter = world.board.wait("uid-a")
    waiter.cancel()
    await asyncio.sleep(0)
    assert world.board.waiting == 0
    world.put("a", "Succeeded")


async def test_another_task_of_the_name_is_another_task() -> None:
    world = World()
    world.put("a")
    waiter = world.board.wait("uid-a")
    world.put("a", uid="other")
    assert await waiter is None
    row = world.board.find("ns", "a")
    assert row is not None
    assert row.uid == "other"


async def test_a_stream_begins_with_what_is_there_and_goes_on_with_each_change() -> None:
    world = World()
    world.put("a")
    stream = world.board.follow("ns", lambda row: row.name != "b", heartbeat=30)
    told = [await anext(stream)]
    world.put("b")
    world.put("c")
    world.remove("a")
    told += [await anext(stream) for _ in range(2)]
    assert [(row.name, gone) for row, gone, _ in filter(None, told)] == [("a", False), ("c", False), ("a", True)]
    await stream.aclose()
    world.remove("b")
    world.remove("c")
    assert not world.board._namespaces, "nothing is kept of a namespace without Tasks and readers"


async def test_a_stream_of_an_empty_namespace_says_now_and_then_that_it_lives() -> None:
    stream = World().board.follow("ns", everything, heartbeat=0.001)
    assert await anext(stream) is None
    await stream.aclose()


async def test_a_reader_that_is_too_slow_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "BACKLOG", 2)
    world = World()
    world.put("a")
    stream = world.board.follow("ns", everything, heartbeat=30)
    await anext(stream)
    for _ in range(3):
        world.put("a")
    assert await anext(stream)
    assert await anext(stream)
    with pytest.raises(Overrun):
        await anext(stream)


async def told_since(board: Board, since: str, most: int) -> list[tuple[str, bool]]:
    stream = board.follow("ns", everything, heartbeat=0.001, since=since)
    told = []
    for _ in range(most):
        change = await anext(stream)
        if change is not None:
            told.append((change.row.name, change.gone))
    await stream.aclose()
    return told


async def test_a_stream_that_is_taken_up_again_misses_nothing_and_repeats_nothing() -> None:
    world = World()
    for name in "abc":
        world.put(name)
    since = str(world.version)
    world.remove("a")
    world.put("c", "Assigned")
    world.put("d")
    assert await told_since(world.board, since, 4) == [("a", True), ("c", False), ("d", False)]
    assert await told_since(world.board, str(world.version), 1) == []


async def test_after_a_deletion_that_only_a_list_told_whoever_comes_back_has_to_list() -> None:
    world = World()
    world.put("a")
    world.put("b")
    since = str(world.version)
    world.version += 1
    world._tell(world.store.sweep({"uid-b"}, str(world.version)))
    with pytest.raises(Expired):
        await told_since(world.board, since, 1)
    world.put("b", "Assigned")
    assert await told_since(world.board, str(world.version), 1) == []


async def test_who_comes_back_too_late_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rooms, "GRAVES", 1)
    world = World()
    for name in "ab":
        world.put(name)
    since = str(world.version)
    world.remove("a")
    world.remove("b")
    with pytest.raises(Expired):
        await told_since(world.board, since, 1)
    later = Board(lambda _: "100")
    later.begin()
    with pytest.raises(Expired):
        await told_since(later, "99", 1)


async def test_each_namespace_has_a_version_of_its_own() -> None:
    versions = {"ns": "7", "other": "90"}
    board = Board(versions.get)
    board.begin(("ns", "other"))
    assert await told_since(board, "7", 1) == []
    with pytest.raises(Expired):
        await told_since(board, "6", 1)
    assert (board.version("ns"), board.version("third")) == ("7", None)


async def test_before_all_is_in_view_no_stream_can_be_taken_up() -> None:
    board = Board(lambda _: "5")
    assert not board.begun
    with pytest.raises(Expired):
        await told_since(board, "5", 1)


async def test_a_stream_that_wants_it_gets_the_whole_of_what_changes() -> None:
    world = World()
    world.put("a")
    stream = world.board.follow("ns", everything, heartbeat=30, whole=True)
    first = await anext(stream)
    assert first is not None
    assert first.full is None
    world.put("a", "Succeeded", result={"n": 1})
    change = await anext(stream)
    assert change is not None
    assert change.full is not None
    assert change.full["status"]["result"] == {"n": 1}
    await stream.aclose()


def test_the_pace_of_a_queue_is_that_of_its_last_minute() -> None:
    world = World()
    for number in range(30):
        world.put(f"t{number}")
    for number in range(30):
        world.now += 1
        world.put(f"t{number}", "Succeeded")
    assert world.board.ends_per_second("ns", "q") == 0.5
    world.now += 45
    assert world.board.ends_per_second("ns", "q") == pytest.approx(15 / 60)
    world.board.queue_gone(("ns", "q"))
    assert world.board.ends_per_second("ns", "q") == 0


def test_what_was_over_when_it_was_first_seen_says_nothing_of_the_pace() -> None:
    world = World()
    world.put("old", "Succeeded")
    assert world.board.ends_per_second("ns", "q") == 0


ODD: dict[str, Obj] = {
    "no spec and no status": {},
    "a status that is a list": {"status": []},
    "an unknown phase": {"status": {"phase": "Sleeping", "attempt": "two", "progress": 7}},
    "labels that are none": {"metadata": {"labels": None}},
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_an_odd_object_is_a_row_all_the_same(odd: Obj) -> None:
    obj = task("a", 1)
    obj["metadata"] |= odd.get("metadata", {})
    obj |= {key: value for key, value in odd.items() if key != "metadata"}
    row = seen(obj).row
    assert row.name == "a"
    assert isinstance(row.attempt, int)


def test_of_an_array_the_items_are_told() -> None:
    obj = task("a", 1)
    obj["status"] = {"array": (told := {"done": "3/7", "succeeded": "0-2", "results": {"0": "{}"}})}
    assert TaskRow.of(seen(obj).row).done == "3/7"
    assert TaskDocument.of_object(obj).array == told
    obj["status"] = {"array": "odd"}
    assert (TaskRow.of(seen(obj).row).done, TaskDocument.of_object(obj).array) == ("", None)


def test_an_object_set_aside_changes_nothing() -> None:
    board = Board(lambda _: "5")
    board.hear(Aside("u", "ns", "a", "1", None, "odd"))  # type: ignore[arg-type]
    assert board.rows == 0


def test_a_deletion_of_what_was_never_seen_changes_nothing() -> None:
    board = Board(lambda _: "5")
    board.hear(Deleted(seen(task("a", 1))))
    board.hear(Added(seen(task("b", 2))))
    board.hear(Updated(seen(task("b", 2)), seen(task("b", 3))))
    assert board.rows == 1
