"""An election and a client that stand in for the real ones, for tests of processes of which one leads."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from taskdist.elected import process


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


class Connected:
    """A client that nobody asks."""

    @classmethod
    def connect(cls, *_: Any, **__: Any) -> Connected:
        return cls()

    async def __aenter__(self) -> Connected:
        return self

    async def __aexit__(self, *_: object) -> None: ...


def stand_in(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have such processes lead at once, with nobody to ask."""
    monkeypatch.setattr(process, "LeaderElector", Election)
    monkeypatch.setattr(process, "Client", Connected)
