"""Who asks and what they may, as the API server judges it: what is asked, what is remembered, what is refused."""

import asyncio
import json
from typing import Any

import pytest

from taskdist.kube import (
    TASKS,
    Answer,
    Busy,
    Caller,
    Client,
    NotAllowed,
    NotAuthenticated,
    NotReviewed,
    Request,
    Reviews,
    Right,
    Unreachable,
)
from taskdist.kube import reviews as module

JANE = {"username": "jane", "uid": "1", "groups": ["team-a"], "extra": {"scopes": ["x"]}}
LOOK = Right("list", TASKS, "team-a")


class Judge:
    """A transport that answers reviews as an API server would: by token, and by (user, verb)."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.tokens: dict[str, Any] = {"good": {"authenticated": True, "user": JANE}}
        self.rights: dict[tuple[str, str], Any] = {("jane", "list"): True}
        self.error: Exception | Answer | None = None
        self.gate: asyncio.Event | None = None
        self.heard = asyncio.Event()

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    def stream(self, request: Request, stall: float) -> Any:
        raise AssertionError("nobody watches here")

    async def exchange(self, request: Request) -> Answer:
        body = json.loads(request.body or b"")
        self.asked.append(body)
        self.heard.set()
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.error, Answer):
            return self.error
        if self.error is not None:
            raise self.error
        spec = body["spec"]
        if body["kind"] == "TokenReview":
            status = self.tokens.get(spec["token"], {"error": "unknown"})
        else:
            status = {"allowed": self.rights.get((spec["user"], spec["resourceAttributes"]["verb"]), False)}
        return Answer(201, json.dumps({"status": status}).encode())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def reviews(judge: Judge, clock: Clock | None = None, **options: Any) -> Reviews:
    return Reviews(Client(judge), clock=clock or Clock(), **options)


async def test_a_token_becomes_the_caller_whom_the_api_server_names() -> None:
    assert await reviews(Judge()).caller("good") == Caller("jane", "1", ("team-a",), (("scopes", ("x",)),))


async def test_the_whole_caller_is_judged_for_a_right() -> None:
    judge = Judge()
    asked = reviews(judge)
    assert await asked.allows(await asked.caller("good"), LOOK)
    assert judge.asked[1]["spec"] == {
        "user": "jane",
        "uid": "1",
        "groups": ["team-a"],
        "extra": {"scopes": ["x"]},
        "resourceAttributes": {
            "verb": "list",
            "group": "taskdist.dev",
            "version": "v1alpha1",
            "resource": "tasks",
            "namespace": "team-a",
        },
    }


async def test_a_missing_right_is_named() -> None:
    asked = reviews(Judge())
    with pytest.raises(NotAllowed, match=r"'jane' may not watch tasks\.taskdist\.dev in namespace team-a"):
        await asked.demand(await asked.caller("good"), Right("watch", TASKS, "team-a"))
    with pytest.raises(NotAllowed, match=r"get tasks\.taskdist\.dev x in all namespaces"):
        await asked.demand(await asked.caller("good"), Right("get", TASKS, name="x"))


BAD_TOKENS: dict[str, tuple[str, Any, str]] = {
    "none is sent": ("", None, "no token"),
    "it is far too long": ("x" * 20_000, None, "too long"),
    "the API server does not know it": ("other", None, "does not accept the token: unknown"),
    "the answer says neither yes nor no": ("odd", {}, "no reason given"),
    "the answer says yes in words": ("odd", {"authenticated": "true", "user": JANE}, "does not accept"),
    "the answer names nobody": ("odd", {"authenticated": True}, "does not say whose"),
    "the answer names nobody by an empty name": ("odd", {"authenticated": True, "user": {"username": ""}}, "whose"),
}


@pytest.mark.parametrize(("token", "status", "says"), BAD_TOKENS.values(), ids=BAD_TOKENS.keys())
async def test_a_token_is_refused_where(token: str, status: Any, says: str) -> None:
    judge = Judge()
    judge.tokens["odd"] = status
    with pytest.raises(NotAuthenticated, match=says):
        await reviews(judge).caller(token)


async def test_a_token_for_others_is_refused_where_an_audience_is_asked_for() -> None:
    judge = Judge()
    judge.tokens["mine"] = {"authenticated": True, "user": JANE, "audiences": ["view"]}
    asked = reviews(judge, audiences=["view"])
    assert (await asked.caller("mine")).username == "jane"
    assert judge.asked[0]["spec"]["audiences"] == ["view"]
    # An authenticator that knows nothing of audiences says yes to any token.
    with pytest.raises(NotAuthenticated, match="not for view"):
        await asked.caller("good")


async def test_answers_are_remembered_for_ten_seconds_the_noes_too() -> None:
    judge, clock = Judge(), Clock()
    asked = reviews(judge, clock)
    jane = await asked.caller("good")
    for _ in range(2):
        await asked.caller("good")
        with pytest.raises(NotAuthenticated):
            await asked.caller("other")
        assert await asked.allows(jane, LOOK)
        assert not await asked.allows(jane, Right("watch", TASKS, "team-a"))
    assert len(judge.asked) == 4
    judge.tokens.clear()
    clock.now = 10.0
    with pytest.raises(NotAuthenticated):
        await asked.caller("good")


async def test_equal_questions_at_once_are_one_and_who_gives_up_leaves_it_to_the_others() -> None:
    judge = Judge()
    judge.gate = asyncio.Event()
    asked = reviews(judge)
    callers = [asyncio.create_task(asked.caller("good")) for _ in range(3)]
    await judge.heard.wait()
    callers[0].cancel()
    judge.gate.set()
    done = await asyncio.gather(*callers, return_exceptions=True)
    assert isinstance(done[0], asyncio.CancelledError)
    assert {each.username for each in done[1:] if isinstance(each, Caller)} == {"jane"}
    assert len(judge.asked) == 1


async def test_no_answer_is_neither_yes_nor_no_and_is_not_remembered() -> None:
    judge = Judge()
    asked = reviews(judge)
    for judge.error in (Unreachable("down"), Answer(403, b'{"kind": "Status", "message": "you may not review"}')):
        with pytest.raises(NotReviewed):
            await asked.caller("good")
    judge.error = None
    assert (await asked.caller("good")).username == "jane"


async def test_what_the_api_server_cannot_even_read_is_no_token() -> None:
    judge = Judge()
    judge.error = Answer(400, b'{"kind": "Status", "message": "no such bytes"}')
    with pytest.raises(NotAuthenticated, match="no such bytes"):
        await reviews(judge).caller("\x00")


async def test_many_callers_do_not_add_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CACHE_ENTRIES", 5)
    asked = reviews(Judge())
    for number in range(20):
        with pytest.raises(NotAuthenticated):
            await asked.caller(f"token-{number}")
    assert len(asked._callers._known) == 5


async def test_beyond_a_bound_callers_are_told_to_come_again() -> None:
    judge = Judge()
    judge.gate = asyncio.Event()
    asked = reviews(judge, most_waiting=2)
    first = [asyncio.create_task(asked.caller(token)) for token in ("good", "other")]
    await judge.heard.wait()
    await asyncio.sleep(0)
    with pytest.raises(Busy):
        await asked.caller("third")
    judge.gate.set()
    await asyncio.gather(*first, return_exceptions=True)
    assert (await asked.caller("good")).username == "jane"
