"""What must hold in every history, judged from what truly ran and what the API server truly has."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, cast

from faults.api_model import TOO_LARGE
from faults.bounds import Bounds
from faults.chunks import Chunks
from faults.fates import REASONS, WatchedCore
from faults.violation import Violation
from taskdist.api import Delivery, Dispatch, Phase, Reason, Reclaim
from taskdist.protocol.attempt_limits import TIMED_OUT, next_due
from taskdist.protocol.messages import Cancel, Final, FromAgent, Grant, LeaseName, Result, Verdict, array_uid, by_value
from taskdist.protocol.observations import ObservedTask, RemovePod, WriteStatus

if TYPE_CHECKING:
    from faults.machines import AgentMachine, Work
    from faults.operators import Operator
    from faults.world import World
    from taskdist.protocol.operator import Leader


class Checker:
    """Looks on. Nothing here changes the world."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.bounds = Bounds(world)
        self.arrays = Chunks(world)
        self.works: dict[str, list[Work]] = {}
        self.names: set[LeaseName] = set()
        self.bodies: dict[bytes, LeaseName] = {}
        self.accepted: dict[str, bytes] = {}
        self.recorded: set[tuple[str, int, int, str]] = set()
        self.slowest = 0.0  # the longest that any work was meant to last
        self.in_hand: dict[str, LeaseName] = {}
        self.answered: set[str] = set()  # Tasks whose owners have answered a dead letter
        self.died: set[str] = set()  # pods whose process ended
        self.began_leading: dict[int, float] = {}  # by epoch
        self.met: set[tuple[int, str]] = set()  # by epoch: pods whose agents have spoken to that leader
        # By pod: what it ran when its leader stepped down between its Welcome and the agent's first word; and of all
        # that, what ran out before a leader heard the agent.
        self.in_vain: dict[str, set[LeaseName]] = {}
        self.excused: set[LeaseName] = set()
        self.redriven: dict[str, int] = {}  # how often each Task had run when it was last redriven
        # By Task: the last attempt that was counted in its cost, what that was before, and since when it was assigned.
        self.paid: dict[str, tuple[int, float, float]] = {}
        self.reasons: dict[str, int] = {}  # how often each Task was written why it waits
        self._works = 0

    def next_work(self) -> int:
        self._works += 1
        return self._works

    # --- what runs ---

    def started(self, work: Work) -> None:
        lease = work.grant.lease
        uid = lease.task_uid
        self.slowest = max(self.slowest, work.until - self.world.t)
        if lease.epoch < work.machine.seen:
            raise Violation("past", f"{work.machine.pod} starts {lease} and was welcomed by {work.machine.seen}")
        recorded = (*lease, work.machine.pod) in self.recorded
        if self.world.plan.dispatch is Dispatch.STRICT and not recorded:
            raise Violation("unrecorded", f"{lease} starts on {work.machine.pod}, and status never showed that")
        if lease in self.names:
            raise Violation("name", f"{lease} was started twice")
        self.names.add(lease)
        former = self.works.setdefault(uid, [])
        once = not uid.count(".")  # of a part each item by itself
        if once and former[self.redriven.get(uid, 0) :] and self.world.plan.delivery is Delivery.AT_MOST_ONCE:
            raise Violation("at-most-once", f"{uid} was started again as {lease}")
        for other in former:
            self.no_overlap(work, other)
        former.append(work)
        self.bounds.started(work)
        self.arrays.started(work)

    def heard_from_the_past(self, machine: AgentMachine) -> None:
        """A leader older than one that the agent has seen just welcomed it."""
        if machine.end is not None and machine.end.ready:
            raise Violation("past", f"{machine.pod} goes along with a leader older than {machine.seen}")

    def resumed(self, work: Work) -> None:
        for other in self.works[work.grant.lease.task_uid]:
            if other is not work:
                self.no_overlap(work, other)
        self.bounds.resumed(work)
        self.arrays.resumed(work)

    def no_overlap(self, one: Work, other: Work) -> None:
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
        self.bounds.granted(machine, grant)
        if plan.reclaim is Reclaim.FAST or plan.dispatch is Dispatch.LAZY or machine.end is None:
            return
        if grant.lease in machine.end.leases:
            return
        if machine.end.busy_slots + grant.slots > plan.slots:
            raise Violation("capacity", f"{grant.lease} does not fit on {machine.pod}: {machine.end.leases}")

    # --- limits ---

    def began(self, work: Work) -> None:
        """Its time counts from here: by the agent's word it ends soon after its limit, by the operator's some later."""
        plan = self.world.plan
        due = next_due(plan.execution or 0.0, 0.0 if work.talks else plan.progress or 0.0, 0.0, 0.0)
        if due is not None and plan.fenced:
            within = due.at * 1.01 + due.grace
            self.world.after(within + 0.5, self._still_runs, work, "overlong")
            self.world.after(within + 45.0, self._still_runs, work, "unwatched")

    @property
    def _agents_keep_limits(self) -> bool:
        """Not in a test that is about the operator's own watch."""
        return self.world.agents_know_limits

    def _still_runs(self, work: Work, kind: str) -> None:
        if kind == "overlong" and not self._agents_keep_limits:
            return
        if work.active and not work.machine.suspended and not work.woke:
            raise Violation(kind, f"{work.grant.lease} runs on {work.machine.pod} since {work.began:.3f}")

    def _overdue(self, lease: LeaseName) -> None:
        plan = self.world.plan
        for work in self.works[lease.task_uid] if self._agents_keep_limits else ():
            if work.grant.lease != lease or not work.began or work.woke or work.excused or not plan.execution:
                continue
            ran = work.ended - work.began
            if ran > plan.execution * 1.01 + 0.02:
                raise Violation("overdue", f"{lease} ran for {ran:.3f} s, {plan.execution} s are allowed")

    def produced(self, work: Work, body: bytes) -> None:
        self.bodies[body] = work.grant.lease

    # --- what is written ---

    def heard(self, epoch: int, pod: str, message: FromAgent) -> None:
        """The operator got a message: a result in hand beats a cancel from now on."""
        self.met.add((epoch, pod))
        self.in_vain.pop(pod, None)
        if not isinstance(message, Result):
            return
        uid = message.lease.task_uid
        self.arrays.heard.add(message.lease)
        if uid == array_uid(uid) and self.world.api.phase(uid) is not Phase.DEAD_LETTERED:
            self.in_hand[uid] = message.lease

    def tried(self, action: WriteStatus, done: str) -> None:
        """A leader knows its own writes at once: where only the watch is slow, none of its writes is out of date."""
        calm = all(kind == "slow_watch" for _, kind, _ in self.world.plan.faults)
        if done == "conflict" and calm and action.uid not in self.answered:
            raise Violation(
                "conflict", f"{action.uid} was written at v{action.resource_version}, which was out of date"
            )

    def cancel(self, machine: AgentMachine, message: Cancel) -> None:
        if message.message == "no such Task" and not self.world.api.tasks[array_uid(message.lease.task_uid)].deleted:
            raise Violation("gone", f"{machine.pod} heard that there is no {message.lease.task_uid}, and there is")

    def landed(self, action: WriteStatus, before: ObservedTask) -> None:
        phase = action.status.get("phase")
        uid = action.uid
        if before.array is not None:
            self.arrays.landed(action, before, self.world.api.record(self.world.api.tasks[uid]))
            return
        if action.status.get("reason") in REASONS and phase is not None:
            self._decided(action, before)
        if phase in ("Failed", "Cancelled", "DeadLettered"):
            self._ended(action)
        self.bounds.landed(action)
        if phase is None and "reason" in action.status:
            self.reasons[uid] = self.reasons.get(uid, 0) + 1
            if self.world.t < before.task.created + 30.0 * self.reasons[uid]:
                raise Violation("budget", f"{uid} is told too soon, and {self.reasons[uid]} times, why it waits")
        self._cost(action, before)
        deaths = action.status.get("lostAgents") or ()
        if not self.died.issuperset(deaths):
            raise Violation("death", f"{uid}: of {deaths} only {self.died} died")
        told = not self.world.plan.has("queue_deleted")  # else default rules count them meanwhile
        if told and len(deaths) >= self.world.plan.agent_deaths and phase in ("Pending", "Assigned"):
            raise Violation("death", f"{uid} goes on though {deaths} died of it")
        if phase == "DeadLettered":
            self.in_hand.pop(uid, None)  # from now on it comes too late
            if action.status.get("redrives", before.redrives) != max(before.redrive, before.redrives):
                raise Violation("redrive", f"{uid}: what was asked before it was a dead letter counts")
        elif before.phase is Phase.DEAD_LETTERED and phase == "Pending":
            self.redriven[uid] = len(self.works.get(uid, ()))
            status = self.world.api.tasks[uid].status
            if status.get("failures") or status.get("lostAgents") or status["redrives"] != before.redrive:
                raise Violation("redrive", f"{uid} was redriven as {status}")
        if phase == "Assigned":
            status = action.status
            self.recorded.add((uid, status["attempt"], status["epoch"], status["agentUid"]))
        elif phase == "Succeeded" and action.result_of is None:
            body = by_value(action.body or b"")
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
            self._overdue(lease)
            self.accepted[uid] = body
        elif phase == "Cancelled":
            name = self.in_hand.get(uid)
            ended = (action.status["attempt"], action.status["epoch"])
            if name is not None and name[1:] == ended and not self._refused(name):
                raise Violation("beaten", f"{uid} is Cancelled though the result of {name} was in hand")

    def _cost(self, action: WriteStatus, before: ObservedTask) -> None:
        """Each attempt is paid for once, with the write that tells of its end, and no longer than it was assigned."""
        uid, status = action.uid, action.status
        if self.world.plan.has("pool_edited", "pool_deleted"):  # what a slot costs changes, or is not known
            return
        if before.phase is Phase.ASSIGNED and status.get("phase", "Assigned") != "Assigned" and "cost" not in status:
            raise Violation("cost", f"{uid}: the attempt that ended is not paid for: {status}")
        if "cost" not in status or self.world.plan.has("operator_clock"):
            return
        former, rounding = before.spent.cost or 0.0, 1e-5 * (1.0 + status["cost"])
        attempt, paid, since = self.paid.get(uid, (0, 0.0, 0.0))
        if attempt != status["attempt"]:
            paid, since = former, before.assigned_at if before.phase is Phase.ASSIGNED else before.task.created
            self.paid[uid] = status["attempt"], paid, since
        most = before.task.slots * (self.world.t - since)
        if status["cost"] < former - rounding or status["cost"] - paid > most + rounding:
            raise Violation("cost", f"{uid}: {status['cost']} after {paid}, though only {most} was held")

    def _ended(self, action: WriteStatus) -> None:
        """A Task ends without a result only once nothing of it runs that this leadership knows of."""
        phase, reason, epoch = action.status["phase"], action.status["reason"], action.status["epoch"]
        for work in self.works.get(action.uid, ()):
            known = work.grant.lease.epoch == epoch or (reason in REASONS and not self._without_trace(work, epoch))
            runs = work.active and not work.machine.suspended and not work.woke
            if known and runs and self.world.plan.reclaim is not Reclaim.FAST:
                raise Violation("cancel", f"{action.uid} is {phase} ({reason}) while {work.grant.lease} runs")

    def _without_trace(self, work: Work, epoch: int) -> bool:
        """Whether nothing told this leadership that it runs: no status (Lazy), no pod in a list, no word of its agent.

        A new leader waits for the agents of all pods that it sees before it decides on what may run unrecorded. A pod
        that was out of sight before cannot be waited for: to hand its Task out again is waived, and so is to end it.
        """
        lease, machine = work.grant.lease, work.machine
        unseen = machine.hidden_at < self.began_leading[epoch] and (epoch, machine.pod) not in self.met
        recorded = (*lease, machine.pod) in self.recorded
        return self.world.plan.dispatch is Dispatch.LAZY and lease.epoch < epoch and unseen and not recorded

    def _decided(self, action: WriteStatus, before: ObservedTask) -> None:
        """What is decided of a waiting Task is written only of the Task that it was decided of."""
        decided = self.world.decided.get((action.status["epoch"], action.uid))
        if decided is not None:  # its parents as they were known, whatever of them status told
            decided = replace(decided, parents=before.task.parents)
        if decided != before.task or before.phase is not Phase.PENDING:
            raise Violation("undecided", f"{action.uid}: {decided} was decided on, {before} was written")

    def told_of_death(self, operator: Operator, pod: str) -> None:
        """Where nothing else goes wrong, a confirmed death gives the Task back at once."""
        if all(kind == "pod_death" for _, kind, _ in self.world.plan.faults):
            self.world.after(1.0, self._given_back, operator, operator.leader, pod)

    def _given_back(self, operator: Operator, leader: Leader | None, pod: str) -> None:
        for task in self.world.api.tasks.values():
            status = task.status
            for each in (status, *status.get("array", {}).get("parts", {}).values()):
                if each.get("phase") == "Assigned" and each.get("agentUid") == pod and operator.leader is leader:
                    raise Violation("slow", f"{task.uid} is still on {pod}, whose death is confirmed")

    def _refused(self, name: LeaseName) -> bool:
        return any(lease == name and body.endswith(TOO_LARGE) for body, lease in self.bodies.items())

    def final(self, machine: AgentMachine, final: Final) -> None:
        uid = final.lease.task_uid
        task = self.world.api.tasks[array_uid(uid)]
        if machine.end is None or final.lease not in machine.end.leases:
            return
        if final.verdict is Verdict.GONE and not task.deleted:
            raise Violation("gone", f"{machine.pod} heard that {uid} is gone, and it is not")
        if final.verdict is Verdict.ACCEPTED and not self.arrays.is_accepted(final.lease):
            raise Violation("accepted", f"{machine.pod} heard that {final.lease} is accepted, and it is not")
        if final.verdict is Verdict.ACCEPTED and final.lease in self.bodies.values():
            body = next(b for b, name in self.bodies.items() if name == final.lease)
            failed = {
                each["reason"] for each in task.status.get("attempts", ()) if each["attempt"] == final.lease.attempt
            }
            too_large = body.endswith(TOO_LARGE) and Reason.RESULT_TOO_LARGE in failed
            # What it returned after a limit it said to have failed.
            there = self.accepted.get(uid) == body or too_large or not TIMED_OUT.isdisjoint(failed)
            if not there and not task.deleted:
                raise Violation("accepted", f"{machine.pod} heard that {final.lease} is accepted, and it is not")

    def pod_deleted(self, action: RemovePod) -> None:
        machine = self.world.agents.get(action.uid)
        if machine is None or action.reason is Reason.AGENT_LOST:
            return
        for work in machine.works.values():
            task = self.world.api.tasks[array_uid(work.grant.lease.task_uid)]
            want = ("Assigned", machine.pod, work.grant.lease.attempt)
            status = self.arrays.status_of(work.grant.lease.task_uid)
            there = tuple(status.get(key) for key in ("phase", "agentUid", "attempt"))
            if work.active and not task.deleted and there == want:
                raise Violation("victim", f"{machine.pod} is deleted while it runs {work.grant.lease}")

    def deletion_lands(self, action: RemovePod) -> None:
        """However late: no later leader has given work to the pod, which it saw marked."""
        machine = self.world.agents[action.uid]
        for work in machine.works.values():
            if work.active and work.grant.lease.epoch > action.epoch:
                raise Violation("victim", f"{machine.pod} is deleted by epoch {action.epoch} under {work.grant.lease}")

    # --- the end ---

    def all_over(self) -> bool:
        world = self.world
        if not world.api.settled() or len(world.api.tasks) < world.plan.tasks:
            return False
        if not all(machine.end is None or not machine.end.leases for machine in world.agents.values()):
            return False
        return not world.plan.usable or not self._unusable()

    def _unusable(self) -> list[str]:
        """Agents that live, that nobody drains, and that would get no work."""
        world = self.world
        leader = next((o.leader for o in world.operators if o.leader is not None and not o.leader.over), None)
        if leader is None:
            return ["all of them: nobody leads"]
        core, away = cast(WatchedCore, leader.core), set()
        for machine in world.agents.values():
            pod = world.api.pods.get(machine.pod)
            if machine.gone or machine.stopping or pod is None or machine.pod in leader.state.draining:
                continue
            if machine.end is None or not machine.end.ready or machine.pod not in core.ready:
                away.add(machine.pod)
        return sorted(away)

    def not_over(self) -> None:
        world = self.world
        open_ = [t.uid for t in world.api.tasks.values() if not t.deleted and not world.api.over(t)]
        if not open_ and (away := self._unusable()):
            raise Violation("unusable", f"agents that get no work: {away}")
        held = {m.pod: m.end.leases for m in world.agents.values() if m.end is not None and m.end.leases}
        raise Violation("liveness", f"still open: {open_}, still held: {held}")

    def at_the_end(self) -> None:
        world = self.world
        for task in world.api.tasks.values():
            copied = task.status.get("duplicateOf")
            bare = task.body is None and not task.array and not copied
            if not task.deleted and world.api.phase(task.uid) is Phase.SUCCEEDED and bare:
                raise Violation("result", f"{task.uid} succeeded without a result")
            self._budget(task)
            self._waste(task)
        self.bounds.at_the_end()
        for operator in world.operators:
            self.sound(operator.leader)

    def sound(self, leader: Leader | None) -> None:
        if leader is None or leader.over:
            return
        if leader.stats().conservation_error:
            raise Violation("conservation", f"{leader.stats()}")
        broken = leader.core.audit()
        leader.core.inspect(1000)
        broken += leader.core.inspect(1000) or []
        if broken:
            raise Violation("audit", "; ".join(broken))

    def welcomed_in_vain(self, machine: AgentMachine) -> None:
        """The leader steps down between its Welcome and the agent's first word.

        No safe mend exists: to say Hold to an unconfirmed session could extend a lease that was given away; to keep the
        former hold past the Welcome could as well.
        """
        self.in_vain[machine.pod] = {lease for lease, work in machine.works.items() if work.active}

    def gave_up(self, machine: AgentMachine, lease: LeaseName, reason: Reason) -> None:
        """The agent asks its work to stop."""
        if reason is Reason.LEASE_EXPIRED and lease in self.in_vain.get(machine.pod, ()):
            self.excused.add(lease)

    def _waste(self, task: Any) -> None:
        """A short cut or an orderly change of leader costs no attempt that had begun, but for one welcomed in vain."""
        if not self.world.plan.gentle or self.world.plan.reclaim is Reclaim.FAST:
            return
        begun = {name.attempt for name in self.names - self.excused if name.task_uid == task.uid}
        for one in task.status.get("attempts", ()):
            if one["reason"] in (Reason.LEASE_EXPIRED, Reason.AGENT_LOST) and one["attempt"] in begun:
                raise Violation("waste", f"{task.uid}: {one}")

    def _budget(self, task: Any) -> None:
        """At most two writes by the operator where nothing went wrong, and one where it may be lazy and quick."""
        plan = self.world.plan
        quick = plan.dispatch is Dispatch.LAZY and self.slowest < 0.9 and not plan.shared
        smooth = not any(task.status.get(key) for key in ("failures", "redrives", "spilledTo", "dependencies"))
        if plan.faultless and smooth and task.payload_bytes < 1000 and not task.array:
            writes = self.world.api.writes.get(task.uid, 0) - self.reasons.get(task.uid, 0)
            most = 1 if quick else 2
            if writes > most:
                raise Violation("budget", f"{task.uid} took {writes} writes, {most} at most")
