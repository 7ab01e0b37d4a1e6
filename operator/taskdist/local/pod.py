"""One pod on the local node: its volumes as files, its containers as processes, its status on the API server.

Owns a pod from the moment it is bound to this node until its object is gone, and its directory. Deciding which pods
come here is not its business. A failed call to the API server is repeated for as long as the pod is there.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from pathlib import Path
from typing import Any

import aiohttp

from taskdist.kube import ApiError, KubeError, Obj
from taskdist.local import volumes
from taskdist.local.container import Life, Restarts, Stop
from taskdist.local.environment import Invocation, Lookup, Missing, invocation
from taskdist.local.mounts import MountMap
from taskdist.local.podstatus import Container, compose, resumed, timestamp
from taskdist.local.rest import STRATEGIC_MERGE_PATCH, AsyncClient, write_kubeconfig

SERVICE_ACCOUNT_MOUNT = "/var/run/secrets/kubernetes.io/serviceaccount"

_LOG = logging.getLogger("taskdist.local")

_RESTART: Mapping[str, Callable[[int], bool]] = {
    "Always": lambda _code: True,
    "OnFailure": lambda code: code != 0,
    "Never": lambda _code: False,
}

_RETRY_SECONDS = 0.25
_REFRESH_SHARE = 0.8
"""A token is renewed when this share of its life is over, as kubelet does."""


@dataclass(frozen=True)
class Surroundings:
    """What a pod needs of its node."""

    client: AsyncClient
    server: str
    probes: aiohttp.ClientSession
    pods: Path
    logs: Path
    mark: str
    environment: Mapping[str, str]
    entrypoints: Mapping[str, tuple[str, ...]]
    restarts: Restarts
    lookup: Callable[[str, str, str], Awaitable[Obj | None]]
    """(kind, namespace, name) → the ConfigMap or Secret as last seen, asked for if never seen."""


@dataclass
class _Token:
    value: str
    refresh_at: float


class _Stage(Enum):
    """Where a pod's life stands."""

    LIVING = auto()  # its containers run, or may run yet
    ENDED = auto()  # all of them have ended for good; its status says so, and it waits for its deletion
    ENDED_BEFORE = auto()  # an earlier run of the node saw it end, and wrote so: only its deletion is left to do


class Pod:
    """One pod's life. `run` is its task; `update`, `vanish` and `refresh` may be called while it runs."""

    def __init__(self, pod: Obj, address: str, node: Surroundings) -> None:
        self._node = node
        self._address = address
        self._pod = self._with_address(pod)
        metadata, spec = pod["metadata"], pod["spec"]
        self.uid: str = metadata["uid"]
        self.namespace: str = metadata["namespace"]
        self.name: str = metadata["name"]
        self._path = f"/api/v1/namespaces/{self.namespace}/pods/{self.name}"
        self._folder = node.pods / self.uid
        self._policy: str = spec.get("restartPolicy") or "Always"
        self._grace = float(spec.get("terminationGracePeriodSeconds") or 0)
        self._restart = _RESTART[self._policy]
        status = pod.get("status") or {}
        self._inits = [
            resumed(each["name"], each.get("image", ""), status.get("initContainerStatuses") or (), self._restart_init)
            for each in spec.get("initContainers") or ()
        ]
        self._containers = [
            resumed(each["name"], each.get("image", ""), status.get("containerStatuses") or (), self._restart)
            for each in spec["containers"]
        ]
        self._started_at: str = status.get("startTime") or timestamp()
        self._conditions: list[Obj] = list(status.get("conditions") or ())
        self._written: Obj | None = None
        self._stop = Stop()
        self._gone = False
        over = status.get("phase") in ("Succeeded", "Failed")
        self._stage = _Stage.ENDED_BEFORE if over else _Stage.LIVING
        self._dirty = asyncio.Event()
        self._stale = asyncio.Event()
        self._objects: dict[tuple[str, str], Obj | None] = {}
        self._tokens: dict[tuple[str, int], _Token] = {}
        self._files: dict[str, dict[str, bytes]] = {}
        self.update(pod)

    @property
    def references(self) -> set[tuple[str, str]]:
        """(kind, name) of what its volumes and variables come from."""
        return volumes.references(self._pod) | _named_by_env(self._pod["spec"])

    @property
    def completed(self) -> bool:
        """Whether all of it has ended for good, though the object is still there."""
        return self._stage is not _Stage.LIVING

    @property
    def vanished(self) -> bool:
        """Whether the object was seen to be gone."""
        return self._gone

    def update(self, pod: Obj) -> None:
        """The object changed."""
        before, self._pod = self._pod, self._with_address(pod)
        metadata = pod["metadata"]
        if any(before["metadata"].get(part) != metadata.get(part) for part in ("labels", "annotations")):
            self._stale.set()
        if metadata.get("deletionTimestamp"):
            grace = metadata.get("deletionGracePeriodSeconds")
            self._stop.within(self._grace if grace is None else float(grace))

    def vanish(self) -> None:
        """The object is gone, so nothing of it may run on: no grace is left, and there is nothing to write to."""
        self._gone = True
        self._stop.within(0)

    def abandon(self, seconds: float) -> None:
        """The node stops: end the processes within this time, and leave the object as it is."""
        self._gone = True
        self._stop.within(min(seconds, self._grace))

    def refresh(self) -> None:
        """Something it refers to has changed."""
        self._stale.set()

    async def run(self) -> None:
        """Until the pod has ended and its object is deleted or vanished."""
        shutil.rmtree(self._folder, ignore_errors=True)  # Of an earlier run of the node.
        writer = asyncio.create_task(self._write_changes())
        try:
            try:
                await self._live()
            except Exception as error:
                # Whatever it was, the pod says so, and can still be deleted.
                _LOG.exception("pod %s/%s", self.namespace, self.name)
                for container in (*self._inits, *self._containers):
                    if container.terminated is None:
                        container.end(128, timestamp(), "NodeError", str(error))
            if self._stage is _Stage.LIVING:
                self._stage = _Stage.ENDED
            shutil.rmtree(self._folder, ignore_errors=True)
            self._dirty.set()
            await self._stop.ordered.wait()  # The object stays until somebody deletes it.
        finally:
            writer.cancel()
            await asyncio.gather(writer, return_exceptions=True)
            shutil.rmtree(self._folder, ignore_errors=True)
        # The last status goes first: whoever watches learns that the containers have ended, not just that the
        # object is gone. One that is refused must not keep the object for ever.
        try:
            await self._repeat(self._write)
        except ApiError as error:
            _LOG.error("last status of pod %s/%s refused: %s", self.namespace, self.name, error)
        await self._repeat(self._delete)

    async def _live(self) -> None:
        if self._stage is _Stage.ENDED_BEFORE:
            return
        if not await self._mount():
            return
        keeper = asyncio.create_task(self._keep_volumes())
        try:
            for spec, status in zip(self._pod["spec"].get("initContainers") or (), self._inits, strict=True):
                if status.terminated is None:
                    await self._life(spec, status, self._restart_init).run()
                if status.terminated is None or status.terminated["exitCode"] != 0:
                    return
            async with asyncio.TaskGroup() as group:
                for spec, status in zip(self._pod["spec"]["containers"], self._containers, strict=True):
                    if status.terminated is None:
                        group.create_task(self._life(spec, status, self._restart).run())
        finally:
            keeper.cancel()
            await asyncio.gather(keeper, return_exceptions=True)

    def _restart_init(self, code: int) -> bool:
        return code != 0 and self._policy != "Never"

    def _life(self, spec: Obj, status: Container, restart: Callable[[int], bool]) -> Life:
        root = self._folder / "root" / spec["name"]
        mounts = MountMap(root, self._mounts(spec))
        mounts.build()
        (root / "tmp").mkdir(exist_ok=True)
        directory = Path(mounts.translate(spec.get("workingDir") or ""))
        base = {
            **self._node.environment,
            "HOME": str(root),
            "HOSTNAME": self.name,
            "TMPDIR": str(root / "tmp"),
            "TASKDIST_ROOT": str(root),
            **self._kubeconfig(mounts),
        }

        def prepare() -> Invocation:
            return invocation(self._pod, spec, self._lookup, mounts, base, self._node.entrypoints)

        return Life(
            spec,
            status,
            prepare=prepare,
            translate=mounts.translate,
            directory=directory if directory.is_absolute() and directory.is_dir() else root,
            log=self._node.logs / self.namespace / self.name / f"{spec['name']}.log",
            mark=f"{self._node.mark}/{self.uid}/{spec['name']}",
            address=self._address,
            restart=restart,
            grace=self._grace,
            stop=self._stop,
            changed=self._dirty.set,
            session=self._node.probes,
            restarts=self._node.restarts,
        )

    def _mounts(self, spec: Obj) -> dict[str, Path]:
        by_name = {volume["name"]: volume for volume in self._pod["spec"].get("volumes") or ()}
        return {
            mount["mountPath"]: volumes.place(by_name[mount["name"]], self._folder / "volumes")
            / (mount.get("subPath") or "")
            for mount in spec.get("volumeMounts") or ()
        }

    def _kubeconfig(self, mounts: MountMap) -> dict[str, str]:
        """In-cluster configuration has its path compiled into every client; KUBECONFIG gives the same access."""
        if not mounts.mounted(SERVICE_ACCOUNT_MOUNT):
            return {}
        path = self._folder / "kubeconfig"
        account = Path(mounts.real(SERVICE_ACCOUNT_MOUNT))
        if not (account / "ca.crt").exists():  # Something else is mounted there.
            return {}
        authority = (account / "ca.crt").read_bytes()
        token = {"tokenFile": str(account / "token")}
        write_kubeconfig(path, self._node.server, authority, token, self.namespace)
        return {"KUBECONFIG": str(path)}

    async def _mount(self) -> bool:
        """Make the volumes; wait for what they need. False if the pod is to stop before that."""
        while not self._stop.ordered.is_set():
            try:
                if refused := volumes.refused(self._pod):
                    raise Missing("; ".join(refused))
                await self._render()
                return True
            except (Missing, KubeError, OSError) as error:
                for container in (*self._inits, *self._containers):
                    container.wait("ContainerCreating", str(error))
                self._dirty.set()
            self._stale.clear()
            waits = [asyncio.create_task(each.wait()) for each in (self._stale, self._stop.ordered)]
            await asyncio.wait(waits, timeout=2, return_when=asyncio.FIRST_COMPLETED)
            for task in waits:
                task.cancel()
        return False

    async def _keep_volumes(self) -> None:
        """Render again when something they show changes, and before a token ends."""
        loop = asyncio.get_running_loop()
        while True:
            refresh_at = min((token.refresh_at for token in self._tokens.values()), default=None)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout_at(refresh_at):
                    await self._stale.wait()
            self._stale.clear()
            try:
                await self._render()
            except (Missing, KubeError, OSError):
                # What stands in the files stays; a token still has a fifth of its life to try again.
                for token in self._tokens.values():
                    token.refresh_at = max(token.refresh_at, loop.time() + 2)

    async def _render(self) -> None:
        spec = self._pod["spec"]
        for kind, name in self.references:
            self._objects[kind, name] = await self._node.lookup(kind, self.namespace, name)
        for request in volumes.tokens(self._pod):
            token = self._tokens.get(request.key)
            if token is None or token.refresh_at <= asyncio.get_running_loop().time():
                self._tokens[request.key] = await self._request(request)
        for volume in spec.get("volumes") or ():
            files = volumes.render(self._pod, volume, self._lookup, lambda request: self._tokens[request.key].value)
            folder = volumes.place(volume, self._folder / "volumes")
            if files is None:
                folder.mkdir(parents=True, exist_ok=True)
            elif self._files.get(volume["name"]) != files:
                volumes.swap(folder, files)
                self._files[volume["name"]] = files

    async def _request(self, request: volumes.TokenRequest) -> _Token:
        account = self._pod["spec"].get("serviceAccountName") or "default"
        bound = {"apiVersion": "v1", "kind": "Pod", "name": self.name, "uid": self.uid}
        answer = await self._node.client.request(
            "POST",
            f"/api/v1/namespaces/{self.namespace}/serviceaccounts/{account}/token",
            {
                "apiVersion": "authentication.k8s.io/v1",
                "kind": "TokenRequest",
                "spec": {
                    "audiences": [request.audience] if request.audience else [],
                    "expirationSeconds": request.seconds,
                    "boundObjectRef": bound,
                },
            },
        )
        life = float(answer["spec"]["expirationSeconds"]) * _REFRESH_SHARE
        return _Token(answer["status"]["token"], asyncio.get_running_loop().time() + life)

    @property
    def _lookup(self) -> Lookup:
        return lambda kind, name: self._objects.get((kind, name))

    def _with_address(self, pod: Obj) -> Obj:
        """The pod as its containers see it: the address is known here before it is written."""
        return {**pod, "status": {**(pod.get("status") or {}), "podIP": self._address, "hostIP": "127.0.0.1"}}

    async def _write_changes(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            try:
                await self._repeat(self._write)
            except ApiError as error:
                _LOG.error("status of pod %s/%s refused: %s", self.namespace, self.name, error)

    async def _write(self) -> None:
        status = compose(
            self._pod,
            self._inits,
            self._containers,
            address=self._address,
            started_at=self._started_at,
            stopping=self._stop.ordered.is_set(),
            earlier=self._conditions,
            now=timestamp(),
        )
        if status == self._written or self._stage is _Stage.ENDED_BEFORE:
            return
        # An address given by an earlier run of the node would stay beside the present one, and two are refused.
        addresses = [*status["podIPs"], {"$patch": "replace"}]
        # The uid guards against a new pod of the same name.
        body: dict[str, Any] = {"metadata": {"uid": self.uid}, "status": {**status, "podIPs": addresses}}
        path = f"{self._path}/status"
        await self._node.client.request("PATCH", path, body, content_type=STRATEGIC_MERGE_PATCH)
        self._written, self._conditions = status, status["conditions"]

    async def _delete(self) -> None:
        await self._node.client.request(
            "DELETE", self._path, {"gracePeriodSeconds": 0, "preconditions": {"uid": self.uid}}
        )

    async def _repeat(self, call: Callable[[], Awaitable[None]]) -> None:
        while not self._gone:
            try:
                return await call()
            except ApiError as error:
                if error.status in (404, 409):  # Gone, or another pod's by now.
                    return None
                if error.status < 500 and error.status != 429:
                    raise
            except KubeError:
                pass
            await asyncio.sleep(_RETRY_SECONDS)
        return None


def _named_by_env(spec: Obj) -> set[tuple[str, str]]:
    """(kind, name) of what the containers' variables come from."""
    found = set()
    for container in (*(spec.get("initContainers") or ()), *spec["containers"]):
        for source in container.get("envFrom") or ():
            for kind, name in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
                if reference := source.get(name):
                    found.add((kind, reference["name"]))
        for entry in container.get("env") or ():
            for kind, name in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
                if reference := (entry.get("valueFrom") or {}).get(name):
                    found.add((kind, reference["name"]))
    return found
