"""Payloads of Tasks that the watch has just brought, so that a Lazy queue sends them without a read.

The core and the view hold no payloads. A Strict queue gets them with the answer to its write; a Lazy one writes nothing
before it sends, and would read each Task again, right after the watch has shown it.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from taskdist.api import Phase
from taskdist.protocol.messages import Body
from taskdist.protocol.observations import ObservedTask

MOST_BYTES = 16 * 2**20
"""Of all payloads together. Where there is no room, a Task is read again, as one that has waited for long is."""
KEPT_SECONDS = 60.0
"""Seconds. A Task that could not start for this long gives its room to others."""
OVERHEAD = 400
"""What an entry takes beside its payload, about, in bytes."""


@dataclass(frozen=True, slots=True)
class _Kept:
    version: int
    payload: Body
    until: float

    @property
    def room(self) -> int:
        return (len(self.payload) if isinstance(self.payload, bytes) else 0) + OVERHEAD


class RecentPayloads:
    """Payloads by Task and version. The oldest stay when there is no more room: they are sent first."""

    def __init__(self, clock: Callable[[], float] = time.monotonic, most_bytes: int = MOST_BYTES) -> None:
        self._clock = clock
        self._most = most_bytes
        self._kept: dict[str, _Kept] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def seen(self, record: ObservedTask, payload: Body) -> None:
        """The watch has brought this version of a Task of a Lazy queue."""
        self.gone(record.task.uid)
        if record.phase is not Phase.PENDING or record.deleting:
            return
        self._expire()
        kept = _Kept(record.resource_version, payload, self._clock() + KEPT_SECONDS)
        if self._bytes + kept.room <= self._most:
            self._kept[record.task.uid] = kept
            self._bytes += kept.room

    def gone(self, uid: str) -> None:
        """The Task is gone, or is not what it was."""
        kept = self._kept.pop(uid, None)
        if kept is not None:
            self._bytes -= kept.room

    def take(self, uid: str, version: int) -> Body | None:
        """The payload of the Task at this very version, once; None if it is not here."""
        kept = self._kept.get(uid)
        if kept is None or kept.version != version or kept.until < self._clock():
            return None
        self.gone(uid)
        return kept.payload

    def _expire(self) -> None:
        now = self._clock()
        # In the order in which they came, and so of their times.
        while self._kept:
            oldest = next(iter(self._kept))
            if self._kept[oldest].until >= now:
                return
            self.gone(oldest)
