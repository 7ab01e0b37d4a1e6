"""A server on a cluster in memory, asked by the protocol's own client; and objects, as the operator writes them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from mcp import Client

from mcp_agent import Agent
from taskdist.client import AsyncClient
from taskdist.client.backend import Asks
from taskdist.client.testing import FakeBackend
from taskdist.common import times
from taskdist.kube import AGENTPOOLS, PODS, TASKS, uid_of
from taskdist.mcp.notices import Notices
from taskdist.mcp.server import build

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC).timestamp()


@asynccontextmanager
async def door(
    fake: FakeBackend, *, mode: str = "auto", now: float | None = None, view: Asks | None = None
) -> AsyncIterator[Agent]:
    """Yield an agent at a server on this cluster. `now`: what the server's clock says; else the machine's.

    `view`: of the operator that leads, if it can be asked.
    """
    notices = Notices()
    clock = {} if now is None else {"clock": lambda: now}
    async with (
        AsyncClient(backend=fake, on_warning=notices.hear, view=view) as client,
        Client(build(lambda: client, notices, **clock), mode=mode) as asking,
    ):
        yield Agent(asking)


async def add_task(
    fake: FakeBackend,
    name: str,
    queue: str = "q",
    *,
    created: float = NOW - 100,
    status: dict[str, Any] | None = None,
    **spec: Any,
) -> None:
    """Add a Task as the operator has left it. The cluster must be held, else it may start."""
    await fake.create(TASKS, {"metadata": {"name": name}, "spec": {"queue": queue, "type": "work", **spec}})
    await fake.patch(TASKS, name, {"metadata": {"creationTimestamp": times.utc(created)}, "status": status or {}})


def ran(agent: str, begin: float, end: float | None, *, phase: str = "Succeeded", **more: Any) -> dict[str, Any]:
    """The status of a Task that an agent ran, once; without an end it still runs."""
    status = {"phase": phase if end is not None else "Assigned", "attempt": 1, "agent": agent, "pool": "p"}
    status |= {"assignedAt": moment(begin), "startedAt": moment(begin)}
    return status | ({} if end is None else {"finishedAt": moment(end)}) | more


def moment(seconds: float) -> str:
    """Write a time as the operator does."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


async def add_pool(fake: FakeBackend, name: str = "p", *, status: dict[str, Any] | None = None, **spec: Any) -> None:
    template = {"spec": {"containers": [{"name": "agent"}]}}
    body = {"metadata": {"name": name}, "spec": {"template": template, **spec}, "status": status or {}}
    await fake.create(AGENTPOOLS, body)


async def add_pod(fake: FakeBackend, name: str, pool: str = "p", *, ready: float = NOW - 100) -> str:
    """Add an agent's pod that has been ready since then; return its uid."""
    condition = {"type": "Ready", "status": "True", "lastTransitionTime": times.utc(ready)}
    running = {"name": "agent", "ready": True, "state": {"running": {"startedAt": times.utc(ready)}}}
    body = {
        "metadata": {"name": name, "labels": {"taskdist.dev/pool": pool}},
        "spec": {"containers": [{"name": "agent"}], "nodeName": "n"},
        "status": {"phase": "Running", "conditions": [condition], "containerStatuses": [running]},
    }
    return uid_of(await fake.create(PODS, body))
