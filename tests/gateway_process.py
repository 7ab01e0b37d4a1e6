"""`taskdist gateway` as a process of its own, for tests against a real API server."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

import httpx

from patience import until
from taskdist.local.controlplane import free_ports


@dataclass(frozen=True)
class Gateway:
    """A gateway that runs."""

    url: str
    metrics: str

    def counts(self, of: str) -> dict[str, float]:
        """The metrics whose names begin so, as they are written."""
        lines = httpx.get(self.metrics).text.splitlines()
        return {
            name: float(value) for name, _, value in (line.rpartition(" ") for line in lines) if name.startswith(of)
        }


@contextmanager
def running(kubeconfig: Path, directory: Path, settings: Mapping[str, str] = MappingProxyType({})) -> Iterator[Gateway]:
    """Start one with these credentials and settings, and see that it ends well when it is asked to."""
    port, metrics, health = free_ports(3)
    env = os.environ | {
        "KUBECONFIG": str(kubeconfig),
        "TASKDIST_HOST": "127.0.0.1",
        "TASKDIST_GATEWAY_PORT": str(port),
        "TASKDIST_METRICS_PORT": str(metrics),
        "TASKDIST_HEALTH_PORT": str(health),
        **settings,
    }
    log = directory / "gateway.log"
    with log.open("wb") as output:
        process = subprocess.Popen([sys.executable, "-m", "taskdist.cli.main", "gateway"], env=env, stderr=output)
    try:
        until(lambda: process.poll() is not None or _ready(health), "the gateway is ready")
        assert process.poll() is None, log.read_text()[-2000:]
        yield Gateway(f"http://127.0.0.1:{port}", f"http://127.0.0.1:{metrics}/metrics")
        process.terminate()
        assert process.wait(15) == 0, log.read_text()[-2000:]
    finally:
        process.kill()
        process.wait()


def _ready(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/readyz").status_code == 200
    except httpx.TransportError:
        return False
