"""A namespace for end-to-end tests: applies resources, waits for what should become of them, and looks at processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from patience import PATIENCE, until
from taskdist.local.rest import MERGE_PATCH, Client
from taskdist.local.stack import OperatorProcess, Stack

Object = dict[str, Any]

GROUP = "/apis/taskdist.dev/v1alpha1"
WORKER = Path(__file__).with_name("worker.py")
SCRIPT = str(Path(sys.executable).parent / "taskdist")
TERMINAL = ("Succeeded", "Failed", "Cancelled")


def container(command: Iterable[str] = (SCRIPT, "agent", f"{WORKER}:agent"), **more: Any) -> Object:
    return {"name": "agent", "image": "taskdist:local", "command": list(command), **more}


class Room:
    """One namespace."""

    def __init__(self, stack: Stack, client: Client, namespace: str) -> None:
        self.stack = stack
        self.client = client
        self.namespace = namespace

    # -- resources -------------------------------------------------------------------------------------------------

    def path(self, plural: str, name: str = "") -> str:
        base = f"/api/v1/namespaces/{self.namespace}" if plural in CORE else f"{GROUP}/namespaces/{self.namespace}"
        return f"{base}/{plural}/{name}" if name else f"{base}/{plural}"

    def make(self, kind: str, name: str, spec: Object, labels: dict[str, str] | None = None) -> Object:
        metadata = {"name": name, **({"labels": labels} if labels else {})}
        body = {"apiVersion": "taskdist.dev/v1alpha1", "kind": kind, "metadata": metadata, "spec": spec}
        made: Object = self.client.create(self.path(f"{kind.lower()}s"), body)
        return made

    def queue(self, name: str = "q", **spec: Any) -> None:
        self.make("TaskQueue", name, {"pools": ["p"], "retry": {"initialSeconds": 0.1}, **spec})

    def pool(self, name: str = "p", *, ready: int | None = None, template: Object | None = None, **spec: Any) -> None:
        """Create a pool; `ready`: and wait for so many agents."""
        pod = {"containers": [container()], "terminationGracePeriodSeconds": 5}
        self.make("AgentPool", name, {"slots": 2, "template": template or {"spec": pod}, **spec})
        if ready is not None:
            self.ready(ready, name)

    def ready(self, count: int, name: str = "p") -> None:
        def there() -> bool:
            return self.status("agentpools", name).get("readyReplicas") == count

        until(there, f"{count} agents of pool {name} are ready")

    def task(
        self,
        name: str,
        type: str = "echo",
        payload: Object | None = None,
        labels: dict[str, str] | None = None,
        **spec: Any,
    ) -> Object:
        given = {} if "payloadRef" in spec else {"payload": payload or {}}
        return self.make("Task", name, {"queue": "q", "type": type, **given, **spec}, labels)

    def get(self, plural: str, name: str) -> Object:
        found: Object = self.client.get(self.path(plural, name))
        return found

    def items(self, plural: str, **query: str) -> list[Object]:
        found: list[Object] = self.client.get(self.path(plural), **query)["items"]
        return found

    def status(self, plural: str, name: str) -> Object:
        return self.get(plural, name).get("status") or {}

    def patch(self, plural: str, name: str, **spec: Any) -> None:
        self.client.request("PATCH", self.path(plural, name), {"spec": spec}, content_type=MERGE_PATCH)

    def delete(self, plural: str, name: str) -> None:
        self.client.delete(self.path(plural, name))

    def condition(self, plural: str, name: str, kind: str) -> Object:
        conditions = self.status(plural, name).get("conditions") or []
        return next((c for c in conditions if c["type"] == kind), {})

    # -- what becomes of them --------------------------------------------------------------------------------------

    def phase(self, name: str) -> str:
        return str(self.status("tasks", name).get("phase"))

    def ended(self, *names: str, timeout: float = PATIENCE) -> list[Object]:
        """Wait until these Tasks (all, if none is named) have ended; return their statuses."""

        def all_ended() -> list[Object]:
            tasks = [t for t in self.items("tasks") if not names or t["metadata"]["name"] in names]
            statuses = [t.get("status") or {} for t in tasks]
            return statuses if statuses and all(s.get("phase") in TERMINAL for s in statuses) else []

        try:
            return until(all_ended, f"Tasks {' '.join(names) or '(all)'} ended", timeout)
        except AssertionError as error:
            left = [(t["metadata"]["name"], t.get("status") or {}) for t in self.items("tasks")]
            raise AssertionError(f"{error}; {[x for x in left if x[1].get('phase') not in TERMINAL][:3]}") from None

    def in_phase(self, name: str, phase: str, timeout: float = PATIENCE) -> Object:
        def there() -> Object:
            status = self.status("tasks", name)
            return status if status.get("phase") == phase else {}

        return until(there, f"Task {name} is {phase}", timeout)

    def pods(self, pool: str = "p") -> list[Object]:
        return [p for p in self.items("pods", labelSelector=f"taskdist.dev/pool={pool}") if _stays(p)]

    def events(self, kind: str, name: str) -> list[Object]:
        path = f"/apis/events.k8s.io/v1/namespaces/{self.namespace}/events"
        found = self.client.get(path)["items"]
        return [e for e in found if (e["regarding"]["kind"], e["regarding"]["name"]) == (kind, name)]

    def event(self, kind: str, name: str, reason: str) -> Object:
        """Wait for an Event and return it."""

        def there() -> Object:
            return next((e for e in self.events(kind, name) if e["reason"] == reason), {})

        return until(there, f"an Event {reason} on {kind} {name}")

    # -- commands --------------------------------------------------------------------------------------------------

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        return self.stack.kubectl("-n", self.namespace, *arguments, stdin=stdin)

    def taskdist(self, *arguments: str) -> str:
        env = {**os.environ, "KUBECONFIG": str(self.stack.kubeconfig), "NO_COLOR": "1", "COLUMNS": "200"}
        command = [SCRIPT, *arguments, "-n", self.namespace]
        return subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=True).stdout

    # -- processes -------------------------------------------------------------------------------------------------

    def processes(self, pod: Object) -> list[int]:
        """The processes of a pod, its agent's supervisor first."""
        sign = f"TASKDIST_HEALTH_HOST={pod['status']['podIP']}\0".encode()
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                try:
                    if sign in (entry / "environ").read_bytes():
                        found.append(
                            (int((entry / "stat").read_text().rsplit(") ", 1)[1].split()[19]), int(entry.name))
                        )
                except OSError:
                    continue  # it ended meanwhile
        return [pid for _, pid in sorted(found)]

    def pod_of(self, task: str) -> Object:
        return self.get("pods", self.status("tasks", task)["agent"])


CORE = ("pods", "events", "resourcequotas", "configmaps", "serviceaccounts")


def _stays(pod: Object) -> bool:
    return "deletionTimestamp" not in pod["metadata"]


def beats(file: Path) -> dict[tuple[str, int], tuple[float, float]]:
    """By Task and attempt: when the first and the last sign of life was given."""
    spans: dict[tuple[str, int], tuple[float, float]] = {}
    for line in file.read_text().splitlines():
        if line.endswith("]"):  # a killed process may leave half a line
            task, attempt, at = json.loads(line)
            first, _ = spans.get((task, attempt), (at, at))
            spans[task, attempt] = (first, at)
    return spans


def overlaps(spans: dict[tuple[str, int], tuple[float, float]]) -> list[str]:
    """Pairs of attempts of one Task that ran at the same time. It wants a Task with two: one overlaps with nothing."""
    assert len(spans) > len({task for task, _ in spans}), f"no Task ran more than once: {sorted(spans)}"
    return [
        f"{a} and {b}"
        for a in spans
        for b in spans
        if a[0] == b[0] and a[1] < b[1] and spans[a][1] >= spans[b][0] and spans[b][1] >= spans[a][0]
    ]


def metrics(operator: OperatorProcess) -> dict[str, float]:
    """All samples, by name and labels as they are written."""
    with urllib.request.urlopen(f"http://127.0.0.1:{operator.metrics_port}/metrics", timeout=5) as answer:
        lines = answer.read().decode().splitlines()
    return {name: float(value) for name, _, value in (li.rpartition(" ") for li in lines if li and li[0] != "#")}
