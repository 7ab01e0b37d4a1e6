"""Counts of what the core does not hold: all Tasks, and by queue dead letters and the payload bytes of live Tasks.

Fed with each change of the view, so that nothing is ever walked.
"""

from collections import Counter

from taskdist.api import Phase
from taskdist.core.model import Key
from taskdist.protocol.observations import TaskRecord

_LIVE = (Phase.PENDING, Phase.ASSIGNED)


class Tally:
    """Numbers of all queues; those that are 0 take no room."""

    def __init__(self) -> None:
        # As they were counted: what a deletion shows of a Task need not be what was seen of it last.
        self._counted: dict[str, TaskRecord] = {}
        self._accepted: set[str] = set()
        self._dead_letters: Counter[Key] = Counter()
        self._payload_bytes: Counter[Key] = Counter()

    def seen(self, record: TaskRecord) -> None:
        """The Task is there, in this state."""
        self.gone(record.task.uid)
        if record.phase.terminal or not record.deleting:
            self._accepted.add(record.task.uid)
        if not record.phase.terminal:
            self._counted[record.task.uid] = record
            self._count(record, 1)

    def gone(self, uid: str) -> None:
        """The Task is not there any more."""
        self._accepted.discard(uid)
        record = self._counted.pop(uid, None)
        if record is not None:
            self._count(record, -1)

    @property
    def accepted(self) -> int:
        """How many Tasks there are, ended ones included; none that is being deleted before its end."""
        return len(self._accepted)

    def dead_letters(self, key: Key) -> int:
        return self._dead_letters.get(key, 0)

    def payload_bytes(self, key: Key) -> int:
        """Bytes of the payloads of Tasks that wait or are assigned."""
        return self._payload_bytes.get(key, 0)

    def all_dead_letters(self) -> dict[Key, int]:
        """By queue; queues without any are left out."""
        return dict(self._dead_letters)

    def _count(self, record: TaskRecord, sign: int) -> None:
        live = record.phase in _LIVE
        counts, number = (self._payload_bytes, record.payload_bytes) if live else (self._dead_letters, 1)
        key = record.task.queue_key
        counts[key] += sign * number
        if not counts[key]:
            del counts[key]
