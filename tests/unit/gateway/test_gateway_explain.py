"""Why a Task waits, over HTTP: told by the leader or else by the cluster's objects; and dead letters let go again."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import httpx
import pytest

from memory_cluster import MemoryCluster, MemoryView
from taskdist.api.view import Explanation
from taskdist.client.errors import NoAnswer
from taskdist.client.leaders_view import LeadersView
from taskdist.gateway import routes
from taskdist.gateway.app import build
from taskdist.gateway.board import Board
from taskdist.gateway.callers import Callers, Visitor
from taskdist.gateway.measures import Measures
from taskdist.gateway.queues import Queues
from taskdist.gateway.routes import Routes
from taskdist.gateway.submitting import Submitter
from taskdist.gateway.waiting import Places
from taskdist.kube import TASKQUEUES, TASKS, ApiError, Caller, Client, Obj, Resource, Reviews, Unreachable

TOLD = Explanation(
    task="ns/a", queue="q", phase="Pending", reason="QueuePaused", message="Queue q is paused.", holder="taskdist-0"
)


def task(name: str, **status: Any) -> Obj:
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "creationTimestamp": "2026-01-01T00:00:00Z"}
    return {"metadata": metadata, "spec": {"queue": "q", "type": "t"}, "status": status}


class Door:
    """The gateway over a cluster in memory; the callers it knows are all one."""

    def __init__(self) -> None:
        self.cluster = MemoryCluster()
        self.cluster.add(
            TASKQUEUES, {"metadata": {"name": "q", "namespace": "ns"}, "spec": {"pools": ["p"], "paused": True}}
        )
        self.view = MemoryView()
        self.no_view: NoAnswer | None = None

    async def visitor(self, _: Any) -> Visitor:
        return Visitor(Caller("ann"), "anns", cast(Client, self), cast(Reviews, None))

    async def of(self, token: str, namespace: str) -> MemoryView:
        assert (token, namespace) == ("anns", "ns")
        if self.no_view is not None:
            raise self.no_view
        return self.view

    async def get(self, resource: Resource, name: str, namespace: str) -> Obj:
        assert namespace == "ns"
        return await self.cluster.get(resource, name)

    async def patch(self, resource: Resource, name: str, body: Obj, namespace: str, *, field_manager: str) -> Obj:
        assert (namespace, field_manager) == ("ns", "taskdist-gateway")
        return await self.cluster.patch(resource, name, body)

    @asynccontextmanager
    async def opened(self) -> AsyncIterator[httpx.AsyncClient]:
        board = Board(lambda _: "1")
        made = Routes(board, cast(Callers, self), Submitter(Queues(board)), Places(1), cast(LeadersView, self))
        transport = httpx.ASGITransport(build(made, Measures()))
        async with httpx.AsyncClient(transport=transport, base_url="http://door/v1/namespaces/ns") as client:
            yield client


@pytest.fixture
def door(monkeypatch: pytest.MonkeyPatch) -> Door:
    made = Door()
    monkeypatch.setattr(routes, "KubeBackend", lambda *_: made.cluster)
    return made


async def asked(door: Door, path: str, method: str = "GET") -> httpx.Response:
    async with door.opened() as client:
        return await client.request(method, path)


async def test_the_leader_says_it_and_is_named(door: Door) -> None:
    door.cluster.add(TASKS, task("a", phase="Pending"))
    door.view.explanations["a"] = TOLD
    answer = await asked(door, "/tasks/a/explain")
    story = answer.json()
    assert (answer.status_code, story["told_by"], story["not_asked"]) == (200, "leader", "")
    assert (story["reason"], story["message"]) == ("QueuePaused", "Queue q is paused.")
    assert story["operator"] == {"leads": True, "lease": "taskdist-system/taskdist", "holder": "taskdist-0"}
    assert "position" not in story, "what was not told is left out"


@pytest.mark.parametrize("where", ["no way to it", "no answer of it"])
async def test_where_it_cannot_be_asked_the_clusters_objects_tell_and_that_is_said(door: Door, where: str) -> None:
    door.cluster.add(TASKS, task("a", phase="Pending"))
    if where == "no way to it":
        door.no_view = NoAnswer("the leader cannot be asked: no way")
    story = (await asked(door, "/tasks/a/explain")).json()
    assert story["told_by"] == "cluster"
    assert story["not_asked"].startswith("the leader cannot be asked")
    assert story["not_asked"].endswith("found out from the cluster's objects instead")
    assert story["reason"] == "QueuePaused"
    only = await asked(door, "/tasks/a/explain?from=leader")
    assert (only.status_code, only.json()["reason"], only.headers["retry-after"]) == (503, "NoLeader", "1")
    assert only.headers["content-type"] == "application/problem+json"


async def test_nobody_is_asked_where_the_cluster_is_to_tell(door: Door) -> None:
    door.cluster.add(TASKS, task("a", phase="Pending"))
    door.view.explanations["a"] = TOLD
    story = (await asked(door, "/tasks/a/explain?from=cluster")).json()
    assert (story["told_by"], story["not_asked"]) == ("cluster", "")


@pytest.mark.parametrize(
    ("prepare", "status"),
    [
        pytest.param(lambda cluster: None, 404, id="no such Task"),
        pytest.param(
            lambda cluster: cluster.errors.update(get=ApiError(403, "Forbidden", "you may not get tasks")),
            403,
            id="no right to it",
        ),
        pytest.param(
            lambda cluster: (
                cluster.add(TASKS, task("a", phase="Pending")),
                cluster.errors.update(list=ApiError(403, "Forbidden", "you may not list pods")),
            ),
            403,
            id="no right to what would tell",
        ),
        pytest.param(
            lambda cluster: cluster.errors.update(get=Unreachable("no route")),
            503,
            id="no API server",
        ),
    ],
)
async def test_refusals_are_problems(door: Door, prepare: Callable[[MemoryCluster], object], status: int) -> None:
    prepare(door.cluster)
    answer = await asked(door, "/tasks/a/explain")
    assert answer.headers["content-type"] == "application/problem+json"
    assert (answer.status_code, answer.json()["status"]) == (status, status), answer.text
    assert answer.json()["title"]


async def test_a_word_that_is_no_source_is_refused_with_the_field(door: Door) -> None:
    answer = await asked(door, "/tasks/a/explain?from=me")
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (422, "from")


async def test_a_dead_letter_waits_again_and_twice_is_as_once(door: Door) -> None:
    door.cluster.add(TASKS, task("dead", phase="DeadLettered", redrives=2))
    for _ in range(2):
        answer = await asked(door, "/tasks/dead/redrive", "POST")
        assert (answer.status_code, answer.json()["spec"]["redrive"]) == (200, 3)


async def test_what_is_no_dead_letter_is_not_redriven(door: Door) -> None:
    door.cluster.add(TASKS, task("a", phase="Pending"))
    answer = await asked(door, "/tasks/a/redrive", "POST")
    assert (answer.status_code, answer.json()["reason"]) == (409, "NotDeadLettered")
    assert "only a dead letter can be redriven" in answer.json()["detail"]
    assert (await asked(door, "/tasks/none/redrive", "POST")).status_code == 404
