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

# (namespace, queue, ordering key).
SequenceKey = tuple[str, str, str]


class SequenceEntry:
    """A Task in the sequence of its ordering key: smaller `standing` first, then earlier creation."""

    __slots__ = ("created", "name", "stamp", "standing", "uid")

    def __init__(self, standing: int, task: Task, stamp: int) -> None:
        self.standing = standing
        self.created = task.created
        self.uid = task.uid
        self.name = task.name
        self.stamp = stamp

    def __lt__(self, other: "SequenceEntry") -> bool:
        if self.standing != other.standing:
            return self.standing < other.standing
        if self.created != other.created:
            return self.created < other.created
        return self.uid < other.uid if self.uid != other.uid else self.stamp < other.stamp


class KeySequence:
    """The Tasks of one key. An entry is dead unless `entries` holds it under its uid.

    `leased` are the uids of those that have a lease: one at most, but for leases that were found at a change of leader.
    """

    __slots__ = ("entries", "heap", "leased")

    def __init__(self) -> None:
        self.entries: dict[str, SequenceEntry] = {}
        self.heap: list[SequenceEntry] = []
        self.leased: list[str] = []

    def put(self, entry: SequenceEntry) -> None:
        self.entries[entry.uid] = entry
        heappush(self.heap, entry)
        if len(self.heap) > 8 + 2 * len(self.entries):
            self.heap = list(self.entries.values())
            heapify(self.heap)

    def first(self) -> SequenceEntry | None:
        heap, entries = self.heap, self.entries
        while heap:
            entry = heap[0]
            live = entries.get(entry.uid)
            if live is not None and live.stamp == entry.stamp:
                return entry
            heappop(heap)
        return None

    def holder(self) -> SequenceEntry | None:
        """Return the Task for which all others of the key wait: one that has a lease, else the first."""
        return self.entries[self.leased[0]] if self.leased else self.first()


class OrderingKeys:
    """The order within each ordering key, for all Tasks with one that have not ended."""

    def __init__(self) -> None:
        self._sequences: dict[SequenceKey, KeySequence] = {}
        self._stamp = 0

    def enter(self, task: Task) -> str | None:
        """Add a Task. Return the uid of the Task that had the turn until now, if it has lost it."""
        key = _key(task)
        sequence = self._sequences.get(key)
        if sequence is None:
            sequence = self._sequences[key] = KeySequence()
        led = None if sequence.leased else sequence.first()
        self._stamp += 1
        sequence.put(SequenceEntry(_STARTED if task.attempted else _NEW, task, self._stamp))
        if led is None:
            return None
        first = sequence.first()
        return led.uid if first is not None and first.uid != led.uid else None

    def leave(self, task: Task) -> list[str]:
        """Remove a Task that ended for good. Return the uid of the Task that has the turn now, if that is new."""
        key = _key(task)
        sequence = self._sequences[key]
        led = sequence.first()
        del sequence.entries[task.uid]
        if not sequence.entries:
            del self._sequences[key]
            return []
        if led is None or led.uid != task.uid or sequence.leased:
            return []
        following = sequence.first()
        return [] if following is None else [following.uid]

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
        sequence.put(SequenceEntry(-self._stamp, task, self._stamp))

    def mine(self, task: Task) -> bool:
        """Whether a waiting Task has the turn."""
        sequence = self._sequences.get(_key(task))
        if sequence is None:
            return True
        first = sequence.first()
        return not sequence.leased and (first is None or first.uid == task.uid)

    def ahead(self, task: Task) -> tuple[str, int]:
        """Return the name of the Task that the others of the key wait for, and how many of the key have not ended."""
        sequence = self._sequences.get(_key(task))
        holder = sequence.holder() if sequence is not None else None
        return ("", 0) if sequence is None or holder is None else (holder.name, len(sequence.entries))

    def first(self, task: Task) -> str | None:
        """Return the uid of the next Task of the key, if that is another one."""
        sequence = self._sequences.get(_key(task))
        first = sequence.first() if sequence is not None else None
        return None if first is None or first.uid == task.uid else first.uid

    def sizes(self) -> Iterator[tuple[SequenceKey, tuple[set[str], int]]]:
        """Yield, by key: the uids of its Tasks and how many of them are leased."""
        for key, sequence in self._sequences.items():
            yield key, (set(sequence.entries), len(sequence.leased))


def _key(task: Task) -> SequenceKey:
    assert task.ordering_key is not None
    return (task.namespace, task.queue, task.ordering_key)
