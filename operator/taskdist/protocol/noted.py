"""The operator's end, eighth part: why Tasks wait, noted in their status.

A reason is written once it has held for a while, and so many are written a second, the first that came due first: they
are outside the three writes of a Task's life.
"""

from taskdist.core.explaining.wording import text
from taskdist.protocol import status
from taskdist.protocol.books import Ask, Entry
from taskdist.protocol.observations import Now
from taskdist.protocol.sessions import Sessions

# With more Tasks than these, status tells reasons without position and expected start: those cost too much there to be
# worked out while others wait for a decision. Whoever asks is told them by the command.
OUTLOOK_TASKS = 10_000


class Noted(Sessions):
    """When which reason is written."""

    def _look_at_reason(self, entry: Entry, now: Now) -> None:
        """See whether the reason why a Task waits has held for a while and is not written yet."""
        if not self._waits(entry):
            return
        hold = self._settings.reason_seconds
        self._timers.add(now.boot + hold, "reason", entry.uid, entry.waits)
        explanation = self.core.why(entry.uid, now.wall)
        if explanation is None:
            return
        if entry.noted is None or entry.noted[0] is not explanation.reason:
            entry.noted = (explanation.reason, now.boot)
        elif entry.record.reason is not explanation.reason and now.boot >= entry.noted[1] + hold:
            self._reason_line.setdefault(entry.uid, entry.waits)
            self._write_reasons(now)

    def _write_reasons(self, now: Now) -> None:
        """Write reasons in the order in which they came due, so many a second and no more (a bucket of one second)."""
        line, every = self._reason_line, 1 / self._settings.reasons_per_second
        while line and now.boot >= self._reason_slot:
            uid = next(iter(line))
            entry, waits = self._tasks.get(uid), line.pop(uid)
            if entry is None or entry.waits != waits or not self._waits(entry):
                continue
            if entry.asked is not None or entry.ending is not None or entry.aside or now.boot < entry.not_until:
                continue  # it is looked at again
            near = len(self._tasks) <= OUTLOOK_TASKS
            explanation = self.core.explain(uid, now.wall) if near else self.core.why(uid, now.wall)
            if explanation is None or entry.noted is None or entry.noted[0] is not explanation.reason:
                continue
            self._reason_slot = max(self._reason_slot, now.boot - 1.0) + every
            self._write(entry, Ask.NOTE, status.explained(explanation.reason, text(explanation)))
        if line and self._reason_slot > self._reason_timer:
            self._reason_timer = self._reason_slot
            self._timers.add(self._reason_timer, "reasons", "")

    @staticmethod
    def _waits(entry: Entry) -> bool:
        return entry.core in ("waiting", "held") and entry.lease is None
