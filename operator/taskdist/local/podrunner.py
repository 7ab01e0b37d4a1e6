"""A node of its own kind: gives the pods of a local control plane life as processes on this machine.

A tool for demos and tests. Here the runner opens and closes what a node needs; `node` serves.

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
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp

from taskdist.kube import Access, KubeError
from taskdist.local.addresses import Addresses
from taskdist.local.locks import hold
from taskdist.local.node import Node, NodeSettings, earlier_addresses, log_path, register
from taskdist.local.processes import Guard, new_mark
from taskdist.local.rest import AsyncClient


class NodeRuns(OSError):
    """Another process is the node of this name: two would run each pod twice."""


class PodRunner:
    """The node. `run` serves until it is cancelled; all processes end with it, and with this process in any case."""

    def __init__(self, access: Access, settings: NodeSettings | None = None) -> None:
        self._access = access
        self._settings = settings or NodeSettings()
        self._temporary = self._settings.directory is None
        self._directory = (self._settings.directory or Path(tempfile.mkdtemp(prefix="taskdist-node-"))).resolve()
        self.ready = asyncio.Event()
        """Set once the node is registered and has seen the pods there are."""

    def log_path(self, namespace: str, pod: str, container: str) -> Path:
        """The output of a container; a later pod of the same name appends."""
        return log_path(self._directory / "logs", namespace, pod, container)

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
        client = await AsyncClient(self._access).open()
        connector = aiohttp.TCPConnector(limit=0, force_close=True)
        probes = aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())
        try:
            (self._directory / "pods").mkdir(parents=True, exist_ok=True, mode=0o700)
            with contextlib.closing(Addresses(await earlier_addresses(client, self._settings.name))) as addresses:
                server, directory = self._access.server, self._directory
                await Node(self._settings, client, server, probes, directory, addresses, mark, self.ready).serve()
        finally:
            with contextlib.suppress(KubeError):
                await register(client, self._settings, ready=False)
            await probes.close()
            await client.close()
            await asyncio.to_thread(guard.close)
            if self._temporary:
                shutil.rmtree(self._directory, ignore_errors=True)


@asynccontextmanager
async def running(access: Access, settings: NodeSettings | None = None) -> AsyncIterator[PodRunner]:
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
