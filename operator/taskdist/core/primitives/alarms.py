"""A set of alarms: at most one time for each name, and the earliest of all at once.

A heap with lazy deletion: an alarm that is cleared or set anew leaves a dead entry, and dead entries are dropped once
they are more than half. Knows nothing of what is due.
"""

from heapq import heapify, heappop, heappush


class Alarms:
    """Times by name, earliest first."""

    __slots__ = ("_heap", "live")

    def __init__(self) -> None:
        # By name: when.
        self.live: dict[str, float] = {}
        self._heap: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self.live)

    def set(self, name: str, at: float) -> None:
        if self.live.get(name) == at:
            return
        self.live[name] = at
        heappush(self._heap, (at, name))
        if len(self._heap) > 64 + 2 * len(self.live):
            self._heap = [(at, name) for name, at in self.live.items()]
            heapify(self._heap)

    def clear(self, name: str) -> None:
        self.live.pop(name, None)

    def next(self) -> float | None:
        """Return the earliest time, None if nothing is set."""
        heap, live = self._heap, self.live
        while heap:
            at, name = heap[0]
            if live.get(name) == at:
                return at
            heappop(heap)
        return None

    def due(self, now: float) -> str | None:
        """Take and return the next that is due by now, earliest first; None if none is."""
        at = self.next()
        if at is None or at > now:
            return None
        _, name = heappop(self._heap)
        del self.live[name]
        return name
