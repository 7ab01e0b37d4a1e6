"""`taskdist mcp` as agents start it: a process on standard input and output."""

import asyncio
import os
import sys

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
