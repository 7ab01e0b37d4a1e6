"""The reasons why Tasks wait, written into their status.

A reason is written once it has held for a while. Reasons come on top of the three writes of a Task's life, so their
rate is bounded; they go in the order in which they came due.
"""

from taskdist.core import Core
from taskdist.core.explaining.wording import text
from taskdist.protocol import status
from taskdist.protocol.observations import Now
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.array_books import is_blank
from taskdist.protocol.operator.books import CoreState, NotedReason, Purpose, TaskEntry
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.settings import LeaderSettings

# With more Tasks than these, status tells reasons without position and expected start: those cost too much there to be
# worked out while others wait for a decision. `taskdist explain` tells them.
OUTLOOK_TASKS = 10_000


class WaitReasons:
    """Writes why Tasks wait, each once its reason has held for a while.

    They come on top of the three writes of a Task's life, so their rate is bounded; the first that came due goes first.
    """

    def __init__(self, core: Core, state: State, out: Actions, settings: LeaderSettings) -> None:
        self._core = core
        self._state = state
        self._out = out
        self._settings = settings
        self._line: dict[str, int] = {}  # Tasks whose reason is to be written, the first come first
        self._slot = self._wake = 0.0  # when the next one may be written, and the last wake for it

    def look(self, entry: TaskEntry, waits: int, now: Now) -> None:
        """See whether the reason why a Task waits has held for a while and is not written yet."""
        if waits != entry.waits or not self._waits(entry):
            return  # it began to wait anew since, or waits no more
        hold = self._settings.reason_seconds
        self._state.timers.add(now.boot + hold, TimerKind.REASON, entry.uid, entry.waits)
        explanation = self._core.why(entry.uid, now.wall)
        if explanation is None or not self._speaks(entry):
            return
        if entry.noted is None or entry.noted.reason is not explanation.reason:
            entry.noted = NotedReason(explanation.reason, now.boot)
        elif entry.record.reason is not explanation.reason and now.boot >= entry.noted.since + hold:
            self._line.setdefault(entry.uid, entry.waits)
            self.write(now)

    def write(self, now: Now) -> None:
        """Write reasons in the order in which they came due, at most `reasons_per_second` (a bucket of one second)."""
        line, every = self._line, 1 / self._settings.reasons_per_second
        while line and now.boot >= self._slot:
            uid = next(iter(line))
            entry, waits = self._state.tasks.get(uid), line.pop(uid)
            if entry is None or entry.waits != waits or not self._waits(entry):
                continue
            if self._state.is_closed(entry, now):
                continue
            if entry.under_way is not None or entry.ending is not None or entry.aside or now.boot < entry.not_until:
                continue  # it is looked at again
            near = len(self._state.tasks) <= OUTLOOK_TASKS
            explanation = self._core.explain(uid, now.wall) if near else self._core.why(uid, now.wall)
            if explanation is None or entry.noted is None or entry.noted.reason is not explanation.reason:
                continue
            self._slot = max(self._slot, now.boot - 1.0) + every
            self._out.write(entry, Purpose.NOTE, status.explained(explanation.reason, text(explanation)))
        if line and self._slot > self._wake:
            self._wake = self._slot
            self._state.timers.add(self._wake, TimerKind.REASONS)

    def _speaks(self, entry: TaskEntry) -> bool:
        """Whether its reason is to be told: of the blanks of an array the first one speaks for all."""
        if not is_blank(entry) or entry.part is None:
            return True
        return entry in self._state.arrays[entry.part.array].blanks()[:1]

    @staticmethod
    def _waits(entry: TaskEntry) -> bool:
        return entry.core in (CoreState.WAITING, CoreState.HELD) and entry.lease is None
