"""Whatever anybody may write, on the real API server: the operator says so, stays, and serves all others."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from integration.controller.room import Object, Room, container, metrics
from odd_objects import POOLS, QUEUES, TASKS
from patience import until
from taskdist.kube import ApiError
from taskdist.local.rest import Client

DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


@contextmanager
def served(room: Room) -> Iterator[None]:
    """At the end a normal Task is served, by the very process and leadership that were there at the beginning."""
    room.queue()
    room.pool(replicas=1, ready=1)
    (operator,) = room.stack.operators
    epoch = metrics(operator)["taskdist_leader_epoch"]
    yield
    room.task("normal", priority="Critical")
    assert room.ended("normal")[0]["phase"] == "Succeeded"
    assert operator.process.poll() is None
    assert metrics(operator)["taskdist_leader_epoch"] == epoch


def make_raw(room: Room, kind: str, name: str, spec: str) -> None:
    """Create an object that is too deep to be built here."""
    body = f'{{"apiVersion":"taskdist.dev/v1alpha1","kind":"{kind}","metadata":{{"name":"{name}"}},"spec":{spec}}}'
    room.client.request("POST", room.path(f"{kind.lower()}s"), body.encode())


def test_objects_of_any_depth_stop_nobody(room: Room) -> None:
    """The readers of lists and watches, kopf's among them, see each of them."""
    nested = {levels: '{"a":' * levels + "1" + "}" * levels for levels in (90, 1200, 2500)}
    with served(room):
        for levels, payload in nested.items():
            make_raw(room, "Task", f"deep-{levels}", f'{{"queue":"q","type":"echo","payload":{payload}}}')
        template = f'{{"spec":{{"containers":[{{"name":"agent","x":{nested[2500]}}}]}}}}'
        make_raw(room, "AgentPool", "deep", f'{{"replicas":1,"template":{template}}}')
        statuses = {name: room.ended(name)[0] for name in ("deep-90", "deep-1200", "deep-2500")}
        assert statuses["deep-90"]["phase"] == "Succeeded"
        for name in ("deep-1200", "deep-2500"):
            assert (statuses[name]["phase"], statuses[name]["reason"]) == ("Failed", "PayloadTooDeep")
            assert statuses[name].get("attempt", 0) == 0
            room.event("Task", name, "PayloadTooDeep")
        until(lambda: room.condition("agentpools", "deep", "Stalled").get("status") == "True", "the pool is stalled")
        assert "spec.template" in room.condition("agentpools", "deep", "Stalled")["message"]
        room.event("AgentPool", "deep", "InvalidTemplate")
        (operator,) = room.stack.operators
        assert metrics(operator)['taskdist_objects_set_aside{kind="AgentPool",reason="InvalidTemplate"}'] == 1


@contextmanager
def newer_release(cluster: Client) -> Iterator[None]:
    """Meanwhile the API server takes what a newer release might say of a queue."""
    name = "taskqueues.taskdist.dev"
    definition = cluster.get(f"{DEFINITIONS}/{name}")
    ours = {key: copy.deepcopy(definition[key]) for key in ("apiVersion", "kind", "spec")} | {
        "metadata": {"name": name}
    }
    newer = copy.deepcopy(ours)
    (version,) = newer["spec"]["versions"]
    version["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["dispatch"]["enum"].append("Eager")
    cluster.apply(f"{DEFINITIONS}/{name}", newer)
    try:
        yield
    finally:
        cluster.apply(f"{DEFINITIONS}/{name}", ours)


def test_a_queue_of_a_newer_release_is_set_aside_and_read_again_when_it_changes(room: Room, cluster: Client) -> None:
    series = 'taskdist_objects_set_aside{kind="TaskQueue",reason="UnknownValue"}'
    (operator,) = room.stack.operators

    def taken() -> bool:
        try:
            room.queue("newer", dispatch="Eager")
        except ApiError:
            return False
        return True

    def condition(kind: str) -> Object:
        return room.condition("taskqueues", "newer", kind)

    with served(room):
        with newer_release(cluster):
            until(taken, "the API server takes the newer word")
            until(lambda: condition("Stalled").get("status") == "True", "the queue says that it is set aside")
            assert condition("Stalled")["reason"] == "UnknownValue"
            assert "spec.dispatch 'Eager'" in condition("Stalled")["message"]
            room.event("TaskQueue", "newer", "UnknownValue")
            assert metrics(operator)[series] == 1
            room.task("waits", queue="newer")
            room.patch("taskqueues", "newer", dispatch="Strict")
        assert room.ended("waits")[0]["phase"] == "Succeeded"
        until(lambda: condition("Stalled").get("status") == "False", "the queue is read again")
        assert series not in metrics(operator)


def drawn(count: int) -> list[tuple[Object, Object, Object]]:
    found: list[tuple[Object, Object, Object]] = []

    @settings(max_examples=count, database=None, suppress_health_check=list(HealthCheck), deadline=None)
    @given(st.tuples(TASKS, QUEUES, POOLS))
    def draw(objects: Any) -> None:
        found.append(objects)

    draw()
    return found


@pytest.fixture
def deep_encoding() -> Iterator[None]:
    """Lets this process write objects that are nested more deeply than its own recursion limit."""
    former = sys.getrecursionlimit()
    sys.setrecursionlimit(20_000)
    yield
    sys.setrecursionlimit(former)


@pytest.mark.usefixtures("deep_encoding")
def test_whatever_the_api_server_admits_stops_nobody(room: Room) -> None:
    admitted = {"Task": 0, "TaskQueue": 0, "AgentPool": 0}

    def make(kind: str, name: str, spec: Object) -> None:
        # What a rule forbids is not what is asked here.
        with contextlib.suppress(ApiError):
            room.make(kind, name, spec)
            admitted[kind] += 1

    with served(room):
        for number, (task, queue, pool) in enumerate(drawn(15)):
            # Names that Tasks and queues point to, so that they meet.
            make("TaskQueue", ("a", "0", "default")[number % 3] if number < 3 else f"queue-{number}", queue["spec"])
            make("Task", f"task-{number}", {**task["spec"], "queue": ("a", "0", "q")[number % 3]})
            spec = {**pool["spec"], "replicas": 0, "template": {"spec": {"containers": [container()]}}}
            spec.pop("scaling", None)
            make("AgentPool", f"pool-{number}", spec)
    assert min(admitted.values()) > 1, admitted
