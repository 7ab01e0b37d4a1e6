"""Another maker's client of the protocol, and a control plane with an operator and agents."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.controller.conftest import TIMINGS, make_room
from integration.controller.room import Room
from taskdist.local.controlplane import ControlPlane
from taskdist.local.stack import Stack

ROOT = Path(__file__).parents[3]
SOURCE = Path(__file__).with_name("other_client")
Ask = Callable[[dict[str, Any]], list[dict[str, Any]]]


@pytest.fixture(scope="session")
def other_client() -> Ask:
    """Carries out steps by the official TypeScript client: see ask.mjs."""
    node, npm = shutil.which("node"), shutil.which("npm")
    version = subprocess.run([node, "--version"], capture_output=True, text=True).stdout if node else "none"
    assert npm, "npm is missing: install Node.js 20 or newer"
    assert version.startswith("v"), "node is missing: install Node.js 20 or newer"
    assert int(version[1:].split(".")[0]) >= 20, f"node is {version.strip()}: install 20 or newer"
    there = ROOT / "build" / "other-client"
    there.mkdir(parents=True, exist_ok=True)
    lock = (SOURCE / "package-lock.json").read_text()
    ready = there / ".ready"
    for each in SOURCE.iterdir():
        shutil.copy(each, there)
    if not ready.exists() or ready.read_text() != lock:
        command = [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"]
        subprocess.run(command, cwd=there, check=True, timeout=300, stdout=subprocess.DEVNULL)
        ready.write_text(lock)

    def ask(wanted: dict[str, Any]) -> list[dict[str, Any]]:
        command = [str(node), "ask.mjs"]
        done = subprocess.run(
            command, cwd=there, input=json.dumps(wanted), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        answers: list[dict[str, Any]] = json.loads(done.stdout)
        return answers

    return ask


@pytest.fixture(scope="module")
def room() -> Iterator[Room]:
    """A namespace with queue `q` and two agents; all of it ends with the module."""
    with ControlPlane.start() as plane:
        stack = Stack.on(plane, ROOT, TIMINGS)
        try:
            stack.up(lambda _: None)
            rooms = make_room(stack, plane.client)
            room = next(rooms)
            room.queue()
            room.pool(replicas=2, ready=2)
            yield room
            next(rooms, None)
        finally:
            stack.down()
