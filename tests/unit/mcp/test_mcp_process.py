"""`taskdist mcp` as agents start it: a process on standard input and output."""

import asyncio
import json
import os
import sys
from typing import Any

from mcp import Client, StdioServerParameters

COMMAND = [sys.executable, "-m", "taskdist.cli.main", "mcp"]


async def test_it_serves_on_standard_input_and_output() -> None:
    # Nobody listens there: what it serves without a cluster is all that is looked at.
    env = dict(os.environ) | {"TASKDIST_GATEWAY": "http://127.0.0.1:9", "TASKDIST_TOKEN": "t"}
    async with Client(StdioServerParameters(command=COMMAND[0], args=COMMAND[1:], env=env)) as client:
        names = {each.name for each in (await client.list_tools()).tools}
        answer = await client.call_tool("task-queue", {"request": {"action": "inspect", "task": "a"}})
    assert {"task-queue", "load-balancer", "scheduler"} <= names
    assert answer.is_error
    assert "cannot be reached" in str(answer.content)


async def test_without_a_cluster_it_says_what_is_missing_and_not_on_standard_output() -> None:
    env = {key: value for key, value in os.environ.items() if key != "TASKDIST_GATEWAY"} | {"NO_COLOR": "1"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *COMMAND, "--kubeconfig", "/there/is/none", env=env, stdin=pipe, stdout=pipe, stderr=pipe
    )
    out, err = await process.communicate(b"")
    assert (process.returncode, out) == (1, b"")
    assert err.startswith(b"error: ")
    assert b"/there/is/none" in err


async def test_standard_output_carries_the_protocol_and_nothing_else() -> None:
    """Neither odd input nor a log line gets in between."""
    env = dict(os.environ) | {"TASKDIST_GATEWAY": "http://127.0.0.1:9", "TASKDIST_TOKEN": "t"}
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*COMMAND, env=env, stdin=pipe, stdout=pipe, stderr=pipe, limit=2**24)
    assert process.stdin is not None
    assert process.stdout is not None
    hello = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
    failing = {"name": "task-queue", "arguments": {"request": {"action": "inspect", "task": "a"}}}
    sent: list[Any] = [
        b"\n",
        b"no JSON\n",
        b"\xff\xfe\x00\n",
        b'{"jsonrpc": "2.0", "id": 90}\n',
        b"[" * 100_000 + b"\n",
        b'"' + b"x" * 5_000_000 + b'"\n',
        _line(1, "initialize", hello),
        b'{"jsonrpc": "2.0", "method": "notifications/initialized"}\n',
        _line(2, "tools/call", failing),
        _line(3, "tools/call", {"name": "no-such", "arguments": {}}),
        _line(4, "tools/call", {"name": "task-queue", "arguments": {"request": "\ud800"}}),
        _line(5, "no/such", {}),
        _line(6, "resources/read", {"uri": "file:///etc/passwd"}),
        _line(7, "tools/list", {}),
    ]
    process.stdin.writelines(sent)
    answered: dict[Any, Any] = {}
    while not {1, 2, 3, 5, 6, 7} <= set(answered):
        message = json.loads(await asyncio.wait_for(process.stdout.readline(), 60))
        assert message["jsonrpc"] == "2.0"
        answered[message.get("id")] = message
    process.stdin.close()
    rest = await process.stdout.read()
    assert all(json.loads(line)["jsonrpc"] == "2.0" for line in rest.splitlines())
    assert await process.wait() == 0
    assert answered[2]["result"]["isError"] is True
    assert "error" in answered[6]
    assert {each["name"] for each in answered[7]["result"]["tools"]} >= {"task-queue", "load-balancer", "scheduler"}


def _line(number: int, method: str, params: dict[str, Any]) -> bytes:
    return json.dumps({"jsonrpc": "2.0", "id": number, "method": method, "params": params}).encode() + b"\n"
