"""A Task explained by the HTTP door: told as the door does, and without the engine."""

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from taskdist.client import AsyncClient, TaskNotFound

STORY = {"task": "ns/a", "queue": "q", "phase": "Pending", "reason": "QueuePaused"}
BESIDE = {"told_by": "cluster", "warnings": ["TaskQueue x is invalid"]}
WHY = "the leader cannot be asked: no way; found out from the cluster's objects instead"


async def explain(request: web.Request) -> web.Response:
    if request.match_info["name"] == "a":
        return web.json_response(STORY | BESIDE | {"not_asked": WHY})
    problem = {"title": "Not Found", "status": 404, "detail": "there is no such task"}
    return web.json_response(problem, status=404, content_type="application/problem+json")


async def test_the_story_is_the_doors_and_that_the_leader_was_not_asked_is_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    app = web.Application()
    app.router.add_get("/v1/namespaces/ns/tasks/{name}/explain", explain)
    async with (
        TestServer(app) as server,
        AsyncClient(gateway=str(server.make_url("/")), namespace="ns", token="mine") as client,
    ):
        assert [await client.explain("a"), await client.explain("a")] == [STORY, STORY]
        assert caplog.messages == [WHY]
        with pytest.raises(TaskNotFound):
            await client.explain("none")
