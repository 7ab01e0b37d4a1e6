"""Limits of an attempt: how long it may run, and how long without a report of progress. Both ends count by this rule.

The agent keeps it, from its handler's start on its own clock. The operator does so too, some seconds later, for agents
that do not. Pure: it says when and why, and asks for nothing.
"""

from dataclasses import dataclass

from taskdist.api import Reason

TIMED_OUT = frozenset({Reason.EXECUTION_TIMED_OUT, Reason.PROGRESS_TIMED_OUT})


@dataclass(frozen=True, slots=True)
class Due:
    """A limit and the time by which it is passed, on the clock of the caller."""

    at: float
    reason: Reason
    limit: float

    @property
    def message(self) -> str:
        if self.reason is Reason.EXECUTION_TIMED_OUT:
            return f"it ran longer than the {self.limit:g} s that its timeouts allow"
        return f"it reported no progress for the {self.limit:g} s that its timeouts allow"

    @property
    def grace(self) -> float:
        """Seconds from the request to stop to the kill: a tenth of the limit, but at least 0.5 and at most 10."""
        return min(10.0, max(0.5, self.limit / 10))


def next_due(execution: float, progress: float, started: float, reported: float) -> Due | None:
    """Return which limit is passed first. Limits in seconds, 0 for none; `reported` is the later of the start and the
    last report of progress."""
    dues = []
    if execution:
        dues.append(Due(started + execution, Reason.EXECUTION_TIMED_OUT, execution))
    if progress:
        dues.append(Due(reported + progress, Reason.PROGRESS_TIMED_OUT, progress))
    return min(dues, key=lambda due: due.at, default=None)
