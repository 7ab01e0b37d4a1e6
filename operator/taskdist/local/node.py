"""The node while it serves: which pods live here, and what they follow.

Owns the Node object, binding pods to it, and the set of pods that live here. Opening and closing what all of that needs
is not done here.
"""

from __future__ import annotations

import asyncio
import logging
import os
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from taskdist.api import LOG_PATH_ANNOTATION
from taskdist.kube import ApiError, KubeError, Obj
from taskdist.local.addresses import Addresses
from taskdist.local.container import Restarts
from taskdist.local.pod import Pod, Surroundings
from taskdist.local.podstatus import condition, timestamp
from taskdist.local.rest import APPLY_PATCH, FIELD_MANAGER, STRATEGIC_MERGE_PATCH, AsyncClient

_LOG = logging.getLogger("taskdist.local")

_PATHS = {"ConfigMap": "/api/v1/configmaps", "Secret": "/api/v1/secrets"}
_STOP_SECONDS = 5.0


def container_environment() -> dict[str, str]:
    """What stands in for an image's environment: commands of this Python's environment come first on the path."""
    kept = {name: os.environ[name] for name in ("LANG", "LC_ALL", "TZ", "PYTHONPATH") if name in os.environ}
    path = os.pathsep.join([os.path.dirname(sys.executable), os.environ.get("PATH", os.defpath)])
    return {**kept, "PATH": path}


@dataclass(frozen=True)
class NodeSettings:
    """Settings of the node."""

    name: str = "local"
    pods: int = 500
    """The most pods at a time."""
    cpu: str = "64"
    memory: str = "256Gi"
    """Capacity is what the Node object shows; it is not enforced."""
    labels: Mapping[str, str] = field(default_factory=dict)
    directory: Path | None = None
    """For volumes and logs; a temporary one by default, which goes with the runner."""
    environment: Mapping[str, str] = field(default_factory=container_environment)
    entrypoints: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: {"taskdist": ("taskdist",)})
    restarts: Restarts = field(default_factory=Restarts)


@dataclass
class _Waiting:
    """A pod for the default scheduler that no event has shown to be bound to a node."""

    object: Obj
    refused: str = ""  # why it cannot come here, as its status says
    bound: bool = False  # this node has bound it, and no event says so yet


@dataclass(frozen=True)
class _Living:
    """A pod that lives here, and the task that runs it."""

    pod: Pod
    task: asyncio.Task[None]


@dataclass(frozen=True)
class _Over:
    """A pod that lived here and has come to its end, while its object is still there."""


class Node:
    """Binds pods to this node and runs those that are, until it is cancelled.

    Args:
        directory: for volumes and logs.
        mark: by which the processes of all pods are known.
        ready: set once the pods there are have been seen.
    """

    def __init__(
        self,
        settings: NodeSettings,
        client: AsyncClient,
        server: str,
        probes: aiohttp.ClientSession,
        directory: Path,
        addresses: Addresses,
        mark: str,
        ready: asyncio.Event,
    ) -> None:
        self._settings = settings
        self._client = client
        self._addresses = addresses
        self._ready = ready
        self._labels = _labels(settings)
        self._pods: dict[str, _Waiting | _Living | _Over] = {}
        self._objects: dict[tuple[str, str, str], Obj] = {}
        self._schedule = asyncio.Event()
        self._surroundings = Surroundings(
            client=client,
            server=server,
            probes=probes,
            pods=directory / "pods",
            logs=directory / "logs",
            mark=mark,
            environment=settings.environment,
            entrypoints=settings.entrypoints,
            restarts=settings.restarts,
            lookup=self._lookup,
        )

    async def serve(self) -> None:
        """Serve until cancelled; then stop all pods' processes, within a few seconds."""
        try:
            await register(self._client, self._settings, ready=True)
            async with asyncio.TaskGroup() as group:
                group.create_task(self._bind_waiting())
                for kind, path in _PATHS.items():
                    group.create_task(self._follow(path, self._on_object(kind)))
                group.create_task(self._follow("/api/v1/pods", self._on_pod, self._ready.set))
        finally:
            await self._end_all()

    async def _end_all(self) -> None:
        """SIGTERM to every container, then what is left goes with the guard. The objects stay as they are, so that a
        node started again takes the pods up."""
        living = list(self._living())
        for each in living:
            each.pod.abandon(_STOP_SECONDS)
        tasks = [each.task for each in living]
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_SECONDS + 2)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _living(self) -> Iterator[_Living]:
        return (each for each in self._pods.values() if isinstance(each, _Living))

    async def _follow(
        self, path: str, on_event: Callable[[str, Obj], None], on_synced: Callable[[], None] = lambda: None
    ) -> None:
        """List and watch for ever. Whatever went away while nobody watched is told as deleted."""
        known: dict[str, Obj] = {}
        while True:
            try:
                listing = await self._client.request("GET", path, query={"resourceVersion": "0"})
                current = {item["metadata"]["uid"]: item for item in listing["items"]}
                for uid in known.keys() - current.keys():
                    on_event("DELETED", known[uid])
                for item in current.values():
                    on_event("MODIFIED", item)
                known = current
                on_synced()
                version = listing["metadata"]["resourceVersion"]
                while True:
                    async for event in self._client.watch(path, version):
                        item = event["object"]
                        version = item["metadata"]["resourceVersion"]
                        if event["type"] == "DELETED":
                            known.pop(item["metadata"]["uid"], None)
                        elif event["type"] != "BOOKMARK":
                            known[item["metadata"]["uid"]] = item
                        if event["type"] != "BOOKMARK":
                            on_event(event["type"], item)
            except KubeError as error:
                _LOG.info("%s: listing again (%s)", path, error)
                await asyncio.sleep(0.2)

    def _on_object(self, kind: str) -> Callable[[str, Obj], None]:
        def changed(event: str, item: Obj) -> None:
            metadata = item["metadata"]
            key = (kind, metadata["namespace"], metadata["name"])
            if event == "DELETED":
                self._objects.pop(key, None)
            else:
                self._objects[key] = item
            for pod in [each.pod for each in self._living()]:
                if pod.namespace == metadata["namespace"] and (kind, metadata["name"]) in pod.references:
                    pod.refresh()

        return changed

    async def _lookup(self, kind: str, namespace: str, name: str) -> Obj | None:
        if (found := self._objects.get((kind, namespace, name))) is not None:
            return found
        # The pod may have been seen before the object it was created after.
        try:
            plural = _PATHS[kind].rsplit("/", 1)[-1]
            answer: Obj = await self._client.request("GET", f"/api/v1/namespaces/{namespace}/{plural}/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        return answer

    def _on_pod(self, event: str, pod: Obj) -> None:
        uid, spec = pod["metadata"]["uid"], pod["spec"]
        node, known = spec.get("nodeName"), self._pods.get(uid)
        if event == "DELETED":
            if isinstance(known, _Living):
                known.pod.vanish()
            else:
                self._pods.pop(uid, None)
        elif isinstance(known, _Living):
            known.pod.update(pod)
        elif isinstance(known, _Over):
            pass  # an event may tell of a time before the pod's end; it must not begin a second life
        elif node == self._settings.name:
            # One that ended under an earlier run of the node is left to be deleted.
            ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if not ended or pod["metadata"].get("deletionTimestamp"):
                self._adopt(pod)
            else:
                self._pods.pop(uid, None)
        elif not node and spec.get("schedulerName") == "default-scheduler":
            if known is None:
                self._pods[uid] = _Waiting(pod)
            else:
                known.object = pod
        self._schedule.set()

    def _adopt(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        address = self._address(pod)
        life = Pod(pod, address, self._surroundings)
        task = asyncio.create_task(life.run(), name=f"pod {pod['metadata']['name']}")
        self._pods[uid] = _Living(life, task)

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                _LOG.error("pod %s ended by an error", pod["metadata"]["name"], exc_info=error)
            if life.vanished:
                del self._pods[uid]
            else:
                self._pods[uid] = _Over()
            self._addresses.give_back(address)
            self._schedule.set()

        task.add_done_callback(ended)

    def _address(self, pod: Obj) -> str:
        if pod["spec"].get("hostNetwork"):
            return "127.0.0.1"
        return self._addresses.take((pod.get("status") or {}).get("podIP") or "")

    async def _bind_waiting(self) -> None:
        """Bind the oldest first, as long as there is room."""
        while True:
            await self._schedule.wait()
            self._schedule.clear()
            waiting = [(uid, each) for uid, each in self._pods.items() if isinstance(each, _Waiting)]
            # Those that are bound take room before their event says so.
            room = self._settings.pods - sum(each.bound for _, each in waiting)
            room -= sum(not each.pod.completed for each in self._living())
            for uid, each in sorted(waiting, key=lambda one: (one[1].object["metadata"]["creationTimestamp"], one[0])):
                metadata = each.object["metadata"]
                if each.bound or metadata.get("deletionTimestamp") or each.object["spec"].get("schedulingGates"):
                    continue
                why = self._misfit(each.object, room)
                try:
                    if why:
                        await self._refuse(each, why)
                    else:
                        each.bound = True
                        await self._bind(each.object)
                        room -= 1
                except ApiError as error:
                    if error.status not in (404, 409):  # Gone, or bound by somebody else.
                        _LOG.warning("pod %s not bound: %s", metadata["name"], error)
                    if self._pods.get(uid) is each:
                        del self._pods[uid]
                except KubeError:
                    each.bound = False  # Perhaps it was bound after all: then its event comes.
                    await asyncio.sleep(0.2)
                    self._schedule.set()

    def _misfit(self, pod: Obj, room: int) -> str:
        wanted = pod["spec"].get("nodeSelector") or {}
        wrong = [f"{key}={value}" for key, value in wanted.items() if self._labels.get(key) != value]
        if wrong:
            return f"node {self._settings.name} does not match the node selector: {', '.join(sorted(wrong))}"
        return "" if room > 0 else f"node {self._settings.name} has its {self._settings.pods} pods already"

    async def _refuse(self, waiting: _Waiting, why: str) -> None:
        """Say in the pod's status why it cannot come here, once for each reason."""
        if waiting.refused == why:
            return
        pod = waiting.object
        earlier = (pod.get("status") or {}).get("conditions") or ()
        unscheduled = condition("PodScheduled", False, "Unschedulable", why, earlier, timestamp())
        body = {"status": {"conditions": [unscheduled]}}
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
        await self._client.request("PATCH", path, body, content_type=STRATEGIC_MERGE_PATCH)
        waiting.refused = why

    async def _bind(self, pod: Obj) -> None:
        metadata = pod["metadata"]
        names = [each["name"] for each in pod["spec"]["containers"]]
        container = "agent" if "agent" in names else names[0]
        log = log_path(self._surroundings.logs, metadata["namespace"], metadata["name"], container)
        await self._client.request(
            "POST",
            f"/api/v1/namespaces/{metadata['namespace']}/pods/{metadata['name']}/binding",
            {
                "apiVersion": "v1",
                "kind": "Binding",
                # Annotations of a binding become the pod's: no kubelet serves its log, so it says where that is.
                "metadata": {
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "annotations": {LOG_PATH_ANNOTATION: str(log)},
                },
                "target": {"apiVersion": "v1", "kind": "Node", "name": self._settings.name},
            },
        )


async def earlier_addresses(client: AsyncClient, node: str) -> list[str]:
    """Return the addresses that an earlier run of this node gave to pods that are still there."""
    pods = await client.request("GET", "/api/v1/pods", query={"fieldSelector": f"spec.nodeName={node}"})
    return [address for pod in pods["items"] if (address := (pod.get("status") or {}).get("podIP"))]


def log_path(logs: Path, namespace: str, pod: str, container: str) -> Path:
    """Return where the output of a container goes; a later pod of the same name appends."""
    return logs / namespace / pod / f"{container}.log"


async def register(client: AsyncClient, settings: NodeSettings, ready: bool) -> None:
    """Write the Node object of this machine, ready or not."""
    name = settings.name
    node: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": _labels(settings)}}
    query = {"fieldManager": FIELD_MANAGER, "force": "true"}
    path = f"/api/v1/nodes/{name}"
    made = await client.request("PATCH", path, node, content_type=APPLY_PATCH, query=query)
    # The API server taints new nodes; no controller is there to lift it, and drivers of `kubectl` look at it.
    if (made["spec"].get("taints") or []) and ready:
        body = {"spec": {"taints": None}}
        await client.request("PATCH", path, body, content_type=STRATEGIC_MERGE_PATCH)
    amounts = {
        "pods": str(settings.pods),
        "cpu": settings.cpu,
        "memory": settings.memory,
        "ephemeral-storage": "1Ti",
    }
    reason = "PodRunnerReady" if ready else "PodRunnerStopped"
    status = {
        "capacity": amounts,
        "allocatable": amounts,
        "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
        "conditions": [
            {
                **condition("Ready", ready, reason, "pods run as processes", (), timestamp()),
                "lastHeartbeatTime": timestamp(),
            }
        ],
        "nodeInfo": {
            "architecture": _architecture(),
            "bootID": "",
            "containerRuntimeVersion": "process://1",
            "kernelVersion": platform.release(),
            "kubeProxyVersion": "",
            "kubeletVersion": "v0.0.0-taskdist-local",
            "machineID": "",
            "operatingSystem": "linux",
            "osImage": "this machine",
            "systemUUID": "",
        },
    }
    await client.request("PATCH", f"{path}/status", {"status": status}, content_type=STRATEGIC_MERGE_PATCH)


def _labels(settings: NodeSettings) -> dict[str, str]:
    return {
        "kubernetes.io/hostname": settings.name,
        "kubernetes.io/os": "linux",
        "kubernetes.io/arch": _architecture(),
        **settings.labels,
    }


def _architecture() -> str:
    return {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
