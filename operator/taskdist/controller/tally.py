"""Counts of what the core does not hold: all Tasks, and by queue dead letters and the payload bytes of live Tasks.

Fed with each change of the view, so that nothing is ever walked.
"""

from collections import Counter
from collections.abc import Callable

from taskdist.api import Phase
from taskdist.core.model import Key
from taskdist.protocol.observations import ObservedTask

_LIVE = (Phase.PENDING, Phase.ASSIGNED)


class Tally:
    """Numbers of all queues; those that are 0 take no room.

    Args:
        serves: whether a namespace is this installation's now; what is in others is counted, and not told.
    """

    def __init__(self, serves: Callable[[str], bool] = lambda _namespace: True) -> None:
        self._serves = serves
        # As they were counted: what a deletion shows of a Task need not be what was seen of it last.
        self._counted: dict[str, ObservedTask] = {}
        self._accepted: dict[str, str] = {}  # uid to namespace
        self._in_namespace: Counter[str] = Counter()
        self._dead_letters: Counter[Key] = Counter()
        self._payload_bytes: Counter[Key] = Counter()

    def seen(self, record: ObservedTask) -> None:
        """The Task is there, in this state."""
        self.gone(record.task.uid)
        if record.phase.terminal or not record.deleting:
            self._accepted[record.task.uid] = record.task.namespace
            self._in_namespace[record.task.namespace] += 1
        if not record.phase.terminal:
            self._counted[record.task.uid] = record
            self._count(record, 1)

    def gone(self, uid: str) -> None:
        """The Task is not there any more."""
        if (namespace := self._accepted.pop(uid, None)) is not None:
            self._in_namespace[namespace] -= 1
            if not self._in_namespace[namespace]:
                del self._in_namespace[namespace]
        record = self._counted.pop(uid, None)
        if record is not None:
            self._count(record, -1)

    @property
    def accepted(self) -> int:
        """How many Tasks there are, ended ones included; none that is being deleted before its end."""
        return sum(count for namespace, count in self._in_namespace.items() if self._serves(namespace))

    def dead_letters(self, key: Key) -> int:
        return self._dead_letters.get(key, 0)

    def payload_bytes(self, key: Key) -> int:
        """Bytes of the payloads of Tasks that wait or are assigned."""
        return self._payload_bytes.get(key, 0)

    def all_dead_letters(self) -> dict[Key, int]:
        """By queue; queues without any are left out."""
        return {
            (namespace, queue): count
            for (namespace, queue), count in self._dead_letters.items()
            if self._serves(namespace)
        }

    def _count(self, record: ObservedTask, sign: int) -> None:
        live = record.phase in _LIVE
        counts, number = (self._payload_bytes, record.payload_bytes) if live else (self._dead_letters, 1)
        key = record.task.queue_key
        counts[key] += sign * number
        if not counts[key]:
            del counts[key]
