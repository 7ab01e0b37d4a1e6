"""Whether what the Tasks of a history share was kept: judged from what truly runs and what the API server truly has.

A part of the checker of its own. Where a queue accepts that a Task runs twice (Fast), that may also run beyond a bound;
a Lazy queue accepts it across a change of leader.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from faults.shared import DEVICE, HELD, SPENT
from faults.violation import Violation
from taskdist.api import Dispatch, OnDependencyFailure, Phase, Reclaim
from taskdist.core.model import Task, TokenRate
from taskdist.protocol.messages import array_uid
from taskdist.protocol.observations import WriteStatus

if TYPE_CHECKING:
    from faults.machines import AgentMachine, Work
    from faults.world import World
    from taskdist.protocol.messages import Grant


class Bounds:
    """Looks on at each start."""

    def __init__(self, world: World) -> None:
        self.world = world
        self._queues: Counter[int] = Counter()  # by epoch: how often its core was told that the queue is gone
        # By epoch and uid: when a core assigned it last, and in which of these queues.
        self._decided: dict[tuple[int, str], tuple[float, int]] = {}
        # By epoch and queue: assignments that stand, by their decision.
        self._granted: dict[tuple[int, int], list[tuple[float, Task]]] = {}

    # --- at once ---

    def started(self, work: Work) -> None:
        self._on_agent(work)
        if self.world.plan.shared and self.world.plan.reclaim is not Reclaim.FAST:
            self._at_once(work)
            self._parents(work)

    def _on_agent(self, work: Work) -> None:
        """Slots and named resources of an agent: both ends keep them, whatever its queue accepts."""
        machine, plan = work.machine, self.world.plan
        slots = sum(each.grant.slots for each in machine.works.values())
        if slots > plan.slots:
            raise Violation("slots", f"{machine.pod} runs {slots} slots of {plan.slots} with {work.grant.lease}")
        used: Counter[str] = Counter()
        for each in machine.works.values():
            used.update(dict(each.grant.resources))
        if used[DEVICE] > plan.devices:
            raise Violation("resources", f"{machine.pod} uses {used[DEVICE]} of {plan.devices} with {work.grant.lease}")

    def resumed(self, work: Work) -> None:
        """Its machine woke, and it was not killed with the machine's first breath."""
        if not work.dying and self.world.plan.shared and self.world.plan.reclaim is not Reclaim.FAST:
            self._at_once(work)

    def _at_once(self, work: Work) -> None:
        """Keys, quotas and budgets of the queue: what truly runs now, this one included."""
        shared, task = self.world.plan.shared, self._task(work)
        assert shared is not None
        running = [(each, self._task(each)) for each in self._running(work)]
        lazy = self.world.plan.dispatch is Dispatch.LAZY
        own = [t for w, t in running if not lazy or w.grant.lease.epoch == work.grant.lease.epoch]
        if task.concurrency_key is not None:
            same = {t.uid for _, t in running if t.concurrency_key == task.concurrency_key}
            if len(same) > shared.concurrency:
                raise Violation("key", f"{same} of one key run at once, {shared.concurrency} may")
        if task.ordering_key is not None:
            same = {t.uid for _, t in running if t.ordering_key == task.ordering_key}
            if len(same) > 1:
                raise Violation("order", f"{same} of one ordering key run at once")
        for limits, some in (
            (shared.quota, own),
            (shared.tenant_quota, [t for t in own if t.tenant == task.tenant]),
        ):
            if limits.leased is not None and len(some) > limits.leased:
                raise Violation("quota", f"{[t.uid for t in some]} run at once, {limits.leased} may")
            if limits.slots is not None and sum(t.slots for t in some) > limits.slots:
                raise Violation("quota", f"{[t.uid for t in some]} take more than {limits.slots} slots")
        held = sum(amount for _, t in running for _, name, amount in t.budgets if name == HELD)
        if task.budgets and held > shared.held:
            raise Violation("held", f"{[t.uid for _, t in running]} hold {held}, {shared.held} may be held")
        twin = self.world.api.tasks[task.uid].twin
        if twin:
            uids = {t.uid for _, t in running}
            same = {u for u in uids if self.world.api.tasks[u].twin == twin and not self.world.api.tasks[u].deleted}
            if len(same) > 1:
                raise Violation("twins", f"{same} of one idempotency key run at once")

    def _running(self, work: Work) -> list[Work]:
        """All that runs now and is not killed with its machine's first breath.

        A Task that was deleted while nobody led is in no list: the next leader hears of it from its agent.
        """
        machines = self.world.agents.values()
        return [
            each
            for machine in machines
            for each in machine.works.values()
            if each is work or (each.active and not machine.suspended and not (each.woke and each.dying))
            if not self._unknown_to(work.grant.lease.epoch, each)
        ]

    def _unknown_to(self, epoch: int, work: Work) -> bool:
        lease = work.grant.lease
        return lease.epoch < epoch and self.world.api.tasks[array_uid(lease.task_uid)].deleted

    def _task(self, work: Work) -> Task:
        return self.world.api.last_record(array_uid(work.grant.lease.task_uid)).task

    # --- parents ---

    def _parents(self, work: Work) -> None:
        """A dependent starts once its parents have ended as it wants them to."""
        api, task = self.world.api, self._task(work)
        for parent in task.parents:
            stored = next((each for each in api.tasks.values() if each.name == parent.name), None)
            phase = None if stored is None else api.phase(stored.uid)
            fine = phase is Phase.SUCCEEDED
            if task.on_parent_failure is OnDependencyFailure.RUN:
                fine = phase is not None and (phase.terminal or (stored is not None and stored.deleted))
            if not fine:
                raise Violation("parents", f"{task.uid} starts though {parent.name} is {phase}")

    def granted(self, machine: AgentMachine, grant: Grant) -> None:
        """What travels with a grant of its parents is what they returned."""
        for told in grant.parents:
            stored = next(each for each in self.world.api.tasks.values() if each.name == told.name)
            if told.phase == Phase.SUCCEEDED.value and told.result != (stored.body or b""):
                raise Violation("parents", f"{grant.lease} was told of {told.name}: {told.result!r}")

    # --- one after the other ---

    def assigned(self, epoch: int, task: Task, known: dict[str, Task], leased: set[str]) -> None:
        """A core assigns the Task; `known` are all that it was told of, `leased` those that it has for leased."""
        shared = self.world.plan.shared
        if shared and task.ordering_key is not None:
            self._in_turn(epoch, task, known, leased)
        self._decided[epoch, task.uid] = self.world.t, self._queues[epoch]

    def _in_turn(self, epoch: int, task: Task, known: dict[str, Task], leased: set[str]) -> None:
        begun = self._begun(task.uid) or (epoch, task.uid) in self._decided  # then it keeps its turn
        for other in known.values():
            if other.uid == task.uid or other.ordering_key != task.ordering_key:
                continue
            if other.uid in leased:
                raise Violation("order", f"{task.uid} is assigned while {other.uid} is")
            if not begun and (self._begun(other.uid) or (other.created, other.uid) < (task.created, task.uid)):
                raise Violation("order", f"{task.uid} is assigned before {other.uid}")

    def _begun(self, uid: str) -> bool:
        return bool(self.world.check.works.get(uid))

    # --- over time ---

    def queue_deleted(self, epoch: int) -> None:
        """A core is told that the queue is gone: one that is made again is a new one, with full buckets."""
        self._queues[epoch] += 1

    def landed(self, action: WriteStatus) -> None:
        """An assignment stands: within its leadership and queue, starts and amounts stay within what time brings."""
        shared = self.world.plan.shared
        if (
            not shared
            or self.world.plan.has("operator_clock")
            or action.status.get("phase") != "Assigned"
            or not (shared.rate or shared.spent)
        ):
            return
        epoch, task = action.status["epoch"], self.world.api.last_record(action.uid).task
        at, queue = self._decided[epoch, action.uid]
        granted = self._granted.setdefault((epoch, queue), [])
        if any(each == at and other.uid == task.uid for each, other in granted):
            return  # the same assignment, written again as its answer was lost
        granted.append((at, task))
        granted.sort(key=lambda each: each[0])
        self._rate("rate", shared.rate, [(at, 1) for at, _ in granted])
        mine = [(at, 1) for at, t in granted if t.tenant == task.tenant]
        self._rate("rate", shared.tenant_rate, mine)
        spent = [(at, amount) for at, t in granted for _, name, amount in t.budgets if name == SPENT]
        self._rate("spent", shared.spent, spent)

    def _rate(self, kind: str, rate: TokenRate | None, taken: list[tuple[float, int]]) -> None:
        if rate is None:
            return
        for n, (since, _) in enumerate(taken):
            total = 0
            for at, amount in taken[n:]:
                total += amount
                most = rate.burst + rate.per_second * (at - since)
                if total > most + 1e-6:
                    raise Violation(kind, f"{total} were taken from {since:.3f} to {at:.3f}, {most:.3f} may be")

    # --- the end ---

    def at_the_end(self) -> None:
        """Duplicates ended as a Task of their key did."""
        api = self.world.api
        for task in api.tasks.values():
            first = task.status.get("duplicateOf")
            if task.deleted or not first:
                continue
            original = next(each for each in api.tasks.values() if each.name == first)
            if original.twin != task.twin:
                raise Violation("twins", f"{task.uid} ended as {original.uid} did, of another key")
            if api.phase(task.uid) is not api.phase(original.uid):
                raise Violation("twins", f"{task.uid} is {task.status['phase']}, unlike {original.uid}")
            if self.world.check.works.get(task.uid):
                raise Violation("twins", f"{task.uid} ended as a duplicate, and it ran")
            if task.body is not None and task.body != original.body:
                raise Violation("twins", f"{task.uid} has another result than {original.uid}")
