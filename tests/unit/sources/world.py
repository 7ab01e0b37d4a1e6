"""The world of sources in tests: an API server in memory, a clock turned by hand, a process that can be killed."""

from __future__ import annotations

import asyncio
import copy
import heapq
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

from memory_cluster import merge
from taskdist.elected.keeper import Keeper
from taskdist.kube import TASKQUEUES, TASKS, TASKSOURCES, ApiError, Obj, Resource
from taskdist.sources.connecting import connect
from taskdist.sources.keeper import keep_sources
from taskdist.sources.metrics import SourceMetrics
from taskdist.sources.reporting import Reporter
from taskdist.sources.running import Brokers


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


class Clock:
    """Wall clock and sleeps of one world. Time goes on only by `to`."""

    def __init__(self, start: str) -> None:
        self.time = at(start)
        # Sleeps end by the time that has passed, whatever the wall clock was set to.
        self._passed = timedelta()
        self._sleeping: list[tuple[timedelta, int, asyncio.Event]] = []
        self._number = count()

    def now(self) -> datetime:
        return self.time

    def ticks(self) -> float:
        """Seconds that have passed, whatever the wall clock was set to."""
        return self._passed.total_seconds()

    async def sleep(self, seconds: float) -> None:
        event = asyncio.Event()
        heapq.heappush(self._sleeping, (self._passed + timedelta(seconds=seconds), next(self._number), event))
        await event.wait()

    async def to(self, text: str) -> None:
        """Let time go on until then, and all be done that is due meanwhile."""
        left = at(text) - self.time
        assert left >= timedelta(), "a clock is set back by assigning `time`"
        end = self._passed + left
        await self.settle()
        while self._sleeping and self._sleeping[0][0] <= end:
            due, _, event = heapq.heappop(self._sleeping)
            self._pass(due)
            event.set()
            await self.settle()
        self._pass(end)

    def _pass(self, until: timedelta) -> None:
        self.time += max(until - self._passed, timedelta())
        self._passed = max(until, self._passed)

    @staticmethod
    async def settle() -> None:
        """Let everything happen that needs no time. Nothing here waits for anything but sleeps and the loop."""
        loop: Any = asyncio.get_running_loop()
        await asyncio.sleep(0)
        while loop._ready:  # noqa: ASYNC110  what else wants its turn
            await asyncio.sleep(0)


class Api:
    """An API server, as far as sources ask it, over objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[tuple[str, str, str], Obj] = {}
        self.errors: list[tuple[str, Callable[[Obj], Exception | None], bool]] = []
        self.writes: list[str] = []
        self.created: list[Obj] = []
        self._version = count(1)

    def fail(self, verb: str, error: Callable[[Obj], Exception | None], *, after: bool = False) -> None:
        """Ask `error` for each such request from now on; `after`: once it was carried out."""
        self.errors.append((verb, error, after))

    def put(self, resource: Resource, obj: Obj) -> Obj:
        key = (str(resource), obj["metadata"]["namespace"], obj["metadata"]["name"])
        # Not copied to the ground, which may lie deeper than Python copies; nothing changes it in place.
        stored = {**obj, "metadata": {**obj["metadata"], "resourceVersion": str(next(self._version))}}
        self.objects[key] = stored
        return dict(stored)

    def tasks(self, source: str = "") -> list[Obj]:
        return [
            each for each in self.created if not source or each["metadata"]["labels"]["taskdist.dev/source"] == source
        ]

    def _raise(self, verb: str, obj: Obj, after: bool) -> None:
        for known, error, when in self.errors:
            if known == verb and when is after and (found := error(obj)) is not None:
                raise found

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        await asyncio.sleep(0)
        self._raise("get", {"metadata": {"name": name}}, False)
        try:
            return dict(self.objects[str(resource), str(namespace), name])
        except KeyError:
            raise ApiError(404, "NotFound", f"{name} not found", {"name": name}) from None

    async def create(self, resource: Resource, body: Obj, namespace: str | None = None) -> Obj:
        await asyncio.sleep(0)
        self._raise("create", body, False)
        if (str(resource), str(namespace), body["metadata"]["name"]) in self.objects:
            raise ApiError(409, "AlreadyExists", "it already exists")
        self.created.append(copy.deepcopy(body))
        made = self.put(resource, body)
        self._raise("create", body, True)
        return made

    async def patch(
        self, resource: Resource, name: str, body: Obj, namespace: str | None = None, *, subresource: str = ""
    ) -> Obj:
        await asyncio.sleep(0)
        assert subresource == "status"
        there = await self.get(resource, name, namespace)
        self._raise("patch", body, False)
        if body["metadata"]["resourceVersion"] != there["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict", "the object has been modified")
        self.writes.append(name)
        made = self.put(resource, {**there, "status": merge(there.get("status", {}), body["status"])})
        self._raise("patch", body, True)
        return made


class Queues:
    """The queues in memory, as a watch would tell of them."""

    def __init__(self, api: Api) -> None:
        self._api = api
        self.listeners: set[Callable[[], None]] = set()

    async def synced(self) -> None: ...

    def closed(self, namespace: str) -> dict[str, str]:
        return {
            name: f"{name} is full"
            for (kind, where, name), obj in self._api.objects.items()
            if (kind, where) == (str(TASKQUEUES), namespace) and not obj["status"]["accepting"]
        }

    def listen(self, namespace: str, changed: Callable[[], None]) -> Callable[[], None]:
        self.listeners.add(changed)
        return lambda: self.listeners.discard(changed)


class World:
    """An installation: its objects, its clock, and the process that runs now. `connect`: to its broker."""

    def __init__(self, start: str = "2026-01-01T00:30:00", connect: Any = connect) -> None:
        self.api = Api()
        self.queues = Queues(self.api)
        self._connect = connect
        self.clock = Clock(start)
        self.failures: list[BaseException] = []
        self.leading = True
        self.metrics = SourceMetrics()
        self._uids = count(1)
        self.process = self._begun()

    def _begun(self) -> Keeper[Reporter]:
        return keep_sources(
            self.api,  # type: ignore[arg-type]
            self.metrics,
            lambda: self.leading,
            self.failures.append,
            self.clock.now,
            Brokers(self.queues, self.clock.ticks, self._connect),
            self.clock.sleep,
        )

    async def restart(self) -> None:
        """Kill the process; another one lists what is there."""
        await self.process.close()
        self.process = self._begun()
        for (kind, _, _), obj in list(self.api.objects.items()):
            if kind == str(TASKSOURCES):
                self.process.seen(dict(obj))
        await self.clock.settle()

    async def apply(self, name: str = "s", *, task: Obj | None = None, **spec: Any) -> None:
        """Create or change a source; what is not given is an hourly cron for queue q."""
        key = (str(TASKSOURCES), "ns", name)
        wanted = {"cron": {"schedule": "0 * * * *"}, "task": {"queue": "q", "type": "t", **(task or {})}} | spec
        former = self.api.objects.get(key)
        if former is None:
            stamp = self.clock.now().isoformat().replace("+00:00", "Z")
            metadata = {"namespace": "ns", "name": name, "uid": f"u{next(self._uids)}", "generation": 1}
            obj = {"metadata": metadata | {"creationTimestamp": stamp}, "spec": wanted}
        else:
            obj = copy.deepcopy(former) | {"spec": wanted}
            obj["metadata"]["generation"] += 1
        self.process.seen(self.api.put(TASKSOURCES, obj))
        await self.clock.settle()

    async def delete(self, name: str = "s", *, told: bool = True) -> None:
        del self.api.objects[str(TASKSOURCES), "ns", name]
        if told:
            self.process.deleted(("ns", name))
        await self.clock.settle()

    def status(self, name: str = "s") -> Obj:
        found: Obj = self.api.objects[str(TASKSOURCES), "ns", name].get("status", {})
        return found

    def condition(self, kind: str = "Ready", name: str = "s") -> Obj:
        return next(each for each in self.status(name)["conditions"] if each["type"] == kind)

    def queue(self, *, accepting: bool) -> None:
        conditions = [{"type": "Accepting", "status": "False", "message": "spec.quota.waiting is 5."}]
        self.api.put(
            TASKQUEUES,
            {
                "metadata": {"namespace": "ns", "name": "q"},
                "status": {"accepting": accepting, "conditions": conditions},
            },
        )
        for changed in tuple(self.queues.listeners):
            changed()

    def runs(self, name: str = "s") -> list[str]:
        """The times of the runs that Tasks were made of, as far as they differ from hour to hour."""
        return [each["spec"]["payload"]["scheduledTime"].removesuffix(":00Z")[8:] for each in self.api.tasks(name)]

    def there(self) -> int:
        return sum(kind == str(TASKS) for kind, _, _ in self.api.objects)


def denied(message: str = "denied the request: TaskQueue q takes no new Tasks now") -> ApiError:
    return ApiError(403, "Forbidden", message)
