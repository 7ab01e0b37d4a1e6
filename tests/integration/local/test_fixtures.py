"""What the shared fixtures promise to the other rooms' tests."""

from __future__ import annotations

from taskdist.local.rest import Client


def test_the_projects_kinds_are_served(crds: list[str], cluster: Client, namespace: str) -> None:
    assert crds == [
        "agentpools.taskdist.dev",
        "taskqueues.taskdist.dev",
        "tasks.taskdist.dev",
        "tasksinks.taskdist.dev",
        "tasksources.taskdist.dev",
    ]
    for name in crds:
        plural = name.split(".")[0]
        assert cluster.get(f"/apis/taskdist.dev/v1alpha1/namespaces/{namespace}/{plural}")["items"] == []
