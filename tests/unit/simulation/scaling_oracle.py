"""How few agents would do, had one known all arrivals and services before: what the scaling decision is held against.

The oracle sets the number of agents at the beginning of each interval: the least with which, if it stayed so until they
have all started, at most one in twenty of the Tasks that wait in it or come in it starts later than the target. Its
agents are there at once, their slots are one pool without gaps between agents, nothing fails, and an agent leaves as
soon as the slots that are busy fit on those that are left: a Task is never stopped. Tasks start in the order of their
coming.
"""

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from heapq import heappop, heappush
from math import ceil, inf


@dataclass(frozen=True, slots=True)
class Work:
    """A Task: when it comes, how many seconds and slots it takes."""

    at: float
    seconds: float
    slots: int = 1


@dataclass
class State:
    """Where the queue stands: `free` of its slots (below zero: more are busy than there are to be)."""

    now: float
    waiting: list[Work] = field(default_factory=list)
    running: list[tuple[float, int]] = field(default_factory=list)  # when it ends, slots

    @property
    def busy(self) -> int:
        return sum(slots for _, slots in self.running)


def advance(state: State, coming: Sequence[Work], slots: int, until: float) -> tuple[State, list[float], float]:
    """Play the queue with so many slots until a time, or with `until` infinite until all have started.

    Return what is so then, how long each that started had waited, and the slot-seconds that were there: those that are
    to be, or those that are busy if they are more.
    """
    now, busy = state.now, state.busy
    running, queue = list(state.running), [*state.waiting, *coming]
    waits: list[float] = []
    paid, first = 0.0, 0
    while True:
        while first < len(queue) and queue[first].at <= now and busy + queue[first].slots <= slots:
            task = queue[first]
            waits.append(now - task.at)
            heappush(running, (now + task.seconds, task.slots))
            busy += task.slots
            first += 1
        if until == inf and first == len(queue):
            break
        comes = queue[first].at if first < len(queue) and queue[first].at > now else inf
        at = min(comes, running[0][0] if running else inf, until)
        if at == inf:
            break
        paid += (at - now) * max(slots, busy)
        now = at
        while running and running[0][0] <= now:
            busy -= heappop(running)[1]
        if now >= until:
            break
    return State(now, queue[first:], running), waits, paid


@dataclass(frozen=True, slots=True)
class Plan:
    """What the oracle did."""

    agents: list[int]
    hours: float
    waits: list[float]


def oracle(work: Sequence[Work], slots: int, target: float, interval: float, least: int, most: int) -> Plan:
    """Return the fewest agents of so many slots, between `least` and `most`, interval by interval."""
    work = sorted(work, key=lambda each: each.at)
    times = [each.at for each in work]
    state, chosen, waits, paid = State(0.0), [], [], 0.0
    end = times[-1] if times else 0.0
    for number in range(ceil(end / interval)):
        begin, until = number * interval, min(end, (number + 1) * interval)
        coming = work[bisect_left(times, begin) : bisect_left(times, until)]
        low, high = least, most
        while low < high:
            middle = (low + high) // 2
            late = [each > target for each in advance(state, coming, middle * slots, inf)[1]]
            widest = max((each.slots for each in (*coming, *state.waiting)), default=0)
            if middle * slots >= widest and sum(late) <= 0.05 * len(late):
                high = middle
            else:
                low = middle + 1
        chosen.append(low)
        state, started, spent = advance(state, coming, low * slots, until)
        waits += started
        paid += spent
    return Plan(chosen, paid / slots / 3600, waits)
