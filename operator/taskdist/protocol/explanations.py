"""What an explanation tells of a Task, whoever finds it: the leader in its memory, or the client over a snapshot. Pure.

Owns which of the core's findings are told, and the words for what the core does not explain. Why a Task waits is the
core's word.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from taskdist.api import Phase, Progress, Reason
from taskdist.api.view import ExpectedStart, Explanation, Outside, Rejection
from taskdist.core import decisions, views


def standing(found: decisions.Explanation | None) -> dict[str, Any]:
    """Return the fields of `api.view.Standing`; none where it has no place in the order."""
    if found is None or found.position is None:
        return {}
    return {
        "position": found.position,
        "position_exact": found.position_exact,
        "waiting": found.rivals,
        "expected_start": _expected(found),
    }


def _expected(found: decisions.Explanation) -> ExpectedStart | None:
    if found.start is None or found.start_interval is None:
        return None
    earliest, latest = found.start_interval
    return ExpectedStart(at=moment(found.start), earliest=moment(earliest), latest=moment(latest))


def waiting(namespace: str, name: str, queue: str, since: datetime | None, found: decisions.Explanation) -> Explanation:
    """Why a Task waits, and its place in the order."""
    return Explanation(
        task=f"{namespace}/{name}",
        queue=queue,
        phase=Phase.PENDING.value,
        since=since,
        reason=found.reason.value,
        message=found.message,
        unblock=found.unblock,
        command=found.command,
        rejections=[Rejection(agents=agents, why=why) for why, agents in found.rejections],
        **standing(found),
    )


def starting(agent: str) -> decisions.Explanation:
    """It waits for nothing any more."""
    return decisions.Explanation(
        Reason.QUEUED,
        f"Agent {agent} has room for it now: it should start at once.",
        "If this stays, the agent is not connected to the operator: look at the logs of both.",
    )


def unseen(reason: Reason | None = None, message: str = "") -> decisions.Explanation:
    """The engine does not know the Task: what status says stands."""
    return decisions.Explanation(reason or Reason.QUEUED, message or "The operator has not looked at it yet.")


def stalled(pool: Mapping[str, Any]) -> str:
    """What keeps the pool from having agents, as far as the engine cannot see it: in status only; empty if nothing."""
    status = pool.get("status")
    conditions = status.get("conditions") if isinstance(status, Mapping) else None
    for each in conditions or ():
        seen = each.get("type") == "Stalled" and each.get("status") == "True"
        if seen and each.get("reason") != Reason.PODS_FAILING:
            return f"AgentPool {pool['metadata']['name']}: {each.get('reason')}, {each.get('message')}"
    return ""


def outside(found: views.Outside | None) -> Outside | None:
    """Return the backlog of a queue at its sources; None if nothing waits there."""
    if found is None:
        return None
    oldest = None if found.oldest is None else moment(found.oldest)
    return Outside(messages=found.messages, source=found.source, oldest=oldest)


def all_stalled(found: Iterable[str]) -> str:
    """The same of several pools."""
    return "; ".join(filter(None, found))


def progress(told: object) -> Progress | None:
    """Progress as status or a lease has it; None where there is none, or one that another release means."""
    if not isinstance(told, Mapping):
        return None
    try:
        return Progress.model_validate(told)
    except ValueError:
        return None


def moment(seconds: float) -> datetime:
    """A time of the wall clock as it is told, in UTC."""
    return datetime.fromtimestamp(seconds, UTC)
