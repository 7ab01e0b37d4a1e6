"""The records that a leadership keeps of arrays: their parts, what these want to write, the sizes of chunks."""

from dataclasses import dataclass, field
from typing import NamedTuple

from taskdist.protocol.arrays.account import Again
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet
from taskdist.protocol.arrays.sizing import ChunkSizes
from taskdist.protocol.messages import Body
from taskdist.protocol.operator.books import Purpose, TaskEntry
from taskdist.protocol.status import Status


class Wish(NamedTuple):
    """What a part wants to have written. All wishes of one moment are one write of the array."""

    entry: TaskEntry
    purpose: Purpose
    patch: Status
    body: Body | None


@dataclass(slots=True)
class ArrayBook:
    """One array, whose parts are Tasks in the books of their own.

    `untried` and `again` are the items that wait and that no part has: what is cut off for a part is taken out.
    """

    entry: TaskEntry
    sizes: ChunkSizes
    parts: dict[str, TaskEntry] = field(default_factory=dict)  # by key
    untried: IndexSet = EMPTY
    again: list[Again] = field(default_factory=list)
    wishes: list[Wish] = field(default_factory=list)
    sent: list[Wish] = field(default_factory=list)  # those of the write under way
    alone: int = 0  # so many writes are to carry one wish only, for one of several was refused
    gone: set[str] = field(default_factory=set)  # parts that are over though the status of a deleted array shows them
    stopping: bool = False  # its end is decided: what runs of it is asked to stop
    slot: float = 0.0  # when it may be written again (boot time)
    timer: float = 0.0  # when it is looked at because items may be tried again (boot time)

    def blanks(self) -> list[TaskEntry]:
        """Return the parts that wait for an agent and have no items yet."""
        return [each for each in self.parts.values() if is_blank(each) and each.lease is None]


def is_blank(entry: TaskEntry) -> bool:
    """Return whether it is a part that status does not show, and that nothing is being written of."""
    return entry.part is not None and not entry.part.stored and entry.under_way is None
