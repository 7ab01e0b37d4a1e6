"""Who asks, and what they may see: the API server's word on both, remembered for some seconds.

A token is reviewed, then each right is asked for by the verb that the same look would need of the API server. So nobody
sees more here than by kubectl. Tokens are kept nowhere but as hashes.
"""

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from taskdist.api import GROUP
from taskdist.controller.view.problems import Problem
from taskdist.kube import SUBJECTACCESSREVIEWS, TOKENREVIEWS, Client, KubeError

REMEMBERED_SECONDS = 10.0
MOST_REMEMBERED = 4096
ASKED_AT_ONCE = 8
MOST_WAITING = 64
ASK_SECONDS = 5.0
MOST_TOKEN_BYTES = 16 * 1024

K = TypeVar("K")
V = TypeVar("V")

Object = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Caller:
    """Somebody as the API server knows them."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: tuple[tuple[str, tuple[str, ...]], ...] = ()


@dataclass(frozen=True, slots=True)
class Right:
    """What a look needs: this verb on this resource of our group; on one object, if it is named."""

    verb: str
    resource: str
    namespace: str
    name: str = ""

    def __str__(self) -> str:
        of = f" {self.name}" if self.name else ""
        return f"{self.verb} {self.resource}.{GROUP}{of} in namespace {self.namespace}"


class Reviews:
    """The API server's reviews. Raises what the client raises."""

    def __init__(self, client: Client) -> None:
        self._client = client

    async def who(self, token: str) -> Caller | None:
        """Return whose token it is; None if it is nobody's."""
        status = await self._asked(TOKENREVIEWS, "authentication.k8s.io/v1", "TokenReview", {"token": token})
        user = status.get("user") or {}
        if not status.get("authenticated") or not user.get("username"):
            return None
        extra = user.get("extra") or {}
        return Caller(
            str(user["username"]),
            str(user.get("uid") or ""),
            tuple(user.get("groups") or ()),
            tuple(sorted((str(key), tuple(values or ())) for key, values in extra.items())),
        )

    async def may(self, caller: Caller, right: Right) -> bool:
        """Return whether this caller has this right."""
        spec = {
            "user": caller.name,
            "uid": caller.uid,
            "groups": list(caller.groups),
            "extra": {key: list(values) for key, values in caller.extra},
            "resourceAttributes": {
                "group": GROUP,
                "resource": right.resource,
                "verb": right.verb,
                "namespace": right.namespace,
                "name": right.name,
            },
        }
        status = await self._asked(SUBJECTACCESSREVIEWS, "authorization.k8s.io/v1", "SubjectAccessReview", spec)
        return bool(status.get("allowed"))

    async def _asked(self, resource: Any, version: str, kind: str, spec: Object) -> Object:
        body = {"apiVersion": version, "kind": kind, "spec": dict(spec)}
        answer = await self._client.create(resource, body, timeout=ASK_SECONDS)
        status = answer.get("status")
        return status if isinstance(status, dict) else {}


class Remembered(Generic[K, V]):
    """Answers by their questions, each for some seconds. Who asks what is being asked waits for the same answer."""

    def __init__(self, seconds: float, most: int, clock: Callable[[], float]) -> None:
        self._seconds = seconds
        self._most = most
        self._clock = clock
        self._kept: OrderedDict[K, tuple[float, asyncio.Task[V]]] = OrderedDict()

    async def get(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        known = self._kept.get(key)
        if known is None or self._clock() - known[0] >= self._seconds:
            # Its age counts from before the question: the answer may have been on its way.
            known = (self._clock(), asyncio.ensure_future(self._asked(key, ask)))
            self._kept[key] = known
            self._kept.move_to_end(key)
            if len(self._kept) > self._most:
                self._kept.popitem(last=False)
        # One that goes away takes the answer from nobody else.
        return await asyncio.shield(known[1])

    async def _asked(self, key: K, ask: Callable[[], Awaitable[V]]) -> V:
        try:
            return await ask()
        except BaseException:
            self._kept.pop(key, None)
            raise


class Callers:
    """Knows callers by their tokens, and what they may see."""

    def __init__(self, reviews: Reviews, clock: Callable[[], float] = time.monotonic) -> None:
        self._reviews = reviews
        self._tokens: Remembered[bytes, Caller | None] = Remembered(REMEMBERED_SECONDS, MOST_REMEMBERED, clock)
        self._rights: Remembered[tuple[Caller, Right], bool] = Remembered(REMEMBERED_SECONDS, MOST_REMEMBERED, clock)
        self._gate = asyncio.Semaphore(ASKED_AT_ONCE)
        self._waiting = 0

    async def who(self, headers: Mapping[str, str]) -> Caller:
        """Return who asks. Raises Problem."""
        token = _token(headers)
        digest = hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
        caller = await self._tokens.get(digest, lambda: self._answered(lambda: self._reviews.who(token)))
        if caller is None:
            raise Problem(401, "the API server does not accept the token: it is of another cluster, or has ended")
        return caller

    async def check(self, caller: Caller, rights: Sequence[Right]) -> None:
        """Raises Problem where the caller lacks one of these rights."""
        for right in rights:
            asked = (caller, right)
            may = await self._rights.get(
                asked,
                lambda right=right: self._answered(  # type: ignore[misc]
                    lambda: self._reviews.may(caller, right)
                ),
            )
            if not may:
                raise Problem(403, f"{caller.name} may not {right}: that right is needed to see this")

    async def _answered(self, ask: Callable[[], Awaitable[V]]) -> V:
        if self._waiting >= MOST_WAITING:
            raise Problem(429, "too many callers are being looked up: ask again", retry_after=1)
        self._waiting += 1
        try:
            async with self._gate:
                return await ask()
        except KubeError as error:
            raise Problem(503, f"the API server did not say who may ask: {error}"[:500], retry_after=1) from error
        finally:
            self._waiting -= 1


def _token(headers: Mapping[str, str]) -> str:
    """The caller's token. The API server's proxy keeps Authorization to itself, and passes any other header on."""
    token = headers.get("X-Taskdist-Token", "").strip()
    if not token:
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        token = token.strip() if scheme.lower() == "bearer" else ""
    if not token:
        raise Problem(
            401, "no token: send `Authorization: Bearer TOKEN`, or X-Taskdist-Token through the API server's proxy"
        )
    if len(token) > MOST_TOKEN_BYTES:
        raise Problem(401, "this is no token: it is too long")
    return token
