"""The rule by which ended Tasks are due for deletion. Pure.

Owns one rule. A Task is due its `ttlSecondsAfterFinished`, or else its queue's, after its end and after the end of the
last Task that depends on it; a dead letter its queue's `deadLetterTtlSeconds` after it became one. Of a queue with
`archive` it is then withheld until the archive has this state of it; where a sink holds it, until that has told it, or
for as long as the sink says. Derived from the view and the words of archive and sinks alone, so that nothing has to
survive a restart but these. Deleting is another's work, and a changed Task is never
deleted: who deletes names the version that was judged.
"""

from collections import Counter
from dataclasses import dataclass, field
from heapq import heapify, heappop, heappush
from typing import NamedTuple

from taskdist.api import Phase
from taskdist.controller.holding import Hold
from taskdist.core.model import Key
from taskdist.kube.archived import NOTHING, Archived
from taskdist.protocol.observations import ObservedTask

# How many are looked at for each that may be found: those between wait for the archive.
_LOOKS = 10


class _Untold(NamedTuple):
    """A Task that waits for the archive or for a sink, in a heap by the version of its end."""

    version: int
    uid: str


class _Due(NamedTuple):
    """A Task in the heap, by its time. It counts while its stamp is the Task's latest."""

    at: float
    uid: str
    stamp: int


@dataclass(frozen=True, slots=True)
class Keep:
    """A queue's word, in seconds: how long its ended Tasks and its dead letters are kept. None: until deleted."""

    ended: float | None = None
    dead_letters: float | None = None
    archive: bool = False  # none goes before the archive has it


@dataclass(frozen=True, slots=True)
class Withheld:
    """A queue's Tasks that are over their time and wait for the archive."""

    count: int = 0
    since: float = 0.0  # about when the first of them was due


@dataclass(slots=True)
class _Family:
    """The dependents of Tasks of one name: those that have not ended, and when others did."""

    # By the dependant's uid: the uid that it is pinned to, empty before it is.
    open: dict[str, str] = field(default_factory=dict)
    # How many of them are pinned to each.
    pinned: Counter[str] = field(default_factory=Counter)
    # By the uid that dependants were pinned to: when the last of them ended.
    ended: dict[str, float] = field(default_factory=dict)

    def opened(self, uid: str, parent: str) -> None:
        self.closed(uid)
        self.open[uid] = parent
        self.pinned[parent] += 1

    def closed(self, uid: str) -> None:
        parent = self.open.pop(uid, None)
        if parent is not None:
            self.pinned[parent] -= 1
            if not self.pinned[parent]:
                del self.pinned[parent]


class Retention:
    """Says which ended Tasks are due. Times are seconds since the Unix epoch."""

    def __init__(self) -> None:
        self._keep: dict[Key, Keep] = {}
        # Ended Tasks and dead letters only.
        self._kept: dict[str, ObservedTask] = {}
        self._by_queue: dict[Key, set[str]] = {}
        self._by_name: dict[Key, str] = {}
        self._families: dict[Key, _Family] = {}
        self._heap: list[_Due] = []
        self._stamps: dict[str, int] = {}
        self._stamp = 0
        self._archived = NOTHING
        # Those that are due and wait for the archive: when they were due, by uid.
        self._withheld: dict[Key, dict[str, float]] = {}
        # By namespace (version, uid), the lowest version first; what is not withheld any more goes lazily.
        self._by_version: dict[str, list[_Untold]] = {}
        # What sinks hold, by sink; and what each of them holds back now, likewise.
        self._holds: dict[Key, Hold] = {}
        self._by_sink: dict[Key, list[_Untold]] = {}

    # -- what happened ---------------------------------------------------------------------------------------------

    def queue_applied(self, key: Key, keep: Keep) -> None:
        """The queue says so now; it holds for Tasks that have ended already too."""
        if keep == self._keep.get(key, Keep()):
            return
        self._keep[key] = keep
        for uid in self._by_queue.get(key, ()):
            self._judge(uid)

    def queue_deleted(self, key: Key) -> None:
        """Nobody says any more how long its Tasks are kept, but those that say so themselves."""
        if self._keep.pop(key, None) is not None:
            for uid in self._by_queue.get(key, ()):
                self._judge(uid)

    def seen(self, record: ObservedTask) -> None:
        """The Task is there, in this state."""
        task = record.task
        self._forget(task.uid)
        if record.phase.terminal or record.phase is Phase.DEAD_LETTERED:
            self._kept[task.uid] = record
            self._by_queue.setdefault(task.queue_key, set()).add(task.uid)
            self._by_name[task.namespace, task.name] = task.uid
        for name, family, pinned, parent in self._parents(record):
            if record.phase.terminal:
                family.closed(task.uid)
                family.ended[parent] = max(family.ended.get(parent, 0.0), record.finished_at)
            else:
                # By its word alone: whom it means is not settled before it is pinned.
                family.opened(task.uid, pinned)
            self._related(name, family)
        self._judge(task.uid)

    def gone(self, record: ObservedTask, now: float) -> None:
        """The Task is not there any more. One that had not ended ends now, for those it depends on."""
        task = record.task
        self._forget(task.uid)
        self._stamps.pop(task.uid, None)
        for name, family, _, parent in self._parents(record):
            family.closed(task.uid)
            if parent not in self._kept:
                # The parent is gone, or will end later than this one did.
                family.ended.pop(parent, None)
            elif not record.phase.terminal:
                family.ended[parent] = max(family.ended.get(parent, 0.0), now)
            self._related(name, family)
        name = (task.namespace, task.name)
        if (mine := self._families.get(name)) is not None:
            mine.ended.pop(task.uid, None)
            self._related(name, mine)

    def archive_told(self, archived: Archived) -> None:
        """The archive has all ends up to these versions now."""
        self._archived = archived
        for namespace, waiting in list(self._by_version.items()):
            mark = archived.up_to(namespace)
            while waiting and waiting[0].version <= mark:
                uid = heappop(waiting).uid
                record = self._kept.get(uid)
                due = self._release(record) if record is not None and record.resource_version <= mark else None
                if due is not None:
                    self._push(uid, due)
            if not waiting:
                del self._by_version[namespace]

    def sink_told(self, hold: Hold) -> None:
        """A sink says this now; one that holds nothing is as good as gone."""
        former = self._holds.pop(hold.sink, None)
        if hold.seconds:
            self._holds[hold.sink] = hold
        waiting = self._by_sink.get(hold.sink)
        if waiting is None or former is None:
            return
        same = (hold.seconds, hold.queues) == (former.seconds, former.queues) and hold.position >= former.position
        while waiting and (not same or waiting[0].version <= hold.position):
            version, uid = heappop(waiting)
            record = self._kept.get(uid)
            if record is not None and record.resource_version == version and (due := self.due_at(uid)) is not None:
                self._push(uid, due)
        if not waiting:
            del self._by_sink[hold.sink]

    # -- what follows ----------------------------------------------------------------------------------------------

    def due(self, now: float, most: int) -> list[ObservedTask]:
        """Return at most `most` Tasks whose time has come, the longest due first. Each is named once per state."""
        found: list[ObservedTask] = []
        looks = _LOOKS * most
        while self._heap and len(found) < most and looks > 0:
            at, uid, stamp = self._heap[0]
            valid = self._stamps.get(uid) == stamp
            if valid and at > now:
                break
            heappop(self._heap)
            if not valid:
                continue
            looks -= 1
            record = self._kept[uid]
            del self._stamps[uid]
            if self._waits_for_archive(record):
                self._withhold(record, at)
            elif not self._held_by_a_sink(record, now):
                found.append(record)
        return found

    def withheld(self, key: Key) -> Withheld:
        """Which of the queue's Tasks would be deleted but for the archive."""
        waiting = self._withheld.get(key)
        return Withheld(len(waiting), next(iter(waiting.values()))) if waiting else Withheld()

    def all_withheld(self) -> dict[Key, int]:
        """How many there are by queue; queues without any are left out."""
        return {key: len(waiting) for key, waiting in self._withheld.items()}

    def again(self, uid: str, at: float) -> None:
        """The Task could not be deleted: name it again at this time, if it is still what it was."""
        if uid in self._kept and uid not in self._stamps:
            self._push(uid, at)

    def due_at(self, uid: str) -> float | None:
        """When this Task is due by the rule; None if it is kept until something changes."""
        record = self._kept.get(uid)
        if record is None or record.deleting or not record.finished_at:
            return None
        keep = self._keep.get(record.task.queue_key, Keep())
        if record.phase is Phase.DEAD_LETTERED:
            seconds = keep.dead_letters
        else:
            seconds = record.ttl if record.ttl is not None else keep.ended
        if seconds is None:
            return None
        since = record.finished_at
        family = self._families.get((record.task.namespace, record.task.name))
        if family is not None:
            # One that is not pinned yet may mean this one.
            if family.pinned[""] or family.pinned[uid]:
                return None
            since = max(since, family.ended.get(uid, 0.0))
        return since + seconds

    # -- within ----------------------------------------------------------------------------------------------------

    def _forget(self, uid: str) -> None:
        record = self._kept.pop(uid, None)
        if record is None:
            return
        self._release(record)
        key, name = record.task.queue_key, (record.task.namespace, record.task.name)
        self._by_queue[key].discard(uid)
        if not self._by_queue[key]:
            del self._by_queue[key]
        if self._by_name.get(name) == uid:
            del self._by_name[name]

    def _parents(self, record: ObservedTask) -> list[tuple[Key, _Family, str, str]]:
        """The families of the Tasks that this one depends on; for each the uid that it is pinned to, and that or else
        the one of its name that is kept: empty as long as it is not known."""
        found = []
        for parent in record.task.parents:
            name = (record.task.namespace, parent.name)
            family = self._families.setdefault(name, _Family())
            found.append((name, family, parent.uid, parent.uid or self._by_name.get(name, "")))
        return found

    def _related(self, name: Key, family: _Family) -> None:
        """A family has changed: that may concern the Task it depends on."""
        if not family.open and not family.ended:
            self._families.pop(name, None)
        if (kept := self._by_name.get(name)) is not None:
            self._judge(kept)

    def _waits_for_archive(self, record: ObservedTask) -> bool:
        task = record.task
        asked = self._keep.get(task.queue_key, Keep()).archive
        return asked and not self._archived.covers(task.namespace, record.resource_version)

    def _withhold(self, record: ObservedTask, due: float) -> None:
        task = record.task
        self._withheld.setdefault(task.queue_key, {})[task.uid] = due
        heappush(self._by_version.setdefault(task.namespace, []), _Untold(record.resource_version, task.uid))

    def _held_by_a_sink(self, record: ObservedTask, now: float) -> bool:
        """Hold it back where a sink says so: until that has told it, or its time for that is over."""
        task, due = record.task, self.due_at(record.task.uid)
        for hold in self._holds.values():
            if due is None or not hold.holds(task.namespace, task.queue, record.resource_version):
                continue
            if due + hold.seconds > now:
                self._push(task.uid, due + hold.seconds)
                heappush(self._by_sink.setdefault(hold.sink, []), _Untold(record.resource_version, task.uid))
                return True
        return False

    def _release(self, record: ObservedTask) -> float | None:
        """It does not wait for the archive any more. Returns when it was due, if it did."""
        key = record.task.queue_key
        waiting = self._withheld.get(key, {})
        due = waiting.pop(record.task.uid, None)
        if due is not None and not waiting:
            del self._withheld[key]
        return due

    def _judge(self, uid: str) -> None:
        if (record := self._kept.get(uid)) is not None:
            self._release(record)
        at = self.due_at(uid)
        if at is None:
            self._stamps.pop(uid, None)
        else:
            self._push(uid, at)

    def _push(self, uid: str, at: float) -> None:
        self._stamp += 1
        self._stamps[uid] = self._stamp
        heappush(self._heap, _Due(at, uid, self._stamp))
        if len(self._heap) > 64 + 2 * len(self._stamps):
            self._heap = [due for due in self._heap if self._stamps.get(due.uid) == due.stamp]
            heapify(self._heap)
