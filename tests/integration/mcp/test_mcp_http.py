"""The MCP door over HTTP, on the real cluster, with the chart's rights: nobody gets more than by kubectl."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from mcp.shared.exceptions import MCPError

from integration.mcp.desk import Desk
from integration.mcp.over_http import Door, of_the_chart, running
from mcp_tasks import Tasks, ask, handle_of
from patience import until

# The first use of helm may build it.
pytestmark = pytest.mark.timeout(1200)
JSON = {"Content-Type": "application/json", "Accept": "application/json, text/event-stream"}


@pytest.fixture(scope="module")
def rights() -> list[dict[str, Any]]:
    return of_the_chart()


@pytest.fixture(scope="module")
def door(desk: Desk, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Door]:
    with running(desk, tmp_path_factory.mktemp("http")) as door:
        yield door


def test_its_own_account_may_review_tokens_and_read_whom_to_trust(rights: list[dict[str, Any]]) -> None:
    (role,) = (each for each in rights if each["kind"] == "ClusterRole")
    assert role["rules"] == [
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["taskdist-ca"], "verbs": ["get"]},
    ]


@pytest.fixture
def paused(door: Door) -> Iterator[str]:
    """A Task that waits in a paused queue, both of this name and gone with the test."""
    room = door.desk.room
    room.queue("led", paused=True)
    room.task("led", queue="led")
    yield "led"
    room.delete("tasks", "led")
    room.delete("taskqueues", "led")


async def test_the_leader_is_asked_in_its_callers_name(door: Door, paused: str) -> None:
    room = door.desk.room
    until(lambda: room.get("configmaps", "taskdist-ca"), "the operator says whom to trust")
    until(lambda: room.status("tasks", paused).get("phase") == "Pending", "the operator has seen it")
    async with door.by_session("reader") as agent:
        seen = await agent.ask("task-queue", request={"action": "inspect", "task": paused})
        told = await agent.ask("task-queue", request={"action": "explain", "task": paused})
    assert ("warnings" in seen, "warnings" in told) == (False, False), (seen, told)
    # Who may read this Task and nothing else hears why it waits: the cluster's objects would not tell.
    assert told["explanation"]["reason"] == "QueuePaused"


@pytest.mark.parametrize("form", ["by_session", "by_client"])
async def test_a_task_goes_from_submission_to_its_result_with_its_callers_rights(door: Door, form: str) -> None:
    async with getattr(door, form)() as agent:
        wanted = {"action": "submit", "queue": "q", "type": "echo", "payload": {"n": 1}, "idempotency_key": form}
        name = (await agent.ask("task-queue", request=wanted))["task"]["name"]
        done = await agent.ask("task-queue", request={"action": "wait", "task": name})
        assert done["task"]["result"] == {"n": 1}
        assert (await agent.ask("get_progress"))["numbers"]["tasks_distributed"] >= 1
        assert (await agent.report("taskdist://queues/q")).startswith("# Queue q\n")
    (made,) = (each for each in door.desk.room.items("tasks") if each["metadata"]["name"] == name)
    # Written in the caller's name, by this door.
    assert "taskdist-mcp" in {each["manager"] for each in made["metadata"]["managedFields"]}


async def test_nobody_gets_more_than_by_kubectl(door: Door) -> None:
    door.desk.room.task("there", "unheard-of")
    async with door.by_session("reader") as agent:
        seen = await agent.ask("task-queue", request={"action": "inspect", "task": "there"})
        assert seen["task"]["phase"] == "Pending"
        for tool, request in (
            ("task-queue", {"action": "submit", "queue": "q", "type": "echo"}),
            ("task-queue", {"action": "cancel", "task": "there"}),
            ("load-balancer", {"action": "pools"}),
            ("scheduler", {"action": "order"}),
        ):
            assert "is forbidden" in (said := await agent.refused(tool, request=request)), said
            assert ":reader" in said
    elsewhere = door.url.replace(door.desk.room.namespace, "kube-system")
    async with door.by_session("caller", elsewhere) as agent:
        said = await agent.refused("task-queue", request={"action": "inspect"})
        assert 'in the namespace "kube-system"' in said
    door.desk.room.delete("tasks", "there")


async def test_calls_at_once_are_each_in_their_own_callers_name(door: Door) -> None:
    """Two callers at once, of whom one may list queues."""
    allowed, refused = {"action": "queues"}, {"action": "queues"}
    async with door.by_client("caller") as one, door.by_client("reader") as other:
        for _ in range(3):
            asked = [one.ask("task-queue", request=allowed) for _ in range(8)]
            told = [other.refused("task-queue", request=refused) for _ in range(8)]
            answers = await asyncio.gather(*(each for pair in zip(asked, told, strict=True) for each in pair))
            assert [each["queues"][0]["name"] for each in answers[::2] if isinstance(each, dict)] == ["q"] * 8
            assert all(":reader" in str(each) for each in answers[1::2])


@pytest.mark.parametrize("token", ["", "not.a.token"])
def test_who_is_not_known_is_refused(door: Door, token: str) -> None:
    headers = JSON | ({"Authorization": f"Bearer {token}"} if token else {})
    answer = httpx.post(door.url, headers=headers, json={"jsonrpc": "2.0", "id": 1, "method": "tools/list"})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize("version", ["2025-06-18", "2026-07-28"])
async def test_who_leaves_gives_the_place_back(door: Door, version: str) -> None:
    door.desk.room.task("endless", "unheard-of")
    until(lambda: door.metric("taskdist_mcp_calls") == 0, "nobody calls")
    request = {"action": "wait", "task": "endless", "timeout_seconds": 600}
    meta = {
        "io.modelcontextprotocol/protocolVersion": version,
        "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
        "io.modelcontextprotocol/clientCapabilities": {},
    }
    wait = {"name": "task-queue", "arguments": {"request": request}, "_meta": meta}
    body = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": wait}
    headers = JSON | {"Authorization": f"Bearer {door.desk.token('caller')}", "MCP-Protocol-Version": version}
    headers |= {"Mcp-Method": "tools/call", "Mcp-Name": "task-queue"}
    async with httpx.AsyncClient(headers=headers, timeout=60) as client:
        calls = [asyncio.create_task(client.post(door.url, json=body)) for _ in range(20)]
        await asyncio.to_thread(until, lambda: door.metric("taskdist_mcp_calls") == 20, "all wait")
        full = await client.post(door.url, json=body)
        assert full.status_code == 429
        for each in calls:
            each.cancel()
        await asyncio.gather(*calls, return_exceptions=True)
    await asyncio.to_thread(until, lambda: door.metric("taskdist_mcp_calls") == 0, "their places are free")
    door.desk.room.delete("tasks", "endless")


async def test_a_server_that_is_killed_between_calls_loses_nothing_and_no_session(door: Door) -> None:
    """A connected client goes on with the next server: there is nothing to connect to anew."""
    wanted = {"action": "submit", "queue": "q", "type": "echo", "payload": {"n": 2}, "idempotency_key": "killed-http"}
    async with door.by_session() as agent:
        first = await agent.ask("task-queue", request=wanted)
        await asyncio.to_thread(door.stop, signal.SIGKILL)
        await asyncio.to_thread(door.start)
        again = await agent.ask("task-queue", request=wanted)
        done = await agent.ask("task-queue", request={"action": "wait", "task": first["task"]["name"]})
    assert (first["created"], again["created"]) == (True, False)
    assert (again["task"]["name"], done["task"]["result"]) == (first["task"]["name"], {"n": 2})


async def test_a_handle_outlives_its_server_and_is_its_readers_alone(door: Door) -> None:
    door.desk.account("stranger", [])
    wanted = {"action": "submit", "queue": "q", "type": "unheard-of", "wait_seconds": 600, "idempotency_key": "long"}
    async with door.by_client(tasks=Tasks()) as agent:
        handle = await handle_of(agent.client, wanted)
        assert handle.status == "working"
    await asyncio.to_thread(door.stop, signal.SIGKILL)
    await asyncio.to_thread(door.start)
    async with door.by_client("stranger", tasks=Tasks()) as stranger:
        with pytest.raises(MCPError, match="is forbidden"):
            await ask(stranger.client, "tasks/get", taskId=handle.task_id)
        # Who may not read it does not learn whether it is there.
        with pytest.raises(MCPError, match="is forbidden"):
            await ask(stranger.client, "tasks/get", taskId="nope:1")
    tasks = Tasks()
    async with asyncio.timeout(120), door.by_client(tasks=tasks) as agent:
        again = await handle_of(agent.client, wanted)
        assert again.task_id == handle.task_id
        listening = asyncio.create_task(
            ask(agent.client, "subscriptions/listen", notifications={"taskIds": [handle.task_id]})
        )
        await tasks.hears(lambda: bool(tasks.told))
        await ask(agent.client, "tasks/cancel", taskId=handle.task_id)
        assert (await listening)["resultType"] == "complete"
        await tasks.hears(lambda: tasks.told[-1]["status"] == "cancelled")
        assert (await ask(agent.client, "tasks/get", taskId=handle.task_id))["status"] == "cancelled"
