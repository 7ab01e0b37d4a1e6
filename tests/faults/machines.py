"""An agent's machine in the world: a pod, a clock, an agent process, and what truly runs under it.

A machine may be suspended with all that runs on it; its boot clock counts that time.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from faults import chunks
from faults.api_model import TOO_LARGE
from faults.operators import Stream, short
from faults.shared import DEVICE
from taskdist.api import Reason
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.agent.work import AgentAction, CancelWork, Disconnect, Exit, KillWork, SendUp, StartWork
from taskdist.protocol.attempt_limits import TIMED_OUT
from taskdist.protocol.messages import (
    AgentIdentity,
    Cancel,
    Final,
    FromAgent,
    Grant,
    Hello,
    LeaseName,
    ToAgent,
    Welcome,
)
from taskdist.protocol.settings import Capabilities

if TYPE_CHECKING:
    from faults.world import World


class Work:
    """What truly runs: one process group of user code on one machine."""

    __slots__ = (
        "active",
        "began",
        "dying",
        "ended",
        "excused",
        "grant",
        "machine",
        "number",
        "stubborn",
        "talks",
        "until",
        "woke",
    )

    def __init__(self, machine: AgentMachine, grant: Grant, number: int, until: float, stubborn: bool) -> None:
        self.machine = machine
        self.grant = grant
        self.number = number
        self.until = until
        self.stubborn = stubborn
        self.active = True
        self.dying = False
        self.woke = False
        self.talks = False
        self.excused = False  # it was asked to stop for another reason than its time
        self.began = 0.0  # when the agent said that it runs, 0 before
        self.ended = 0.0


class AgentMachine:
    """A pod with its machine: an agent process, its work, a clock."""

    def __init__(self, world: World, pod: str) -> None:
        self.world = world
        self.pod = pod
        self.rate = 1.0 + world.rng.uniform(-0.003, 0.003)
        self.offset = world.rng.uniform(0, 1000)
        self.wall_off = 0.0  # how far its wall clock is ahead
        self.instances = 0
        self.seen = 0  # the highest epoch that welcomed this instance
        self.end: AgentEnd | None = None
        self.stream: Stream | None = None
        self.works: dict[LeaseName, Work] = {}
        self.gone = False
        self.suspended = False
        self.slept = 0.0
        self.inbox: list[tuple[Any, tuple[Any, ...]]] = []
        self.unreachable_until = 0.0
        self.tick_at = float("inf")
        self.stopping = False
        self.hidden = False  # its pod is out of the operators' sight
        self.hidden_at = float("inf")

    def boot(self) -> float:
        t = self.world.t
        if not self.world.clocks_count_suspend:
            t -= self.slept
        return t * self.rate + self.offset

    # --- the process ---

    def start(self) -> None:
        if self.gone or self.stopping:
            return
        self.instances += 1
        self.seen = 0
        world = self.world
        plan = world.plan
        devices = ((DEVICE, plan.devices),) if plan.devices else ()
        offer = Capabilities(
            slots=plan.slots, resources=devices, fenced=plan.fenced, started=world.t + self.wall_off, arrays=True
        )
        self.end = world.make_end(f"{self.pod}-i{self.instances}", offer, world.timings.agent)
        world.say(self.pod, f"instance {self.instances} starts")
        world.after(0.02, self._dial, self.end)

    def _dial(self, end: AgentEnd) -> None:
        if self.end is not end or self.stream is not None:
            return
        if self.suspended:
            self.inbox.append((self._dial, (end,)))
            return
        world = self.world
        there = world.reachable() if world.t >= self.unreachable_until else []
        if not there:
            world.after(0.4, self._dial, end)
            return
        operator = world.rng.choice(there)
        assert operator.leader is not None
        world.sessions += 1
        self.stream = Stream(world.sessions, self.pod, operator, operator.leader)
        self.act(end.connected(self.boot()))

    def act(self, actions: list[AgentAction]) -> None:
        world = self.world
        for action in actions:
            match action:
                case SendUp(message):
                    self._send(message)
                case StartWork(grant):
                    world.say(self.pod, f"  starts work {tuple(grant.lease)}")
                    self._start_work(grant)
                case CancelWork(lease, reason):
                    world.say(self.pod, f"  cancels work {tuple(lease)}")
                    world.check.gave_up(self, lease, reason)
                    work = self.works.get(lease)
                    if work is not None:
                        work.excused = reason not in TIMED_OUT
                    if work is not None and not work.stubborn:
                        in_part = work.grant.chunk is not None and world.rng.random() < 0.5
                        how = "in part" if in_part else "stopped"
                        world.after(world.rng.uniform(0.0, 0.5), self._work_ended, work, how)
                case KillWork(lease):
                    work = self.works.get(lease)
                    world.say(self.pod, f"  kills work {tuple(lease)}")
                    if work is not None:
                        work.dying = True
                    if work is not None and world.plan.fenced:
                        world.after(world.rng.uniform(0.0, 0.3), self._work_ended, work, "stopped")
                    elif work is None and self.end is not None:
                        world.after(0.0, self._confirm_nothing, self.end, lease)
                case Disconnect(reason):
                    world.say(self.pod, f"  disconnects: {reason}")
                    self._leave()
                case Exit():
                    world.say(self.pod, "  exits")
                    world.after(0.05, self._exited, self.end)
        self._arm()

    def _confirm_nothing(self, end: AgentEnd, lease: LeaseName) -> None:
        if self.end is end and lease not in self.works:
            self.call("stopped", lease)

    def call(self, method: str, *args: Any) -> None:
        if self.end is None:
            return
        self.act(getattr(self.end, method)(*args, self.boot()))

    def _arm(self) -> None:
        if self.end is None:
            return
        wake = self.end.next_wake()
        if wake is None:
            return
        at = max(self.world.t, (wake - self.offset) / self.rate) + 0.0005
        if at < self.tick_at - 1e-6:
            self.tick_at = at
            self.world.after(at - self.world.t, self._tick, self.end, at)

    def _tick(self, end: AgentEnd, at: float) -> None:
        if end is not self.end or at != self.tick_at:
            return
        self.tick_at = float("inf")
        if self.suspended:
            return
        self.call("tick")

    # --- the link ---

    def _send(self, message: FromAgent) -> None:
        stream, world = self.stream, self.world
        if stream is None:
            return
        delay = world.link_delay()
        if isinstance(message, Hello):
            if world.t < world.slow_hello_until and world.rng.random() < 0.7:
                delay += world.rng.uniform(0.5, 5.0)
            stream.up_at = max(stream.up_at, world.t + delay)
            world.after(stream.up_at - world.t, self._arrive, stream, message)
            return
        stream.up_at = max(stream.up_at, world.t + delay)
        world.after(stream.up_at - world.t, self._arrive, stream, message)

    def _arrive(self, stream: Stream, message: FromAgent) -> None:
        operator = stream.operator
        if stream.cut or operator.leader is not stream.leader:
            if isinstance(message, Hello):
                self.world.after(0.05, self.lost, stream)
            return
        if isinstance(message, Hello):
            operator.streams[stream.id] = (stream, self)
            name = self.pod.replace("pod", "p-")
            operator.feed("connected", stream, AgentIdentity(self.pod, name, "ns", "p"), message)
        elif stream.id in operator.streams:
            operator.feed("received", stream, message)

    def receive(self, stream: Stream, message: ToAgent) -> None:
        if stream.cut or stream.agent_left or self.stream is not stream or self.end is None:
            return
        if self.suspended:
            self.inbox.append((self.receive, (stream, message)))
            return
        if isinstance(message, Final):
            self.world.check.final(self, message)
        if isinstance(message, Grant):
            self.world.check.granted(self, message)
        elif isinstance(message, Cancel):
            self.world.check.cancel(self, message)
        elif isinstance(message, Welcome):
            self.seen = max(self.seen, message.epoch)
        if self.world.lines is not None:
            self.world.say(self.pod, f"← {short(message)}")
        past = isinstance(message, Welcome) and message.epoch < self.seen
        self.call("received", message)
        if past:
            self.world.check.heard_from_the_past(self)

    def lost(self, stream: Stream) -> None:
        """The agent's side hears that the session is over."""
        if self.stream is not stream:
            return
        if self.suspended:
            self.inbox.append((self.lost, (stream,)))
            return
        self.stream = None
        if self.end is not None:
            self.world.say(self.pod, "is disconnected")
            self.call("disconnected")
            if self.end is not None:
                self.world.after(self.world.rng.uniform(0.1, 0.8), self._dial, self.end)

    def _leave(self) -> None:
        """The agent ends the session itself; what it has said is still under way."""
        stream, world = self.stream, self.world
        if stream is None or self.end is None:
            return
        self.stream = None
        stream.agent_left = True
        self._tell_operator(stream, max(stream.up_at - world.t, 0.0) + world.link_delay())
        end = self.end
        world.after(0.0, self._left, end)

    def _left(self, end: AgentEnd) -> None:
        if self.end is end:
            self.call("disconnected")
            self.world.after(self.world.rng.uniform(0.1, 0.8), self._dial, end)

    def _tell_operator(self, stream: Stream, delay: float) -> None:
        if not stream.op_told:
            stream.op_told = True
            self.world.after(delay, self._operator_told, stream)

    def _operator_told(self, stream: Stream) -> None:
        if stream.operator.streams.pop(stream.id, None) is not None:
            stream.operator.feed("disconnected", stream)

    def cut(self, lasts: float) -> None:
        """The connection breaks; with `lasts`, none can be made for a while."""
        self.unreachable_until = self.world.t + lasts
        stream = self.stream
        if stream is not None:
            stream.cut = True
            most = 0.2 if self.world.plan.gentle else 3.0
            self.world.after(self.world.rng.uniform(0.0, most * 0.7), self.lost, stream)
            self._tell_operator(stream, self.world.rng.uniform(0.0, most))

    # --- work ---

    def _start_work(self, grant: Grant) -> None:
        world, rng, plan = self.world, self.world.rng, self.world.plan
        lasts = rng.uniform(0.02, 1.5)
        if rng.random() < plan.long_work and not world.calm:
            lasts = rng.uniform(3.0, plan.longest)
        work = Work(self, grant, world.check.next_work(), world.t + lasts, rng.random() < plan.stubborn)
        self.works[grant.lease] = work
        if plan.progress:
            work.talks = rng.random() < plan.talkative
        world.check.started(work)
        world.after(min(lasts, 0.01), self._work_started, work)
        world.after(lasts, self._work_ended, work, "done")

    def _work_started(self, work: Work) -> None:
        if self.works.get(work.grant.lease) is work and work.active:
            if self.suspended:
                self.inbox.append((self._work_started, (work,)))
                return
            work.began = self.world.t
            self.call("started", work.grant.lease)
            if not work.excused:  # asked to stop before it began, it never was under a limit
                self.world.check.began(work)
            if work.talks:
                self._talk(work)

    def _talk(self, work: Work) -> None:
        if self.works.get(work.grant.lease) is work and work.active and not self.suspended:
            self.call("progress", work.grant.lease, 0.5, "")
            self.world.after(0.4, self._talk, work)

    def _work_ended(self, work: Work, how: str) -> None:
        if not work.active or self.works.get(work.grant.lease) is not work:
            return
        if self.suspended:
            self.inbox.append((self._work_ended, (work, how)))
            return
        world, lease = self.world, work.grant.lease
        del self.works[lease]
        work.active = False
        work.ended = world.t
        if how == "stopped":
            self.call("stopped", lease)
            return
        if work.grant.chunk is not None:
            self._chunk_ended(work, how)
            return
        draw = world.rng.random() if world.plan.failing and not world.calm else 1.0
        if draw < 0.12:
            self.call("failed", lease, Reason.HANDLER_ERROR, "it broke", True)
        elif draw < 0.15:
            self.call("failed", lease, Reason.INVALID_PAYLOAD, "never", False)
        else:
            body = f"{lease.task_uid}/{lease.attempt}/{lease.epoch}/{work.number}".encode()
            if draw < 0.17:
                body += TOO_LARGE
            world.check.produced(work, body)
            self.call("finished", lease, body)

    def _chunk_ended(self, work: Work, how: str) -> None:
        """Its items ended one by one: some failed, and some were not begun if it was asked to stop."""
        world, lease = self.world, work.grant.lease
        draw = world.rng.random() if world.plan.failing and not world.calm else 1.0
        if draw < 0.08:
            world.check.arrays.crashed.add(lease)
            self.call("failed", lease, Reason.HANDLER_CRASHED, "it crashed", True)
            return
        ends, left = chunks.draw_ends(work, world.rng, stopped=how == "in part", failing=draw < 0.5)
        body = chunks.result(work, ends, left, too_large=0.08 <= draw < 0.1)
        world.check.arrays.produced(work, body, left)
        self.call("finished", lease, body)

    # --- faults ---

    def _end_process(self) -> None:
        """The process and all its children are gone; its side of the connection closes."""
        world = self.world
        world.check.died.add(self.pod)
        for work in self.works.values():
            work.active = False
        self.works = {}
        self.end = None
        self.inbox = []
        self.tick_at = float("inf")
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.agent_left = True
            self._tell_operator(stream, max(stream.up_at - world.t, 0.0) + world.rng.uniform(0.01, 3.0))

    def crash(self, down: float) -> None:
        if self.gone or self.end is None:
            return
        self.world.say(self.pod, "crashes")
        self.suspended = False
        self._end_process()
        pod = self.world.api.pods.get(self.pod)
        if pod is not None:
            at = self.world.rng.uniform(0.1, 3.0)
            self.world.after(at, self._report_end, f"{self.pod}-i{self.instances}")
        if not self.stopping:
            self.world.after(down, self.start)

    def _report_end(self, instance: str) -> None:
        """Status shows it, perhaps only after its successor has come."""
        pod = self.world.api.pods.get(self.pod)
        if pod is not None:
            ended = (instance, *pod.ended_instances[:1])
            self.world.api.put_pod(replace(pod, ended_instances=ended))

    def die(self, noticed: float) -> None:
        if self.gone:
            return
        self.world.say(self.pod, "dies")
        self.suspended = False
        self._end_process()
        self.gone = True
        self.world.after(noticed, self._removed)

    def _removed(self) -> None:
        self.world.api.remove_pod(self.pod)
        self.world.after(1.0, self.world.fill)

    def hide(self) -> None:
        if not self.gone and not self.hidden and self.pod in self.world.api.pods:
            self.world.say(self.pod, "is out of sight")
            self.hidden, self.hidden_at = True, self.world.t
            self.world.api.remove_pod(self.pod, lost=True)
            self.world.after(1.0, self.world.fill)

    def delete(self) -> None:
        """The pod is deleted: told to stop, then killed, then gone."""
        pod = self.world.api.pods.get(self.pod)
        if self.gone or self.stopping or (pod is None and not self.hidden) or (pod is not None and pod.deleting):
            return
        if pod is not None:
            self.world.api.put_pod(replace(pod, deleting=True))
        self.stopping = True
        self.world.after(0.1, self._sigterm)
        self.world.after(4.0, self.die, 0.1)
        self.world.after(0.3, self.world.fill)

    def _sigterm(self) -> None:
        if self.end is None:
            self.die(0.1)
        elif self.suspended:
            self.inbox.append((self._sigterm, ()))
        else:
            self.act(self.end.stop_requested(self.boot(), 2.0))

    def _exited(self, end: AgentEnd | None) -> None:
        if self.end is end and end is not None:
            self.die(0.1)

    def suspend(self, lasts: float) -> None:
        if not self.gone and self.end is not None and not self.suspended:
            self.world.say(self.pod, "is suspended")
            self.suspended = True
            self.world.after(lasts, self._wake, self.end, lasts)

    def _wake(self, end: AgentEnd, slept: float) -> None:
        if self.end is not end or not self.suspended:
            return
        self.world.say(self.pod, "wakes")
        self.suspended = False
        self.slept += slept
        self.tick_at = float("inf")
        for work in self.works.values():
            work.woke = True
        self.call("tick")
        for work in list(self.works.values()):
            if work.active:
                self.world.check.resumed(work)
        inbox, self.inbox = self.inbox, []
        for what, args in inbox:
            what(*args)
        self._arm()
