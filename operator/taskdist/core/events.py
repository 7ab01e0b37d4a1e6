"""The events that the core takes. Each is a value; the order in which the core gets them is the event order.

Events that every Task causes have a constructor that can be compiled: a frozen dataclass sets its fields by one call
each, which took a thirtieth of a decision.
"""

from dataclasses import dataclass

from taskdist.api import Phase, Reason
from taskdist.core.model import Agent, Key, Pool, Queue, Task, Trouble


@dataclass(frozen=True, slots=True)
class QueueApplied:
    """A queue was created or changed."""

    queue: Queue


@dataclass(frozen=True, slots=True)
class QueueDeleted:
    """A queue is gone. Its Tasks wait on, and say so."""

    key: Key


@dataclass(frozen=True, slots=True)
class BacklogSeen:
    """The backlog of a source for this queue: messages that are no Tasks yet. Repeats are harmless.

    `until`: when that is no longer to be believed, unless it is told anew. `oldest`: when the oldest message was
    published, where the source knows.
    """

    queue: Key
    source: str
    messages: int
    until: float
    oldest: float | None = None


@dataclass(frozen=True, slots=True)
class PoolApplied:
    """A pool was created or changed."""

    pool: Pool


@dataclass(frozen=True, slots=True)
class PoolDeleted:
    """A pool is gone. Leases on its agents stand."""

    key: Key


@dataclass(slots=True, init=False)
class TaskWaiting:
    """The Task waits, with these values: it is new, was changed, or came back from an attempt.

    If the core held it as leased, that lease is over and its slots are free again.
    """

    task: Task

    def __init__(self, task: Task) -> None:
        self.task = task


@dataclass(frozen=True, slots=True)
class TaskHeld:
    """The Task waits for something outside the core (a former leader's lease, a write whose outcome is unknown).

    It counts as waiting and is not handed out before a `TaskWaiting`.
    """

    task: Task
    reason: Reason


@dataclass(frozen=True, slots=True)
class TaskLeased:
    """An assignment that the core did not make itself in this life: found in status, or announced by an agent.

    It occupies the agent's slots even beyond its capacity; the agent may yet be unknown.
    """

    task: Task
    agent_uid: str


@dataclass(slots=True, init=False)
class TaskGone:
    """The Task is terminal, a dead letter, or deleted, and holds nothing any more.

    `phase` says how it ended; None if it was deleted before its end.
    """

    uid: str
    phase: Phase | None

    def __init__(self, uid: str, phase: Phase | None = None) -> None:
        self.uid = uid
        self.phase = phase


@dataclass(frozen=True, slots=True)
class TaskEnded:
    """A Task has ended that the core may never have held: its dependants hear of it. Repeats are harmless."""

    uid: str
    phase: Phase


@dataclass(frozen=True, slots=True)
class AttemptFailed:
    """A leased attempt ended without a result. Answered by `Retry` or `Fail`; slots are freed by what follows that.

    `counted` is False where it says nothing against the Task (given back, suspended): it waits again at once.
    `retryable` False ends the Task at once. `started` False: its handler is known not to have started, so that even a
    queue that delivers at most once may try again. `died` is the uid of the agent that died while it ran the attempt.
    `once`: it was granted at most once, whatever its queue says by now.
    `put_off` is more than 0 where the handler said that it is throttled: it asks for another try after so many seconds.
    """

    uid: str
    reason: Reason
    message: str
    retryable: bool = True
    counted: bool = True
    started: bool = True
    died: str = ""
    once: bool = False
    put_off: float = 0.0


@dataclass(frozen=True, slots=True)
class AttemptUsed:
    """A leased attempt is over and has used these amounts of budgets, by queue and name. Comes before what ends its
    lease.

    Rate budgets get back what was spent and not used, and lose what was used beyond. What the attempt does not take of,
    and attempts that were granted in another life, change nothing. Of several the last one counts.
    """

    uid: str
    used: tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class PodSeen:
    """A pod of a pool exists and is not being deleted. Repeats are harmless.

    `template` names what it was made from; empty: not known, so that it never counts as outdated. `trouble` is what
    keeps its agent from coming up, as far as its status tells.
    """

    uid: str
    namespace: str
    name: str
    pool: str
    created: float
    template: str = ""
    trouble: Trouble | None = None


@dataclass(frozen=True, slots=True)
class PodGone:
    """The pod is deleted or being deleted, or has ended for good."""

    uid: str


@dataclass(frozen=True, slots=True)
class AgentReady:
    """The agent is connected and its pod is ready, or what it offers changed."""

    agent: Agent


@dataclass(frozen=True, slots=True)
class AgentNotReady:
    """No new work for the agent: disconnected, pod not ready, or it drains by itself. Its leases stand."""

    uid: str


@dataclass(frozen=True, slots=True)
class AgentDrained:
    """No lease is held on a draining agent and it has been told: its pod may be deleted."""

    uid: str


Event = (
    QueueApplied
    | QueueDeleted
    | BacklogSeen
    | PoolApplied
    | PoolDeleted
    | TaskWaiting
    | TaskHeld
    | TaskLeased
    | TaskGone
    | TaskEnded
    | AttemptFailed
    | AttemptUsed
    | PodSeen
    | PodGone
    | AgentReady
    | AgentNotReady
    | AgentDrained
)
