"""The record of each Task, and what waiting Tasks stand in: lines of like Tasks, groups of lines, bands of a level.

A record lives from its Task's first event to its end. A line holds eligible Tasks of one shape, band and tenant, in
order. A group holds a tenant's lines of one band that the same agents serve. Heaps delete lazily: an entry is dead
unless its record, or line, still bears its stamp. Each class here keeps only itself right: the caller that moves a
record tells its line, and the caller that moves a line tells its group.
"""

from collections.abc import Iterator
from heapq import heapify, heappop
from math import inf
from typing import TYPE_CHECKING

from taskdist.api import Reason
from taskdist.core.agents.roster import AgentRecord
from taskdist.core.decisions import Fail, Spill
from taskdist.core.fleet.equivalence import Demand, Profile, Shape
from taskdist.core.limits.budgets import Amounts, Purse, amount_taken
from taskdist.core.model import Key, Task
from taskdist.core.order import Place
from taskdist.core.ordering.fair_sharing import Share, tally

if TYPE_CHECKING:
    from taskdist.core.limits.blockers import Blocker


class TaskCounts:
    """How many Tasks wait and how many are leased."""

    __slots__ = ("leased", "waiting")

    def __init__(self) -> None:
        self.waiting = 0
        self.leased = 0


class TaskRecord:
    """A Task that waits or is leased. Once it is placed, exactly one of `agent`, `gate` and `line` is set.

    Heaps hold entries with stamps; an entry is dead unless its record still bears the stamp. 0 is that of none.
    """

    __slots__ = (
        "agent",
        "alarm",
        "blocker",
        "chain",
        "charge",
        "counted",
        "counts",
        "due",
        "eligible_since",
        "ending",
        "expires",
        "failed",
        "fresh",
        "gate",
        "held",
        "hopeless_from",
        "impatient",
        "latest_start",
        "level",
        "lift",
        "line",
        "moves",
        "opens",
        "parked",
        "patience",
        "relaxed",
        "rises",
        "shape",
        "since",
        "stamp",
        "task",
        "trying",
    )

    def __init__(self, task: Task, shape: Shape, counts: "TaskCounts") -> None:
        """`counts`: how many of its queue and level wait and how many are leased, kept by whoever moves it."""
        self.task = task
        self.shape = shape
        self.counts = counts
        self.agent: AgentRecord | None = None
        # The gate that keeps it from being eligible; `held`: what it waits for is outside the core.
        self.gate: Reason | None = None
        self.held = False
        # It was decided that it ends, or goes to another queue, and is yet to be recorded.
        self.ending: Fail | Spill | None = None
        # Whether it came since the last decision.
        self.fresh = False
        # Whether limits count it: not once it was turned away.
        self.counted = True
        # The limit it is parked under, with the stamp of its entry there; `trying`: it was let go to try.
        self.blocker: Blocker | None = None
        self.parked = 0
        self.trying = False
        # The line it stands in, and the stamp of its entry there.
        self.line: Line | None = None
        self.stamp = 0
        # Its place. `lift`: the highest level of Tasks that wait for it; `chain`: how many of them, one after another.
        self.level = 0
        self.lift = 0
        self.chain = 0
        self.latest_start = 0.0
        self.hopeless_from = 0.0
        # Since when nothing of its own holds it, which its route's steps count from; below zero: something does.
        self.eligible_since = -1.0
        # Times; infinite where it never is.
        # `expires`: it has waited too long, or its deadline cannot be met any more.
        # `opens`: it may start at the earliest.
        # `rises`: it goes up by a level.
        # `impatient`: it applies for a reservation.
        # `moves`: the next step of its route opens.
        # `due`: the first of these, and of `patience` while that counts.
        # `alarm`: the stamp of its entry among the wakeups.
        self.expires = self.opens = self.rises = self.impatient = self.moves = self.due = inf
        self.alarm = 0
        # Until when only agents may run it that it prefers, from when it could first be handed out, and whether that
        # is over; both begin anew with each wait.
        self.patience = inf
        self.relaxed = False
        # While leased: the charge of its grant, and whether the attempt has failed.
        self.charge: Charge | None = None
        self.failed = False
        # When it began to wait, the last time that it did.
        self.since = 0.0

    def place(self) -> Place:
        return Place(self.chain, self.latest_start, self.task.created, self.task.uid)

    def before(self, other: "TaskRecord") -> bool:
        """Whether the Task goes before the other within a level."""
        if self.chain != other.chain:
            return self.chain > other.chain
        if self.latest_start != other.latest_start:
            return self.latest_start < other.latest_start
        mine, theirs = self.task, other.task
        return mine.created < theirs.created if mine.created != theirs.created else mine.uid < theirs.uid


class HeapTask:
    """A Task in the heap of its line, as it stood when it was entered. It is dead once its record has another stamp."""

    __slots__ = ("place", "record", "stamp")

    def __init__(self, place: Place, stamp: int, record: TaskRecord) -> None:
        self.place = place
        self.stamp = stamp
        self.record = record

    @property
    def live(self) -> bool:
        return self.record.stamp == self.stamp

    def __lt__(self, other: "HeapTask") -> bool:
        order = self.place.compare(other.place)
        return order < 0 if order else self.stamp < other.stamp


class KeyCount:
    """How many Tasks of one line have one concurrency key, and the sum of the times at which they began to wait."""

    __slots__ = ("since", "tasks")

    def __init__(self) -> None:
        self.tasks = 0
        self.since = 0.0


class Line:
    """Eligible Tasks of one shape, band and tenant, in order.

    While it stands in a group, `lead` is its first Task and `stamp` that of its own entry there.
    """

    __slots__ = (
        "band",
        "group",
        "heap",
        "keys",
        "lead",
        "live",
        "parked",
        "shape",
        "share",
        "since",
        "stamp",
        "tenant",
    )

    def __init__(self, shape: Shape, band: int, tenant: str) -> None:
        self.shape = shape
        self.band = band
        self.tenant = tenant
        self.heap: list[HeapTask] = []
        self.live = 0
        # The sum of the times at which its Tasks began to wait.
        self.since = 0.0
        # By concurrency key, for explanations and metrics. None as long as no Task of it had a key.
        self.keys: dict[str, KeyCount] | None = None
        self.share: Share[Group, Line] | None = None
        self.group: Group | None = None
        self.lead: TaskRecord | None = None
        self.stamp = 0
        self.parked: Blocker | None = None

    @property
    def level(self) -> int:
        return self.band >> 1

    @property
    def blocker(self) -> "Blocker | None":
        """Return the limit under which all of it is parked: itself, its group, its tenant or its queue."""
        share, group = self.share, self.group
        if self.parked is not None or share is None:
            return self.parked
        if group is not None and group.parked is not None:
            return group.parked
        return share.parked or (share.parent.parked if share.parent is not None else None)

    def count_key(self, key: str, tasks: int, since: float) -> None:
        """Change by `tasks` how many of its Tasks have this concurrency key, and by `since` the sum of their times."""
        if self.keys is None:
            self.keys = {}
        count = self.keys.get(key)
        if count is None:
            count = self.keys[key] = KeyCount()
        count.tasks += tasks
        count.since += since
        if not count.tasks:
            del self.keys[key]

    def first(self) -> HeapTask | None:
        heap = self.heap
        while heap:
            entry = heap[0]
            if entry.live:
                return entry
            heappop(heap)
        return None

    def trim(self) -> None:
        if len(self.heap) > 8 + 2 * self.live:
            self.heap = [entry for entry in self.heap if entry.live]
            heapify(self.heap)

    def tasks(self) -> Iterator[TaskRecord]:
        return (entry.record for entry in self.heap if entry.live)


class HeapLine:
    """A line in the heap of its group, at the place of its first Task. It is dead once its line has another stamp."""

    __slots__ = ("line", "place", "stamp")

    def __init__(self, place: Place, stamp: int, line: Line) -> None:
        self.place = place
        self.stamp = stamp
        self.line = line

    @property
    def live(self) -> bool:
        return self.line.stamp == self.stamp

    def __lt__(self, other: "HeapLine") -> bool:
        order = self.place.compare(other.place)
        return order < 0 if order else self.stamp < other.stamp


class Group:
    """A tenant's lines in one band and profile, in the order of their first Tasks. A parked one is not found."""

    __slots__ = ("_amounts", "_names", "demands", "heap", "lines", "number", "parked", "share")

    def __init__(self, profile: Profile, share: "Share[Group, Line]") -> None:
        # The profile's.
        self.number = profile.number
        taking = profile.key.taking
        # Of which budgets its Tasks take, and how much.
        self._names = () if taking is None else taking.budgets
        self._amounts = [Amounts() for _ in self._names]
        self.share = share
        self.heap: list[HeapLine] = []
        self.lines = 0
        # How many of its Tasks want room where.
        self.demands: dict[Demand, int] = {}
        self.parked: Blocker | None = None

    def want(self, demand: Demand, tasks: int) -> None:
        """Change by `tasks` how many Tasks want room there. They count with the share's unless they are parked."""
        tally(self.demands, demand, tasks)
        if self.parked is None:
            self.share.want(demand, tasks)

    def join(self, shape: Shape) -> None:
        """Count a line of this shape in."""
        self.lines += 1
        for amounts, (_, _, amount) in zip(self._amounts, shape.budgets, strict=True):
            amounts.add(amount)

    def part(self, shape: Shape) -> None:
        self.lines -= 1
        for amounts, (_, _, amount) in zip(self._amounts, shape.budgets, strict=True):
            amounts.remove(amount)

    def least(self, purse: Purse) -> int:
        """Return the least amount of the budget that any of its Tasks takes."""
        return amount_taken(purse, [(*name, self._amounts[at].least) for at, name in enumerate(self._names)])

    def park(self, blocker: "Blocker") -> None:
        """Hide it until `unpark_group`."""
        if self.parked is None:
            for demand, tasks in self.demands.items():
                self.share.want(demand, -tasks)
            self.share.lose(self.number)
        self.parked = blocker

    def first(self) -> Line:
        """Return the first line. The group must not be empty."""
        heap = self.heap
        while not heap[0].live:
            heappop(heap)
        return heap[0].line

    def trim(self) -> None:
        if len(self.heap) > 8 + 2 * self.lines:
            self.heap = [entry for entry in self.heap if entry.live]
            heapify(self.heap)


class Charge:
    """What a grant was charged, in slot-seconds, and the tenant's share that was charged."""

    __slots__ = ("cost", "share", "since")

    def __init__(self, share: Share[Group, Line], cost: float, since: float) -> None:
        self.share = share
        self.cost = cost
        self.since = since


class Band:
    """Half of a level: Tasks that can meet their deadlines, or those that cannot.

    `root`: its shares. `present`: by pool, the virtual time of the queue served last.
    """

    __slots__ = ("present", "root")

    def __init__(self) -> None:
        self.root: Share[Group, Line] = Share("")
        self.present: dict[Key, float] = {}
