"""Outcomes of an attempt, whoever ran it: a worker, a command, an HTTP endpoint or a thread."""

from dataclasses import dataclass

from taskdist.api import Reason


@dataclass(frozen=True, slots=True)
class Returned:
    """With a result: `body` is a JSON object within bounds."""

    body: bytes


@dataclass(frozen=True, slots=True)
class Failed:
    """Without a result, for a reason. `retry_after`: with the reason Throttled, after how many seconds to try again."""

    reason: Reason
    message: str
    retryable: bool = True
    retry_after: float = 0.0


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Without a result, because it was told to stop."""

    message: str = ""


Outcome = Returned | Failed | Cancelled
