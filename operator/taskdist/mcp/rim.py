"""The rim of the door over HTTP: who may call, how much at once, and about which namespace.

Behind it stands the protocol's own server. A caller shows a bearer token, which the API server reviews. All that the
call asks of the cluster goes there with that token: nobody gets more than by kubectl, and this process has no right to
anything. Names under which it is called, and origins of pages that call, are checked: a name that somebody lets point
here leads nowhere.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from contextlib import AbstractAsyncContextManager, contextmanager
from typing import Any

from taskdist.api import problems
from taskdist.kube import AccessError, Caller, NotAuthenticated, bearer_of

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

MOST_BYTES = 1024 * 1024
BODY_SECONDS = 30.0
AGAIN_SECONDS = 5
HERE = ("localhost", "127.0.0.1", "[::1]")
"""Names that it has on its own machine, as through a forwarded port."""

_PATH = re.compile(r"/v1/namespaces/([a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)/mcp/?")


class _Refused(Exception):
    """The answer to a call that does not get in. `more`: headers beside those that its status calls for."""

    def __init__(self, status: int, detail: str, *, retry_after: float | None = None, **more: str) -> None:
        super().__init__(detail)
        self.status = status
        self.headers = problems.headers(status, retry_after) | more


class Places:
    """Places for calls at once: so many in all, and so many of one caller."""

    def __init__(self, most: int, most_each: int) -> None:
        self._most = most
        self._most_each = most_each
        self._each: Counter[str] = Counter()
        self.taken = 0

    @contextmanager
    def one(self, caller: str) -> Iterator[None]:
        """Hold a place. Raises _Refused."""
        if self.taken >= self._most or self._each[caller] >= self._most_each:
            whose = "yours" if self.taken < self._most else "of all callers"
            raise _Refused(429, f"too many calls at once, {whose}: ask again", retry_after=AGAIN_SECONDS)
        self.taken += 1
        self._each[caller] += 1
        try:
            yield
        finally:
            self.taken -= 1
            self._each[caller] -= 1
            if not self._each[caller]:
                del self._each[caller]


class Rim:
    """The ASGI application: lets calls in, or answers why not.

    Args:
        app: the protocol's server.
        whose: whose token it is; raises AccessError.
        on_behalf: makes all that is asked within go to the cluster with this token, about this namespace.
        namespaces: those that are served; empty: all.
        hosts: further names under which it is called; `origins`: of pages that may call.
        told: status and seconds of each request.
    """

    def __init__(
        self,
        app: App,
        whose: Callable[[str], Awaitable[Caller]],
        on_behalf: Callable[[str, str], AbstractAsyncContextManager[None]],
        places: Places,
        *,
        namespaces: tuple[str, ...] = (),
        hosts: tuple[str, ...] = (),
        origins: tuple[str, ...] = (),
        told: Callable[[int, float], None] = lambda _status, _seconds: None,
    ) -> None:
        self._app = app
        self._whose = whose
        self._on_behalf = on_behalf
        self._places = places
        self._namespaces = frozenset(namespaces)
        self._hosts = frozenset(each.lower() for each in (*HERE, *hosts))
        self._origins = frozenset(each.lower().rstrip("/") for each in origins)
        self._told = told

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        began, status = time.monotonic(), 0

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            await self._answer(scope, receive, sent)
        except _Refused as refused:
            await _problem(refused, sent)
        finally:
            # Who has gone before the answer began is none of the server's failures.
            self._told(status or 499, time.monotonic() - began)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = _headers(scope)
        self._check_names(headers)
        namespace = self._namespace(scope["path"])
        if scope["method"] != "POST":
            raise _Refused(405, "send calls by POST; there are no sessions, and no stream to open by GET", Allow="POST")
        try:
            token = bearer_of(headers.get("authorization", ""))
            caller = await self._whose(token)
        except NotAuthenticated as error:
            raise _Refused(401, str(error)) from error
        except AccessError as error:
            raise _Refused(503, str(error), retry_after=AGAIN_SECONDS) from error
        with self._places.one(caller.username):
            body = await _body(headers, receive)
            async with self._on_behalf(token, namespace):
                await self._app({**scope, "path": "/", "raw_path": b"/"}, _again(body, receive), send)

    def _check_names(self, headers: Mapping[str, str]) -> None:
        host = _without_port(headers.get("host", "")).lower()
        if host not in self._hosts:
            raise _Refused(
                421, f"it is not called {host[:100] or 'by no name'}: TASKDIST_MCP_HOSTS says which names it has"
            )
        origin = headers.get("origin", "").lower()
        if origin and origin not in self._origins:
            raise _Refused(403, "pages of this origin may not call: TASKDIST_MCP_ORIGINS says which may")

    def _namespace(self, path: str) -> str:
        found = _PATH.fullmatch(path)
        if found is None:
            raise _Refused(404, "there is nothing here: call /v1/namespaces/NAMESPACE/mcp")
        if self._namespaces and found[1] not in self._namespaces:
            raise _Refused(404, f"namespace {found[1]} is not served here")
        return found[1]


def _headers(scope: Scope) -> dict[str, str]:
    """Headers by name, in small letters. Raises _Refused where one that says who calls, or whom, is there twice."""
    found: dict[str, str] = {}
    for name, value in scope["headers"]:
        key = name.decode("latin-1").lower()
        if key in found and key in ("authorization", "host", "origin"):
            raise _Refused(400, f"{key} is there more than once")
        found[key] = value.decode("latin-1")
    return found


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdecimal() else host


async def _body(headers: Mapping[str, str], receive: Receive) -> bytes:
    """Read the whole body. Raises _Refused where it is too large, or does not come."""
    said = headers.get("content-length", "")
    too_large = said.isdecimal() and len(said) < 20 and int(said) > MOST_BYTES
    found, more = bytearray(), True
    try:
        async with asyncio.timeout(BODY_SECONDS):
            while more and not too_large:
                message = await receive()
                if message["type"] != "http.request":
                    raise _Refused(400, "the request broke off")
                found += message.get("body", b"")
                more = message.get("more_body", False)
                too_large = len(found) > MOST_BYTES
    except TimeoutError:
        raise _Refused(408, f"the body did not come within {BODY_SECONDS:g} s") from None
    if too_large:
        raise _Refused(413, f"the body has more than {MOST_BYTES} bytes")
    return bytes(found)


def _again(body: bytes, receive: Receive) -> Receive:
    """Hand on the body that was read, and then what comes after it: that the caller has gone."""
    left = [body]

    async def read() -> Message:
        if left:
            return {"type": "http.request", "body": left.pop(), "more_body": False}
        return await receive()

    return read


async def _problem(refused: _Refused, send: Send) -> None:
    told = problems.ProblemDetails(title=problems.title(refused.status), status=refused.status, detail=str(refused))
    body = json.dumps(told.document()).encode()
    headers = {"Content-Type": problems.MEDIA_TYPE, "Content-Length": str(len(body)), **refused.headers}
    await send(
        {
            "type": "http.response.start",
            "status": refused.status,
            "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
