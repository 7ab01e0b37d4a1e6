"""Handlers: how they are registered, called, and what each of their ends becomes."""

import asyncio
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from email.utils import formatdate
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field
from typing_extensions import TypedDict  # pydantic wants it before Python 3.12

from taskdist.agent import Agent, Context, Permanent, Throttled
from taskdist.agent.invoke import MAX_MESSAGE, bounded, encode_result, invoke
from taskdist.agent.outcomes import Cancelled, Failed, Returned
from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES


class Model(BaseModel):
    path: str
    depth: int = Field(default=1, ge=1)


@dataclass
class Data:
    path: str
    depth: int = 1


class Typed(TypedDict):
    path: str
    depth: int


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


def make_context(type: str = "t", reports: list[tuple[float, str]] | None = None) -> Context:
    said = [] if reports is None else reports
    return Context("task", "ns", "uid", 2, type, lambda fraction, message: said.append((fraction, message)))


def by_model(payload: Model) -> dict[str, Any]:
    return {"path": payload.path, "depth": payload.depth}


def by_dataclass(payload: Data, ctx: Context) -> dict[str, Any]:
    return {"path": payload.path, "depth": payload.depth}


def by_typed_dict(ctx: Context, payload: Typed) -> dict[str, Any]:
    return {"path": payload["path"], "depth": payload["depth"]}


def by_dict(payload: dict[str, Any]) -> dict[str, Any]:
    return payload


def by_nothing(payload, ctx):  # type: ignore[no-untyped-def]
    assert isinstance(ctx, Context)
    return payload


async def by_model_async(payload: Model) -> Model:
    return payload


@pytest.mark.parametrize(
    "handler", [by_model, by_dataclass, by_typed_dict, by_dict, by_nothing, by_model_async], ids=lambda f: f.__name__
)
def test_the_payload_is_what_the_hint_says(handler: Any, runner: asyncio.Runner) -> None:
    agent = Agent()
    agent.task("t")(handler)
    outcome = invoke(agent, b'{"path":"a","depth":2}', make_context(), runner)
    assert outcome == Returned(b'{"path":"a","depth":2}')


@pytest.mark.parametrize(
    ("handler", "payload", "said"),
    [
        pytest.param(by_model, b"{}", "payload.path: Field required", id="missing"),
        pytest.param(by_model, b'{"path":"a","depth":0}', "payload.depth: Input should be greater", id="out-of-bounds"),
        pytest.param(by_model, b'{"path":["secret"]}', "payload.path: Input should be a valid string", id="wrong-type"),
        pytest.param(by_dataclass, b"{}", "payload.path: Field required", id="dataclass"),
        pytest.param(by_typed_dict, b'{"path":"a"}', "payload.depth: Field required", id="typed-dict"),
        pytest.param(by_dict, b"[1]", "payload: Input should be an object", id="no-object"),
        pytest.param(by_dict, b"{", "payload: Invalid JSON", id="no-json"),
    ],
)
def test_a_payload_that_does_not_fit_is_permanent_and_named(
    handler: Any, payload: bytes, said: str, runner: asyncio.Runner
) -> None:
    agent = Agent()
    agent.task("t")(handler)
    outcome = invoke(agent, payload, make_context(), runner)
    assert isinstance(outcome, Failed)
    assert (outcome.reason, outcome.retryable) == (Reason.INVALID_PAYLOAD, False)
    assert said in outcome.message
    assert "secret" not in outcome.message


def _raise(error: BaseException) -> Any:
    def handler(payload: dict[str, Any]) -> None:
        raise error

    return handler


def _raise_async(error: BaseException) -> Any:
    async def handler(payload: dict[str, Any]) -> None:
        raise error

    return handler


@pytest.mark.parametrize("make", [_raise, _raise_async], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("error", "message", "retryable"),
    [
        pytest.param(ValueError("boom"), "ValueError: boom", True, id="exception"),
        pytest.param(Permanent("never"), "taskdist.agent.sdk.Permanent: never", False, id="permanent"),
        pytest.param(SystemExit(3), "SystemExit: 3", True, id="exit"),
        pytest.param(KeyboardInterrupt(), "KeyboardInterrupt", True, id="interrupt"),
        pytest.param(asyncio.CancelledError(), "asyncio.exceptions.CancelledError", True, id="cancelled-by-itself"),
    ],
)
def test_exceptions(make: Any, error: BaseException, message: str, retryable: bool, runner: asyncio.Runner) -> None:
    agent = Agent()
    agent.task("t")(make(error))
    assert invoke(agent, b"{}", make_context(), runner) == Failed(Reason.HANDLER_ERROR, message, retryable)
    # The loop of the async handlers is still good.
    agent.task("echo")(by_model_async)
    assert isinstance(invoke(agent, b'{"path":"a"}', make_context("echo"), runner), Returned)


@pytest.mark.parametrize(
    ("after", "low", "high"),
    [
        pytest.param(7, 7, 7, id="seconds"),
        pytest.param("7", 7, 7, id="seconds-of-a-header"),
        pytest.param("date", 20, 40, id="date-of-a-header"),
        pytest.param("date without zone", 20, 40, id="date-in-an-older-format"),
        pytest.param("Fri, 31 Dec 1999 23:59:59 GMT", 0, 0, id="a-date-that-is-past"),
        pytest.param("soon", 30, 30, id="neither-is-the-default"),
        pytest.param("", 30, 30, id="empty-is-the-default"),
    ],
)
def test_throttled_takes_what_a_provider_says(after: float | str, low: float, high: float) -> None:
    if after == "date":
        after = formatdate(time.time() + 40, usegmt=True)
    elif after == "date without zone":
        after = time.asctime(time.gmtime(time.time() + 40))
    assert low <= Throttled(after=after).after <= high


def test_an_unknown_type_is_another_agents_work(runner: asyncio.Runner) -> None:
    agent = Agent()
    agent.task("known")(by_dict)
    outcome = invoke(agent, b"{}", make_context("other"), runner)
    assert isinstance(outcome, Failed)
    assert outcome.reason is Reason.UNKNOWN_TYPE
    assert outcome.retryable
    assert "known" in outcome.message


class Shape(BaseModel):
    model_config = {"serialize_by_alias": True}
    a: int = Field(default=1, alias="A")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        pytest.param(None, Returned(b"{}"), id="none"),
        pytest.param({"a": 1}, Returned(b'{"a":1}'), id="dict"),
        pytest.param(Shape(), Returned(b'{"A":1}'), id="model"),
        pytest.param(Data("p"), Returned(b'{"path":"p","depth":1}'), id="dataclass"),
        pytest.param({"ä": "é"}, Returned('{"ä":"é"}'.encode()), id="utf-8"),
        pytest.param([1], Reason.RESULT_REFUSED, id="list"),
        pytest.param("text", Reason.RESULT_REFUSED, id="text"),
        pytest.param({"x": object()}, Reason.RESULT_REFUSED, id="no-json"),
        pytest.param({"x": float("nan")}, Reason.RESULT_REFUSED, id="nan"),
        pytest.param({"x": "\ud800"}, Reason.RESULT_REFUSED, id="lone-surrogate"),
        pytest.param({"x": "y" * MAX_RESULT_BYTES}, Reason.RESULT_TOO_LARGE, id="too-large"),
        pytest.param({"x": "y" * (MAX_RESULT_BYTES - 8)}, MAX_RESULT_BYTES, id="just-fits"),
    ],
)
def test_results(value: Any, expected: Returned | Reason | int) -> None:
    outcome = encode_result(value)
    if isinstance(expected, Returned):
        assert outcome == expected
    elif isinstance(expected, Reason):
        assert isinstance(outcome, Failed)
        assert (outcome.reason, outcome.retryable) == (expected, False)
    else:
        assert isinstance(outcome, Returned)
        assert len(outcome.body) == expected


@given(st.text(max_size=3 * MAX_MESSAGE))
def test_messages_are_bounded_and_keep_both_ends(text: str) -> None:
    short = bounded(text)
    assert len(short) <= MAX_MESSAGE
    assert short[:1000] == text[:1000]
    assert short[-1000:] == text[-1000:]


# --- cancellation ---


def sees_it(ctx: Context) -> dict[str, int]:
    return {"half": 1} if ctx.cancelled else {"whole": 1}


def ignores_it(ctx: Context) -> dict[str, int]:
    return {"whole": 1}


def raises_at_it(ctx: Context) -> None:
    if ctx.cancelled:
        raise RuntimeError("stopping")


async def waits_for_it(ctx: Context) -> dict[str, int]:
    await ctx.wait_cancelled()
    return {"half": 1}


async def knows_nothing() -> None:
    await asyncio.Event().wait()


async def finishes_anyway() -> dict[str, int]:
    return {"whole": 1}


@pytest.mark.parametrize(
    ("handler", "cancelled"),
    [
        pytest.param(sees_it, True, id="a-handler-that-saw-it-may-have-returned-half"),
        pytest.param(ignores_it, False, id="a-result-in-hand-beats-a-cancel"),
        pytest.param(raises_at_it, True, id="an-exception-after-it-is-no-failure"),
        pytest.param(waits_for_it, True, id="async-waits"),
    ],
)
def test_cancelled_before_the_call(handler: Any, cancelled: bool, runner: asyncio.Runner) -> None:
    agent = Agent()
    agent.task("t")(handler)
    context = make_context()
    context.cancel("why")
    assert isinstance(invoke(agent, b"{}", context, runner), Cancelled) is cancelled
    assert context.cancel_reason == "why"


@pytest.mark.parametrize("handler", [waits_for_it, knows_nothing], ids=["waits", "has-no-context"])
def test_an_async_handler_is_woken(handler: Any, runner: asyncio.Runner) -> None:
    agent = Agent()
    agent.task("t")(handler)
    context = make_context()
    timer = threading.Timer(0.02, context.cancel, ["why"])
    timer.start()
    assert isinstance(invoke(agent, b"{}", context, runner), Cancelled)
    timer.join()


def test_a_bad_callback_does_not_stop_the_cancel() -> None:
    context, told = make_context(), threading.Event()
    context.on_cancel(lambda: 1 / 0)
    context.on_cancel(told.set)
    context.cancel("why")
    assert told.is_set()


def test_progress_stays_in_bounds() -> None:
    said: list[tuple[float, str]] = []
    context = make_context(reports=said)
    context.progress(-1)
    context.progress(7, "x" * 5000)
    assert said == [(0.0, ""), (1.0, "x" * 1024)]


# --- registration ---


def two_payloads(a: Model, b: Model) -> None: ...


def star(*payload: Any) -> None: ...


def optional_second(payload: Model, verbose: bool = False) -> None: ...


@pytest.mark.parametrize(
    ("type", "handler", "error"),
    [
        pytest.param("t", two_payloads, "one too many", id="two-payloads"),
        pytest.param("t", star, "must be a plain one", id="star"),
        pytest.param("no type", by_dict, "is no Task type", id="bad-type"),
        pytest.param("", by_dict, "is no Task type", id="empty-type"),
        pytest.param("x" * 64, by_dict, "is no Task type", id="long-type"),
        pytest.param("t", optional_second, "", id="a-second-with-a-default-is-fine"),
    ],
)
def test_registration(type: str, handler: Any, error: str) -> None:
    agent = Agent()
    if error:
        with pytest.raises((TypeError, ValueError), match=error):
            agent.task(type)(handler)
    else:
        agent.task(type)(handler)
        assert list(agent.handlers) == [type]


def test_one_handler_a_type() -> None:
    agent = Agent()
    agent.task("t")(by_dict)
    with pytest.raises(ValueError, match="has a handler already: by_dict"):
        agent.task("t")(by_model)
