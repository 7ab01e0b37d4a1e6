"""What the core says should happen. A decision carries its reason and a message a person can act on."""

from dataclasses import dataclass

from taskdist.api import BreakerState, Phase, Reason, Strategy
from taskdist.core.model import Key


@dataclass(slots=True, init=False)
class Assign:
    """Grant the Task's next attempt to this agent. The core already counts it as leased there.

    One is made with each grant, so its constructor is one that can be compiled (see `events`).
    `rule` and `step` are the route by which it came to the pool: its name and the number of its step, from 1.
    `strategy` is that step's, or the queue's. `score` is what decided by it: its meaning is the strategy's, and the
    message says it in words; 0 for a reserved agent, where there was nothing to pick.
    """

    task_uid: str
    agent_uid: str
    agent_name: str
    pool: str
    reason: Reason
    message: str
    rule: str
    step: int
    strategy: Strategy
    score: float

    def __init__(
        self,
        task_uid: str,
        agent_uid: str,
        agent_name: str,
        pool: str,
        reason: Reason,
        message: str,
        rule: str = "",
        step: int = 0,
        strategy: Strategy = Strategy.ADAPTIVE,
        score: float = 0.0,
    ) -> None:
        self.task_uid = task_uid
        self.agent_uid = agent_uid
        self.agent_name = agent_name
        self.pool = pool
        self.reason = reason
        self.message = message
        self.rule = rule
        self.step = step
        self.strategy = strategy
        self.score = score


@dataclass(frozen=True, slots=True)
class Retry:
    """Let the Task wait again, not before `not_before` (wall clock, seconds), with this many failures.

    `deaths` are the uids of the agents that died while they ran it, this one included. `put_off` is for how long in all
    its handlers have put it off, where this one did; else 0.
    """

    task_uid: str
    not_before: float
    failures: int
    reason: Reason
    message: str
    deaths: tuple[str, ...] = ()
    put_off: float = 0.0


@dataclass(frozen=True, slots=True)
class Fail:
    """End the Task: as Failed, as Cancelled, or as a dead letter, whether it waits or its last attempt has failed.

    One that waits is not handed out any more; `TaskGone` (or `TaskWaiting`, should it go on) follows.
    """

    task_uid: str
    failures: int
    reason: Reason
    message: str
    phase: Phase = Phase.FAILED
    deaths: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Spill:
    """Let the waiting Task wait in this queue instead of its own, which is full. `TaskWaiting` follows."""

    task_uid: str
    queue: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Scale:
    """The pool should have this many agents."""

    pool: Key
    replicas: int
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Drain:
    """This agent is to go: no new work, then delete its pod. `Undrain` may take it back before that."""

    agent_uid: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Undrain:
    """Keep this draining agent after all: work came."""

    agent_uid: str


@dataclass(frozen=True, slots=True)
class DeletePod:
    """Delete this pod, with its uid as precondition: it holds no lease and gets none any more."""

    uid: str
    namespace: str
    name: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class BreakerTurned:
    """The agent's circuit breaker has opened, or closed again. Nothing is to be done but to tell."""

    agent_uid: str
    agent_name: str
    pool: Key
    state: BreakerState
    reason: Reason
    message: str


Decision = Assign | Retry | Fail | Spill | Scale | Drain | Undrain | DeletePod | BreakerTurned


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a Task waits: the reason, words for people, what would unblock it and the command that does.

    `position` counts from 1 those ahead of it that share a pool, itself included; beyond 1,000 it is an estimate and
    `position_exact` is False. `rivals` is how many compete for the same agents in all. A Task for which waiting is in
    vain has no position. `start` is when it is expected to start (wall clock, seconds), `start_interval` the 80%
    interval of that; None where there is no history to judge by. `rejections` counts agents by the filter that refuses
    them.
    """

    reason: Reason
    message: str
    unblock: str = ""
    position: int | None = None
    position_exact: bool = True
    start: float | None = None
    start_interval: tuple[float, float] | None = None
    rejections: tuple[tuple[str, int], ...] = ()
    command: str = ""
    rivals: int | None = None
