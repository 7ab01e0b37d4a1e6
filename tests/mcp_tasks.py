"""A client's side of the protocol's Tasks extension, as small as it can be."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Literal, cast

from mcp import Client, ClientSession
from mcp.client.extension import ClientExtension, NotificationBinding, ResultClaim
from mcp.types import CallToolResult, Request, Result
from pydantic import BaseModel, ConfigDict, Field

EXTENSION = "io.modelcontextprotocol/tasks"


class Handle(Result):
    """A handle, answered in place of the result."""

    model_config = ConfigDict(extra="allow")
    result_type: Literal["task"] = Field("task", alias="resultType")
    task_id: str = Field(alias="taskId")
    status: str
    ttl_ms: int | None = Field(alias="ttlMs")
    poll_interval_ms: int = Field(alias="pollIntervalMs")


class Whole(Result):
    """Any answer, as it is."""

    model_config = ConfigDict(extra="allow")


class TaskRequest(Request[dict[str, Any], str]):
    name_param = "taskId"


class Told(BaseModel):
    model_config = ConfigDict(extra="allow")


class Tasks(ClientExtension):
    """The extension on a client's side: takes handles, and gathers what it is told."""

    identifier = EXTENSION

    def __init__(self) -> None:
        self.told: list[dict[str, Any]] = []
        self.news = asyncio.Condition()

    async def hears(self, condition: Callable[[], bool]) -> None:
        """Wait until what it was told makes this true."""
        async with self.news:
            await self.news.wait_for(condition)

    def claims(self) -> list[ResultClaim[Any]]:
        async def never(handle: Handle, _: object) -> CallToolResult:
            raise AssertionError(handle)

        return [ResultClaim(result_type="task", model=Handle, resolve=never)]

    def notifications(self) -> list[NotificationBinding[Any]]:
        async def hear(params: Told) -> None:
            async with self.news:
                self.told.append(params.model_dump())
                self.news.notify_all()

        return [NotificationBinding(method="notifications/tasks", params_type=Told, handler=hear)]


async def handle_of(client: Client | ClientSession, request: dict[str, Any]) -> Handle:
    """Make a long call of task-queue; return the handle."""
    session = client.session if isinstance(client, Client) else client
    handle = await session.call_tool("task-queue", {"request": request}, allow_claimed=True)
    assert isinstance(handle, Handle), handle
    return handle


async def ask(client: Client | ClientSession, method: str, **params: Any) -> dict[str, Any]:
    """Send any request; return its whole answer."""
    session = client.session if isinstance(client, Client) else client
    kind = TaskRequest if "taskId" in params else Request[dict[str, Any], str]
    answer = await session.send_request(cast(Any, kind(method=method, params=params)), Whole)
    return answer.model_dump(by_alias=True, exclude_none=True)
