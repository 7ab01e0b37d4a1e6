"""The view over real TLS on loopback: what each refusal looks like, and what connections may cost."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web

from taskdist.api.view import Leader
from taskdist.controller.view import listening
from taskdist.controller.view.callers import Callers
from taskdist.controller.view.pace import Pace
from taskdist.controller.view.server import MOST_BODY_BYTES, Question, Route, ViewServer, as_json
from taskdist.kube import AGENTPOOLS, TASKS, Right
from taskdist.link.ca import Authority, AuthoritySettings, rotate
from unit.controller.view.serving import AUTHORITY, Known, trusting


class Room:
    """A server, its port, and what it says of itself."""

    def __init__(self) -> None:
        self.leading, self.serves, self.port = True, True, 0
        self.callers = Known()
        self.counted: list[tuple[str, str]] = []
        self.authority: Authority = AUTHORITY
        self.answer: Callable[[Question], Awaitable[Any]] = self._leader

    def leader(self) -> Leader:
        return Leader(leading=self.leading, holder="operator-0", epoch=3, address="view:9446")

    async def _leader(self, _: Question) -> web.StreamResponse:
        return as_json(self.leader())

    def view_asked(self, path: str, outcome: str, _seconds: float) -> None:
        self.counted.append((path, outcome))

    def serving(self) -> Any:
        return self.authority.serving


@pytest.fixture
async def room() -> AsyncIterator[Room]:
    room = Room()
    path = "/v1/namespaces/{namespace}/tasks/{name}"
    routes = [
        Route("GET", path, [("get", TASKS)], lambda question: room.answer(question)),
        Route("POST", path + "/what-if", [("get", TASKS), ("list", AGENTPOOLS)], lambda each: room.answer(each)),
    ]
    server = ViewServer(routes, room.leader, lambda _: room.serves, cast(Callers, room.callers), Pace(1.0), room, room)
    listens = asyncio.Event()

    def listening(port: int) -> None:
        room.port = port
        listens.set()

    serving = asyncio.ensure_future(server.serve("127.0.0.1", 0, listening))
    await listens.wait()
    yield room
    serving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await serving


@asynccontextmanager
async def session(room: Room) -> AsyncIterator[aiohttp.ClientSession]:
    connector = aiohttp.TCPConnector(ssl=trusting(room.authority))
    async with aiohttp.ClientSession(f"https://127.0.0.1:{room.port}", connector=connector) as client:
        yield client


async def ask(room: Room, path: str, token: str = "ann", method: str = "GET", **more: Any) -> tuple[int, Any, Any]:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    async with session(room) as client, client.request(method, path, headers=headers, **more) as answer:
        return answer.status, await answer.json(content_type=None), answer.headers


TASK = "/v1/namespaces/ns/tasks/t"


async def test_an_answer_is_json_that_nobody_keeps(room: Room) -> None:
    status, body, headers = await ask(room, TASK)
    assert (status, body) == (200, {"leading": True, "holder": "operator-0", "epoch": 3, "address": "view:9446"})
    assert (headers["Content-Type"], headers["Cache-Control"]) == ("application/json", "no-store")
    assert room.callers.checked == [Right("get", TASKS, "ns", "t")]


async def refused(room: Room, path: str, status: int, **asked: Any) -> dict[str, Any]:
    found, body, headers = await ask(room, path, **asked)
    assert (found, body["status"]) == (status, status), body
    assert headers["Content-Type"].startswith("application/problem+json")
    assert body["title"]
    return cast(dict[str, Any], body)


async def test_refusals_say_why(room: Room) -> None:
    await refused(room, TASK, 401, token="")
    await refused(room, "/v1/leader", 401, token="")
    await refused(room, "/v1/nothing", 404)
    await refused(room, TASK, 405, method="DELETE")
    await refused(room, "/v1/namespaces/Ns/tasks/t", 404)
    await refused(room, "/v1/namespaces/ns/tasks/%2e%2e%2f", 404)
    await refused(room, TASK + "/what-if", 403, method="POST")
    room.callers.may.add(("list", AGENTPOOLS))
    await refused(room, TASK + "/what-if", 413, method="POST", data=b"x" * (MOST_BODY_BYTES + 1))
    room.serves = False
    assert "another installation" in (await refused(room, TASK, 404))["detail"]
    room.leading = False
    told = await refused(room, TASK, 421)
    assert told["leader"]["holder"] == "operator-0"
    assert (await ask(room, "/v1/leader"))[0] == 200
    path = "/v1/namespaces/{namespace}/tasks/{name}"
    assert (path, "421") in room.counted
    assert {("other", "404"), ("other", "405"), ("/v1/leader", "401")} <= set(room.counted)


@pytest.mark.parametrize(
    ("path", "token", "method"),
    [
        pytest.param("/v1/nothing", "", "GET", id="a path that does not exist, of a stranger"),
        pytest.param(TASK, "", "PUT", id="a method that does not exist, of a stranger"),
        pytest.param(TASK, "", "GET", id="no token"),
        pytest.param(TASK + "/what-if", "ann", "POST", id="no right"),
    ],
)
async def test_refusals_end_the_connection_so_that_their_number_is_paced(
    room: Room, path: str, token: str, method: str
) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", room.port, ssl=trusting(room.authority))
    bearer = f"Authorization: Bearer {token}\r\n" if token else ""
    writer.write(f"{method} {path} HTTP/1.1\r\nHost: x\r\n{bearer}\r\n".encode() * 5)
    with contextlib.suppress(ConnectionError):
        assert (await asyncio.wait_for(reader.read(), 20)).count(b"HTTP/1.1 4") == 1
    writer.close()
    assert len(room.counted) == 1


async def test_a_body_that_does_not_come_keeps_no_connection(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("taskdist.controller.view.server.BODY_SECONDS", 0.05)
    reader, writer = await asyncio.open_connection("127.0.0.1", room.port, ssl=trusting(room.authority))
    writer.write(
        f"GET {TASK} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\nContent-Length: 9\r\n\r\nhalf".encode()
    )
    assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 408")
    writer.close()


async def test_a_defect_is_no_end(room: Room, caplog: pytest.LogCaptureFixture) -> None:
    async def breaks(_: Question) -> web.StreamResponse:
        raise ZeroDivisionError("secret")

    room.answer = breaks
    assert "secret" not in str(await refused(room, TASK, 500))
    room.answer = room._leader
    assert (await ask(room, TASK))[0] == 200


async def test_who_goes_away_ends_the_work(room: Room) -> None:
    begun, ended = asyncio.Event(), asyncio.Event()

    async def slow(_: Question) -> web.StreamResponse:
        begun.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    room.answer = slow
    asking = asyncio.ensure_future(ask(room, TASK))
    await begun.wait()
    asking.cancel()
    await asyncio.wait_for(ended.wait(), 20)


async def test_a_new_certificate_is_served_at_once(room: Room) -> None:
    assert (await ask(room, TASK))[0] == 200
    room.authority = rotate(None, ("localhost",), time.time(), AuthoritySettings())
    assert (await ask(room, TASK))[0] == 200


async def test_a_connection_over_which_nothing_is_asked_is_closed(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listening, "FIRST_SECONDS", 0.05)
    monkeypatch.setattr(listening, "IDLE_SECONDS", 0.05)
    silent, writer = await asyncio.open_connection("127.0.0.1", room.port, ssl=trusting(room.authority))
    with contextlib.suppress(ConnectionError):
        assert await asyncio.wait_for(silent.read(), 20) == b""
    writer.close()
    # Half a question is none, also after a whole one.
    half, writer = await asyncio.open_connection("127.0.0.1", room.port, ssl=trusting(room.authority))
    writer.write(f"GET {TASK} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer ann\r\n\r\nGET /v1".encode())
    with contextlib.suppress(ConnectionError):
        assert (await asyncio.wait_for(half.read(), 20)).startswith(b"HTTP/1.1 200")
    writer.close()


async def test_handshakes_come_at_a_pace_and_connections_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []

    class Loop:
        now = 100.0

        def time(self) -> float:
            return self.now

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)
        Loop.now += seconds

    monkeypatch.setattr("taskdist.controller.view.listening.asyncio.sleep", sleep)
    listener = listening.Listener(cast(Any, None), cast(Any, None))
    for _ in range(listening.BURST + 100):
        await listener._paced(cast(Any, Loop()))
    assert Loop.now - 100.0 == pytest.approx(99 / listening.HANDSHAKES_A_SECOND, rel=0.05)
