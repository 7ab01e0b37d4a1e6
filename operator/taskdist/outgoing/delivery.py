"""Ends of Tasks on their way to one receiver: at least once, in order of a key. Pure: times are arguments.

What the API server tells comes in by its versions (`heard`, `listed`), each end with its key. Of one key one end is on
its way at a time; keys do not wait for each other. An end that fails is tried again with growing waits, and in the end
given up, so that it holds back its key for a time and the rest never. A receiver that cannot be reached, or takes
nothing now, is tried by one end at a time, with growing waits: however many wait, it is asked no more often.

`position` is the version up to which all is told or given up: whoever begins anew from there loses nothing, and tells
at most again what was told above it. Memory is bounded: ends by their number, their bodies by their bytes. An end
beyond those bytes keeps its place without its body, which is read again when its turn comes.
"""

from collections import OrderedDict, deque
from dataclasses import dataclass, replace
from enum import StrEnum
from heapq import heappop, heappush
from typing import Final

from taskdist.common.backoff import Backoff
from taskdist.outgoing.ends import End

# The most ends in hand, and the most bytes that their bodies take.
MOST_ENDS: Final = 10_000
MOST_BYTES: Final = 4 * 2**20
# The same of all sinks of a process, and the ends of each that fit in any case.
MOST_SHARED_ENDS: Final = 80_000
MOST_SHARED_BYTES: Final = 64 * 2**20
LEAST_ENDS: Final = 500
# How many ends are remembered once they are told: the API server tells of each again where its Task changes.
REMEMBERED: Final = 20_000
# Tries of an end that the receiver says it will not take.
MOST_REJECTIONS: Final = 5
_WAITS: Final = Backoff(first=1.0, most=300.0)


class Failure(StrEnum):
    """Why an end could not be told."""

    REJECTED = "Rejected"  # the receiver says that it will not take it
    FAILED = "Failed"  # it fails at it, or did not answer in time
    UNAVAILABLE = "Unavailable"  # it was not reached, or takes nothing now: the end has no part in that


@dataclass(frozen=True, slots=True)
class Rules:
    """When what is tried again, and given up; as `spec.retry` and `spec.inFlight` say."""

    in_flight: int = 16
    waits: Backoff = _WAITS
    max_attempts: int = 12
    give_up_seconds: float = 86_400.0


@dataclass(slots=True)
class _Held:
    """An end in hand."""

    end: End
    tries: int = 0
    failures: int = 0  # those of them in which the end may have had a part
    since: float = 0.0  # when it was first tried
    taken_before: int = 0  # how many others the receiver had taken by then


class Room:
    """The room that all sinks of a process share: of each a few ends fit in any case, and more while there is room.

    Args:
        most_ends: ends of all of them.
        least_ends: those of one sink that fit however many the others have.
        most_bytes: bytes of all bodies.
    """

    def __init__(
        self, most_ends: int = MOST_SHARED_ENDS, least_ends: int = LEAST_ENDS, most_bytes: int = MOST_SHARED_BYTES
    ) -> None:
        self._most_ends = most_ends
        self._least_ends = least_ends
        self._most_bytes = most_bytes
        self.ends = 0
        self.bytes = 0

    def left(self, held: int) -> int:
        """How many more ends fit of a sink that has so many."""
        return max(self._most_ends - self.ends, self._least_ends - held, 0)

    def takes(self, size: int) -> bool:
        """Whether a body of this size fits."""
        return self.bytes + size <= self._most_bytes


class Delivery:
    """The ends of one sink.

    Args:
        position: up to which version all is told, as it was kept.
        shared: the room that it shares with others; absent: a room of its own.
    """

    def __init__(
        self,
        rules: Rules,
        position: int = 0,
        *,
        most_ends: int = MOST_ENDS,
        most_bytes: int = MOST_BYTES,
        shared: Room | None = None,
    ) -> None:
        self._rules = rules
        self._shared = shared or Room()
        self._most_ends = most_ends
        self._most_bytes = most_bytes
        self._bytes = 0
        self._held: dict[str, _Held] = {}
        self._keys: dict[str, deque[str]] = {}
        # Keys whose first end may be sent now, in the order in which they became so.
        self._ready: deque[str] = deque()
        # Keys whose first end is tried again later: (when, key).
        self._waiting: list[tuple[float, str]] = []
        self._sending = 0
        self._taken = 0
        self._rests_until = 0.0
        # Tries in a row that found no receiver, and for how long it was then let rest: one wait after another.
        self._misses = 0
        self._rests = 0
        self._heard = position
        self._untold: list[tuple[int, str]] = []
        self._told: OrderedDict[str, None] = OrderedDict()

    # -- what comes in -------------------------------------------------------------------------------------------------

    @property
    def most_ends(self) -> int:
        return self._most_ends

    @property
    def heard(self) -> int:
        """All ends up to this version are in hand, told or given up."""
        return self._heard

    @property
    def room(self) -> int:
        """How many more ends may come in."""
        held = len(self._held)
        return min(max(0, self._most_ends - held), self._shared.left(held))

    @property
    def has_room_for_a_list(self) -> bool:
        """Whether half of what may ever fit now does: a list costs the more the less of it is taken."""
        held = len(self._held)
        most = min(self._most_ends, held + self._shared.left(held))
        return self.room >= max(1, most // 2)

    def wants(self, end_id: str) -> bool:
        """Whether `add` would take something of this end in."""
        held = self._held.get(end_id)
        return not held.end.version if held is not None else end_id not in self._told

    def lacks_body(self, end_id: str) -> bool:
        """Whether this end is in hand without its body."""
        return (held := self._held.get(end_id)) is not None and not held.end.body

    def add(self, end: End) -> None:
        """An end of a version that is not heard yet; ends come in the order of their versions."""
        held = self._held.get(end.id)
        if held is not None and not held.end.version:
            held.end = replace(held.end, version=end.version)
            heappush(self._untold, (end.version, end.id))
        if end.id in self._held or end.id in self._told:
            return
        self._held[end.id] = _Held(self._fitted(end))
        self._shared.ends += 1
        heappush(self._untold, (end.version, end.id))
        line = self._keys.get(end.key)
        if line is None:
            self._keys[end.key] = deque((end.id,))
            self._ready.append(end.key)
        else:
            line.append(end.id)

    def heard_up_to(self, version: int) -> None:
        """Everything up to this version has come in."""
        self._heard = max(self._heard, version)

    def refresh(self, end: End) -> None:
        """The body of an end in hand was seen again: it is kept where there is room."""
        held = self._held.get(end.id)
        if held is not None and not held.end.body:
            held.end = self._fitted(replace(held.end, body=end.body))

    def forget_versions(self) -> None:
        """Versions so far are of another history (etcd was restored). What is in hand is told; all is heard anew."""
        for held in self._held.values():
            held.end = replace(held.end, version=0)
        self._heard = 0
        self._untold.clear()
        self._told.clear()

    # -- what goes out -------------------------------------------------------------------------------------------------

    def due(self, now: float) -> list[End]:
        """Return the ends to be sent now, each the first of its key. They are on their way then."""
        if now < self._rests_until:
            return []
        while self._waiting and self._waiting[0][0] <= now:
            self._ready.append(heappop(self._waiting)[1])
        found: list[End] = []
        while self._ready and self._sending < self._most_at_once:
            held = self._held[self._keys[self._ready.popleft()][0]]
            if not held.tries:
                held.since, held.taken_before = now, self._taken
            held.tries += 1
            self._sending += 1
            found.append(held.end)
        return found

    def wake(self) -> float | None:
        """When `due` has more than now, if nothing happens before."""
        if self._sending >= self._most_at_once or not (self._ready or self._waiting):
            return None
        return max(self._rests_until, 0.0 if self._ready else self._waiting[0][0])

    def told(self, end_id: str) -> None:
        """The receiver took it."""
        self._taken += 1
        self._misses = self._rests = 0
        self._over(end_id)

    def gone(self, end_id: str) -> None:
        """Forget an end whose Task is not there any more: there is nothing that could be told."""
        self._over(end_id)

    def rest(self, until: float) -> None:
        """The receiver asks for nothing before this time."""
        self._rests_until = max(self._rests_until, until)

    def failed(self, end_id: str, failure: Failure, now: float) -> bool:
        """Take in that an end could not be told. Returns whether it is given up."""
        held, rules = self._held[end_id], self._rules
        if failure is Failure.UNAVAILABLE:
            self._missed(now)
        else:
            held.failures += 1
            self._misses = self._rests = 0
        most = min(rules.max_attempts, MOST_REJECTIONS) if failure is Failure.REJECTED else rules.max_attempts
        # A receiver that takes no other either is not poisoned by this one.
        poison = held.failures >= most and self._taken > held.taken_before
        gives_up = held.since + rules.give_up_seconds
        if poison or now >= gives_up:
            self._over(end_id)
            return True
        self._sending -= 1
        heappush(self._waiting, (min(now + rules.waits.full(held.tries - 1), gives_up), held.end.key))
        return False

    @property
    def _most_at_once(self) -> int:
        return 1 if self._rests else self._rules.in_flight

    def _missed(self, now: float) -> None:
        """No receiver was found. Once as many in a row as may be on their way say so, it is let rest."""
        self._misses += 1
        if self._misses >= self._rules.in_flight and now >= self._rests_until:
            self.rest(now + self._rules.waits.full(self._rests))
            self._rests += 1

    def _over(self, end_id: str) -> None:
        held = self._held.pop(end_id)
        self._shared.ends -= 1
        self._let_go(len(held.end.body))
        self._sending -= 1
        key = held.end.key
        line = self._keys[key]
        line.popleft()
        if line:
            self._ready.append(key)
        else:
            del self._keys[key]
        self._told[end_id] = None
        if len(self._told) > REMEMBERED:
            self._told.popitem(last=False)

    # -- where it stands -----------------------------------------------------------------------------------------------

    @property
    def position(self) -> int:
        """Up to which version all is told or given up."""
        while self._untold and self._untold[0][1] not in self._held:
            heappop(self._untold)
        return min(self._heard, self._untold[0][0] - 1) if self._untold else self._heard

    @property
    def pending(self) -> int:
        return len(self._held)

    @property
    def failing(self) -> int:
        """How many of them wait for another try."""
        return len(self._waiting)

    def oldest(self) -> str:
        """When the end with the lowest version ended; empty where nothing is in hand."""
        _ = self.position
        return self._held[self._untold[0][1]].end.ended if self._untold else ""

    def _fitted(self, end: End) -> End:
        """The end, without its body where there is no room for it. One alone always has room."""
        size = len(end.body)
        if size and self._bytes and (self._bytes + size > self._most_bytes or not self._shared.takes(size)):
            return replace(end, body=b"")
        self._bytes += size
        self._shared.bytes += size
        return end

    def _let_go(self, size: int) -> None:
        self._bytes -= size
        self._shared.bytes -= size

    def close(self) -> None:
        """Give back the room that it took: it is of no use any more."""
        self._shared.ends -= len(self._held)
        self._let_go(self._bytes)
        self._held.clear()


class Lowest:
    """Of ends that come in any order those of the lowest versions: at most so many, and bodies of so many bytes."""

    def __init__(self, most: int, most_bytes: int = MOST_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._bytes = 0
        self._kept: list[tuple[int, int, End]] = []
        self._seen = 0
        self.more = False
        """Whether there were more than it keeps."""

    def add(self, end: End) -> None:
        if self._bytes + len(end.body) > self._most_bytes:
            end = replace(end, body=b"")
        self._bytes += len(end.body)
        self._seen += 1
        heappush(self._kept, (-end.version, self._seen, end))
        if len(self._kept) > self._most:
            self._bytes -= len(heappop(self._kept)[2].body)
            self.more = True

    def in_order(self) -> list[End]:
        """Return what is kept, the lowest version first."""
        return [end for _, _, end in sorted(self._kept, key=lambda each: -each[0])]
