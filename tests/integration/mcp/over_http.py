"""`taskdist mcp --http` as a process of its own, with the rights that the chart gives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import httpx
import yaml
from mcp import Client, ClientSession
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client

from integration.controller.conftest import ROOT
from integration.mcp.desk import RBAC, Desk
from mcp_agent import Agent
from mcp_tasks import Tasks
from patience import until
from taskdist.local.binaries import find
from taskdist.local.controlplane import free_ports


class Door:
    """The process, under the chart's ServiceAccount."""

    def __init__(self, desk: Desk, directory: Path) -> None:
        self.desk = desk
        self.port, self.metrics, self.health = free_ports(3)
        self.url = f"http://127.0.0.1:{self.port}/v1/namespaces/{desk.room.namespace}/mcp"
        self._log = directory / "mcp.log"
        self._kubeconfig = desk.kubeconfig("mcp", desk.token("taskdist-mcp"))

    def start(self) -> None:
        env = os.environ | {
            "KUBECONFIG": str(self._kubeconfig),
            "TASKDIST_HOST": "127.0.0.1",
            "TASKDIST_MCP_PORT": str(self.port),
            "TASKDIST_METRICS_PORT": str(self.metrics),
            "TASKDIST_HEALTH_PORT": str(self.health),
            "TASKDIST_MCP_VIEW": f"localhost:{self.desk.room.stack.operators[0].view_port}",
        }
        command = [sys.executable, "-m", "taskdist.cli.main", "mcp", "--http"]
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(command, env=env, stderr=log)
        until(lambda: self.process.poll() is not None or self._ready(), "the door is ready")
        assert self.process.poll() is None, self._log.read_text()[-2000:]

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(20)

    def metric(self, name: str) -> float:
        lines = httpx.get(f"http://127.0.0.1:{self.metrics}/metrics").text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith((f"{name} ", f"{name}{{")))

    def _ready(self) -> bool:
        try:
            return httpx.get(f"http://127.0.0.1:{self.health}/readyz").status_code == 200
        except httpx.TransportError:
            return False

    @asynccontextmanager
    async def by_session(self, account: str = "caller", url: str = "") -> AsyncIterator[Agent]:
        """Connect as agents of today do: with a handshake."""
        headers = {"Authorization": f"Bearer {self.desk.token(account)}"}
        async with (
            create_mcp_http_client(headers) as http,
            streamable_http_client(url or self.url, http_client=http) as streams,
            ClientSession(*streams[:2]) as session,
        ):
            await session.initialize()
            yield Agent(session)

    @asynccontextmanager
    async def by_client(
        self, account: str = "caller", url: str = "", tasks: Tasks | None = None
    ) -> AsyncIterator[Agent]:
        """Connect by the newest form of the protocol, without a handshake."""
        headers = {"Authorization": f"Bearer {self.desk.token(account)}"}
        async with (
            create_mcp_http_client(headers) as http,
            Client(
                streamable_http_client(url or self.url, http_client=http), extensions=[tasks] if tasks else []
            ) as client,
        ):
            yield Agent(client)


def of_the_chart() -> list[dict[str, Any]]:
    """The cluster-wide objects that the chart makes for it."""
    command: list[str | Path] = [find("helm"), "template", "taskdist", ROOT / "charts" / "taskdist"]
    command += ["--namespace", "default", "--kube-version", "1.34.0", "--set", "mcp.enabled=true"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    made = [each for each in yaml.safe_load_all(done.stdout) if each]
    mine = [each for each in made if each["metadata"]["labels"].get("app.kubernetes.io/component") == "mcp"]
    return [each for each in mine if each["apiVersion"].startswith("rbac.")]


@contextmanager
def running(desk: Desk, directory: Path) -> Iterator[Door]:
    """Run a door, which has to end well when it is asked to."""
    client, made = desk.room.client, []
    client.create(desk.room.path("serviceaccounts"), {"metadata": {"name": "taskdist-mcp"}})
    for each in of_the_chart():
        for subject in each.get("subjects") or ():
            subject["namespace"] = desk.room.namespace
        path = f"{RBAC}/{each['kind'].lower()}s/{each['metadata']['name']}"
        client.apply(path, each)
        made.append(path)
    assert len(made) == 2
    door = Door(desk, directory)
    try:
        door.start()
        yield door
        assert door.stop() == 0
    finally:
        door.process.kill()
        door.process.wait()
        for path in made:
            client.delete(path)
