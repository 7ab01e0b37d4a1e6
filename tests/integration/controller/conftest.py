"""The whole path on real parts: the operator as a process with the chart's rights, and a node for its pods."""

from __future__ import annotations

import secrets
import time
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from integration.controller.room import Room
from patience import until
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import Client
from taskdist.local.stack import Stack

ROOT = Path(__file__).parents[3]
# Short, so that another replica takes over soon, and that leases may end within a test.
TIMINGS = {
    "TASKDIST_LEASE_SECONDS": "3",
    "TASKDIST_RENEW_SECONDS": "2",
    "TASKDIST_RETRY_SECONDS": "0.4",
    "TASKDIST_ALLOW_SHORT_LEASES": "true",
}


@pytest.fixture(scope="package")
def stack(control_plane: ControlPlane, cluster: Client) -> Iterator[Stack]:
    """One operator that leads, and a node."""
    stack = Stack.on(control_plane, ROOT, TIMINGS)
    try:
        stack.up(lambda text: None)
        yield stack
        _let_pods_go(cluster)
    finally:
        stack.down()


def _let_pods_go(cluster: Client) -> None:
    """Pods that are being deleted need their node to go."""
    deadline = time.monotonic() + 20
    while cluster.get("/api/v1/pods", labelSelector="taskdist.dev/pool")["items"] and time.monotonic() < deadline:
        time.sleep(0.1)


def make_room(stack: Stack, cluster: Client) -> Iterator[Room]:
    name = f"e2e-{secrets.token_hex(4)}"
    cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    room = Room(stack, cluster, name)
    until(lambda: room.items("serviceaccounts"), "the default ServiceAccount is there")
    yield room
    cluster.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture
def room(stack: Stack, cluster: Client) -> Iterator[Room]:
    """A namespace of its own, for tests that disturb agents or operators."""
    yield from make_room(stack, cluster)


@pytest.fixture(scope="package")
def shared(stack: Stack, cluster: Client) -> Iterator[Room]:
    """A namespace with queue `q` and pool `p` of two ready agents of two slots, for tests that leave these alone."""
    rooms = make_room(stack, cluster)
    room = next(rooms)
    room.queue()
    room.pool(replicas=2, ready=2)
    # What holds a Task is written once it has held for half a minute: these begin before all else.
    room.task("no-handler", "unheard-of")
    room.pool("idle", replicas=0)
    room.queue("shut", pools=["idle"], paused=True)
    room.task("left", queue="shut")
    yield room
    next(rooms, None)


@pytest.fixture(scope="module")
def apart(stack: Stack, cluster: Client) -> Iterator[Room]:
    """The same in a namespace of a module's own, for tests that leave Tasks behind which do not end."""
    rooms = make_room(stack, cluster)
    room = next(rooms)
    room.queue()
    room.pool(replicas=2, ready=2)
    yield room
    next(rooms, None)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A failure shows what the operators said last: their logs go with the session."""
    report = yield
    stack = getattr(item, "funcargs", {}).get("stack")
    if report.failed and isinstance(stack, Stack):
        for log in sorted((stack.directory / "log").glob("operator*.log")):
            lines = [line for line in log.read_text(errors="replace").splitlines() if "kopf.objects" not in line]
            report.sections.append((log.name, "\n".join(line[:2000] for line in lines[-15:])))
    return report
