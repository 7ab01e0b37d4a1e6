"""What the core says should happen. A decision carries its reason and a message a person can act on."""

from dataclasses import dataclass

from taskdist.api import Reason
from taskdist.core.model import Key


@dataclass(frozen=True, slots=True)
class Assign:
    """Grant the Task's next attempt to this agent. The core already counts it as leased there."""

    task_uid: str
    agent_uid: str
    agent_name: str
    pool: str
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Retry:
    """Let the Task wait again, not before `not_before` (wall clock, seconds), with this many failures."""

    task_uid: str
    not_before: float
    failures: int
    reason: Reason
    message: str


@dataclass(frozen=True, slots=True)
class Fail:
    """End the Task as Failed."""

    task_uid: str
    failures: int
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


Decision = Assign | Retry | Fail | Scale | Drain | Undrain | DeletePod


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a Task waits: the reason, words for people, what would unblock it, and its position among those ahead."""

    reason: Reason
    message: str
    unblock: str = ""
    position: int | None = None
