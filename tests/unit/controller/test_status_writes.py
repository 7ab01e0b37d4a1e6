"""Status of pools and queues: written on the version that was observed, while leading, and mended if overwritten."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, cast

import pytest

from taskdist.common.backoff import Backoff
from taskdist.controller import keepers
from taskdist.controller.bridge import PoolView
from taskdist.controller.pods import LinkInfo
from taskdist.controller.status import PoolFacts, QueueFacts
from taskdist.core.model import Key
from taskdist.kube import ApiError

KEY = ("ns", "it")
SPECS: dict[str, dict[str, Any]] = {
    "queue": {"pools": ["p"]},
    "pool": {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}},
}
# What a stranger might write over it, by kind.
FALSE: dict[str, dict[str, Any]] = {"queue": {"accepting": False, "waiting": 9}, "pool": {"readyReplicas": 9}}


class Facts:
    """What the dispatch loop says: the same until a test changes it."""

    number = 0

    async def tell_pool(self, key: Key, version: Any) -> PoolView:
        return PoolView(PoolFacts(ready=self.number), ())

    async def tell_queue(self, key: Key, version: Any) -> QueueFacts:
        return QueueFacts(waiting=self.number)


class Server:
    """One object with its version, and a watch that tells when it is asked to."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.leads = True
        self.writes: list[dict[str, Any]] = []
        metadata = {"namespace": "ns", "name": "it", "uid": "u", "generation": 1}
        self.object: dict[str, Any] = {"metadata": metadata, "spec": SPECS[kind], "status": {}}
        self.version = 7
        self.facts = Facts()
        self.before_patch: Callable[[], None] = lambda: None
        self.keepers = keepers.Keepers(
            cast("Any", self),
            cast("Any", self.facts),
            LinkInfo("link:1", "link", "audience"),
            "system",
            self._publish,
            lambda *_: None,
            self._may_act,
        )
        self.asked = asyncio.Event()

    def _may_act(self) -> bool:
        self.asked.set()
        return self.leads

    async def _publish(self, namespace: str) -> None: ...

    @property
    def now(self) -> dict[str, Any]:
        return {**self.object, "metadata": {**self.object["metadata"], "resourceVersion": str(self.version)}}

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.object["status"])

    def overwrite(self, status: dict[str, Any]) -> None:
        self.version += 1
        self.object = {**self.object, "status": {**self.status, **status}}

    def tell(self) -> None:
        (self.keepers.pool_seen if self.kind == "pool" else self.keepers.queue_seen)(self.now)

    async def settle(self) -> None:
        work = self.keepers._pool_work if self.kind == "pool" else self.keepers._queue_work
        await work.idle()

    async def patch(self, resource: Any, name: str, body: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        self.before_patch()
        self.writes.append(body["metadata"])
        if body["metadata"] != {"uid": "u", "resourceVersion": str(self.version)}:
            raise ApiError(409, "Conflict", "the object has been modified")
        self.overwrite({k: v for k, v in body["status"].items() if v is not None})
        return self.now

    async def get(self, *_: Any, **__: Any) -> dict[str, Any]:
        return self.now

    async def create(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


@pytest.fixture(params=["queue", "pool"])
async def server(request: pytest.FixtureRequest) -> Any:
    made = Server(request.param)
    made.tell()
    await made.settle()
    yield made
    await made.keepers.close()


async def test_it_is_written_on_the_version_that_was_observed_and_once(server: Server) -> None:
    assert server.writes == [{"uid": "u", "resourceVersion": "7"}]
    server.tell()
    await server.settle()
    assert len(server.writes) == 1, "its echo says nothing new"


async def test_what_another_wrote_over_it_is_mended(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keepers, "MENDING", Backoff(first=0.0, most=0.0))
    right = server.status
    for _ in range(3):
        server.overwrite(FALSE[server.kind])
        server.tell()
        await server.settle()
        assert server.status == right


async def test_two_that_write_over_each_other_do_so_with_growing_pauses(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    monkeypatch.setattr(
        asyncio.get_running_loop(), "call_later", lambda pause, look, key: pauses.append(pause), raising=False
    )
    for _ in range(10):
        server.overwrite(FALSE[server.kind])
        server.tell()
        await server.settle()
    assert len(server.writes) == 2, "the first is mended at once"
    assert pauses == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    # A day of it: two to the number of times is no float any more.
    for key in server.keepers._overwritten:
        server.keepers._overwritten[key] = (1500, time.monotonic())
    server.overwrite(FALSE[server.kind])
    server.tell()
    await server.settle()
    assert pauses[9:] == [60.0]


async def test_a_label_that_is_set_while_status_is_written_does_not_keep_it_from_being_written(server: Server) -> None:
    def label() -> None:
        server.before_patch = lambda: None
        server.version += 1
        server.tell()

    server.before_patch = label
    server.facts.number = 3
    (server.keepers.look_at_pool if server.kind == "pool" else server.keepers.look_at_queue)(KEY)
    await server.settle()
    assert server.status["readyReplicas" if server.kind == "pool" else "waiting"] == 3


async def test_a_conflict_is_followed_by_a_write_on_what_is_there(server: Server) -> None:
    right = server.status
    server.overwrite(FALSE[server.kind])
    server.overwrite({})  # and the watch is late
    look = server.keepers.look_at_pool if server.kind == "pool" else server.keepers.look_at_queue
    server.keepers._written.clear()
    known = server.keepers._pools if server.kind == "pool" else server.keepers._queues
    cast("Any", known[KEY]).status = type(known[KEY].status)()
    look(KEY)
    await server.settle()
    assert server.status == right
    assert [int(each["resourceVersion"]) for each in server.writes] == [7, 8, 10]


async def test_nothing_is_written_while_leadership_is_not_sure(server: Server) -> None:
    right = server.status
    server.leads = False
    server.asked.clear()
    server.overwrite(FALSE[server.kind])
    server.tell()
    await asyncio.wait_for(server.asked.wait(), 5)
    assert len(server.writes) == 1
    server.leads = True
    await server.settle()
    assert server.status == right
