"""What the client warns of while a call runs, such as a type that no agent handles: told in that call's answer."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar


class Notices:
    """Gathers warnings by call: several may run at once."""

    def __init__(self) -> None:
        self._here: ContextVar[list[str] | None] = ContextVar("taskdist-mcp-notices", default=None)

    def hear(self, message: str) -> None:
        """For `AsyncClient(on_warning=…)`."""
        here = self._here.get()
        if here is not None:
            here.append(message)

    @contextmanager
    def gathered(self) -> Iterator[list[str]]:
        """Yield the list of what is warned of within."""
        found: list[str] = []
        token = self._here.set(found)
        try:
            yield found
        finally:
            self._here.reset(token)
