"""The HTTP mode against a local server: what each answer becomes, and that a cancel closes the request."""

import asyncio
import time
from collections.abc import AsyncIterator
from email.utils import formatdate

import pytest
from aiohttp import web

from agents.peer import until
from taskdist.agent.http import HttpEndpoint
from taskdist.api import Reason
from taskdist.common.boottime import boottime
from taskdist.protocol.messages import Grant, LeaseName
from unit.agent.recorder import Recorder

LEASE = LeaseName("uid", 2, 1)
GRANT = Grant(LEASE, "ns", "task", "t", 1, boottime(), 15.0, 120.0, payload=b'{"a":1}')


class Server:
    """Answers as it is told; `hang` keeps the request open."""

    def __init__(self) -> None:
        self.status, self.body = 200, b"{}"
        self.headers: dict[str, str] = {}
        self.asked: list[dict[str, object]] = []
        self.hanging = asyncio.Event()
        self.hang = False
        self.hung_up = asyncio.Event()
        self.url = ""
        # Of a stream: what comes after the first waits for `go_on`.
        self.parts: list[bytes] = []
        self.go_on = asyncio.Event()

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append(await request.json())
        if self.hang:
            self.hanging.set()
            try:
                await asyncio.Event().wait()
            finally:
                self.hung_up.set()
        if self.parts:
            stream = web.StreamResponse(headers={"content-type": "application/x-ndjson"})
            await stream.prepare(request)
            for part in self.parts:
                await stream.write(part)
                await self.go_on.wait()
            return stream
        return web.Response(status=self.status, body=self.body, headers=self.headers)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_post("/run", made.handle)
    runner = web.AppRunner(app, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/run"
    yield made
    await runner.cleanup()


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        pytest.param(200, b'{"x":1}', ("finished", b'{"x":1}'), id="result"),
        pytest.param(204, b"", ("finished", b"{}"), id="no-content"),
        pytest.param(200, b"[1]", ("failed", Reason.RESULT_REFUSED, False), id="no-object"),
        pytest.param(200, b"<html>", ("failed", Reason.RESULT_REFUSED, False), id="no-json"),
        pytest.param(200, b'{"x":NaN}', ("failed", Reason.RESULT_REFUSED, False), id="nan"),
        pytest.param(200, b'{"x":"\\ud800"}', ("failed", Reason.RESULT_REFUSED, False), id="half-a-surrogate"),
        pytest.param(200, b'{"x":"\xff"}', ("failed", Reason.RESULT_REFUSED, False), id="no-utf8"),
        pytest.param(200, b'{"x":' * 60000, ("failed", Reason.RESULT_TOO_LARGE, False), id="far-too-large"),
        pytest.param(200, b'{"x":' * 5000, ("failed", Reason.RESULT_REFUSED, False), id="too-deep"),
        pytest.param(200, b'{"x":1e999}', ("failed", Reason.RESULT_REFUSED, False), id="beyond-a-double"),
        pytest.param(200, b'{"x":"%s"}' % (b"y" * 70000), ("failed", Reason.RESULT_TOO_LARGE, False), id="too-large"),
        pytest.param(400, b"no path", ("failed", Reason.HANDLER_ERROR, False), id="bad-request-is-permanent"),
        pytest.param(422, b"", ("failed", Reason.HANDLER_ERROR, False), id="unprocessable-is-permanent"),
        pytest.param(429, b"", ("failed", Reason.HANDLER_ERROR, True), id="too-many-asks-for-a-retry"),
        pytest.param(500, b"oops", ("failed", Reason.HANDLER_ERROR, True), id="server-error"),
        pytest.param(503, b"", ("failed", Reason.HANDLER_ERROR, True), id="unavailable"),
        pytest.param(302, b"", ("failed", Reason.HANDLER_ERROR, False), id="redirect"),
    ],
)
async def test_answers(server: Server, status: int, body: bytes, expected: tuple[object, ...]) -> None:
    server.status, server.body = status, body
    events, endpoint = Recorder(), HttpEndpoint(server.url)
    offered = await endpoint.open(events)
    assert (offered.types, offered.fenced) == (None, False)
    endpoint.start(GRANT, boottime() + 10)
    kind, args = await events.ended(LEASE)
    assert (kind, *(args if kind == "finished" else (args[0], args[2]))) == expected
    if body and kind == "failed" and status >= 400:
        assert f"{status}: {body.decode()}" in args[1]
    about = {"type": "t", "task": "task", "namespace": "ns", "uid": "uid", "attempt": 2}
    assert server.asked == [{"payload": {"a": 1}} | about]
    await endpoint.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://127.0.0.1:1/run",
        "http://no-such-host.invalid/run",
        "http://[::1/run",
        "http:///run",
        "ftp://127.0.0.1/run",
        "http://a\u0000b/",
        "http://" + "x" * 300 + "/",
    ],
)
async def test_a_server_that_is_not_there_fails_each_attempt_with_a_reason(url: str) -> None:
    events, endpoint = Recorder(), HttpEndpoint(url, ("a", "b"))
    assert (await endpoint.open(events)).types == ("a", "b")
    endpoint.start(GRANT, boottime() + 10)
    kind, (reason, message, retryable) = await events.ended(LEASE)
    assert (kind, reason, retryable) == ("failed", Reason.HANDLER_ERROR, True)
    assert url[:40] in message
    await endpoint.close()
    assert not events.broken


SOON = "in 40 s"


@pytest.mark.parametrize(
    ("status", "header", "reason", "low", "high"),
    [
        pytest.param(429, "30", Reason.THROTTLED, 30, 30, id="seconds"),
        pytest.param(503, "7", Reason.THROTTLED, 7, 7, id="unavailable"),
        pytest.param(429, "0", Reason.THROTTLED, 1, 1, id="at-least-a-second"),
        pytest.param(429, SOON, Reason.THROTTLED, 20, 40, id="date"),
        pytest.param(429, "Fri, 31 Dec 1999 23:59:59 GMT", Reason.THROTTLED, 1, 1, id="a-date-that-is-past"),
        pytest.param(429, "soon", Reason.HANDLER_ERROR, 0, 0, id="neither"),
        pytest.param(429, None, Reason.HANDLER_ERROR, 0, 0, id="none"),
        pytest.param(500, "30", Reason.HANDLER_ERROR, 0, 0, id="another-status"),
    ],
)
async def test_a_server_that_is_throttled_says_when(
    server: Server, status: int, header: str | None, reason: Reason, low: float, high: float
) -> None:
    server.status, server.body = status, b"busy"
    if header is not None:
        server.headers["retry-after"] = formatdate(time.time() + 40, usegmt=True) if header == SOON else header
    events, endpoint = Recorder(), HttpEndpoint(server.url)
    await endpoint.open(events)
    endpoint.start(GRANT, boottime() + 10)
    _, (found, message, retryable) = await events.ended(LEASE)
    assert (found, retryable) == (reason, True)
    assert f"{status}: busy" in message
    assert low <= events.retry_after[LEASE] <= high
    await endpoint.close()


@pytest.mark.parametrize(
    ("body", "progress", "end"),
    [
        pytest.param(
            b'{"$progress":0.4,"message":"two of five"}\n{"x":1,"$budgets":{"b":2}}\n',
            (0.4, "two of five"),
            ("finished", b'{"x":1}'),
            id="progress-and-result",
        ),
        pytest.param(b'{"x":1}', None, ("finished", b'{"x":1}'), id="result-alone"),
        pytest.param(b'{"$progress":7}\n\n', (1.0, ""), ("failed", Reason.HANDLER_ERROR), id="no-result"),
        pytest.param(b"", None, ("failed", Reason.HANDLER_ERROR), id="nothing"),
        *(
            pytest.param(line + b'\n{"x":1}', None, ("finished", b'{"x":1}'), id=f"a-report-with-{name}-is-left-out")
            for name, line in {
                "null": b'{"$progress":null}',
                "words": b'{"$progress":"40%"}',
                "no-number": b'{"$progress":NaN}',
                "a-number-that-is-too-large": b'{"$progress":1%s}' % (b"0" * 400),
                "an-array": b'{"$progress":[0.4]}',
            }.items()
        ),
        *(
            pytest.param(line + b'\n{"x":1}', (0.4, said), ("finished", b'{"x":1}'), id=f"a-report-with-{name}")
            for name, line, said in (
                ("half-a-surrogate", b'{"$progress":0.4,"message":"a\\ud800"}', "a?"),
                ("text-that-is-no-utf8", b'{"$progress":0.4,"message":"a\xff"}', "a\ufffd"),
                ("no-message", b'{"$progress":0.4,"message":null}', ""),
                ("something-else-in-it", b'{"$progress":0.4,"message":"a","n":1e999}', "a"),
            )
        ),
        pytest.param(b'{"$progress":null}', None, ("failed", Reason.HANDLER_ERROR), id="a-bad-report-at-the-end"),
        pytest.param(b'{"x":"$progress"}', None, ("finished", b'{"x":"$progress"}'), id="the-word-elsewhere"),
        pytest.param(b"nonsense\n{}\n", None, ("failed", Reason.RESULT_REFUSED), id="no-json"),
        pytest.param(b"x" * 200_000, None, ("failed", Reason.RESULT_TOO_LARGE), id="too-large"),
    ],
)
async def test_a_server_reports_progress_in_a_stream(
    server: Server, body: bytes, progress: tuple[float, str] | None, end: tuple[object, ...]
) -> None:
    server.body, server.headers = body, {"content-type": "application/x-ndjson"}
    events, endpoint = Recorder(), HttpEndpoint(server.url)
    await endpoint.open(events)
    endpoint.start(GRANT, boottime() + 10)
    kind, args = await events.ended(LEASE)
    assert (kind, args[0]) == end
    told = events.find(LEASE, "progress")
    assert (told and told[1]) == progress
    await endpoint.close()


async def test_of_reports_that_come_at_once_the_last_is_told_after_a_pause(server: Server) -> None:
    server.parts = [b'{"$progress":0.1}\n{"$progress":0.2}\n{"$progress":0.3}\n', b'{"x":1}\n']
    events, endpoint = Recorder(), HttpEndpoint(server.url)
    await endpoint.open(events)
    endpoint.start(GRANT, boottime() + 10)
    await until(lambda: (told := _fractions(events)) and told[-1] == 0.3, "the last is told")
    server.go_on.set()
    assert (await events.ended(LEASE))[0] == "finished"
    assert _fractions(events) == [0.1, 0.3]
    await endpoint.close()


def _fractions(events: Recorder) -> list[float]:
    return [args[0] for kind, _, args in events.told if kind == "progress"]


@pytest.mark.parametrize("way", ["cancel", "kill", "close"])
async def test_the_request_is_closed(server: Server, way: str) -> None:
    server.hang = True
    events, endpoint = Recorder(), HttpEndpoint(server.url)
    await endpoint.open(events)
    endpoint.start(GRANT, boottime() + 10)
    await asyncio.wait_for(server.hanging.wait(), 10)
    if way == "cancel":
        endpoint.cancel(LEASE, "as asked")
    elif way == "kill":
        endpoint.kill(LEASE)
    else:
        await endpoint.close()
    assert (await events.ended(LEASE))[0] == "stopped"
    await asyncio.wait_for(server.hung_up.wait(), 10)
    await endpoint.close()


@pytest.mark.parametrize(
    ("status", "body", "expected", "used"),
    [
        pytest.param(200, b'{"x":1,"$budgets":{"b":2}}', b'{"x":1}', {"b": 2}, id="result"),
        pytest.param(200, b'{"x":"$budgets"}', b'{"x":"$budgets"}', None, id="the-word-elsewhere"),
        pytest.param(429, b'{"$budgets":{"b":0}}', Reason.HANDLER_ERROR, {"b": 0}, id="failure"),
        pytest.param(500, b'oops "$budgets"', Reason.HANDLER_ERROR, None, id="failure-without"),
    ],
)
async def test_an_answer_says_what_was_used_of_budgets(
    server: Server, status: int, body: bytes, expected: object, used: object
) -> None:
    server.status, server.body = status, body
    events, endpoint = Recorder(), HttpEndpoint(server.url)
    await endpoint.open(events)
    endpoint.start(GRANT, boottime() + 10)
    _, args = await events.ended(LEASE)
    assert (args[0], events.used[LEASE]) == (expected, used)
    await endpoint.close()
