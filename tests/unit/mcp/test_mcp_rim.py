"""The rim of the MCP door over HTTP: who gets in, under which name, how much at once."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest

from taskdist.common.environment import SettingsError
from taskdist.kube import Caller, NotAuthenticated, NotReviewed
from taskdist.mcp import rim as rims
from taskdist.mcp.rim import MOST_BYTES, Message, Places, Receive, Rim, Scope, Send
from taskdist.mcp.settings import Settings

PATH = "/v1/namespaces/demo/mcp"


class Room:
    """A rim, and a server behind it that says what reached it."""

    def __init__(self, most: int = 10, most_each: int = 5) -> None:
        self.told: list[int] = []
        self.places = Places(most, most_each)
        self.opened = asyncio.Event()
        self.opened.set()
        self.reached = asyncio.Semaphore(0)
        self._acting = ""
        self.rim = Rim(
            self._server,
            self._whose,
            self._on_behalf,
            self.places,
            namespaces=("demo",),
            hosts=("mcp.example.com",),
            origins=("https://agents.example.com",),
            told=lambda status, _: self.told.append(status),
        )

    async def call(self, method: str = "POST", path: str = PATH, token: str = "ann", **more: Any) -> httpx.Response:
        headers = [("Authorization", f"Bearer {token}")] if token else []
        headers += list(more.pop("headers", {}).items())
        base = more.pop("base", "http://localhost:8443")
        async with httpx.AsyncClient(transport=httpx.ASGITransport(self.rim), base_url=base) as client:
            return await client.request(method, path, headers=headers, content=more.pop("content", b"{}"), **more)

    async def _whose(self, token: str) -> Caller:
        match token:
            case "":
                raise NotAuthenticated("no token")
            case "bad":
                raise NotAuthenticated("the API server does not accept the token")
            case "slow":
                raise NotReviewed("ask again")
        return Caller(token)

    @asynccontextmanager
    async def _on_behalf(self, token: str, namespace: str) -> AsyncIterator[None]:
        self._acting = f"{token} in {namespace}"
        yield

    async def _server(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.reached.release()
        await self.opened.wait()
        body = (await receive())["body"].decode()
        said = json.dumps({"acting": self._acting, "path": scope["path"], "body": body}).encode()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": said})


async def test_a_call_reaches_the_server_whole_with_its_callers_token() -> None:
    room = Room()
    answer = await room.call(content=b'{"a": 1}')
    assert answer.json() == {"acting": "ann in demo", "path": "/", "body": '{"a": 1}'}
    assert (room.told, room.places.taken) == ([200], 0)


REFUSED: dict[str, tuple[dict[str, Any], int, str]] = {
    "no token": ({"token": ""}, 401, "no token"),
    "a bad token": ({"token": "bad"}, 401, "does not accept"),
    "no bearer": ({"token": "", "headers": {"Authorization": "Basic YTpi"}}, 401, "Bearer TOKEN"),
    "a token with a space": ({"token": "a b"}, 401, "spaces"),
    "two tokens": ({"headers": {"authorization": "Bearer bob"}}, 400, "more than once"),
    "a review that fails": ({"token": "slow"}, 503, "ask again"),
    "another name": ({"base": "http://evil.example"}, 421, "TASKDIST_MCP_HOSTS"),
    "a name that begins alike": ({"base": "http://localhost.evil.example"}, 421, "TASKDIST_MCP_HOSTS"),
    "a page": ({"headers": {"Origin": "https://evil.example"}}, 403, "TASKDIST_MCP_ORIGINS"),
    "a page of this machine": ({"headers": {"Origin": "http://localhost:8443"}}, 403, "TASKDIST_MCP_ORIGINS"),
    "no page": ({"headers": {"Origin": "null"}}, 403, "TASKDIST_MCP_ORIGINS"),
    "a stream to open": ({"method": "GET"}, 405, "by POST"),
    "a session to end": ({"method": "DELETE"}, 405, "by POST"),
    "another path": ({"path": "/mcp"}, 404, "/v1/namespaces/NAMESPACE/mcp"),
    "a namespace that is none": ({"path": "/v1/namespaces/%2e%2e/mcp"}, 404, "nothing here"),
    "a namespace within a path": ({"path": "/v1/namespaces/a/b/mcp"}, 404, "nothing here"),
    "a namespace that is not served": ({"path": "/v1/namespaces/kube-system/mcp"}, 404, "is not served"),
    "a large body": ({"content": b"x" * (MOST_BYTES + 1)}, 413, str(MOST_BYTES)),
}


@pytest.mark.parametrize(("asked", "status", "words"), REFUSED.values(), ids=REFUSED.keys())
async def test_who_does_not_get_in_is_told_why(asked: dict[str, Any], status: int, words: str) -> None:
    room = Room()
    answer = await room.call(**asked)
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.status_code == answer.json()["status"] == status
    assert words in answer.json()["detail"]
    assert (room.told, room.places.taken, room._acting) == ([status], 0, "")
    if status == 401:
        assert answer.headers["www-authenticate"] == "Bearer"
    if status == 405:
        assert answer.headers["allow"] == "POST"
    if status == 503:
        assert int(answer.headers["retry-after"]) > 0


@pytest.mark.parametrize(
    "more",
    [
        pytest.param({"base": "http://MCP.example.com"}, id="a name from the settings"),
        pytest.param({"base": "http://127.0.0.1:9"}, id="this machine"),
        pytest.param({"base": "http://[::1]:9"}, id="this machine by IPv6"),
        pytest.param({"headers": {"Origin": "https://agents.example.com"}}, id="a page that may"),
        pytest.param({"path": f"{PATH}/"}, id="a slash at the end"),
    ],
)
async def test_names_and_pages_that_are_known_get_in(more: dict[str, Any]) -> None:
    assert (await Room().call(**more)).status_code == 200


async def test_one_caller_cannot_take_all_places() -> None:
    room = Room(most=3, most_each=2)
    room.opened.clear()
    calls = [asyncio.create_task(room.call(token="ann")) for _ in range(2)]
    await room.reached.acquire()
    await room.reached.acquire()
    again = await room.call(token="ann")
    calls.append(asyncio.create_task(room.call(token="bob")))
    await room.reached.acquire()
    full = await room.call(token="eve")
    room.opened.set()
    assert [(await each).status_code for each in calls] == [200, 200, 200]
    assert (again.status_code, full.status_code) == (429, 429)
    assert "yours" in again.json()["detail"]
    assert "of all callers" in full.json()["detail"]
    assert int(full.headers["retry-after"]) > 0
    assert room.places.taken == 0
    assert (await room.call(token="eve")).status_code == 200


async def test_a_body_that_does_not_come_gives_its_place_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rims, "BODY_SECONDS", 0.01)
    room, sent = Room(), list[Message]()

    async def never() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    await room.rim(scope(), never, collected(sent))
    assert (sent[0]["status"], room.places.taken) == (408, 0)


async def test_a_body_that_says_it_is_small_and_is_not_is_not_kept() -> None:
    room, sent = Room(), list[Message]()
    read = 0

    async def endless() -> Message:
        nonlocal read
        read += 1
        return {"type": "http.request", "body": b"x" * 65536, "more_body": True}

    await room.rim(scope((b"content-length", b"2")), endless, collected(sent))
    assert (sent[0]["status"], room.places.taken) == (413, 0)
    assert read <= MOST_BYTES // 65536 + 1


def scope(*more: tuple[bytes, bytes]) -> Scope:
    headers = [(b"host", b"localhost"), (b"authorization", b"Bearer ann"), *more]
    return {"type": "http", "method": "POST", "path": PATH, "headers": headers}


def collected(sent: list[Message]) -> Send:
    async def send(message: Message) -> None:
        sent.append(message)

    return send


WRONG = {
    "one port twice": ({"TASKDIST_MCP_PORT": "8080"}, "TASKDIST_METRICS_PORT"),
    "a certificate without its key": ({"TASKDIST_MCP_TLS_CERT": "/c"}, "TASKDIST_MCP_TLS_KEY is not"),
    "a key without its certificate": ({"TASKDIST_MCP_TLS_KEY": "/k"}, "TASKDIST_MCP_TLS_CERT is not"),
    "more of one than of all": (
        {"TASKDIST_MCP_MOST_CALLS": "5", "TASKDIST_MCP_MOST_CALLS_EACH": "6"},
        "TASKDIST_MCP_MOST_CALLS_EACH is '6'",
    ),
}


@pytest.mark.parametrize(("env", "words"), WRONG.values(), ids=WRONG.keys())
def test_settings_that_make_no_sense_are_refused_by_name(env: dict[str, str], words: str) -> None:
    with pytest.raises(SettingsError, match=words):
        Settings.from_env(env)


def test_settings_are_read() -> None:
    env = {"TASKDIST_MCP_HOSTS": "a.example, b.example", "TASKDIST_MCP_MOST_CALLS": "5"}
    read = Settings.from_env(env)
    assert (read.hosts, read.most_calls, read.most_calls_each) == (("a.example", "b.example"), 5, 5)
    assert Settings.from_env({}) == Settings()
