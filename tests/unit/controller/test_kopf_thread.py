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
        tasks = await kopf.spawn_tasks(**settings)
        started.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    monkeypatch.setattr(getpass, "getuser", nobody)
    monkeypatch.setattr(handlers.kopf, "operator", start_and_stop)
    ended: list[BaseException | None] = []
    thread = KopfThread(no_keepers, (), ended.append)
    thread.start()
    assert asyncio.run(thread.stop(10))
    assert started.is_set(), ended
