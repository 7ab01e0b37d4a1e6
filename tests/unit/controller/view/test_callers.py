"""Callers and rights: what is asked of the API server, how often, and what each answer means."""

import asyncio
from collections.abc import Mapping
from typing import Any, cast

import pytest

from taskdist.controller.view.callers import MOST_WAITING, Callers
from taskdist.controller.view.problems import Problem
from taskdist.kube import TASKS, Caller, Resource, Right, Unreachable
from taskdist.kube.reviews import CACHE_SECONDS, MAX_TOKEN_BYTES

ANN = Caller("ann", "u1", ("devs",), (("scopes", ("a", "b")),))
LOOK = Right("list", TASKS, "ns")


class Server:
    """Reviews as the API server makes them. `hold` keeps it from answering."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.error: Exception | None = None
        self.hold: asyncio.Event | None = None
        self.allowed = True

    async def create(self, resource: Resource, body: dict[str, Any], **_: Any) -> dict[str, Any]:
        self.asked.append(body)
        if self.hold is not None:
            await self.hold.wait()
        if self.error is not None:
            raise self.error
        if body["kind"] == "SubjectAccessReview":
            return {"status": {"allowed": self.allowed}}
        if body["spec"]["token"].startswith("bad"):
            return {"status": {"authenticated": False, "error": "no"}}
        user = {"username": "ann", "uid": "u1", "groups": ["devs"], "extra": {"scopes": ["a", "b"]}}
        return {"status": {"authenticated": True, "user": user}}


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def callers(server: Server, now: list[float]) -> Callers:
    return Callers(cast(Any, server), lambda: now[0])


def bearer(token: str) -> Mapping[str, str]:
    return {"Authorization": f"Bearer {token}"}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({"Authorization": "Bearer good"}, id="direct"),
        pytest.param({"Authorization": "bearer  good "}, id="in small letters"),
        pytest.param({"X-Taskdist-Token": "good"}, id="through the API server"),
        pytest.param({"X-Taskdist-Token": "good", "Authorization": "Basic x"}, id="beside a proxy's own"),
    ],
)
async def test_a_token_is_taken_from_either_header(
    headers: Mapping[str, str], callers: Callers, server: Server
) -> None:
    assert await callers.who(headers) == ANN
    assert server.asked[0]["spec"] == {"token": "good"}


@pytest.mark.parametrize(
    "headers",
    [
        pytest.param({}, id="none"),
        pytest.param({"Authorization": "Basic YTpi"}, id="another scheme"),
        pytest.param({"Authorization": "Bearer "}, id="empty"),
        pytest.param(bearer("x" * (MAX_TOKEN_BYTES + 1)), id="too long"),
    ],
)
async def test_what_is_no_token_costs_no_review(headers: Mapping[str, str], callers: Callers, server: Server) -> None:
    with pytest.raises(Problem) as refused:
        await callers.who(headers)
    assert (refused.value.status, server.asked) == (401, [])


async def test_answers_are_kept_for_some_seconds_noes_too(callers: Callers, server: Server, now: list[float]) -> None:
    for _ in range(3):
        assert await callers.who(bearer("good")) == ANN
        with pytest.raises(Problem) as refused:
            await callers.who(bearer("bad"))
        assert refused.value.status == 401
        await callers.check(ANN, [LOOK])
    assert len(server.asked) == 3
    now[0] = CACHE_SECONDS
    server.allowed = False
    with pytest.raises(Problem, match=r"'ann' may not list tasks\.taskdist\.dev in namespace ns") as refused:
        await callers.check(await callers.who(bearer("good")), [LOOK])
    assert (refused.value.status, len(server.asked)) == (403, 5)


async def test_no_answer_is_not_kept(callers: Callers, server: Server) -> None:
    server.error = Unreachable("gone")
    with pytest.raises(Problem) as refused:
        await callers.who(bearer("good"))
    assert (refused.value.status, refused.value.retry_after) == (503, 1)
    server.error = None
    assert await callers.who(bearer("good")) == ANN


async def test_unknown_callers_are_looked_up_few_at_a_time(callers: Callers, server: Server) -> None:
    server.hold = asyncio.Event()
    asking = [asyncio.ensure_future(callers.who(bearer(f"good{i}"))) for i in range(MOST_WAITING)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    with pytest.raises(Problem) as refused:
        await callers.who(bearer("late"))
    assert refused.value.status == 429
    assert len(server.asked) == 8
    server.hold.set()
    assert await asyncio.gather(*asking) == [ANN] * MOST_WAITING
