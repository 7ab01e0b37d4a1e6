"""Many Tasks at once: what `submit_many`, `map` and `map_documents` have in common."""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from typing import Any, Protocol

from taskdist.client.backend import Backend
from taskdist.client.deadline import deadline
from taskdist.client.errors import TaskdistError
from taskdist.client.hub import Hub
from taskdist.client.references import References
from taskdist.client.results import Outcome, SubmittedTask, result_of
from taskdist.client.submission import Submission, TaskOptions, manifest, named
from taskdist.kube import Obj

Create = Callable[[Obj], Awaitable[SubmittedTask[Any]]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is asked for of all payloads of one `map`."""

    queue: str
    kind: str
    options: TaskOptions
    result_type: type[Any] | None
    ordered: bool
    arrays: bool
    window: int | None
    concurrency: int
    timeout: float | None


class Creates(Protocol):
    """Makes a Task once. Raises TaskdistError."""

    async def __call__(
        self, body: Obj, result_type: type[Any] | None, *, wait_if_full: bool = False
    ) -> SubmittedTask[Any]: ...


@dataclass(frozen=True, slots=True)
class Means:
    """What a client does for many Tasks as for one."""

    backend: Backend
    stored: References
    hub: Callable[[str], Hub]
    create: Creates
    cancel: Callable[[SubmittedTask[Any]], Awaitable[object]]

    def creating(self, concurrency: int, result_type: type[Any] | None, *, wait_if_full: bool = True) -> Create:
        """Return what makes Tasks, so many at once."""
        requests = asyncio.Semaphore(max(1, concurrency))

        async def create(body: Obj) -> SubmittedTask[Any]:
            async with requests:
                return await self.create(body, result_type, wait_if_full=wait_if_full)

        return create

    def body(self, submission: Submission) -> Obj:
        """Return the Task to make. Raises InvalidTask."""
        return manifest(submission, self.backend.namespace, self.stored.most_bytes)

    async def one(
        self,
        index: int,
        item: Any,
        body_of: Callable[[Any], Obj],
        result_type: type[Any] | None,
        create: Create,
        timeout: float | None,
    ) -> Outcome[Any]:
        """Submit one Task, and say what became of it."""
        task: SubmittedTask[Any] | None = None
        try:
            body = named(body_of(item))
            hub = self.hub(body["spec"]["queue"])
            async with hub.expecting(body["metadata"]["name"]) as waiter:
                task = await create(body)
                hub.created(waiter, task.obj)
                async with deadline(task.name, timeout):
                    end = await waiter.end
                return Outcome(index, item, task, result_of(await self.stored.whole(end), result_type), None)
        except TaskdistError as error:
            return Outcome(index, item, task, None, error)


async def submitted(
    means: Means, submissions: Iterable[Submission], create: Create, concurrency: int
) -> list[SubmittedTask[dict[str, Any]] | TaskdistError]:
    """Submit all, several at once, and say what became of each, in their order."""
    found: dict[int, SubmittedTask[dict[str, Any]] | TaskdistError] = {}
    waiting = iter(enumerate(submissions))

    async def worker() -> None:
        for index, submission in waiting:
            try:
                found[index] = await create(named(means.body(submission)))
            except TaskdistError as error:
                found[index] = error

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, concurrency)):
            group.create_task(worker())
    return [found[index] for index in sorted(found)]
