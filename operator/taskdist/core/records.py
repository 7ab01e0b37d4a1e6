"""What the core keeps of one Task.

One record for each Task, from its first event to its end, that every room writes its part of. Owns the order between
two Tasks of like shape. Refuses to know what follows from a change: who moves a record says so to those that count it.
"""

from math import inf
from typing import TYPE_CHECKING

from taskdist.api import Reason
from taskdist.core.classes import Shape
from taskdist.core.decisions import Fail, Spill
from taskdist.core.model import Task
from taskdist.core.order import Place
from taskdist.core.roster import AgentRecord

if TYPE_CHECKING:
    from taskdist.core.blockers import Blocker
    from taskdist.core.lines import Charge, Line


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

    def __init__(self, task: Task, shape: Shape, counts: list[int]) -> None:
        """`counts`: how many of its queue and level wait and how many are leased, kept by whoever moves it."""
        self.task = task
        self.shape = shape
        self.counts = counts
        self.agent: AgentRecord | None = None
        # What of the Task's own keeps it from being eligible; `held` if that is outside the core.
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
        # When it has waited too long, may start at the earliest, goes up by a level, is to have an agent held, comes to
        # the next step of its route; infinite where it never is. `due` is the first of these, `alarm` the stamp of its
        # entry.
        self.expires = self.opens = self.rises = self.impatient = self.moves = self.due = inf
        self.alarm = 0
        # Until when only agents may run it that it prefers, from when it could first be handed out, and whether that
        # is over; both begin anew with each wait.
        self.patience = inf
        self.relaxed = False
        # While leased: what was charged to whom, and whether the attempt has failed.
        self.charge: Charge | None = None
        self.failed = False
        # When it began to wait, the last time that it did.
        self.since = 0.0

    def place(self) -> Place:
        return (-self.chain, self.latest_start, self.task.created, self.task.uid)

    def before(self, other: "TaskRecord") -> bool:
        """Whether its place is before the other's."""
        if self.chain != other.chain:
            return self.chain > other.chain
        if self.latest_start != other.latest_start:
            return self.latest_start < other.latest_start
        mine, theirs = self.task, other.task
        return mine.created < theirs.created if mine.created != theirs.created else mine.uid < theirs.uid


TaskEntry = tuple[int, float, float, str, int, TaskRecord]
