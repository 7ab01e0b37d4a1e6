"""What happened in a run: each Task's attempts, each agent's life, and the order in which it all came about.

Values only, in virtual wall-clock seconds. Figures are computed from this alone. Refuses to judge.
"""

from dataclasses import dataclass
from enum import StrEnum
from math import inf

from taskdist.core.model import Agent, Key, Pool, Queue, Task
from taskdist.simulation.workload import Job


class Outcome(StrEnum):
    """How a Task stands at the end."""

    COMPLETED = "completed"
    FAILED = "failed"  # ended without a result by the scheduler's decision
    DEAD_LETTERED = "dead-lettered"  # likewise, and kept
    CANCELLED = "cancelled"  # likewise: skipped
    WITHDRAWN = "withdrawn"  # cancelled by its user
    WAITING = "waiting"  # the run ended first, or nothing that came could run it
    RUNNING = "running"  # the run ended first


class Attempt:
    """One attempt. `end` is set when it is over, `completed` if its result was accepted.

    `begun` is False for one that was granted to an agent whose death was not known yet: nothing ran.
    """

    __slots__ = ("agent", "begun", "completed", "end", "start")

    def __init__(self, agent: "AgentLife", start: float) -> None:
        self.agent = agent
        self.start = start
        self.begun = True
        self.end: float | None = None
        self.completed = False


class TaskLife:
    """A Task's way. `eligible` holds, for each time it waited, from when on it was not suspended or to wait."""

    __slots__ = ("attempts", "eligible", "ended", "job", "outcome", "retries", "task")

    def __init__(self, job: Job) -> None:
        self.job = job
        # As the scheduler was last told of it.
        self.task: Task = job.task
        self.attempts: list[Attempt] = []
        self.eligible: list[float] = []
        self.outcome = Outcome.WAITING
        self.ended: float | None = None
        self.retries = 0

    @property
    def waited_until(self) -> float:
        """When its first wait ended, by an attempt or by its end; infinite if it did not."""
        if self.attempts:
            return self.attempts[0].start
        return inf if self.ended is None else self.ended

    @property
    def started(self) -> float | None:
        """When its first attempt began."""
        return next((attempt.start for attempt in self.attempts if attempt.begun), None)

    def waits(self, ended: float) -> list[tuple[float, float]]:
        """Its waits, each from `eligible` on until the attempt that followed or the end."""
        untils = [attempt.start for attempt in self.attempts] + [ended if self.ended is None else self.ended]
        return [(min(since, until), until) for since, until in zip(self.eligible, untils, strict=False)]


class AgentLife:
    """An agent from the making of its pod to its end. `speeds`: from when on it had which speed."""

    __slots__ = ("agent", "born", "gone", "ordinal", "pool", "ready", "speeds", "uid", "zone")

    def __init__(self, agent: Agent, ordinal: int, zone: str, born: float) -> None:
        self.agent = agent
        self.uid = agent.uid
        self.pool = agent.pool
        self.ordinal = ordinal
        self.zone = zone
        self.born = born
        self.ready: float | None = None
        self.gone: float | None = None
        self.speeds: list[tuple[float, float]] = []

    @property
    def slots(self) -> int:
        return self.agent.slots


class Step(StrEnum):
    """What can happen to a Task, in the log."""

    WAITS = "waits"
    STARTS = "starts"
    STOPS = "stops"
    ENDS = "ends"


Entry = tuple[float, Step, TaskLife, AgentLife | None]
"""A moment, what happened, to which Task, on which agent. The order of the log is the order of events and decisions."""


@dataclass(frozen=True, slots=True)
class PoolTraits:
    """What figures need to know of a pool's agents beside their slots."""

    speed: float = 1.0
    cost_per_hour: float = 0.0
    watts: float = 0.0
    idle_watts: float = 0.0


@dataclass(slots=True)
class Record:
    """A whole run, from `begun` to `ended`."""

    begun: float
    ended: float
    tasks: list[TaskLife]
    agents: list[AgentLife]
    log: list[Entry]
    queues: dict[Key, Queue]
    pools: dict[Key, Pool]
    traits: dict[str, PoolTraits]
    known: int = 0
    """How many Tasks the scheduler held at the end: what is neither there nor ended is lost."""
    decisions: int = 0
    events: int = 0
    seconds: float | None = None
    """Real time that the run took, if it was measured."""
