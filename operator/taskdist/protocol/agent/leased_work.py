"""Work under a lease at an agent, until the operator is known to have heard what became of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from taskdist.protocol.attempt_limits import Due, next_due
from taskdist.protocol.messages import Failure, Grant, HeldLease, LeaseName, Result, Stopped


class WorkStage(Enum):
    """Stages of leased work. In the last two nothing of it runs any more."""

    STARTING = auto()  # the executor was told to start it
    RUNNING = auto()  # its handler runs
    CANCELLING = auto()  # it was asked to stop
    KILLED = auto()  # it is being killed, again and again until nothing of it runs
    DONE = auto()  # its result or failure waits for the final reply
    STOPPED = auto()  # it left no outcome, and the operator has to hear so


@dataclass(slots=True)
class LeasedWork:
    """One lease at this agent: work that runs, or its outcome, until the operator is known to have heard that."""

    grant: Grant
    renewed: float  # the ping time that the last grant or renewal echoed
    until: float
    stage: WorkStage = WorkStage.STARTING
    kill_at: float = field(default=float("inf"))  # after a cancel or kill: when to kill (again)
    outcome: Result | Failure | Stopped | None = None
    told: float = field(default=float("inf"))  # when the stop was last said: a renewal of a later ping proves it heard
    message: str = ""
    started: float | None = None
    reported: float = 0.0  # the later of the start and the last report of progress
    overdue: Due | None = None  # the limit that it has passed: whatever it leaves now is a failure

    @property
    def name(self) -> LeaseName:
        return self.grant.lease

    @property
    def runs(self) -> bool:
        return self.stage is not WorkStage.DONE and self.stage is not WorkStage.STOPPED

    @property
    def announced(self) -> HeldLease:
        """What a hello says of it."""
        grant = self.grant
        return HeldLease(
            grant.lease,
            grant.namespace,
            grant.name,
            grant.lease_seconds,
            grant.hold_seconds,
            grant.execution_seconds,
            grant.progress_seconds,
        )

    def limit(self) -> Due | None:
        """Return what time limit of its work comes next."""
        if self.stage is not WorkStage.RUNNING or self.started is None:
            return None
        return next_due(self.grant.execution_seconds, self.grant.progress_seconds, self.started, self.reported)


def short_of(grant: Grant, offer: tuple[tuple[str, int], ...], others: Iterable[LeasedWork]) -> str:
    """Say which named resource is short for the grant, empty if none is.

    What an agent offers without naming it is its pool's word, and not known here.
    """
    offered = dict(offer)
    running = [dict(each.grant.resources) for each in others if each.runs]
    for name, amount in grant.resources if offered else ():
        there, taken = offered.get(name, 0), sum(each.get(name, 0) for each in running)
        if taken + amount > there:
            return f"needs {amount} of {name}, {max(0, there - taken)} of {there} are free"
    return ""
