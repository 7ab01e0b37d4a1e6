"""`taskdist mcp` asked by another maker's client, the official one for TypeScript, in both forms of the protocol."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from integration.controller.room import Room
from integration.mcp.over_http import Door

Ask = Callable[..., Any]
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
@pytest.mark.parametrize("way", ["stdio", "http"])
def test_a_task_is_submitted_awaited_measured_and_reported(
    room: Room, door: Door, other_client: Ask, way: str, mode: str
) -> None:
    stdio: dict[str, Any] = {
        "command": sys.executable,
        "args": ["-m", "taskdist.cli.main", "mcp", "--namespace", room.namespace],
        "env": {"KUBECONFIG": str(room.stack.kubeconfig)},
    }
    server = stdio if way == "stdio" else {"url": door.url, "headers": headers(door)}
    submit = {"action": "submit", "queue": "q", "type": "echo", "payload": {"n": 1}, "idempotency_key": way + mode}
    answers = other_client({"server": server, "mode": mode, "steps": steps(submit)})
    tools, made, again, done, progress, refused, report = answers
    assert {each["name"] for each in tools["tools"]} >= {"task-queue", "load-balancer", "scheduler"}
    assert (made["structuredContent"]["created"], again["structuredContent"]["created"]) == (True, False)
    task = done["structuredContent"]["task"]
    assert (task["phase"], task["result"]) == ("Succeeded", {"n": 1})
    assert progress["structuredContent"]["numbers"]["tasks_distributed"] >= 1
    assert refused["isError"] is True
    assert "Did you mean 'q'?" in refused["content"][0]["text"]
    assert report["contents"][0]["text"].startswith("# Queue q\n")


def test_a_long_call_has_the_shapes_that_the_extension_s_own_package_gives(
    room: Room, door: Door, other_client: Ask, tmp_path: Path
) -> None:
    payload = {"file": str(tmp_path / "beats"), "seconds": 3}
    submit = {"action": "submit", "queue": "q", "type": "trace", "payload": payload, "wait_seconds": 600}
    wanted = {"url": door.url, "headers": headers(door), "arguments": {"request": submit}}
    told = other_client(wanted, "follow.mjs")
    assert (told["made"]["status"], told["polled"]["status"]) == ("working", "working")
    assert told["heard"][0]["method"] == "notifications/subscriptions/acknowledged"
    assert told["told"][-1]["params"]["status"] == told["done"]["status"] == "completed"
    assert told["done"]["result"]["structuredContent"]["task"]["phase"] == "Succeeded"


def headers(door: Door) -> dict[str, str]:
    return {"Authorization": f"Bearer {door.desk.token('caller')}"}


def steps(submit: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {"tools": True},
        {"call": "task-queue", "arguments": {"request": submit}, "keep": "made"},
        {"call": "task-queue", "arguments": {"request": submit}},
        {"call": "task-queue", "arguments": {"request": {"action": "wait", "task": "$made"}}},
        {"call": "get_progress", "arguments": {"period_seconds": 600}},
        {"call": "task-queue", "arguments": {"request": {"action": "queues", "queue": "qq"}}},
        {"read": "taskdist://queues/q"},
    ]
