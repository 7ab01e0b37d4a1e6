"""For the archive's tests: Tasks of an API server in memory, as far as the archive asks for them."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from taskdist.kube import ApiError, Obj, Page, Unanswered, WatchEvent

GONE = ApiError(410, "Expired", "too old")


def task(number: int, version: int, phase: str = "Succeeded") -> Obj:
    return {
        "metadata": {"uid": f"u{number}", "name": f"t{number}", "namespace": "ns", "resourceVersion": str(version)},
        "spec": {"queue": "q", "type": "echo"},
        "status": {"phase": phase, "finishedAt": "2026-11-30T08:00:00Z"},
    }


class Server:
    """Tasks, what happened to them, and how long a watch may look back."""

    def __init__(self) -> None:
        self.version = 100
        self.tasks: dict[str, Obj] = {}
        self.events: list[tuple[int, str, Obj]] = []
        self.oldest = 0
        self.changed = asyncio.Event()
        self.lists = 0
        self.failing: list[Exception] = []
        self.cut = False

    def end(self, number: int, phase: str = "Succeeded") -> None:
        self.version += 1
        obj = task(number, self.version, phase)
        self.tasks[f"u{number}"] = obj
        self._tell("ADDED", obj)

    def delete(self, number: int) -> None:
        self.version += 1
        obj = self.tasks.pop(f"u{number}")
        self._tell("DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}})

    def _tell(self, kind: str, obj: Obj) -> None:
        self.events.append((self.version, kind, obj))
        self.changed.set()

    async def pages(self, *_: Any, page_size: int, **__: Any) -> AsyncIterator[Page]:
        self.lists += 1
        self._fail()
        version, items = str(self.version), list(self.tasks.values())
        for start in range(0, max(1, len(items)), 2):
            yield Page(items[start : start + 2], version)
            await asyncio.sleep(0)
            self._fail()

    @asynccontextmanager
    async def watch(self, *_: Any, resource_version: str, **__: Any) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        self._fail()
        yield self._events(int(resource_version))

    async def _events(self, after: int) -> AsyncIterator[WatchEvent]:
        while True:
            if after < self.oldest:
                raise GONE
            for version, kind, obj in list(self.events):
                if version > after:
                    after = version
                    yield WatchEvent(kind, obj)
                    self._fail()
            if self.cut:
                self.cut = False
                raise Unanswered("cut")
            self.changed.clear()
            await self.changed.wait()

    def _fail(self) -> None:
        if self.failing:
            raise self.failing.pop(0)
