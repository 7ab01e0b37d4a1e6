"""An operator process of the world: its elector, perhaps a leadership, and what it sends, writes and reads.

It may freeze: what reaches it waits, and is handled in order when it goes on, before it knows how late it is.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from taskdist.protocol.messages import (
    ToAgent,
    by_value,
)
from taskdist.protocol.observations import (
    Action,
    AnnotatePod,
    CloseSession,
    Conflict,
    Found,
    Gone,
    Notice,
    NotSent,
    Now,
    ReadFailed,
    ReadTask,
    RemovePod,
    ScalePool,
    Send,
    Unknown,
    WriteRefused,
    WriteStatus,
    Written,
)
from taskdist.protocol.operator import Leader

if TYPE_CHECKING:
    from faults.machines import AgentMachine
    from faults.world import World


class Stream:
    """One session: two ordered channels. A cut loses what is under way; either end hears of it in its own time."""

    __slots__ = ("agent_left", "cut", "down_at", "heard", "id", "leader", "op_told", "operator", "pod", "up_at")

    def __init__(self, number: int, pod: str, operator: Operator, leader: Leader) -> None:
        self.id = number
        self.pod = pod
        self.operator = operator
        self.leader = leader
        self.up_at = 0.0
        self.down_at = 0.0
        self.cut = False
        self.agent_left = False
        self.heard = False  # its operator has got a word of the agent after its hello
        self.op_told = False


class Operator:
    """One replica of the operator: an elector, perhaps a leadership, and what it sends."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.number = number
        self.name = f"op{number}"
        self.rate = 1.0 + world.rng.uniform(-0.003, 0.003)
        self.offset = world.rng.uniform(0, 1000)
        self.wall_off = 0.0  # how far its wall clock is ahead
        self.alive = True
        self.frozen = False
        self.inbox: list[tuple[str, tuple[Any, ...]]] = []
        self.leader: Leader | None = None
        self.last_renewal = 0.0
        self.sure_until = 0.0
        self.partitioned_until = 0.0
        self.resigned_until = 0.0
        self.streams: dict[int, tuple[Stream, AgentMachine]] = {}
        self.told_at: dict[str, float] = {}
        self.buried: set[str] = set()  # Tasks that an answer has shown to be gone
        self.tick_at = float("inf")

    def now(self) -> Now:
        t = self.world.t
        return Now(t * self.rate + self.offset, t + self.wall_off)

    # --- election ---

    def campaign(self) -> None:
        if not self.alive:
            return
        if self.frozen:
            self.inbox.append(("campaign", ()))
            return
        self._try_to_lead()
        self.world.after(self.world.timings.renew, self.campaign)

    def _try_to_lead(self) -> None:
        world, t = self.world, self.world.t
        election = world.timings.election
        reachable = t >= self.partitioned_until
        if self.leader is not None and self.leader.over:
            world.after(0.1, self._released, self.leader)  # what it told its agents goes out; then it campaigns anew
            return
        mine = world.lease_holder is self and self.leader is not None
        if mine and reachable and t <= world.lease_renewed + election:
            world.lease_renewed = self.last_renewal = t
            self._sure_until()
            return
        if self.leader is not None:
            if world.lease_holder is not self or t > self.last_renewal + election:
                self._stop_leading()
            elif t >= self.last_renewal + world.timings.give_up:
                self.step("renewal_failing")
            return
        free = world.lease_holder is None or t > world.lease_renewed + election
        if reachable and free and t >= max(self.resigned_until, world.no_election_until):
            world.lease_holder, world.lease_renewed, self.last_renewal = self, t, t
            world.lease_epoch += 1
            world.check.began_leading[world.lease_epoch] = t
            world.say(self.name, f"leads, epoch {world.lease_epoch}")
            self.leader = world.make_leader(
                world.make_core(world.lease_epoch), world.lease_epoch, world.leader_settings
            )
            self._sure_until()
            listed = t - 2.0 if world.plan.stale_lists else t
            for queue in world.queues:
                self.step("queue_applied", queue)
            if world.pool_there:
                self.step("pool_applied", world.pool)
            pods = world.api.list_pods(listed)
            for pod in pods:
                self.step("pod_observed", pod)
            if self.number:  # as one that has looked on; the first one has not
                for uid in sorted(world.api.pods_past.keys() - {pod.uid for pod in pods}):
                    if not world.agents[uid].hidden:
                        self.step("pod_gone", uid)
            self.step("recover", world.api.list_tasks(listed))

    def _sure_until(self) -> None:
        if self.leader is not None:
            self.sure_until = self.now().boot + self.world.timings.sure * self.rate
            self.leader.leading_until(self.sure_until)

    def _stop_leading(self) -> None:
        self.world.say(self.name, "leads no more")
        self.leader = None
        self.tick_at = float("inf")
        for stream, machine in list(self.streams.values()):
            stream.cut = True
            self.world.after(self.world.link_delay(), machine.lost, stream)
        self.streams.clear()

    def step_down(self, closed: float) -> None:
        """A graceful end: say hold, release, and another leads after a while."""
        if self.leader is None or self.frozen or self.world.lease_holder is not self:
            return
        for stream, machine in self.streams.values():
            if not stream.heard:
                self.world.check.welcomed_in_vain(machine)
        self.step("renewal_failing")
        self.world.no_election_until = self.world.t + closed
        self.resigned_until = self.world.t + closed + 2.0
        self.world.after(0.1, self._released, self.leader)

    def _released(self, leader: Leader) -> None:
        if self.leader is leader and not self.frozen:
            if self.world.lease_holder is self:
                self.world.lease_holder = None
            self._stop_leading()

    # --- faults ---

    def freeze(self, lasts: float) -> None:
        if self.alive and not self.frozen:
            self.frozen = True
            self.world.after(lasts, self._thaw)

    def _thaw(self) -> None:
        if not self.frozen:
            return
        self.world.say(self.name, "goes on")
        self.frozen = False
        inbox, self.inbox = self.inbox, []
        campaign = False
        for method, args in inbox:
            if method == "campaign":
                campaign = True
            elif method == "tick":
                self._tick(*args)
            else:
                self.feed(method, *args)
        if campaign:  # its elector goes on in its own time
            self.world.after(self.world.rng.choice((0.0, 0.5, 3.0)), self.campaign)

    def crash(self, down: float) -> None:
        if not self.alive:
            return
        self.alive = self.frozen = False
        self.inbox = []
        self._stop_leading()
        self.world.after(down, self._restart)

    def _restart(self) -> None:
        self.alive = True
        self.world.say(self.name, "starts")
        self.campaign()

    # --- inputs ---

    def feed(self, method: str, *args: Any) -> None:
        if not self.alive:
            return
        if self.frozen:
            self.inbox.append((method, args))
        elif method == "answer":
            leader, done, token, outcome = args
            if self.leader is leader:
                self.step(done, token, outcome)
        elif method in ("received", "disconnected", "connected"):
            stream = args[0]
            if self.leader is stream.leader:
                if method == "received" and not self.leader.over and self.now().boot < self.sure_until:
                    stream.heard = True
                    self.world.check.heard(self.leader.epoch, stream.pod, args[1])
                self.step(method, stream.id, *args[1:])
        else:
            if method == "pod_gone":
                self.world.check.told_of_death(self, args[0])
            self.step(method, *args)

    def step(self, method: str, *args: Any) -> None:
        leader = self.leader
        if leader is None:
            return
        if self.world.lines is not None and method not in ("tick", "queue_applied", "pool_applied"):
            self.world.say(self.name, f"← {method} {short(args)}")
        actions = getattr(leader, method)(*args, self.now())
        for action in actions:
            self.perform(leader, action)
        self._arm(leader)

    def _arm(self, leader: Leader) -> None:
        wake = leader.next_wake()
        if wake is None or leader is not self.leader:
            return
        at = max(self.world.t, (wake - self.offset) / self.rate) + 0.0005
        if at < self.tick_at - 1e-6:
            self.tick_at = at
            self.world.after(at - self.world.t, self._tick, leader, at)

    def _tick(self, leader: Leader, at: float) -> None:
        if leader is not self.leader or at != self.tick_at:
            return
        if self.frozen:
            self.inbox.append(("tick", (leader, at)))
            return
        self.tick_at = float("inf")
        self.step("tick")

    def hear_of(self, kind: str, uid: str, value: Any, delay: float) -> None:
        """A watch event: in order for each object, in any order across them."""
        at = max(self.told_at.get(uid, 0.0), self.world.t + delay)
        self.told_at[uid] = at
        if kind == "task":
            event = ("task_observed", value) if value is not None else ("task_deleted", uid)
        else:
            gone = "pod_gone" if kind == "pod" else "pod_lost"
            event = ("pod_observed", value) if value is not None else (gone, uid)
        self.world.after(at - self.world.t, self._hear, uid, *event)

    def _hear(self, uid: str, *event: Any) -> None:
        if uid not in self.buried:
            self.feed(*event)

    def _bury(self, uid: str) -> None:
        """As the informer does: it is out of the view before the answer is told, and nothing heard late revives it."""
        if uid not in self.buried:
            self.buried.add(uid)
            self.feed("task_deleted", uid)

    # --- actions ---

    def perform(self, leader: Leader, action: Action) -> None:
        world = self.world
        if world.lines is not None:
            world.say(self.name, f"  → {short(action)}")
        match action:
            case Send(session, message):
                entry = self.streams.get(session)
                if entry is not None:
                    self._send(*entry, message)
            case WriteStatus():
                self._write(leader, action)
            case ReadTask(at=at) if at and action.token % 2:
                # What the watch has just brought, whatever has become of the Task since.
                seen = leader.state.tasks[action.uid].record
                assert seen.resource_version == at
                found = Found(seen, b"{}")
                world.after(0.0001, self.feed, "answer", leader, "read_done", action.token, found)
            case ReadTask():
                world.after(world.rng.uniform(0.002, 0.05), self._read, leader, action)
            case CloseSession(session):
                entry = self.streams.pop(session, None)
                if entry is not None:
                    stream, machine = entry
                    world.after(max(stream.down_at, world.t + 0.01) - world.t, machine.lost, stream)
            case AnnotatePod():
                self._annotate(leader, action)
            case RemovePod():
                world.check.pod_deleted(action)
                self._delete(leader, action)
            case ScalePool(replicas=replicas):
                world.scale(replicas)
            case Notice():
                pass

    def _delete(self, leader: Leader, action: RemovePod) -> None:
        """The port tries until it is done or the leadership ends: it marks the pod, then deletes what it marked."""
        machine = self.world.agents.get(action.uid)
        if machine is None or self.leader is not leader:
            return
        if machine.gone:
            self.world.after(0.01, self.feed, "pod_absent", action.uid)
            return
        if self.world.t < self.partitioned_until or self.frozen:
            self.world.after(0.5, self._delete, leader, action)
        else:
            self.world.after(self._lands_in(), self._mark, leader, action)

    def _mark(self, leader: Leader, action: RemovePod) -> None:
        pod = self.world.api.pods.get(action.uid)
        if pod is None and not self.world.agents[action.uid].hidden:
            return
        if pod is not None:
            self.world.api.put_pod(replace(pod, removed_by=action.epoch))
        self.world.after(0.005, self._delete_marked, leader, action)

    def _delete_marked(self, leader: Leader, action: RemovePod) -> None:
        if self.leader is not leader:
            return
        if self.frozen or self.now().boot >= self.sure_until:
            self.world.after(0.5, self._delete_marked, leader, action)
        else:
            self.world.after(self._lands_in(), self._deletion_lands, action)

    def _deletion_lands(self, action: RemovePod) -> None:
        self.world.check.deletion_lands(action)
        self.world.agents[action.uid].delete()

    def _annotate(self, leader: Leader, action: AnnotatePod) -> None:
        if self.leader is not leader:
            return
        if self.world.t < self.partitioned_until or self.frozen:
            self.world.after(0.5, self._annotate, leader, action)
        else:
            self.world.after(self._lands_in(), self.world.api.annotate, action.uid, action.key, action.value)

    def _lands_in(self) -> float:
        """How long a write of a pod is under way: it may land when its sender leads no more."""
        return self.world.rng.uniform(0.2, 6.0) if self.world.t < self.world.slow_writes_until else 0.01

    def _send(self, stream: Stream, machine: AgentMachine, message: ToAgent) -> None:
        world = self.world
        stream.down_at = max(stream.down_at, world.t + world.link_delay())
        world.after(stream.down_at - world.t, machine.receive, stream, message)

    def _write(self, leader: Leader, action: WriteStatus) -> None:
        world, rng = self.world, self.world.rng
        if world.t < self.partitioned_until:
            outcome = NotSent() if rng.random() < 0.5 else Unknown(None)
            world.after(rng.uniform(0.1, 1.0), self.feed, "answer", leader, "write_done", action.token, outcome)
            return
        delay = rng.uniform(0.002, 0.02)
        if world.t < world.slow_writes_until:
            delay = rng.uniform(0.2, 6.0)
        if world.t < world.lost_answers_until and rng.random() < 0.6:
            land = rng.choice((delay, rng.uniform(0.5, 8.0), float("inf")))
            state = {"done": None}
            if land != float("inf"):
                world.after(land, self._land, action, state)
            world.after(1.0, self._look_again, leader, action, state)
            return
        state = {"done": None}
        world.after(delay, self._land, action, state)
        world.after(delay + rng.uniform(0.001, 0.01), self._answer, leader, action, state)

    def _land(self, action: WriteStatus, state: dict[str, Any]) -> None:
        api = self.world.api
        stored = api.tasks.get(action.uid)
        before = api.record(stored) if stored is not None and not stored.deleted else None
        body = None if action.body is None else by_value(action.body)
        done = api.write(action.uid, action.resource_version, action.status, body, action.result_of)
        self.world.say("api", f"{action.uid} write at v{action.resource_version} by {self.name}: {done}")
        self.world.check.tried(action, done)
        if done == "ok" and before is not None:
            self.world.check.landed(action, before)
            state["record"] = api.record(api.tasks[action.uid])
        state["done"] = done

    def _answer(self, leader: Leader, action: WriteStatus, state: dict[str, Any]) -> None:
        task = self.world.api.tasks[action.uid]
        outcome: Any
        match state["done"]:
            case "ok":
                outcome = Written(state["record"], b"{}", self.world.api.results(action.parents))
            case "gone":
                outcome = Gone()
            case "conflict":
                outcome = Gone() if task.deleted else Conflict(self.world.api.record(task))
            case "too large":
                outcome = WriteRefused("too large", too_large=True)
            case rule:
                outcome = WriteRefused(str(rule))
        if isinstance(outcome, Gone):
            self._bury(action.uid)
        self.feed("answer", leader, "write_done", action.token, outcome)

    def _look_again(self, leader: Leader, action: WriteStatus, state: dict[str, Any]) -> None:
        """No answer came: the port reads again, and tells what it finds."""
        if state["done"] is not None:
            self._answer(leader, action, state)
            return
        task = self.world.api.tasks[action.uid]
        outcome = Gone() if task.deleted else Unknown(self.world.api.record(task))
        if task.deleted:
            self._bury(action.uid)
        self.feed("answer", leader, "write_done", action.token, outcome)

    def _read(self, leader: Leader, action: ReadTask) -> None:
        world = self.world
        task = world.api.tasks.get(action.uid)
        outcome: Any
        if world.t < self.partitioned_until:
            outcome = ReadFailed()
        elif task is None or task.deleted:
            outcome = Gone()
            world.after(0.003, self._bury, action.uid)
        else:
            outcome = Found(world.api.record(task), b"{}", world.api.results(action.parents))
        world.after(0.003, self.feed, "answer", leader, "read_done", action.token, outcome)


def short(value: Any) -> str:
    return str(value).replace("LeaseName", "")[:400]
