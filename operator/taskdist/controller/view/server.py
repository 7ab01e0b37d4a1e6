"""The view's HTTP: routes, who may ask each, problems as answers, metrics. What is answered is others' business.

Each question is known, allowed, and answered in its turn at the view's pace; on a replica that does not lead it is
answered with who does.
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import structlog
from aiohttp import web

from taskdist.api import problems
from taskdist.api.meta import Model
from taskdist.api.view import Leader
from taskdist.controller.view.callers import Callers
from taskdist.controller.view.listening import Listener
from taskdist.controller.view.pace import Pace
from taskdist.controller.view.problems import Problem
from taskdist.kube import Caller, Resource, Right
from taskdist.link.keeper import CertificateSource

MOST_BODY_BYTES = 16 * 1024
BODY_SECONDS = 10.0
STOP_SECONDS = 1.0
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_NAMESPACE = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_log = structlog.get_logger("taskdist.view")


class Counts(Protocol):
    """Who counts what is asked."""

    def view_asked(self, path: str, outcome: str, seconds: float) -> None: ...


@dataclass(frozen=True, slots=True)
class Question:
    """One look, by somebody who may have it."""

    caller: Caller
    namespace: str
    name: str
    query: Mapping[str, str]
    body: bytes
    request: web.Request


Answer = Callable[[Question], Awaitable[web.StreamResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """One path, what it needs to be seen, and who answers. `needs` are pairs of verb and resource."""

    method: str
    path: str
    needs: Sequence[tuple[str, Resource]]
    answer: Answer

    def rights(self, namespace: str, name: str) -> list[Right]:
        """What a caller needs to ask this. A right on one object is asked for by its name."""
        return [Right(verb, resource, namespace, name if verb == "get" else "") for verb, resource in self.needs]


class ViewServer:
    """Serves the view for as long as the process lives, leader or not."""

    def __init__(
        self,
        routes: Sequence[Route],
        leader: Callable[[], Leader],
        serves: Callable[[str], bool],
        callers: Callers,
        pace: Pace,
        certificates: CertificateSource,
        counts: Counts,
    ) -> None:
        """
        Args:
            leader: who leads, now.
            serves: whether a namespace is this installation's.
        """
        self._leader = leader
        self._serves = serves
        self._callers = callers
        self._pace = pace
        self._counts = counts
        self._application = web.Application(client_max_size=MOST_BODY_BYTES, middlewares=[self._outer])
        self._application.router.add_get("/v1/leader", self._who_leads)
        for route in routes:
            self._application.router.add_route(route.method, route.path, self._handler(route))
        self._server: web.Server | None = None
        self._listener = Listener(self._connection, certificates.serving)

    async def serve(self, host: str, port: int, listening: Callable[[int], None] = lambda _port: None) -> None:
        """Serve until cancelled; `listening` is told the port. Raises OSError if the port is taken."""
        runner = web.AppRunner(
            self._application, access_log=None, shutdown_timeout=STOP_SECONDS, handler_cancellation=True
        )
        await runner.setup()
        self._server = runner.server
        try:
            listening(self._listener.open(host, port))
            await self._listener.run()
        finally:
            await runner.cleanup()

    def _connection(self) -> asyncio.Protocol:
        assert self._server is not None, "nothing is accepted before the server is set up"
        return self._server()

    # -- around each question --------------------------------------------------------------------------------------

    @web.middleware
    async def _outer(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        began, outcome = time.perf_counter(), "gone"
        self._listener.asked(request.transport)
        try:
            response = await self._answered(request, handler)
            outcome = str(response.status)
            return response
        finally:
            self._listener.answered(request.transport)
            # Paths that do not exist are of somebody's own making: they are counted as one.
            resource = request.match_info.route.resource
            path = resource.canonical if resource is not None else "other"
            self._counts.view_asked(path, outcome, time.perf_counter() - began)

    async def _answered(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Problem as problem:
            return _refusal(problem)
        except web.HTTPException as error:
            return _refusal(Problem(error.status, error.reason))
        except (ConnectionError, asyncio.CancelledError):
            raise  # who asked is gone
        except Exception:
            _log.exception("a question could not be answered", path=request.path[:200])
            return _refusal(Problem(500, "the question could not be answered: the operator's log says why"))

    async def _who_leads(self, request: web.Request) -> web.StreamResponse:
        caller = await self._callers.who(request.headers)
        return await self._pace.step(caller.username, lambda: as_json(self._leader()))

    def _handler(self, route: Route) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
        async def handle(request: web.Request) -> web.StreamResponse:
            caller = await self._callers.who(request.headers)
            namespace, name = request.match_info["namespace"], request.match_info.get("name", "")
            if not _NAMESPACE.fullmatch(namespace) or (name and not _NAME.fullmatch(name)):
                raise Problem(404, "no namespace and no object can have such a name")
            self._leads()
            await self._callers.check(caller, route.rights(namespace, name))
            if not self._serves(namespace):
                raise Problem(404, f"namespace {namespace} is served by another installation")
            body = await _body(request)
            return await route.answer(Question(caller, namespace, name, request.query, body, request))

        return handle

    def _leads(self) -> None:
        """Raises Problem where this replica does not lead."""
        leader = self._leader()
        if not leader.leading:
            who = f"{leader.holder} does" if leader.holder else "nobody is known to"
            raise Problem(421, f"this replica does not lead, {who}: ask again", leader=leader)


async def _body(request: web.Request) -> bytes:
    """All of the body. Raises Problem if it is slow to come: nobody keeps a connection by it."""
    if not request.can_read_body:
        return b""
    try:
        async with asyncio.timeout(BODY_SECONDS):
            return await request.read()
    except TimeoutError:
        raise Problem(408, f"the body did not come within {BODY_SECONDS:g} seconds") from None


def as_json(answer: Model) -> web.Response:
    """Return the answer as it is sent. That is work, too: it belongs into the step that found the answer."""
    body = answer.model_dump_json(by_alias=True, exclude_none=True).encode()
    return web.Response(body=body, content_type="application/json", headers={"Cache-Control": "no-store"})


def _refusal(problem: Problem) -> web.Response:
    headers = problems.headers(problem.status, problem.retry_after) | {"Cache-Control": "no-store"}
    body = problem.shape.document()
    response = web.json_response(body, status=problem.status, content_type=problems.MEDIA_TYPE, headers=headers)
    # A refusal is not paced. So it ends the connection: another one is, and may lead to another replica.
    response.force_close()
    return response
