"""A sink over HTTP with a real receiver, API server and operator, any of them killed at any moment."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from door_rights import ROOT, grant
from patience import until
from sink_room import HISTORIES, Room, each_end_is_told, room, what_a_sink_holds_stays
from taskdist.local.controlplane import free_ports
from taskdist.local.stack import Stack

pytestmark = pytest.mark.timeout(3600)


class HttpTarget:
    """The receiver, as `sink_room` wants it."""

    def __init__(self, folder: Path) -> None:
        self._book = folder / "taken"
        (self._port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        if self._process is not None and self._process.poll() is None:
            return
        command = [sys.executable, str(ROOT / "tests" / "sink_receiver.py"), str(self._port), str(self._book)]
        self._process = subprocess.Popen(command)
        until(self._answers, "the receiver answers")

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def prepare(self, name: str) -> None:
        self.start()

    def spec(self, name: str) -> dict[str, Any]:
        return {"http": {"url": f"http://127.0.0.1:{self._port}/{name}"}, "retry": {"maxSeconds": 2}}

    def secret(self) -> dict[str, str]:
        return {}

    def taken(self, name: str) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self._book.read_text().splitlines()] if self._book.exists() else []

    def _answers(self) -> bool:
        with socket.socket() as dialled:
            return dialled.connect_ex(("127.0.0.1", self._port)) == 0


@pytest.fixture(name="room")
def _room(stack: Stack, tmp_path: Path) -> Iterator[Room]:
    grant(stack, "sinks")
    target = HttpTarget(tmp_path)
    try:
        with room(stack, target) as made:
            yield made
    finally:
        target.kill()


@HISTORIES
def test_each_end_is_told_whatever_is_killed(
    room: Room, ends: int, kills: int, capsys: pytest.CaptureFixture[str]
) -> None:
    said = each_end_is_told(room, ends, kills)
    with capsys.disabled():
        print(f"\n{said}")


def test_what_a_sink_holds_is_not_deleted_before_it_is_told_or_its_time_is_over(room: Room) -> None:
    what_a_sink_holds_stays(room)
