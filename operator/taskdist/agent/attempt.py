"""One attempt inside a worker, and what runs it: the words between a worker and the ways it can run user code."""

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio


class Attempt:
    """One attempt as the supervisor describes it, with the way back to it."""

    def __init__(self, serial: int, head: dict[str, Any], payload: bytes, say: Callable[..., None]) -> None:
        self.serial = serial
        self.type: str = head["type"]
        self.task: str = head["task"]
        self.namespace: str = head["namespace"]
        self.uid: str = head["uid"]
        self.attempt: int = head["attempt"]
        self.agent: str = head["agent"]
        self.parents: str = head.get("parents", "")
        self.payload = payload
        self._say = say
        self._lock = threading.Lock()
        self._cancelled = ""
        self._canceller: Callable[[str], None] | None = None

    def started(self) -> None:
        self._say({"kind": "started", "serial": self.serial})

    def progress(self, fraction: float, message: str) -> None:
        self._say({"kind": "progress", "serial": self.serial, "fraction": fraction, "message": message})

    def on_cancel(self, call: Callable[[str], None]) -> None:
        """Set what a cancel calls; called at once if the cancel came first."""
        with self._lock:
            self._canceller = call
            reason = self._cancelled
        if reason:
            call(reason)

    def cancel(self, reason: str) -> None:
        with self._lock:
            self._cancelled = reason
            call = self._canceller
        if call is not None:
            call(reason)


class Program(Protocol):
    """What a worker runs attempts with. `types` None: any type."""

    @property
    def types(self) -> list[str] | None: ...

    @property
    def loop(self) -> "asyncio.AbstractEventLoop | None":
        """The event loop that runs its async handlers, if it has one."""

    def run(self, attempt: Attempt) -> tuple[dict[str, Any], bytes]:
        """Run the attempt to its end; return the rest of its `end` frame: outcome, reason, message, retryable, used."""
