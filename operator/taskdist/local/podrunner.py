"""A node of its own kind: gives the pods of a local control plane life as processes on this machine.

Owns one Node object, binding pods to it, and the set of pods that live here. A tool for demos and tests.

What it does: binds pods that wait for the default scheduler (by nodeSelector and by number of pods), runs init
containers and containers as processes with the environment, arguments and volumes of the specification, renews
pod-bound tokens, follows changes of ConfigMaps and Secrets, probes, restarts with back-off, honours grace periods,
preStop and restart policies, and reports status.

What it does not do:
- Images: there are none. A container must give its command, unless its image's name has an entry point here; the
  command is looked up on this machine. Isolation: none either, but for each pod's own loopback address (status.podIP),
  which no other node on this machine gives out. Ports are shared by all pods that listen on all addresses: listen on
  the pod's address.
- Mount paths exist only below TASKDIST_ROOT; the texts of the specification are rewritten to match. In-cluster
  configuration works through KUBECONFIG, which is set where a ServiceAccount token is mounted.
- securityContext, resource limits, affinity, taints, priorities, eviction, volumes that need storage, sidecars
  (restartable init containers), ephemeral containers, postStart, HTTP hooks, gRPC probes, readiness gates, Services,
  DNS, Events, node heartbeats, and the kubelet's API (`kubectl logs` and `exec`): outputs are files, see `log_path`.

A pod that asks for a volume or probe it does not know says so in its status and waits; what else is listed is ignored.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp

from taskdist.api import LOG_PATH_ANNOTATION
from taskdist.kube import Access, ApiError, KubeError, Obj
from taskdist.local.addresses import Addresses
from taskdist.local.container import Restarts
from taskdist.local.locks import hold
from taskdist.local.pod import Pod, Surroundings
from taskdist.local.podstatus import condition, timestamp
from taskdist.local.processes import Guard, new_mark
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
class Settings:
    """How the node is."""

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


class NodeRuns(OSError):
    """Another process is the node of this name: two would run each pod twice."""


class PodRunner:
    """The node. `run` serves until it is cancelled; all processes end with it, and with this process in any case."""

    def __init__(self, access: Access, settings: Settings | None = None) -> None:
        self._access = access
        self._settings = settings or Settings()
        self._temporary = self._settings.directory is None
        self._directory = (self._settings.directory or Path(tempfile.mkdtemp(prefix="taskdist-node-"))).resolve()
        self._pods: dict[str, Pod] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._over: set[str] = set()
        self._bound: set[str] = set()
        self._waiting: dict[str, Obj] = {}
        self._objects: dict[tuple[str, str, str], Obj] = {}
        self._schedule = asyncio.Event()
        self._refused: dict[str, str] = {}
        self.ready = asyncio.Event()
        """Set once the node is registered and has seen the pods there are."""

    def log_path(self, namespace: str, pod: str, container: str) -> Path:
        """The output of a container; a later pod of the same name appends."""
        return self._directory / "logs" / namespace / pod / f"{container}.log"

    async def run(self) -> None:
        """Serve until cancelled; then stop all pods' processes, within a few seconds, and leave their objects."""
        lock = hold("node", self._access.server, self._settings.name)
        if lock is None:
            if self._temporary:
                self._directory.rmdir()
            raise NodeRuns(
                f"node {self._settings.name} of {self._access.server} runs on this machine already: stop that one, or "
                "give this one another name"
            )
        with contextlib.closing(lock):
            await self._run()

    async def _run(self) -> None:
        mark = new_mark()
        guard = Guard(mark)
        self._client = await AsyncClient(self._access).open()
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        probes = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        self._surroundings = Surroundings(
            client=self._client,
            server=self._access.server,
            probes=probes,
            pods=self._directory / "pods",
            logs=self._directory / "logs",
            mark=mark,
            environment=self._settings.environment,
            entrypoints=self._settings.entrypoints,
            restarts=self._settings.restarts,
            lookup=self._lookup,
        )
        try:
            self._surroundings.pods.mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.closing(Addresses(await self._earlier_addresses())) as self.addresses:
                try:
                    await self._register(ready=True)
                    async with asyncio.TaskGroup() as group:
                        group.create_task(self._bind_waiting())
                        for kind, path in _PATHS.items():
                            group.create_task(self._follow(path, self._on_object(kind)))
                        group.create_task(self._follow("/api/v1/pods", self._on_pod, self.ready.set))
                finally:
                    await self._end_all()
        finally:
            with contextlib.suppress(KubeError):
                await self._register(ready=False)
            await probes.close()
            await self._client.close()
            await asyncio.to_thread(guard.close)
            if self._temporary:
                shutil.rmtree(self._directory, ignore_errors=True)

    async def _end_all(self) -> None:
        """SIGTERM to every container, then what is left goes with the guard. The objects stay as they are, so that a
        node started again takes the pods up."""
        for pod in self._pods.values():
            pod.abandon(_STOP_SECONDS)
        if self._tasks:
            await asyncio.wait(self._tasks.values(), timeout=_STOP_SECONDS + 2)
        for task in self._tasks.values():
            task.cancel()
        await asyncio.gather(*self._tasks.values(), return_exceptions=True)

    async def _register(self, ready: bool) -> None:
        name = self._settings.name
        machine = {"x86_64": "amd64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
        self._labels = {
            "kubernetes.io/hostname": name,
            "kubernetes.io/os": "linux",
            "kubernetes.io/arch": machine,
            **self._settings.labels,
        }
        node: Obj = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": self._labels}}
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        path = f"/api/v1/nodes/{name}"
        made = await self._client.request("PATCH", path, node, content_type=APPLY_PATCH, query=query)
        # The API server taints new nodes; no controller is there to lift it, and drivers of `kubectl` look at it.
        if (made["spec"].get("taints") or []) and ready:
            body = {"spec": {"taints": None}}
            await self._client.request("PATCH", path, body, content_type=STRATEGIC_MERGE_PATCH)
        amounts = {
            "pods": str(self._settings.pods),
            "cpu": self._settings.cpu,
            "memory": self._settings.memory,
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
                "architecture": machine,
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
        await self._client.request("PATCH", f"{path}/status", {"status": status}, content_type=STRATEGIC_MERGE_PATCH)

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
            for pod in self._pods.values():
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
        node = spec.get("nodeName")
        if event == "DELETED":
            self._waiting.pop(uid, None)
            self._refused.pop(uid, None)
            self._over.discard(uid)
            self._bound.discard(uid)
            if uid in self._pods:
                self._pods[uid].vanish()
        elif uid in self._pods:
            self._pods[uid].update(pod)
        elif node == self._settings.name:
            self._waiting.pop(uid, None)
            # An event may tell of a time before the pod's end; it must not begin a second life. One that ended under an
            # earlier run of the node is left to be deleted.
            ended = (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if uid not in self._over and (not ended or pod["metadata"].get("deletionTimestamp")):
                self._adopt(pod)
        elif not node and spec.get("schedulerName") == "default-scheduler":
            self._waiting[uid] = pod
        self._schedule.set()

    def _adopt(self, pod: Obj) -> None:
        uid = pod["metadata"]["uid"]
        self._bound.discard(uid)
        address = self._address(pod)
        self._pods[uid] = Pod(pod, address, self._surroundings)
        task = asyncio.create_task(self._pods[uid].run(), name=f"pod {pod['metadata']['name']}")
        self._tasks[uid] = task

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                _LOG.error("pod %s ended by an error", pod["metadata"]["name"], exc_info=error)
            if not self._pods[uid].vanished:
                self._over.add(uid)
            del self._pods[uid], self._tasks[uid]
            self.addresses.give_back(address)
            self._schedule.set()

        task.add_done_callback(ended)

    async def _earlier_addresses(self) -> list[str]:
        """What an earlier run of this node gave to pods that are still there."""
        query = {"fieldSelector": f"spec.nodeName={self._settings.name}"}
        pods = await self._client.request("GET", "/api/v1/pods", query=query)
        return [address for pod in pods["items"] if (address := (pod.get("status") or {}).get("podIP"))]

    def _address(self, pod: Obj) -> str:
        if pod["spec"].get("hostNetwork"):
            return "127.0.0.1"
        return self.addresses.take((pod.get("status") or {}).get("podIP") or "")

    async def _bind_waiting(self) -> None:
        """Bind the oldest first, as long as there is room."""
        while True:
            await self._schedule.wait()
            self._schedule.clear()
            order = sorted(self._waiting.items(), key=lambda each: (each[1]["metadata"]["creationTimestamp"], each[0]))
            # Bound ones take room before their event says so.
            room = self._settings.pods - len(self._bound) - sum(not pod.completed for pod in self._pods.values())
            for uid, pod in order:
                if pod["metadata"].get("deletionTimestamp") or pod["spec"].get("schedulingGates"):
                    continue
                why = self._misfit(pod, room)
                try:
                    if why:
                        await self._refuse(uid, pod, why)
                    else:
                        self._bound.add(uid)
                        await self._bind(pod)
                        room -= 1
                        self._waiting.pop(uid, None)
                except ApiError as error:
                    self._bound.discard(uid)
                    if error.status not in (404, 409):  # Gone, or bound by somebody else.
                        _LOG.warning("pod %s not bound: %s", pod["metadata"]["name"], error)
                    self._waiting.pop(uid, None)
                except KubeError:
                    self._bound.discard(uid)  # Perhaps it was bound after all: then its event comes.
                    await asyncio.sleep(0.2)
                    self._schedule.set()

    def _misfit(self, pod: Obj, room: int) -> str:
        wanted = pod["spec"].get("nodeSelector") or {}
        wrong = [f"{key}={value}" for key, value in wanted.items() if self._labels.get(key) != value]
        if wrong:
            return f"node {self._settings.name} does not match the node selector: {', '.join(sorted(wrong))}"
        return "" if room > 0 else f"node {self._settings.name} has its {self._settings.pods} pods already"

    async def _refuse(self, uid: str, pod: Obj, why: str) -> None:
        if self._refused.get(uid) == why:
            return
        earlier = (pod.get("status") or {}).get("conditions") or ()
        unscheduled = condition("PodScheduled", False, "Unschedulable", why, earlier, timestamp())
        body = {"status": {"conditions": [unscheduled]}}
        path = f"/api/v1/namespaces/{pod['metadata']['namespace']}/pods/{pod['metadata']['name']}/status"
        await self._client.request("PATCH", path, body, content_type=STRATEGIC_MERGE_PATCH)
        self._refused[uid] = why

    async def _bind(self, pod: Obj) -> None:
        metadata = pod["metadata"]
        names = [each["name"] for each in pod["spec"]["containers"]]
        log = self.log_path(metadata["namespace"], metadata["name"], "agent" if "agent" in names else names[0])
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


@asynccontextmanager
async def running(access: Access, settings: Settings | None = None) -> AsyncIterator[PodRunner]:
    """A node for the length of a block, in this event loop; ready when the block begins."""
    runner = PodRunner(access, settings)
    serving = asyncio.create_task(runner.run())
    ready = asyncio.create_task(runner.ready.wait())
    try:
        await asyncio.wait({serving, ready}, return_when=asyncio.FIRST_COMPLETED)
        if serving.done():
            serving.result()
        yield runner
    finally:
        ready.cancel()
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
