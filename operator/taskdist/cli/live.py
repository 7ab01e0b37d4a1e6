"""Place, expected start and progress of a Task as the operator that leads tells them, for the command's output.

Where it cannot be asked, that is said once, and status goes on telling what it has.
"""

import asyncio
from collections.abc import Awaitable, Callable

from taskdist.api import Phase
from taskdist.api.view import Standing, TaskRow
from taskdist.cli.cluster import Cluster
from taskdist.cli.run import note
from taskdist.client.errors import NoAnswer
from taskdist.client.states import phase_of, status_of
from taskdist.common import times
from taskdist.common.backoff import Backoff
from taskdist.kube import Obj, uid_of

# How soon the leader is tried again for progress.
AGAIN = Backoff(first=5.0, most=60.0)


async def follow(cluster: Cluster, name: str, tell: Callable[[TaskRow | None], Awaitable[None]]) -> None:
    """Tell each row of the Task as the leader hears of its progress; None where it tells no more for a while."""
    failures = 0
    while True:
        try:
            async with cluster.view.progress(cluster.namespace, name) as rows:
                async for row in rows:
                    await tell(row)
            return
        except NoAnswer as error:
            if not failures:
                note(f"{error}; progress comes from the Task's status, later")
            await tell(None)
        await asyncio.sleep(AGAIN.full(failures))
        failures += 1


def with_progress(obj: Obj, row: TaskRow | None) -> Obj:
    """The Task with what its agent has told since, if that is of the same attempt."""
    status = status_of(obj)
    if row is None or row.progress is None or phase_of(obj) != Phase.ASSIGNED:
        return obj
    if (row.uid, row.attempt) != (uid_of(obj), status.get("attempt", 1)):
        return obj
    return {**obj, "status": {**status, "progress": row.progress.to_wire()}}


def place(told: Standing) -> str:
    """Return a Task's place in the order, for the table; empty where it has none."""
    if told.position is None:
        return ""
    return f"{'' if told.position_exact else 'about '}{told.position} of {told.waiting}"


def start(told: Standing) -> str:
    """When it should start; empty where it has no place in the order."""
    if told.position is None:
        return ""
    if told.expected_start is None:
        return "unknown"
    return times.distance(told.expected_start.at.isoformat(), times.now())
