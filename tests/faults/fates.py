"""Cores whose decisions on waiting Tasks are watched, and one that decides more of them than its rules would.

The protocol must carry out such decisions whatever the reason for them: the reasons of the real rules are few and come
late, so in some histories any Task may meet its fate at any time, even one that is held.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from doubles import CoreDouble
from taskdist.api import Phase, Reason
from taskdist.core.decisions import Assign, Decision, Fail, Spill
from taskdist.core.events import (
    AgentNotReady,
    AgentReady,
    Event,
    QueueDeleted,
    TaskGone,
    TaskHeld,
    TaskLeased,
    TaskWaiting,
)
from taskdist.core.model import Task

if TYPE_CHECKING:
    from faults.world import World

OTHER_QUEUE = "q2"
# Why waiting Tasks end or move; nothing else in a history gives these reasons.
ENDS = {
    Phase.FAILED: Reason.WAITED_TOO_LONG,
    Phase.CANCELLED: Reason.SKIPPED,
    Phase.DEAD_LETTERED: Reason.DEADLINE_HOPELESS,
}
REASONS = frozenset(str(reason) for reason in (*ENDS.values(), Reason.QUEUE_FULL))


class WatchedCore(CoreDouble):
    """One leadership's core. What it decides, it decides on a Task as it stands: the world remembers that."""

    def __init__(self, world: World, epoch: int) -> None:
        super().__init__()
        self._fate_world = world
        self._fate_epoch = epoch
        self._heard: dict[str, Task] = {}
        self._leased: set[str] = set()
        self.ready: set[str] = set()  # agents that take work, as it was told

    def handle(self, event: Event, now: float) -> list[Decision]:
        if isinstance(event, TaskWaiting | TaskHeld | TaskLeased):
            self._heard[event.task.uid] = event.task
            if isinstance(event, TaskLeased):
                self._leased.add(event.task.uid)
            else:
                self._leased.discard(event.task.uid)
        elif isinstance(event, TaskGone):
            self._heard.pop(event.uid, None)
            self._leased.discard(event.uid)
        elif isinstance(event, AgentReady):
            self.ready.add(event.agent.uid)
        elif isinstance(event, AgentNotReady):
            self.ready.discard(event.uid)
        elif isinstance(event, QueueDeleted):  # only the one is ever deleted
            self._fate_world.check.bounds.queue_deleted(self._fate_epoch)
        return super().handle(event, now)

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        decisions = super().decide(now, limit)
        for decision in decisions:
            if isinstance(decision, Fail | Spill):
                uid = decision.task_uid
                self._fate_world.decided[self._fate_epoch, uid] = self._heard[uid]
            elif isinstance(decision, Assign):
                bounds, uid = self._fate_world.check.bounds, decision.task_uid
                bounds.assigned(self._fate_epoch, self._heard[uid], self._heard, self._leased)
                self._leased.add(uid)
        return decisions


class FatefulCore(WatchedCore):
    """It also ends and moves Tasks at times that follow from the seed."""

    def __init__(self, world: World, epoch: int) -> None:
        super().__init__(world, epoch)
        self._pending_fates: dict[str, tuple[float, str, Task]] = {}

    def handle(self, event: Event, now: float) -> list[Decision]:
        match event:
            case TaskWaiting(task) | TaskHeld(task):
                self._await_fate(task, now)
            case TaskLeased(task):
                self._pending_fates.pop(task.uid, None)
            case TaskGone(uid):
                self._pending_fates.pop(uid, None)
        return super().handle(event, now)

    def _await_fate(self, task: Task, now: float) -> None:
        # Its own source of chance: the same events at the same times give the same fates.
        rng = random.Random(f"{self._fate_world.seed}/{task.uid}/{self._fate_epoch}/{now}")
        self._pending_fates.pop(task.uid, None)
        if rng.random() < self._fate_world.plan.fateful and not self._fate_world.calm:
            what = rng.choice(("Failed", "Cancelled", "DeadLettered", "Spill", "Spill"))
            if what != "Spill" or task.queue != OTHER_QUEUE:
                self._pending_fates[task.uid] = (now + rng.choice((0.0, 0.05, 1.0, 4.0)), what, task)

    def decide(self, now: float, limit: int | None = None) -> list[Decision]:
        said: list[Decision] = []
        for uid, (at, what, task) in sorted(self._pending_fates.items()):
            if at > now:
                continue
            del self._pending_fates[uid]
            # Whoever is decided on is not handed out any more, and waits until it is told what became of that.
            super().handle(TaskHeld(task, Reason.QUEUED), now)
            self._fate_world.decided[self._fate_epoch, uid] = task
            if what == "Spill":
                said.append(Spill(uid, OTHER_QUEUE, Reason.QUEUE_FULL, "moved"))
            else:
                said.append(Fail(uid, task.failures, ENDS[Phase(what)], "met its fate", Phase(what)))
        if said:
            return said
        decisions = super().decide(now, limit)
        for decision in decisions:
            self._pending_fates.pop(getattr(decision, "task_uid", ""), None)
        return decisions

    def next_wake(self) -> float | None:
        times = [super().next_wake(), *(at for at, _, _ in self._pending_fates.values())]
        return min((time for time in times if time is not None), default=None)
