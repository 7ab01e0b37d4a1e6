"""The requests that are answered: what each needs, whom it asks, what it says."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Header, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.security import HTTPBearer

from taskdist.api import Phase
from taskdist.api.problems import MEDIA_TYPE, ProblemDetails
from taskdist.client import changing, explaining
from taskdist.client.backend import Source, Told
from taskdist.client.errors import NoAnswer, TaskdistError, instead
from taskdist.client.kube import KubeBackend
from taskdist.client.leaders_view import LeadersView
from taskdist.client.states import settled
from taskdist.gateway import bodies, streams
from taskdist.gateway.board import Board
from taskdist.gateway.callers import Callers, Visitor
from taskdist.gateway.filters import wanted
from taskdist.gateway.problems import RETRY_SECONDS, Problem, of_kube
from taskdist.gateway.shapes import TaskDocument, TaskExplanation, TaskPage, TaskRow
from taskdist.gateway.submitting import MANAGER, Submitted, Submitter
from taskdist.gateway.waiting import Places
from taskdist.kube import TASKS, KubeError, Obj

LONGEST_WAIT = 300.0
BULK_AT_ONCE = 8
"""Tasks of one bulk that are submitted at once."""
EXPLANATIONS = 8
"""Tasks that are explained at once."""
BULKS = 8
"""Bulks that are taken at once."""
TASKS_PATH = "/v1/namespaces/{namespace}/tasks"
TASK_PATH = TASKS_PATH + "/{name}"

# For the description only: the token itself is read by `callers`.
SECURITY = Depends(HTTPBearer(auto_error=False, description="A token of the cluster, as kubectl sends it."))

Wait = Annotated[float, Query(ge=0, le=LONGEST_WAIT, description="Stay so many seconds for its end.")]
Key = Annotated[
    str | None,
    Header(alias="Idempotency-Key", description="Submitting again with the same key finds the same Task."),
]
Name = Annotated[str, Query(max_length=253, description="Only the Task of this name.")]
Whole = Annotated[bool, Query(description="With payloads and results, where a Task changes.")]
LastSeen = Annotated[
    str | None,
    Header(alias="Last-Event-ID", description="The id of the last event that was seen: only what came after it."),
]
Queue = Annotated[str, Query(max_length=63, description="Only Tasks of this queue.")]
Type = Annotated[str, Query(max_length=63, description="Only Tasks of this type.")]
Phases = Annotated[list[Phase], Query(max_length=8, description="Only Tasks in one of these phases.")]
Selector = Annotated[str, Query(max_length=2000, alias="labelSelector", description="Only these, as for kubectl.")]


def _refusals(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {
        status: {"model": ProblemDetails, "content": {MEDIA_TYPE: {}}}
        for status in sorted({400, 401, 403, 422, 429, 503, 504, *statuses})
    }


def _body(model: str, description: str) -> dict[str, Any]:
    """Describe a body that is read by hand, to bound it and to keep numbers as they are."""
    schema = {"$ref": f"#/components/schemas/{model}"}
    return {"requestBody": {"required": True, "description": description, "content": {bodies.JSON: {"schema": schema}}}}


class Routes:
    """Answers requests about Tasks."""

    def __init__(
        self, board: Board, callers: Callers, submitter: Submitter, places: Places, leader: LeadersView
    ) -> None:
        self._board = board
        self._callers = callers
        self._submitter = submitter
        self._places = places
        self._leader = leader
        # One that the leader does not answer reads a whole namespace.
        self._explanations = Places(EXPLANATIONS)
        # A bulk is in memory as a whole.
        self._bulks = Places(BULKS)
        self.router = APIRouter(dependencies=[SECURITY], tags=["tasks"])
        add = self.router.add_api_route
        add(
            TASKS_PATH,
            self.submit,
            methods=["POST"],
            status_code=201,
            response_model=TaskDocument,
            responses={200: {"model": TaskDocument, "description": "The Task of this key"}, **_refusals(409, 413)},
            openapi_extra=_body("NewTask", "The Task: the fields of its spec, and a name and labels if it should."),
            summary="Submit a Task",
        )
        add(
            f"{TASKS_PATH}:bulk",
            self.bulk,
            methods=["POST"],
            response_class=StreamingResponse,
            responses={200: {"content": {"application/x-ndjson": {}}}, **_refusals(413, 415)},
            openapi_extra={
                "requestBody": {
                    "required": True,
                    "description": "One Task a line, as for a single one.",
                    "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
                }
            },
            summary="Submit many Tasks",
        )
        add(
            TASKS_PATH, self.list, methods=["GET"], response_model=TaskPage, responses=_refusals(), summary="List Tasks"
        )
        add(
            f"{TASKS_PATH}:events",
            self.follow_all,
            methods=["GET"],
            response_class=StreamingResponse,
            responses={200: {"content": {streams.MEDIA_TYPE: {}}}, **_refusals()},
            summary="Follow Tasks",
        )
        add(
            TASK_PATH,
            self.get,
            methods=["GET"],
            response_model=TaskDocument,
            responses=_refusals(404),
            summary="Get a Task with its result",
        )
        add(
            TASK_PATH + "/wait",
            self.wait,
            methods=["GET"],
            response_model=TaskDocument,
            responses={202: {"model": TaskRow, "description": "It has not settled yet"}, **_refusals(404)},
            summary="Wait for a Task's end",
        )
        add(
            TASK_PATH + "/events",
            self.follow,
            methods=["GET"],
            response_class=StreamingResponse,
            responses={200: {"content": {streams.MEDIA_TYPE: {}}}, **_refusals(404)},
            summary="Follow a Task",
        )
        add(
            TASK_PATH + "/explain",
            self.explain,
            methods=["GET"],
            response_model=TaskExplanation,
            responses=_refusals(404),
            summary="Explain why a Task waits",
        )
        add(
            TASK_PATH + "/redrive",
            self.redrive,
            methods=["POST"],
            response_model=TaskDocument,
            responses=_refusals(404, 409),
            summary="Let a dead letter wait again",
        )
        for word, change, summary in (
            ("cancel", {"cancel": True}, "Cancel a Task"),
            ("suspend", {"suspend": True}, "Hold a Task back"),
            ("resume", {"suspend": False}, "Let a suspended Task go on"),
        ):
            add(
                f"{TASK_PATH}/{word}",
                self._changing(change),
                methods=["POST"],
                response_model=TaskDocument,
                responses=_refusals(404, 409),
                operation_id=word,
                summary=summary,
            )
        add(
            TASK_PATH,
            self.change,
            methods=["PATCH"],
            response_model=TaskDocument,
            responses=_refusals(404, 409),
            openapi_extra=_body("TaskChange", "What is to be otherwise; what is not said stays."),
            summary="Change a Task",
        )
        add(
            TASK_PATH,
            self.delete,
            methods=["DELETE"],
            status_code=204,
            responses=_refusals(404, 409),
            response_class=Response,
            summary="Delete a Task",
        )

    # -- in --------------------------------------------------------------------------------------------------------

    async def submit(self, request: Request, namespace: str, key: Key = None, wait: Wait = 0.0) -> Response:
        """Submit a Task. 201: it was made now; 200: the Task of this Idempotency-Key, which was there.

        With `wait` the answer comes when it has settled, or after so many seconds with how it stands by then.
        """
        visitor = await self._callers.visitor(request)
        if bodies.media_type(request) in bodies.NDJSON:
            raise Problem(415, "this takes one Task: send many to tasks:bulk", reason="UnknownMediaType")
        task = bodies.a_task(bodies.an_object(await bodies.read(request, bodies.MOST_BYTES)))
        made = await self._submitter.submit(visitor, namespace, task, key)
        obj = made.obj
        if wait and not settled(obj):
            await visitor.must("watch", namespace, name := obj["metadata"]["name"])
            obj = await self._until_settled(visitor, namespace, name, obj, wait) or obj
        document = TaskDocument.of_object(obj)
        headers = {"Location": request.url_for("get", namespace=namespace, name=document.name).path}
        if not made.created:
            headers["Idempotent-Replayed"] = "true"
        return JSONResponse(document.to_wire(), 201 if made.created else 200, headers)

    async def bulk(self, request: Request, namespace: str) -> StreamingResponse:
        """Submit many Tasks, one a line (NDJSON). The answer has a line for each, in the order that they are done:
        its number from 0, and the Task's name and uid, or the problem. One that is refused stops no other."""
        visitor = await self._callers.visitor(request)
        if bodies.media_type(request) not in bodies.NDJSON:
            raise Problem(415, "send one Task a line, as application/x-ndjson", reason="UnknownMediaType")
        with self._bulks.one():
            lines = [line async for line in bodies.lines(request)]
        return self._bulks.stream(self._each(visitor, namespace, lines), "application/x-ndjson")

    async def _each(self, visitor: Visitor, namespace: str, lines: list[bytes]) -> AsyncGenerator[bytes, None]:
        gate = asyncio.Semaphore(BULK_AT_ONCE)

        async def one(number: int, line: bytes) -> bytes:
            async with gate:
                try:
                    task = bodies.a_task(bodies.an_object(line))
                    made = await self._submitter.submit(visitor, namespace, task, None)
                    said: dict[str, Any] = {"index": number, **_identity(made)}
                except Problem as problem:
                    said = {"index": number, "problem": problem.details.document()}
                    if problem.retry_after is not None:
                        said["retryAfter"] = problem.retry_after
            return json.dumps(said, separators=(",", ":")).encode() + b"\n"

        async with asyncio.TaskGroup() as group:
            for done in asyncio.as_completed([group.create_task(one(*each)) for each in enumerate(lines)]):
                yield await done

    # -- out -------------------------------------------------------------------------------------------------------

    async def list(
        self,
        request: Request,
        namespace: str,
        name: Name = "",
        queue: Queue = "",
        type: Type = "",
        phase: Phases = [],  # noqa: B006  FastAPI makes a new one for each request
        selector: Selector = "",
        limit: Annotated[int, Query(ge=1, le=1000)] = 100,
        after: Annotated[str, Query(max_length=253, description="The `next` of the page before.")] = "",
    ) -> TaskPage:
        """List Tasks by name, without payloads and results. From memory: it may be a moment behind."""
        visitor = await self._callers.visitor(request)
        await visitor.must("list", namespace)
        wants = wanted(name=name, queue=queue, type=type, phases=phase, selector=selector)
        # Before it is read: what changes meanwhile is told again.
        version = self._check_in_view(namespace)
        rows, more = await self._board.page(namespace, wants, limit, after)
        return TaskPage(items=[TaskRow.of(row) for row in rows], next=more, resource_version=version)

    async def get(self, request: Request, namespace: str, name: str) -> TaskDocument:
        """Get one Task as the API server has it now, with its payload, result and attempts."""
        visitor = await self._callers.visitor(request)
        return TaskDocument.of_object(await self._read(visitor, namespace, name))

    async def wait(self, request: Request, namespace: str, name: str, seconds: Wait = 30.0) -> Response:
        """Wait until a Task has settled. 200: it has; 202: not yet, ask again."""
        visitor = await self._callers.visitor(request)
        await visitor.must("get", namespace, name)
        await visitor.must("watch", namespace, name)
        row = self._board.find(namespace, name)
        obj = None
        if row is None or row.settled:
            obj = await self._read(visitor, namespace, name)
        if obj is None or not settled(obj):
            found = await self._until_settled(visitor, namespace, name, obj, seconds)
            obj = found or obj
            if found is None:
                row = self._board.find(namespace, name)
                if row is None and obj is None:
                    raise _missing(namespace, name)
                standing = TaskRow.of(row) if row is not None else TaskDocument.of_object(obj or {})
                return JSONResponse(standing.to_wire(), 202)
        assert obj is not None
        return JSONResponse(TaskDocument.of_object(obj).to_wire())

    async def explain(
        self,
        request: Request,
        namespace: str,
        name: str,
        source: Annotated[
            Source | None, Query(alias="from", description="Ask only the operator that leads, or nobody.")
        ] = None,
    ) -> Response:
        """Say where a Task stands: why it waits, its place, when it should start, and what would let it go.

        The operator that leads says it. Where it cannot be asked, `not_asked` says why, and the cluster's objects tell:
        as far as the caller may read them.
        """
        visitor = await self._callers.visitor(request)
        backend = KubeBackend(visitor.client, namespace, MANAGER)
        with self._explanations.one():
            try:
                told = await self._explained(visitor, backend, name, source)
            except NoAnswer as error:
                raise Problem(503, str(error), reason="NoLeader", retry_after=RETRY_SECONDS) from error
            except KubeError as error:
                raise of_kube(error) from error
        return JSONResponse(TaskExplanation.of(told).document())

    async def _explained(self, visitor: Visitor, backend: KubeBackend, name: str, source: Source | None) -> Told:
        """Raises NoAnswer where nobody else than the leader is to be asked, and KubeError."""
        view, why = None, ""
        if source is not Source.CLUSTER:
            try:
                view = await self._leader.of(visitor.token, backend.namespace)
            except NoAnswer as error:
                if source is Source.LEADER:
                    raise
                why = instead(error)
        told = await explaining.explain(backend, name, view=view, source=source)
        return told._replace(not_asked=told.not_asked or why)

    async def follow(
        self,
        request: Request,
        namespace: str,
        name: str,
        results: Whole = False,
        since: LastSeen = None,
    ) -> StreamingResponse:
        """Follow a Task by server-sent events, until it has settled or is deleted."""
        visitor = await self._callers.visitor(request)
        await visitor.must("get", namespace, name)
        await visitor.must("watch", namespace, name)
        row = self._board.find(namespace, name)
        uid = row.uid if row is not None else (await self._read(visitor, namespace, name))["metadata"]["uid"]
        changes = streams.events(
            self._board, namespace, lambda each: each.uid == uid, since=since or "", whole=results, until_settled=uid
        )
        return self._places.stream(changes, streams.MEDIA_TYPE)

    async def follow_all(
        self,
        request: Request,
        namespace: str,
        name: Name = "",
        queue: Queue = "",
        type: Type = "",
        phase: Phases = [],  # noqa: B006  as above
        selector: Selector = "",
        results: Whole = False,
        since: LastSeen = None,
    ) -> StreamingResponse:
        """Follow Tasks by server-sent events: those that are there, then each change. With `Last-Event-ID` only what
        has changed or gone since; `expired` where that is not known any more."""
        visitor = await self._callers.visitor(request)
        await visitor.must("list", namespace)
        await visitor.must("watch", namespace)
        self._check_in_view(namespace)
        wants = wanted(name=name, queue=queue, type=type, phases=phase, selector=selector)
        changes = streams.events(self._board, namespace, wants, since=since or "", whole=results)
        return self._places.stream(changes, streams.MEDIA_TYPE)

    def _check_in_view(self, namespace: str) -> str:
        """Return up to which version the namespace is in view. Raises Problem."""
        version = self._board.version(namespace)
        if version is None:
            raise Problem(404, f"namespace {namespace} is not served by this gateway", reason="NotServed")
        if not self._board.begun:
            raise Problem(503, "the Tasks are being read: try again", reason="NotReady", retry_after=1)
        return version

    async def _until_settled(
        self, visitor: Visitor, namespace: str, name: str, known: Obj | None, seconds: float
    ) -> Obj | None:
        """Return the Task once it has settled; None if the time is up. Raises Problem where it is deleted."""
        row = self._board.find(namespace, name)
        uid = known["metadata"]["uid"] if known is not None else row.uid if row is not None else ""
        with self._places.one():
            waiter = self._board.wait(uid)
            if row is not None and row.uid == uid and row.settled:
                # It settled after it was read and before it was waited for.
                waiter.cancel()
                return await self._read(visitor, namespace, name)
            try:
                async with asyncio.timeout(seconds):
                    found = await waiter
            except TimeoutError:
                return None
        if found is None:
            raise _missing(namespace, name, "was deleted before it ended")
        return found

    # -- changes ---------------------------------------------------------------------------------------------------

    async def change(self, request: Request, namespace: str, name: str) -> TaskDocument:
        """Change what may be changed of a Task: JSON merge patch."""
        visitor = await self._callers.visitor(request)
        change = bodies.a_change(bodies.an_object(await bodies.read(request, bodies.MOST_BYTES)))
        return await self._patch(visitor, namespace, name, change.patch())

    async def redrive(self, request: Request, namespace: str, name: str) -> TaskDocument:
        """Let a dead letter wait again. Twice is as once: what was asked for already is not asked for again."""
        visitor = await self._callers.visitor(request)
        found = await self._read(visitor, namespace, name)
        try:
            patch = changing.redriven(found)
        except TaskdistError as error:
            raise Problem(409, str(error), reason="NotDeadLettered") from error
        return TaskDocument.of_object(found) if patch is None else await self._patch(visitor, namespace, name, patch)

    def _changing(self, change: dict[str, Any]) -> Any:
        async def handle(request: Request, namespace: str, name: str) -> TaskDocument:
            visitor = await self._callers.visitor(request)
            return await self._patch(visitor, namespace, name, {"spec": change})

        return handle

    @staticmethod
    async def _patch(visitor: Visitor, namespace: str, name: str, patch: dict[str, Any]) -> TaskDocument:
        try:
            return TaskDocument.of_object(
                await visitor.client.patch(TASKS, name, patch, namespace, field_manager=MANAGER)
            )
        except KubeError as error:
            raise of_kube(error) from error

    async def delete(self, request: Request, namespace: str, name: str) -> Response:
        """Delete a Task, whether or not it has ended: a running one is stopped."""
        visitor = await self._callers.visitor(request)
        try:
            await visitor.client.delete(TASKS, name, namespace)
        except KubeError as error:
            raise of_kube(error) from error
        return Response(status_code=204)

    async def _read(self, visitor: Visitor, namespace: str, name: str) -> Obj:
        try:
            return await visitor.client.get(TASKS, name, namespace)
        except KubeError as error:
            raise of_kube(error) from error


def _identity(made: Submitted) -> dict[str, Any]:
    metadata = made.obj["metadata"]
    return {"name": metadata["name"], "uid": metadata["uid"], "created": made.created}


def _missing(namespace: str, name: str, what: str = "does not exist") -> Problem:
    return Problem(404, f"Task {name} in namespace {namespace} {what}", reason="NotFound")
