"""An agent that asks the MCP door: calls that are answered, calls that are refused, and reports."""

from __future__ import annotations

from typing import Any

from mcp import Client, ClientSession


class Agent:
    """A client of the protocol that holds answers to their form."""

    def __init__(self, client: Client | ClientSession) -> None:
        self.client = client

    async def ask(self, tool: str, **arguments: Any) -> dict[str, Any]:
        """Return the typed answer of a call that must not fail."""
        answer = await self.client.call_tool(tool, arguments)
        assert not answer.is_error, answer.content
        assert isinstance(answer.structured_content, dict)
        return answer.structured_content

    async def refused(self, tool: str, **arguments: Any) -> str:
        """Return the words of a call that must fail."""
        answer = await self.client.call_tool(tool, arguments)
        assert answer.is_error
        return str(getattr(answer.content[0], "text", ""))

    async def report(self, uri: str) -> str:
        """Return the text of a report."""
        (part,) = (await self.client.read_resource(uri)).contents
        assert part.mime_type == "text/markdown"
        return str(getattr(part, "text", ""))
