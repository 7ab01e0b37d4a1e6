"""The thread that kopf runs in, started as a container starts it."""

import asyncio
import contextlib
import getpass
import threading
from collections.abc import Awaitable, Callable
from typing import Any

import kopf
import pytest

from taskdist.controller import handlers
from taskdist.controller.handlers import KopfThread
from taskdist.controller.keepers import Keepers
from taskdist.controller.workqueue import WorkQueue


async def no_keepers() -> tuple[Keepers, Callable[[], Awaitable[None]]]:
    async def close() -> None: ...

    keepers = Keepers.__new__(Keepers)
    keepers.end = keepers.cancel = lambda: None  # type: ignore[method-assign]
    return keepers, close


def end(thread: KopfThread, patience: float = 10.0) -> bool:
    thread.end()
    return asyncio.run(thread.ended(patience))


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
    assert end(thread)
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
    assert end(thread)
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
    assert end(thread)


def test_requests_that_hang_are_cancelled_when_it_is_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    hangs = threading.Event()

    async def hang(stop_flag: threading.Event, **_: Any) -> None:
        hangs.set()
        while True:
            # As kopf does: what is cancelled once goes on to wait for something else.
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.Event().wait()
                return
            await asyncio.Event().wait()

    monkeypatch.setattr(kopf, "operator", hang)
    failed: list[BaseException | None] = []
    thread = KopfThread(no_keepers, (), failed.append)
    thread.start()
    assert hangs.wait(10)
    assert end(thread)
    assert not failed, "it was asked to end"


def test_one_that_hangs_for_good_can_begin_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    blocked, free = threading.Event(), threading.Event()
    worked: list[str] = []

    async def work(key: str) -> None:
        worked.append(key)

    queue = WorkQueue[str](work, lambda key, error: None)

    async def open_keepers() -> tuple[Keepers, Callable[[], Awaitable[None]]]:
        keepers, close = await no_keepers()
        keepers.end, keepers.cancel = queue.end, queue.cancel  # type: ignore[method-assign]
        return keepers, close

    async def block(**_: Any) -> None:
        await asyncio.sleep(0.05)
        blocked.set()
        free.wait(30)
        queue.ask("late")
        await asyncio.sleep(0)

    monkeypatch.setattr(kopf, "operator", block)
    thread = KopfThread(open_keepers, (), lambda error: None)
    thread.start()
    assert blocked.wait(10)
    assert not end(thread, patience=0.05), "it hangs"
    assert KopfThread.running() == 1
    free.set()
    assert end(thread)
    assert worked == []
