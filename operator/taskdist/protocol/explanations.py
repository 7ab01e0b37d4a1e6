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
from taskdist.core.explaining.wording import clock, duration
from taskdist.protocol.arrays import counts
from taskdist.protocol.arrays.sizing import ChunkSizes, blanks
from taskdist.protocol.observations import ArrayView, ObservedTask
from taskdist.protocol.task_status import part

# The fields of `api.view.Explanation` that say why something waits.
OF_WAITING = (
    *("reason", "message", "unblock", "command", "rejections", "stalled"),
    *("position", "position_exact", "waiting", "expected_start"),
)


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


def parts(record: ObservedTask, now: float) -> list[ObservedTask]:
    """Return the parts of an array as the leader would have them: those of its status, and some that wait for an agent.

    Chunks are taken to be as small as they are at first: how long items take is not in status.
    """
    array = record.array
    assert array is not None
    found, running, left = list(array.parts.values()), len(array.parts), _left(array, now)
    sizes = ChunkSizes(array.rules.most_items, array.rules.target_seconds)
    for number in range(blanks(left, sizes.next(left, running), running, array.rules.parallelism, alone=False)):
        found.append(part(record, f"{record.epoch}-{number:06d}", {}))
    return found


def first_waiting(parts_: Iterable[ObservedTask]) -> ObservedTask | None:
    """Return the part that an array's waiting is explained by: the first that is to start."""
    waiting = (each for each in parts_ if each.phase is Phase.PENDING)
    return min(waiting, key=lambda each: (each.task.not_before, each.task.uid), default=None)


def without_part(array: ArrayView, now: float) -> decisions.Explanation | None:
    """Why items of an array wait though no chunk does; None if none waits."""
    items = counts.counts(array.account)
    if not items.waiting:
        return None
    rules, ready = array.rules, _left(array, now)
    if len(array.parts) >= rules.parallelism:
        return decisions.Explanation(
            Reason.QUEUED,
            f"{len(array.parts)} chunks are out at once, as many as spec.array.parallelism allows.",
            "Wait: as one ends, the next is handed out.",
        )
    if not ready and array.account.again:
        due = min(each.not_before for each in array.account.again)
        return decisions.Explanation(
            Reason.BACKING_OFF,
            f"{items.waiting} items that failed are tried again, the first of them in {duration(max(0.0, due - now))}, "
            f"at {clock(due)}.",
            "Wait, or shorten the queue's retry back-off for later attempts.",
        )
    return decisions.Explanation(Reason.QUEUED, "The next chunk is about to be handed out.", "Wait a moment.")


def _left(array: ArrayView, now: float) -> int:
    """Return how many items may be handed out now."""
    account = array.account
    return len(account.untried) + sum(len(each.items) for each in account.again if each.not_before <= now)


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
