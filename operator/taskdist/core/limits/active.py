"""The blockers that hold Tasks at present, with alarms for those that open by time.

A blocker is handed out when it is found to hold a Task, and reported once it may hold it no longer: whoever parked
Tasks under it lets them try again. Owns the alarms of those that time opens. Refuses to know why a limit holds.
"""

from taskdist.core.limits.blockers import Blocker, Book
from taskdist.core.limits.budgets import NotYet, Short
from taskdist.core.primitives.alarms import Alarms


class ActiveBlockers:
    """The blockers that hold Tasks now, with the alarms of those that open by time."""

    def __init__(self) -> None:
        # When tokens come that were waited for, by the limit's name.
        self._alarms = Alarms()
        self.timed: dict[str, Blocker] = {}
        # Limits that are there no more, yet to be reported.
        self.closed: list[Blocker] = []

    def take_closed(self) -> list[Blocker]:
        """Take and return the blockers whose limit is gone."""
        closed, self.closed = self.closed, []
        return closed

    def ring(self, now: float) -> Blocker | None:
        """Take and return the next blocker whose alarm is due by now; None if there is none."""
        name = self._alarms.due(now)
        return None if name is None else self.timed[name]

    def next_due(self) -> float | None:
        """Return when the first of them opens by time."""
        return self._alarms.next()

    def hand_out(self, blocker: Blocker, now: float) -> None:
        if not blocker.watched:
            blocker.watched = True
            if isinstance(blocker, (Short, NotYet)):
                blocker.note(True)
            blocker.book.watched[blocker] = None
            if blocker.timed:
                self.wait(blocker, now)

    def wait(self, blocker: Blocker, now: float) -> None:
        """Set the blocker's alarm, if it opens by time."""
        opens = blocker.opens_at(now)
        if opens is not None:
            self.timed[blocker.name] = blocker
            self._alarms.set(blocker.name, opens)

    def report(self, blocker: Blocker) -> Blocker:
        blocker.watched = False
        if isinstance(blocker, (Short, NotYet)):
            blocker.note(False)
        del blocker.book.watched[blocker]
        if blocker.timed and self.timed.pop(blocker.name, None) is not None:
            self._alarms.clear(blocker.name)
        return blocker

    def report_all(self, book: Book) -> list[Blocker]:
        return [self.report(each) for each in list(book.watched)]
