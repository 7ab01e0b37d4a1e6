"""An error that nobody caught: one of our own ends the process, one of a library's own does not."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest

from taskdist.api.nesting import loads
from taskdist.controller.dispatch import Dispatcher
from taskdist.controller.failures import end_on_failure, is_ours

Start = Callable[[asyncio.AbstractEventLoop], Awaitable[None] | None]


def ours() -> None:
    """Fails within the package."""
    loads("no JSON")


def theirs() -> None:
    json.loads("no JSON")


async def ours_later() -> None:
    ours()


def forgotten(loop: asyncio.AbstractEventLoop) -> None:
    """A task that nobody asks for its end."""
    loop.create_task(ours_later())


def wrapped() -> None:
    try:
        ours()
    except ValueError as error:
        raise RuntimeError("a library's word for it") from error


@pytest.mark.parametrize(
    ("start", "ends"),
    [
        pytest.param(lambda loop: loop.call_later(0, ours), True, id="a timer of ours"),
        pytest.param(lambda loop: loop.call_soon(ours), True, id="a callback of ours"),
        pytest.param(forgotten, True, id="a task of ours that nobody asks"),
        pytest.param(lambda loop: loop.call_soon(wrapped), True, id="what a library made of an error of ours"),
        pytest.param(lambda loop: loop.call_soon(theirs), False, id="a library's own callback"),
        pytest.param(
            lambda loop: loop.call_exception_handler({"message": "Unclosed connection"}), False, id="a mere word"
        ),
        pytest.param(
            lambda loop: loop.call_exception_handler({"message": "x", "exception": ConnectionResetError()}),
            False,
            id="a connection that broke",
        ),
    ],
)
async def test_an_error_that_reaches_nobody(start: Callable[[asyncio.AbstractEventLoop], object], ends: bool) -> None:
    loop = asyncio.get_running_loop()
    failed: list[bool] = []
    end_on_failure(loop, lambda: failed.append(True))
    try:
        start(loop)
        await asyncio.sleep(0.01)
    finally:
        loop.set_exception_handler(None)
    assert bool(failed) is ends


def test_an_error_in_a_group_is_seen() -> None:
    with pytest.raises(ValueError, match="Expecting") as caught:
        ours()
    assert is_ours(ExceptionGroup("several", [ValueError(), caught.value]))
    assert not is_ours(ExceptionGroup("several", [ValueError()]))


async def test_an_effect_that_raises_ends_the_process() -> None:
    loop = asyncio.get_running_loop()
    failed: list[bool] = []
    end_on_failure(loop, lambda: failed.append(True))
    nothing = cast("Any", None)
    dispatcher = Dispatcher(nothing, nothing, lambda: 0.0, lambda: None)
    try:
        dispatcher._spawn(ours_later())
        await asyncio.sleep(0.01)
    finally:
        loop.set_exception_handler(None)
    assert failed == [True]
