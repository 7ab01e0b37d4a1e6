"""Tasks as the view tells them: pages in order, what an agent already has, and what a page costs where many wait."""

import time
from typing import Any

import pytest

from taskdist.api.view import TaskList
from taskdist.controller.view.problems import Problem
from taskdist.controller.view.selecting import MOST_ROWS, Selection
from taskdist.controller.view.tasks import MOST_LOOKED_AT, Tasks, row
from taskdist.core import Core
from taskdist.core.model import Pool, Queue
from taskdist.kube import Added, Deleted, Store
from taskdist.protocol import convert
from taskdist.protocol.messages import AgentIdentity, Hello, Ping
from taskdist.protocol.observations import Now, ObservedPod, ObservedTask, WriteStatus, Written
from taskdist.protocol.operator import Leader

NOW = Now(1000.0, 1_800_000_000.0)


def obj(name: str, namespace: str = "ns", version: int = 1, **status: Any) -> dict[str, Any]:
    metadata = {
        "name": name,
        "namespace": namespace,
        "uid": f"{namespace}-{name}",
        "resourceVersion": str(version),
        "creationTimestamp": "2027-01-15T07:00:00Z",
        "labels": {"half": str(hash(name) % 2)},
    }
    return {"metadata": metadata, "spec": {"queue": "q", "type": "echo"}, "status": status}


class Room:
    """A store, a leader that has taken over what is in it, and the view of both."""

    def __init__(self) -> None:
        self.store: Store[ObservedTask] = Store(convert.observed_task)
        self.leader: Leader | None = Leader(Core(), 1)
        self.leader.queue_applied(Queue("ns", "q", ("p",)), NOW)
        self.leader.pool_applied(Pool("ns", "p"), NOW)
        self.view = Tasks(self.store, lambda: self.leader, lambda: NOW.wall)

    def put(self, obj: dict[str, Any]) -> None:
        self.tell(self.store.put(obj))

    def remove(self, obj: dict[str, Any]) -> None:
        self.tell(self.store.remove(obj))

    def tell(self, events: Any) -> None:
        for event in events:
            if isinstance(event, Added):
                self.view.came(event.new)
            elif isinstance(event, Deleted):
                self.view.went(event.old)

    def lead(self) -> None:
        assert self.leader is not None
        self.leader.recover(list(self.store), NOW)

    def names(self, **query: str) -> list[str]:
        """All pages."""
        found: list[str] = []
        while True:
            page = self.view.page("ns", Selection.read(query))
            found += [each.name for each in page.items]
            if not page.continue_:
                return found
            query["continue"] = page.continue_


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
    assert room.leader is not None
    room.put(obj("t"))
    room.lead()
    leader = room.leader
    leader.pod_observed(ObservedPod("pod", "ns", "p-0", "p", NOW.wall, ready=True), NOW)
    hello = Hello(1, "instance", 1, 0.0)
    leader.connected(1, AgentIdentity("pod", "p-0", "ns", "p", "pool"), hello, NOW)
    actions = leader.received(1, Ping(0.0), NOW)
    (write,) = [each for each in actions if isinstance(each, WriteStatus)]
    assert row(room.view.seen("ns", "t"), NOW.wall).phase == "Pending", "it may not have come about"
    status = {**write.status}
    leader.write_done(write.token, Written(convert.observed_task(obj("t", version=2, **status))), NOW)
    told = row(room.view.seen("ns", "t"), NOW.wall)
    assert (told.phase, told.agent, told.pool, told.attempt) == ("Assigned", "p-0", "p", 1)
    assert room.names(phase="Pending") == []


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
    for query in ({"continue": "t09999"}, {"continue": "t09999", "queue": "none-such"}):
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
