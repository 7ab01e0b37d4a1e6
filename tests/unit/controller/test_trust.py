"""What the link is told of a pod, from the pod as the API server has it, and whose bundle stands in a namespace."""

from typing import Any, cast

import pytest
import structlog

from taskdist.controller.trust import INSTALLATION_ANNOTATION, BundleMaps, seen_pod
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


class Namespace:
    """One namespace's bundle on a server."""

    def __init__(self) -> None:
        self.bundle: dict[str, Any] | None = None
        self.writes = 0

    async def get(self, *_: Any) -> dict[str, Any]:
        if self.bundle is None:
            raise ApiError(404, "NotFound", "", {"name": "taskdist-ca"})
        return self.bundle

    async def create(self, _: Any, body: dict[str, Any], *__: Any, **___: Any) -> None:
        self.bundle, self.writes = body, self.writes + 1

    async def patch(self, _: Any, name: str, body: dict[str, Any], *__: Any) -> None:
        self.bundle, self.writes = body, self.writes + 1


async def publish(namespace: Namespace, *installations: str) -> list[tuple[str, str]]:
    """Have these publish in turn, each a bundle of its own; return who was told of whom."""
    with structlog.testing.capture_logs() as logs:
        for name in installations:
            await BundleMaps(cast("Any", namespace), lambda: ["ns"], name).publish(name.encode())
    return [(line["this"], line["other"]) for line in logs]


async def test_an_installation_tells_of_another_that_served_the_namespace() -> None:
    namespace = Namespace()
    assert await publish(namespace, "a", "a") == []
    assert namespace.writes == 1, "what stands there is not written again"
    assert await publish(namespace, "b", "b") == [("b", "a")], "once, if the other one is gone"
    assert await publish(namespace, "a", "b", "a") == [("a", "b"), ("b", "a"), ("a", "b")], "again, if it is not"


async def test_a_bundle_of_a_release_that_did_not_say_whose_it_is_gets_the_name() -> None:
    namespace = Namespace()
    namespace.bundle = {"metadata": {}, "data": {"ca.crt": "a"}}
    assert await publish(namespace, "a", "a") == []
    assert namespace.bundle["metadata"]["annotations"] == {INSTALLATION_ANNOTATION: "a"}
    assert namespace.writes == 1
