"""Observations from attempts and arrivals: service times of types, performance of agents, arrival rates.

Owns the rule which average an observation feeds. Refuses to judge: the averages are used elsewhere.
"""

from taskdist.core import order
from taskdist.core.agents.performance import Conduct
from taskdist.core.agents.roster import AgentRecord
from taskdist.core.engine.task_states import TaskStates
from taskdist.core.fleet.probation import Probation
from taskdist.core.model import Task
from taskdist.core.ordering.lines import TaskRecord


class Learning:
    """Feeds the averages of types, agents, pools and arrivals."""

    def __init__(self, states: TaskStates, probation: Probation) -> None:
        self._states = states
        self._probation = probation
        self._catalogue = states.catalogue
        self._estimates = states.estimates
        self._performance = states.performance
        self._arrivals = states.arrivals

    def ended(self, record: TaskRecord, agent: AgentRecord, succeeded: bool, now: float) -> None:
        """Learn from an attempt that ended: of its type, of its agent, and of the agent's class.

        When one that was found began is not known, so neither is how long it took.
        """
        task, shape, charge = record.task, record.shape, record.charge
        since = None if charge is None else charge.since
        seconds = None if charge is None else now - charge.since
        if seconds is not None:
            known, kind = self._states.estimate(shape), agent.kind
            ratio = seconds / known.mean if known is not None and known.mean > 0 else 1.0
            if succeeded and known is not None and kind is not None:
                kind.observed(shape.work, seconds, ratio)
            conduct = agent.conduct
            if conduct is None:
                conduct = agent.conduct = Conduct()
            speed = 1.0 if kind is None or kind.pace <= 0.0 else 1.0 / kind.pace
            conduct.add(succeeded, ratio, task.slots * seconds / (ratio or 1.0), task.slots * seconds * speed)
            if succeeded:
                self._estimates.observe(shape.queue_key, task.type, seconds)
        if agent.pool is not None:
            book = self._performance.book(agent.pool, task.type)
            book.add(seconds, succeeded)
            self._probation.ended(agent, task, book, not succeeded, since, now)

    def came(self, task: Task, seconds: float | None) -> None:
        """Learn from a Task of before this life: it came and, if `seconds` is given, succeeded within so long."""
        queue, at = self._catalogue.queue(task.queue_key), max(task.created, task.not_before)
        expected = self._estimates.expected(queue.key, task.type, queue.expected_service)
        latest_start = order.latest_start(queue, task, expected)
        level, shape, owner = order.base_level(queue, task), self._catalogue.shape_of(task), order.owner(queue, task)
        self._arrivals.add(level, shape, owner, latest_start - at, at)
        if seconds is not None:
            self._estimates.observe(task.queue_key, task.type, seconds)
