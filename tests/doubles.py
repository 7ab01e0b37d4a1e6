"""Stand-ins for tests that hear or change what the core says. A compiled core cannot be subclassed."""

from typing import Any

from taskdist.core import Core
from taskdist.core.decisions import Decision
from taskdist.core.events import Event


class CoreDouble:
    """It answers as a core does, whatever of it a test overrides."""

    def __init__(self) -> None:
        self._core = Core()

    def handle(self, event: Event, now: float) -> list[Decision]:
        return self._core.handle(event, now)

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        return self._core.decide(now, limit)

    def next_wake(self) -> float | None:
        return self._core.next_wake()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._core, name)
