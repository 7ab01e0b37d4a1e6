"""Tasks as the view tells them: rows of a list, and one with its place in the order. Each answer is short work."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taskdist.api import Phase, Priority
from taskdist.api.view import TaskDetail, TaskList, TaskRow
from taskdist.controller.view.names import NamesByNamespace
from taskdist.controller.view.problems import Problem, missing
from taskdist.controller.view.selecting import Selection
from taskdist.core.decisions import Explanation
from taskdist.kube import Store
from taskdist.protocol import explanations
from taskdist.protocol.arrays import counts
from taskdist.protocol.observations import ArrayView, ObservedTask
from taskdist.protocol.operator import Leader
from taskdist.protocol.operator.books import LIVE, UNHEARD, Lease, TaskEntry

# So many Tasks are looked at for one page, whether they are wanted or not; fewer where a look takes longer.
MOST_LOOKED_AT = 2500
LEVELS = tuple(Priority.of(level).value for level in range(len(Priority)))


@dataclass(frozen=True, slots=True)
class Seen:
    """A Task as the leader has it: with the lease that an agent may run, and its entry in the books, if there are."""

    record: ObservedTask
    lease: Lease | None = None
    entry: TaskEntry | None = None

    @property
    def phase(self) -> Phase:
        """What it is by now: an agent may have it before that is written."""
        return Phase.ASSIGNED if self.lease is not None else self.record.phase


class Tasks:
    """Finds Tasks in the leader's memory.

    Args:
        store: the view of the API server, ended Tasks included.
        leader: whoever leads in this process; None: nobody.
    """

    def __init__(
        self,
        store: Store[ObservedTask],
        leader: Callable[[], Leader | None],
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._store = store
        self._leader = leader
        self._wall = wall
        self._names = NamesByNamespace()

    def now(self) -> float:
        """Return the wall clock's time."""
        return self._wall()

    # -- what the informer tells -----------------------------------------------------------------------------------

    def came(self, record: ObservedTask) -> None:
        self._names.add(record.task.namespace, record.task.name)

    def went(self, record: ObservedTask) -> None:
        if not self._store.uid_at(record.task.namespace, record.task.name):
            self._names.discard(record.task.namespace, record.task.name)

    # -- answers ---------------------------------------------------------------------------------------------------

    def leader(self) -> Leader:
        """Return the leader. Raises Problem where this process has stopped to lead."""
        leader = self._leader()
        if leader is None:
            raise Problem(421, "this replica has stopped to lead: ask again")
        return leader

    def seen(self, namespace: str, name: str) -> Seen:
        """Return the Task of this name. Raises Problem."""
        found = self._find(self.leader(), namespace, name)
        if found is None:
            raise missing("Task", namespace, name)
        return found

    def detail(self, namespace: str, name: str) -> TaskDetail:
        """Return the Task of this name, with its place in the order. Raises Problem."""
        seen, now = self.seen(namespace, name), self._wall()
        found = why(self.leader(), seen, now) if seen.phase is Phase.PENDING else None
        return TaskDetail.model_construct(**columns(seen, now), **explanations.standing(found))

    def page(self, namespace: str, selection: Selection) -> TaskList:
        """Return the next of those that are wanted, in the order of names."""
        leader, now = self.leader(), self._wall()
        rows: list[TaskRow] = []
        last, looked_at, more = "", 0, False
        for name in self._names.after(namespace, selection.after):
            if len(rows) >= selection.limit or looked_at >= MOST_LOOKED_AT:
                more = True
                break
            last, looked_at = name, looked_at + selection.cost
            found = self._find(leader, namespace, name)
            if found is not None and selection.takes(found.record, found.phase):
                rows.append(row(found, now))
        return TaskList.model_construct(items=rows, continue_=last if more else "")

    def _find(self, leader: Leader, namespace: str, name: str) -> Seen | None:
        record = self._store.find(namespace, name)
        if record is None:
            return None
        entry = leader.state.tasks.get(record.task.uid)
        if entry is None:
            return Seen(record)
        lease = entry.lease
        return Seen(entry.record, lease if lease is not None and lease.stage in LIVE else None, entry)


def why(leader: Leader, seen: Seen, now: float) -> Explanation:
    """Why the Task waits. The core explains those that wait for it; the others wait for a write."""
    entry, record = seen.entry, seen.record
    if entry is not None and (ending := entry.ending) is not None:
        return Explanation(
            ending.reason, f"It ends as {ending.phase}, which is being written. {ending.message}".rstrip()
        )
    if entry is not None and (lease := entry.lease) is not None and lease.stage in UNHEARD:
        return explanations.starting(lease.agent_name)
    found = leader.core.explain(record.task.uid, now)
    if found is None and record.array is not None:
        found = _of_array(leader, record, record.array, now)
    return found or explanations.unseen(record.reason)


def _of_array(leader: Leader, record: ObservedTask, array: ArrayView, now: float) -> Explanation | None:
    """Why items of the array wait: what holds the first chunk that waits; None if none of them waits."""
    entry = first_part(leader, record)
    if entry is None:
        return explanations.without_part(array, now)
    if (lease := entry.lease) is not None:
        return explanations.starting(lease.agent_name)
    return leader.core.explain(entry.uid, now)


def first_part(leader: Leader, record: ObservedTask) -> TaskEntry | None:
    """Return the first chunk of the array that waits, or is about to be handed out; None if there is none."""
    book = leader.state.arrays.get(record.task.uid)
    if book is None:
        return None
    waiting = [each for each in book.parts.values() if each.lease is None or each.lease.stage in UNHEARD]
    first = explanations.first_waiting(each.record for each in waiting)
    return next((each for each in waiting if each.record is first), None)


def row(seen: Seen, now: float) -> TaskRow:
    """Return the Task's row in a list."""
    return TaskRow.model_construct(**columns(seen, now))


def columns(seen: Seen, now: float) -> dict[str, Any]:
    """Return what a row tells. Nothing is validated: there are very many of them, and all of it is our own."""
    record, lease = seen.record, seen.lease
    task = record.task
    return {
        "name": task.name,
        "namespace": task.namespace,
        "uid": task.uid,
        "queue": task.queue,
        "type": task.type,
        "tenant": task.tenant,
        "level": LEVELS[task.priority],
        "phase": seen.phase.value,
        "reason": "" if record.reason is None else record.reason.value,
        "agent": record.agent_name if lease is None else lease.agent_name,
        "pool": record.pool if lease is None else lease.pool,
        "attempt": record.attempt if lease is None else lease.name.attempt,
        "created": explanations.moment(task.created),
        "age": round(max(0.0, now - task.created), 3),
        "deadline": None if task.deadline is None else explanations.moment(task.deadline),
        "progress": explanations.progress(lease.progress) if lease is not None else None,
        "done": "" if record.array is None else counts.done(record.array.rules, record.array.account),
    }
