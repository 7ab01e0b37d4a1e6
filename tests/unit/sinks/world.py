"""For the tests of sinks: an API server in memory that lists and watches, a receiver that notes what it takes."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any

from memory_cluster import merge
from taskdist.api import TaskSink
from taskdist.elected.keeper import Keeper
from taskdist.kube import TASKS, TASKSINKS, ApiError, Obj, Page, Resource, WatchEvent
from taskdist.outgoing.ends import End
from taskdist.sinks.keeper import keep_sinks
from taskdist.sinks.metrics import SinkMetrics
from taskdist.sinks.receiver import Open
from taskdist.sinks.reporting import Reporter
from unit.sources.world import Clock

START = "2030-01-01T00:00"
CREATED = "2030-01-01T00:00:00Z"
WAITING = ("Pending", "Assigned")


class Server:
    """Objects in memory, each write with a version; Tasks are listed and watched by whether they have ended."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str], Obj] = {}
        self.version = 100
        self.log: list[tuple[int, str, Obj]] = []
        self.least = 0
        """Watches from before this version have expired."""
        self.watchers: list[asyncio.Event] = []
        self.errors: dict[str, Exception] = {}
        """By verb: what each such request meets."""
        self.lists = 0
        self.listing = 0
        self.most_listing = 0
        self.reads: list[str] = []
        self.status_writes = 0
        self.page_size = 3

    def put(self, resource: Resource, obj: Obj) -> Obj:
        self.version += 1
        name = obj["metadata"]["name"]
        before = self.objects.get((str(resource), name))
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}}
        self.objects[str(resource), name] = stored
        if resource == TASKS:
            was, has = before is not None and _ended(before), _ended(stored)
            if has or was:
                self._tell(("MODIFIED" if was else "ADDED") if has else "DELETED", stored)
        return stored

    def end(self, name: str, key: str = "", phase: str = "Succeeded", at: str = CREATED, **status: Any) -> Obj:
        """A Task ends."""
        return self.put(
            TASKS,
            {
                "metadata": {"namespace": "team", "name": name, "uid": f"uid-{name}", "creationTimestamp": CREATED},
                "spec": {"queue": "orders", "type": "pack", **({"orderingKey": key} if key else {})},
                "status": {"phase": phase, "finishedAt": at, "attempt": 1, **status},
            },
        )

    def delete(self, name: str) -> None:
        obj = self.objects.pop((str(TASKS), name))
        self.version += 1
        self._tell("DELETED", {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(self.version)}})

    def expire(self) -> None:
        """No watch goes on: all has to be listed."""
        self.least = self.version + 1
        self._wake()

    def _tell(self, kind: str, obj: Obj) -> None:
        self.log.append((self.version, kind, obj))
        self._wake()

    def _wake(self) -> None:
        for each in self.watchers:
            each.set()

    def _raise(self, verb: str) -> None:
        if verb in self.errors:
            raise self.errors[verb]

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        await asyncio.sleep(0)
        self._raise("get")
        if resource == TASKS:
            self.reads.append(name)
        try:
            return copy.deepcopy(self.objects[str(resource), name])
        except KeyError:
            raise ApiError(404, "NotFound", f"{name} not found", {"name": name}) from None

    async def patch(
        self, resource: Resource, name: str, body: Obj, namespace: str | None = None, *, subresource: str = ""
    ) -> Obj:
        await asyncio.sleep(0)
        self._raise("patch")
        there = await self.get(resource, name)
        if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        self.status_writes += 1
        return self.put(resource, {**there, "status": merge(there.get("status", {}), body["status"])})

    async def pages(
        self, resource: Resource, namespace: str | None = None, *, field_selector: str = "", page_size: int = 0
    ) -> AsyncGenerator[Page, None]:
        assert field_selector.startswith("status.phase!=Pending,status.phase!=Assigned")
        self.lists += 1
        version = str(self.version)
        found = [obj for (kind, _), obj in sorted(self.objects.items()) if kind == str(resource) and _ended(obj)]
        self.listing += 1
        self.most_listing = max(self.most_listing, self.listing)
        try:
            for start in range(0, max(len(found), 1), self.page_size):
                await asyncio.sleep(0)
                self._raise("list")
                yield Page(copy.deepcopy(found[start : start + self.page_size]), version)
        finally:
            self.listing -= 1

    @asynccontextmanager
    async def watch(
        self, resource: Resource, namespace: str | None = None, *, resource_version: str, **_: Any
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        self._raise("watch")
        stirred = asyncio.Event()
        self.watchers.append(stirred)
        try:
            yield self._events(int(resource_version), stirred)
        finally:
            self.watchers.remove(stirred)

    async def _events(self, version: int, stirred: asyncio.Event) -> AsyncIterator[WatchEvent]:
        while True:
            stirred.clear()
            if version + 1 < self.least:
                raise ApiError(410, "Expired", "too old resource version")
            for at, kind, obj in [each for each in self.log if each[0] > version]:
                yield WatchEvent(kind, copy.deepcopy(obj))
                version = at
            if self.log and self.log[-1][0] > version:
                continue
            await stirred.wait()


def _ended(obj: Obj) -> bool:
    return obj.get("status", {}).get("phase", "Pending") not in WAITING


class Receiver:
    """Takes what it is told, or does what `answer` does."""

    def __init__(self) -> None:
        self.took: list[str] = []
        """Names of Tasks, in order."""
        self.bodies: list[bytes] = []
        self.answer: Callable[[End], None] = lambda _: None
        """May raise."""
        self.open_error: Exception | None = None
        self.hold: asyncio.Event | None = None
        """Nothing is answered before this is set."""
        self.closed = 0

    async def tell(self, end: End) -> None:
        await asyncio.sleep(0)
        if self.hold is not None:
            await self.hold.wait()
        self.answer(end)
        self.took.append(end.name)
        self.bodies.append(end.body)

    async def close(self) -> None:
        self.closed += 1


class World:
    """One API server, one receiver, and one process that may be killed."""

    def __init__(self) -> None:
        self.server = Server()
        self.receiver = Receiver()
        self.clock = Clock(START)
        self.failures: list[BaseException] = []
        self.sinks = self._process()

    def _process(self) -> Keeper[Reporter]:
        client: Any = self.server
        self.leading = True
        self.metrics = SinkMetrics()
        return keep_sinks(
            client,
            self.metrics,
            self._connect,
            lambda: self.leading,
            self.failures.append,
            self.clock.now,
            self.clock.ticks,
            self.clock.sleep,
        )

    def _connect(self, sink: TaskSink) -> Open | None:
        async def open_it() -> Receiver:
            if self.receiver.open_error is not None:
                raise self.receiver.open_error
            return self.receiver

        return open_it if sink.spec.http is not None else None

    async def apply(self, name: str = "sink", **spec: Any) -> None:
        """The sink is written, and seen."""
        known = self.server.objects.get((str(TASKSINKS), name))
        generation = known["metadata"]["generation"] + 1 if known else 1
        metadata = {"namespace": "team", "name": name, "uid": f"uid-{name}", "generation": generation}
        body: Obj = {
            "metadata": {**metadata, "creationTimestamp": CREATED},
            "spec": {"http": {"url": "https://r.example.com"}, **spec},
            "status": known["status"] if known and "status" in known else {},
        }
        self.sinks.seen(copy.deepcopy(self.server.put(TASKSINKS, body)))
        await self.clock.settle()

    async def pass_seconds(self, seconds: float) -> None:
        whole = self.clock.time.timestamp() + seconds
        await self.clock.to(datetime.fromtimestamp(whole, self.clock.time.tzinfo).replace(tzinfo=None).isoformat())
        await self.clock.settle()

    async def kill(self, *, unseen: bool = False) -> None:
        """The process dies in the midst: it writes nothing any more. Another one takes over."""
        self.leading = False
        await self.sinks.close()
        self.sinks = self._process()
        if unseen:
            return
        self.sinks.seen(copy.deepcopy(self.server.objects[str(TASKSINKS), "sink"]))
        await self.clock.settle()

    @property
    def status(self) -> Obj:
        found: Obj = self.server.objects[str(TASKSINKS), "sink"].get("status", {})
        return found

    def condition(self, kind: str = "Ready") -> tuple[str, str, str]:
        (found,) = [each for each in self.status["conditions"] if each["type"] == kind]
        return found["status"], found["reason"], found["message"]
