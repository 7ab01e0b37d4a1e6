"""The core's picture of each Task, kept true: the one place that tells the core how a Task stands.

It decides nothing. The parts say how a Task stands as often as they like; the core is told of it once.
"""

from taskdist.api import Phase, Reason
from taskdist.core import Core
from taskdist.core.events import TaskGone, TaskHeld, TaskLeased, TaskWaiting
from taskdist.core.model import Task
from taskdist.protocol import still_held
from taskdist.protocol.duplicates import without_ordering_key
from taskdist.protocol.observations import AnnotatePod, Now
from taskdist.protocol.operator.actions import Actions
from taskdist.protocol.operator.books import CoreState, Deletion, Lease, Part, TaskEntry
from taskdist.protocol.operator.removals import Removals
from taskdist.protocol.operator.state import State
from taskdist.protocol.operator.timers import TimerKind
from taskdist.protocol.rules import Rules


class CoreView:
    """Tells the core how each Task stands: waiting, held, leased or gone.

    Owns the index of leases by agent, which changes with it. It decides nothing, and tells the core nothing twice.
    """

    def __init__(self, core: Core, state: State, out: Actions, removals: Removals, rules: Rules) -> None:
        self._core = core
        self._state = state
        self._out = out
        self._removals = removals
        self._rules = rules

    # --- what the core is told ---

    def waiting(self, entry: TaskEntry, now: Now) -> None:
        """Tell the core that the Task waits for an agent."""
        task = self._resolved(entry.record.task)
        if entry.core is CoreState.WAITING and entry.told == task:
            return
        if task.spilled and not self._rules.moves_are_told:
            return
        self._begins_to_wait(entry, CoreState.WAITING, now)
        entry.core, entry.told = CoreState.WAITING, task
        self._core.handle(TaskWaiting(task), now.wall)

    def held(self, entry: TaskEntry, reason: Reason, now: Now) -> None:
        """Tell the core that the Task waits for something that is not the core's business."""
        task = self._resolved(entry.record.task)
        if reason is Reason.DUPLICATE:
            task = without_ordering_key(task)
        if entry.core is not CoreState.HELD or entry.told != task or entry.held_for is not reason:
            self._begins_to_wait(entry, CoreState.HELD, now)
            entry.core, entry.told, entry.held_for = CoreState.HELD, task, reason
            self._core.handle(TaskHeld(task, reason), now.wall)

    def _resolved(self, task: Task) -> Task:
        """Return the Task with its parents as far as they are known."""
        return self._state.lineage.resolved(task) if task.parents else task

    def _begins_to_wait(self, entry: TaskEntry, how: CoreState, now: Now) -> None:
        """Have its reason looked at soon, and then as long as it waits so."""
        if entry.core is not how:
            entry.waits += 1
            entry.noted = None
            self._state.timers.add(now.boot + 1.0, TimerKind.REASON, entry.uid, entry.waits)

    def leased(self, entry: TaskEntry, agent_uid: str, now: Now) -> None:
        """Tell the core of a lease that it did not decide on."""
        entry.core = CoreState.LEASED
        self._core.handle(TaskLeased(entry.record.task, agent_uid), now.wall)

    # --- leases in the books ---

    def set_lease(self, entry: TaskEntry, lease: Lease) -> None:
        """Give the Task this lease, in the books."""
        entry.lease = lease
        self._state.leases.setdefault(lease.agent_uid, {})[entry.uid] = entry

    def drop_lease(self, entry: TaskEntry) -> None:
        """Forget the lease; the caller tells the core what the Task is instead, then whether its agent is drained."""
        lease = entry.lease
        if lease is None:
            return
        entry.lease = None
        of_agent = self._state.leases.get(lease.agent_uid, {})
        of_agent.pop(entry.uid, None)
        if not of_agent:
            self._state.leases.pop(lease.agent_uid, None)
            self._state.lost.pop(lease.agent_uid, None)
            self._state.forget_lost(lease.agent_uid)

    def take_back(self, entry: TaskEntry, now: Now) -> None:
        """Drop a lease that was planned and never sent; the core holds the Task until its next step."""
        lease = entry.lease
        if lease is None:
            return
        self.drop_lease(entry)
        if entry.deletion is Deletion.NONE:
            self.held(entry, Reason.RECOVERING, now)
        self._removals.check(lease.agent_uid, now)

    # --- Tasks that are over ---

    def leave(self, entry: TaskEntry, now: Now) -> None:
        """Drop the lease of a dead letter, and have the core forget it if the rules say so."""
        pod = entry.lease.agent_uid if entry.lease is not None else ""
        self.drop_lease(entry)
        self._state.recovering.discard(entry.uid)
        if entry.core is not CoreState.ABSENT:
            entry.core, entry.told = CoreState.ABSENT, None
            if self._rules.letters_leave_the_core:
                self._core.handle(TaskGone(entry.uid, Phase.DEAD_LETTERED), now.wall)
        if pod:
            self._removals.check(pod, now)

    def forget(self, entry: TaskEntry, now: Now, *, final: bool) -> None:
        """Forget a Task of which nothing runs, terminal (`final`) or deleted; tell the core that it is gone."""
        pod = entry.lease.agent_uid if entry.lease else ""
        if (noted := self._state.pods.get(entry.noted_on)) is not None:
            key = still_held.annotation(entry.uid)
            self._out.add(AnnotatePod(noted.uid, noted.namespace, noted.name, key, None))
        self.drop_lease(entry)
        del self._state.tasks[entry.uid]
        self._state.recovering.discard(entry.uid)
        if entry.part is not None:
            self._forget_part(entry, entry.part)
        else:
            self._state.arrays.pop(entry.uid, None)
            self._state.lineage.over(entry.record, deleted=not final)
            if final:
                self._state.finals.add(entry.uid)
            else:
                self._state.duplicates.deleted(entry.uid)
        if entry.core is not CoreState.ABSENT:
            phase = entry.record.phase if entry.record.phase.terminal else None
            self._core.handle(TaskGone(entry.uid, phase), now.wall)
        if pod:
            self._removals.check(pod, now)

    def _forget_part(self, entry: TaskEntry, part: Part) -> None:
        """The part is no more: its array is looked at. Nothing depends on a part, and none is looked for again."""
        self._state.lineage.deleted(entry.uid)
        book = self._state.arrays[part.array]
        del book.parts[part.key]
        if part.stored:
            book.gone.add(part.key)
        self._state.arrays_again[part.array] = None
