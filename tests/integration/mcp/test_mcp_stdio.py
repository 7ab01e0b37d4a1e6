"""The MCP door on the real cluster, by the protocol's own client: from submission to measured figures, and killed."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from mcp import Client, ClientSession, StdioServerParameters
from mcp.client.stdio import stdio_client
from mcp.shared.exceptions import MCPError

from integration.mcp.desk import Desk
from mcp_agent import Agent

QUERY = "Distribution context needed: task volumes, agent capacities, priority schemes, performance targets."


@asynccontextmanager
async def by_session(server: StdioServerParameters) -> AsyncIterator[Agent]:
    """Connect as agents of today do: with a handshake."""
    async with stdio_client(server) as streams, ClientSession(*streams) as session:
        await session.initialize()
        yield Agent(session)


@asynccontextmanager
async def by_client(server: StdioServerParameters) -> AsyncIterator[Agent]:
    """Connect by the newest form of the protocol, without a handshake."""
    async with Client(server) as client:
        yield Agent(client)


@pytest.mark.parametrize("asking", [by_session, by_client])
async def test_a_delivery_from_submission_to_its_notification(desk: Desk, asking: Any) -> None:
    async with asking(desk.server()) as agent:
        queues = await agent.ask("task-queue", request={"action": "queues"})
        assert [(each["name"], each["accepting"]) for each in queues["queues"]] == [("q", True)]
        names = []
        for number in range(3):
            wanted = {"action": "submit", "queue": "q", "type": "echo", "payload": {"n": number}}
            wanted |= {"idempotency_key": f"{asking.__name__}-{number}", "deadline": "2040-01-01T00:00:00Z"}
            names.append((await agent.ask("task-queue", request=wanted))["task"]["name"])
        for number, name in enumerate(names):
            done = await agent.ask("task-queue", request={"action": "wait", "task": name})
            assert (done["task"]["over"], done["task"]["result"]) == (True, {"n": number})
        progress = await agent.ask("get_progress", period_seconds=600)
        assert progress["numbers"]["tasks_distributed"] >= 3
        assert progress["progress"]["deadline_success"] == "100%"
        assert progress["progress"]["avg_queue_time"]
        told = (await agent.ask("get_delivery_notification", period_seconds=600))["message"]
        assert f"Distributed {progress['progress']['tasks_distributed']} tasks" in told
        context = await agent.ask(
            "get_distribution_context",
            requesting_agent="task-distributor",
            request_type="get_distribution_context",
            payload={"query": QUERY},
        )
        (pool,) = context["context"]["agent_capacities"]
        assert (pool["name"], pool["agents_ready"], pool["slots"]) == ("p", 2, 4)
        assert (await agent.report("taskdist://queues/q")).startswith("# Queue q\n")


async def test_what_waits_is_explained_ordered_and_played_forward(desk: Desk, tmp_path: Path) -> None:
    """Four slots are busy until a file appears; one more Task waits behind them."""
    room, gate = desk.room, tmp_path / "open"
    payload = {"file": str(tmp_path / "beats"), "until": str(gate)}
    for number in range(4):
        room.task(f"busy-{number}", "trace", payload)
    for number in range(4):
        room.in_phase(f"busy-{number}", "Assigned")
    try:
        async with by_session(desk.server()) as agent:
            wanted = {"action": "submit", "queue": "q", "type": "echo", "name": "behind"}
            await agent.ask("task-queue", request=wanted)
            why = await agent.ask("task-queue", request={"action": "explain", "task": "behind"})
            assert why["explanation"]["reason"] in ("NoFreeSlots", "Queued")
            load = await agent.ask("load-balancer", request={"action": "load", "pool": "p"})
            assert (load["load"][0]["slots"], load["load"][0]["busy_slots"]) == (4, 4)
            order = await agent.ask("scheduler", request={"action": "order", "queue": "q"})
            assert [each["task"] for each in order["order"]] == ["behind"]
            more = {"action": "simulate", "queue": "q", "agents": {"p": 1}}
            found = await agent.ask("scheduler", request=more)
            assert found["comparison"]["task"] == "behind"
            early = await agent.ask("task-queue", request={"action": "wait", "task": "behind", "timeout_seconds": 0.2})
            assert (early["task"]["over"], early["task"]["phase"]) == (False, "Pending")
            await agent.ask("task-queue", request={"action": "cancel", "task": "behind"})
            ended = await agent.ask("task-queue", request={"action": "wait", "task": "behind"})
            assert ended["task"]["phase"] == "Cancelled"
    finally:
        gate.touch()
    room.ended(*(f"busy-{number}" for number in range(4)))


async def test_a_server_that_is_killed_between_calls_loses_nothing(desk: Desk, tmp_path: Path) -> None:
    """Killed before it answers again: what was asked is asked of the next server."""
    gate = tmp_path / "open"
    payload = {"file": str(tmp_path / "beats"), "until": str(gate)}
    wanted = {"action": "submit", "queue": "q", "type": "trace", "payload": payload, "idempotency_key": "killed"}
    names: list[str] = []
    for created in (True, False):
        async with by_session(desk.server()) as agent:
            made = await agent.ask("task-queue", request=wanted)
            assert made["created"] is created
            names.append(made["task"]["name"])
            os.kill(desk.pid(), signal.SIGKILL)
            with pytest.raises(MCPError, match="Connection closed"):
                await agent.ask("task-queue", request={"action": "wait", "task": names[-1]})
    (name,) = set(names)
    gate.touch()
    async with by_session(desk.server()) as agent:
        done = await agent.ask("task-queue", request={"action": "wait", "task": name})
        every = await agent.ask("task-queue", request={"action": "inspect", "queue": "q", "most": 200})
    assert (done["task"]["phase"], done["task"].get("failed_attempts")) == ("Succeeded", None)
    assert [each["name"] for each in every["tasks"] if each["type"] == "trace"].count(name) == 1


async def test_it_may_do_what_its_credentials_may(desk: Desk) -> None:
    desk.room.task("seen", "unheard-of")
    async with by_session(desk.server("reader")) as agent:
        seen = await agent.ask("task-queue", request={"action": "inspect", "task": "seen"})
        assert seen["task"]["phase"] == "Pending"
        for tool, request in (
            ("task-queue", {"action": "submit", "queue": "q", "type": "echo"}),
            ("task-queue", {"action": "cancel", "task": "seen"}),
            ("task-queue", {"action": "queues"}),
            ("load-balancer", {"action": "load"}),
            ("scheduler", {"action": "order"}),
        ):
            said = await agent.refused(tool, request=request)
            assert "ask for `get`, `list`, `watch`, `create` and `patch` on tasks" in said
    desk.room.delete("tasks", "seen")
