"""The process from start to end: what it exits with, whoever ends it, with the election and the watch stood in for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from elections import Election, stand_in
from taskdist.elected.process import Elected
from taskdist.sinks import main
from taskdist.sinks.settings import Settings

SETTINGS = Settings(namespace="ns", pod_name="p", metrics_port=0, health_port=0, host="127.0.0.1")


class Watch:
    """The informer: does what it is told to."""

    does: Callable[[], Awaitable[None]]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    async def run(self) -> None:
        await Watch.does()


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(main, "Informer", Watch)


async def exit_code(process: Elected | None = None) -> int:
    async with asyncio.timeout(20):
        return await (process or main.process(SETTINGS)).run()


async def test_it_ends_well_where_it_is_asked_to() -> None:
    process = main.process(SETTINGS)

    async def watch() -> None:
        process.stop()
        await asyncio.Event().wait()

    Watch.does = watch
    assert await exit_code(process) == 0


async def test_it_ends_with_an_error_where_the_watch_ends() -> None:
    async def end() -> None: ...

    Watch.does = end
    assert await exit_code() == 1


async def test_it_ends_with_an_error_where_a_part_fails() -> None:
    async def fail() -> None:
        raise RuntimeError("no such kind")

    Watch.does = fail
    assert await exit_code() == 1


@pytest.mark.parametrize("error", [None, RuntimeError("broken")], ids=["it is lost", "the election fails"])
async def test_a_leadership_that_ends_ends_it_and_what_it_ran(error: Exception | None) -> None:
    ended = asyncio.Event()

    async def watch() -> None:
        try:
            Election.made.error = error
            Election.made.lost.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    Watch.does = watch
    assert await exit_code() == 1
    assert ended.is_set()
