"""One Task as it changes: list, watch, and again, through lost connections."""

import asyncio
from collections.abc import AsyncGenerator, Callable

from taskdist.client.backend import Backend
from taskdist.client.errors import TaskGone, TaskNotFound
from taskdist.common.backoff import Backoff
from taskdist.kube import TASKS, ApiError, KubeError, Obj, Unanswered, WatchEvent, uid_of

AGAIN = Backoff(first=0.25, most=5.0)


def is_lasting(error: KubeError) -> bool:
    """Whether trying again is of no use."""
    return isinstance(error, ApiError) and not (error.is_gone or error.is_throttled or error.is_server_fault)


async def changes(backend: Backend, name: str, uid: str = "") -> AsyncGenerator[Obj, None]:
    """The Task as it is, and then each time that it has changed. It has no end of its own: the caller stops.

    Raises TaskNotFound, TaskGone, and KubeError where that lasts or nothing was seen yet.
    """
    fields = f"metadata.name={name}"
    failures = 0
    known = False
    while True:
        try:
            page = await backend.list(TASKS, fields=fields)
            if not page.items:
                if known or uid:
                    raise TaskGone(f"task {name} was deleted")
                raise TaskNotFound(f"there is no task {name} in {backend.namespace}")
            obj = page.items[0]
            uid = uid or uid_of(obj)
            known, failures = True, 0
            if uid_of(obj) != uid:
                raise TaskGone(f"task {name} was deleted, and another was made under its name")
            yield obj
            async with backend.watch(TASKS, page.resource_version, fields=fields) as events:
                async for event in events:
                    if event.type == "BOOKMARK":
                        continue
                    if event.type == "DELETED":
                        raise TaskGone(f"task {name} was deleted")
                    yield event.object
        except KubeError as error:
            # Before anything was seen, an error is more likely a wrong address than a hiccup.
            if is_lasting(error) or not known:
                raise
            await asyncio.sleep(AGAIN.full(failures))
            failures += 1


async def all_changes(
    backend: Backend,
    version: str = "",
    *,
    everywhere: bool = False,
    labels: str = "",
    fields: str = "",
    on_cut: Callable[[], None] = lambda: None,
) -> AsyncGenerator[WatchEvent, None]:
    """Each change of these Tasks after this version; without one, first each as it is. It has no end of its own.

    After a break that hides changes all are told again as they are. `on_cut`: called when the connection was lost.
    """
    while True:
        try:
            if not version:
                page = await backend.list(TASKS, everywhere=everywhere, labels=labels, fields=fields)
                for obj in page.items:
                    yield WatchEvent("ADDED", obj)
                version = page.resource_version
            async with backend.watch(TASKS, version, everywhere=everywhere, labels=labels, fields=fields) as events:
                async for event in events:
                    version = event.object["metadata"].get("resourceVersion", version)
                    if event.type != "BOOKMARK":
                        yield event
        except ApiError as error:
            if not error.is_gone:
                raise
            version = ""
        except Unanswered:
            on_cut()
