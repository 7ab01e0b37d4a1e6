"""Settings of both ends of the lease protocol. All times in seconds; no rule is decided here."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class LeaderSettings:
    """The operator's end.

    `margin` and `drift` are what the operator waits beyond a lease, fixed and per second of it: for clocks of
    different rates and for the kill itself. They err towards waiting: too much costs time, too little costs overlap.
    """

    ping_seconds: float = 1.0
    margin: float = 1.0
    drift: float = 0.001
    lazy_record_seconds: float = 1.0
    first_progress_seconds: float = 2.0  # from the grant to the first write of progress
    progress_seconds: float = 30.0  # from each to the next
    reason_seconds: float = 30.0
    reasons_per_second: float = 10.0
    retry_seconds: float = 0.5  # before a write or read that brought nothing is tried again
    refused_seconds: float = 5.0  # before an assignment that the API server refused is tried again
    fast_takeover_seconds: float = 5.0  # a new leader's patience with agents of queues that reclaim fast
    delete_again_seconds: float = 30.0  # before a pod that should be deleted and still stands is deleted again
    timeout_margin: float = 5.0  # what an agent is given to end by itself what has passed its limits
    require_ready_pods: bool = True
    # An epoch that is further ahead is no number of leaderships, but an agent's error or lie.
    most_epochs_ahead: int = 100_000

    def beyond(self, seconds: float) -> float:
        """Return how long the operator counts what an agent counts as `seconds`."""
        return seconds + self.margin + self.drift * seconds


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """The agent's end.

    Work is asked to stop `fence_seconds` before its lease ends (at most a third of the lease) and killed
    `kill_seconds` before it ends (at most a tenth). `silence_seconds` without a word from the operator end the
    session. `max_kept` bounds the results that wait for a final reply; the oldest goes first.
    """

    fence_seconds: float = 3.0
    kill_seconds: float = 0.5
    cancel_grace_seconds: float = 10.0
    kill_again_seconds: float = 1.0
    silence_seconds: float = 5.0
    stop_cancel_seconds: float = 5.0
    farewell_seconds: float = 5.0
    redial_seconds: float = 1.0  # the longest pause before the operator is dialled again
    max_kept: int = 1000

    def fence(self, lease_seconds: float) -> float:
        return min(self.fence_seconds, lease_seconds / 3)

    def kill(self, lease_seconds: float) -> float:
        return min(self.kill_seconds, lease_seconds / 10)


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities of an agent's process. `types` None: any type. `started`: Unix time at which it started."""

    slots: int = 1
    resources: tuple[tuple[str, int], ...] = ()
    skills: tuple[str, ...] = ()
    types: tuple[str, ...] | None = None
    labels: tuple[tuple[str, str], ...] = ()
    fenced: bool = True
    software: str = ""
    started: float = 0.0
    objects: bool = False  # it fetches payloads from an object store
    arrays: bool = False  # it takes chunks of an array's items
