"""The view of the operator that leads, from outside: found, asked by the caller's own rights, and followed.

A pod asks the Service directly, and trusts the authorities that the operator publishes in its namespace. Elsewhere, and
where that is no way, the API server passes the question on. Owns which way is taken and whose token is shown. Refuses
to find anything out by itself: who is not answered is told why (`NoAnswer`).
"""

import asyncio
import os
import ssl
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing, asynccontextmanager
from dataclasses import replace
from datetime import datetime
from typing import Any, NamedTuple, Protocol
from urllib.parse import quote

import aiohttp

from taskdist.api import POOL_LABEL
from taskdist.api.problems import ProblemDetails
from taskdist.api.view import Leader, StreamEnd, TaskRow
from taskdist.client import leading
from taskdist.client.backend import Backend
from taskdist.client.errors import NoAnswer
from taskdist.client.questions import ASK_SECONDS, AnswerT, Question
from taskdist.client.states import SETTLED
from taskdist.kube import (
    CONFIGMAPS,
    PODS,
    SERVICEACCOUNTS,
    Answer,
    ApiError,
    Client,
    HttpTransport,
    KubeError,
    Obj,
    Request,
    Unreachable,
)

PORT = 9446
# The name of the Service's port: which number it has is the installation's business.
PORT_NAME = "view"
CA_CONFIGMAP, CA_KEY = "taskdist-ca", "ca.crt"
TOKEN_HEADER = "X-Taskdist-Token"
JSON = "application/json"
# Who has not answered is left alone for so long.
LEAVE_SECONDS = 10.0
# Of several replicas one leads: a question goes to another by another connection.
TRIES, AGAIN_SECONDS = 8, 0.25
# A stream says each 15 s that it lives.
SILENCE_SECONDS = 45.0
TOKEN_SECONDS = 3600
# A token is not used in its last seconds.
TOKEN_MARGIN = 60.0
LOOKED_AT = 20


class Way(Protocol):
    """A way to one installation's view."""

    async def ask(self, question: Question[Any], token: str) -> Answer:
        """Raises KubeError where nobody is reached."""
        ...

    def follow(self, path: str, token: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """The lines of a stream. Raises KubeError."""
        ...


class Direct:
    """The Service, from inside the cluster. Each question has a connection of its own: another may go to who leads."""

    def __init__(self, host: str, bundle: str, port: int = PORT) -> None:
        self._url = f"https://{host}:{port}"
        self._tls = ssl.create_default_context(cadata=bundle)

    async def ask(self, question: Question[Any], token: str) -> Answer:
        timeout = aiohttp.ClientTimeout(total=question.seconds, sock_connect=ASK_SECONDS)
        try:
            async with self._opened(question.path, token, timeout, question.body) as answer:
                return Answer(answer.status, await answer.read(), answer.headers.get("Retry-After"))
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise Unreachable(str(error) or type(error).__name__) from error

    @asynccontextmanager
    async def follow(self, path: str, token: str) -> AsyncIterator[AsyncIterator[bytes]]:
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=ASK_SECONDS, sock_read=SILENCE_SECONDS)
        async with AsyncExitStack() as stack:
            try:
                answer = await stack.enter_async_context(self._opened(path, token, timeout))
                if answer.status >= 400:
                    raise ApiError.from_answer(answer.status, await answer.read())
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                raise Unreachable(str(error) or type(error).__name__) from error
            yield aiter(answer.content)

    @asynccontextmanager
    async def _opened(
        self, path: str, token: str, timeout: aiohttp.ClientTimeout, body: bytes | None = None
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        headers = {"Authorization": f"Bearer {token}"} | ({} if body is None else {"Content-Type": JSON})
        connector = aiohttp.TCPConnector(ssl=self._tls, force_close=True)
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.request(
                _method(body), f"{self._url}{path}", data=body, headers=headers, timeout=timeout, allow_redirects=False
            ) as answer,
        ):
            yield answer


class Proxied:
    """The API server's proxy to the Service: it keeps Authorization to itself, so that the token has its own header."""

    def __init__(self, transport: HttpTransport, namespace: str, service: str) -> None:
        self._transport = transport
        self._base = f"/api/v1/namespaces/{quote(namespace)}/services/https:{quote(service)}:{PORT_NAME}/proxy"

    async def ask(self, question: Question[Any], token: str) -> Answer:
        request = replace(self._request(question.path, token), method=_method(question.body), timeout=question.seconds)
        if question.body is not None:
            request = replace(request, body=question.body)
        return await self._transport.exchange(request)

    def follow(self, path: str, token: str) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        request = replace(self._request(path, token), accept="text/event-stream")
        return self._transport.stream(request, SILENCE_SECONDS)

    def _request(self, path: str, token: str) -> Request:
        path, _, query = path.partition("?")
        return Request("GET", self._base + path, query, timeout=ASK_SECONDS, headers=((TOKEN_HEADER, token),))


class Found(NamedTuple):
    """Where a view may be.

    `trusted`: who looks has said so, or whoever else has could take their token anyway. Agents' pods are others' work:
    by what they say, nobody's own token leaves. The API server verifies nobody that it passes a question on to.
    """

    way: Way
    lease: tuple[str, str]
    trusted: bool


class LeaderView:
    """Asks the leader. What was found once is used again, and who has not answered is left alone for a while."""

    def __init__(self, client: Client, transport: HttpTransport, backend: Backend) -> None:
        self._client = client
        self._transport = transport
        self._backend = backend
        self._found: Found | None = None
        self._minted: tuple[tuple[str, str], str, float] | None = None
        self._silent: tuple[float, str] | None = None

    @property
    def lease(self) -> str:
        """NAMESPACE/NAME of the Lease of who answers; empty before that."""
        return "" if self._found is None else "/".join(self._found.lease)

    async def ask(self, question: Question[AnswerT]) -> AnswerT:
        """Raises NoAnswer."""
        _, body = await self._ask(question)
        return question.read(body)

    @asynccontextmanager
    async def progress(self, namespace: str, name: str) -> AsyncIterator[AsyncIterator[TaskRow]]:
        """The Task as it is, and each time that its agent has reported progress. Raises NoAnswer."""
        # It says who leads, and which way leads there.
        found, _ = await self._ask(Question("/v1/leader", Leader))
        path = f"/v1/namespaces/{quote(namespace)}/progress?task={quote(name)}"
        async with AsyncExitStack() as stack:
            for left in reversed(range(TRIES)):
                try:
                    following = found.way.follow(path, await self._token(found))
                    lines = await stack.enter_async_context(following)
                    break
                except ApiError as error:
                    if error.status != 421 or not left:
                        raise _no_answer(_problem(error.message.encode()), error.message) from error
                except KubeError as error:
                    raise NoAnswer(f"the leader cannot be followed: {error}") from error
                await asyncio.sleep(AGAIN_SECONDS)
            yield await stack.enter_async_context(aclosing(_rows(lines)))

    # Asking.

    async def _ask(self, question: Question[Any]) -> tuple[Found, bytes]:
        """Return who has answered, and what. Raises NoAnswer."""
        now = time.monotonic()
        if self._silent is not None and now < self._silent[0]:
            raise NoAnswer(self._silent[1])
        if (known := self._found) is not None:
            try:
                body = await self._by(known, question)
            except KubeError as error:
                if question.body is not None and isinstance(error, ApiError) and error.is_forbidden:
                    # Who may look through the API server may not post yet. All else is asked as before.
                    raise NoAnswer(f"the leader cannot be asked that: {error.message}") from error
                self._found = None  # it may be reached in another way by now
            else:
                self._found = known  # another question may have given it up meanwhile
                return known, body
        tried = ""
        async with aclosing(self._ways()) as ways:
            async for found in ways:
                try:
                    body = await self._by(found, question)
                except KubeError as error:
                    tried = tried or (error.message if isinstance(error, ApiError) else str(error))
                    continue
                except NoAnswer:
                    self._found = found  # it leads there, whatever was said
                    raise
                self._found = found
                return found, body
        self._silent = (time.monotonic() + LEAVE_SECONDS, f"the leader cannot be asked: {tried}")
        raise NoAnswer(self._silent[1])

    async def _by(self, found: Found, question: Question[Any]) -> bytes:
        """Ask until who leads answers. Raises NoAnswer, and KubeError where this way does not lead to a view."""
        return await _answered(found.way, question, await self._token(found))

    # Finding.

    async def _ways(self) -> AsyncGenerator[Found, None]:
        """The ways that there may be, the likeliest first."""
        leases = list(dict.fromkeys(leading.leases(await self._some_pods())))
        access = self._transport.access
        # Who makes pods beside this one may run them as this one does.
        said = bool(os.environ.get(leading.VARIABLE))
        ours = said or (access.in_cluster and access.namespace == self._backend.namespace)
        if access.in_cluster and (bundle := await self._bundle()):
            for lease in leases:
                yield Found(Direct(f"{lease[1]}-view.{lease[0]}.svc", bundle), lease, ours or lease == leading.DEFAULT)
        for lease in leases:
            yield Found(Proxied(self._transport, lease[0], f"{lease[1]}-view"), lease, ours or lease == leading.DEFAULT)

    async def _some_pods(self) -> list[Obj]:
        """Agents tell whose installation serves the namespace."""
        if os.environ.get(leading.VARIABLE):
            return []
        try:
            return (await self._backend.list(PODS, labels=POOL_LABEL, most=LOOKED_AT)).items
        except KubeError:
            return []

    async def _bundle(self) -> str:
        """The authorities of the operator's certificates; empty where they are not to be had."""
        try:
            stored = await self._backend.get(CONFIGMAPS, CA_CONFIGMAP, self._backend.namespace)
        except KubeError:
            return ""
        return str((stored.get("data") or {}).get(CA_KEY) or "")

    # Who asks.

    async def _token(self, found: Found) -> str:
        """The caller's own token, or one of the account that is there for callers without.

        Raises NoAnswer, and KubeError where that account's is not to be had.
        """
        access = self._transport.access
        scheme, _, token = (access.authorization or "").partition(" ")
        # Who acts as somebody else is not to see what they see themselves.
        own = token if scheme.lower() == "bearer" and not access.headers else ""
        if own and found.trusted:
            return own
        lease = namespace, name = found.lease
        if self._minted is not None and self._minted[0] == lease and time.time() < self._minted[2] - TOKEN_MARGIN:
            return self._minted[1]
        account = f"{name}-viewer"
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": TOKEN_SECONDS},
        }
        try:
            made = await self._client.create(SERVICEACCOUNTS, body, namespace, name=account, subresource="token")
        except ApiError as error:
            if not own:
                raise
            said = f"{namespace}/{name}"
            raise ApiError(
                error.status,
                error.reason,
                f"{error.message}. That {said} is the operator's Lease only agents' pods say: your own token is not "
                f"shown by that. If it is, set {leading.VARIABLE}={said}",
            ) from error
        status = made.get("status") or {}
        try:
            ends = datetime.fromisoformat(str(status["expirationTimestamp"])).timestamp()
            self._minted = (lease, str(status["token"]), ends)
        except (KeyError, ValueError) as error:
            raise NoAnswer(f"no token of ServiceAccount {namespace}/{account} was given: {error}") from error
        return self._minted[1]


class DirectView:
    """The view of one installation by its Service, asked in the name of whoever's token it is."""

    def __init__(self, address: str, lease: str, bundle: str, token: str) -> None:
        host, _, port = address.rpartition(":")
        self._host, self._port = host, int(port)
        self._lease = lease
        self._bundle = bundle
        self._token = token

    @property
    def lease(self) -> str:
        """NAMESPACE/NAME of the operator's Lease."""
        return self._lease

    async def ask(self, question: Question[AnswerT]) -> AnswerT:
        """Raises NoAnswer."""
        if not self._bundle:
            # Nothing to trust would mean to trust whatever this machine does.
            raise NoAnswer(f"the leader cannot be asked: whom to trust is not told in ConfigMap {CA_CONFIGMAP}")
        try:
            way = Direct(self._host, self._bundle, self._port)
        except ssl.SSLError as error:
            raise NoAnswer(
                f"the leader cannot be asked: ConfigMap {CA_CONFIGMAP} does not tell whom to trust: {error}"
            ) from error
        try:
            return question.read(await _answered(way, question, self._token))
        except KubeError as error:
            raise NoAnswer(f"the leader cannot be asked: {error}") from error


def _method(body: bytes | None) -> str:
    return "GET" if body is None else "POST"


async def _answered(way: Way, question: Question[Any], token: str) -> bytes:
    """Ask until who leads answers. Raises NoAnswer, and KubeError where this way does not lead to a view."""
    for left in reversed(range(TRIES)):
        answer = await way.ask(question, token)
        if answer.status == 200:
            return answer.body
        if (problem := _problem(answer.body)) is None:
            raise ApiError.from_answer(answer.status, answer.body, answer.retry_after)
        if answer.status not in (421, 429) or not left:
            break
        await asyncio.sleep(AGAIN_SECONDS)
    raise _no_answer(problem, str(answer.status))


async def _rows(lines: AsyncIterator[bytes]) -> AsyncGenerator[TaskRow, None]:
    """The rows of a stream until its end. Raises NoAnswer where that is not the Task's."""
    event, over = "", False
    try:
        async for line in lines:
            name, _, value = line.strip().partition(b": ")
            if name == b"event":
                event = value.decode()
            elif name == b"data" and event == "task":
                row = TaskRow.model_validate_json(value)
                over = row.phase in SETTLED
                yield row
            elif name == b"data" and event == "end" and not over:
                raise NoAnswer(f"the leader tells no more: {StreamEnd.model_validate_json(value).reason}")
    except (KubeError, aiohttp.ClientError, OSError, ValueError) as error:
        raise NoAnswer(f"the leader is followed no more: {error}") from error
    if not over:
        raise NoAnswer("the leader is followed no more: the stream has ended")


def _problem(body: bytes) -> ProblemDetails | None:
    """Read the view's refusal; None where the API server itself has answered, and not the view behind it."""
    try:
        told = ProblemDetails.model_validate_json(body)
    except ValueError:
        return None
    return told if told.title else None


def _no_answer(problem: ProblemDetails | None, otherwise: str) -> NoAnswer:
    detail = problem.detail if problem is not None else ""
    return NoAnswer(f"the leader cannot be asked: {detail or otherwise}")
