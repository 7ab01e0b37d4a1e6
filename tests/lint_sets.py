"""For the tests of the review: manifests with few words, and how a mend is applied."""

import copy
from typing import Any

import yaml

from taskdist.lint import RULES, Finding, Manifest, read
from taskdist.lint.findings import Flaw, Rule
from taskdist.lint.setup import Setup

NOW = 1_700_000_000.0
Obj = dict[str, Any]


def made(kind: str, name: str, spec: Obj) -> Obj:
    return {"apiVersion": "taskdist.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec}


def queue(name: str = "q", **spec: Any) -> Obj:
    """A queue of pool `p` that no rule finds fault with."""
    sound = {
        "pools": ["p"],
        "ttlSecondsAfterFinished": 3600,
        "overflow": {"highWater": 100, "lowWater": 75},
    }
    return made("TaskQueue", name, {key: value for key, value in {**sound, **spec}.items() if value is not None})


def container(**fields: Any) -> Obj:
    requests = {"requests": {"cpu": "1", "memory": "1Gi"}}
    return {"name": "agent", "image": "registry.example/agent:1", "resources": requests, **fields}


def pool(name: str = "p", pod: Obj | None = None, labels: dict[str, str] | None = None, **spec: Any) -> Obj:
    """A pool that no rule finds fault with."""
    template: Obj = {"spec": {"containers": [container()], **(pod or {})}}
    if labels:
        template["metadata"] = {"labels": labels}
    return made("AgentPool", name, {"template": template, **spec})


def task(name: str = "t", **spec: Any) -> Obj:
    """A Task of queue `q` that no rule finds fault with."""
    return made("Task", name, {"queue": "q", "type": "work", **spec})


def source(name: str = "s", task: Obj | None = None, **spec: Any) -> Obj:
    """A source for queue `q` that no rule finds fault with."""
    sound = {"cron": {"schedule": "0 3 * * *"}, "task": {"queue": "q", "type": "work", **(task or {})}}
    return made("TaskSource", name, {key: value for key, value in {**sound, **spec}.items() if value is not None})


def sink(name: str = "s", **spec: Any) -> Obj:
    """A sink of queue `q` that no rule finds fault with."""
    sound = {"selector": {"queues": ["q"]}, "http": {"url": "https://receiver.example"}}
    return made("TaskSink", name, {key: value for key, value in {**sound, **spec}.items() if value is not None})


def cap(most: str) -> Obj:
    spec = {"hard": {"count/tasks.taskdist.dev": most}}
    return {"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "tasks"}, "spec": spec}


def manifests(*objects: Obj, namespace: str = "") -> list[Manifest]:
    return read(yaml.safe_dump_all([copy.deepcopy(each) for each in objects]), "set.yaml", namespace)


def by_id(name: str) -> Rule:
    return next(each for each in RULES if each.id == name)


def flaws(rule: str, *objects: Obj, whole: bool = False, namespace: str = "") -> list[Flaw]:
    return list(by_id(rule).check(Setup(manifests(*objects, namespace=namespace), NOW, whole=whole)))


def findings(rule: str, *objects: Obj, whole: bool = False, namespace: str = "") -> list[Finding]:
    return list(by_id(rule).review(Setup(manifests(*objects, namespace=namespace), NOW, whole=whole)))


def merged(target: Any, change: Any) -> Any:
    """A merge patch (RFC 7386), with containers merged by name, as server-side apply does."""
    if not isinstance(change, dict):
        return change
    found = dict(target) if isinstance(target, dict) else {}
    for key, value in change.items():
        if value is None:
            found.pop(key, None)
        elif key == "containers":
            given = {each["name"]: each for each in value}
            found[key] = [merged(each, given.get(each["name"], {})) for each in found[key]]
        else:
            found[key] = merged(found.get(key), value)
    return found


def mended(flaw: Flaw, objects: tuple[Obj, ...]) -> tuple[Obj, ...]:
    """The set once the change that goes with a flaw is applied."""
    change = flaw.mend.change
    assert change is not None
    if "kind" in change:
        return (*objects, change)
    at = flaw.mend.on or flaw.at
    # Of two objects of one name the later is flawed.
    place = max(
        number
        for number, each in enumerate(objects)
        if (each["kind"], each["metadata"].get("name", "")) == (at.kind, at.name)
    )
    return tuple(merged(each, change) if number == place else each for number, each in enumerate(objects))
