"""The process from start to end: what it exits with, whoever ends it, with the election and the watch stood in for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskdist.sinks import main
from taskdist.sinks.settings import Settings

SETTINGS = Settings(namespace="ns", pod_name="p", metrics_port=0, health_port=0, host="127.0.0.1")


class Election:
    """Leads at once. `lost` ends the leadership as an API server that does not answer would."""

    made: Election

    def __init__(
        self,
        _client: Any,
        *,
        on_started: Callable[[int], None],
        on_stopping: Callable[[float], Awaitable[None]],
        **_: Any,
    ) -> None:
        self._started, self._stopping = on_started, on_stopping
        self._resigned = asyncio.Event()
        self.lost = asyncio.Event()
        self.error: Exception | None = None
        Election.made = self

    def leading(self) -> int | None:
        return 1

    def resign(self) -> None:
        self._resigned.set()

    async def run(self) -> None:
        self._started(1)
        await asyncio.wait(
            {asyncio.create_task(self._resigned.wait()), asyncio.create_task(self.lost.wait())},
            return_when=asyncio.FIRST_COMPLETED,
        )
        if self.error is not None:
            raise self.error
        await self._stopping(0.0)
        await self._resigned.wait()


class Watch:
    """The informer: does what it is told to."""

    does: Callable[[], Awaitable[None]]

    def __init__(self, *_: Any, **__: Any) -> None: ...

    async def run(self) -> None:
        await Watch.does()


class Connected:
    """A client that nobody asks."""

    @classmethod
    def connect(cls, *_: Any, **__: Any) -> Connected:
        return cls()

    async def __aenter__(self) -> Connected:
        return self

    async def __aexit__(self, *_: object) -> None: ...


@pytest.fixture(autouse=True)
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "LeaderElector", Election)
    monkeypatch.setattr(main, "Client", Connected)
    monkeypatch.setattr(main, "Informer", Watch)


async def exit_code(process: main._Process | None = None) -> int:
    async with asyncio.timeout(20):
        return await (process or main._Process(SETTINGS)).run()


async def test_it_ends_well_where_it_is_asked_to() -> None:
    process = main._Process(SETTINGS)

    async def watch() -> None:
        process._stopping.set()
        await asyncio.Event().wait()

    Watch.does = watch
    assert await exit_code(process) == 0


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
