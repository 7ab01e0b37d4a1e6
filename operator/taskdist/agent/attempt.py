"""One attempt inside a worker, and the interface of what runs it there (`Program`)."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import asyncio


# How often the progress of an attempt is passed on at most.
PROGRESS_SECONDS = 0.25


class Attempt:
    """One attempt as the supervisor describes it, and the way back: what it says goes to the supervisor."""

    def __init__(self, serial: int, head: dict[str, Any], payload: bytes, say: Callable[..., None]) -> None:
        self.serial = serial
        self.type: str = head["type"]
        self.task: str = head["task"]
        self.namespace: str = head["namespace"]
        self.uid: str = head["uid"]
        self.attempt: int = head["attempt"]
        self.agent: str = head["agent"]
        self.parents: str = head.get("parents", "")
        self.chunk: dict[str, Any] | None = head.get("chunk")  # of an array: which items, of how many, their payloads
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


class Reports:
    """Sends progress from a thread of its own: the latest report wins, at most one each PROGRESS_SECONDS."""

    def __init__(self) -> None:
        self._wake = threading.Condition()
        self._latest: tuple[Attempt, float, str] | None = None
        # Here and not at the first report: it is the worker's, and not of some attempt.
        threading.Thread(target=self._run, name="taskdist-progress", daemon=True).start()

    def put(self, attempt: Attempt, fraction: float, message: str) -> None:
        with self._wake:
            self._latest = (attempt, fraction, message)
            self._wake.notify()

    def drop(self) -> None:
        """The attempt is over: its last report is not worth sending."""
        with self._wake:
            self._latest = None

    def _run(self) -> None:
        while True:
            with self._wake:
                while self._latest is None:
                    self._wake.wait()
                attempt, fraction, message = self._latest
                self._latest = None
                # Under the lock: after drop() nothing more of the attempt is sent.
                attempt.progress(fraction, message)
            time.sleep(PROGRESS_SECONDS)


class Paced:
    """Passes on the progress of one attempt on the event loop, as Reports does it where there is none."""

    def __init__(self, send: Callable[[float, str], None]) -> None:
        self._send = send
        self._latest: tuple[float, str] | None = None
        self._pause: asyncio.TimerHandle | None = None

    def put(self, fraction: float, message: str) -> None:
        self._latest = (fraction, message)
        if self._pause is None:
            self._next()

    def drop(self) -> None:
        """The attempt is over: its last report is not worth sending."""
        self._latest = None
        if self._pause is not None:
            self._pause.cancel()

    def _next(self) -> None:
        self._pause = None
        if self._latest is None:
            return
        from asyncio import get_running_loop  # one runs, so it is loaded: a worker of commands has none

        latest, self._latest = self._latest, None
        self._pause = get_running_loop().call_later(PROGRESS_SECONDS, self._next)
        self._send(*latest)


def retry_after(header: str) -> float | None:
    """Seconds from now that a Retry-After asks for, as a number or a date (RFC 9110); None if it is neither."""
    try:
        return max(0.0, float(header))
    except ValueError:
        pass
    from datetime import UTC
    from email.utils import parsedate_to_datetime

    try:
        date = parsedate_to_datetime(header)
        # The older formats do not name the zone; it is always GMT.
        date = date if date.tzinfo is not None else date.replace(tzinfo=UTC)
        return max(0.0, date.timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def least(after: float) -> float:
    """The seconds after which another try is asked for, as they can be said: at least one, and a number."""
    return min(max(1.0, after), 1e9) if after == after else 1.0


class Program(Protocol):
    """The interface of what a worker runs attempts with. `types` None: any type."""

    @property
    def types(self) -> list[str] | None: ...

    @property
    def loop(self) -> "asyncio.AbstractEventLoop | None":
        """The event loop that runs its async handlers, if it has one."""

    def run(self, attempt: Attempt) -> tuple[dict[str, Any], bytes]:
        """Run the attempt to its end; return the rest of its `end` frame: outcome, reason, message, retryable, used."""
