"""Patience of calls: one whose client takes a handle in place of its answer does not wait."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Patience:
    """The patience of the call that runs here."""

    def __init__(self) -> None:
        self._none: ContextVar[bool] = ContextVar("taskdist-mcp-no-patience", default=False)

    def seconds(self, wanted: float) -> float:
        return 0.0 if self._none.get() else wanted

    @contextmanager
    def none(self) -> Iterator[None]:
        """Let no call wait within."""
        token = self._none.set(True)
        try:
            yield
        finally:
            self._none.reset(token)
