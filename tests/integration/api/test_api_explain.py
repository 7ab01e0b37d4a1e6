"""`kubectl explain` and `kubectl get` show what a user needs: every field described, columns that answer."""

import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from taskdist.kube import ApiError
from taskdist.local.binaries import find
from taskdist.local.rest import Client

pytestmark = pytest.mark.usefixtures("crds")


def kubectl(kubeconfig: Path, *arguments: str) -> str:
    command: list[str | Path] = [find("kubectl"), "--kubeconfig", kubeconfig, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout


def test_the_published_schema_describes_every_field(cluster: Client) -> None:
    schemas = _published(cluster)
    for kind in ("Task", "TaskQueue", "AgentPool"):
        schema = schemas[f"dev.taskdist.v1alpha1.{kind}"]
        assert schema["description"]
        assert min(len(schema["properties"][part]["properties"]) for part in ("spec", "status")) > 5
        assert _bare(schema["properties"]["spec"], "spec") == []
        assert _bare(schema["properties"]["status"], "status") == []


def _published(cluster: Client) -> dict[str, Any]:
    """The API server publishes the schemas of a new kind a moment after it serves the kind, one version at a time."""
    deadline = time.monotonic() + 30
    while True:
        try:
            found: dict[str, Any] = cluster.get("/openapi/v3/apis/taskdist.dev/v1alpha1")["components"]["schemas"]
        except ApiError as error:
            if error.status != 404:
                raise
            found = {}
        if all(f"dev.taskdist.v1alpha1.{kind}" in found for kind in ("Task", "TaskQueue", "AgentPool")):
            return found
        assert time.monotonic() < deadline, f"published are only {sorted(found)}"
        time.sleep(0.05)


def _bare(schema: dict[str, Any], path: str) -> list[str]:
    found = [] if schema.get("description") else [path]
    for name, inner in schema.get("properties", {}).items():
        found += _bare(inner, f"{path}.{name}")
    for inner in schema.get("items", {}).get("properties", {}).items():
        found += _bare(inner[1], f"{path}[].{inner[0]}")
    return found


@pytest.mark.parametrize(
    ("field", "words"),
    [
        ("tasks.taskdist.dev", "A Task is one unit of work"),
        ("tk.spec.payload", "any JSON object of at most 64 KiB"),
        ("tq.spec.reclaim", "When a silent agent's Task goes to another"),
        ("ap.spec.template.spec", "The container named `agent`"),
    ],
)
def test_kubectl_explain(field: str, words: str, kubeconfig: Path) -> None:
    assert words in " ".join(kubectl(kubeconfig, "explain", field).split())


COLUMNS = {
    "tk": "NAME QUEUE PRIORITY PHASE DONE REASON AGENT ATTEMPT AGE",
    "tq": "NAME READY ACCEPTING WAITING LEASED DEADLETTERED POOLS AGE",
    "ts": "NAME READY REASON QUEUE CREATED REJECTED BACKLOG LAST NEXT AGE",
    "ap": "NAME READY DESIRED AGENTS BUSY SLOTS REASON AGE",
}


def test_kubectl_get(kubeconfig: Path, cluster: Client, namespace: str) -> None:
    samples = Path(__file__).parents[3] / "manifests" / "samples"
    kubectl(kubeconfig, "-n", namespace, "apply", "-f", str(samples))
    for short, columns in COLUMNS.items():
        assert kubectl(kubeconfig, "-n", namespace, "get", short).splitlines()[0].split() == columns.split()
    every = kubectl(kubeconfig, "-n", namespace, "get", "taskdist", "-o", "name").split()
    assert {"task.taskdist.dev/hello", "taskqueue.taskdist.dev/analysis", "agentpool.taskdist.dev/analysis"} <= {*every}
