"""Messages of a worker process, checked: user code shares that process, so nothing is taken on trust.

A frame becomes one of the values here or is Nonsense, which names the field; past here nothing needs to fear a missing
key or a wrong type.
"""

from dataclasses import dataclass, field
from typing import Any

from taskdist.agent.frames import Frame
from taskdist.agent.outcomes import Cancelled, Failed, Outcome, Returned
from taskdist.api import Reason

_REASONS = frozenset(str(reason) for reason in Reason)


class Nonsense(ValueError):
    """No worker of ours says this."""


@dataclass(frozen=True, slots=True)
class Ready:
    """The worker waits for its first attempt. `types` None: it takes any."""

    types: tuple[str, ...] | None


@dataclass(frozen=True, slots=True)
class Broken:
    """The worker cannot run anything, and ends."""

    message: str


@dataclass(frozen=True, slots=True)
class WorkStarted:
    """The handler of the attempt runs."""

    serial: int


@dataclass(frozen=True, slots=True)
class WorkProgress:
    """The handler says how far it is, from 0 to 1."""

    serial: int
    fraction: float
    message: str


@dataclass(frozen=True, slots=True)
class Ended:
    """The attempt is over. `left`: what of it still is in the worker, in words; `used`: as the handler said it."""

    serial: int
    outcome: Outcome
    left: tuple[str, ...] = ()
    used: Any = field(default=None)


Said = Ready | Broken | WorkStarted | WorkProgress | Ended


def read(frame: Frame) -> Said:
    """Return what a worker's frame says. Raises Nonsense."""
    head = frame.head
    if not isinstance(head, dict):
        raise _nonsense("the head", "an object", head)
    match head.get("kind"):
        case "ready":
            types = head.get("types")
            return Ready(None if types is None else _texts(head, "types"))
        case "broken":
            return Broken(_text(head, "message"))
        case "started":
            return WorkStarted(_serial(head))
        case "progress":
            return WorkProgress(_serial(head), _fraction(head), _text(head, "message"))
        case "end":
            return Ended(_serial(head), _outcome(head, frame.body), _texts(head, "left"), head.get("used"))
        case kind:
            raise _nonsense("kind", "one of ours", kind)


def _outcome(head: dict[str, Any], body: bytes) -> Outcome:
    match head.get("outcome"):
        case "returned":
            return Returned(body)
        case "failed":
            reason, retryable = head.get("reason"), head.get("retryable")
            if not isinstance(reason, str) or reason not in _REASONS:
                raise _nonsense("reason", "one of ours", reason)
            if not isinstance(retryable, bool):
                raise _nonsense("retryable", "true or false", retryable)
            return Failed(Reason(reason), _text(head, "message"), retryable, _retry_after(head))
        case "cancelled":
            return Cancelled()
        case outcome:
            raise _nonsense("outcome", "one of ours", outcome)


def _serial(head: dict[str, Any]) -> int:
    serial = head.get("serial")
    if not isinstance(serial, int) or isinstance(serial, bool):
        raise _nonsense("serial", "a whole number", serial)
    return serial


def _fraction(head: dict[str, Any]) -> float:
    fraction = head.get("fraction")
    if not isinstance(fraction, int | float) or not 0 <= fraction <= 1:  # false for NaN too
        raise _nonsense("fraction", "from 0 to 1", fraction)
    return float(fraction)


def _retry_after(head: dict[str, Any]) -> float:
    seconds = head.get("retryAfter", 0.0)
    if not isinstance(seconds, int | float) or not 0 <= seconds < 1e12:  # false for NaN too
        raise _nonsense("retryAfter", "seconds", seconds)
    return float(seconds)


def _text(head: dict[str, Any], name: str) -> str:
    text = head.get(name)
    if not isinstance(text, str):
        raise _nonsense(name, "a text", text)
    return text


def _texts(head: dict[str, Any], name: str) -> tuple[str, ...]:
    texts = head.get(name)
    if not isinstance(texts, list) or not all(isinstance(each, str) for each in texts):
        raise _nonsense(name, "a list of texts", texts)
    return tuple(texts)


def _nonsense(name: str, rule: str, found: object) -> Nonsense:
    return Nonsense(f"{name} is {repr(found)[:80]}, not {rule}")
