"""Why a Task waits, over the HTTP door, with the operator that leads behind it, and without."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from gateway_process import Gateway, running
from integration.controller.room import Room as Place
from integration.gateway.conftest import RBAC, Room
from patience import until
from taskdist import Client as TaskClient
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import Client
from taskdist.local.stack import Stack

ROOT = Path(__file__).parents[3]
# The first use of helm may build it.
pytestmark = pytest.mark.timeout(1200)


@pytest.fixture
def stack(control_plane: ControlPlane, cluster: Client, crds: list[str]) -> Iterator[Stack]:
    stack = Stack.on(control_plane, ROOT, {})
    try:
        stack.up(lambda text: None)
        yield stack
    finally:
        stack.down()


@pytest.fixture
def place(stack: Stack, cluster: Client) -> Iterator[Place]:
    """A namespace with a queue that is paused, and a Task in it."""
    name = f"explain-{secrets.token_hex(4)}"
    cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    place = Place(stack, cluster, name)
    place.pool("idle", replicas=0)
    place.queue("shut", pools=["idle"], paused=True)
    place.task("left", queue="shut")
    yield place
    cluster.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def door(place: Place, stack: Stack, account: Path, tmp_path: Path) -> Iterator[Gateway]:
    """A gateway that was told where the leader's view is."""
    settings = {"TASKDIST_GATEWAY_VIEW": f"localhost:{stack.operators[0].view_port}"}
    with running(account, tmp_path, settings) as server:
        yield server


def test_the_leader_explains_and_where_it_cannot_the_objects_that_the_caller_may_read(
    door: Gateway, place: Place, stack: Stack, cluster: Client, token: Callable[[str, str], str]
) -> None:
    with ExitStack() as callers:
        room = Room(place.namespace, cluster, door.url, token, callers)
        reader = room.caller("get", account="reader")

        def told() -> object:
            answer = reader.get("/tasks/left/explain?from=leader")
            return answer.status_code == 200 and answer.json()

        # The operator publishes whom to trust once it has seen the pool.
        story = until(told, "the leader explains it")
        assert isinstance(story, dict)
        assert (story["told_by"], story["not_asked"], story["reason"]) == ("leader", "", "QueuePaused")
        assert story["operator"]["leads"] is True
        assert reader.get("/tasks/none/explain").status_code == 404
        refused = room.caller(account="nobody").get("/tasks/left/explain")
        assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
        with TaskClient(gateway=door.url, namespace=place.namespace, token=token(place.namespace, "reader")) as client:
            assert client.explain("left")["message"] == story["message"]

        everything = room.caller("get", "list", account="operator", resources=("tasks", "taskqueues", "agentpools"))
        no_pods = everything.get("/tasks/left/explain?from=cluster")
        assert (no_pods.status_code, "pods" in no_pods.json()["detail"]) == (403, True), no_pods.text
        _may_list_pods(cluster, place.namespace, "operator")
        found = until(
            lambda: (answer := everything.get("/tasks/left/explain?from=cluster")).status_code == 200 and answer.json(),
            "the authorizer knows the role",
        )
        assert found["told_by"] == "cluster"
        same = ("reason", "message", "unblock", "command")
        assert {key: found.get(key) for key in same} == {key: story.get(key) for key in same}

        stack.operators[0].stop()
        instead = everything.get("/tasks/left/explain").json()
        assert instead["told_by"] == "cluster"
        assert instead["not_asked"].startswith("the leader cannot be asked: ")
        nobody = everything.get("/tasks/left/explain?from=leader")
        assert (nobody.status_code, nobody.json()["reason"]) == (503, "NoLeader")


def _may_list_pods(cluster: Client, namespace: str, account: str) -> None:
    rule = {"apiGroups": [""], "resources": ["pods"], "verbs": ["list"]}
    cluster.create(f"{RBAC}/namespaces/{namespace}/roles", {"metadata": {"name": "pods"}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "pods"}
    subject = {"kind": "ServiceAccount", "name": account, "namespace": namespace}
    cluster.create(
        f"{RBAC}/namespaces/{namespace}/rolebindings",
        {"metadata": {"name": "pods"}, "roleRef": reference, "subjects": [subject]},
    )


def test_a_dead_letter_is_redriven_by_who_may_read_and_change_it(room: Room) -> None:
    room.task("dead")
    room.ends("dead", "DeadLettered", message="it broke")
    for verbs in (("get",), ("patch",)):
        assert room.caller(*verbs).post("/tasks/dead/redrive").status_code == 403
    answer = room.caller("get", "patch").post("/tasks/dead/redrive")
    assert (answer.status_code, answer.json()["spec"]["redrive"]) == (200, 1)
    room.task("waits")
    refused = room.caller("get", "patch").post("/tasks/waits/redrive")
    assert (refused.status_code, refused.json()["reason"]) == (409, "NotDeadLettered")
