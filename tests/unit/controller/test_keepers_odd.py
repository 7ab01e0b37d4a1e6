"""Queues and pools that this release cannot read: they say so themselves, and no other is held up."""

from __future__ import annotations

from typing import Any, cast

import pytest

from taskdist.api.nesting import loads
from taskdist.controller.bridge import NotLeading
from taskdist.controller.handlers import build_registry
from taskdist.controller.keepers import Keepers
from taskdist.kube import AGENTPOOLS, Resource

DEEP = loads('{"a":' * 3000 + "1" + "}" * 3000)


class Server:
    """Takes status writes."""

    def __init__(self) -> None:
        self.wrote: dict[tuple[str, str], dict[str, Any]] = {}

    async def patch(self, resource: Resource, name: str, body: Any, namespace: str, *, subresource: str) -> Any:
        assert subresource == "status"
        kind = "pool" if resource is AGENTPOOLS else "queue"
        self.wrote[kind, name] = body["status"]
        return body


class NoFacts:
    async def tell_pool(self, key: Any, version: Any) -> Any:
        raise NotLeading

    tell_queue = tell_pool


def keepers(server: Server) -> Keepers:
    nothing = cast("Any", None)
    return Keepers(cast("Any", server), cast("Any", NoFacts()), nothing, "operators", nothing, nothing, lambda: True)


def obj(spec: dict[str, Any], status: Any = None, **meta: Any) -> dict[str, Any]:
    metadata = {"namespace": "ns", "name": "x", "uid": "u", "resourceVersion": "1", "generation": 4, **meta}
    return {"metadata": metadata, "spec": spec, **({} if status is None else {"status": status})}


FOREIGN = {"type": "Weather", "status": "Perhaps", "since": "yesterday"}


@pytest.mark.parametrize(
    ("kind", "spec", "reason", "field"),
    [
        pytest.param("queue", {"pools": ["p"], "dispatch": "Eager"}, "UnknownValue", "spec.dispatch", id="queue"),
        pytest.param(
            "pool",
            {"template": {"spec": {"containers": [{"name": "agent"}]}}, "slots": "many"},
            "Unreadable",
            "spec.slots",
            id="pool",
        ),
        pytest.param(
            "pool",
            {"template": {"spec": {"containers": [{"name": "agent", "x": DEEP}]}}},
            "InvalidTemplate",
            "spec.template",
            id="deep template",
        ),
    ],
)
async def test_an_object_that_cannot_be_read_is_stalled_with_its_field(
    kind: str, spec: dict[str, Any], reason: str, field: str
) -> None:
    server = Server()
    mine = keepers(server)
    seen = mine.queue_seen if kind == "queue" else mine.pool_seen
    work = mine._queue_work if kind == "queue" else mine._pool_work
    seen(obj(spec, {"conditions": [FOREIGN, {"type": "Ready", "status": "True"}], "scalingReason": "Magic"}))
    await work.idle()
    status = server.wrote[kind, "x"]
    conditions = {each["type"]: each for each in status["conditions"]}
    assert (conditions["Stalled"]["status"], conditions["Ready"]["status"]) == ("True", "False")
    assert conditions["Stalled"]["reason"] == reason
    assert field in conditions["Stalled"]["message"]
    assert conditions["Stalled"]["observedGeneration"] == status["observedGeneration"] == 4
    assert conditions["Weather"] == FOREIGN, "what another release says stays"
    assert "scalingReason" not in status
    server.wrote.clear()
    seen(obj(spec, {**status, "scalingReason": "Magic"}))
    await work.idle()
    assert server.wrote == {}, "it is said once"
    await mine.close()


async def test_a_pool_that_cannot_be_read_exists_all_the_same() -> None:
    server = Server()
    mine = keepers(server)
    mine.pool_seen(obj({"slots": "many"}, name="p"))
    assert mine._exists(("ns", "p"))
    mine.pool_deleted(("ns", "p"))
    assert not mine._exists(("ns", "p"))
    await mine.close()


async def test_kopf_reads_what_is_deep() -> None:
    from kopf._cogs.clients import api, fetching, watching

    from taskdist.kube.kopf_setup import bound_depth

    bound_depth()
    build_registry(keepers(Server()))
    assert vars(fetching)["api"] is vars(watching)["api"] is api, "where kopf reads lists and events"
    read = cast("Any", api).json.loads('{"type":"ADDED","object":' + "[" * 5000 + "]" * 5000 + "}")
    assert read["type"] == "ADDED"
