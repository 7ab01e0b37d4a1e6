"""The objects of a kind that there are, and one asyncio task for each that keeps it at work.

Its work is begun when it is seen, begun anew when its spec is another one, and ended when it is deleted. The new one
waits until the old has ended, so that no object is at work twice in a process.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

from taskdist.api import ObjectMeta
from taskdist.elected.again import AGAIN
from taskdist.kube import Deleted, Event, KubeError, Obj
from taskdist.kube.own_status import Changed, Gone
from taskdist.kube.store import Aside

# Namespace and name of an object.
Key = tuple[str, str]

# How often it is tried to say on an odd object that it is set aside: half an hour in all.
TOLD_TRIES: Final = 35

# What is carried over from one state of an object to the next.
CarriedT = TypeVar("CarriedT")


class Live(Protocol[CarriedT]):
    """The work of one state of an object."""

    async def __call__(self, body: Obj, former: CarriedT | None, carry: Callable[[CarriedT], None]) -> None:
        """Work until cancelled, or until only a change of the object helps.

        Args:
            former: what the former state of this object has handed on.
            carry: hands something on to the next.
        """


@dataclass(slots=True)
class _Entry(Generic[CarriedT]):
    """An object that is there: which state of it is at work, and what that hands on."""

    uid: str
    generation: int
    task: asyncio.Task[None] | None = None
    carried: CarriedT | None = None

    def carry(self, carried: CarriedT) -> None:
        self.carried = carried


class Keeper(Generic[CarriedT]):
    """Keeps the objects of a kind at work. Lives on one event loop.

    Args:
        noun: what such an object is called.
        live: the work of one state of an object.
        gone: told of each object that is deleted, once its work has ended and no other of its name has come.
        failed: told of what ended a task although nothing ever should.
    """

    def __init__(
        self,
        noun: str,
        live: Live[CarriedT],
        gone: Callable[[Key], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self._noun = noun
        self._live = live
        self._gone = gone
        self._failed = failed
        self._entries: dict[Key, _Entry[CarriedT]] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    def hear(self, event: Event[Obj]) -> None:
        """Take in a change: an informer's `on_event`."""
        if isinstance(event, Aside):  # what is kept is the object as it came: there is nothing that cannot be read
            return
        if isinstance(event, Deleted):
            metadata = event.old["metadata"]
            self.deleted((str(metadata["namespace"]), str(metadata["name"])))
        else:
            self.seen(event.new)

    def seen(self, body: Obj) -> None:
        """The object exists, with this content."""
        metadata = body["metadata"]
        key = (str(metadata["namespace"]), str(metadata["name"]))
        uid, generation = str(metadata["uid"]), int(metadata.get("generation") or 0)
        if "deletionTimestamp" in metadata:
            self.deleted(key)
            return
        former = self._entries.get(key)
        if self._ended or (former is not None and former.uid == uid and generation <= former.generation):
            return
        entry = self._entries[key] = _Entry[CarriedT](uid, generation)
        entry.task = asyncio.create_task(self._work(body, entry, former), name=f"{self._noun} {key[0]}/{key[1]}")
        self._tasks.add(entry.task)
        entry.task.add_done_callback(self._over)

    def deleted(self, key: Key) -> None:
        """The object is gone."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()
            # Once it has had its last word, and no other of its name has come meanwhile.
            entry.task.add_done_callback(lambda _: None if key in self._entries else self._gone(key))

    async def close(self) -> None:
        """End all work, and begin none any more."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until each object waits for a change, or is gone."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _work(self, body: Obj, entry: _Entry[CarriedT], former: _Entry[CarriedT] | None) -> None:
        """Run this state of the object once the former one runs no more."""
        if former is not None and former.task is not None:
            former.task.cancel()
            await asyncio.wait({former.task})
        carried = former.carried if former is not None and former.uid == entry.uid else None
        await self._live(body, carried, entry.carry)

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)


async def tell_odd(flush: Callable[[], Awaitable[None]], sleep: Callable[[float], Awaitable[None]]) -> None:
    """Write on an object that this release cannot read that it is so; give up in the end.

    Args:
        flush: writes it. Raises `Gone`, `Changed` or `KubeError`.
    """
    for attempt in range(TOLD_TRIES):
        try:
            await flush()
            return
        except (Gone, Changed):
            return
        except KubeError:
            await sleep(AGAIN.full(attempt))


def bare_metadata(metadata: dict[str, Any]) -> ObjectMeta:
    """Return as much of the metadata of an object that cannot be read as it takes to write its status."""
    return ObjectMeta(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        resource_version=str(metadata["resourceVersion"]),
        generation=int(metadata.get("generation") or 0),
    )
