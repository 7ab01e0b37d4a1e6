"""An API server that does not answer ends nothing: it is said, and asked again. Advice is given where it helps."""

from __future__ import annotations

import pytest
from structlog.testing import capture_logs

from taskdist.controller.reach import SETTLE_SECONDS, SILENT_SECONDS, Reach, served
from taskdist.kube import ApiError, KubeError, Unanswered, Unreachable


class World:
    def __init__(self, *answers: KubeError | None) -> None:
        self.answers = list(answers)
        self.now = 0.0

    async def ask(self) -> None:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is not None:
            raise answer

    def clock(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.now += seconds

    async def served(self) -> bool:
        return await served(self.ask, self.clock, self.sleep)


UNSERVED = ApiError(404, "NotFound", "the server could not find the requested resource")
FORBIDDEN = ApiError(403, "Forbidden", "tasks is forbidden")
STRANGER = ApiError(401, "Unauthorized", "Unauthorized")
FAULT = ApiError(500, "InternalError", "etcdserver: request timed out")
STARTING = ApiError(429, "TooManyRequests", "storage is (re)initializing")
REFUSED = Unreachable("connection refused")
CUT = Unanswered("cut")


@pytest.mark.parametrize(
    "answers",
    [
        pytest.param((None,), id="at once"),
        pytest.param((*[REFUSED] * 200, None), id="after an outage of minutes"),
        pytest.param((REFUSED, CUT, FAULT, STARTING, None), id="after each kind of trouble"),
        pytest.param((REFUSED, FORBIDDEN, FORBIDDEN, None), id="after a start in which roles were not read yet"),
        pytest.param((UNSERVED, UNSERVED, None), id="after a start in which definitions were not read yet"),
    ],
)
async def test_it_begins_when_the_api_server_lets_it(answers: tuple[KubeError | None, ...]) -> None:
    with capture_logs() as lines:
        assert await World(*answers).served()
    assert not [line for line in lines if line["log_level"] == "error"]
    assert len(lines) <= len(set(map(str, answers))), "the same trouble is said once"


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        pytest.param(UNSERVED, "apply crds/", id="no definitions"),
        pytest.param(FORBIDDEN, "bind its ServiceAccount", id="no rights"),
        pytest.param(STRANGER, "renew the token", id="no credentials"),
    ],
)
async def test_what_only_the_user_can_mend_is_told_and_ends_it(answer: ApiError, advice: str) -> None:
    world = World(answer)
    with capture_logs() as lines:
        assert not await world.served()
    (told,) = [line for line in lines if line["log_level"] == "error"]
    assert advice in told["event"]
    assert world.now >= SETTLE_SECONDS


async def test_roles_are_no_advice_for_a_server_in_trouble() -> None:
    world = World(*[FAULT, FORBIDDEN] * 100, None)
    with capture_logs() as lines:
        assert await world.served()
    assert not [line for line in lines if line["log_level"] == "error"]


def test_silence_is_measured_from_its_first_request_and_said_once_each_way() -> None:
    world = World(None)
    reach = Reach(world.clock)
    with capture_logs() as lines:
        for outcome in ("200", "404", "409"):
            reach.request("get", outcome)
        assert (reach.silent_for, reach.problem()) == (0.0, None)
        for _ in range(20):
            reach.request("get", "unreachable")
            reach.request("watch", "200")
            reach.request("create", "cancelled")
            world.now += 1
        assert reach.silent_for == 20
        assert reach.problem() == "the API server has not answered for 20 s (unreachable)"
        reach.request("get", "503")
        assert reach.silent_for == 20, "an answer that it can do nothing is none"
        reach.request("get", "200")
        assert (reach.silent_for, reach.problem()) == (0.0, None)
    assert [(line["event"].split(";")[0], line["log_level"]) for line in lines] == [
        ("the API server does not answer", "warning"),
        ("the API server answers again", "info"),
    ]


def test_a_short_silence_is_nobody_s_business() -> None:
    world = World(None)
    reach = Reach(world.clock)
    with capture_logs() as lines:
        reach.request("get", "unanswered")
        world.now += SILENT_SECONDS - 0.1
        assert reach.problem() is None
        reach.request("get", "200")
    assert lines == []
