"""Another maker's client of the protocol, and a queue with agents."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from integration.controller.conftest import ROOT, make_room
from integration.controller.room import Room
from integration.mcp.desk import RULES, Desk
from integration.mcp.over_http import Door, running
from taskdist.local.stack import Stack

SOURCE = Path(__file__).with_name("other_client")
Ask = Callable[..., Any]


@pytest.fixture(scope="session")
def other_client() -> Ask:
    """The other client: a call runs ask.mjs, or another of the scripts, on its input and returns its output."""
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

    def ask(wanted: dict[str, Any], script: str = "ask.mjs") -> Any:
        command = [str(node), script]
        done = subprocess.run(
            command, cwd=there, input=json.dumps(wanted), capture_output=True, text=True, timeout=240, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        return json.loads(done.stdout)

    return ask


@pytest.fixture(scope="module")
def room(stack: Stack) -> Iterator[Room]:
    """A namespace with queue `q` and two agents."""
    rooms = make_room(stack, stack.plane.client)
    room = next(rooms)
    room.queue()
    room.pool(replicas=2, ready=2)
    yield room
    next(rooms, None)


@pytest.fixture(scope="module")
def door(room: Room, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    """The door over HTTP."""
    desk = Desk(room, tmp_path_factory.mktemp("mcp"))
    desk.account("caller", RULES)
    with running(desk, desk.directory) as door:
        yield door
