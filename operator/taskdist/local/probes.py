"""Probes: one check of a container, and what a run of checks means.

Owns exec, httpGet and tcpSocket checks and the counting of thresholds. What follows from a verdict (unready, restart)
is for whoever runs the container. gRPC probes are refused by name.
"""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

import aiohttp

from taskdist.kube import Obj
from taskdist.local import processes
from taskdist.local.environment import Missing

Starter = Callable[[list[str]], subprocess.Popen[bytes]]
"""Starts a command as the container would: its variables, its directory, its marks."""


@dataclass
class ProbeTally:
    """Counts results in a row: the verdict changes at a threshold and stays between."""

    failure_threshold: int
    success_threshold: int
    verdict: bool | None = None
    _row: int = 0
    _last: bool | None = None

    @classmethod
    def of(cls, probe: Obj) -> ProbeTally:
        return cls(int(probe.get("failureThreshold") or 3), int(probe.get("successThreshold") or 1))

    def add(self, success: bool) -> bool | None:
        """Counts one result; returns the verdict, None while there is none yet."""
        self._row = self._row + 1 if success == self._last else 1
        self._last = success
        if self._row >= (self.success_threshold if success else self.failure_threshold):
            self.verdict = success
        return self.verdict


async def check(probe: Obj, container: Obj, address: str, start: Starter, session: aiohttp.ClientSession) -> str:
    """One check. Returns why it failed, or an empty string. Raises Missing for a kind that is not understood."""
    seconds = float(probe.get("timeoutSeconds") or 1)
    if (action := probe.get("httpGet")) is not None:
        return await _http(action, container, address, seconds, session)
    if (action := probe.get("tcpSocket")) is not None:
        return await _tcp(action.get("host") or address, port_of(action["port"], container), seconds)
    if (action := probe.get("exec")) is not None:
        return await _exec(start, list(action.get("command") or ()), seconds)
    raise Missing("the node knows exec, httpGet and tcpSocket probes only")


def port_of(port: int | str, container: Obj) -> int:
    """A port by number, or by its name among the container's ports. Raises Missing."""
    if isinstance(port, int):
        return port
    for each in container.get("ports") or ():
        if each.get("name") == port:
            return int(each["containerPort"])
    if port.isdigit():
        return int(port)
    raise Missing(f"container {container['name']} has no port named {port!r}")


async def _http(action: Obj, container: Obj, address: str, seconds: float, session: aiohttp.ClientSession) -> str:
    scheme = str(action.get("scheme") or "HTTP").lower()
    host, port = action.get("host") or address, port_of(action["port"], container)
    path = str(action.get("path") or "/")
    url = f"{scheme}://{host}:{port}{path if path.startswith('/') else '/' + path}"
    headers = {header["name"]: header["value"] for header in action.get("httpHeaders") or ()}
    timeout = aiohttp.ClientTimeout(total=seconds)
    try:
        async with session.get(url, headers=headers, timeout=timeout, allow_redirects=False, ssl=False) as response:
            return "" if 200 <= response.status < 400 else f"GET {url} answered {response.status}"
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        return f"GET {url}: {error or type(error).__name__}"


async def _tcp(host: str, port: int, seconds: float) -> str:
    try:
        async with asyncio.timeout(seconds):
            _, writer = await asyncio.open_connection(host, port)
    except (TimeoutError, OSError) as error:
        return f"connect to {host}:{port}: {error or type(error).__name__}"
    writer.close()
    return ""


async def _exec(start: Starter, command: list[str], seconds: float) -> str:
    try:
        process = start(command)
    except OSError as error:
        return f"{command}: {error}"
    try:
        async with asyncio.timeout(seconds):
            code = await processes.wait(process)
    except TimeoutError:
        return f"{command} took longer than {seconds:g} s"
    finally:
        if process.returncode is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    return "" if code == 0 else f"{command} exited with {code}"
