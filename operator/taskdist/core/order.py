"""The order of Tasks: a Task's level, and its place within the level.

Owns the rule, as functions of a queue's settings, a Task and the time. The index stores the results; the simulator's
checker computes them again. Knows nothing of the other Tasks.
"""

from math import inf
from typing import Final

from taskdist.api import OrderPolicy
from taskdist.core.model import EMERGENCY, TOP, Queue, Task

# Named once: compiled code finds a constant at once, the member of a class by asking the class.
BY_PRIORITY: Final = OrderPolicy.PRIORITY
FIFO: Final = OrderPolicy.FIFO


class Place:
    """A Task's place within its level: the longest chain of dependants goes first, then the earliest latest start.

    Then come the time of creation and the uid, so that no two Tasks have the same place. `chain` is 0 where the queue
    does not ask for it.
    """

    __slots__ = ("chain", "created", "latest_start", "uid")

    def __init__(self, chain: int, latest_start: float, created: float, uid: str) -> None:
        self.chain = chain
        self.latest_start = latest_start
        self.created = created
        self.uid = uid

    def compare(self, other: "Place") -> int:
        """Return a number below zero if this place goes before the other, above zero if after it, else zero."""
        if self.chain != other.chain:
            return -1 if self.chain > other.chain else 1
        if self.latest_start != other.latest_start:
            return -1 if self.latest_start < other.latest_start else 1
        if self.created != other.created:
            return -1 if self.created < other.created else 1
        if self.uid != other.uid:
            return -1 if self.uid < other.uid else 1
        return 0

    def __lt__(self, other: "Place") -> bool:
        return self.compare(other) < 0


def is_emergency(queue: Queue, task: Task) -> bool:
    """Whether the Task competes at the level Emergency. Queues with an order of their own ignore its priority."""
    return task.priority >= EMERGENCY and queue.policy is BY_PRIORITY


def base_level(queue: Queue, task: Task, lift: int = 0) -> int:
    """Return the level without aging: the Task's own or that of a Task that waits for it (`lift`), if higher."""
    if queue.policy is not BY_PRIORITY:
        return min(queue.level, TOP)
    return task.priority if task.priority >= EMERGENCY else max(task.priority, min(lift, TOP))


def level(queue: Queue, task: Task, now: float, lift: int = 0) -> int:
    """Return the level at a time: one higher for each step waited since creation, and never into Emergency."""
    return aged(queue, task, now, base_level(queue, task, lift))


def aged(queue: Queue, task: Task, now: float, base: int) -> int:
    """Return the level at a time, given the level without aging."""
    if base >= TOP or now < promotion(queue, task, base, base) or not ages(queue):
        return base
    # Asked of each moment itself, so that a promotion due now has happened now; and step by step, as a step may be so
    # short that no number counts how many have gone by.
    risen = base + 1
    while risen < TOP and now >= promotion(queue, task, risen, base):
        risen += 1
    return risen


def ages(queue: Queue) -> bool:
    return queue.aging_step > 0 and queue.policy is BY_PRIORITY


def promotion(queue: Queue, task: Task, level: int, base: int) -> float:
    """Return when aging lifts a Task of this level to the next one."""
    return task.created + (level - base + 1) * queue.aging_step


def latest_start(queue: Queue, task: Task, service: float) -> float:
    """Return by when it must start to meet its deadline; without one: created + `max_queue_seconds`.

    `service` is how long it is expected to take, in seconds. Fixed when the Task enters the queue. In a Fifo queue the
    time of creation takes its place.
    """
    if queue.policy is FIFO:
        return task.created
    if task.deadline is None:
        return task.created + queue.max_queue_seconds
    return task.deadline - service


def hopeless_from(task: Task, service: float) -> float:
    """Return the time after which the Task's deadline cannot be met any more, infinity without one.

    `service` is what the Task takes at least, in seconds: where it varies, one that started later than its mean allows
    mostly makes it all the same.
    """
    return inf if task.deadline is None else task.deadline - service


def owner(queue: Queue, task: Task) -> tuple[str, str]:
    """Return the queue (namespace/name) and the tenant whose shares are charged for the Task.

    Emergencies have one owner for all queues, queues with an order of their own one for all their tenants.
    """
    if is_emergency(queue, task):
        return ("/", "")
    if queue.policy is not BY_PRIORITY:
        return (full_name(queue), "")
    return (full_name(queue), task.tenant)


def full_name(queue: Queue) -> str:
    """Return the queue's name with its namespace."""
    return f"{queue.namespace}/{queue.name}"
