"""Tasks as the view tells them: pages in order, what an agent already has, and what a page costs where many wait."""

import json
import time

import pytest

from taskdist.api.view import TaskList
from taskdist.controller.view.problems import Problem
from taskdist.controller.view.selecting import MOST_ROWS, Selection
from taskdist.controller.view.tasks import MOST_LOOKED_AT, row
from unit.controller.view.room import NOW, Room, obj


@pytest.fixture
def room() -> Room:
    return Room()


def test_pages_go_by_name_and_miss_nothing(room: Room) -> None:
    names = [f"t{i:04}" for i in range(1200)]
    for name in reversed(names):
        room.put(obj(name))
    room.put(obj("elsewhere", "other"))
    room.lead()
    assert room.names() == names
    assert room.names(limit="7") == names
    assert room.names(labelSelector="half=1") == [name for name in names if hash(name) % 2]
    assert room.names(queue="none-such") == []
    page = room.view.page("ns", Selection.read({}))
    assert (len(page.items), page.continue_) == (MOST_ROWS, names[MOST_ROWS - 1])
    room.remove(obj(names[3], version=9))
    assert room.names() == names[:3] + names[4:]


def test_a_page_is_bounded_also_where_nothing_is_wanted(room: Room) -> None:
    for i in range(MOST_LOOKED_AT + 10):
        room.put(obj(f"t{i:05}"))
    page = room.view.page("ns", Selection.read({"queue": "none-such"}))
    assert (page.items, page.continue_) == ([], f"t{MOST_LOOKED_AT - 1:05}")
    assert room.names(queue="none-such") == []


def test_a_name_that_is_taken_again_is_listed_once(room: Room) -> None:
    first, second = obj("t"), obj("t", version=2)
    second["metadata"]["uid"] = "another"
    room.put(first)
    room.put(second)
    assert room.names() == ["t"]
    room.remove({**second, "metadata": {**second["metadata"], "resourceVersion": "3"}})
    assert room.names() == []


def test_a_task_that_its_agent_has_is_assigned_before_that_is_seen(room: Room) -> None:
    room.put(obj("t"))
    room.lead()
    actions = room.agent()
    assert row(room.view.seen("ns", "t"), NOW.wall).phase == "Pending", "it may not have come about"
    room.written(actions)
    told = row(room.view.seen("ns", "t"), NOW.wall)
    assert (told.phase, told.agent, told.pool, told.attempt) == ("Assigned", "p-0", "p", 1)
    assert room.names(phase="Pending") == []


def test_one_task_is_told_with_its_place_in_the_order(room: Room) -> None:
    for name in ("first", "second", "third"):
        room.put(obj(name))
    room.lead()
    room.written(room.agent())
    assert room.view.detail("ns", "first").phase == "Assigned"
    places = [(each.position, each.waiting) for each in (room.view.detail("ns", name) for name in ("second", "third"))]
    assert places == [(1, 2), (2, 2)]
    assert room.view.detail("ns", "first").position is None
    wire = json.loads(room.view.detail("ns", "third").model_dump_json(by_alias=True, exclude_none=True))
    assert (wire["name"], wire["position"], wire["positionExact"]) == ("third", 2, True)


def test_without_a_leader_there_is_no_answer(room: Room) -> None:
    room.put(obj("t"))
    room.lead()
    with pytest.raises(Problem) as refused:
        room.view.seen("ns", "none-such")
    assert refused.value.status == 404
    room.leader = None
    for ask in (lambda: room.view.seen("ns", "t"), lambda: room.view.page("ns", Selection())):
        with pytest.raises(Problem) as refused:
            ask()
        assert refused.value.status == 421


def test_a_page_of_very_many_is_short_work(room: Room) -> None:
    for i in range(20_000):
        room.put(obj(f"t{i:05}"))
    room.lead()
    # All of it is met but the last.
    labels = ",".join(f"!absent-{i}" for i in range(31)) + ",never"
    for query in (
        {"continue": "t09999"},
        {"continue": "t09999", "queue": "none-such"},
        {"continue": "t09999", "labelSelector": labels},
    ):
        selection, took = Selection.read(query), []
        for _ in range(10):
            began = time.process_time()
            page = room.view.page("ns", selection)
            page.model_dump_json(by_alias=True, exclude_none=True)
            took.append(time.process_time() - began)
        print(f"a page: {min(took) * 1000:.2f} ms")
        assert min(took) < 0.02, "5 ms on a quiet machine"
    page = room.view.page("ns", Selection.read({"continue": "t09999"}))
    assert [each.name for each in page.items[:2]] == ["t10000", "t10001"]
    assert TaskList.model_validate_json(page.model_dump_json(by_alias=True)) == page


def test_why_one_of_very_many_waits_is_short_work(room: Room) -> None:
    for i in range(20_000):
        room.put(obj(f"t{i:05}"))
    room.lead()
    room.agent()
    took = []
    for name in ("t00005", "t10000", "t19999"):
        began = time.process_time()
        told = room.view.detail("ns", name)
        took.append(time.process_time() - began)
        assert told.position is not None, name
    print(f"a place in the order: {max(took) * 1000:.2f} ms at most")
    assert max(took) < 0.1, "a few ms on a quiet machine, with the core compiled"
