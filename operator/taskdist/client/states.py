"""Where a Task stands, read from the resource: for programs as a value, for people as a line."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from taskdist.api import Phase
from taskdist.kube import Obj, as_object, name_of, namespace_of, uid_of
from taskdist.protocol.arrays import counts

SETTLED = frozenset(phase for phase in Phase if phase.settled)
"""The phases of a Task of which nothing more comes by itself."""


def status_of(obj: Obj) -> dict[str, Any]:
    """The object's status; empty where nobody has written one."""
    return as_object(obj.get("status"))


def phase_of(obj: Obj) -> str:
    return str(status_of(obj).get("phase") or Phase.PENDING)


def ended(obj: Obj) -> bool:
    return phase_of(obj) in (Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED)


def settled(obj: Obj) -> bool:
    """Nothing more comes of it by itself: it has ended, or is a dead letter until somebody redrives it."""
    return phase_of(obj) in SETTLED


def closed_by(queue: Obj) -> str | None:
    """The words in which a queue's status says that it takes no new Tasks; None where it takes them."""
    status = status_of(queue)
    if status.get("accepting") is not False:
        return None
    conditions = status.get("conditions")
    said = (
        str(each.get("message") or "")
        for each in (conditions if isinstance(conditions, list) else ())
        if isinstance(each, dict) and each.get("type") == "Accepting"
    )
    return next(said, "")


def story(obj: Obj) -> str:
    """Where the Task stands, in one line."""
    status = status_of(obj)
    phase = phase_of(obj)
    if (array := counts.seen(obj)) is not None:
        return _of_items(obj, phase, counts.sentence(counts.counts(array[1])))
    running = phase == Phase.ASSIGNED and status.get("agent")
    where = f" on {status['agent']} (attempt {status.get('attempt', 1)})" if running else ""
    done = status.get("progress") if phase == Phase.ASSIGNED else None
    progress = f", {done.get('fraction', 0):.0%} {done.get('message', '')}".rstrip() if done else ""
    reason = "" if phase in (Phase.ASSIGNED, Phase.SUCCEEDED) else str(status.get("reason") or "")
    message = str(status.get("message") or "") if reason else ""
    why = f" ({reason}{': ' if message else ''}{message})" if reason else ""
    return f"task {name_of(obj)}: {phase}{where}{progress}{why}"


def _of_items(obj: Obj, phase: str, items: str) -> str:
    """Where an array stands, in one line."""
    status = status_of(obj)
    reason = "" if phase in (Phase.ASSIGNED, Phase.SUCCEEDED) else str(status.get("reason") or "")
    message = str(status.get("message") or "") if reason else ""
    why = f" ({reason}{': ' if message else ''}{message})" if reason else ""
    return f"task {name_of(obj)}: {phase}, {items}{why}"


def attempt_line(record: dict[str, Any]) -> str:
    """How an attempt ended, in one line."""
    where = record.get("agent") or "an unknown agent"
    return f"attempt {record.get('attempt')} on {where}: {record.get('reason')}: {record.get('message', '')}"


def ending(obj: Obj) -> str:
    """How a Task ended that has no result."""
    status = status_of(obj)
    reason, message = status.get("reason") or "", status.get("message") or ""
    text = f"task {name_of(obj)} is {phase_of(obj)}"
    return text + (f": {reason}: {message}" if reason and message else f": {reason or message or 'no reason given'}")


@dataclass(frozen=True, slots=True)
class TaskState:
    """A Task as it was seen at one moment."""

    name: str
    namespace: str
    uid: str
    queue: str
    type: str
    phase: str
    """Pending, Assigned, DeadLettered, Succeeded, Failed or Cancelled."""
    reason: str
    """Why it waits, or why it ended."""
    message: str
    """The same for people."""
    attempt: int
    agent: str
    progress: float | None
    """How far the running attempt is, from 0 to 1, as the handler last reported it."""
    progress_message: str
    result: dict[str, Any] | None
    attempts: tuple[Mapping[str, Any], ...]
    """How the attempts ended that have no result, oldest first."""
    obj: Obj
    """The whole resource."""

    @classmethod
    def of(cls, obj: Obj) -> "TaskState":
        spec, status = obj.get("spec") or {}, status_of(obj)
        progress = status.get("progress")
        progress = progress if isinstance(progress, dict) else {}
        return cls(
            name=name_of(obj),
            namespace=namespace_of(obj),
            uid=uid_of(obj),
            queue=str(spec.get("queue") or ""),
            type=str(spec.get("type") or ""),
            phase=phase_of(obj),
            reason=str(status.get("reason") or ""),
            message=str(status.get("message") or ""),
            attempt=int(status.get("attempt") or 0),
            agent=str(status.get("agent") or ""),
            progress=float(progress.get("fraction") or 0.0) if progress else None,
            progress_message=str(progress.get("message") or ""),
            result=(status.get("result") or {}) if phase_of(obj) == Phase.SUCCEEDED else None,
            attempts=tuple(each for each in status.get("attempts") or () if isinstance(each, dict)),
            obj=obj,
        )

    @property
    def succeeded(self) -> bool:
        return self.phase == Phase.SUCCEEDED

    @property
    def settled(self) -> bool:
        """Nothing more comes of it by itself: it has ended, or is a dead letter until somebody redrives it."""
        return settled(self.obj)

    def __str__(self) -> str:
        return story(self.obj)
