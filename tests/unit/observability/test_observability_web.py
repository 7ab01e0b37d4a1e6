"""The web server of a door: what ends its process, and with which exit code."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest
import uvicorn

from taskdist.observability.web import serve_until, web_server


async def nothing(_scope: Any, _receive: Callable[[], Awaitable[Any]], _send: Callable[[Any], Awaitable[None]]) -> None:
    """An application that is never asked."""


async def ends() -> None:
    """A part that ends by itself."""


async def fails() -> None:
    raise RuntimeError("for good")


async def goes_on() -> None:
    await asyncio.Event().wait()


async def begun(server: uvicorn.Server) -> None:
    while not server.started:  # noqa: ASYNC110 - the server tells nobody
        await asyncio.sleep(0.01)


@pytest.mark.parametrize(
    ("part", "code"),
    [
        pytest.param(goes_on, 0, id="all-go-on-until-the-word-to-end"),
        pytest.param(ends, 1, id="a-part-that-ends-ends-the-process"),
        pytest.param(fails, 1, id="a-part-that-fails-ends-the-process"),
    ],
)
async def test_what_ends_the_process(part: Callable[[], Coroutine[Any, Any, None]], code: int) -> None:
    server = web_server(nothing, host="127.0.0.1", port=0, tls_cert="", tls_key="")
    stopping = asyncio.Event()
    serving = asyncio.create_task(serve_until(stopping, server, {"part": part()}))
    if code == 0:
        await begun(server)
        stopping.set()
    assert await asyncio.wait_for(serving, 10) == code


async def test_a_server_that_heard_the_signal_first_has_not_failed() -> None:
    server = web_server(nothing, host="127.0.0.1", port=0, tls_cert="", tls_key="")
    serving = asyncio.create_task(serve_until(asyncio.Event(), server))
    await begun(server)
    server.should_exit = True
    assert await asyncio.wait_for(serving, 10) == 0
