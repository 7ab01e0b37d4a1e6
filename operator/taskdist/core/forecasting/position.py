"""The position of a waiting Task: how many go before it, and which, without walking the lines they stand in.

A Task competes with those that may use one of its pools. Before it go all of higher bands; of its own band, as many as
the shares let pass until its turn. Shares are served by virtual time, and that only moves with what they are charged:
so another queue has as many turns as its virtual time lags behind the one that ours will have when its own turn comes.
Tenants are let take their turns. Up to `EXACT` Tasks are counted one by one in that order; beyond, each share is taken
as a fluid (generalized processor sharing: Parekh and Gallager 1993), with the mean cost of its Tasks.

The count holds for who waits now, as if nobody came any more. Refuses to change anything, and to look at Tasks that
make no difference: the cost is that of the lines, and of at most `EXACT` Tasks.
"""

from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final

from taskdist.core.fleet.equivalence import Shape
from taskdist.core.order import Place
from taskdist.core.ordering.fair_sharing import MOST_COMPARED, even
from taskdist.core.ordering.index import in_hurry

if TYPE_CHECKING:
    from taskdist.core.limits.blockers import Blocker
    from taskdist.core.ordering.fair_sharing import Share
    from taskdist.core.ordering.lines import Group, HeapTask, Line, TaskRecord

EXACT: Final = 1000
# So many entries of a longer line are looked at to tell how many are before a place.
SAMPLE: Final = 512


class Ahead:
    """The Tasks that go before one Task: how many of each shape, and whether counted or estimated.

    `higher` are those of higher bands, `of_own` how many of these are of its queue and tenant. In its own band: its
    lane, the others of its queue and other queues; `vt` is the virtual time of its lane when its turn comes, `turn`
    that of its queue. `rivals` are all that compete for the same agents, those behind it and itself included.
    """

    __slots__ = ("exact", "higher", "lane", "lanes", "of_own", "queue", "queues", "rivals", "tasks", "turn", "vt")

    def __init__(
        self, higher: dict[Shape, float], lane: "Lane", queue: "QueueLanes", queues: "list[QueueLanes]"
    ) -> None:
        self.higher = higher
        self.tasks = dict(higher)
        self.exact = True
        self.of_own = 0.0
        self.rivals = 1
        self.lane = lane
        self.queue = queue
        self.lanes = list(queue.lanes.values())
        self.queues = queues
        self.vt = lane.vt
        self.turn = queue.vt

    @property
    def position(self) -> int:
        """Return the position, from 1, the Task itself included."""
        return 1 + round(sum(self.tasks.values()))

    @property
    def of_own_level(self) -> int:
        """Return how many before it are of its own band: these it would pass at a higher level."""
        return round(sum(self.tasks.values()) - sum(self.higher.values()))

    def own(self, record: "TaskRecord") -> float:
        """Return about how many of the Task's queue and tenant go before it."""
        place, tenant = record.place(), record.task.tenant
        return self.of_own + sum(_before(each, place) for each in self.lane.lines if each.tenant == tenant)

    def all(self) -> dict[Shape, float]:
        """Return all of higher bands and of its own band, before it or not."""
        found = dict(self.higher)
        for lane in (self.lane, *self.lanes, *(lane for queue in self.queues for lane in queue.lanes.values())):
            for line in lane.lines:
                found[line.shape] = found.get(line.shape, 0.0) + line.live
        return found


class Lane:
    """A copy of one tenant's share, with its lines that compete, for counting ahead without touching the index.

    `cost`: what all Tasks of these lines cost, in slot-seconds.
    """

    __slots__ = ("cost", "key", "lines", "live", "vt", "weight")

    def __init__(self, share: "Share[Group, Line]") -> None:
        # One that is parked goes on at the present, as if it had been idle.
        self.vt = share.vt if share.mask or share.parent is None else max(share.vt, share.parent.present)
        self.key = share.key
        self.weight = share.weight
        self.lines: list[Line] = []
        self.live = 0
        self.cost = 0.0

    def add(self, line: "Line", cost: float) -> None:
        self.lines.append(line)
        self.live += line.live
        self.cost += line.live * cost

    def until(self, vt: float) -> float:
        """Return the part of its work that is done when it has come to this virtual time."""
        return min(1.0, max(0.0, (vt - self.vt) * self.weight / self.cost)) if self.cost else 1.0

    def ordered(self) -> "Iterator[HeapTask]":
        """Yield its Tasks in order. Costs as much as are asked for."""
        frontier: list[tuple[HeapTask, int, Line]] = [(line.heap[0], 0, line) for line in self.lines]
        heapify(frontier)
        while frontier:
            entry, at, line = heappop(frontier)
            for below in (2 * at + 1, 2 * at + 2):
                if below < len(line.heap):
                    heappush(frontier, (line.heap[below], below, line))
            if entry.live:
                yield entry


class _Turn:
    """A lane whose turn is yet to come, at its virtual time: its first Task, and the iterator of the others."""

    __slots__ = ("entry", "lane", "tasks", "vt")

    def __init__(self, lane: Lane, entry: "HeapTask", tasks: "Iterator[HeapTask]") -> None:
        self.vt = lane.vt
        self.lane = lane
        self.entry = entry
        self.tasks = tasks

    def order(self) -> tuple[float, str]:
        return (self.vt, self.lane.key)


class QueueLanes:
    """A copy of a queue's share, with its lanes by tenant. `pending`: slot-seconds charged for its running Tasks."""

    __slots__ = ("key", "lanes", "pending", "vt", "weight")

    def __init__(self, share: "Share[Group, Line]") -> None:
        self.vt = share.vt
        self.key = share.key
        self.weight = share.weight
        self.pending = share.pending
        self.lanes: dict[str, Lane] = {}

    @property
    def cost(self) -> float:
        return sum(lane.cost for lane in self.lanes.values())

    def reached(self, cost: float) -> float:
        """Return the virtual time of its tenants once the queue was charged `cost`: the level of water poured over
        steps, found by halving."""
        lanes = self.lanes.values()
        low = min(lane.vt for lane in lanes)
        high = max(lane.vt + lane.cost / lane.weight for lane in lanes)
        for _ in range(50):
            middle = (low + high) / 2
            if sum(lane.until(middle) * lane.cost for lane in lanes) < cost:
                low = middle
            else:
                high = middle
        return high

    def ordered(self, price: Callable[[Shape], float]) -> "Iterator[tuple[HeapTask, float]]":
        """Yield its Tasks as its tenants take turns, with what each costs."""
        return ((entry, cost) for entry, cost, _ in self.served(self.lanes.values(), price))

    def served(
        self, lanes: Iterable[Lane], price: Callable[[Shape], float]
    ) -> "Iterator[tuple[HeapTask, float, Lane]]":
        """Yield the Tasks of these lanes as they take turns, with what each costs: the index's own rule of turns."""
        pending = self.pending
        turns: list[_Turn] = []
        for lane in lanes:
            tasks = lane.ordered()
            first = next(tasks, None)
            if first is not None:
                turns.append(_Turn(lane, first, tasks))
        turns.sort(key=_Turn.order)
        while turns:
            least, chosen = turns[0].vt, 0
            if pending > 0.0:
                for at, turn in enumerate(turns[1:MOST_COMPARED], 1):
                    hurried = turn.entry < turns[chosen].entry and in_hurry(turn.entry.record)
                    if hurried and even(turn.vt, turn.lane.weight, least, pending):
                        chosen = at
            turn = turns.pop(chosen)
            entry, lane = turn.entry, turn.lane
            cost = price(entry.record.shape)
            pending += cost
            yield entry, cost, lane
            following = next(turn.tasks, None)
            if following is not None:
                turn.entry, turn.vt = following, turn.vt + cost / lane.weight
                insort(turns, turn, key=_Turn.order)


class _TooMany(Exception):
    """More Tasks are before it than are counted one by one."""


def ahead(
    record: "TaskRecord",
    shapes: Iterable[Shape],
    lines: "Callable[[Shape], list[Line]]",
    price: Callable[[Shape], float],
    mine: "Blocker | None" = None,
    held: "Callable[[Line], Blocker | None]" = lambda _: None,
) -> Ahead:
    """Return who goes before a Task that stands in a line.

    `lines` are those in which a class's Tasks stand, `price` is what a grant of a class is charged, `mine` the limit
    that holds the Task, `held` that of a line.
    """
    line = record.line
    assert line is not None, "only Tasks that stand in a line have a position"
    assert line.share is not None, "a line of an open class has a share"
    own = line.share
    pools = frozenset(record.shape.pools)
    queues: dict[str, QueueLanes] = {}
    prices: dict[Shape, float] = {}
    higher: dict[Shape, float] = {}
    band_of_own, of_own = line.band, 0.0
    rivals = 0
    for shape in shapes:
        if not shape.eligible or shape.closed is not None or pools.isdisjoint(shape.pools):
            continue
        before = 0
        for other in lines(shape):
            band, share = other.band, other.share
            if share is None or share.parent is None:
                continue
            # A line that a limit holds is not ahead, unless the same limit holds this Task.
            blocker = held(other)
            apart = blocker is not None and (mine is None or blocker.limit is not mine.limit)
            if (apart or shape.profile is None) and share is not own:
                continue
            rivals += other.live
            if band < band_of_own:
                continue
            if band > band_of_own:
                before += other.live
                if shape.queue_key == record.shape.queue_key and other.tenant == line.tenant:
                    of_own += other.live
                continue
            if shape not in prices:
                prices[shape] = price(shape)
            queue = queues.get(share.parent.key)
            if queue is None:
                queue = queues[share.parent.key] = QueueLanes(share.parent)
            lane = queue.lanes.get(share.key)
            if lane is None:
                lane = queue.lanes[share.key] = Lane(share)
            lane.add(other, prices[shape])
        if before:
            higher[shape] = before
    assert own.parent is not None
    turns = queues.pop(own.parent.key)
    found = Ahead(higher, turns.lanes.pop(own.key), turns, list(queues.values()))
    place, so_far = record.place(), sum(higher.values())
    found.of_own = of_own
    found.rivals = rivals
    try:
        taken = _counted(place, found, prices.__getitem__, so_far)
    except _TooMany:
        taken = _estimated(place, found, prices.__getitem__)
        found.exact = False
    for shape, tasks in taken.items():
        found.tasks[shape] = found.tasks.get(shape, 0.0) + tasks
    return found


def _counted(place: Place, found: Ahead, price: Callable[[Shape], float], so_far: float) -> dict[Shape, float]:
    """Count the Tasks before the place one by one."""
    lane, mine = found.lane, found.queue
    taken: Counter[Shape] = Counter()
    left = EXACT - so_far

    def take(shape: Shape) -> float:
        nonlocal left
        left -= 1
        if left < 0:
            raise _TooMany
        taken[shape] += 1
        return price(shape)

    if left < 0:
        raise _TooMany
    vt, cost = lane.vt, 0.0
    for entry, each, of in mine.served([lane, *found.lanes], price):
        if of is lane:
            if not entry.place < place:
                break
            vt += each / lane.weight
        take(entry.record.shape)
        cost += each
    turn = mine.vt + cost / mine.weight
    for queue in found.queues:
        theirs = queue.vt
        for entry, each in queue.ordered(price):
            if (theirs, queue.key) >= (turn, mine.key):
                break
            take(entry.record.shape)
            theirs += each / queue.weight
    found.vt, found.turn = vt, turn
    return dict(taken)


def _estimated(place: Place, found: Ahead, price: Callable[[Shape], float]) -> dict[Shape, float]:
    """Estimate the Tasks before the place, with shares as fluids."""
    lane, mine = found.lane, found.queue
    taken: dict[Shape, float] = {}

    def take(line: "Line", tasks: float) -> float:
        taken[line.shape] = taken.get(line.shape, 0.0) + tasks
        return tasks * price(line.shape)

    def serve(lanes: Iterable[Lane], vt: float) -> float:
        """All lanes get as far as to this virtual time."""
        return sum(take(line, other.until(vt) * line.live) for other in lanes for line in other.lines)

    cost = sum(take(line, _before(line, place)) for line in lane.lines)
    found.vt = lane.vt + cost / lane.weight
    cost += serve(found.lanes, found.vt)
    found.turn = mine.vt + cost / mine.weight
    for queue in found.queues:
        serve(queue.lanes.values(), queue.reached((found.turn - queue.vt) * queue.weight))
    return taken


def _before(line: "Line", place: Place) -> float:
    """Return about how many of the line's Tasks are before the place: short lines are counted, long ones sampled."""
    heap = line.heap
    step = max(1, len(heap) // SAMPLE)
    looked = [entry for entry in heap[::step] if entry.live]
    if not looked:
        return 0.0
    return line.live * sum(entry.place < place for entry in looked) / len(looked)
