"""Long tool calls as tasks of the protocol: the extension `io.modelcontextprotocol/tasks` (SEP-2663).

A call that would wait for a Task's end (`submit` with `wait_seconds`, `wait`) is answered at once to a client that
declares the extension: with a handle. Behind it stands the Task itself, which the API server holds: it is durable
before the call is answered, and any server answers for it, also one that was started later. Who may read the Task may
ask for it, by `tasks/get` or, for as long as they listen, by `notifications/tasks`.

    Task                               task of the protocol
    Pending, Assigned                  working
    Succeeded, Failed, DeadLettered    completed, with what action wait answers
    Cancelled                          cancelled
"""

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing, suppress
from typing import Any, cast

from mcp.server.context import CallNext, HandlerResult, ServerRequestContext
from mcp.server.extension import Extension, MethodBinding
from mcp.shared.exceptions import MCPError
from mcp.shared.subscriptions import SUBSCRIPTION_ID_META_KEY
from mcp.types import CallToolRequestParams, CallToolResult, RequestParams, TextContent
from mcp_types import INTERNAL_ERROR, INVALID_PARAMS, MISSING_REQUIRED_CLIENT_CAPABILITY
from mcp_types.version import MODERN_PROTOCOL_VERSIONS
from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from taskdist.api import Phase
from taskdist.client import TaskState
from taskdist.client.errors import TaskdistError, TaskGone, TaskNotFound
from taskdist.client.states import status_of
from taskdist.mcp.errors import Refusal, explained
from taskdist.mcp.forms import TaskName
from taskdist.mcp.patience import Patience
from taskdist.mcp.reading import Reading
from taskdist.mcp.task_queue import ended_answer
from taskdist.mcp.wording import standing
from taskdist.protocol import convert

EXTENSION = "io.modelcontextprotocol/tasks"
MOST_LISTENED = 20
"""Tasks that one stream tells of."""
MOST_LISTENED_AT_ONCE = 200
"""Tasks that all streams of a server tell of: each costs a watch. Who comes too late polls."""
LISTEN_SECONDS = 600.0
"""A stream ends after so long, well: who still wants to hear listens anew, and is told how it stands first."""
LEAST_POLL, MOST_POLL = 1_000, 30_000
MODERN = frozenset(MODERN_PROTOCOL_VERSIONS)
"""An answer of another shape has no place in earlier forms of the protocol."""
_NAME: TypeAdapter[str] = TypeAdapter(TaskName)


class TaskParams(RequestParams):
    """The task that is meant."""

    task_id: str = Field(alias="taskId", max_length=400)


class UpdateParams(TaskParams):
    """Answers to what a task asks of its client."""

    input_responses: dict[str, Any] = Field(alias="inputResponses")


class _Message(BaseModel):
    method: str
    params: dict[str, Any]


class LongCalls(Extension):
    """The extension on the server's side: handles in place of answers that are not there yet."""

    identifier = EXTENSION

    def __init__(self, reading: Reading, patience: Patience, clock: Callable[[], float]) -> None:
        self._reading = reading
        self._patience = patience
        self._clock = clock
        self._listened = 0

    def methods(self) -> Sequence[MethodBinding]:
        return [
            MethodBinding("tasks/get", TaskParams, self._get, MODERN),
            MethodBinding("tasks/update", UpdateParams, self._update, MODERN),
            MethodBinding("tasks/cancel", TaskParams, self._cancel, MODERN),
        ]

    async def intercept_tool_call(
        self, params: CallToolRequestParams, ctx: ServerRequestContext[Any, Any], call_next: CallNext
    ) -> HandlerResult:
        """Answer a call that would wait with a handle, if it is not over already."""
        if not _would_wait(params) or ctx.protocol_version not in MODERN or not _declared(ctx):
            return await call_next(ctx)
        with self._patience.none():
            result = await call_next(ctx)
        if not isinstance(result, CallToolResult) or result.is_error:
            return result
        task = (result.structured_content or {}).get("task") or {}
        if task.get("over") is not False:
            return result
        try:
            with explained():
                state = await self._reading.client.get(task["name"])
        except Refusal:
            return result  # it was submitted, and its name is told
        return {**await self._told(state), "resultType": "task"} if state.uid == task["uid"] else result

    async def listen(self, ctx: ServerRequestContext[Any, Any], call_next: CallNext) -> HandlerResult:
        """Serve `subscriptions/listen` for tasks: the server's middleware, as the method is the protocol's own."""
        wanted = _task_ids(ctx.params) if ctx.method == "subscriptions/listen" else None
        if wanted is None or ctx.request_id is None or ctx.protocol_version not in MODERN:
            return await call_next(ctx)
        _demand(ctx)
        if not all(isinstance(each, str) for each in wanted) or len(wanted) > MOST_LISTENED:
            raise MCPError(INVALID_PARAMS, f"taskIds: name at most {MOST_LISTENED} tasks by their ids")
        if self._listened + len(wanted) > MOST_LISTENED_AT_ONCE:
            raise MCPError(INTERNAL_ERROR, "Subscription limit reached: poll by tasks/get, or listen later")
        self._listened += len(wanted)
        try:
            return await self._tell_all(ctx, wanted)
        finally:
            self._listened -= len(wanted)

    async def _tell_all(self, ctx: ServerRequestContext[Any, Any], wanted: Sequence[str]) -> HandlerResult:
        meta = {SUBSCRIPTION_ID_META_KEY: ctx.request_id}
        # Those that are not there, or not the caller's to read, are left out, as the acknowledgement says.
        there = [each for each in dict.fromkeys(wanted) if await self._is_there(each)]
        acknowledged = {"_meta": meta, "notifications": {"taskIds": there}}
        await _notify(ctx, "notifications/subscriptions/acknowledged", acknowledged)
        with suppress(TimeoutError):
            async with asyncio.timeout(LISTEN_SECONDS), asyncio.TaskGroup() as group:
                for each in there:
                    group.create_task(self._tell(ctx, each, meta))
        return {"resultType": "complete", "_meta": meta}

    async def _tell(self, ctx: ServerRequestContext[Any, Any], task_id: str, meta: dict[str, Any]) -> None:
        with suppress(TaskdistError):
            async with aclosing(self._states(task_id)) as states:
                async for state in states:
                    await _notify(ctx, "notifications/tasks", {**await self._told(state), "_meta": meta})

    async def _states(self, task_id: str) -> AsyncGenerator[TaskState, None]:
        state = await self._read(task_id)
        async with aclosing(self._reading.client.watch(state)) as states:
            async for each in states:
                yield each

    async def _is_there(self, task_id: str) -> bool:
        try:
            await self._read(task_id)
        except MCPError:
            return False
        return True

    async def _get(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        _demand(ctx)
        return {**await self._told(await self._read(params.task_id)), "resultType": "complete"}

    async def _update(self, ctx: ServerRequestContext[Any, Any], params: UpdateParams) -> HandlerResult:
        """Acknowledge: nothing is asked of clients yet, and answers to what was not asked are left unread."""
        _demand(ctx)
        await self._read(params.task_id)
        return {"resultType": "complete"}

    async def _cancel(self, ctx: ServerRequestContext[Any, Any], params: TaskParams) -> HandlerResult:
        _demand(ctx)
        state = await self._read(params.task_id)
        try:
            with explained():
                await self._reading.client.cancel(state)
        except Refusal as refusal:
            raise MCPError(INVALID_PARAMS, f"Failed to cancel task: {refusal}") from refusal
        return {"resultType": "complete"}

    async def _read(self, task_id: str) -> TaskState:
        """Read the Task of this id, with the caller's rights. Raises MCPError."""
        name, _, uid = task_id.rpartition(":")
        try:
            state = await self._reading.client.get(_NAME.validate_python(name))
        except (ValidationError, TaskNotFound, TaskGone) as error:
            raise MCPError(INVALID_PARAMS, "Failed to retrieve task: Task not found") from error
        except TaskdistError as error:
            # A missing right says which; what fails for now may be asked again.
            raise MCPError(INTERNAL_ERROR, f"Failed to retrieve task: {error}") from error
        if state.uid != uid:
            raise MCPError(INVALID_PARAMS, "Failed to retrieve task: Task not found")
        return state

    async def _told(self, state: TaskState) -> dict[str, Any]:
        status, created = status_of(state.obj), str(state.obj["metadata"].get("creationTimestamp") or "")
        moments = [status.get(name) for name in ("finishedAt", "startedAt", "assignedAt")]
        told: dict[str, Any] = {
            "taskId": f"{state.name}:{state.uid}",
            "status": "working",
            "statusMessage": standing(state),
            "createdAt": created,
            "lastUpdatedAt": next((str(each) for each in moments if each), created),
            "ttlMs": None,
            "pollIntervalMs": self._poll(state),
        }
        if state.settled:
            told["ttlMs"] = await self._ttl(state)
            told["status"] = "cancelled" if state.phase == Phase.CANCELLED else "completed"
            if told["status"] == "completed":
                told["result"] = _result(state)
        return told

    async def _ttl(self, state: TaskState) -> int | None:
        """Milliseconds from its creation that an ended Task is kept; None where that is until somebody deletes it."""
        seconds = state.obj["spec"].get("ttlSecondsAfterFinished")
        if seconds is None:
            with suppress(Refusal):
                (queue,), _ = await self._reading.queues(state.queue)
                dead = state.phase == Phase.DEAD_LETTERED
                seconds = queue.spec.dead_letter_ttl_seconds if dead else queue.spec.ttl_seconds_after_finished
        created = convert.seconds(state.obj["metadata"].get("creationTimestamp"))
        finished = convert.seconds(status_of(state.obj).get("finishedAt"))
        return None if seconds is None or not finished else int((finished - created + seconds) * 1000)

    def _poll(self, state: TaskState) -> int:
        """Milliseconds until it is worth asking again: the older the Task, the longer."""
        age = self._clock() - convert.seconds(state.obj["metadata"].get("creationTimestamp"))
        return int(min(MOST_POLL, max(LEAST_POLL, age * 100)))


def _would_wait(params: CallToolRequestParams) -> bool:
    request = (params.arguments or {}).get("request")
    if params.name != "task-queue" or not isinstance(request, dict):
        return False
    match request.get("action"):
        case "wait":
            return bool(request.get("timeout_seconds", 1))
        case "submit":
            return bool(request.get("wait_seconds"))
    return False


def _declared(ctx: ServerRequestContext[Any, Any]) -> bool:
    capabilities = ctx.session.client_capabilities
    return capabilities is not None and EXTENSION in (capabilities.extensions or {})


def _demand(ctx: ServerRequestContext[Any, Any]) -> None:
    if not _declared(ctx):
        missing: dict[str, Any] = {"requiredCapabilities": {"extensions": {EXTENSION: {}}}}
        raise MCPError(MISSING_REQUIRED_CLIENT_CAPABILITY, "Missing required client capability", missing)


def _task_ids(params: Mapping[str, Any] | None) -> list[Any] | None:
    """Return the tasks that a request to listen names; None where it names none."""
    wanted = (params or {}).get("notifications")
    ids = wanted.get("taskIds") if isinstance(wanted, dict) else None
    return ids if isinstance(ids, list) else None


async def _notify(ctx: ServerRequestContext[Any, Any], method: str, params: dict[str, Any]) -> None:
    """Send a notification on the stream of this request."""
    message = _Message(method=method, params=params)
    # The package's union of notifications has none of extensions; it writes any that has a method and parameters.
    await ctx.session.send_notification(cast(Any, message), related_request_id=ctx.request_id)


def _result(state: TaskState) -> dict[str, Any]:
    """Answer with the end of a Task, as action wait does."""
    data = ended_answer(state).model_dump(mode="json")
    text = TextContent(text=json.dumps(data, indent=2, ensure_ascii=False))
    return CallToolResult(content=[text], structured_content=data).model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
