"""Tasks that wait for other Tasks: as dependents for their parents, or as duplicates for the one that is run.

Owns when it is written what a Task depends on, and how a duplicate waits and ends. Pins are written when they are made;
how parents ended goes with the Task's next write or, if there is none within a second, by a write of its own. Those
writes are the only ones beyond the three of a Task's life, and only Tasks with parents have them.
"""

from taskdist.api import Reason
from taskdist.protocol.duplicates import Original
from taskdist.protocol.observations import Now
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import Ending, Purpose, TaskEntry
from taskdist.protocol.operator.core_view import CoreView
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.operator.whole import Whole

# How long an end of a parent may go unwritten.
PINS_SECONDS = 1.0


class Dependents:
    """Tasks that wait for other Tasks: dependents for their parents, duplicates for the Task that is run for them.

    Owns when it is written what a Task depends on, and how a duplicate waits and ends.
    """

    def __init__(self, state: State, out: Actions, view: CoreView, whole: Whole) -> None:
        self._state = state
        self._out = out
        self._view = view
        self._whole = whole

    def keep_pins(self, entry: TaskEntry, now: Now) -> None:
        """Have status say what is known of the Task's parents."""
        task = entry.record.task
        if not self._state.lineage.unwritten(task):
            entry.pins_due = 0.0
            return
        if not self._state.lineage.unpinned(task):
            if not entry.pins_due:
                entry.pins_due = now.boot + PINS_SECONDS
                self._state.timers.add(entry.pins_due, TimerKind.ADVANCE, entry.uid)
            if now.boot < entry.pins_due:
                return
        entry.pins_due = 0.0
        self._out.write(entry, Purpose.NOTE, {})

    def follow(self, entry: TaskEntry, original: Original, now: Now) -> None:
        """Another Task is run for this one: it waits for that one's end, and ends so."""
        self._view.held(entry, Reason.DUPLICATE, now)
        if original.phase is not None:
            message = f"a duplicate of task {original.name}, which is {original.phase}"
            entry.ending = Ending(original.phase, Reason.DUPLICATE, message, copy_of=original)
            self._whole.advance(entry, now)

    def look_again(self, now: Now) -> None:
        """Look at the Tasks for which a parent or an original changed."""
        for again in (self._state.lineage.again, self._state.duplicates.again):
            while again:
                entry = self._state.tasks.get(uid := next(iter(again)))
                del again[uid]
                if entry is not None:
                    self._whole.advance(entry, now)
