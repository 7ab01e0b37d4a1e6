"""At which level a Task competes at which time, worked out from the record alone.

The base is the Task's own priority, or the level of a queue that orders by other things; a child that waits lifts its
parents' base to its own. Waiting lifts a Task by one for each `aging_step` since its creation, up to the top and never
into emergency, but not in a queue with a level of its own. Refuses to know how the core keeps any of this.
"""

from collections.abc import Iterator
from math import inf

from taskdist.api import OrderPolicy, Priority
from taskdist.core.model import TOP, Queue, Task
from taskdist.simulation.record import Record, TaskLife
from taskdist.simulation.spans import Interval

NAMES = tuple(str(priority) for priority in reversed(Priority))
"""By level, lowest first."""


def base(task: Task, queue: Queue) -> int:
    """The level at which the Task competes when it is new."""
    return task.priority if queue.policy is OrderPolicy.PRIORITY else min(TOP, queue.level)


def ages(task: Task, queue: Queue) -> bool:
    """Whether waiting lifts it: not in a queue with a level of its own."""
    return queue.policy is OrderPolicy.PRIORITY and queue.aging_step > 0 and task.priority < TOP


class Levels:
    """The levels of all Tasks of a record."""

    def __init__(self, record: Record) -> None:
        self._queues = record.queues
        self._children: dict[tuple[str, str], list[TaskLife]] = {}
        for life in record.tasks:
            for parent in life.task.parents:
                self._children.setdefault((life.task.namespace, parent.name), []).append(life)

    @property
    def lifts(self) -> bool:
        """Whether any Task depends on another."""
        return bool(self._children)

    def queue(self, task: Task) -> Queue:
        """Return the rules of the queue in which the Task waits."""
        return self._queues.get(task.queue_key) or Queue(*task.queue_key)

    def __call__(self, life: TaskLife, at: float) -> int:
        """The Task's level at a time, as long as it waits."""
        task = life.task
        queue = self.queue(task)
        level = self._lifted(life, at, set()) if self._children else base(task, queue)
        if not ages(task, queue):
            return level
        return min(TOP, level + max(0, int((at - task.created) // queue.aging_step)))

    def _lifted(self, life: TaskLife, at: float, seen: set[str]) -> int:
        """The level without aging: its own, or that of one that waits for it."""
        seen.add(life.task.uid)
        queue = self.queue(life.task)
        level = base(life.task, queue)
        if queue.policy is not OrderPolicy.PRIORITY:
            return level
        for child in self._children.get((life.task.namespace, life.task.name), ()):
            if child.task.uid not in seen and child.job.created <= at < child.waited_until:
                level = max(level, min(TOP, self._lifted(child, at, seen)))
        return level

    def steps(self, life: TaskLife, span: Interval) -> Iterator[tuple[float, float, int]]:
        """Yield begin, end and level of each part of a span of waiting in which age alone does not change the level."""
        begin, end = span
        queue = self.queue(life.task)
        step = queue.aging_step if ages(life.task, queue) else 0.0
        while begin < end:
            level = self(life, begin)
            after = inf
            if step and level < TOP:
                after = life.task.created + (int((begin - life.task.created) // step) + 1) * step
                # Rounding must not make it stand still.
                after = after if after > begin else end
            yield begin, min(end, after), level
            begin = min(end, after)
