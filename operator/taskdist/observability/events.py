"""Kubernetes Events: what a user should notice, said once and not too often.

Builds events.k8s.io/v1 bodies (pure), folds repeats into one, keeps below a rate, and hands them to a port. Events are
best effort by their nature: what does not fit is dropped and counted, and nobody who records one ever waits for the API
server. What is worth an Event is decided elsewhere.
"""

import asyncio
import contextlib
import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from taskdist.api import GROUP, VERSION, Reason
from taskdist.core.limits.token_bucket import Bucket
from taskdist.core.model import TokenRate

CONTROLLER = f"{GROUP}/operator"
# Bounds of the API: a note beyond 1024 bytes is refused, and with it the Event.
MOST_NOTE_BYTES = 1024
MOST_ACTION = 128
MOST_INSTANCE = 128

Create = Callable[[str, dict[str, Any]], Awaitable[object]]
"""Port: create this Event in this namespace. May raise anything; the Event is then lost."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The object that an Event is about."""

    kind: str
    namespace: str
    name: str
    uid: str
    api_version: str = f"{GROUP}/{VERSION}"


@dataclass(frozen=True, slots=True)
class Entry:
    """One Event to write: what happened first at `first` and `count` times by `last` (Unix seconds)."""

    subject: Subject
    reason: Reason
    message: str
    action: str
    warning: bool
    first: float
    last: float
    count: int = 1


def body(entry: Entry, *, instance: str, suffix: str, controller: str = CONTROLLER) -> dict[str, Any]:
    """The Event as the API wants it. `suffix` makes its name unique, `instance` says which replica speaks."""
    subject = entry.subject
    event: dict[str, Any] = {
        "apiVersion": "events.k8s.io/v1",
        "kind": "Event",
        "metadata": {"name": f"{subject.name[:200].rstrip('.-')}.{suffix}", "namespace": subject.namespace},
        "eventTime": _micro(entry.first),
        "reportingController": controller,
        "reportingInstance": (instance or controller)[:MOST_INSTANCE],
        "action": entry.action[:MOST_ACTION],
        "reason": str(entry.reason),
        "regarding": {
            "apiVersion": subject.api_version,
            "kind": subject.kind,
            "namespace": subject.namespace,
            "name": subject.name,
            "uid": subject.uid,
        },
        "note": _cut(entry.message, MOST_NOTE_BYTES),
        "type": "Warning" if entry.warning else "Normal",
    }
    # A series of one is refused.
    if entry.count > 1:
        event["series"] = {"count": entry.count, "lastObservedTime": _micro(entry.last)}
    return event


@dataclass(slots=True)
class _Series:
    """Repeats of one Event that were held back since `opened`."""

    opened: float
    held: Entry | None = None


class Aggregator:
    """Decides which Event goes out when. Pure: time comes in as `now`, entries go out.

    The first of its kind goes at once. Repeats (same subject, reason and action) within `window` seconds are counted
    and go as one series with the last message when the window ends.
    """

    def __init__(self, *, window: float = 60.0, burst: int = 50, per_second: float = 5.0, most: int = 1000) -> None:
        self._window = window
        self._most = most
        self._bucket = Bucket(TokenRate(per_second, burst))
        self._series: OrderedDict[tuple[str, Reason, str], _Series] = OrderedDict()
        self._queue: list[Entry] = []
        self.dropped = 0
        """How many happenings will never be told, because too many came at once."""

    def offer(self, entry: Entry, now: float) -> None:
        """Something happened."""
        key = (entry.subject.uid, entry.reason, entry.action)
        series = self._series.get(key)
        if series is not None and now < series.opened + self._window:
            held = series.held
            first, count = (held.first, held.count) if held else (entry.first, 0)
            series.held = Entry(
                entry.subject, entry.reason, entry.message, entry.action, entry.warning, first, entry.last, count + 1
            )
            return
        self._close(now)
        if len(self._series) >= self._most:
            # Too many kinds at once: the oldest window ends early.
            _, oldest = self._series.popitem(last=False)
            if oldest.held is not None:
                self._enqueue(oldest.held)
        self._series[key] = _Series(now)
        self._enqueue(entry)

    def take(self, now: float) -> tuple[list[Entry], float | None]:
        """What is to be written now, and at what time to ask again (None: when something is offered)."""
        self._close(now)
        out: list[Entry] = []
        while self._queue:
            if not self._bucket.has_token(now):
                return out, self._bucket.opens_at()
            self._bucket.take(now)
            out.append(self._queue.pop(0))
        ends = next(iter(self._series.values())).opened + self._window if self._series else None
        return out, ends

    def flush(self) -> list[Entry]:
        """All that is held back, for the end of the process."""
        held = [series.held for series in self._series.values() if series.held is not None]
        out, self._queue = self._queue + held, []
        self._series.clear()
        return out

    def _close(self, now: float) -> None:
        # Windows are equally long and stand in the order in which they were opened.
        while self._series:
            key, series = next(iter(self._series.items()))
            if now < series.opened + self._window:
                return
            self._end(key, now)

    def _end(self, key: tuple[str, Reason, str], now: float) -> None:
        series = self._series.pop(key)
        if series.held is not None:
            self._enqueue(series.held)
            # What has repeated goes on repeating: the next repeat is held back, too.
            self._series[key] = _Series(now)

    def _enqueue(self, entry: Entry) -> None:
        if len(self._queue) >= self._most:
            self.dropped += entry.count
        else:
            self._queue.append(entry)


class Recorder:
    """Takes what happened at once and writes it when it may. `run` it as a task of the loop that records."""

    def __init__(
        self,
        create: Create,
        *,
        instance: str,
        aggregator: Aggregator | None = None,
        clock: Callable[[], float] = time.time,
        timer: Callable[[], float] = time.monotonic,
        on_lost: Callable[[Entry, Exception], None] = lambda _entry, _error: None,
    ) -> None:
        """`instance`: which replica this is (its pod's name). `on_lost` hears of Events that could not be written."""
        self._create = create
        self._instance = instance
        self._aggregator = aggregator if aggregator is not None else Aggregator()
        # Pauses must not last longer because somebody sets the clock back.
        self._clock, self._timer = clock, timer
        self._on_lost = on_lost
        self._woken = asyncio.Event()
        # Unique in the namespace across replicas and restarts without asking anybody.
        self._prefix = secrets.token_hex(5)
        self._numbers = itertools.count(1)

    @property
    def dropped(self) -> int:
        """How many happenings were dropped because too many came at once."""
        return self._aggregator.dropped

    def record(self, subject: Subject, reason: Reason, message: str, *, action: str, warning: bool = True) -> None:
        """Something happened to `subject`. `action`: what was done about it, one word (Retry, Scale). Never waits."""
        now = self._clock()
        self._aggregator.offer(Entry(subject, reason, message, action, warning, now, now), self._timer())
        self._woken.set()

    async def run(self) -> None:
        """Write until cancelled."""
        while True:
            self._woken.clear()
            entries, again = self._aggregator.take(self._timer())
            for entry in entries:
                await self._write(entry)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(None if again is None else max(again - self._timer(), 0.0)):
                    await self._woken.wait()

    async def flush(self, timeout: float = 2.0) -> None:
        """Write what is left, for as long as `timeout` seconds. Call it after `run` has been cancelled."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                for entry in self._aggregator.flush():
                    await self._write(entry)

    async def _write(self, entry: Entry) -> None:
        suffix = f"{self._prefix}{next(self._numbers):x}"
        try:
            await self._create(entry.subject.namespace, body(entry, instance=self._instance, suffix=suffix))
        except Exception as error:
            # Not again: an Event that comes late misleads more than one that is missing.
            self._on_lost(entry, error)


def _micro(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _cut(text: str, most: int) -> str:
    """At most this many bytes of UTF-8, and a sign that something is missing."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= most:
        return raw.decode()
    return raw[: most - len("…".encode())].decode("utf-8", "ignore") + "…"
