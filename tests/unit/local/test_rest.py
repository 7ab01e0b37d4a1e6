"""Requests by path, waiting and not: the same answers, and the errors of the one API client."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from taskdist.kube import Access, ApiError, ConfigurationError, KubeError, Unanswered, Unreachable
from taskdist.local.rest import APPLY_PATCH, AsyncClient, Client, access_of, write_kubeconfig

Ask = Callable[..., Any]
STATUS = {"kind": "Status", "code": 409, "reason": "AlreadyExists", "message": "it is there", "details": {"name": "a"}}
EVENTS = [{"type": "ADDED", "object": {"metadata": {"name": "a"}}}, {"type": "BOOKMARK", "object": {"metadata": {}}}]
GONE = {"type": "ERROR", "object": {"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}}
ANSWERS: dict[str, tuple[int, bytes]] = {
    "/object": (200, b'{"a":1}'),
    "/readyz": (200, b"ok"),
    "/nothing": (200, b""),
    "/conflict": (409, json.dumps(STATUS).encode()),
    "/proxy": (502, b"<html>bad gateway"),
    "/watch": (200, b"".join(json.dumps(each).encode() + b"\n" for each in (*EVENTS, GONE))),
}


class _Server(BaseHTTPRequestHandler):
    heard: list[tuple[str, str, str | None, str | None, bytes]] = []  # noqa: RUF012  # cleared by the fixture

    def _answer(self) -> None:
        path = self.path.partition("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        of = self.headers
        self.heard.append((self.command, self.path, of["Authorization"], of["Content-Type"] if body else None, body))
        if path == "/cut":
            self.close_connection = True
            return
        code, answer = ANSWERS[path]
        self.send_response(code)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PATCH = _answer  # the base class asks by these names

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def url() -> Iterator[str]:
    _Server.heard.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), _Server) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def access(server: str) -> Access:
    return Access(server, "Bearer secret", None, None, None, "default")


def waiting(url: str) -> Ask:
    return Client(access(url)).request


def not_waiting(url: str) -> Ask:
    def ask(*args: Any, **kwargs: Any) -> Any:
        async def one() -> Any:
            async with AsyncClient(access(url)) as client:
                return await client.request(*args, **kwargs)

        return asyncio.run(one())

    return ask


BOTH = pytest.mark.parametrize("form", [waiting, not_waiting])


@BOTH
@pytest.mark.parametrize(
    ("path", "answer"),
    [
        pytest.param("/object", {"a": 1}, id="an object"),
        pytest.param("/readyz", "ok", id="plain text"),
        pytest.param("/nothing", None, id="no body"),
    ],
)
def test_an_answer_is_what_json_gives(form: Callable[[str], Ask], url: str, path: str, answer: Any) -> None:
    assert form(url)("GET", path) == answer


@BOTH
def test_a_body_and_a_query_are_sent_as_they_are(form: Callable[[str], Ask], url: str) -> None:
    ask = form(url)
    ask("PATCH", "/object", {"b": 2}, content_type=APPLY_PATCH, query={"force": "true", "m": "a b"})
    ask("POST", "/object", b"{no json")
    assert _Server.heard == [
        ("PATCH", "/object?force=true&m=a+b", "Bearer secret", "application/apply-patch+yaml", b'{"b": 2}'),
        ("POST", "/object", "Bearer secret", "application/json", b"{no json"),
    ]


@BOTH
@pytest.mark.parametrize(
    ("path", "error"),
    [
        pytest.param("/conflict", "409 AlreadyExists: it is there", id="a Status"),
        pytest.param("/proxy", "502 error: <html>bad gateway", id="what a proxy put there"),
    ],
)
def test_a_refusal_is_the_api_clients(form: Callable[[str], Ask], url: str, path: str, error: str) -> None:
    with pytest.raises(ApiError) as refused:
        form(url)("GET", path)
    assert str(refused.value) == error
    assert refused.value.is_already_exists == (path == "/conflict")


@BOTH
def test_what_was_sent_and_not_answered_is_not_what_was_never_sent(form: Callable[[str], Ask], url: str) -> None:
    with pytest.raises(Unanswered):
        form(url)("POST", "/cut", {})
    assert len(_Server.heard) == 1, "no write is sent twice"
    with pytest.raises(Unreachable):
        form("http://127.0.0.1:1")("POST", "/object", {})


async def test_a_watch_tells_events_until_the_server_ends_it(url: str) -> None:
    seen = []

    async def follow(client: AsyncClient) -> None:
        async for event in client.watch("/watch", "7", seconds=5):
            seen.append(event)

    async with AsyncClient(access(url)) as client:
        with pytest.raises(ApiError) as ended:
            await follow(client)
    assert seen == EVENTS
    assert ended.value.is_gone
    assert "resourceVersion=7" in _Server.heard[0][1]


def test_a_kubeconfig_that_was_written_can_be_used(tmp_path: Path) -> None:
    path = write_kubeconfig(tmp_path / "k", "http://127.0.0.1:1/", b"", {"token": "secret"}, "ns")
    found = access_of(path)
    assert (found.server, found.authorization, found.namespace) == ("http://127.0.0.1:1", "Bearer secret", "ns")
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_kubeconfig_that_is_none_is_an_error_of_the_api_client(tmp_path: Path) -> None:
    (tmp_path / "k").write_text("- no kubeconfig")
    for path in (tmp_path / "k", tmp_path / "absent"):
        with pytest.raises(ConfigurationError, match=str(path)):
            access_of(path)
    assert issubclass(ConfigurationError, KubeError)
