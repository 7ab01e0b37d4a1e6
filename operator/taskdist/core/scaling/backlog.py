"""Messages that wait at sources for their queues: work that is still to come in, as long as that was told lately.

Owns how much of it counts. Refuses to know what the messages are: until they are Tasks, each counts as one that takes
one slot, in any pool of its queue.
"""

from collections.abc import Mapping
from math import inf
from typing import NamedTuple

from taskdist.core.fleet.equivalence import Candidate, Candidates, Demand
from taskdist.core.model import Key, Pool, Queue
from taskdist.core.views import Outside


class _Told(NamedTuple):
    """The last word of one source, and until when it counts. `oldest`: when its oldest message was published."""

    messages: int
    until: float
    oldest: float | None


class Backlogs:
    """Backlogs of sources, by queue. `changed` says that `demands` may be others than before."""

    __slots__ = ("_look_at", "_told", "changed")

    def __init__(self) -> None:
        self._told: dict[Key, dict[str, _Told]] = {}
        # Nothing lapses before: each decision asks, and there may be very many sources.
        self._look_at = inf
        self.changed = False

    def tell(self, queue: Key, source: str, messages: int, until: float, oldest: float | None = None) -> None:
        """Take what a source says of what waits for the queue; 0 messages: it says nothing any more."""
        told = self._told.setdefault(queue, {})
        former = told.pop(source, None)
        if messages > 0:
            told[source] = _Told(messages, until, oldest)
            self._look_at = min(self._look_at, until)
        if not told:
            del self._told[queue]
        if messages != (0 if former is None else former.messages):
            self.changed = True

    def waiting(self, queue: Key) -> int:
        """Return how many messages wait for the queue."""
        told = self._told.get(queue)
        return 0 if told is None else sum([each.messages for each in told.values()])

    def outside(self, queue: Key) -> Outside | None:
        """Return how many messages wait for the queue, and which source has the oldest; None if none wait."""
        told = self._told.get(queue)
        if told is None:
            return None
        aged = [(each.oldest, source) for source, each in told.items() if each.oldest is not None]
        if aged:
            oldest, source = min(aged)
            return Outside(self.waiting(queue), source, oldest)
        most = min([(-each.messages, source) for source, each in told.items()])
        return Outside(self.waiting(queue), most[1], None)

    def lapse(self, now: float) -> None:
        """Forget what was told too long ago."""
        if now < self._look_at:
            return
        for queue, told in list(self._told.items()):
            for source, each in list(told.items()):
                if each.until <= now:
                    self.tell(queue, source, 0, now)
        self._look_at = min((each.until for told in self._told.values() for each in told.values()), default=inf)

    def wake(self) -> float | None:
        """Return when to look whether all that was told is to be believed still; None if nothing was told."""
        return self._look_at if self._look_at < inf else None

    def demands(self, queues: Mapping[Key, Queue], pools: Mapping[Key, Pool]) -> list[Demand]:
        """Return the demands of all queues for which messages wait."""
        self.changed = False
        found: list[Demand] = []
        for key in self._told:
            queue = queues.get(key)
            if queue is None or queue.paused or queue.drained:
                continue
            demand = Demand(_candidates(queue, pools))
            demand.assumed_service = queue.expected_service
            demand.tasks = self._counted(queue)
            if demand.candidates:
                found.append(demand)
        return found

    def _counted(self, queue: Queue) -> int:
        """Return how many of the messages count: at most as many as may wait in the queue, or run of it.

        Whoever fills a broker asks for no more agents than who fills the queue.
        """
        found, quota = self.waiting(queue.key), queue.quota
        if queue.overflow is not None:
            found = min(found, queue.overflow.high_water)
        for bound in (quota.waiting, quota.leased, quota.slots):
            if bound is not None:
                found = min(found, bound)
        return found


def _candidates(queue: Queue, pools: Mapping[Key, Pool]) -> Candidates:
    keys = [(queue.namespace, name) for name in queue.all_pools]
    return tuple([Candidate(key, pools[key].slots) for key in keys if key in pools])
