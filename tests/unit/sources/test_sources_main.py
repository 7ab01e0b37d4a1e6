"""The process from start to end: what it exits with, whoever ends it, with kopf and the election stood in for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import kopf
import pytest

from taskdist.sources import main
from taskdist.sources.settings import Settings

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


@pytest.fixture(autouse=True)
def election(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "LeaderElector", Election)
    monkeypatch.setattr(main, "Client", Connected)
    monkeypatch.setattr(main, "QueueView", Unchanging)


class Unchanging:
    """A view of queues that nothing happens to."""

    def __init__(self, *_: Any) -> None: ...

    async def run(self) -> None:
        await forever()


class Connected:
    """A client that nobody asks."""

    @classmethod
    def connect(cls, *_: Any, **__: Any) -> Connected:
        return cls()

    async def __aenter__(self) -> Connected:
        return self

    async def __aexit__(self, *_: object) -> None: ...


def kopf_that(monkeypatch: pytest.MonkeyPatch, does: Callable[[], Awaitable[None]]) -> None:
    async def operator(**_: Any) -> None:
        await does()

    monkeypatch.setattr(kopf, "operator", operator)


async def forever() -> None:
    await asyncio.Event().wait()


async def exit_code() -> int:
    async with asyncio.timeout(20):
        return await main._Process(SETTINGS).run()


async def test_it_ends_well_where_kopf_has_caught_the_signal(monkeypatch: pytest.MonkeyPatch) -> None:
    async def signalled() -> None: ...

    kopf_that(monkeypatch, signalled)
    assert await exit_code() == 0


async def test_it_ends_with_an_error_where_kopf_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail() -> None:
        raise RuntimeError("no such kind")

    kopf_that(monkeypatch, fail)
    assert await exit_code() == 1


async def test_a_leadership_that_is_lost_ends_it_and_what_it_ran(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def watch() -> None:
        try:
            Election.made.lost.set()
            await forever()
        finally:
            ended.set()

    kopf_that(monkeypatch, watch)
    assert await exit_code() == 1
    assert ended.is_set()


async def test_an_election_that_fails_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def watch() -> None:
        try:
            Election.made.error = RuntimeError("a callback failed")
            Election.made.lost.set()
            await forever()
        finally:
            ended.set()

    kopf_that(monkeypatch, watch)
    assert await exit_code() == 1
    assert ended.is_set()


async def test_told_to_end_it_gives_its_leadership_back_first(monkeypatch: pytest.MonkeyPatch) -> None:
    ended = asyncio.Event()

    async def watch() -> None:
        try:
            asyncio.get_running_loop().call_soon(process._stopping.set)
            await forever()
        finally:
            ended.set()

    kopf_that(monkeypatch, watch)
    process = main._Process(SETTINGS)
    async with asyncio.timeout(20):
        assert await process.run() == 0
    assert ended.is_set()
