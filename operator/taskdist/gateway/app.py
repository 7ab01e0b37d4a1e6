"""The web application: routes, errors and the description of both."""

import time
from collections.abc import Awaitable, Callable
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.openapi.utils import get_openapi
from fastapi_offline import FastAPIOffline
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException

import taskdist
from taskdist.api.problems import FieldError
from taskdist.gateway.measures import Measures
from taskdist.gateway.problems import Problem
from taskdist.gateway.routes import Routes
from taskdist.gateway.shapes import NewTask, TaskChange
from taskdist.gateway.webhooks import Webhooks

DESCRIPTION = """Tasks in, results out. Send the token that you would give kubectl as `Authorization: Bearer TOKEN`:
whatever you may do by kubectl you may do here, and no more. Errors are problem details (RFC 9457)."""


def build(routes: Routes, measures: Measures, root_path: str = "", webhooks: Webhooks | None = None) -> FastAPI:
    """Return the application."""
    app = FastAPIOffline(
        title="Task Distributor",
        version=taskdist.__version__,
        description=DESCRIPTION,
        redoc_url=None,
        root_path=root_path,
        # A slash too many is a wrong address, and no reason to send a body twice.
        redirect_slashes=False,
    )
    app.include_router(routes.router)
    if webhooks is not None:
        app.include_router(webhooks.router)
    app.add_exception_handler(Problem, _problem)
    app.add_exception_handler(RequestValidationError, _malformed)
    app.add_exception_handler(HTTPException, _refused)

    @app.middleware("http")
    async def measured(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        started = time.monotonic()
        status = 500
        try:
            response = await answer(request)
            status = response.status_code
            return response
        finally:
            route = request.scope.get("route")
            measures.request(request.method, getattr(route, "path", "other"), status, time.monotonic() - started)

    app.openapi = lambda: _described(app)  # type: ignore[method-assign]
    return app


def _described(app: FastAPI) -> dict[str, Any]:
    """Return the OpenAPI description, with the bodies that are read by hand."""
    if app.openapi_schema is None:
        schema = get_openapi(
            title=app.title, version=app.version, description=app.description, routes=app.routes, servers=app.servers
        )
        _, extra = models_json_schema(
            [(NewTask, "validation"), (TaskChange, "validation")], ref_template="#/components/schemas/{model}"
        )
        schema["components"]["schemas"] |= extra["$defs"]
        app.openapi_schema = schema
    return app.openapi_schema


async def _problem(_: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return error.response()


async def _malformed(_: Request, error: Exception) -> Response:
    """Name the parameters that make no sense."""
    assert isinstance(error, RequestValidationError)
    errors = [
        FieldError(field=".".join(str(part) for part in each["loc"][1:]), message=str(each["msg"]))
        for each in error.errors()[:20]
    ]
    first = errors[0]
    return Problem(422, f"{first.field}: {first.message}", reason="Invalid", errors=errors).response()


async def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    response = Problem(error.status_code, str(error.detail), reason="NoSuchPath").response()
    response.headers.update(error.headers or {})
    return response
