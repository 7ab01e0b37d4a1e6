"""The thread that kopf runs in, started as a container starts it."""

import asyncio
import getpass
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import kopf
import pytest

from taskdist.controller import handlers
from taskdist.controller.handlers import KopfThread
from taskdist.controller.keepers import Keepers


async def no_keepers() -> tuple[Keepers, Callable[[], Awaitable[None]]]:
    async def close() -> None: ...

    return Keepers.__new__(Keepers), close


def test_kopf_starts_for_a_user_without_a_name(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    started = threading.Event()

    async def start_and_stop(**settings: Any) -> None:
        pending = set(await kopf.spawn_tasks(**settings))
        started.set()
        while pending:
            # More than once: one that comes while kopf logs in, in a thread of its own, is lost on it.
            for task in pending:
                task.cancel()
            _, pending = await asyncio.wait(pending, timeout=0.1)

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(kopf, "operator", start_and_stop)
    ended: list[BaseException | None] = []
    thread = KopfThread(no_keepers, (), ended.append)
    thread.start()
    assert asyncio.run(thread.stop(10))
    assert started.is_set(), ended


def test_a_loop_that_does_not_turn_over_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, free = threading.Event(), threading.Event()

    async def block(**_: Any) -> None:
        # What a handler that never gives the loop back does.
        await asyncio.sleep(0.05)
        blocked.set()
        free.wait(30)

    monkeypatch.setattr(kopf, "operator", block)
    monkeypatch.setattr(handlers, "BEAT_SECONDS", 0.01)
    thread = KopfThread(no_keepers, (), lambda error: None)
    assert thread.silent_for == 0.0, "one that was not started is not stuck"
    thread.start()
    assert blocked.wait(10)
    first = thread.silent_for
    while thread.silent_for <= first + 0.05:
        assert thread.alive
    free.set()
    assert asyncio.run(thread.stop(10))
    assert thread.silent_for == 0.0, "nor is one that has ended"


def test_a_loop_that_turns_over_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    stop = threading.Event()

    async def idle(**_: Any) -> None:
        await asyncio.to_thread(stop.wait, 30)

    monkeypatch.setattr(kopf, "operator", idle)
    monkeypatch.setattr(handlers, "BEAT_SECONDS", 0.01)
    thread = KopfThread(no_keepers, (), lambda error: None)
    thread.start()
    beats: set[float | None] = set()
    while len(beats) < 3:
        beats.add(thread._beat_at)
    stop.set()
    assert asyncio.run(thread.stop(10))
