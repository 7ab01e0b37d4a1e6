"""The status of a Task as merge patches: which fields each step writes, and in which form.

The only place that knows the field names. It decides nothing: reasons, messages and times come in. A field set to
None is cleared by the patch; a field left out stays.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from taskdist.api import Phase, Reason
from taskdist.api.task import MAX_ATTEMPT_RECORDS

MAX_MESSAGE = 4096
MAX_PROGRESS_MESSAGE = 1024

Status = dict[str, Any]


def timestamp(wall: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC with microseconds."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    """Shorten a message to what the API accepts, keeping its beginning."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def attempt_record(attempt: int, reason: Reason, message: str, agent: str, wall: float) -> dict[str, Any]:
    """Return one entry of `status.attempts`."""
    return {
        "attempt": attempt,
        "reason": reason.value,
        "message": clip(message),
        "agent": agent,
        "endedAt": timestamp(wall),
    }


def with_attempt(attempts: Sequence[dict[str, Any]], record: dict[str, Any] | None) -> list[dict[str, Any]]:
    """Return the attempts with this one added, the oldest dropped beyond the bound."""
    if record is None:
        return list(attempts)[-MAX_ATTEMPT_RECORDS:]
    others = [one for one in attempts if one.get("attempt") != record["attempt"]]
    return [*others, record][-MAX_ATTEMPT_RECORDS:]


def progress(fraction: float, message: str, wall: float) -> dict[str, Any]:
    return {"fraction": fraction, "message": clip(message, MAX_PROGRESS_MESSAGE), "reportedAt": timestamp(wall)}


def assigned(attempt: int, epoch: int, *, agent: str, agent_uid: str, pool: str, message: str, wall: float) -> Status:
    """The Task is given to an agent: the write that must stand before the agent hears of it."""
    return {
        "phase": Phase.ASSIGNED.value,
        "reason": Reason.ASSIGNED.value,
        "message": clip(message),
        "attempt": attempt,
        "epoch": epoch,
        "agent": agent,
        "agentUid": agent_uid,
        "pool": pool,
        "assignedAt": timestamp(wall),
        "startedAt": None,
        "retryAfter": None,
        "progress": None,
    }


def waiting(
    attempt: int,
    epoch: int,
    *,
    reason: Reason,
    message: str,
    failures: int,
    not_before: float | None,
    attempts: list[dict[str, Any]],
    agent_uid: str,
) -> Status:
    """The Task waits again. `agentUid` stays: it tells whose late result of this attempt may still be accepted."""
    return {
        "phase": Phase.PENDING.value,
        "reason": reason.value,
        "message": clip(message),
        "attempt": attempt,
        "epoch": epoch,
        "agent": None,
        "agentUid": agent_uid,
        "pool": None,
        "failures": failures,
        "retryAfter": None if not_before is None else timestamp(not_before),
        "attempts": attempts,
        "startedAt": None,
        "progress": None,
    }


def ended(
    phase: Phase,
    attempt: int,
    epoch: int,
    *,
    reason: Reason,
    message: str,
    wall: float,
    failures: int | None = None,
    attempts: list[dict[str, Any]] | None = None,
    agent: tuple[str, str, str] | None = None,
    assigned_at: float | None = None,
    started_at: float | None = None,
    last_progress: dict[str, Any] | None = None,
) -> Status:
    """The Task is terminal. `agent` is (name, uid, pool) where status may not show the attempt yet (Lazy)."""
    complete = phase is Phase.SUCCEEDED
    status: Status = {
        "phase": phase.value,
        "reason": reason.value,
        "message": clip(message),
        "attempt": attempt,
        "epoch": epoch,
        "finishedAt": timestamp(wall),
        "retryAfter": None,
        "conditions": [
            _condition("Complete", complete, reason, message, wall),
            _condition("Failed", not complete, reason, message, wall),
        ],
    }
    if failures is not None:
        status["failures"] = failures
    if attempts is not None:
        status["attempts"] = attempts
    if agent is not None:
        status["agent"], status["agentUid"], status["pool"] = agent
    if assigned_at:
        status["assignedAt"] = timestamp(assigned_at)
    if started_at:
        status["startedAt"] = timestamp(started_at)
    if last_progress is not None:
        status["progress"] = last_progress
    return status


def explained(reason: Reason, message: str) -> Status:
    """Why the Task waits, once that has held for a while."""
    return {"reason": reason.value, "message": clip(message)}


def progressed(last: dict[str, Any]) -> Status:
    return {"progress": last}


def _condition(kind: str, true: bool, reason: Reason, message: str, wall: float) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if true else "False",
        "reason": reason.value,
        "message": clip(message),
        "lastTransitionTime": timestamp(wall),
    }
