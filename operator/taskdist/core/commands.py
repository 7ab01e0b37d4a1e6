"""The commands that would unblock a Task, ready to be pasted into a shell.

Owns how kubectl and taskdist are called for what explanations advise. Each command changes one thing, by names and
numbers that are known here. There is none where only time or new code helps, nor where a person has to know more: what
skills an agent really has, what a budget really allows, which queue a pool was meant to serve. Runs nothing.
"""

import json
from shlex import join
from typing import Any

from taskdist.api import GROUP, POOL_LABEL, Priority
from taskdist.core.model import TOP, Budget, Key, Pool, Task


def taskdist(verb: str, task: Task, name: str | None = None) -> str:
    """A taskdist command on the Task, or on another one of its namespace."""
    return join(["taskdist", verb, name or task.name, "-n", task.namespace])


def patch(kind: str, key: Key, spec: dict[str, Any]) -> str:
    """Set fields of an object's spec."""
    namespace, name = key
    body = json.dumps({"spec": spec}, separators=(",", ":"))
    return join(["kubectl", "patch", f"{kind}.{GROUP}", name, "-n", namespace, "--type=merge", "-p", body])


def patch_task(task: Task, **fields: Any) -> str:
    return patch("tasks", (task.namespace, task.name), fields)


def patch_queue(key: Key, **fields: Any) -> str:
    return patch("taskqueues", key, fields)


def patch_pool(key: Key, **fields: Any) -> str:
    return patch("agentpools", key, fields)


def nested(path: str, value: Any) -> dict[str, Any]:
    """`a.b.c` and a value as {a: {b: {c: value}}}."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return dict(value)


def budget(each: Budget) -> dict[str, Any]:
    """A budget as a queue's spec says it."""
    if each.rate is not None:
        return {"name": each.name, "kind": "Rate", "perSecond": each.rate.per_second, "burst": each.rate.burst}
    return {"name": each.name, "kind": "Concurrent", "limit": each.limit}


def pods(pool: Key) -> str:
    namespace, name = pool
    return join(["kubectl", "get", "pods", "-n", namespace, "-l", f"{POOL_LABEL}={name}"])


def pod_tells(namespace: str, name: str, container: str) -> str:
    """The output of a container's last run; where none has run, what Kubernetes tells of the pod."""
    if container:
        return join(["kubectl", "logs", name, "-n", namespace, "--previous", "-c", container])
    return join(["kubectl", "describe", "pod", name, "-n", namespace])


def grow(pool: Pool, agents: int) -> str:
    """The command that lets the pool have one more agent; empty where it grows by itself."""
    if not pool.elastic:
        size = f"--replicas={pool.maximum + 1}"
        return join(["kubectl", "scale", f"agentpools.{GROUP}/{pool.name}", "-n", pool.namespace, size])
    return patch_pool(pool.key, scaling={"maxReplicas": pool.maximum + 1}) if agents >= pool.maximum else ""


def promote(task: Task) -> str:
    """The command that raises the Task by one level; empty at the highest that needs no permission."""
    if task.priority >= TOP:
        return ""
    name = next(each for each in Priority if each.level == task.priority + 1)
    return patch_task(task, priority=name.value)
