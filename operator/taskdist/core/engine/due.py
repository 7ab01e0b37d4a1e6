"""Changes that are due by time alone, and the end of Tasks that came into full queues.

A gate opens, a level rises, a route's next step opens, patience or the time to wait is over, a breaker lets an agent be
probed. Hands no Task out.
"""

from collections.abc import Iterable
from math import inf

from taskdist.api import OnHopeless, OnOverflow, Phase, Reason
from taskdist.core.decisions import Fail, Spill
from taskdist.core.engine.task_states import RUN, TaskStates
from taskdist.core.fleet.probation import Probation
from taskdist.core.model import Task
from taskdist.core.ordering.lines import TaskRecord


class DueChanges:
    """Brings about what has become due, for each Task and each limit.

    Its first call turns no Task away: those were accepted before a change of leader.
    """

    def __init__(self, states: TaskStates) -> None:
        self._states = states
        self._catalogue = states.catalogue
        self._fleet = states.fleet
        self._reservations = states.reservations
        self._limits = states.limits
        self._parking = states.parking
        self._wakeups = states.wakeups
        self.probation = Probation(self._fleet, self._catalogue)
        self._begun = False

    def apply(self, now: float) -> None:
        """Do what is due by now, and turn away new Tasks of queues that are full."""
        # What is there when this life begins was accepted in another one.
        if self._states.fresh:
            came, self._states.fresh = self._states.fresh, []
            fresh = []
            for record in came:
                if record.fresh:
                    record.fresh = False
                    fresh.append(record)
            if self._begun:
                self._turn_away(fresh, now)
        self._begun = True
        self.probation.due(now)
        if due := self._wakeups.due(now):
            self._ring(due, now)
        if opened := self._limits.due(now):
            self._parking.open(opened)
        self._parking.regroup(now)

    def _ring(self, due: list[TaskRecord], now: float) -> None:
        """Do what is due for these Tasks: one kind of change after the other, each in the order of its times."""
        several = len(due) > 1
        if several:
            due.sort(key=lambda each: each.task.uid)
        expired = [each for each in due if each.expires <= now]
        if several:
            expired.sort(key=lambda each: each.expires)
        for record in expired:
            self._expired(record, now)
        opened = [each for each in due if each.opens <= now]
        if several:
            opened.sort(key=lambda each: each.opens)
        for record in opened:
            self._states.try_again(record.task.uid, now)
        risen = [each for each in due if each.rises <= now]
        if several:
            risen.sort(key=lambda each: each.rises)
        for record in risen:
            record.rises = inf
            self._states.rise(record, now)
        moved = [each for each in due if each.moves <= now]
        if several:
            moved.sort(key=lambda each: each.moves)
        for record in moved:
            record.moves = inf
            route = record.shape.route
            if route is not None and (record.line is not None or record.blocker is not None):
                self._states.move_on(record, route, now)
        for record in due:
            # Whatever else holds it by now holds it all the same.
            stands = record.line is not None or record.blocker is not None
            if stands and record.shape.patient and record.patience <= now:
                self._states.relax(record, now)
            if record.impatient <= now:
                record.impatient = inf
                self._reservations.ask(record)
            self._states.heed_time(record)

    def _expired(self, record: TaskRecord, now: float) -> None:
        task = record.task
        queue = self._catalogue.queue(task.queue_key)
        phase = Phase.FAILED
        if task.deadline is not None and queue.on_hopeless is not RUN and now > record.hopeless_from:
            reason = Reason.DEADLINE_HOPELESS
            late = now - record.hopeless_from
            message = f"Its deadline cannot be met any more: it had to start {late:.1f} s ago, by what its type takes."
            if queue.on_hopeless is OnHopeless.DEAD_LETTER:
                phase = Phase.DEAD_LETTERED
        else:
            reason = Reason.WAITED_TOO_LONG
            message = f"It waited for {now - task.created:.0f} s without a start, longer than it or its queue allows."
        self._end(record, Fail(task.uid, task.failures, reason, message, phase, task.deaths), now)

    def _end(self, record: TaskRecord, decision: Fail | Spill, now: float) -> None:
        """Decide the end of the waiting Task: it is not handed out any more."""
        self._states.take_out(record, now)
        self._states.gate(record, decision.reason)
        self._states.verdict(record, decision)

    def _turn_away(self, fresh: Iterable[TaskRecord], now: float) -> None:
        """Reject or spill Tasks that passed the API server's check and found their queue full: the newest first."""
        over = [each for each in fresh if each.agent is None and not each.held and self._too_many(each.task)]
        if not over:
            return
        for record in sorted(over, key=lambda each: (each.task.created, each.task.uid), reverse=True):
            task = record.task
            queue = self._catalogue.queue(task.queue_key)
            full = self._too_many(task)
            if full is None:
                continue
            # Its room counts at once for older Tasks, which are judged next.
            self._states.leave(record, now)
            overflow = queue.overflow
            target = overflow.spill_to if overflow is not None and overflow.action is OnOverflow.SPILL else None
            if target is not None and not task.spilled and (task.namespace, target) in self._catalogue.queues:
                message = f"{full} It waits in queue {target} instead."
                self._end(record, Spill(task.uid, target, Reason.QUEUE_FULL, message), now)
            else:
                message = f"{full} Create the Task again once there is room."
                self._end(record, Fail(task.uid, 0, Reason.QUEUE_FULL, message), now)

    def _too_many(self, task: Task) -> str | None:
        return None if task.attempted else self._limits.over_waiting(task) or self._limits.over_payload(task)
