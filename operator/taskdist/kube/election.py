"""Leader election over one Lease, as a pure state machine: when to campaign, renew, stop and release.

Owns the argument that there is never more than one leader, and that the number of a leadership (its epoch, the Lease's
`leaseTransitions`) only grows. No I/O and no clock: observations and times come in, an action comes out; the time is
this machine's own and is never compared with another's.

The argument, each line being one the tests switch off:
1. The holder counts from the moment it *sent* the write that renewed; a challenger counts a full lease from the moment
   it *received* a version of the record it had not seen before. So the challenger's count starts later.
2. Clocks may run at rates that differ: each side moves its end by `drift` in the safe direction.
3. Every write names the version it replaces, so a delayed one lands on what it knew or not at all.
4. Taking the lease always raises the epoch, also for an identity that held it before, and after a release.
5. A renewal without an answer extends nothing until a later one is answered.
6. A leader ends by its own clock, whether or not the server answers; to go on is to be elected again.
7. The one exception is a leader that was held up itself (a pause, or work that kept the process busy) and so asked
   nothing in time: it does nothing, and may renew late, in one try. That succeeds only where nobody took the lease
   meanwhile, as taking it raises the epoch, and changes the version that the renewal names.

A holder that is known to be dead is not waited for: it writes nothing more, and 3 and 4 deal with what it had sent.

A Lease that someone deletes takes its epoch along: a candidate that has seen it waits a full lease before creating it
anew, and goes on counting from what it saw, or from `floor`: the caller takes that from what carries epochs (Tasks'
status).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum, auto

HELD_UP = 0.25
"""Seconds. A caller that comes back to the election later than it was due by more was held up: frozen, or kept busy."""


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of the leader election, in seconds. They have to fit together: a ValueError says how."""

    lease: float = 5.0
    """How long a renewal is good for."""
    renew_deadline: float = 3.0
    """How long after the last good renewal a leader gives up; the rest of the lease is for stopping."""
    retry: float = 1.0
    """Between renewals, and between looks at another's lease."""
    drift: float = 0.02
    """How much faster or slower than true time a clock may run, as a share."""

    def __post_init__(self) -> None:
        # False for NaN too; an endless lease would be one that no challenger can wait for.
        if not (0 < self.retry < self.renew_deadline < self.own_end < math.inf and self.drift >= 0):
            raise ValueError(f"need 0 < retry < renew_deadline < lease × (1 - drift), all finite, got {self}")

    @property
    def own_end(self) -> float:
        """How long a leader trusts its own lease."""
        return self.lease * (1 - self.drift)

    @property
    def duration(self) -> int:
        """The lease as the record says it, which holds whole seconds only."""
        return math.ceil(self.lease)

    @property
    def patience(self) -> float:
        """How long a challenger respects a record that does not change."""
        return self.duration * (1 + self.drift)

    @property
    def request(self) -> float:
        """The most one request may take: a slow server's answer is waited for, and another try still fits."""
        return self.renew_deadline / 2


@dataclass(frozen=True, slots=True)
class LeaseRecord:
    """A state of the Lease object. `version` is its resourceVersion; `duration` in seconds."""

    holder: str
    epoch: int
    duration: float
    version: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A step: do nothing before `until` (which may be infinite)."""

    until: float


@dataclass(frozen=True, slots=True)
class ReadLease:
    """A step: read the Lease within `timeout` seconds; the answer goes to `read`."""

    timeout: float


class LeaseChange(StrEnum):
    """Kinds of writes of the Lease."""

    ACQUIRE = "acquire"  # take it, under a new epoch
    RENEW = "renew"
    RELEASE = "release"  # let it go before its time, so that the next leader need not wait


@dataclass(frozen=True, slots=True)
class WriteLease:
    """A step: write the Lease if it still is at version `replaces` (None: create it), within `timeout` seconds.

    The answer goes to `written` or `refused`.
    """

    purpose: LeaseChange
    holder: str
    epoch: int
    replaces: str | None
    timeout: float


Step = Wait | ReadLease | WriteLease


@dataclass(frozen=True, slots=True)
class LeadershipStarted:
    """The leadership begins: this identity leads from now on, under this epoch."""

    epoch: int


@dataclass(frozen=True, slots=True)
class LeadershipEnding:
    """The leadership ends: decide and write nothing more, and be done by `deadline` (own clock)."""

    epoch: int
    deadline: float
    reason: str


@dataclass(frozen=True, slots=True)
class LeadershipOver:
    """The leadership is over."""

    epoch: int


LeadershipChange = LeadershipStarted | LeadershipEnding | LeadershipOver


class Role(Enum):
    """Roles of a candidate."""

    FOLLOWER = auto()  # it campaigns
    LEADER = auto()
    STOPPING = auto()  # its leadership ends: nothing is decided any more, and the Lease is not free yet
    CLOSED = auto()  # it has resigned, and campaigns no more


class Election:
    """One candidate for the leadership, without I/O and clock.

    Drive it in a loop: ask `next(now)`, do the step, tell its result, then collect `changes`. Times are seconds on one
    clock that only grows.
    """

    def __init__(
        self,
        identity: str,
        timing: Timing,
        floor: Callable[[], int] = lambda: 0,
        is_dead: Callable[[str], bool] = lambda _holder: False,
    ) -> None:
        """`identity` must be this process's alone (a random part), or two processes take each other for themselves.

        `is_dead`: whether a holder is known to be dead; any other has to be waited for.
        """
        if not identity:
            raise ValueError("an identity must not be empty: an empty holder means released")
        self.identity = identity
        self.timing = timing
        self._floor = floor
        self._is_dead = is_dead
        self._role = Role.FOLLOWER
        self._epoch = 0
        self._highest = 0
        self._record: LeaseRecord | None = None
        self._fresh = False
        self._ever_held = False
        self._since = -math.inf
        self._renewed = -math.inf
        self._end = -math.inf
        self._next = -math.inf
        self._due = math.inf
        self._held_up = False
        self._late_until: float | None = None
        self._resigning = False
        self._released = False
        self._changes: list[LeadershipChange] = []

    # -- what others ask -------------------------------------------------------------------------------------------

    @property
    def role(self) -> Role:
        return self._role

    @property
    def record(self) -> LeaseRecord | None:
        """The record as last seen."""
        return self._record

    def leading(self, now: float) -> int | None:
        """The epoch under which decisions may be made and written at `now`; None: none may.

        To be asked at each use: a process that was frozen finds its time over here before any timer tells it.
        """
        return self._epoch if self._role is Role.LEADER and now < self._sure_until else None

    @property
    def leads_until(self) -> float:
        """The time up to which `leading` is sure to say yes; 0 when it says no."""
        return self._sure_until if self._role is Role.LEADER else 0.0

    def changes(self) -> list[LeadershipChange]:
        """What has happened since the last call, in order."""
        changes, self._changes = self._changes, []
        return changes

    # -- the step --------------------------------------------------------------------------------------------------

    def next(self, now: float) -> Step:
        """The one thing to do at `now`."""
        self._come_back(now)
        action = self._act(now)
        # A caller that waits comes back then; one that asks, when the answer is there or its time is over.
        self._due = action.until if isinstance(action, Wait) else now + action.timeout
        return action

    def _come_back(self, now: float) -> None:
        """Notice a hold-up: due before the leadership's end, and back after it."""
        if self._due + HELD_UP < now and self._due < self._gives_up <= now:
            self._held_up = True
        self._due = now

    def _act(self, now: float) -> Step:
        if self._role is Role.LEADER and now >= self._gives_up:
            if self._held_up:
                self._held_up, self._late_until = False, now + self.timing.renew_deadline
                self._fresh, self._next = False, now
            if now >= self._gives_up:
                self._stop(now, self._end, "the lease could not be renewed in time")
        if self._role is Role.STOPPING:
            if now < self._end:
                return Wait(self._end)
            self._over(now)
        if self._role is Role.CLOSED:
            return self._closing(now)
        if self._role is Role.LEADER:
            return self._leader(now)
        return self._follower(now)

    def _leader(self, now: float) -> Step:
        # No request outlives the deadline: its late answer could say nothing of use, and its late landing costs time.
        left = self._gives_up - now
        if now < self._next:
            return Wait(min(self._next, self._gives_up))
        if not self._fresh or self._record is None:
            return ReadLease(min(self.timing.request, left))
        return self._write(LeaseChange.RENEW, self.identity, self._epoch, min(self.timing.request, left))

    def _follower(self, now: float) -> Step:
        if now < self._next:
            return Wait(self._next)
        if not self._fresh:
            return ReadLease(self.timing.request)
        free = self._free_at()
        if now < free:
            # Look again before taking: what was unchanged then may have been renewed since.
            self._fresh = False
            self._next = min(now + self.timing.retry, free)
            return Wait(self._next)
        epoch = max(self._highest, self._floor()) + 1
        return self._write(LeaseChange.ACQUIRE, self.identity, epoch, self.timing.request)

    def _free_at(self) -> float:
        """From when the record as last seen may be taken."""
        record = self._record
        if record is None:
            # Never seen: a first installation. Seen and gone: its holder may not know yet.
            return self._since + self._patience(0) if self._ever_held else -math.inf
        # Our own name, while not leading: nobody else leads under it, and the version guards against who came between.
        # The dead write nothing, and what they had sent names a version that is past once this is taken.
        if record.holder in ("", self.identity) or self._is_dead(record.holder):
            return -math.inf
        return self._since + self._patience(record.duration)

    def _patience(self, duration: float) -> float:
        """How long an unchanged record is respected; the longer of what it says and what we are set to."""
        return max(duration * (1 + self.timing.drift), self.timing.patience)

    def _closing(self, now: float) -> Step:
        # A release only spares the next leader a wait. It is tried once while the lease may still be ours.
        if self._released or now >= self._end:
            return Wait(math.inf)
        timeout = min(self.timing.request, self._end - now)
        if not self._fresh:
            return ReadLease(timeout)
        record = self._record
        if record is None or record.holder != self.identity or record.epoch != self._epoch:
            self._released = True
            return Wait(math.inf)
        return self._write(LeaseChange.RELEASE, "", self._epoch, timeout)

    def _write(self, purpose: LeaseChange, holder: str, epoch: int, timeout: float) -> WriteLease:
        return WriteLease(purpose, holder, epoch, self._record.version if self._record else None, timeout)

    # -- what came of it -------------------------------------------------------------------------------------------

    def read(self, record: LeaseRecord | None, now: float) -> None:
        """The record as the server has it at some moment before `now`; None: there is none."""
        self._come_back(now)
        self._see(record, now)
        if self._role is Role.LEADER and (
            record is None or record.holder != self.identity or record.epoch != self._epoch
        ):
            whose = "is gone" if record is None else f"is held by {record.holder or 'nobody'} (epoch {record.epoch})"
            self._stop(now, now, f"the lease {whose}")
            self._over(now)

    def written(self, action: WriteLease, record: LeaseRecord, sent: float, now: float) -> None:
        """The write was done; `sent` is the time just before it was sent."""
        self._come_back(now)
        self._see(record, now)
        if action.purpose is LeaseChange.RELEASE:
            self._released = True
        elif action.purpose is LeaseChange.RENEW and self._role is Role.LEADER and action.epoch == self._epoch:
            self._renew(sent)
        elif action.purpose is LeaseChange.ACQUIRE and self._role is Role.CLOSED:
            # Won after resigning: give it back at once.
            self._epoch, self._end, self._released = record.epoch, sent + self.timing.own_end, False
        elif action.purpose is LeaseChange.ACQUIRE and self._role is Role.FOLLOWER:
            if now >= sent + self.timing.renew_deadline:
                # Won too long ago to be of use. The record bears our name; the next try takes it under a new epoch.
                self._next = now
                return
            self._role = Role.LEADER
            self._epoch = record.epoch
            self._renew(sent)
            self._changes.append(LeadershipStarted(record.epoch))

    def refused(self, action: WriteLease, now: float) -> None:
        """The record was not at the version named, exists already, or is gone: look before anything else."""
        self._come_back(now)
        self._fresh = False
        if action.purpose is LeaseChange.RELEASE:
            self._released = True
        elif self._role is Role.FOLLOWER:
            # Somebody else was quicker.
            self._next = now + self.timing.retry

    def failed(self, action: ReadLease | WriteLease, sent: float, now: float) -> None:
        """No answer, no connection, or a server's fault: whether a write was done is unknown until the next read."""
        self._come_back(now)
        if self._late_until is not None:
            self._late_until = now  # there is no second late try
        self._fresh = False
        if isinstance(action, WriteLease) and action.purpose is LeaseChange.RELEASE:
            self._released = True
        if self._role is Role.CLOSED:
            self._released = True
        # Paced from the sending, so that a time-out is followed at once and an instant refusal is not a tight loop.
        self._next = max(now, sent + self.timing.retry)

    def done(self, now: float) -> None:
        """The stopping leader has finished: the leadership ends before its deadline."""
        if self._role is Role.STOPPING:
            self._over(now)

    def look(self, now: float) -> None:
        """The record is said to have changed hands, or to be gone: read it without waiting for the next time."""
        if self._role in (Role.FOLLOWER, Role.LEADER):
            self._fresh = False
            self._next = now

    def step_down(self, now: float, reason: str) -> None:
        """End a leadership and campaign again: the next one has a higher epoch, above `floor`."""
        if self._role is Role.LEADER:
            self._stop(now, self._end, reason)

    def resign(self, now: float) -> None:
        """Lead no more and campaign no more; a lease in hand is released once the stopping is done."""
        self._resigning = True
        if self._role is Role.LEADER:
            self._stop(now, self._end, "asked to resign")
        elif self._role is Role.FOLLOWER:
            self._role = Role.CLOSED
            self._released = True

    # -- within ----------------------------------------------------------------------------------------------------

    @property
    def _sure_until(self) -> float:
        return self._renewed + self.timing.renew_deadline

    @property
    def _gives_up(self) -> float:
        return self._sure_until if self._late_until is None else self._late_until

    def _see(self, record: LeaseRecord | None, now: float) -> None:
        before = self._record
        if (record.version if record else None) != (before.version if before else None):
            self._since = now
        self._record = record
        self._fresh = True
        if record is not None:
            self._ever_held = True
            self._highest = max(self._highest, record.epoch)

    def _renew(self, sent: float) -> None:
        self._renewed = sent
        self._held_up, self._late_until = False, None
        self._end = sent + self.timing.own_end
        self._next = sent + self.timing.retry

    def _stop(self, now: float, deadline: float, reason: str) -> None:
        self._role = Role.STOPPING
        self._end = max(deadline, now)
        self._changes.append(LeadershipEnding(self._epoch, self._end, reason))

    def _over(self, now: float) -> None:
        self._changes.append(LeadershipOver(self._epoch))
        self._role = Role.CLOSED if self._resigning else Role.FOLLOWER
        if not self._resigning:
            # Who could not renew lets others go first: a healthy one's patience ends within this time.
            self._fresh = False
            self._next = now + 2 * self.timing.retry
