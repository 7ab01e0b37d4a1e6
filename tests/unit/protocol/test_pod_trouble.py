"""What keeps a pod from coming up, by the statuses that kubelet and scheduler write."""

from typing import Any

import pytest

from taskdist.core.model import Trouble
from taskdist.protocol.convert import observed_pod

AGAIN = "container agent ends again and again, last with exit code"


def container(name: str = "agent", *, restarts: int = 0, ready: bool = False, **states: Any) -> dict[str, Any]:
    last = states.pop("last", None)
    made = {"name": name, "ready": ready, "restartCount": restarts, "state": states}
    return made | ({"lastState": {"terminated": last}} if last else {})


def ended(code: int, seconds: int = 3, **more: Any) -> dict[str, Any]:
    minutes, rest = divmod(seconds, 60)
    finished = f"2026-01-01T00:{minutes:02}:{rest:02}Z"
    return {"exitCode": code, "startedAt": "2026-01-01T00:00:00Z", "finishedAt": finished, **more}


def waiting(reason: str, message: str = "") -> dict[str, Any]:
    return {"reason": reason} | ({"message": message} if message else {})


def scheduled(status: str, reason: str = "", message: str = "") -> list[dict[str, Any]]:
    return [{"type": "PodScheduled", "status": status, "reason": reason, "message": message}]


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        pytest.param({}, None, id="nobody has looked at it yet"),
        pytest.param(
            {"conditions": scheduled("False", "Unschedulable", "0/3 nodes are available: 3 Insufficient cpu.")},
            Trouble("Unschedulable", "0/3 nodes are available: 3 Insufficient cpu"),
            id="no node has room",
        ),
        pytest.param(
            {"conditions": scheduled("False", "SchedulingGated", "held by gates")},
            Trouble("SchedulingGated", "held by gates"),
            id="a gate holds it",
        ),
        pytest.param({"conditions": scheduled("True")}, None, id="scheduled"),
        pytest.param(
            {"containerStatuses": [container(waiting=waiting("ContainerCreating"))]}, None, id="it is on its way"
        ),
        pytest.param(
            {"containerStatuses": [container(waiting=waiting("ContainerCreating", "ConfigMap x not found"))]},
            Trouble("ContainerCreating", "container agent: ConfigMap x not found"),
            id="what it waits for is said",
        ),
        pytest.param(
            {"containerStatuses": [container(waiting=waiting("ImagePullBackOff", 'Back-off pulling image "x"'))]},
            Trouble("ImagePullBackOff", 'container agent: Back-off pulling image "x"'),
            id="no image",
        ),
        pytest.param(
            {"containerStatuses": [container(waiting=waiting("ErrImagePull"))]},
            Trouble("ErrImagePull", "container agent waits"),
            id="no image, and no word",
        ),
        pytest.param(
            {"containerStatuses": [container(waiting=waiting("CreateContainerConfigError", 'secret "s" not found'))]},
            Trouble("CreateContainerConfigError", 'container agent: secret "s" not found'),
            id="a Secret is missing",
        ),
        pytest.param(
            {
                "containerStatuses": [
                    container(waiting=waiting("CrashLoopBackOff", "back-off 10s"), restarts=1, last=ended(3))
                ]
            },
            Trouble("CrashLoopBackOff", f"{AGAIN} 3", "agent"),
            id="it crashes, with its exit code",
        ),
        pytest.param(
            {"containerStatuses": [container(running={}, restarts=2, last=ended(137, reason="OOMKilled"))]},
            Trouble("CrashLoopBackOff", f"{AGAIN} 137 (OOMKilled)", "agent"),
            id="it runs for a moment between two crashes",
        ),
        pytest.param(
            {"containerStatuses": [container(terminated=ended(128, message="no such\n file"), restarts=2)]},
            Trouble("CrashLoopBackOff", f"{AGAIN} 128: no such file", "agent"),
            id="it has just crashed again",
        ),
        pytest.param({"containerStatuses": [container(running={}, restarts=1, last=ended(1))]}, None, id="once"),
        pytest.param(
            {"containerStatuses": [container(running={}, restarts=9, last=ended(1, 601))]}, None, id="it ran for long"
        ),
        pytest.param(
            {"containerStatuses": [container(running={}, restarts=9, ready=True, last=ended(1))]},
            None,
            id="it is ready",
        ),
        pytest.param(
            {
                "initContainerStatuses": [
                    container("first", waiting=waiting("CrashLoopBackOff"), restarts=1, last=ended(1))
                ],
                "containerStatuses": [container(waiting=waiting("PodInitializing"))],
            },
            Trouble("CrashLoopBackOff", "container first ends again and again, last with exit code 1", "first"),
            id="what comes before the agent fails",
        ),
        pytest.param(
            {"phase": "Failed", "containerStatuses": [container(waiting=waiting("CrashLoopBackOff"), last=ended(1))]},
            None,
            id="it is over, and will be replaced",
        ),
    ],
)
def test_trouble_of_a_pod(status: dict[str, Any], expected: Trouble | None) -> None:
    pod = {"metadata": {"uid": "u", "namespace": "ns", "name": "a"}, "status": status}
    assert observed_pod(pod).trouble == expected


def test_it_is_cut_where_a_registry_tells_pages() -> None:
    status = {"containerStatuses": [container(waiting=waiting("ErrImagePull", "x" * 5000))]}
    trouble = observed_pod({"metadata": {"uid": "u", "namespace": "ns", "name": "a"}, "status": status}).trouble
    assert trouble is not None
    assert len(trouble.message) == 300
