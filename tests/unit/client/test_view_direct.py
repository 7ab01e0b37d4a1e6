"""The way to the leader from inside the cluster, over TLS to the view's own server."""

import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from aiohttp import web

from taskdist.client import questions
from taskdist.client.errors import NoAnswer
from taskdist.client.view import Direct, DirectView
from taskdist.controller.view.pace import Pace
from taskdist.controller.view.server import Answer, Question, Route
from taskdist.kube import TASKS, ApiError, Unreachable
from taskdist.link.ca import AuthoritySettings, rotate
from unit.controller.view.serving import AUTHORITY, Known, serving

PATH = "/v1/namespaces/{namespace}/tasks/{name}/explain"
ASKED = questions.explanation("ns", "a")
ASK = ASKED.path

OTHER = rotate(None, ("localhost",), time.time(), AuthoritySettings()).bundle


async def who(question: Question) -> web.StreamResponse:
    return web.json_response({"title": question.caller.username})


async def lines(question: Question) -> web.StreamResponse:
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
    await response.prepare(question.request)
    await response.write(b"event: task\ndata: {}\n\n")
    await response.write_eof()
    return response


@asynccontextmanager
async def asking(
    answer: Answer = who, bundle: bytes = AUTHORITY.bundle, host: str = "localhost"
) -> AsyncIterator[Direct]:
    async with serving([Route("GET", PATH, [("get", TASKS)], answer)], Known(), Pace(1.0)) as port:
        yield Direct(host, bundle.decode(), port)


async def test_the_service_is_asked_with_the_callers_token_by_who_trusts_the_operators_authority() -> None:
    async with asking() as direct:
        told = await direct.ask(ASKED, "ann")
        assert (told.status, told.body) == (200, b'{"title": "ann"}')
        refused = await direct.ask(questions.explanation("ns", "-"), "ann")
        assert (refused.status, b"no object can have such a name" in refused.body) == (404, True)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(
            lambda: asking(bundle=OTHER),
            id="signed by nobody that is trusted",
        ),
        pytest.param(lambda: asking(host="127.0.0.1"), id="made for another name"),
    ],
)
async def test_nobody_else_is_shown_a_token(asked: Callable[[], AbstractAsyncContextManager[Direct]]) -> None:
    async with asked() as direct:
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            await direct.ask(ASKED, "ann")
        with pytest.raises(Unreachable, match=r"(?i)certificate"):
            async with direct.follow(ASK, "ann"):
                pytest.fail("it was followed")


async def test_a_stream_is_read_by_lines_and_a_refusal_of_it_told() -> None:
    async with asking(lines) as direct:
        async with direct.follow(ASK, "ann") as told:
            assert [line async for line in told] == [b"event: task\n", b"data: {}\n", b"\n"]
        with pytest.raises(ApiError) as refused:
            async with direct.follow(ASK.replace("tasks/a", "tasks/-"), "ann"):
                pytest.fail("it was followed")
        assert refused.value.status == 404


async def explained(_: Question) -> web.StreamResponse:
    return web.json_response({"task": "ns/a", "queue": "q", "phase": "Pending", "reason": "Queued"})


async def test_the_view_of_one_installation_is_asked_in_the_name_of_whoevers_token_it_is() -> None:
    async with serving([Route("GET", PATH, [("get", TASKS)], explained)], Known(), Pace(1.0)) as port:
        told = DirectView(f"localhost:{port}", "ops/taskdist", AUTHORITY.bundle.decode(), "ann")
        assert (told.lease, (await told.ask(ASKED)).reason) == ("ops/taskdist", "Queued")
        for bundle, words in (
            ("", "whom to trust"),
            ("no bundle", "whom to trust"),
            (OTHER.decode(), "(?i)certificate"),
        ):
            with pytest.raises(NoAnswer, match=words):
                await DirectView(f"localhost:{port}", "ops/taskdist", bundle, "ann").ask(ASKED)
        with pytest.raises(NoAnswer, match="no object can have such a name"):
            await told.ask(questions.explanation("ns", "-"))


async def test_a_service_that_is_not_there_is_not_reached() -> None:
    async with serving([], Known(), Pace(1.0)) as port:
        pass
    direct = Direct("localhost", AUTHORITY.bundle.decode(), port)
    with pytest.raises(Unreachable):
        await direct.ask(ASKED, "ann")
