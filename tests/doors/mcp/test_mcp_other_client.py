"""`taskdist mcp` asked by another maker's client, the official one for TypeScript, in both forms of the protocol."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import pytest

from integration.controller.room import Room

Ask = Callable[[dict[str, Any]], list[dict[str, Any]]]
pytestmark = pytest.mark.timeout(600)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_task_is_submitted_awaited_measured_and_reported(room: Room, other_client: Ask, mode: str) -> None:
    server = {
        "command": sys.executable,
        "args": ["-m", "taskdist.cli.main", "mcp", "--namespace", room.namespace],
        "env": {"KUBECONFIG": str(room.stack.kubeconfig)},
    }
    submit = {"action": "submit", "queue": "q", "type": "echo", "payload": {"n": 1}, "idempotency_key": mode}
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
