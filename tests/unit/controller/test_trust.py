"""What the link is told of a pod, from the pod as the API server has it, and whose bundle stands in a namespace."""

from collections.abc import Callable
from typing import Any, cast

import pytest

from taskdist.controller.trust import INSTALLATION_ANNOTATION, BundleMaps, Contended, OtherInstallation, seen_pod
from taskdist.kube import ApiError

RUNNING: dict[str, Any] = {"running": {"startedAt": "2026-01-01T00:00:00Z"}}
ENDED: dict[str, Any] = {"terminated": {"exitCode": 0, "finishedAt": "2026-01-01T00:00:00Z"}}


@pytest.mark.parametrize(
    ("phase", "state", "deleted", "expected"),
    [
        pytest.param("Running", RUNNING, False, (False, False), id="alive"),
        pytest.param("Running", RUNNING, True, (True, False), id="in its grace"),
        pytest.param("Failed", RUNNING, False, (False, False), id="given up with its node"),
        pytest.param("Failed", ENDED, False, (False, True), id="ended"),
        pytest.param("Succeeded", ENDED, True, (True, True), id="ended while it was deleted"),
    ],
)
def test_a_pod_has_ended_when_its_node_has_said_so(
    phase: str, state: dict[str, Any], deleted: bool, expected: tuple[bool, bool]
) -> None:
    pod = {
        "metadata": {
            "uid": "u",
            "namespace": "ns",
            "name": "p-0",
            "ownerReferences": [{"kind": "AgentPool", "name": "p", "uid": "pool", "controller": True}],
            **({"deletionTimestamp": "2026-01-01T00:00:00Z"} if deleted else {}),
        },
        "spec": {"nodeName": "n", "containers": [{"name": "agent"}]},
        "status": {"phase": phase, "containerStatuses": [{"name": "agent", "restartCount": 0, "state": state}]},
    }
    owner = seen_pod(pod).owner
    assert (owner.pool, owner.pool_uid) == ("p", "pool")
    assert (owner.deleting, owner.ended) == expected


class Server:
    """The bundles of namespaces. `before` comes between a look at one and the write that follows."""

    def __init__(self, **bundles: dict[str, Any]) -> None:
        self.bundles = bundles
        self.writes: list[str] = []
        self.before: Callable[[str], object] = lambda namespace: None
        self._version = 0

    async def get(self, _: Any, name: str, namespace: str) -> dict[str, Any]:
        try:
            return self.bundles[namespace]
        except KeyError:
            raise ApiError(404, "NotFound", "", {"name": name}) from None

    async def create(self, _: Any, body: dict[str, Any], namespace: str, **__: Any) -> None:
        self.before(namespace)
        if namespace in self.bundles:
            raise ApiError(409, "AlreadyExists")
        self.put(namespace, body)

    async def patch(self, _: Any, name: str, body: dict[str, Any], namespace: str) -> None:
        self.before(namespace)
        if body["metadata"]["resourceVersion"] != self.bundles[namespace]["metadata"]["resourceVersion"]:
            raise ApiError(409, "Conflict")
        self.put(namespace, body)

    def put(self, namespace: str, body: dict[str, Any]) -> None:
        self._version += 1
        metadata = {**body["metadata"], "resourceVersion": f"v{self._version}"}
        self.bundles[namespace] = {**body, "metadata": metadata}
        self.writes.append(namespace)


def bundle(text: str, owner: str = "") -> dict[str, Any]:
    said = {"annotations": {INSTALLATION_ANNOTATION: owner}} if owner else {}
    return {"metadata": {"resourceVersion": "v0", **said}, "data": {"ca.crt": text}}


def of(server: Server, namespace: str = "ns") -> tuple[str, str]:
    """Whose bundle stands there, and what it is."""
    found = server.bundles[namespace]
    return found["metadata"]["annotations"][INSTALLATION_ANNOTATION], found["data"]["ca.crt"]


def maps(server: Server, *namespaces: str) -> BundleMaps:
    return BundleMaps(cast("Any", server), lambda: namespaces or ("ns",), "a")


async def test_a_namespace_gets_the_bundle_once() -> None:
    server = Server()
    for text in (b"one", b"one", b"two", b"two"):
        assert await maps(server).publish(text)
    assert of(server) == ("a", "two")
    assert len(server.writes) == 2, "what stands there is not written again"


async def test_a_bundle_of_a_release_that_did_not_say_whose_it_is_gets_the_name() -> None:
    server = Server(ns=bundle("one"))
    for _ in range(2):
        await maps(server).publish(b"one")
    assert of(server) == ("a", "one")
    assert len(server.writes) == 1


async def test_another_installation_s_bundle_is_left_as_it_is() -> None:
    server = Server(b=bundle("theirs", "b"))
    assert await maps(server, "a", "b", "c").publish(b"ours")
    assert (of(server, "a"), of(server, "b"), of(server, "c")) == (("a", "ours"), ("b", "theirs"), ("a", "ours"))
    with pytest.raises(OtherInstallation, match="namespace b is served by another installation, b"):
        await maps(server).publish_in("b", b"ours")


@pytest.mark.parametrize("there", [pytest.param(False, id="made"), pytest.param(True, id="changed")])
async def test_another_installation_that_was_a_moment_quicker_is_seen(there: bool) -> None:
    server = Server(**({"ns": bundle("old", "a")} if there else {}))

    def theirs(namespace: str) -> None:
        server.before = lambda namespace: None
        server.put(namespace, bundle("theirs", "b"))

    server.before = theirs
    with pytest.raises(OtherInstallation):
        await maps(server).publish_in("ns", b"ours")
    assert of(server) == ("b", "theirs")


async def test_a_namespace_whose_bundle_keeps_changing_costs_the_others_nothing() -> None:
    server = Server(ns=bundle("old", "a"))
    server.before = lambda namespace: server.put("ns", bundle("old", "a")) if namespace == "ns" else None
    with pytest.raises(Contended, match="in namespace ns keeps changing"):
        await maps(server, "ns", "zoo").publish(b"ours")
    assert of(server, "zoo") == ("a", "ours")
