"""What the link is told of a pod, from the pod as the API server has it."""

from typing import Any

import pytest

from taskdist.controller.trust import seen_pod

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
