"""The agent's end of the lease protocol: which work may run here, and what the operator must still hear.

It keeps results until their final reply. It starts no process, reads no clock and opens no connection: time, messages
and what became of the work come in, actions go out.

Every doubt is settled by not running: a late grant, a leader from the past and a second attempt of a Task that still
runs are refused, and the operator grants again.
"""

from dataclasses import replace
from enum import Enum, auto

from taskdist.api import Reason
from taskdist.protocol.agent.fence import Fence
from taskdist.protocol.agent.leased_work import LeasedWork, WorkStage, short_of
from taskdist.protocol.agent.work import AgentAction, Disconnect, Exit, SendUp, StartWork
from taskdist.protocol.messages import (
    OLDEST_VERSION,
    PROTOCOL_VERSION,
    VERSION_REFUSED,
    Body,
    Cancel,
    Capacity,
    Drain,
    Draining,
    Failure,
    Final,
    FromAgent,
    Grant,
    Hello,
    Hold,
    LeaseName,
    Ping,
    Progress,
    Refused,
    Renew,
    Result,
    Started,
    Stopped,
    ToAgent,
    Welcome,
    are_two_leaderships,
)
from taskdist.protocol.rules import ALL, Rules
from taskdist.protocol.settings import AgentSettings, Capabilities


class LinkState(Enum):
    """State of the agent's connection to the operator."""

    DOWN = auto()  # no stream is open
    GREETED = auto()  # hello was said: nothing else is, until the welcome
    WELCOMED = auto()  # messages go both ways


class AgentEnd:
    """One agent process: which work runs, until when, and what the operator is told.

    Each method is an input and returns the actions to do now, in order. `boot` is the time of the input, in seconds on
    this machine's CLOCK_BOOTTIME.
    """

    def __init__(
        self, instance_id: str, offer: Capabilities, settings: AgentSettings | None = None, rules: Rules = ALL
    ) -> None:
        """Begin without a session.

        Args:
            instance_id: random for each start of the process.
            offer: what the agent can take.
            settings: times and bounds.
            rules: all of them, but in tests.
        """
        self._instance = instance_id
        self._rules = rules
        self._offer = offer
        self._settings = settings or AgentSettings()
        self._fence = Fence(self._settings, rules)
        self._epoch = 0  # the highest seen
        self._leadership = ""  # the name that came with it
        self._version = PROTOCOL_VERSION  # the newest that the next hello offers
        self._leases: dict[LeaseName, LeasedWork] = {}
        self._link = LinkState.DOWN
        self._hello_boot = 0.0
        self._ping_seconds = 1.0
        self._next_ping = 0.0
        self._heard = 0.0
        self._drained = False  # by the present leader's word
        self._exited = False

    # --- what others may ask ---

    @property
    def ready(self) -> bool:
        """Whether new work may come: welcomed and not on the way out."""
        return self._is_welcomed and not self._drained and self._fence.stop_at is None

    @property
    def leases(self) -> tuple[LeaseName, ...]:
        """What is held: running work and kept outcomes."""
        return tuple(self._leases)

    @property
    def kept(self) -> tuple[LeaseName, ...]:
        """Leases whose outcome waits for its final reply."""
        return tuple(name for name, work in self._leases.items() if work.stage is WorkStage.DONE)

    @property
    def busy_slots(self) -> int:
        return sum(work.grant.slots for work in self._leases.values() if work.runs)

    @property
    def lease_ends(self) -> dict[LeaseName, float]:
        """When the lease of each work that may still run ends, for a second line of the fence."""
        return {name: work.until for name, work in self._leases.items() if work.runs}

    @property
    def _is_welcomed(self) -> bool:
        return self._link is LinkState.WELCOMED

    # --- the session ---

    def connected(self, boot: float) -> list[AgentAction]:
        """A stream is open: say hello, and nothing else until the welcome."""
        self._link = LinkState.GREETED
        self._hello_boot = self._heard = boot
        return [SendUp(self._hello(boot))]

    def disconnected(self, boot: float) -> list[AgentAction]:
        """The stream is gone. Leases run on to their end; outcomes are kept for the next session."""
        self._link = LinkState.DOWN
        for work in self._leases.values():
            work.told = float("inf")
        return self._checked(boot, [])

    def received(self, message: ToAgent, boot: float) -> list[AgentAction]:
        """A message came on the present stream."""
        self._heard = boot
        out: list[AgentAction] = []
        match message:
            case Welcome():
                self._welcome(message, boot, out)
            case Grant():
                self._grant(message, boot, out)
            case Renew():
                self._renew(message, boot)
            case Cancel():
                self._cancel_asked(message, boot, out)
            case Hold():
                self._hold(message)
            case Final():
                self._final(message, boot, out)
            case Drain():
                self._drained = not message.undo
            case Refused():
                self._refused(message, out)
        return self._checked(boot, out)

    def _hello(self, boot: float) -> Hello:
        offer = self._offer
        announced = self._announced()
        return Hello(
            protocol_version=self._version,
            instance_id=self._instance,
            slots=offer.slots,
            boot=boot,
            resources=offer.resources,
            skills=offer.skills,
            types=offer.types,
            labels=offer.labels,
            fenced=offer.fenced,
            draining=self._fence.stop_at is not None,
            leases=tuple(work.name for work in announced),
            software=offer.software,
            held=tuple(work.announced for work in announced),
            started=offer.started,
            oldest_version=OLDEST_VERSION,
            highest_epoch=self._epoch,
            leadership=self._leadership,
            objects=offer.objects,
            arrays=offer.arrays,
        )

    def _announced(self) -> list[LeasedWork]:
        """Exactly what is held. Less, and the operator would hand out again what still runs here."""
        return list(self._leases.values()) if self._rules.hello_lists_all else []

    def _welcome(self, message: Welcome, boot: float, out: list[AgentAction]) -> None:
        if self._refuses(message.epoch):
            out.append(Disconnect(f"epoch {message.epoch} is older than {self._epoch}, which this agent has seen"))
            return
        if self._is_another(message):
            out.append(Disconnect(f"another leadership than this one has had epoch {message.epoch}"))
            return
        self._epoch, self._leadership = message.epoch, message.leadership
        self._version = PROTOCOL_VERSION
        self._link = LinkState.WELCOMED
        self._drained = message.draining or (self._drained and not self._rules.drain_ends_with_session)
        self._ping_seconds = message.ping_seconds
        for work in self._leases.values():
            self._end_hold(work)
        self._ping(boot, out)
        for work in self._leases.values():
            if work.outcome is not None:
                work.told = boot
                self._say_outcome(work, work.outcome, boot, out)
            elif work.started is not None:
                self._send(Started(work.name, boot - work.started), out)
        if self._fence.stop_at is not None:
            self._send(Draining(), out)

    def _end_hold(self, work: LeasedWork) -> None:
        """A hold ends with the next welcome: the leader that welcomes counts from this hello on."""
        if self._rules.hold_ends_with_welcome:
            work.until = min(work.until, self._hello_boot + work.grant.lease_seconds)

    def _refuses(self, epoch: int) -> bool:
        """A leader that was frozen cannot speak from the past."""
        return epoch < self._epoch and self._rules.agents_refuse_the_past

    def _is_another(self, welcome: Welcome) -> bool:
        """Two leaderships of one epoch would give one name to two leases."""
        return welcome.epoch == self._epoch and are_two_leaderships(self._leadership, welcome.leadership)

    def _refused(self, refused: Refused, out: list[AgentAction]) -> None:
        """No refusal ends the agent while anything is in its hands: it comes again."""
        if self._link is LinkState.WELCOMED:
            self._link = LinkState.GREETED
        if refused.reason == VERSION_REFUSED:
            self._version = self._version - 1 if self._version > OLDEST_VERSION else PROTOCOL_VERSION
        elif not refused.retry and not self._leases:
            self._exited = True
            out.append(Exit(f"refused for good: {refused.message}", refused=True))
        out.append(Disconnect(f"refused by the operator: {refused.reason}: {refused.message}"))

    def _send(self, message: FromAgent, out: list[AgentAction]) -> None:
        """Say it if there is a session. What must not be lost is kept and said again after the next welcome."""
        if self._is_welcomed:
            out.append(SendUp(message))

    def _ping(self, boot: float, out: list[AgentAction]) -> None:
        self._send(Ping(boot), out)
        self._next_ping = boot + self._ping_seconds

    # --- leases ---

    def _grant(self, grant: Grant, boot: float, out: list[AgentAction]) -> None:
        name = grant.lease
        if name in self._leases:
            return  # sent again under the same name: it is here already
        refusal = self._refusal(grant, boot, out)
        if refusal:
            self._send(Stopped(name, refusal, ran=False), out)
            return
        if name.epoch > self._epoch:
            self._epoch, self._leadership = name.epoch, ""
        until = self._fence.lease_end(grant.ping_boot, grant.lease_seconds, boot)
        self._leases[name] = LeasedWork(grant, grant.ping_boot, until)
        out.append(StartWork(grant))

    def _refusal(self, grant: Grant, boot: float, out: list[AgentAction]) -> str:
        if self._refuses(grant.lease.epoch):
            return f"granted by epoch {grant.lease.epoch}, but this agent has seen {self._epoch}"
        end = self._fence.lease_end(grant.ping_boot, grant.lease_seconds, boot)
        if boot >= end - self._settings.fence(grant.lease_seconds):
            return "arrived too late to run before its lease ends"
        if self._fence.stop_at is not None:
            return "the agent is stopping"
        for work in self._leases.values():
            if work.name.task_uid == grant.lease.task_uid and work.runs:
                self._fence.kill(work, boot, "a newer attempt was granted", out)
                return "an older attempt of the Task still runs here and is being killed"
        # By its own offer: what its pool allows may have changed since the welcome, and the operator keeps it.
        slots = self._offer.slots
        if self.busy_slots + grant.slots > slots and self._rules.agents_count_slots:
            return f"needs {grant.slots} slots, {max(0, slots - self.busy_slots)} of {slots} are free"
        if not self._rules.agents_count_resources:
            return ""
        return short_of(grant, self._offer.resources, self._leases.values())

    def _renew(self, message: Renew, boot: float) -> None:
        if self._refuses(message.epoch):
            return
        for name in message.leases:
            work = self._leases.get(name)
            if work is not None and work.runs:
                work.until = max(work.until, self._fence.lease_end(message.ping_boot, work.grant.lease_seconds, boot))
                work.renewed = max(work.renewed, min(message.ping_boot, boot))
        for name, work in list(self._leases.items()):
            if work.stage is WorkStage.STOPPED and work.told < message.ping_boot:
                del self._leases[name]

    def _hold(self, message: Hold) -> None:
        if self._refuses(message.epoch):
            return
        for work in self._leases.values():
            if work.name.epoch <= message.epoch:
                work.until = max(work.until, work.renewed + work.grant.hold_seconds)

    def _cancel_asked(self, message: Cancel, boot: float, out: list[AgentAction]) -> None:
        """An outcome in hand beats a cancel: it was sent in this session, and there is nothing to stop."""
        work = self._leases.get(message.lease)
        if work is None:
            self._send(Stopped(message.lease, "not held"), out)
        elif work.runs:
            self._fence.cancel(work, message.reason, message.message, boot + self._settings.cancel_grace_seconds, out)

    def _final(self, message: Final, boot: float, out: list[AgentAction]) -> None:
        work = self._leases.get(message.lease)
        if work is None:
            return
        if not work.runs:
            if self._rules.results_are_dropped:
                del self._leases[message.lease]
        else:
            self._fence.kill(work, boot, message.message or message.verdict, out)

    # --- what became of the work ---

    def started(self, lease: LeaseName, boot: float) -> list[AgentAction]:
        """The handler runs: the limits of the attempt count from here."""
        out: list[AgentAction] = []
        work = self._leases.get(lease)
        if work is not None and work.stage is WorkStage.STARTING:
            work.stage = WorkStage.RUNNING
            work.started = work.reported = boot
            self._send(Started(lease), out)
        return self._checked(boot, out)

    def progress(self, lease: LeaseName, fraction: float, message: str, boot: float) -> list[AgentAction]:
        """The handler says how far it is; `fraction` is cut to 0 to 1."""
        out: list[AgentAction] = []
        work = self._leases.get(lease)
        if work is not None and work.stage is WorkStage.RUNNING:
            work.reported = boot
            self._send(Progress(lease, min(max(fraction, 0.0), 1.0), message), out)
        return self._checked(boot, out)

    def finished(
        self, lease: LeaseName, body: Body, boot: float, used: tuple[tuple[str, int], ...] = ()
    ) -> list[AgentAction]:
        """The handler returned: the result is kept, even one that came after a cancel or a kill was on its way.

        One that comes after a limit was passed comes too late: so it does not depend on when the stop is seen.
        """
        return self._done(lease, self._failed_by_time(lease, used) or Result(lease, body, used=used), boot)

    def failed(
        self,
        lease: LeaseName,
        reason: Reason,
        message: str,
        retryable: bool,
        boot: float,
        used: tuple[tuple[str, int], ...] = (),
        retry_after: float = 0.0,
    ) -> list[AgentAction]:
        """The handler failed; one that was being stopped anyway just stopped."""
        work = self._leases.get(lease)
        if work is not None and work.stage in (WorkStage.CANCELLING, WorkStage.KILLED):
            return self.stopped(lease, boot, used)
        return self._done(lease, Failure(lease, reason, message, retryable, used=used, retry_after=retry_after), boot)

    def stopped(self, lease: LeaseName, boot: float, used: tuple[tuple[str, int], ...] = ()) -> list[AgentAction]:
        """Nothing of the work runs any more, and it left nothing; what it used is told if it had passed a limit."""
        timed_out = self._failed_by_time(lease, used)
        if timed_out is not None:
            return self._done(lease, timed_out, boot)
        out: list[AgentAction] = []
        work = self._leases.get(lease)
        if work is not None and work.runs:
            work.stage, work.outcome = WorkStage.STOPPED, Stopped(lease, work.message)
            work.told = boot if self._is_welcomed else work.told
            self._send(work.outcome, out)
            if self._fence.stop_at is not None:
                self._next_ping = boot  # its answer proves that the stop was heard
        return self._checked(boot, out)

    def _done(self, lease: LeaseName, outcome: Result | Failure, boot: float) -> list[AgentAction]:
        out: list[AgentAction] = []
        work = self._leases.get(lease)
        if work is not None and work.runs:
            work.stage, work.outcome, work.kill_at = WorkStage.DONE, outcome, float("inf")
            self._say_outcome(work, outcome, boot, out)
            self._keep_within_bound()
        return self._checked(boot, out)

    def _say_outcome(
        self, work: LeasedWork, outcome: Result | Failure | Stopped, boot: float, out: list[AgentAction]
    ) -> None:
        """Say it, and how long ago the handler started: the operator's clock then tells when that was."""
        if work.started is not None and not isinstance(outcome, Stopped):
            outcome = replace(outcome, since_start=boot - work.started)
        self._send(outcome, out)

    def _failed_by_time(self, lease: LeaseName, used: tuple[tuple[str, int], ...]) -> Failure | None:
        work = self._leases.get(lease)
        if not self._rules.late_result_fails:
            return None
        due = work.overdue if work is not None and work.runs else None
        return None if due is None else Failure(lease, due.reason, due.message, used=used)

    def _keep_within_bound(self) -> None:
        """Outcomes are kept until their final reply; beyond the bound the oldest goes, and its Task is tried again."""
        kept = self.kept  # the oldest first
        if len(kept) > (self._settings.max_kept if self._rules.results_are_kept else 0):
            del self._leases[kept[0]]

    # --- the agent's own end ---

    def stop_requested(self, boot: float, grace: float) -> list[AgentAction]:
        """Take no new work, finish within `grace` seconds what can be finished, give back the rest, then exit."""
        out: list[AgentAction] = []
        if self._fence.stop_at is None:
            self._fence.stop_at = boot + grace
            self._send(Draining(), out)
        return self._checked(boot, out)

    def capacity(self, slots: int, resources: tuple[tuple[str, int], ...], boot: float) -> list[AgentAction]:
        """Tell the operator what the agent offers from now on."""
        out: list[AgentAction] = []
        self._offer = replace(self._offer, slots=slots, resources=resources)
        self._send(Capacity(slots, resources), out)
        return self._checked(boot, out)

    # --- time ---

    def tick(self, boot: float) -> list[AgentAction]:
        """Do what is due by now."""
        return self._checked(boot, [])

    def _checked(self, boot: float, out: list[AgentAction]) -> list[AgentAction]:
        """Do what time asks for, after every input: a late tick alone never lets work outlive its lease."""
        for work in self._leases.values():
            if work.runs:
                self._fence.check(work, boot, out)
        if self._link is not LinkState.DOWN and boot >= self._heard + self._settings.silence_seconds:
            self._link = LinkState.DOWN
            out.append(Disconnect("the operator is silent"))
        if self._is_welcomed and boot >= self._next_ping:
            self._ping(boot, out)
        if self._fence.stop_at is not None and not self._exited and self._may_exit(boot):
            self._exited = True
            out.append(Exit("stopped: nothing is held" if not self._leases else "stopped: the grace is over"))
        return out

    def _may_exit(self, boot: float) -> bool:
        assert self._fence.stop_at is not None
        if not self._leases:
            return True
        running = any(work.runs for work in self._leases.values())
        return not running and boot >= self._fence.stop_at + self._settings.farewell_seconds

    def next_wake(self) -> float | None:
        """Return the boot time by which `tick` must be called, None if only an input changes anything."""
        wakes: list[float] = []
        for work in self._leases.values():
            if work.runs:
                wakes += self._fence.wakes(work)
        if self._link is not LinkState.DOWN:
            wakes.append(self._heard + self._settings.silence_seconds)
        if self._is_welcomed:
            wakes.append(self._next_ping)
        if self._fence.stop_at is not None and not self._exited:
            wakes.append(self._fence.stop_at + self._settings.farewell_seconds)
        return min(wakes, default=None)
