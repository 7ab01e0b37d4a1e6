"""The parents of Tasks: names resolved to uids, and how those ended.

Owns the names of all Tasks of the view, ended ones included, and the pins: the first Task that is seen under the name
of a parent is the parent, for good. Says which dependents are to be looked at again; what follows from a parent's end
is not decided here. Nothing is kept of payloads and results.

A parent that is deleted before its end is gone. Only what was seen can be known to be gone: of a pin in status that
was never seen here, that is so if the list at takeover does not hold it, or another Task has its name.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeVar

from taskdist.api import Phase
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.core.model import Key, Parent, Task
from taskdist.protocol.messages import ObjectRef, ParentResult
from taskdist.protocol.observations import ObservedTask
from taskdist.protocol.status import Status

Of = TypeVar("Of", str, Key)

# Bytes of the results of all parents together that travel with a lease.
MAX_PARENT_RESULTS = MAX_RESULT_BYTES


@dataclass(slots=True)
class _Child:
    """A Task with parents."""

    namespace: str
    parents: dict[str, Parent]  # by name
    unseen: set[str]  # names of those that were not seen here


class _Ended(NamedTuple):
    """A Task that has ended, or a dead letter."""

    key: Key  # namespace and name
    phase: Phase


class Lineage:
    """The parents of Tasks: which Task each name means, and how it ended.

    `again` collects the Tasks whose parents changed; its reader clears it.
    """

    def __init__(self) -> None:
        self.again: dict[str, None] = {}
        self._uids: dict[Key, str] = {}
        self._over: dict[str, _Ended] = {}  # ended Tasks and dead letters
        self._children: dict[str, _Child] = {}
        self._dependents: dict[str, dict[str, None]] = {}  # by the parent's uid
        self._wanting: dict[Key, dict[str, None]] = {}  # by a name that no Task was seen under
        self._complete = False

    # --- what happens to Tasks ---

    def listed(self, records: Iterable[ObservedTask]) -> None:
        """Take in the list of a takeover. It is complete: a pinned parent that it lacks is gone."""
        known = list(records)
        for record in known:
            self.seen(record)
        self._complete = True
        for record in known:
            if not record.phase.terminal:
                self.parents(record.task)
        self._complete = False
        self.again.clear()  # nobody was told anything yet

    def seen(self, record: ObservedTask) -> None:
        """The Task exists, new or changed."""
        task = record.task
        uid, key = task.uid, (task.namespace, task.name)
        self._uids[key] = uid
        if record.phase.terminal or record.phase is Phase.DEAD_LETTERED:
            self._end(uid, key, record.phase)
        elif uid in self._over:
            del self._over[uid]  # a dead letter was redriven
            self._tell(uid, None)
        for child in self._wanting.pop(key, ()):
            self.again[child] = None

    def over(self, record: ObservedTask, *, deleted: bool) -> None:
        """Nothing of the Task runs any more: it ended as the record says or, `deleted`, before its end."""
        task = record.task
        self._forget(task.uid)
        if not deleted:
            self._end(task.uid, (task.namespace, task.name), record.phase)
        else:
            self._unname(task.uid, (task.namespace, task.name))
            self._tell(task.uid, None, gone=True)

    def deleted(self, uid: str) -> None:
        """An ended Task or a dead letter was deleted."""
        self._forget(uid)
        if uid in self._over:
            key, phase = self._over.pop(uid)
            self._unname(uid, key)
            if not phase.terminal:
                self._tell(uid, None, gone=True)

    # --- what is known of a Task's parents ---

    def parents(self, task: Task) -> tuple[Parent, ...]:
        """Return the Task's parents as far as they are known, in its own order."""
        if not task.parents:
            return ()
        child = self._children.get(task.uid)
        if child is None:
            child = self._children[task.uid] = _Child(task.namespace, {}, {each.name for each in task.parents})
            child.parents = {each.name: each for each in task.parents}
        for name in sorted(child.unseen):
            self._find(task.uid, child, child.parents[name])
        return tuple(child.parents[each.name] for each in task.parents)

    def resolved(self, task: Task) -> Task:
        """Return the Task with its parents as far as they are known."""
        return replace(task, parents=self.parents(task)) if task.parents else task

    def unwritten(self, task: Task) -> bool:
        """Whether status does not say yet what is known of the Task's parents."""
        return bool(task.parents) and _said(task.parents) != _said(self.parents(task))

    def unpinned(self, task: Task) -> bool:
        """Whether a parent is known, has not ended, and is not pinned in status yet."""
        known = zip(task.parents, self.parents(task), strict=True)
        return any(now.uid != stored.uid and not _is_over(now) for stored, now in known)

    def patch(self, task: Task) -> Status:
        """Return what status is to say of the Task's parents."""
        return {"dependencies": [_pin(each) for each in self.parents(task) if each.uid]}

    # --- within ---

    def _find(self, uid: str, child: _Child, parent: Parent) -> None:
        """Look for the Task of this name, or of the pin."""
        key = (child.namespace, parent.name)
        holder = self._uids.get(key)
        if _is_over(parent):
            found = parent
        elif holder is None and not (parent.uid and self._complete):
            self._wanting.setdefault(key, {})[uid] = None
            return
        elif parent.uid and parent.uid != holder:
            found = Parent(parent.name, parent.uid, gone=True)
        else:
            assert holder is not None
            self._dependents.setdefault(holder, {})[uid] = None
            found = Parent(parent.name, holder, self._over[holder].phase if holder in self._over else None)
        child.parents[parent.name] = found
        child.unseen.discard(parent.name)

    def _end(self, uid: str, key: Key, phase: Phase) -> None:
        if self._over.get(uid) != (ended := _Ended(key, phase)):
            self._over[uid] = ended
            self._tell(uid, phase)
        if phase.terminal:
            self._forget(uid)

    def _tell(self, uid: str, phase: Phase | None, *, gone: bool = False) -> None:
        """Each of its dependents learns how the parent stands. What has ended or is gone hears nothing more of it."""
        final = gone or (phase is not None and phase.terminal)
        children = self._dependents.pop(uid, {}) if final else self._dependents.get(uid, {})
        for child_uid in children:
            child = self._children[child_uid]
            for name, known in child.parents.items():
                if known.uid == uid:
                    child.parents[name] = Parent(name, uid, phase, gone)
            self.again[child_uid] = None

    def _unname(self, uid: str, key: Key) -> None:
        if self._uids.get(key) == uid:
            del self._uids[key]

    def _forget(self, uid: str) -> None:
        """The Task waits for nobody any more."""
        child = self._children.pop(uid, None)
        self.again.pop(uid, None)
        if child is None:
            return
        for parent in child.parents.values():
            _discard(self._dependents, parent.uid, uid)
            _discard(self._wanting, (child.namespace, parent.name), uid)


def within_bounds(results: Iterable[ParentResult]) -> tuple[ParentResult, ...]:
    """Return the results in their order; those that do not fit any more are given by reference: {"$ref": "task/NAME"}.

    References are not counted, those to an object store neither: there are at most as many as a Task may have parents.
    """
    left = MAX_PARENT_RESULTS
    bounded = []
    for each in results:
        if isinstance(each.result, ObjectRef):
            bounded.append(each)
        elif len(each.result) <= left:
            left -= len(each.result)
            bounded.append(each)
        else:
            bounded.append(replace(each, result=b'{"$ref":"task/%s"}' % each.name.encode()))
    return tuple(bounded)


def _is_over(parent: Parent) -> bool:
    return parent.gone or (parent.phase is not None and parent.phase.terminal)


def _said(parents: Iterable[Parent]) -> list[Status]:
    return [_pin(each) for each in parents]


def _pin(parent: Parent) -> Status:
    ended = parent.phase is not None and parent.phase.terminal
    return {"name": parent.name, "uid": parent.uid} | ({"phase": str(parent.phase)} if ended else {})


def _discard(index: dict[Of, dict[str, None]], key: Of, uid: str) -> None:
    members = index.get(key)
    if members is not None:
        members.pop(uid, None)
        if not members:
            del index[key]
