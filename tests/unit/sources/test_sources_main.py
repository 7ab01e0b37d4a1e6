"""The process from start to end: what it exits with, whoever ends it, with kopf and the election stood in for."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import kopf
import pytest

from elections import Election, stand_in
from taskdist.sources import main
from taskdist.sources.settings import Settings

SETTINGS = Settings(namespace="ns", pod_name="p", metrics_port=0, health_port=0, host="127.0.0.1")


@pytest.fixture(autouse=True)
def election(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in(monkeypatch)
    monkeypatch.setattr(main, "QueueView", Unchanging)


class Unchanging:
    """A view of queues that nothing happens to."""

    def __init__(self, *_: Any) -> None: ...

    async def run(self) -> None:
        await forever()


def kopf_that(monkeypatch: pytest.MonkeyPatch, does: Callable[[], Awaitable[None]]) -> None:
    async def operator(**_: Any) -> None:
        await does()

    monkeypatch.setattr(kopf, "operator", operator)


async def forever() -> None:
    await asyncio.Event().wait()


async def exit_code() -> int:
    async with asyncio.timeout(20):
        return await main.process(SETTINGS).run()


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
            asyncio.get_running_loop().call_soon(process.stop)
            await forever()
        finally:
            ended.set()

    kopf_that(monkeypatch, watch)
    process = main.process(SETTINGS)
    async with asyncio.timeout(20):
        assert await process.run() == 0
    assert ended.is_set()
