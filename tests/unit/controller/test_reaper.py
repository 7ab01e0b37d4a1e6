"""Deletion of what is due: by uid and version, only while leading, and what a refusal leads to."""

import asyncio
from collections.abc import Callable

import pytest

from taskdist.api import Phase
from taskdist.controller import reaper
from taskdist.controller.reaper import AGAIN_SECONDS, FORBIDDEN_SECONDS, IN_FLIGHT, MOST_A_SECOND, Reaper
from taskdist.controller.retention import Retention
from taskdist.core.model import Task
from taskdist.kube import ApiError, KubeError, Unreachable
from taskdist.kube.resources import Resource
from taskdist.protocol.observations import ObservedTask

Call = tuple[str, str, str, str]


class Server:
    """Remembers what it was asked to delete; refuses as it is told."""

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.refusal: KubeError | None = None
        self.before: Callable[[], None] = lambda: None
        self.at_once = 0
        self.most_at_once = 0

    async def delete(
        self, resource: Resource, name: str, namespace: str, *, uid: str, resource_version: str, propagation: str
    ) -> object:
        assert str(resource) == "tasks.taskdist.dev"
        self.before()
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        self.calls.append((namespace, name, uid, resource_version))
        self.at_once -= 1
        if self.refusal is not None:
            raise self.refusal
        return {}


class Room:
    def __init__(self, count: int = 1) -> None:
        self.now = 1000.0
        self.leads = self.serves = True
        self.server = Server()
        self.deleted: list[str] = []
        self.retention = Retention()
        for i in range(count):
            task = Task(f"u{i}", "ns", f"t{i}", "q", "t", 1.0)
            self.retention.seen(ObservedTask(task, 40 + i, Phase.SUCCEEDED, finished_at=100.0 + i, ttl=0))
        self.reaper = Reaper(
            self.server,
            self.retention,
            lambda: self.leads,
            lambda record: self.deleted.append(record.task.uid),
            lambda: self.now,
            lambda namespace: self.serves,
        )


async def test_what_is_due_is_deleted_once_in_the_version_that_was_judged() -> None:
    room = Room()
    await room.reaper.round()
    await room.reaper.round()
    assert room.server.calls == [("ns", "t0", "u0", "40")]
    assert room.deleted == ["u0"]


async def test_tasks_in_another_installation_s_namespaces_are_left_to_it() -> None:
    room = Room()
    room.serves = False
    await room.reaper.round()
    assert room.server.calls == []
    room.serves = True
    room.now += AGAIN_SECONDS
    await room.reaper.round()
    assert room.deleted == ["u0"]


async def test_a_round_is_bounded_and_the_rest_follows() -> None:
    room = Room(MOST_A_SECOND + 10)
    await room.reaper.round()
    assert len(room.server.calls) == MOST_A_SECOND
    await room.reaper.round()
    assert len(room.deleted) == MOST_A_SECOND + 10
    assert room.server.most_at_once <= IN_FLIGHT


@pytest.mark.parametrize(
    ("refusal", "again"),
    [
        pytest.param(ApiError(404, "NotFound", "", {"name": "t0"}), None, id="gone already"),
        pytest.param(ApiError(409, "Conflict"), AGAIN_SECONDS, id="changed meanwhile"),
        pytest.param(ApiError(500), AGAIN_SECONDS, id="the server is in trouble"),
        pytest.param(Unreachable("no way"), AGAIN_SECONDS, id="the server is away"),
        pytest.param(ApiError(403, "Forbidden"), FORBIDDEN_SECONDS, id="no right to"),
    ],
)
async def test_what_a_refusal_leads_to(refusal: KubeError, again: float | None) -> None:
    room = Room()
    room.server.refusal = refusal
    await room.reaper.round()
    assert room.deleted == []
    room.server.refusal = None
    room.now += (again or AGAIN_SECONDS) - 1
    await room.reaper.round()
    assert len(room.server.calls) == 1
    room.now += 2
    await room.reaper.round()
    assert len(room.server.calls) == (2 if again else 1)


async def test_without_the_right_nothing_more_is_tried_for_a_while() -> None:
    room = Room(20)
    room.server.refusal = ApiError(403, "Forbidden")
    await room.reaper.round()
    assert len(room.server.calls) <= IN_FLIGHT
    room.server.refusal = None
    room.now += FORBIDDEN_SECONDS + 1
    await room.reaper.round()
    assert len(room.deleted) == 20


async def test_nothing_is_deleted_once_leadership_is_not_sure_and_all_of_it_by_the_next() -> None:
    room = Room(5)

    def lose() -> None:
        room.leads = len(room.server.calls) < 1

    room.server.before = lose
    await room.reaper.round()
    assert len(room.server.calls) < 5
    room.server.before = lambda: None
    room.leads = True
    await room.reaper.round()
    assert sorted(room.deleted) == [f"u{i}" for i in range(5)]


@pytest.mark.parametrize("known", [True, False], ids=["once it is known", "after a time, if it never is"])
async def test_nothing_is_deleted_before_it_is_known_what_sinks_hold_back(
    known: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reaper, "KNOWN_SECONDS", 60.0 if known else 0.01)
    room, learnt, deleted = Room(), asyncio.Event(), asyncio.Event()
    room.server.before = deleted.set

    async def are_known() -> None:
        await learnt.wait()

    made = Reaper(room.server, room.retention, lambda: True, lambda _: None, lambda: room.now, known=are_known)
    running = asyncio.create_task(made.run())
    if known:
        for _ in range(5):
            await asyncio.sleep(0)
        assert not deleted.is_set()
        learnt.set()
    async with asyncio.timeout(20):
        await deleted.wait()
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
