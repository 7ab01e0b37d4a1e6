"""Reading of what the operator itself wrote into a Task's status: times, terms of a lease, costs, and an array's parts.

A part of an array is a Task whose status lives in that of its array. So it is read here as a Task is: its spec is that
of the array, its status its entry in `status.array.parts`.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from taskdist.api import Delivery, Dispatch, Phase, Reason, Reclaim, Unreadable
from taskdist.core.agents.filters import CHUNKS
from taskdist.core.cost import NOTHING, Spent
from taskdist.protocol import reading
from taskdist.protocol.arrays import account as accounts
from taskdist.protocol.messages import part_uid
from taskdist.protocol.observations import ArrayView, Fault, ObservedTask, Terms

Obj = Mapping[str, Any]

PHASES = {str(phase): phase for phase in Phase}
_REASONS = {str(reason): reason for reason in Reason}
_RECLAIMS = {str(each): each for each in Reclaim}
_DELIVERIES = {str(each): each for each in Delivery}
_DISPATCHES = {str(each): each for each in Dispatch}

# The skill that a part asks for: its agent takes chunks of items. No user can name it, for it holds a slash.
ARRAYS_SKILL = CHUNKS


def seconds(text: str | None) -> float:
    """RFC 3339 time, as fine as microseconds, to seconds since the Unix epoch. Absent is 0, and so is what is no time:
    what stands in a status was the operator's own word once."""
    try:
        return reading.moment(text) if text else 0.0
    except ValueError:
        return 0.0


def phase(status: Obj, field: str = "status.phase") -> Phase:
    """Read the phase; Unreadable if it is of another release."""
    told = status.get("phase") or "Pending"
    if told not in PHASES:
        # Taking it for waiting would run it again, taking it for ended would lose it.
        raise reading.unknown(field, told, PHASES)
    return PHASES[told]


def reason(status: Obj) -> Reason | None:
    """Read the reason. One of a newer release is only words to this one."""
    return _REASONS.get(status.get("reason") or "")


def terms(status: Obj) -> Terms | None:
    """The rules of the present attempt; None if status does not tell all of them in words of this release."""
    told = status.get("lease")
    if not told:
        return None
    lease_seconds, hold_seconds = told.get("leaseSeconds"), told.get("holdSeconds")
    reclaim, delivery = _RECLAIMS.get(told.get("reclaim")), _DELIVERIES.get(told.get("delivery"))
    dispatch = _DISPATCHES.get(told.get("dispatch"))
    if lease_seconds is None or hold_seconds is None or reclaim is None or delivery is None or dispatch is None:
        return None
    return Terms(float(lease_seconds), float(hold_seconds), reclaim, delivery, dispatch is Dispatch.STRICT)


def spent(status: Obj) -> Spent:
    """Most Tasks have spent nothing yet, and share the value that says so."""
    if "cost" not in status and "energyWh" not in status:
        return NOTHING
    return Spent(status.get("cost"), status.get("energyWh"))


def throttled(status: Obj) -> bool:
    """Whether it waits because its last attempt said that it is throttled."""
    attempts = status.get("attempts")
    return bool(status.get("retryAfter") and attempts and attempts[-1].get("reason") == Reason.THROTTLED)


def attempted(status: Obj) -> bool:
    """Whether it was started before. A redriven Task was at its end before: its first wait is over as well."""
    if status.get("startedAt") or status.get("failures") or status.get("redrives"):
        return True
    return any("startedAt" in each for each in status.get("attempts") or ())


# --- arrays ---


def array(spec: Obj, status: Obj, record: ObservedTask) -> ObservedTask:
    """Return the Task with what is told of its items, if it has any. Raises Unreadable.

    One that no release could make an array of ends with that fault.
    """
    told = spec.get("array")
    if told is None:
        return record
    try:
        rules = accounts.rules_of(told)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        fault = Fault(Reason.INVALID_SPEC, f"spec.array makes no array: {error}"[:500])
        return replace(record, fault=record.fault or fault)
    try:
        account = accounts.read(rules, status.get("array") or {}, seconds)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Unreadable(Reason.UNREADABLE, f"status.array: {error!r}"[:500]) from error
    parts = {key: part(record, key, stored.status) for key, stored in account.parts.items()}
    return replace(record, array=ArrayView(rules, account, parts))


def part(whole: ObservedTask, key: str, status: Obj) -> ObservedTask:
    """Return a part of the array as a Task of its own; with an empty status: one that nobody has had yet."""
    task, failures = whole.task, status.get("failures") or 0
    return replace(
        whole,
        task=replace(
            task,
            uid=part_uid(task.uid, key),
            queue=status.get("spilledTo") or task.queue,
            failures=failures,
            not_before=max(task.not_before, seconds(status.get("retryAfter"))),
            deaths=tuple(status.get("lostAgents") or ()),
            attempted=task.attempted or attempted(status),
            spilled=task.spilled or bool(status.get("spilledTo")),
            put_off=float(status.get("throttledSeconds") or 0),
            throttled=throttled(status),
            skills=task.skills | {ARRAYS_SKILL},
            payload_bytes=0,  # it is the array's, and counted once
        ),
        phase=phase(status, f"status.array.parts[{key}].phase"),
        reason=reason(status) or whole.reason,
        attempt=status.get("attempt") or 0,
        epoch=status.get("epoch") or 0,
        failures=failures,
        agent_uid=status.get("agentUid") or "",
        agent_name=status.get("agent") or "",
        pool=status.get("pool") or "",
        assigned_at=seconds(status.get("assignedAt")),
        attempts=tuple(status.get("attempts") or ()),
        dropped_attempts=0,
        redrive=0,
        redrives=0,
        finished_at=0.0,
        duplicate_of="",
        idempotency=None,
        spent=spent(status),
        terms=terms(status),
        fault=None,
        array=None,
        part_of=task.uid,
    )
