"""What makes a keeper look again: changes of others, and not the echo of its own writes."""

from __future__ import annotations

from typing import Any, cast

import pytest

from taskdist.api import BreakerState, Reason
from taskdist.controller.bridge import PoolReport
from taskdist.controller.keepers import Keepers
from taskdist.controller.pods import LinkInfo
from taskdist.controller.status import PoolFacts, QueueFacts, ToldCause
from taskdist.core.agents.performance import PoolPerformance, TypePerformance
from taskdist.core.views import BreakerView

HELD = ToldCause(Reason.QUEUE_PAUSED, "spec.paused", "it is paused")
FACTS = PoolFacts(
    1,
    Reason.QUEUED,
    "work waits",
    1,
    4,
    2,
    breakers=(BreakerView("uid", "p-1", BreakerState.OPEN, 1000.0, 1060.0),),
    performance=PoolPerformance(1.0, (TypePerformance("echo", 3, 0.12345, 0.2, 0.98765),)),
    bottleneck=HELD,
)


class Facts:
    """Answers with figures that differ at each question, as those of a busy queue do."""

    def __init__(self) -> None:
        self.asked = 0

    async def tell_pool(self, key: Any, version: Any) -> PoolReport:
        self.asked += 1
        return PoolReport(PoolFacts(**{**_fields(FACTS), "busy_slots": self.asked, "desired": 0}), ())

    async def tell_queue(self, key: Any, version: Any) -> QueueFacts:
        self.asked += 1
        return QueueFacts(self.asked, 1, 2, "full", HELD)


def _fields(facts: PoolFacts) -> dict[str, Any]:
    return {name: getattr(facts, name) for name in PoolFacts.__slots__}


class Server:
    """Takes status and tells of each write, as a watch does."""

    def __init__(self) -> None:
        self.keepers: Keepers | None = None
        self.objects: dict[str, dict[str, Any]] = {}
        self.writes = 0

    def apply(self, kind: str, **spec: Any) -> None:
        metadata = {"namespace": "ns", "name": kind, "uid": f"u-{kind}", "generation": 1, "resourceVersion": "1"}
        self.objects[kind] = {"metadata": metadata, "spec": spec}
        self.tell(kind)

    def tell(self, kind: str) -> None:
        assert self.keepers is not None
        (self.keepers.pool_seen if kind == "pool" else self.keepers.queue_seen)(dict(self.objects[kind]))

    async def patch(self, resource: Any, name: str, body: dict[str, Any], *_: Any, **__: Any) -> dict[str, Any]:
        self.writes += 1
        self.objects[name]["metadata"]["resourceVersion"] = str(1 + self.writes)
        status = {**self.objects[name].get("status", {}), **body["status"]}
        self.objects[name]["status"] = {k: v for k, v in status.items() if v is not None}
        self.tell(name)
        return self.objects[name]

    async def create(self, *_: Any, **__: Any) -> dict[str, Any]:
        return {}


@pytest.mark.parametrize(
    ("kind", "spec"),
    [
        pytest.param("queue", {"pools": ["pool"]}, id="a queue"),
        pytest.param("pool", {"template": {"spec": {"containers": [{"name": "a", "image": "i"}]}}}, id="a pool"),
    ],
)
async def test_the_echo_of_an_own_write_is_no_reason_for_another(kind: str, spec: dict[str, Any]) -> None:
    server, facts = Server(), Facts()

    async def publish(namespace: str) -> None: ...

    keepers = server.keepers = Keepers(
        cast("Any", server),
        cast("Any", facts),
        LinkInfo("link:1", "link", "audience"),
        "system",
        publish,
        lambda *_: None,
        lambda: True,
    )
    server.apply(kind, **spec)
    work = keepers._pool_work if kind == "pool" else keepers._queue_work
    await work.idle()
    assert (facts.asked, server.writes) == (1, 1)
    # The dispatch loop asks for another look.
    (keepers.look_at_pool if kind == "pool" else keepers.look_at_queue)(("ns", kind))
    await work.idle()
    assert (facts.asked, server.writes) == (2, 2)
    # A new spec is news.
    server.objects[kind]["metadata"] |= {"generation": 2, "resourceVersion": "9"}
    server.tell(kind)
    await work.idle()
    assert facts.asked == 3
    await keepers.close()


async def test_pools_and_queues_of_another_installation_are_left_to_it() -> None:
    server, facts = Server(), Facts()
    nothing = cast("Any", None)
    keepers = server.keepers = Keepers(
        cast("Any", server),
        cast("Any", facts),
        nothing,
        "system",
        nothing,
        nothing,
        lambda: True,
        0,
        lambda name: False,
    )
    server.apply("queue", pools=["pool"])
    server.apply("pool", template="odd")
    server.apply("pool", template={"spec": {"containers": [{"name": "a", "image": "i"}]}})
    keepers.look_at_pool(("ns", "pool"))
    keepers.look_at_queue(("ns", "queue"))
    keepers.pool_deleted(("ns", "pool"))
    keepers.queue_deleted(("ns", "queue"))
    assert not keepers._pool_work._runs
    assert not keepers._queue_work._runs
    await keepers.close()
    assert (facts.asked, server.writes) == (0, 0)
