"""Authentication of agents: a token that the API server vouches for becomes the identity of an agent.

A token is good if TokenReview says so for this installation's own audience and names the pod that it is bound to. An
agent is a pod that has not ended and that a pool, alive under the same uid, owns. Pods are matched by uid: names are
reused. What the agent says of itself plays no part here.

A pod that is being deleted works through its grace: it may come back, whatever became of its pool, or what it finishes
would run again. It gets no more work; that is for the protocol to say.

A refusal says what to do. It errs towards refusing: an agent connects again, a stranger must not get in once.
"""

import asyncio
import base64
import binascii
import hashlib
import json
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Final, NamedTuple

from taskdist.protocol.messages import AgentIdentity

POD_NAME: Final = "authentication.kubernetes.io/pod-name"
POD_UID: Final = "authentication.kubernetes.io/pod-uid"
CACHE_SECONDS = 10.0
# An end beyond this is none; false for NaN too.
_LARGEST = 2**53
CACHE_ENTRIES = 10_000
REVIEWS_AT_ONCE = 16
REVIEWS_WAITING = 2_000
REVIEW_TIMEOUT = 10.0
MAX_TOKEN_BYTES = 16 * 1024

Review = Callable[[str, Sequence[str]], Awaitable[Mapping[str, Any]]]
"""Asks the API server: (token, audiences) → the `status` of a TokenReview. Raises if there is no answer."""


@dataclass(frozen=True, slots=True)
class PodOwner:
    """A pod and the pool that owns it, from its ownerReferences (empty if no AgentPool owns it)."""

    uid: str
    namespace: str
    name: str
    pool: str
    pool_uid: str
    deleting: bool = False
    ended: bool = False  # its node has said so: a phase alone may be the word of a cluster that had lost the node


FindPod = Callable[[str], PodOwner | None]
"""The pod of this uid, as the informer knows it."""
ReadPod = Callable[[str, str], Awaitable[PodOwner | None]]
"""The pod of this (namespace, name), read from the API server: for one that the informer does not know yet."""
FindPool = Callable[[str, str], str | None]
"""The uid of the pool of this (namespace, name), if there is one and this operator serves it."""


class Refusal(Enum):
    """Kinds of refusals, by what the agent should do about it."""

    TOKEN = "token"  # read the token again, then come back
    AGENT = "agent"  # coming back as it is will not help
    LATER = "later"  # nobody could be asked


class NotAdmitted(Exception):
    """The agent is turned away. `reason` is one word for metrics, the text is for people."""

    def __init__(self, kind: Refusal, reason: str, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Admission:
    """An agent that may have a session, for `seconds` from now (what is left of its token's life)."""

    identity: AgentIdentity
    seconds: float


@dataclass(frozen=True, slots=True)
class _Bearer:
    """The bearer of a token, as the API server names it."""

    namespace: str
    pod: str
    pod_uid: str
    ends: float  # seconds since the Unix epoch


class _Judgement(NamedTuple):
    """A judged token, and when the API server was asked (monotonic time)."""

    asked: float
    found: _Bearer | NotAdmitted


class Authenticator:
    """Admits agents.

    Args:
        review: asks the API server about a token.
        audience: this installation's own; a token for any other is refused.
        wall: seconds since the Unix epoch, which a token's end is measured on.
        monotonic: seconds on a clock that does not jump, which the cache is measured on.
    """

    def __init__(
        self,
        review: Review,
        audience: str,
        pods: FindPod,
        read_pod: ReadPod,
        pools: FindPool,
        *,
        wall: Callable[[], float] = time.time,
        monotonic: Callable[[], float] = time.monotonic,
        cache_seconds: float = CACHE_SECONDS,
        review_timeout: float = REVIEW_TIMEOUT,
    ) -> None:
        self._review = review
        self._audience = audience
        self._pods = pods
        self._read_pod = read_pod
        self._pools = pools
        self._wall = wall
        self._monotonic = monotonic
        self._cache_seconds = cache_seconds
        self._review_timeout = review_timeout
        # By hash: the tokens themselves are kept nowhere. Noes are kept too, or a bad token would cost a review each.
        self._cache: OrderedDict[bytes, _Judgement] = OrderedDict()
        self._gate = asyncio.Semaphore(REVIEWS_AT_ONCE)
        self._waiting = 0

    async def authenticate(self, token: str) -> Admission:
        """Return who holds the token, or raise NotAdmitted."""
        if not token:
            raise NotAdmitted(
                Refusal.TOKEN,
                "NoToken",
                "no token: send `authorization: Bearer <token>`, read from TASKDIST_TOKEN_FILE",
            )
        if len(token) > MAX_TOKEN_BYTES:
            raise NotAdmitted(Refusal.TOKEN, "InvalidToken", "this is no token: it is too long")
        bearer = await self._bearer(token)
        seconds = bearer.ends - self._wall()
        if seconds <= 0:
            raise NotAdmitted(Refusal.TOKEN, "TokenExpired", _EXPIRED)
        return Admission(await self._agent(bearer), seconds)

    async def _bearer(self, token: str) -> _Bearer:
        digest = hashlib.sha256(token.encode("utf-8", "replace")).digest()
        known = self._cache.get(digest)
        if known is None or self._monotonic() - known.asked >= self._cache_seconds:
            asked = self._monotonic()  # age counts from before the question: the answer may have been on its way
            known = _Judgement(asked, self._judged(await self._ask(token), token))
            self._cache[digest] = known
            self._cache.move_to_end(digest)
            if len(self._cache) > CACHE_ENTRIES:
                self._cache.popitem(last=False)
        found = known.found
        if isinstance(found, NotAdmitted):
            raise NotAdmitted(found.kind, found.reason, str(found))
        return found

    async def _ask(self, token: str) -> Mapping[str, Any]:
        if self._waiting >= REVIEWS_WAITING:
            raise NotAdmitted(Refusal.LATER, "Busy", "too many agents connect at once: connect again")
        self._waiting += 1
        try:
            async with self._gate, asyncio.timeout(self._review_timeout):
                return await self._review(token, [self._audience])
        except Exception as error:  # the port's errors are the client's; to the agent they all mean the same
            raise NotAdmitted(
                Refusal.LATER, "ReviewFailed", "the API server did not review the token in time: connect again"
            ) from error
        finally:
            self._waiting -= 1

    def _judged(self, status: Mapping[str, Any], token: str) -> _Bearer | NotAdmitted:
        try:
            return self._judge(status, token)
        except (AttributeError, TypeError, ValueError, LookupError):  # an answer of no form that is known
            return NotAdmitted(
                Refusal.LATER, "ReviewFailed", "the API server's review of the token cannot be read: connect again"
            )

    def _judge(self, status: Mapping[str, Any], token: str) -> _Bearer | NotAdmitted:
        if not status.get("authenticated"):
            return _unauthenticated(str(status.get("error") or ""), token, self._audience)
        # An authenticator that knows nothing of audiences answers without them, about any token: that is no yes.
        if self._audience not in (status.get("audiences") or ()):
            return _wrong_audience(self._audience, _claims(token).get("aud"))
        user = status.get("user") or {}
        extra = user.get("extra") or {}
        account = str(user.get("username") or "").split(":")
        names: Sequence[Any] = extra.get(POD_NAME) or ()
        uids: Sequence[Any] = extra.get(POD_UID) or ()
        if len(names) != 1 or len(uids) != 1 or account[:2] != ["system", "serviceaccount"] or len(account) != 4:
            return NotAdmitted(
                Refusal.AGENT,
                "NotAPod",
                f"the token is of {user.get('username') or 'nobody'} and bound to no pod: mount a projected "
                "serviceAccountToken volume in the pod and use that token",
            )
        ends = _claims(token).get("exp")
        if isinstance(ends, bool) or not isinstance(ends, int | float) or not -_LARGEST < ends < _LARGEST:
            return NotAdmitted(
                Refusal.AGENT, "EndlessToken", "the token has no end: use a projected serviceAccountToken volume"
            )
        return _Bearer(account[2], str(names[0]), str(uids[0]), float(ends))

    async def _agent(self, bearer: _Bearer) -> AgentIdentity:
        pod = self._pods(bearer.pod_uid) or await self._unknown_pod(bearer)
        name = f"pod {bearer.namespace}/{bearer.pod}"
        if pod is None or pod.uid != bearer.pod_uid:
            raise NotAdmitted(Refusal.AGENT, "PodGone", f"{name} of this token (uid {bearer.pod_uid}) is deleted")
        if pod.namespace != bearer.namespace:
            raise NotAdmitted(Refusal.AGENT, "PodGone", f"{name} of this token is not the pod of that uid")
        if pod.ended:
            raise NotAdmitted(Refusal.AGENT, "PodEnded", f"{name} has ended: it gets no more work")
        if not pod.pool:
            raise NotAdmitted(
                Refusal.AGENT,
                "NotOfAPool",
                f"{name} belongs to no AgentPool: let a pool create it (only pods that a pool owns are agents)",
            )
        if pod.deleting and self._pods(pod.uid) is not None:
            return AgentIdentity(pod.uid, pod.name, pod.namespace, pod.pool, pod.pool_uid)
        pool_uid = self._pools(pod.namespace, pod.pool)
        if pool_uid is None:
            raise NotAdmitted(
                Refusal.AGENT,
                "PoolGone",
                f"{name} belongs to AgentPool {pod.namespace}/{pod.pool}, which does not exist or is not served by "
                "this operator: see watchNamespaces",
            )
        if pool_uid != pod.pool_uid:
            raise NotAdmitted(
                Refusal.AGENT,
                "OtherPool",
                f"{name} belongs to another AgentPool of the name {pod.pool} (uid {pod.pool_uid}; the present one has "
                f"{pool_uid}): delete the pod, the present pool makes its own",
            )
        return AgentIdentity(pod.uid, pod.name, pod.namespace, pod.pool, pool_uid)

    async def _unknown_pod(self, bearer: _Bearer) -> PodOwner | None:
        """Ask the API server for a pod that is younger than the informer's view."""
        try:
            async with asyncio.timeout(self._review_timeout):
                read = await self._read_pod(bearer.namespace, bearer.pod)
        except Exception as error:  # as above
            raise NotAdmitted(
                Refusal.LATER, "ReadFailed", "the API server did not tell of the pod in time: connect again"
            ) from error
        # By now the informer may know it, and know more: that it is ending, say.
        return self._pods(bearer.pod_uid) or read


_EXPIRED = "the token has ended: read TASKDIST_TOKEN_FILE again (the kubelet renews it in time)"


def _unauthenticated(error: str, token: str, audience: str) -> NotAdmitted:
    """Turn the API server's words into advice. The words are its own and may change: they only choose the advice."""
    if "expired" in error:
        return NotAdmitted(Refusal.TOKEN, "TokenExpired", _EXPIRED)
    if "audience" in error:
        return _wrong_audience(audience, _claims(token).get("aud"))
    if "deleted" in error or "has been invalidated" in error or "not found" in error:
        return NotAdmitted(
            Refusal.AGENT, "PodGone", f"the pod or service account of this token is deleted ({error[:300]})"
        )
    return NotAdmitted(
        Refusal.TOKEN,
        "InvalidToken",
        f"the API server does not accept the token ({error[:300] or 'no reason given'}): use the projected token in "
        "TASKDIST_TOKEN_FILE, of this cluster",
    )


def _wrong_audience(wanted: str, found: object) -> NotAdmitted:
    of = f" (it is for {json.dumps(found)[:200]})" if found else ""
    return NotAdmitted(
        Refusal.TOKEN,
        "WrongAudience",
        f"the token is not for this installation{of}: project one with `audience: {wanted}`, as the operator does for "
        "the pods of its pools",
    )


def _claims(token: str) -> dict[str, Any]:
    """Read a token's claims without checking them: only for one that was reviewed, or to say what is wrong with it."""
    try:
        _header, body, _signature = token.split(".")
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (ValueError, binascii.Error, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}
