"""Whoever answers in the place of SQS: what is read of it, and what is told."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import web

from taskdist.api import SourceReason
from taskdist.brokers import sqs
from taskdist.brokers.sqs import Login
from taskdist.sources.broker import Trouble
from taskdist.sources.sqs_access import Address, enter

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


@asynccontextmanager
async def answering(handler: Handler) -> AsyncIterator[Address]:
    application = web.Application()
    application.router.add_route("*", "/{rest:.*}", handler)
    runner = web.AppRunner(application)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    port = runner.addresses[0][1]
    queue = f"http://127.0.0.1:{port}/1/q"
    try:
        yield Address(queue, "a-1", f"http://127.0.0.1:{port}", Login("a", "b"), 64, 60, None, "ns/s")
    finally:
        await runner.cleanup()


async def asked(handler: Handler) -> Any:
    async with answering(handler) as address:
        asking = await enter(address)
        try:
            return await asking.ask("GetQueueAttributes", address.queue, dict)
        finally:
            await asking.close()


def says(status: int, body: bytes, **headers: str) -> Handler:
    async def handler(_: web.Request) -> web.Response:
        return web.Response(status=status, body=body, headers=headers)

    return handler


async def test_an_answer_is_read_in_pieces() -> None:
    async def handler(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for piece in (b'{"Attributes": ', b'{"QueueArn": "x"}}'):
            await response.write(piece)
        return response

    assert (await asked(handler))["Attributes"] == {"QueueArn": "x"}


async def test_an_answer_without_an_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqs, "MOST_ANSWER_BYTES", 2**20)
    written = 0

    async def handler(request: web.Request) -> web.StreamResponse:
        nonlocal written
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b"[" * 2**16)
            written += 2**16

    with pytest.raises(Trouble, match="more than 1048576 bytes"):
        await asked(handler)
    assert written < 64 * 2**20


@pytest.mark.parametrize(
    ("handler", "words"),
    [
        pytest.param(says(404, b"hunter2"), "none of SQS .HTTP 404", id="another server's page"),
        pytest.param(says(403, b'{"message": "hunter2"}'), "none of SQS .HTTP 403", id="another server's JSON"),
        pytest.param(says(200, b'["hunter2"]'), "does not answer as SQS does", id="a list"),
        pytest.param(says(200, b'{"Attributes": "hunter2"}'), "does not answer as SQS does", id="no attributes"),
        pytest.param(says(200, b"hunter2\xff\xfe"), "does not answer as SQS does", id="no text"),
        pytest.param(says(400, b'{"__type": ["hunter2"]}'), "does not answer as SQS does", id="an odd name"),
    ],
)
async def test_whoever_answers_is_a_trouble_of_this_source_and_is_not_repeated(handler: Handler, words: str) -> None:
    with pytest.raises(Trouble, match=words) as caught:
        await asked(handler)
    assert caught.value.reason is SourceReason.BROKER_UNREACHABLE
    assert "hunter2" not in str(caught.value)


async def test_a_text_is_no_answer() -> None:
    assert "Attributes" not in await asked(says(200, b"hunter2"))
