"""What must hold in every history, judged from what truly ran and what the API server truly has."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from faults.api_model import TOO_LARGE
from taskdist.api import Delivery, Dispatch, Phase, Reason, Reclaim
from taskdist.protocol.messages import Final, Grant, LeaseName, Verdict
from taskdist.protocol.observations import DeletePod, WriteStatus

if TYPE_CHECKING:
    from faults.machines import AgentMachine, Operator, Work
    from faults.world import World
    from taskdist.protocol.leader import Leader


class Violation(AssertionError):
    """A promise was broken. `kind` names it in a word."""

    def __init__(self, kind: str, message: str) -> None:
        super().__init__(f"{kind}: {message}")
        self.kind = kind


class Checker:
    """Looks on. Nothing here changes the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.works: dict[str, list[Work]] = {}
        self.names: set[LeaseName] = set()
        self.bodies: dict[bytes, LeaseName] = {}
        self.accepted: dict[str, bytes] = {}
        self.wasted = 0
        self._works = 0

    def next_work(self) -> int:
        self._works += 1
        return self._works

    # --- what runs ---

    def started(self, work: Work) -> None:
        lease = work.grant.lease
        uid = lease.task_uid
        if lease in self.names:
            raise Violation("name", f"{lease} was started twice")
        self.names.add(lease)
        former = self.works.setdefault(uid, [])
        if former and self.world.plan.delivery is Delivery.AT_MOST_ONCE:
            raise Violation("at-most-once", f"{uid} was started again as {lease}")
        for other in former:
            self._no_overlap(work, other)
        former.append(work)

    def resumed(self, work: Work) -> None:
        for other in self.works[work.grant.lease.task_uid]:
            if other is not work:
                self._no_overlap(work, other)

    def _no_overlap(self, one: Work, other: Work) -> None:
        if not other.active or other.machine.suspended or self.world.plan.reclaim is Reclaim.FAST:
            return
        if not one.active:
            return
        if any(work.woke and work.dying for work in (one, other)):
            return  # whatever its machine slept through, the first thing it did on waking was to kill it
        if self.world.plan.dispatch is Dispatch.LAZY and one.grant.lease.epoch != other.grant.lease.epoch:
            return
        a, b = (one, other) if one.number > other.number else (other, one)
        if b.machine.suspended:
            return
        raise Violation("overlap", f"{a.grant.lease} runs on {a.machine.pod} while {b.grant.lease} on {b.machine.pod}")

    def granted(self, machine: AgentMachine, grant: Grant) -> None:
        """A grant reached its agent: it must fit there (unless overlap is accepted)."""
        plan = self.world.plan
        if plan.reclaim is Reclaim.FAST or plan.dispatch is Dispatch.LAZY or machine.end is None:
            return
        if grant.lease in machine.end.leases:
            return
        if machine.end.busy_slots + grant.slots > plan.slots:
            raise Violation("capacity", f"{grant.lease} does not fit on {machine.pod}: {machine.end.leases}")

    def produced(self, work: Work, body: bytes) -> None:
        self.bodies[body] = work.grant.lease

    # --- what is written ---

    def wrote(self, operator: Operator, leader: Leader, action: WriteStatus) -> None:
        """A write was asked for. What is wrong already then?"""

    def cancelled(self, uid: str) -> None:
        pass

    def landed(self, action: WriteStatus) -> None:
        phase = action.status.get("phase")
        uid = action.uid
        if phase == "Succeeded":
            body = action.body or b""
            lease = self.bodies.get(body)
            if lease is None or lease.task_uid != uid:
                raise Violation("result", f"{uid}: nobody produced {body!r}")
            if lease.attempt != action.status["attempt"]:
                raise Violation("result", f"{uid}: the result of {lease} was written as {action.status['attempt']}")
            newer = [n for n in self.names if n.task_uid == uid and n[1:] > lease[1:]]
            if newer and self.world.plan.dispatch is Dispatch.STRICT:
                raise Violation("stale", f"{uid}: the result of {lease} was accepted though {newer} was granted")
            if uid in self.accepted:
                raise Violation("result", f"{uid}: a second result was accepted")
            self.accepted[uid] = body
        elif phase == "Cancelled":
            for work in self.works.get(uid, ()):
                if work.active and not work.machine.suspended and self.world.plan.reclaim is not Reclaim.FAST:
                    if work.grant.lease.epoch == action.status["epoch"]:
                        raise Violation("cancel", f"{uid} is Cancelled while {work.grant.lease} runs")

    def final(self, machine: AgentMachine, final: Final) -> None:
        uid = final.lease.task_uid
        task = self.world.api.tasks[uid]
        if machine.end is None or final.lease not in machine.end.leases:
            return
        if final.verdict is Verdict.GONE and not task.deleted:
            raise Violation("gone", f"{machine.pod} heard that {uid} is gone, and it is not")
        if final.verdict is Verdict.ACCEPTED and final.lease in self.bodies.values():
            body = next(b for b, name in self.bodies.items() if name == final.lease)
            there = self.accepted.get(uid) == body or (
                body.endswith(TOO_LARGE)
                and task.status.get("reason") in (Reason.RESULT_TOO_LARGE.value, Reason.CANCELLED.value)
            )
            if not there and not task.deleted:
                raise Violation("accepted", f"{machine.pod} heard that {final.lease} is accepted, and it is not")

    def pod_deleted(self, action: DeletePod) -> None:
        machine = self.world.agents.get(action.uid)
        if machine is None or action.reason is Reason.AGENT_LOST:
            return
        for work in machine.works.values():
            task = self.world.api.tasks[work.grant.lease.task_uid]
            if work.active and not task.deleted and task.status.get("agentUid") == machine.pod:
                if task.status.get("phase") == "Assigned" and task.status.get("attempt") == work.grant.lease.attempt:
                    raise Violation("victim", f"{machine.pod} is deleted while it runs {work.grant.lease}")

    # --- the end ---

    def all_over(self) -> bool:
        world = self.world
        if not world.api.settled() or len(world.api.tasks) < world.plan.tasks:
            return False
        return all(machine.end is None or not machine.end.leases for machine in world.agents.values())

    def not_over(self) -> None:
        world = self.world
        open_ = [t.uid for t in world.api.tasks.values() if not t.deleted and not world.api.phase(t.uid).terminal]
        held = {m.pod: m.end.leases for m in world.agents.values() if m.end is not None and m.end.leases}
        raise Violation("liveness", f"still open: {open_}, still held: {held}")

    def at_the_end(self) -> None:
        world = self.world
        for task in world.api.tasks.values():
            if not task.deleted and world.api.phase(task.uid) is Phase.SUCCEEDED and task.body is None:
                raise Violation("result", f"{task.uid} succeeded without a result")
            self._budget(task)
        for operator in world.operators:
            self.sound(operator.leader)

    def sound(self, leader: Leader | None) -> None:
        if leader is None or leader.over:
            return
        if leader.stats().conservation_error:
            raise Violation("conservation", f"{leader.stats()}")
        broken = leader.core.audit()
        if broken:
            raise Violation("audit", "; ".join(broken))

    def _budget(self, task: Any) -> None:
        """At most two writes by the operator where nothing went wrong, and one where it may be lazy and quick."""
        plan = self.world.plan
        if plan.faultless and plan.failing is False and not task.payload_bytes > 1000:
            if self.world.api.writes.get(task.uid, 0) > 2:
                raise Violation("budget", f"{task.uid} took {self.world.api.writes[task.uid]} writes")
