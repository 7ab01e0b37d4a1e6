"""Why a Task waits and when it starts, in the words of `taskdist explain`: of the leader's own core and books."""

from collections.abc import Callable
from typing import Any

from taskdist.api import Phase
from taskdist.api.view import Explanation
from taskdist.controller.view.tasks import Seen, Tasks, why
from taskdist.core.model import Key
from taskdist.protocol import explanations
from taskdist.protocol.arrays import counts


class Explaining:
    """Explains Tasks of the leader's memory.

    Args:
        stalled: what keeps a pool from having agents, as its status says; empty if nothing.
        holder: who leads.
    """

    def __init__(self, tasks: Tasks, stalled: Callable[[Key], str], holder: Callable[[], str]) -> None:
        self._tasks = tasks
        self._stalled = stalled
        self._holder = holder

    def explain(self, namespace: str, name: str) -> Explanation:
        """Say where the Task stands, and why. Raises Problem."""
        seen = self._tasks.seen(namespace, name)
        record = seen.record
        told = self._waiting(seen) if seen.phase is Phase.PENDING else _standing(seen)
        beside: dict[str, Any] = {
            "holder": self._holder(),
            "attempts": [dict(each) for each in record.attempts],
            "cost": record.spent.cost,
            "energy_wh": record.spent.energy,
        }
        if record.array is not None:
            beside["items"] = counts.counts(record.array.account)
            if seen.phase is Phase.ASSIGNED:
                beside |= self._rest(seen)
        return told.model_copy(update=beside)

    def _rest(self, seen: Seen) -> dict[str, Any]:
        """Why the items wait that no agent has; nothing is said where none waits."""
        array = seen.record.array
        if array is None or not counts.counts(array.account).waiting:
            return {"reason": ""}
        found = self._waiting(seen)
        return {name: getattr(found, name) for name in explanations.OF_WAITING}

    def _waiting(self, seen: Seen) -> Explanation:
        leader, task = self._tasks.leader(), seen.record.task
        found = why(leader, seen, self._tasks.now())
        since = explanations.moment(task.created)
        told = explanations.waiting(task.namespace, task.name, task.queue, since, found)
        queue = leader.state.queues.get(task.queue_key)
        pools = (task.pool,) if task.pool else () if queue is None else queue.pools
        stalled = explanations.all_stalled(self._stalled((task.namespace, pool)) for pool in sorted(set(pools)))
        outside = explanations.outside(leader.core.outside(task.queue_key))
        return told.model_copy(update={"stalled": stalled, "outside": outside})


def _standing(seen: Seen) -> Explanation:
    """A Task that does not wait."""
    record, lease = seen.record, seen.lease
    assigned_at = record.assigned_at if lease is None else lease.assigned_at or record.assigned_at
    return Explanation(
        task=f"{record.task.namespace}/{record.task.name}",
        queue=record.task.queue,
        phase=seen.phase.value,
        reason="" if record.reason is None or lease is not None else record.reason.value,
        agent=record.agent_name if lease is None else lease.agent_name,
        pool=record.pool if lease is None else lease.pool,
        attempt=record.attempt if lease is None else lease.name.attempt,
        assigned_at=explanations.moment(assigned_at) if assigned_at else None,
        progress=None if lease is None else explanations.progress(lease.progress),
        route=None if lease is None or lease.route is None else dict(lease.route),
    )
