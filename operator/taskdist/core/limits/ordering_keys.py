"""Who is next of the Tasks that share an ordering key: one runs after the other, oldest first.

Owns the order within each (queue, key): a Task that was started keeps its turn until it has ended for good, backing off
included; then the next by creation, then uid. Refuses to know what else holds a Task: one that is suspended holds up
those behind it.
"""

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from taskdist.core.model import Task

# A Task that was started by a former leader, and one that was not, as far as is known.
_STARTED, _NEW = 0, 1

# (standing, created, uid, stamp, name): smaller goes first.
Entry = tuple[int, float, str, int, str]
# (namespace, queue, ordering key).
SequenceKey = tuple[str, str, str]


class Sequence:
    """The Tasks of one key. An entry is dead unless `entries` holds it under its uid.

    `leased` are the uids of those that have a lease: one at most, but for leases that were found at a change of leader.
    """

    __slots__ = ("entries", "heap", "leased")

    def __init__(self) -> None:
        self.entries: dict[str, Entry] = {}
        self.heap: list[Entry] = []
        self.leased: list[str] = []

    def put(self, entry: Entry) -> None:
        self.entries[entry[2]] = entry
        heappush(self.heap, entry)
        if len(self.heap) > 8 + 2 * len(self.entries):
            self.heap = list(self.entries.values())
            heapify(self.heap)

    def first(self) -> Entry | None:
        heap, entries = self.heap, self.entries
        while heap:
            entry = heap[0]
            live = entries.get(entry[2])
            if live is not None and live[3] == entry[3]:
                return entry
            heappop(heap)
        return None

    def holder(self) -> Entry | None:
        """Return the Task for which all others of the key wait: one that has a lease, else the first."""
        return self.entries[self.leased[0]] if self.leased else self.first()


class OrderingKeys:
    """All Tasks with an ordering key that have not ended. Calls with Tasks without one are mistakes."""

    def __init__(self) -> None:
        self._sequences: dict[SequenceKey, Sequence] = {}
        self._stamp = 0

    def enter(self, task: Task) -> str | None:
        """Take in a Task that came. Return whose turn it was until now, if that is over."""
        key = _key(task)
        sequence = self._sequences.get(key)
        if sequence is None:
            sequence = self._sequences[key] = Sequence()
        led = None if sequence.leased else sequence.first()
        self._stamp += 1
        sequence.put((_STARTED if task.attempted else _NEW, task.created, task.uid, self._stamp, task.name))
        if led is None:
            return None
        first = sequence.first()
        return led[2] if first is not None and first[2] != led[2] else None

    def leave(self, task: Task) -> list[str]:
        """Take out a Task that ended for good. Return whose turn it is now, if that changed."""
        key = _key(task)
        sequence = self._sequences[key]
        led = sequence.first()
        del sequence.entries[task.uid]
        if not sequence.entries:
            del self._sequences[key]
            return []
        if led is None or led[2] != task.uid or sequence.leased:
            return []
        following = sequence.first()
        return [] if following is None else [following[2]]

    def take(self, task: Task) -> None:
        self._sequences[_key(task)].leased.append(task.uid)

    def give_back(self, task: Task) -> None:
        """End the Task's attempt. The turn stays with the Task.

        Leases found at a change of leader may be several of one key: the last one that is over goes on first, so that
        none waits for a Task that waits for it.
        """
        sequence = self._sequences[_key(task)]
        sequence.leased.remove(task.uid)
        self._stamp += 1
        sequence.put((-self._stamp, task.created, task.uid, self._stamp, task.name))

    def mine(self, task: Task) -> bool:
        """Whether a waiting Task has the turn."""
        sequence = self._sequences.get(_key(task))
        if sequence is None:
            return True
        first = sequence.first()
        return not sequence.leased and (first is None or first[2] == task.uid)

    def ahead(self, task: Task) -> tuple[str, int]:
        """Return the name of the Task for which the others of the key wait, and how many of them have not ended."""
        sequence = self._sequences.get(_key(task))
        holder = sequence.holder() if sequence is not None else None
        return ("", 0) if sequence is None or holder is None else (holder[4], len(sequence.entries))

    def first(self, task: Task) -> str | None:
        """Return the uid of the Task that goes next of the key, if that is another one."""
        sequence = self._sequences.get(_key(task))
        first = sequence.first() if sequence is not None else None
        return None if first is None or first[2] == task.uid else first[2]

    def sizes(self) -> Iterator[tuple[SequenceKey, tuple[set[str], int]]]:
        """Yield, by key: the uids of its Tasks and how many of them are leased."""
        for key, sequence in self._sequences.items():
            yield key, (set(sequence.entries), len(sequence.leased))


def _key(task: Task) -> SequenceKey:
    assert task.ordering_key is not None
    return (task.namespace, task.queue, task.ordering_key)
