"""The Tasks that wait, in order, such that the first one that fits somewhere is found without looking at the others.

Owns the total order: priority descending, then created, then uid. Tasks of one shape and priority stand in a line;
lines of one profile and priority in a group; groups of one priority in a level. A level knows by a mask for which
profiles it has Tasks, so that "nothing here fits" is one `and`. Refuses to know why a Task is not eligible: such Tasks
are not here.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from taskdist.api import Reason
from taskdist.core.masks import OrTree, bits
from taskdist.core.matching import Profile, Shape
from taskdist.core.model import Task
from taskdist.core.roster import AgentRecord

# (−priority, created, uid): smaller goes first.
Rank = tuple[int, float, str]
# Priorities beyond these share the outermost levels; their rank still tells them apart.
TOP_PRIORITY = 1000


def rank(task: Task) -> Rank:
    """The total order of Tasks. It ends in the uid, so no two Tasks are equal."""
    return (-task.priority, task.created, task.uid)


class TaskRecord:
    """A Task that waits or is leased. Exactly one of `agent`, `gate` and `entry` is set, once it is placed."""

    __slots__ = ("agent", "entry", "gate", "held", "shape", "task")

    def __init__(self, task: Task, shape: Shape) -> None:
        self.task = task
        self.shape = shape
        self.agent: AgentRecord | None = None
        # What of the Task's own keeps it from being eligible; `held` if that is outside the core.
        self.gate: Reason | None = None
        self.held = False
        self.entry: TaskEntry | None = None


TaskEntry = tuple[int, float, str, int, TaskRecord]


class Line:
    """Eligible Tasks of one shape and priority, in order. An entry is dead unless its record points back to it."""

    __slots__ = ("group", "head", "heap", "live", "priority", "shape")

    def __init__(self, shape: Shape, priority: int) -> None:
        self.shape = shape
        self.priority = priority
        self.heap: list[TaskEntry] = []
        self.live = 0
        self.group: Group | None = None
        # The entry under which the line stands in its group.
        self.head: LineEntry | None = None

    def first(self) -> TaskEntry | None:
        heap = self.heap
        while heap and heap[0][4].entry is not heap[0]:
            heappop(heap)
        return heap[0] if heap else None

    def trim(self) -> None:
        if len(self.heap) > 8 + 2 * self.live:
            self.heap = [entry for entry in self.heap if entry[4].entry is entry]
            heapify(self.heap)

    def tasks(self) -> Iterator[TaskRecord]:
        return (entry[4] for entry in self.heap if entry[4].entry is entry)


LineEntry = tuple[int, float, str, int, Line]


class Group:
    """The lines of one level whose Tasks the same agents serve, in the order of their first Tasks."""

    __slots__ = ("heap", "lines")

    def __init__(self) -> None:
        self.heap: list[LineEntry] = []
        self.lines = 0

    def first(self) -> LineEntry:
        """Return the first line's entry. The group must not be empty."""
        heap = self.heap
        while heap[0][4].head is not heap[0]:
            heappop(heap)
        return heap[0]

    def trim(self) -> None:
        if len(self.heap) > 8 + 2 * self.lines:
            self.heap = [entry for entry in self.heap if entry[4].head is entry]
            heapify(self.heap)


class Level:
    """The groups of one priority, by the number of their profile."""

    __slots__ = ("groups",)

    def __init__(self) -> None:
        self.groups: dict[int, Group] = {}


class WaitingIndex:
    """All eligible Tasks."""

    def __init__(self) -> None:
        self._levels: dict[int, Level] = {}
        # By level, highest first: the profiles that Tasks wait for there.
        self._masks = OrTree(2 * TOP_PRIORITY + 1)
        self._stamp = 0

    @property
    def profiles(self) -> int:
        """The profiles that any eligible Task waits for."""
        return self._masks.union

    def add(self, record: TaskRecord) -> None:
        shape = record.shape
        task = record.task
        line = shape.lines.get(task.priority)
        if line is None:
            line = shape.lines[task.priority] = Line(shape, task.priority)
        self._stamp += 1
        record.entry = entry = (-task.priority, task.created, task.uid, self._stamp, record)
        line.trim()
        heappush(line.heap, entry)
        line.live += 1
        if line.heap[0] is entry:
            self._lead(line)

    def remove(self, record: TaskRecord) -> None:
        line = record.shape.lines[record.task.priority]
        led = line.heap[0] is record.entry
        record.entry = None
        line.live -= 1
        if led:
            self._lead(line)
        if not line.live:
            del record.shape.lines[record.task.priority]
        else:
            line.trim()

    def rehome(self, shape: Shape, profile: Profile | None) -> None:
        """Put the shape's lines under another profile, or under none: closed shapes are not found."""
        for line in shape.lines.values():
            self._withdraw(line, shape.profile)
            self._enter(line, profile)

    def best(self, free: int) -> TaskRecord | None:
        """Return the first Task in order among those of the given profiles."""
        at = self._masks.first(free)
        if at is None:
            return None
        groups, open_here = self._levels[at].groups, self._masks[at] & free
        if open_here & (open_here - 1):
            found = min([groups[number].first() for number in bits(open_here)])
        else:
            found = groups[open_here.bit_length() - 1].first()
        first = found[4].first()
        assert first is not None, "a line without Tasks leads its group"
        return first[4]

    def findings(self) -> Iterator[str]:
        """Yield what does not hold in the index itself."""
        for at, level in self._levels.items():
            for number, group in level.groups.items():
                heads = [entry[4] for entry in group.heap if entry[4].head is entry]
                if len(heads) != group.lines or not heads:
                    yield f"the group of level {at} and profile {number} counts {group.lines} lines, not {len(heads)}"
                for line in heads:
                    first = line.first()
                    if first is None or line.head is None or line.head[:3] != first[:3]:
                        yield f"a line of level {at} and profile {number} stands under another Task than its first"
            if self._masks[at] != sum(1 << number for number in level.groups):
                yield f"the mask of level {at} does not name its groups"

    def _lead(self, line: Line) -> None:
        """The line's first Task is another now."""
        profile = line.shape.profile
        group = line.group
        first = line.first()
        if first is None:
            self._withdraw(line, profile)
        elif group is None:
            self._enter(line, profile)
        else:
            group.trim()
            line.head = (first[0], first[1], first[2], first[3], line)
            heappush(group.heap, line.head)

    def _enter(self, line: Line, profile: Profile | None) -> None:
        first = line.first()
        if profile is None or first is None:
            return
        at = _level(line.priority)
        level = self._levels.get(at)
        if level is None:
            level = self._levels[at] = Level()
        group = level.groups.get(profile.number)
        if group is None:
            group = level.groups[profile.number] = Group()
            self._masks[at] |= 1 << profile.number
        group.lines += 1
        line.group = group
        line.head = (first[0], first[1], first[2], first[3], line)
        heappush(group.heap, line.head)

    def _withdraw(self, line: Line, profile: Profile | None) -> None:
        group, line.group, line.head = line.group, None, None
        if group is None or profile is None:
            return
        group.lines -= 1
        if not group.lines:
            at = _level(line.priority)
            level = self._levels[at]
            del level.groups[profile.number]
            self._masks[at] &= ~(1 << profile.number)
            if not level.groups:
                del self._levels[at]


def _level(priority: int) -> int:
    return TOP_PRIORITY - max(-TOP_PRIORITY, min(TOP_PRIORITY, priority))
