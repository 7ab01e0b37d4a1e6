"""The status of a Task as merge patches: which fields each step writes, and in which form.

The only place that knows the field names. It decides nothing: reasons, messages and times come in. A field set to
None is cleared by the patch; a field left out stays.
"""

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from taskdist.api import Dispatch, Phase, Reason, Strategy
from taskdist.api.task import MAX_ATTEMPT_BYTES, MAX_ATTEMPT_RECORDS
from taskdist.core.cost import Spent
from taskdist.protocol.observations import Terms

MAX_MESSAGE = 4096
# To how much the messages of earlier attempts are cut where all of them would take too much room.
SHORT_MESSAGE = 200
MAX_PROGRESS_MESSAGE = 1024
# How much of a message goes into an Event and the operator's log, which more people read than the Task.
MAX_NOTICE = 500

Status = dict[str, Any]


def timestamp(wall: float) -> str:
    """Return Unix seconds as RFC 3339 in UTC with microseconds."""
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def clip(text: str, limit: int = MAX_MESSAGE) -> str:
    """Shorten a message to what the API accepts, keeping its beginning."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def attempt_record(
    attempt: int, reason: Reason, message: str, agent: str, wall: float, started_at: float = 0.0
) -> dict[str, Any]:
    """Return one entry of `status.attempts`. `started_at` 0: its handler is not known to have started."""
    started = {"startedAt": timestamp(started_at)} if started_at else {}
    return {
        "attempt": attempt,
        "reason": reason.value,
        "message": clip(message),
        "agent": agent,
        **started,
        "endedAt": timestamp(wall),
    }


def with_attempt(
    attempts: Sequence[dict[str, Any]], record: dict[str, Any] | None, dropped: int = 0
) -> tuple[list[dict[str, Any]], int]:
    """Return the history with this attempt added, within its bounds, and how many attempts it lacks by now.

    Room is made by cutting the messages of the oldest, then by dropping the oldest.
    """
    others = [one for one in attempts if record is None or one.get("attempt") != record["attempt"]]
    history = others if record is None else [*others, record]
    sizes = [_bytes(one) for one in history]
    total = sum(sizes)
    for n in range(len(history) - 1):
        if total <= MAX_ATTEMPT_BYTES:
            break
        short = {**history[n], "message": clip(str(history[n].get("message", "")), SHORT_MESSAGE)}
        total -= sizes[n] - _bytes(short)
        history[n], sizes[n] = short, _bytes(short)
    first = max(0, len(history) - MAX_ATTEMPT_RECORDS)
    total -= sum(sizes[:first])
    while total > MAX_ATTEMPT_BYTES and first < len(history) - 1:
        total -= sizes[first]
        first += 1
    return history[first:], dropped + first


def _bytes(value: dict[str, Any]) -> int:
    return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace")) + 1


def progress(fraction: float, message: str, wall: float) -> dict[str, Any]:
    return {"fraction": fraction, "message": clip(message, MAX_PROGRESS_MESSAGE), "reportedAt": timestamp(wall)}


def route(rule: str, step: int, pool: str, strategy: Strategy | None = None, score: float | None = None) -> Status:
    """By which way it came to the agent. All of it is said each time: a merge would keep what is left out."""
    return {
        "rule": rule,
        "step": step,
        "pool": pool,
        "strategy": None if strategy is None else strategy.value,
        "score": None if score is None else significant(score),
    }


def significant(value: float) -> float:
    """Return the number to six significant digits: more of them are not known, and cost room in each Task."""
    return float(f"{value:.6g}")


def assigned(
    attempt: int,
    epoch: int,
    *,
    agent: str,
    agent_uid: str,
    pool: str,
    taken: Status,
    message: str,
    wall: float,
    terms: Terms,
) -> Status:
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
        "route": taken,
        "lease": _terms(terms),
        "assignedAt": timestamp(wall),
        "startedAt": None,
        "retryAfter": None,
        "progress": None,
    }


def _terms(terms: Terms) -> Status:
    return {
        "leaseSeconds": terms.lease_seconds,
        "holdSeconds": terms.hold_seconds,
        "reclaim": terms.reclaim.value,
        "delivery": terms.delivery.value,
        "dispatch": (Dispatch.STRICT if terms.recorded_first else Dispatch.LAZY).value,
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
    dropped: int = 0,
    deaths: Sequence[str] = (),
    spent: Spent | None = None,
    put_off: float = 0.0,
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
        "route": None,
        "lease": None,
        "failures": failures,
        "retryAfter": None if not_before is None else timestamp(not_before),
        **_history(attempts, dropped),
        **_lost(deaths),
        **costs(spent),
        **({"throttledSeconds": significant(put_off)} if put_off else {}),
        "startedAt": None,
        "progress": None,
    }


def _history(attempts: list[dict[str, Any]], dropped: int) -> Status:
    return {"attempts": attempts} | ({"droppedAttempts": dropped} if dropped else {})


def costs(spent: Spent | None) -> Status:
    """What nothing is known of is left out: it stays as it is."""
    told = {} if spent is None else {"cost": spent.cost, "energyWh": spent.energy}
    return {name: significant(value) for name, value in told.items() if value is not None}


def _lost(deaths: Sequence[str]) -> Status:
    return {"lostAgents": list(deaths)} if deaths else {}


def spilled(queue: str, epoch: int, *, reason: Reason, message: str) -> Status:
    """The Task waits in this queue instead of its own."""
    return {"phase": Phase.PENDING.value, "epoch": epoch, "spilledTo": queue} | explained(reason, message)


def redriven(epoch: int, redrives: int, *, message: str, wall: float) -> Status:
    """A dead letter waits again, as if it had never failed. Its attempts go on counting, and their history stays."""
    return {
        "phase": Phase.PENDING.value,
        "reason": Reason.REDRIVEN.value,
        "message": clip(message),
        "epoch": epoch,
        "redrives": redrives,
        "failures": 0,
        "lostAgents": None,
        "throttledSeconds": None,
        "retryAfter": None,
        "agent": None,
        "pool": None,
        "route": None,
        "startedAt": None,
        "finishedAt": None,
        "progress": None,
        "conditions": [_condition("DeadLettered", False, Reason.REDRIVEN, message, wall)],
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
    taken: Status | None = None,
    assigned_at: float | None = None,
    started_at: float | None = None,
    last_progress: dict[str, Any] | None = None,
    dropped: int = 0,
    deaths: Sequence[str] = (),
    redrives: int = 0,
    spent: Spent | None = None,
) -> Status:
    """The Task is terminal, or a dead letter. `agent` is (name, uid, pool) where status may not show the attempt yet
    (Lazy), `taken` its route. `redrives`: up to which spec.redrive it was redriven, or was asked to be before there was
    need."""
    status: Status = {
        "phase": phase.value,
        "reason": reason.value,
        "message": clip(message),
        "attempt": attempt,
        "epoch": epoch,
        "finishedAt": timestamp(wall),
        "retryAfter": None,
        "lease": None,
        "conditions": _conditions(phase, reason, message, wall, redriven=redrives > 0),
    }
    if failures is not None:
        status["failures"] = failures
    if attempts is not None:
        status |= _history(attempts, dropped)
    status |= _lost(deaths) | costs(spent)
    if phase is Phase.DEAD_LETTERED and redrives:
        status["redrives"] = redrives
    if agent is not None:
        status["agent"], status["agentUid"], status["pool"] = agent
    if taken is not None:
        status["route"] = taken
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


def _conditions(phase: Phase, reason: Reason, message: str, wall: float, *, redriven: bool) -> list[Status]:
    """What `kubectl wait` waits for. A dead letter is neither complete nor failed: it may yet be either."""
    if phase is Phase.DEAD_LETTERED:
        return [_condition("DeadLettered", True, reason, message, wall)]
    complete = phase is Phase.SUCCEEDED
    conditions = [
        _condition("Complete", complete, reason, message, wall),
        _condition("Failed", not complete, reason, message, wall),
    ]
    if redriven:
        conditions.append(_condition("DeadLettered", False, reason, message, wall))
    return conditions


def _condition(kind: str, true: bool, reason: Reason, message: str, wall: float) -> dict[str, Any]:
    return {
        "type": kind,
        "status": "True" if true else "False",
        "reason": reason.value,
        "message": clip(message),
        "lastTransitionTime": timestamp(wall),
    }
