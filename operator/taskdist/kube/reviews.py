"""Callers with a bearer token, and their rights, as the API server judges them: TokenReview and SubjectAccessReview.

For servers of ours that answer from memory what the caller could have read from the API server: nobody gets more than
by kubectl. Answers are kept for a few seconds, the noes too, so that a busy caller costs the API server little and a
stranger no more; equal questions asked at once are one. Tokens themselves are kept nowhere.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from taskdist.common.objects import as_object
from taskdist.kube.client import Client
from taskdist.kube.errors import ApiError, KubeError
from taskdist.kube.resources import SUBJECTACCESSREVIEWS, TOKENREVIEWS, Resource

CACHE_SECONDS = 10.0
CACHE_ENTRIES = 10_000
AT_ONCE = 16
MOST_WAITING = 2_000
MAX_TOKEN_BYTES = 16 * 1024

A = TypeVar("A")


class AccessError(Exception):
    """The question is not answered; the text says to people why, and what would help."""


class NotAuthenticated(AccessError):
    """There is no token, or the API server does not accept it."""


class NotAllowed(AccessError):
    """The API server's authorizer says no. `right` is what is missing."""

    def __init__(self, caller: Caller, right: Right) -> None:
        super().__init__(f"{caller.username!r} may not {right}: ask for that right as for kubectl")
        self.right = right


class NotReviewed(AccessError):
    """The API server did not answer in time, or refuses to be asked: ask again."""


class Busy(NotReviewed):
    """Too many callers are being looked up: ask again."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody whom the API server knows."""

    username: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on a resource, in a namespace (empty: in all of them)."""

    verb: str
    resource: Resource
    namespace: str = ""
    name: str = ""

    def __str__(self) -> str:
        where = f"in namespace {self.namespace}" if self.namespace else "in all namespaces"
        return f"{self.verb} {self.resource}{f' {self.name}' if self.name else ''} {where}"


class Reviews:
    """Asks the API server, with an account that may create TokenReviews and SubjectAccessReviews.

    Args:
        audiences: what a token must be for; empty: for the API server itself.
        timeout: of one review, in seconds; the wait for its turn counts.
        at_once: reviews under way at once.
        most_waiting: reviews that are under way or wait for their turn; beyond these callers are told to come again.
        clock: seconds on a clock that does not jump.
    """

    def __init__(
        self,
        client: Client,
        *,
        audiences: Sequence[str] = (),
        timeout: float = 10.0,
        at_once: int = AT_ONCE,
        most_waiting: int = MOST_WAITING,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._client = client
        self._audiences = list(audiences)
        self._timeout = timeout
        self._callers: _Remembered[Caller | str] = _Remembered(clock)
        self._rights: _Remembered[bool] = _Remembered(clock)
        self._gate = asyncio.Semaphore(at_once)
        self._most_waiting = most_waiting
        self._waiting = 0

    async def caller(self, token: str) -> Caller:
        """Return whose token it is. Raises NotAuthenticated or NotReviewed."""
        if not token:
            raise NotAuthenticated("no token: send `Authorization: Bearer TOKEN`, as for the API server")
        if len(token) > MAX_TOKEN_BYTES:
            raise NotAuthenticated("this is no token: it is too long")
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        found = await self._callers.get(digest, lambda: self._whose(token))
        if isinstance(found, str):
            raise NotAuthenticated(found)
        return found

    async def demand(self, caller: Caller, right: Right) -> None:
        """Return if the caller has the right. Raises NotAllowed or NotReviewed."""
        if not await self.allows(caller, right):
            raise NotAllowed(caller, right)

    async def allows(self, caller: Caller, right: Right) -> bool:
        """Return whether the caller has the right. Raises NotReviewed."""
        return await self._rights.get((caller, right), lambda: self._may(caller, right))

    async def _whose(self, token: str) -> Caller | str:
        spec: dict[str, Any] = {"token": token}
        if self._audiences:
            spec["audiences"] = self._audiences
        status = await self._ask(TOKENREVIEWS, "TokenReview", spec)
        if status.get("authenticated") is not True:
            return f"the API server does not accept the token: {str(status.get('error') or 'no reason given')[:300]}"
        # An authenticator that knows nothing of audiences answers without them, about any token: that is no yes.
        answered = status.get("audiences")
        if self._audiences and not (isinstance(answered, list) and set(self._audiences) & set(map(str, answered))):
            return f"the token is not for {' or '.join(self._audiences)}"
        return _caller(status.get("user"))

    async def _may(self, caller: Caller, right: Right) -> bool:
        attributes = {
            "verb": right.verb,
            "group": right.resource.group,
            "version": right.resource.version,
            "resource": right.resource.plural,
            "namespace": right.namespace,
            "name": right.name,
        }
        spec = {
            "user": caller.username,
            "uid": caller.uid,
            "groups": list(caller.groups),
            "extra": {key: list(values) for key, values in caller.extra},
            "resourceAttributes": {key: value for key, value in attributes.items() if value},
        }
        return (await self._ask(SUBJECTACCESSREVIEWS, "SubjectAccessReview", spec)).get("allowed") is True

    async def _ask(self, resource: Resource, kind: str, spec: dict[str, Any]) -> Mapping[str, Any]:
        body = {"apiVersion": resource.api_version, "kind": kind, "spec": spec}
        if self._waiting >= self._most_waiting:
            raise Busy("too many callers are being looked up: ask again")
        self._waiting += 1
        try:
            async with self._gate, asyncio.timeout(self._timeout):
                status = (await self._client.create(resource, body)).get("status")
        except ApiError as error:
            if error.is_invalid:  # bytes that are in no token
                return {"error": error.message}
            raise NotReviewed(f"the API server refuses to review who asks ({error.status}): {error.message}") from error
        except (KubeError, TimeoutError) as error:
            raise NotReviewed("the API server did not review who asks in time: ask again") from error
        finally:
            self._waiting -= 1
        return as_object(status)


def bearer_of(authorization: str) -> str:
    """Return the token of an Authorization header; empty where there is none. Raises NotAuthenticated."""
    scheme, _, token = authorization.partition(" ")
    if scheme and scheme.lower() != "bearer":
        raise NotAuthenticated("send `Authorization: Bearer TOKEN`, as for the API server")
    token = token.strip()
    if not token.isascii() or any(letter <= " " for letter in token):
        raise NotAuthenticated("this is no token: it holds spaces or odd letters")
    return token


class _Remembered(Generic[A]):
    """Answers by question, each for `CACHE_SECONDS`, the oldest dropped first; a question under way is joined."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._known: OrderedDict[Hashable, tuple[float, A]] = OrderedDict()
        self._asked: dict[Hashable, asyncio.Task[A]] = {}

    async def get(self, question: Hashable, ask: Callable[[], Awaitable[A]]) -> A:
        known = self._known.get(question)
        if known is not None:
            asked, answer = known
            if self._clock() - asked < CACHE_SECONDS:
                return answer
        task = self._asked.get(question)
        if task is None:
            task = self._asked[question] = asyncio.ensure_future(self._learn(question, ask))
            task.add_done_callback(_heard)
        # Whoever gives up does not take the answer from the others.
        return await asyncio.shield(task)

    async def _learn(self, question: Hashable, ask: Callable[[], Awaitable[A]]) -> A:
        asked = self._clock()  # age counts from before the question: the answer may have been on its way
        try:
            answer = await ask()
        finally:
            del self._asked[question]
        self._known[question] = (asked, answer)
        self._known.move_to_end(question)
        if len(self._known) > CACHE_ENTRIES:
            self._known.popitem(last=False)
        return answer


def _heard(task: asyncio.Task[Any]) -> None:
    """Mark a failure as seen: all who asked may have given up."""
    if not task.cancelled():
        task.exception()


def _caller(user: object) -> Caller | str:
    if not isinstance(user, dict) or not isinstance(user.get("username"), str) or not user["username"]:
        return "the API server accepts the token and does not say whose it is"
    extra = user.get("extra")
    return Caller(
        user["username"],
        str(user.get("uid") or ""),
        tuple(str(each) for each in user.get("groups") or ()),
        tuple(
            sorted((str(key), tuple(str(each) for each in values or ())) for key, values in extra.items())
            if isinstance(extra, dict)
            else ()
        ),
    )
