"""The page of the MCP door: each example is a call that works, each partner has one, tools and resources are named."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import typer
from pages import DOCS, Block, blocks, rows

from mcp_agent import Agent
from taskdist.cli.main import PROGRAM, build
from taskdist.client.testing import FakeBackend
from unit.mcp.door import add_pod, add_pool, add_task, door

PAGE = "mcp.md"
# Of issue and mission: who works with the distributor.
PARTNERS = [
    "agent-organizer",
    "multi-agent-coordinator",
    "workflow-orchestrator",
    "performance-monitor",
    "error-coordinator",
    "context-manager",
    "knowledge-synthesizer",
]
EXAMPLES = [block for block in blocks("json") if block.page.name == PAGE]


@asynccontextmanager
async def served() -> AsyncIterator[Agent]:
    """What the examples speak of: a queue, a pool with an agent, a Task."""
    with FakeBackend("demo") as fake:
        fake.queue("analysis", pools=["analysts"])
        fake.hold()
        await add_pool(fake, "analysts", slots=2)
        await add_pod(fake, "analysts-0", "analysts")
        await add_task(fake, "analyse-1", "analysis")
        async with door(fake) as asked:
            yield asked


@pytest.mark.parametrize("block", EXAMPLES, ids=lambda block: " ".join(block.text.split())[:80])
async def test_each_example_is_a_call_that_works(block: Block) -> None:
    example: dict[str, Any] = json.loads(block.text)
    if "mcpServers" in example:
        started = example["mcpServers"]["task-distributor"]
        assert started["command"] == PROGRAM
        command: Any = typer.main.get_command(build(PROGRAM))
        name, *options = started["args"]
        command.commands[name].make_context(name, options)
        return
    async with served() as asked:
        if "uri" in example:
            assert (await asked.report(example["uri"])).startswith("# ")
        else:
            assert await asked.ask(example["name"], **example["arguments"])


@pytest.mark.parametrize("partner", PARTNERS)
def test_each_partner_has_an_example(partner: str) -> None:
    sections = dict(re.findall(r"^### (\S+)\n(.*?)(?=^### |\Z)", (DOCS / PAGE).read_text(), re.MULTILINE | re.DOTALL))
    assert set(sections) == set(PARTNERS)
    assert "```json" in sections[partner]


async def test_each_tool_and_each_resource_is_on_the_page() -> None:
    async with served() as asked:
        tools = {each.name for each in (await asked.client.list_tools()).tools}
        fixed = {str(each.uri) for each in (await asked.client.list_resources()).resources}
        templates = {each.uri_template for each in (await asked.client.list_resource_templates()).resource_templates}
    named = {row[0].strip("`") for row in rows(PAGE)}
    assert tools <= named
    text = (DOCS / PAGE).read_text()
    assert {each for each in fixed | templates if f"`{each}`" not in text} == set()
