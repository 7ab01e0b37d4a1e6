"""What the core shows of itself: values for status and metrics, made when asked for."""

from dataclasses import dataclass
from enum import StrEnum

from taskdist.api import BreakerState, Reason
from taskdist.core.model import Key, Trouble


class AgentState(StrEnum):
    """Where an agent stands, as metrics count them."""

    STARTING = "starting"  # its pod exists, it has not been ready yet
    IDLE = "idle"
    BUSY = "busy"
    NOT_READY = "not_ready"
    DRAINING = "draining"
    GONE = "gone"  # its pod is gone, a lease still stands


@dataclass(frozen=True, slots=True)
class BreakerView:
    """A circuit breaker that is not closed. `since`: when it took its state; an open one half opens at `until`."""

    uid: str
    name: str
    state: BreakerState
    since: float
    until: float


@dataclass(frozen=True, slots=True)
class AgentView:
    """An agent as it is now. `pace` and `success` are of its latest `attempts`; None where nothing was seen yet."""

    uid: str
    name: str
    state: AgentState
    slots: int
    busy_slots: int
    breaker: BreakerState
    attempts: int
    pace: float | None
    success: float | None


@dataclass(frozen=True, slots=True)
class Outside:
    """The messages that wait at sources for a queue. `source` has the oldest; where none tells that, the most.

    `oldest`: when that message was published (wall clock, seconds).
    """

    messages: int
    source: str
    oldest: float | None


@dataclass(frozen=True, slots=True)
class FailingPods:
    """How many pods of a pool do not come up, and one of those that fail for the most common cause."""

    pods: int
    name: str
    trouble: Trouble


@dataclass(frozen=True, slots=True)
class PoolView:
    """A pool as it is now. `desired` is how many pods are wanted; those in `draining` do not count towards it.

    `slots` are those of ready agents, `busy_slots` those that Tasks occupy on any agent. `surge` is how many pods are
    wanted beyond `desired`, to replace as many that are outdated; `outdated` is how many of those there are.
    """

    key: Key
    desired: int
    reason: Reason
    message: str
    pods: int
    ready: int
    slots: int
    busy_slots: int
    draining: tuple[str, ...] = ()
    surge: int = 0
    outdated: int = 0
    failing: FailingPods | None = None
