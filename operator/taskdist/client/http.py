"""The client's backend on the HTTP door: for callers who reach the gateway and not the API server.

What the door answers is put into the form of resources, so that all above works on either. One stream serves all who
wait. Only Tasks are to be had here: queues and pools are not.
"""

import json
import os
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import aiohttp

from taskdist.api import GROUP, VERSION
from taskdist.client.backend import Source, Told
from taskdist.kube import TASKS, ApiError, ConfigurationError, Obj, Page, Resource, Unanswered, Unreachable, WatchEvent

TIMEOUT = 30.0
"""Seconds for one request."""
SILENCE = 60.0
"""Seconds after which a stream that says nothing is dead: the door says each 15 s that it lives."""
PAGE = 500
TOKEN_FILE = "/var/run/secrets/kubernetes.io/serviceaccount/token"
_FIELDS = {"metadata.name": "name", "spec.queue": "queue", "spec.type": "type", "status.phase": "phase"}
# Of a row: what stands in the status of the resource, and is told if it is not empty.
_STATUS = ("phase", "reason", "message", "pool", "agent", "attempt", "progress", "assignedAt", "finishedAt")

Token = str | Callable[[], str]
"""A token of the cluster, or what gives one: asked for each request."""


def pod_token() -> str:
    """The token of this pod's service account, read anew: the kubelet renews it. Raises ConfigurationError."""
    try:
        return Path(TOKEN_FILE).read_text().strip()
    except OSError as error:
        raise ConfigurationError(
            f"no token for the gateway: give one or set TASKDIST_TOKEN, as this is no pod with an account ({error})"
        ) from error


class HttpBackend:
    """Reads and writes through the gateway, with the caller's token.

    Args:
        url: of the gateway, as `https://tasks.example.com`.
        authority: file with the certificates to trust; else those of the machine.
    """

    def __init__(self, url: str, namespace: str, token: Token | None = None, authority: str | None = None) -> None:
        if not url.startswith(("https://", "http://")):
            raise ConfigurationError(f"the gateway's address is {url!r}: begin it with https:// or http://")
        self._url = f"{url.rstrip('/')}/v1/namespaces/{quote(namespace, safe='')}/tasks"
        self._namespace = namespace
        given = token or os.environ.get("TASKDIST_TOKEN") or pod_token
        self._token = given if callable(given) else lambda: str(given)
        self._tls: ssl.SSLContext | bool = ssl.create_default_context(cafile=authority) if authority else True
        self._session: aiohttp.ClientSession | None = None

    async def open(self) -> "HttpBackend":
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=64), cookie_jar=aiohttp.DummyCookieJar()
        )
        return self

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    @property
    def namespace(self) -> str:
        return self._namespace

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        self._must_be_mine(resource, namespace)
        return _object(await self._ask("GET", f"/{quote(name, safe='')}"))

    async def list(
        self,
        resource: Resource,
        *,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
        most: int | None = None,
    ) -> Page:
        _must_be_one(everywhere)
        found = Page([], "")
        async for page in self._pages(resource, labels, fields, PAGE if most is None else min(most, PAGE)):
            # The first version: what has changed while the rest was read is told again.
            found = Page([*found.items, *page.items], found.resource_version or page.resource_version)
            if most is not None and len(found.items) >= most:
                break
        return found

    def pages(self, resource: Resource, *, labels: str = "", fields: str = "") -> AsyncIterator[Page]:
        return self._pages(resource, labels, fields, PAGE)

    async def _pages(self, resource: Resource, labels: str, fields: str, size: int) -> AsyncGenerator[Page, None]:
        self._must_be_mine(resource)
        query, after = _query(labels, fields) | {"limit": str(size)}, ""
        while True:
            answer = await self._ask("GET", "", query=query | ({"after": after} if after else {}))
            found = [await self._whole(each) for each in answer["items"]]
            yield Page([each for each in found if each is not None], answer["resourceVersion"])
            if not (after := answer.get("next") or ""):
                return

    async def create(self, resource: Resource, body: Obj) -> Obj:
        self._must_be_mine(resource)
        metadata = body["metadata"]
        named = {key: metadata[key] for key in ("name", "labels") if metadata.get(key)}
        answer, status = await self._asked("POST", "", {**body["spec"], **named})
        if status == 200:
            raise ApiError(409, "AlreadyExists", f'tasks "{answer["name"]}" already exists', {"name": answer["name"]})
        return _object(answer)

    async def patch(self, resource: Resource, name: str, body: Obj) -> Obj:
        self._must_be_mine(resource)
        uid = (body.get("metadata") or {}).get("uid")
        change = {**body["spec"], **({"uid": uid} if uid else {})}
        return _object(await self._ask("PATCH", f"/{quote(name, safe='')}", change))

    async def explain(self, name: str) -> Told:
        """Where the Task stands and why: the gateway asks the operator that leads."""
        story = await self._ask("GET", f"/{quote(name, safe='')}/explain")
        by_leader = story.pop("told_by", "") == Source.LEADER
        warnings, not_asked = tuple(story.pop("warnings", ())), str(story.pop("not_asked", ""))
        return Told(story, warnings, not_asked, Source.LEADER if by_leader else Source.CLUSTER)

    @asynccontextmanager
    async def watch(
        self, resource: Resource, version: str, *, everywhere: bool = False, labels: str = "", fields: str = ""
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        self._must_be_mine(resource)
        _must_be_one(everywhere)
        query = _query(labels, fields) | {"results": "true"}
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=TIMEOUT, sock_read=SILENCE)
        try:
            async with self._open.get(
                f"{self._url}:events",
                params=query,
                headers=self._headers() | {"Last-Event-ID": version},
                timeout=timeout,
                ssl=self._tls,
                allow_redirects=False,
            ) as answer:
                if answer.status >= 400:
                    raise _error(answer.status, await answer.read(), answer.headers)
                events = self._events(answer)
                try:
                    yield events
                finally:
                    await events.aclose()
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failed(error) from error

    async def _events(self, answer: aiohttp.ClientResponse) -> AsyncGenerator[WatchEvent, None]:
        """The events of a stream, until it ends. Raises ApiError (`is_gone`) where it cannot be gone on with."""
        name, buffer = "", b""
        async for chunk in answer.content.iter_any():
            *lines, buffer = (buffer + chunk).split(b"\n")
            for line in lines:
                key, _, value = line.partition(b": ")
                if key == b"event":
                    name = value.decode()
                elif key == b"data":
                    if name in ("overrun", "expired"):
                        raise ApiError(410, "Expired", "the stream cannot be gone on with: list again")
                    obj = await self._whole(json.loads(value), gone=name == "gone")
                    if obj is not None:
                        yield WatchEvent("DELETED" if name == "gone" else "MODIFIED", obj)

    async def _whole(self, answer: dict[str, Any], gone: bool = False) -> Obj | None:
        """The Task, with its result if it has one: a row is without, so it is read. None: it is gone meanwhile."""
        obj = _object(answer)
        if gone or "payload" in answer or not answer.get("settled"):
            return obj
        try:
            return await self.get(TASKS, answer["name"])
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    async def _ask(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        return (await self._asked(method, path, body, query=query))[0]

    async def _asked(
        self, method: str, path: str, body: Any = None, *, query: Mapping[str, str] | None = None
    ) -> tuple[dict[str, Any], int]:
        try:
            async with self._open.request(
                method,
                f"{self._url}{path}",
                json=body,
                params=query,
                headers=self._headers(),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT),
                ssl=self._tls,
                # The token is for the gateway, not for wherever it points.
                allow_redirects=False,
            ) as answer:
                data, status = await answer.read(), answer.status
                if status >= 300:
                    raise _error(status, data, answer.headers)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _failed(error) from error
        try:
            found = json.loads(data)
        except (ValueError, RecursionError) as error:
            raise ApiError(502, "BadAnswer", f"what answers at {self._url} is no gateway") from error
        return (found if isinstance(found, dict) else {}), status

    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self._token()}"}

    @property
    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            raise RuntimeError("the backend is not open")
        return self._session

    def _must_be_mine(self, resource: Resource, namespace: str | None = None) -> None:
        if resource != TASKS or namespace not in (None, self._namespace):
            raise ApiError(403, "Forbidden", f"the gateway gives {TASKS} of one namespace, not {resource}")


def _object(answer: Mapping[str, Any]) -> Obj:
    """The resource that the door's answer is of, as far as it tells."""
    metadata = {
        "name": answer["name"],
        "namespace": answer["namespace"],
        "uid": answer["uid"],
        "resourceVersion": answer["resourceVersion"],
        "labels": answer.get("labels") or {},
    }
    if answer.get("createdAt"):
        metadata["creationTimestamp"] = answer["createdAt"]
    spec = {key: answer[key] for key in ("queue", "type", "priority", "tenant", "deadline") if answer.get(key)}
    spec |= answer.get("spec") or {}
    if "payload" in answer:
        spec["payload"] = answer["payload"]
    status = {key: answer[key] for key in (*_STATUS, "result", "resultRef", "attempts", "redrives") if answer.get(key)}
    if answer.get("result") is not None:
        status["result"] = answer["result"]
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": "Task", "metadata": metadata, "spec": spec, "status": status}


def _must_be_one(everywhere: bool) -> None:
    if everywhere:
        raise ApiError(403, "Forbidden", "the gateway shows one namespace at a time")


def _query(labels: str, fields: str) -> dict[str, str]:
    query = {"labelSelector": labels} if labels else {}
    for part in filter(None, fields.split(",")):
        key, _, value = part.partition("=")
        if key not in _FIELDS:
            raise ApiError(400, "BadRequest", f"the gateway does not select by {key}")
        query[_FIELDS[key]] = value
    return query


def _error(status: int, body: bytes, headers: Mapping[str, str]) -> ApiError:
    """What the door says went wrong, as the API server would say it."""
    try:
        problem = json.loads(body)
    except (ValueError, RecursionError):
        problem = {}
    if not isinstance(problem, dict):
        problem = {}
    reason, detail = str(problem.get("reason") or ""), str(problem.get("detail") or f"the gateway answered {status}")
    causes = [each for each in problem.get("errors") or () if isinstance(each, dict)]
    for each in causes:
        each["field"] = f"spec.{each.get('field', '')}"
    after = headers.get("Retry-After", "")
    wait = float(after) if after.isdecimal() else None
    if reason in ("KeyReused", "KeyInUse"):
        # What is there is looked at, as with the API server's own refusal.
        return ApiError(409, "AlreadyExists", detail, {"causes": causes})
    if reason == "QueueFull":
        # As the API server refuses it: who asks at either door is told alike.
        return ApiError(403, "Forbidden", f"denied request: {detail}", retry_after=wait)
    details: dict[str, Any] = {"causes": causes}
    if status == 404 and reason != "NoSuchPath":
        details["name"] = "task"  # what is missing is an object, and not the path
    return ApiError(status, reason, detail, details, wait)


def _failed(error: BaseException) -> Unreachable | Unanswered:
    what = f"the gateway: {type(error).__name__} {error}".rstrip()
    if isinstance(error, (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError, aiohttp.InvalidURL)):
        return Unreachable(what)
    return Unanswered(what)


@asynccontextmanager
async def connect(
    url: str, namespace: str | None = None, token: Token | None = None, authority: str | None = None
) -> AsyncIterator[HttpBackend]:
    """Open what the arguments, or else the environment, point to. Raises ConfigurationError."""
    backend = HttpBackend(url, namespace or os.environ.get("TASKDIST_NAMESPACE") or "default", token, authority)
    await backend.open()
    try:
        yield backend
    finally:
        await backend.close()
