"""Requests by path, for a control plane and a node on this machine: waiting (`Client`) or not (`AsyncClient`).

Owns writing kubeconfigs, and how a body and an answer are spelled where no `Resource` is known. Connections,
credentials, errors and the lines of a watch are those of `kube`; nothing is tried again here.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import json
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any, Self
from urllib.parse import urlencode, urlsplit

import yaml

from taskdist.api import nesting
from taskdist.kube.client import PatchType, watch_events
from taskdist.kube.credentials import Access, Credentials, Loaded
from taskdist.kube.errors import ApiError, Unanswered, Unreachable
from taskdist.kube.resources import Obj
from taskdist.kube.transport import Answer, HttpTransport, Request
from taskdist.local.certificates import write_private

MERGE_PATCH = PatchType.MERGE
APPLY_PATCH = PatchType.APPLY
STRATEGIC_MERGE_PATCH = PatchType.STRATEGIC

FIELD_MANAGER = "taskdist-local"
TIMEOUT_SECONDS = 30.0
# The server bookmarks about once a minute.
STALL_SECONDS = 90.0


def write_kubeconfig(path: Path, server: str, authority: bytes, user: Mapping[str, str], namespace: str = "") -> Path:
    """Writes a kubeconfig with one context; `user` is its user section. Readable by its owner only."""
    context = {"cluster": "local", "user": "user", **({"namespace": namespace} if namespace else {})}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "local",
        "clusters": [
            {
                "name": "local",
                "cluster": {"server": server, "certificate-authority-data": base64.b64encode(authority).decode()},
            }
        ],
        "users": [{"name": "user", "user": dict(user)}],
        "contexts": [{"name": "local", "context": context}],
    }
    write_private(path, yaml.safe_dump(config, sort_keys=False).encode())
    return path


def access_of(kubeconfig: Path) -> Access:
    """Where the API server of the kubeconfig is, and who speaks to it. Raises ConfigurationError."""
    return Credentials(kubeconfig).load()


class AsyncClient:
    """`async with AsyncClient(access) as client:`; then many requests at a time over kept connections, and watches."""

    def __init__(self, access: Access, timeout: float = TIMEOUT_SECONDS) -> None:
        self._transport = HttpTransport(Loaded(access), user_agent=FIELD_MANAGER)
        self._timeout = timeout

    async def open(self) -> Self:
        await self._transport.open()
        return self

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """One request; `path` begins with `/api…`. Returns the decoded answer. Raises KubeError.

        A `body` of bytes is sent as it is.
        """
        return _decoded(
            await self._transport.exchange(_request(method, path, body, content_type, query, self._timeout))
        )

    async def watch(self, path: str, resource_version: str, seconds: int = 300) -> AsyncGenerator[Obj, None]:
        """Events after `resource_version`, until the server ends the watch. Raises KubeError (is_gone: list again)."""
        query = {
            "watch": "1",
            "resourceVersion": resource_version,
            "allowWatchBookmarks": "true",
            "timeoutSeconds": str(seconds),
        }
        request = _request("GET", path, None, "", query, self._timeout)
        async with self._transport.stream(request, STALL_SECONDS) as lines:
            async for event in watch_events(lines, request):
                yield {"type": event.type, "object": event.object}


class Client:
    """Waits for each answer. A connection per request: for set-up and tests, where that does not matter."""

    def __init__(self, access: Access, timeout: float = TIMEOUT_SECONDS) -> None:
        self._access = access
        self._timeout = timeout

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        content_type: str = "application/json",
        query: Mapping[str, str] | None = None,
    ) -> Any:
        """As AsyncClient.request."""
        return _decoded(self._exchange(_request(method, path, body, content_type, query, self._timeout)))

    def _exchange(self, request: Request) -> Answer:
        """One request by a Transport's rules, without an event loop: tests ask from within one."""
        server = urlsplit(self._access.server)
        headers = {"Accept": request.accept, "Content-Type": request.content_type}
        if self._access.authorization is not None:
            headers["Authorization"] = self._access.authorization
        target = f"{server.path}{request.path}" + (f"?{request.query}" if request.query else "")
        what = f"{request.method} {request.path}"
        with contextlib.closing(self._connection(server.hostname or "", server.port)) as connection:
            try:
                connection.connect()
            except OSError as error:
                raise Unreachable(f"{what}: {error}") from error
            try:
                connection.request(request.method, target, request.body, headers)
                response = connection.getresponse()
                return Answer(response.status, response.read(), response.headers.get("Retry-After"))
            except (OSError, http.client.HTTPException) as error:
                raise Unanswered(f"{what}: {error}") from error

    def _connection(self, host: str, port: int | None) -> http.client.HTTPConnection:
        if self._access.tls is not None:
            return http.client.HTTPSConnection(host, port, timeout=self._timeout, context=self._access.tls)
        return http.client.HTTPConnection(host, port, timeout=self._timeout)

    def get(self, path: str, **query: str) -> Any:
        return self.request("GET", path, query=query)

    def create(self, path: str, body: Obj) -> Any:
        return self.request("POST", path, body)

    def delete(self, path: str, grace_seconds: int | None = None) -> Any:
        body = None if grace_seconds is None else {"gracePeriodSeconds": grace_seconds}
        return self.request("DELETE", path, body)

    def apply(self, path: str, body: Obj) -> Any:
        """Server-side apply; takes fields from other managers."""
        query = {"fieldManager": FIELD_MANAGER, "force": "true"}
        return self.request("PATCH", path, body, content_type=APPLY_PATCH, query=query)


def _request(
    method: str, path: str, body: Any, content_type: str, query: Mapping[str, str] | None, timeout: float
) -> Request:
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    return Request(method, path, urlencode(query or {}), data, content_type, timeout=timeout)


def _decoded(answer: Answer) -> Any:
    if answer.status >= 400:
        raise ApiError.from_answer(answer.status, answer.body, answer.retry_after)
    try:
        return nesting.loads(answer.body) if answer.body else None
    except ValueError:
        return answer.body.decode(errors="replace")
