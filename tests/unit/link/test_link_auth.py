"""Who is admitted, and what everybody else is told to do."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from taskdist.link.auth import CACHE_SECONDS, Authenticator, NotAdmitted, PodOwner, Refusal
from taskdist.protocol.messages import AgentIdentity
from unit.link.tokens import status_of, token_of

NOW = 1_000_000.0
POD = PodOwner("uid-a", "ns", "a", "pool", "pool-uid")
GOOD = status_of("a")


@dataclass
class World:
    """The API server and the informer, as the authenticator sees them."""

    status: Mapping[str, Any] = field(default_factory=lambda: GOOD)
    pods: dict[str, PodOwner] = field(default_factory=lambda: {"uid-a": POD})
    readable: dict[tuple[str, str], PodOwner] = field(default_factory=dict)
    pools: dict[tuple[str, str], str] = field(default_factory=lambda: {("ns", "pool"): "pool-uid"})
    now: float = 0.0
    reviews: list[Sequence[str]] = field(default_factory=list)
    reads: int = 0
    down: bool = False

    async def review(self, token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        self.reviews.append(audiences)
        if self.down:
            raise OSError("no route")
        return self.status

    async def read(self, namespace: str, name: str) -> PodOwner | None:
        self.reads += 1
        if self.down:
            raise OSError("no route")
        return self.readable.get((namespace, name))

    def authenticator(self, **options: Any) -> Authenticator:
        return Authenticator(
            self.review,
            "here",
            self.pods.get,
            self.read,
            lambda namespace, name: self.pools.get((namespace, name)),
            wall=lambda: NOW + self.now,
            monotonic=lambda: self.now,
            **options,
        )


async def refusal_of(authenticator: Authenticator, token: str) -> NotAdmitted:
    with pytest.raises(NotAdmitted) as refused:
        await authenticator.authenticate(token)
    return refused.value


async def test_a_pod_of_a_pool_is_admitted_for_as_long_as_its_token_lives() -> None:
    world = World()
    admission = await world.authenticator().authenticate(token_of("a", NOW + 600))
    assert admission.identity == AgentIdentity("uid-a", "a", "ns", "pool", "pool-uid")
    assert admission.seconds == 600
    assert world.reviews == [["here"]]
    assert world.reads == 0


def user(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "user": {**GOOD["user"], **changes}}


def no(error: str) -> dict[str, Any]:
    return {"authenticated": False, "error": error}


TOKEN, AGENT, LATER = Refusal.TOKEN, Refusal.AGENT, Refusal.LATER


@pytest.mark.parametrize(
    ("status", "kind", "reason", "says"),
    [
        pytest.param({}, TOKEN, "InvalidToken", "TASKDIST_TOKEN_FILE", id="empty answer"),
        pytest.param(no("[invalid bearer token]"), TOKEN, "InvalidToken", "invalid bearer token", id="garbage"),
        pytest.param(
            no("[invalid bearer token, service account token has expired]"),
            TOKEN,
            "TokenExpired",
            "read TASKDIST",
            id="expired",
        ),
        pytest.param(
            no('token audiences ["x"] is invalid for the target audiences ["here"]'),
            TOKEN,
            "WrongAudience",
            "audience: here",
            id="audience refused",
        ),
        pytest.param(
            {**GOOD, "audiences": ["else"]}, TOKEN, "WrongAudience", "audience: here", id="audience of others"
        ),
        pytest.param({**GOOD, "audiences": None}, TOKEN, "WrongAudience", "audience: here", id="audience not said"),
        pytest.param(
            {k: v for k, v in GOOD.items() if k != "audiences"},
            TOKEN,
            "WrongAudience",
            "audience: here",
            id="no audience",
        ),
        pytest.param(
            no("[invalid bearer token, service account token has been invalidated]"),
            AGENT,
            "PodGone",
            "is deleted",
            id="pod deleted",
        ),
        pytest.param(user(extra={}), AGENT, "NotAPod", "bound to no pod", id="no pod"),
        pytest.param(user(extra=None), AGENT, "NotAPod", "bound to no pod", id="no extra"),
        pytest.param(user(username="jane"), AGENT, "NotAPod", "of jane", id="a person"),
        pytest.param(user(username="system:node:a:b"), AGENT, "NotAPod", "bound to no pod", id="a node"),
    ],
)
async def test_what_the_review_rules_out(status: dict[str, Any], kind: Refusal, reason: str, says: str) -> None:
    refused = await refusal_of(World(status=status).authenticator(), token_of("a", NOW + 600))
    assert (refused.kind, refused.reason) == (kind, reason)
    assert says in str(refused)


@pytest.mark.parametrize(
    ("token", "kind", "reason"),
    [
        pytest.param("", TOKEN, "NoToken", id="none"),
        pytest.param("x" * 20_000, TOKEN, "InvalidToken", id="endless text"),
        pytest.param(token_of("a", NOW - 1), TOKEN, "TokenExpired", id="ended by our clock"),
        pytest.param("opaque", AGENT, "EndlessToken", id="no claims"),
        pytest.param("a.!!!.b", AGENT, "EndlessToken", id="claims that are none"),
        pytest.param("a.WzFd.b", AGENT, "EndlessToken", id="claims that are a list"),
        pytest.param("a.e30.b", AGENT, "EndlessToken", id="no end"),
    ],
)
async def test_what_the_token_rules_out(token: str, kind: Refusal, reason: str) -> None:
    refused = await refusal_of(World().authenticator(), token)
    assert (refused.kind, refused.reason) == (kind, reason)


@pytest.mark.parametrize(
    ("pod", "pools", "reason", "says"),
    [
        pytest.param(None, None, "PodGone", "is deleted", id="deleted"),
        pytest.param(replace(POD, uid="uid-new"), None, "PodGone", "is deleted", id="name used again"),
        pytest.param(
            replace(POD, namespace="else"), None, "PodGone", "not the pod of that uid", id="another namespace"
        ),
        pytest.param(replace(POD, ended=True), None, "PodEnded", "has ended", id="ended"),
        pytest.param(replace(POD, pool="", pool_uid=""), None, "NotOfAPool", "no AgentPool", id="of no pool"),
        pytest.param(POD, {}, "PoolGone", "does not exist", id="pool gone"),
        pytest.param(POD, {("ns", "pool"): "newer"}, "OtherPool", "delete the pod", id="pool made again"),
        pytest.param(POD, {("else", "pool"): "pool-uid"}, "PoolGone", "watchNamespaces", id="pool not served"),
    ],
)
async def test_what_the_pod_rules_out(
    pod: PodOwner | None, pools: dict[tuple[str, str], str] | None, reason: str, says: str
) -> None:
    world = World(pods={"uid-a": pod} if pod else {})
    if pools is not None:
        world.pools = pools
    refused = await refusal_of(world.authenticator(), token_of("a", NOW + 600))
    assert (refused.kind, refused.reason) == (Refusal.AGENT, reason)
    assert says in str(refused)


@pytest.mark.parametrize(
    "pools",
    [
        pytest.param({("ns", "pool"): "pool-uid"}, id="its pool stands"),
        pytest.param({}, id="its pool is gone"),
        pytest.param({("ns", "pool"): "newer"}, id="its pool was made again"),
    ],
)
async def test_a_pod_that_works_through_its_grace_may_come_back(pools: dict[tuple[str, str], str]) -> None:
    world = World(pods={"uid-a": replace(POD, deleting=True)}, pools=pools)
    admission = await world.authenticator().authenticate(token_of("a", NOW + 600))
    assert (admission.identity.pod_uid, admission.identity.pool_uid) == ("uid-a", "pool-uid")


async def test_a_pod_that_is_going_and_that_no_view_knows_is_judged_by_its_pool() -> None:
    world = World(pods={}, readable={("ns", "a"): replace(POD, deleting=True)}, pools={})
    assert (await refusal_of(world.authenticator(), token_of("a", NOW + 600))).reason == "PoolGone"


async def test_a_pod_that_the_informer_does_not_know_yet_is_read() -> None:
    world = World(pods={}, readable={("ns", "a"): POD})
    admission = await world.authenticator().authenticate(token_of("a", NOW + 600))
    assert admission.identity.pod_uid == "uid-a"
    assert world.reads == 1


async def test_what_the_informer_learned_while_it_was_read_counts_more() -> None:
    world = World(pods={})

    async def read(namespace: str, name: str) -> PodOwner | None:
        world.pods["uid-a"] = replace(POD, ended=True)
        return POD

    world.read = read  # type: ignore[method-assign]
    assert (await refusal_of(world.authenticator(), token_of("a", NOW + 600))).reason == "PodEnded"


@pytest.mark.parametrize("known", [True, False], ids=["review fails", "read fails"])
async def test_no_answer_is_neither_yes_nor_no_and_is_not_kept(known: bool) -> None:
    world = World(pods={}, down=True)
    authenticator, token = world.authenticator(), token_of("a", NOW + 600)
    if known:
        world.pods["uid-a"] = POD
    assert (await refusal_of(authenticator, token)).kind is Refusal.LATER
    world.down = False
    world.pods["uid-a"] = POD
    assert (await authenticator.authenticate(token)).identity.pod_uid == "uid-a"


async def test_a_review_that_hangs_is_given_up() -> None:
    async def hang(token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    world = World()
    world.review = hang  # type: ignore[method-assign]
    began = time.monotonic()
    refused = await refusal_of(world.authenticator(review_timeout=0.05), token_of("a", NOW + 600))
    assert refused.reason == "ReviewFailed"
    assert time.monotonic() - began < 5


@pytest.mark.parametrize("status", [GOOD, no("bad")], ids=["yes", "no"])
async def test_an_answer_is_kept_for_ten_seconds_at_most(status: dict[str, Any]) -> None:
    assert CACHE_SECONDS <= 10
    world = World(status=status)
    authenticator, token = world.authenticator(), token_of("a", NOW + 600)
    asked = []
    for world.now in (0.0, CACHE_SECONDS - 0.1, CACHE_SECONDS, CACHE_SECONDS + 1):
        with suppress(NotAdmitted):
            await authenticator.authenticate(token)
        asked.append(len(world.reviews))
    assert asked == [1, 1, 2, 2]


async def test_what_the_cache_keeps_is_the_token_and_not_the_pod() -> None:
    world = World()
    authenticator, token = world.authenticator(), token_of("a", NOW + 5)
    await authenticator.authenticate(token)
    world.pods["uid-a"] = replace(POD, ended=True)
    assert (await refusal_of(authenticator, token)).reason == "PodEnded"
    world.now = 6.0
    assert (await refusal_of(authenticator, token)).reason == "TokenExpired"
    assert len(world.reviews) == 1


async def test_a_storm_of_tokens_is_reviewed_a_few_at_a_time() -> None:
    world = World()
    now = most = 0

    async def review(token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0)
        now -= 1
        return GOOD

    world.review = review  # type: ignore[method-assign]
    authenticator = world.authenticator()
    answers = await asyncio.gather(
        *(authenticator.authenticate(token_of("a", NOW + 600)) for _ in range(3000)), return_exceptions=True
    )
    assert most <= 16
    turned_away = [each for each in answers if isinstance(each, NotAdmitted)]
    assert 0 < len(turned_away) <= 1000
    assert {(each.kind, each.reason) for each in turned_away} == {(Refusal.LATER, "Busy")}
