"""Reads of the cluster, anew for each call: queues, pools, agents' pods and Tasks of one namespace."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from taskdist.api import POOL_LABEL, AgentPool, TaskQueue
from taskdist.api.view import Outside
from taskdist.client import AsyncClient
from taskdist.client.outside import outside
from taskdist.client.states import status_of
from taskdist.kube import AGENTPOOLS, PODS, TASKQUEUES, TASKS, Obj, Resource, name_of
from taskdist.mcp.errors import Missing, explained, missing

LARGE_AT_ONCE = 2

ModelT = TypeVar("ModelT", bound=BaseModel)


class Reading:
    """A reader with the rights of the client that a call has. Raises Refusal.

    `turn` is for what takes much of a CPU: so many at once may, that others are answered meanwhile.
    """

    def __init__(self, clients: Callable[[], AsyncClient]) -> None:
        self._clients = clients
        self.turn = asyncio.Semaphore(LARGE_AT_ONCE)

    @property
    def client(self) -> AsyncClient:
        return self._clients()

    @property
    def namespace(self) -> str:
        return self.client.namespace

    async def queues(self, name: str | None = None) -> tuple[list[TaskQueue], list[str]]:
        """Read all queues, or the one of this name; and say which could not be read."""
        return await self._all(TASKQUEUES, TaskQueue, name, 'Tool task-queue, {"action": "queues"},')

    async def pools(self, name: str | None = None) -> tuple[list[AgentPool], list[str]]:
        """Read all pools, or the one of this name; and say which could not be read."""
        return await self._all(AGENTPOOLS, AgentPool, name, 'Tool load-balancer, {"action": "pools"},')

    async def pods(self) -> list[Obj]:
        """List the agents' pods."""
        with explained():
            return (await self.client.backend.list(PODS, labels=POOL_LABEL)).items

    async def outside(self, queues: Iterable[TaskQueue]) -> dict[str, Outside]:
        """Read what waits at sources, by the queue for which it does."""
        names = [{"metadata": {"namespace": self.namespace, "name": each.metadata.name}} for each in queues]
        return {name: each for (_, name), each in (await outside(self.client.backend, names)).items()}

    async def tasks(self, queue: str | None, phase: str | None, labels: str, most: int) -> tuple[list[Obj], bool]:
        """Read at most so many Tasks, and say whether there are more."""
        found: list[Obj] = []
        async for task in self.each_task(queue, phase, labels):
            if len(found) == most:
                return found, True
            found.append(task)
        return found, False

    async def each_task(
        self, queue: str | None = None, phase: str | None = None, labels: str = ""
    ) -> AsyncIterator[Obj]:
        """Yield Tasks, one by one: who needs no more than sums keeps none of them."""
        wanted = (("spec.queue", queue), ("status.phase", phase))
        fields = ",".join(f"{field}={value}" for field, value in wanted if value)
        with explained():
            async for page in self.client.backend.pages(TASKS, labels=labels, fields=fields):
                for task in page.items:
                    yield task

    async def _all(
        self, resource: Resource, model: type[ModelT], name: str | None, how: str
    ) -> tuple[list[ModelT], list[str]]:
        with explained():
            objects = (await self.client.backend.list(resource)).items
        names = [name_of(each) for each in objects]
        if name is not None and name not in names:
            raise missing(model.__name__, name, names, how)
        found, odd = [], []
        for obj in sorted(objects, key=name_of):
            if name not in (None, name_of(obj)):
                continue
            try:
                found.append(model.model_validate(obj))
            except ValidationError as error:
                first = error.errors()[0]
                where = ".".join(str(part) for part in first["loc"])
                odd.append(f"{model.__name__} {name_of(obj)} cannot be read: {where}: {first['msg']}")
        if name is not None and not found:
            raise Missing(odd[0])
        return found, odd


def condition(conditions: Iterable[Any], kind: str) -> str | None:
    """Return reason and message of the condition of this type, if it holds."""
    for each in conditions:
        if each.type == kind and each.status == "True":
            return f"{each.reason}: {each.message}" if each.message else str(each.reason)
    return None


def slots_of(task: Obj) -> int:
    """Slots that the Task occupies."""
    return int(task["spec"].get("slots") or 1)


def agent_of(task: Obj) -> str:
    return str(status_of(task).get("agent") or "")
