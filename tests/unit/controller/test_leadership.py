"""A leadership as one scope: whenever and however it ends, what it opened is closed, and the next one finds it so."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from types import SimpleNamespace
from typing import Any, cast

import kopf
import pytest

from taskdist.controller import leadership as module
from taskdist.controller.asides import Asides
from taskdist.controller.keepers import Keepers
from taskdist.controller.leadership import Leadership, Parts
from taskdist.kube import AGENTPOOLS, PODS, TASKQUEUES, TASKS, Resource, Unreachable, WatchEvent

OPEN = {"certificates", "ownership", "effects", "dispatch", "link", "retention", "kopf"}


class Nothing(tuple[Any, ...]):
    """An empty view."""

    def readable(self) -> tuple[()]:
        return ()


class World:
    """Stands for everything a leadership works with, and notes what of it is open."""

    def __init__(self) -> None:
        self.open: set[str] = set()
        self.log: list[str] = []
        self.failures: list[str] = []
        self.loop = asyncio.get_running_loop()
        self.changed = asyncio.Event()
        self.unreachable = 0
        self.hanging: tuple[Resource, ...] = ()
        self.by_name: set[Resource] = set()
        self.listed = asyncio.Event()
        self.listing = asyncio.Event()
        self.listing.set()
        self.listening = asyncio.Event()
        self.listening.set()
        self.writer: object = None
        self.stopping = 0

    def note(self, what: str) -> None:
        self.log.append(what)
        self.loop.call_soon_threadsafe(self.changed.set)

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def turn(self, part: str, on: bool) -> None:
        assert (part in self.open) is not on or not on, f"{part} is open already"
        (self.open.add if on else self.open.discard)(part)
        self.note(f"{'+' if on else '-'}{part}")

    # -- the parts -------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def watch(self, resource: Resource, *_: Any, **asked: Any) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """A list as a stream."""
        self.listed.set()
        if asked["metadata_only"]:
            self.by_name.add(resource)
        self.note(f"list {resource.plural}")
        if resource not in self.hanging:
            await self.listing.wait()
        else:
            await asyncio.Event().wait()
        if self.unreachable:
            self.unreachable -= 1
            raise Unreachable("refused")
        yield self.nothing()

    async def nothing(self) -> AsyncIterator[WatchEvent]:
        end = {"resourceVersion": "1", "annotations": {"k8s.io/initial-events-end": "true"}}
        yield WatchEvent("BOOKMARK", {"metadata": end})

    async def forever(self, part: str) -> None:
        self.turn(part, True)
        try:
            await asyncio.Event().wait()
        finally:
            self.turn(part, False)

    def write_with(self, writer: object) -> None:
        if (writer is None) != (self.writer is None):
            self.turn("effects", writer is not None)
        self.writer = writer

    def lead(self, *_: Any) -> None:
        self.turn("dispatch", True)

    def stop_leading(self) -> None:
        self.stopping += 1

    async def forget(self) -> None:
        await asyncio.sleep(0)
        self.turn("dispatch", False)

    async def refresh(self) -> float:
        return 1.0

    async def open_keepers(self) -> tuple[Keepers, Callable[[], Awaitable[None]]]:
        self.turn("kopf", True)
        keepers = Keepers.__new__(Keepers)
        keepers.end = keepers.cancel = lambda: None  # type: ignore[method-assign]

        async def close() -> None:
            self.turn("kopf", False)

        return keepers, close

    def parts(self) -> Parts:
        def view(resource: Resource) -> Any:
            return SimpleNamespace(resource=resource, store=Nothing(), apply_own=None, apply_list=lambda *_: None)

        link = SimpleNamespace(admit=lambda: self.turn("link", True), turn_away=lambda why: self.turn("link", False))
        certificates = SimpleNamespace(present=False, refresh=self.refresh, run=lambda: self.forever("certificates"))
        return Parts(
            settings=cast(Any, SimpleNamespace(write_concurrency=1, watch_namespaces=())),
            client=cast(Any, SimpleNamespace(watch=self.watch)),
            queues=view(TASKQUEUES),
            pools=view(AGENTPOOLS),
            tasks=view(TASKS),
            pods=view(PODS),
            dispatcher=cast(Any, self),
            effects=cast(Any, self),
            link=cast(Any, link),
            listening=self.listening,
            certificates=cast(Any, certificates),
            reaper=cast(Any, SimpleNamespace(run=lambda: self.forever("retention"))),
            open_keepers=self.open_keepers,
            asides=Asides(lambda subject, reason, message, action, warning: None, lambda: True),
            ownership=cast(
                Any, SimpleNamespace(begin=lambda: self.note("whose"), run=lambda: self.forever("ownership"))
            ),
        )

    def leadership(self, epoch: int = 1) -> Leadership:
        return Leadership(epoch, self.parts(), lambda: "somebody else leads", self.failed)

    def failed(self, part: str, error: BaseException) -> None:
        self.failures.append(f"{part}: {error}")
        self.changed.set()


@pytest.fixture(autouse=True)
def kopf_idles(monkeypatch: pytest.MonkeyPatch) -> None:
    async def idle(stop_flag: threading.Event, **_: Any) -> None:
        await asyncio.to_thread(stop_flag.wait, 30)

    monkeypatch.setattr(kopf, "operator", idle)
    monkeypatch.setattr(module, "AGAIN_SECONDS", 0.0)


async def test_what_it_opened_is_closed_with_it() -> None:
    world = World()
    led = world.leadership().begin(None)
    await world.until(lambda: world.open == OPEN)
    led.end()
    led.end()
    assert world.stopping, "nothing is decided from that moment on"
    await asyncio.wait_for(led.quiet(), 10)
    assert not world.open - {"kopf"}, "and the Lease may be let go"
    await asyncio.wait_for(led.closed(), 10)
    assert world.open == set()
    assert world.failures == []


async def test_the_next_one_of_the_process_begins_when_the_former_is_closed() -> None:
    world = World()
    former = world.leadership(1).begin(None)
    await world.until(lambda: world.open == OPEN)
    # Its end was noticed late: the election has moved on, and a new leadership begins at once.
    former.end()
    led = world.leadership(2).begin(former)
    await world.until(lambda: world.log.count("+kopf") == 2)
    await world.until(lambda: world.open == OPEN)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert world.open == set()
    assert world.failures == []


async def test_one_that_ends_while_it_takes_over_opens_nothing_more() -> None:
    world = World()
    world.listing.clear()
    led = world.leadership().begin(None)
    await asyncio.wait_for(world.listed.wait(), 10)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert world.open == set()
    assert "+dispatch" not in world.log
    assert world.failures == []


async def test_one_that_is_over_before_it_began_opens_nothing() -> None:
    world = World()
    led = world.leadership()
    led.end()
    led.begin(None)
    await asyncio.wait_for(led.closed(), 10)
    assert world.log == []


async def test_what_is_open_is_closed_also_where_agents_cannot_dial_yet() -> None:
    world = World()
    world.listening.clear()
    led = world.leadership().begin(None)
    await world.until(lambda: "dispatch" in world.open)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert world.open == set()
    assert "+link" not in world.log


async def test_an_api_server_that_does_not_answer_is_asked_again() -> None:
    world = World()
    world.unreachable = 3
    led = world.leadership().begin(None)
    await world.until(lambda: world.open == OPEN)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert world.failures == []


async def test_queues_and_pools_that_cannot_be_listed_hold_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DECLARED_SECONDS", 0.01)
    world = World()
    world.hanging = (TASKQUEUES, AGENTPOOLS)
    led = world.leadership().begin(None)
    await world.until(lambda: world.open == OPEN)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert world.failures == []


@pytest.mark.parametrize("kind", [TASKS, PODS], ids=["Tasks", "pods"])
async def test_without_what_runs_where_nobody_leads(kind: Resource) -> None:
    world = World()
    world.hanging = (kind,)
    led = world.leadership().begin(None)
    await world.until(lambda: f"list {kind.plural}" in world.log)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert "+dispatch" not in world.log


async def test_pods_are_listed_when_the_tasks_have_been() -> None:
    world = World()
    led = world.leadership().begin(None)
    await world.until(lambda: world.open == OPEN)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert world.log.index("list tasks") < world.log.index("list pods")


async def test_tasks_are_many_and_listed_by_name() -> None:
    world = World()
    led = world.leadership().begin(None)
    await world.until(lambda: world.open == OPEN)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert world.by_name == {TASKS}


async def test_whose_the_namespaces_are_is_settled_before_anything_is_decided() -> None:
    world = World()
    led = world.leadership().begin(None)
    await world.until(lambda: world.open == OPEN)
    led.end()
    await asyncio.wait_for(led.closed(), 10)
    assert world.log.index("list pods") < world.log.index("whose") < world.log.index("+dispatch")


async def test_a_takeover_that_fails_closes_what_it_opened_and_ends_the_process() -> None:
    world = World()
    world.listening.set()
    parts = world.parts()

    def broken() -> None:
        raise LookupError("no link")

    parts.link.admit = broken  # type: ignore[method-assign]
    led = Leadership(1, parts, lambda: "", world.failed).begin(None)
    await asyncio.wait_for(led.closed(), 10)
    assert world.failures == ["taking over: no link"]
    assert world.open == set()


async def test_a_part_that_fails_is_told_by_its_name() -> None:
    world = World()
    parts = world.parts()

    async def broken() -> None:
        raise LookupError("no Tasks to delete")

    parts.reaper.run = broken  # type: ignore[method-assign]
    led = Leadership(1, parts, lambda: "", world.failed).begin(None)
    await world.until(lambda: bool(world.failures))
    assert world.failures == ["retention: no Tasks to delete"]
    led.end()
    await asyncio.wait_for(led.closed(), 10)
