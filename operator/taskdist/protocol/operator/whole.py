"""The interface that the parts of the operator's end have to the whole."""

from typing import Protocol

from taskdist.protocol.observations import Now
from taskdist.protocol.operator.books import TaskEntry


class Whole(Protocol):
    """The one way up from a part: something of a Task has changed, so let its next step be taken."""

    def advance(self, entry: TaskEntry, now: Now) -> None:
        """Look at all that is known of the Task, and ask for the one next thing."""
