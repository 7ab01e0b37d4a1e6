"""Tasks of one queue with the same idempotency key. One of them is run, the others end as it does.

Owns who that one is: a Task that was begun before all others, then the oldest, then the first by uid. Once chosen it
stays so until it is deleted; then the key is free, and the next of those that wait is chosen. Who was there at its end
ends as it did, even if it is deleted before that is written. It says which Tasks are to be looked at again,
and writes nothing.
"""

from dataclasses import dataclass, field, replace

from taskdist.api import Phase
from taskdist.core.model import Task
from taskdist.protocol.observations import ObservedTask

# (namespace, queue, idempotency key)
Scope = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Original:
    """The Task that is run for a duplicate. `phase` says how it ended, None until then."""

    uid: str
    name: str
    phase: Phase | None


@dataclass(slots=True)
class _Member:
    name: str
    created: float
    begun: bool
    phase: Phase | None = None
    follows: Original | None = None  # one that has ended: nothing is run in its place any more


@dataclass(slots=True)
class _Group:
    first: str = ""
    members: dict[str, _Member] = field(default_factory=dict)  # by uid; none that ended as a duplicate


def without_ordering_key(task: Task) -> Task:
    """Return a duplicate as the core is to see it: it never runs, so it has no place in the order of its ordering key.

    With one, an older duplicate would hold up the very Task that it waits for.
    """
    return task if task.ordering_key is None else replace(task, ordering_key=None)


class Duplicates:
    """Groups of Tasks with one idempotency key: one is run, the others end as it does.

    `again` collects the Tasks whose original changed; its reader clears it.
    """

    def __init__(self) -> None:
        self.again: dict[str, None] = {}
        self._groups: dict[Scope, _Group] = {}
        self._scopes: dict[str, Scope] = {}

    def seen(self, record: ObservedTask) -> None:
        """The Task exists, new or changed."""
        if record.idempotency is None:
            return
        uid, scope = record.task.uid, (record.task.namespace, *record.idempotency)
        if record.duplicate_of:
            self.deleted(uid)
            return
        group = self._groups.setdefault(scope, _Group())
        self._scopes[uid] = scope
        member = group.members.get(uid)
        if member is None:
            member = group.members[uid] = _Member(record.task.name, record.task.created, False)
        member.begun = member.begun or record.attempt > 0 or record.phase is not Phase.PENDING
        if record.phase.terminal and member.phase is None:
            member.phase = record.phase
            if group.first == uid:
                self._look_again(group)

    def deleted(self, uid: str) -> None:
        """The Task is no more, or has ended as a duplicate. With the first of its key goes the key's window."""
        scope = self._scopes.pop(uid, None)
        if scope is None:
            return
        group = self._groups[scope]
        del group.members[uid]
        self.again.pop(uid, None)
        if group.first == uid:
            group.first = ""
            self._look_again(group)
        if not group.members:
            del self._groups[scope]

    def original(self, uid: str) -> Original | None:
        """Return the Task that is run instead of this one; None if this is the one, or has no key."""
        scope = self._scopes.get(uid)
        if scope is None:
            return None
        group = self._groups[scope]
        member = group.members[uid]
        if member.follows is not None:
            return member.follows
        self._choose(group)
        if group.first == uid:
            return None
        first = group.members[group.first]
        found = Original(group.first, first.name, first.phase)
        if first.phase is not None:
            member.follows = found
        return found

    @staticmethod
    def _choose(group: _Group) -> None:
        """Have one that is run, if there is any that follows none that has ended."""
        free = [uid for uid, member in group.members.items() if member.follows is None] if not group.first else []
        if free:
            group.first = min(free, key=lambda uid: _rank(uid, group.members[uid]))

    def _look_again(self, group: _Group) -> None:
        """The one that was run has ended, or is gone: then the next one is among those to be looked at."""
        former = group.first
        self._choose(group)
        for uid, member in group.members.items():
            if member.phase is None and uid != former:
                self.original(uid)
                self.again[uid] = None


def _rank(uid: str, member: _Member) -> tuple[bool, float, str]:
    return (not member.begun, member.created, uid)
