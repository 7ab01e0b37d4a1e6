"""Warnings of the client while a call runs, such as of a type that no agent handles: told in that call's answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Notices:
    """Gathers warnings by call: several may run at once."""

    def __init__(self) -> None:
        self._here: ContextVar[list[str] | None] = ContextVar("taskdist-mcp-notices", default=None)

    def hear(self, message: str) -> None:
        """Keep a warning for the call that runs here: for `AsyncClient(on_warning=…)`."""
        here = self._here.get()
        if here is not None:
            here.append(message)

    @contextmanager
    def gathered(self) -> Iterator[list[str]]:
        """Gather warnings within: yield the list that they go to."""
        found: list[str] = []
        token = self._here.set(found)
        try:
            yield found
        finally:
            self._here.reset(token)
