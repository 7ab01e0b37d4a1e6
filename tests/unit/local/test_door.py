"""The demo's door: who calls, that it waits until the gateway is ready, and that a refusal keeps nobody waiting."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, cast

import pytest

from patience import until
from taskdist.local.door import Door
from taskdist.local.stack import Gateway, Stack, StackError

TASK = {"name": "a", "queue": "q", "type": "t", "payload": {"n": 1}}


class Answering(BaseHTTPRequestHandler):
    """The gateway: not ready at first, then it answers as it is told."""

    unready = 2
    status, told = 201, {"name": "a", "phase": "Succeeded", "result": {"n": 2}}
    asked: list[tuple[str, str | None, Any]] = []  # noqa: RUF012 - reset for each test

    def do_GET(self) -> None:
        type(self).unready -= 1
        self._say(503 if self.unready >= 0 else 200, {})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.asked.append((self.path, self.headers["Authorization"], body))
        self._say(self.status, self.told)

    def _say(self, status: int, told: object) -> None:
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Said by nobody."""


class Machine:
    """A stack and its API server, which notes what is made."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.made: dict[str, Any] = {}

    @property
    def plane(self) -> "Machine":
        return self

    @property
    def client(self) -> "Machine":
        return self

    def create(self, path: str, body: Any) -> Any:
        self.made[path] = body
        return {"status": {"token": "the-token"}}

    def start_gateway(self) -> Gateway:
        return Gateway(self.url, int(self.url.rpartition(":")[2]))


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    monkeypatch.setattr(Answering, "unready", 2)
    monkeypatch.setattr(Answering, "asked", [])
    server = ThreadingHTTPServer(("127.0.0.1", 0), Answering)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield Machine(f"http://127.0.0.1:{server.server_port}")
    server.shutdown()
    server.server_close()


def test_a_caller_with_a_token_and_rights_on_tasks_alone_sends_one(machine: Machine) -> None:
    door = Door(cast(Stack, machine), "demo")
    door.open(TASK)
    assert door.answer()["result"] == {"n": 2}
    assert Answering.asked == [("/v1/namespaces/demo/tasks?wait=300", "Bearer the-token", TASK)]
    role = machine.made["/apis/rbac.authorization.k8s.io/v1/namespaces/demo/roles"]
    assert role["rules"] == [
        {"apiGroups": ["taskdist.dev"], "resources": ["tasks"], "verbs": ["create", "get", "watch"]}
    ]
    account = f"/api/v1/namespaces/demo/serviceaccounts/{role['metadata']['name']}"
    assert f"{account}/token" in machine.made
    door.check()


def test_a_refusal_is_told_to_who_watches_the_job(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Answering, "status", 403)
    monkeypatch.setattr(Answering, "told", {"detail": "caller may not create tasks"})
    door = Door(cast(Stack, machine), "demo")
    door.open(TASK)

    def refused() -> str:
        try:
            door.check()
        except StackError as error:
            return str(error)
        return ""

    assert "caller may not create tasks" in until(refused, "it is refused")
