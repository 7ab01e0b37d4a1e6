"""How a queue stands and what holds it up, told by the leader, or found out from the cluster's objects."""

import time
from typing import Any

from taskdist.api import TaskQueue
from taskdist.api import view as shapes
from taskdist.client import explained, levels, questions
from taskdist.client.backend import Asks, Backend, Source, Told
from taskdist.client.errors import NoAnswer, TaskdistError, instead
from taskdist.client.outside import outside
from taskdist.client.states import closed_by
from taskdist.kube import TASKQUEUES, Obj, name_of, namespace_of


async def explain_queue(backend: Backend, name: str, view: Asks | None = None, source: Source | None = None) -> Told:
    """Say how many Tasks wait, and outside at sources; what is left of limits; and what holds most up.

    The leader is asked by its `view`, and then the cluster's objects; `source` is the only one to be asked. NoAnswer:
    the leader does not say, and nobody else is to.
    """
    not_asked = ""
    if view is not None and source is not Source.CLUSTER:
        try:
            told = await view.ask(questions.queue(backend.namespace, name))
        except NoAnswer as error:
            if source is Source.LEADER:
                raise
            not_asked = instead(error)
        else:
            return Told(_document(told), told_by=Source.LEADER)
    obj = await backend.get(TASKQUEUES, name)
    waits = (await outside(backend, [obj])).get((namespace_of(obj), name_of(obj)))
    return Told(_document(_as_status_has_it(obj, waits, time.time())), not_asked=not_asked)


def _as_status_has_it(obj: Obj, waits: shapes.Outside | None, now: float) -> shapes.QueueView:
    """Raises TaskdistError."""
    try:
        queue = TaskQueue.model_validate(obj)
    except ValueError as error:
        raise TaskdistError(f"TaskQueue {name_of(obj)} cannot be read: {error}") from error
    spec, status = queue.spec, queue.status
    held = next((each for each in status.conditions if each.type == "Bottleneck" and each.status == "True"), None)
    limits = levels.told([obj], []).get((namespace_of(obj), name_of(obj)), [])
    closed = closed_by(obj)
    return shapes.QueueView(
        name=name_of(obj),
        namespace=namespace_of(obj),
        pools=spec.all_pools,
        paused=spec.paused,
        accepting=status.accepting,
        why_not=closed or "",
        waiting=status.waiting,
        leased=status.leased,
        dead_letters=status.dead_lettered,
        outside=waits,
        limits=[
            shapes.Limit(
                name=each.name,
                left=round(each.expected(now), 3),
                capacity=each.capacity,
                per_second=each.per_second,
            )
            for each in limits
        ],
        bottleneck=None
        if held is None
        else shapes.Bottleneck(reason=held.reason, what="", tasks=0, part=0.0, message=held.message),
    )


def _document(told: shapes.QueueView) -> dict[str, Any]:
    """A queue as scripts read it, whoever has told it."""
    story: dict[str, Any] = {
        "queue": f"{told.namespace}/{told.name}",
        "pools": told.pools,
        "paused": told.paused,
        "accepting": told.accepting,
        "why_not": told.why_not,
        "waiting": told.waiting,
        "leased": told.leased,
        "dead_letters": told.dead_letters,
    }
    if told.outside is not None:
        story["outside"] = explained.outside(told.outside)
    if told.levels:
        story["levels"] = [each.model_dump() for each in told.levels]
    if told.limits:
        story["limits"] = [each.model_dump() for each in told.limits]
    if (held := told.bottleneck) is not None:
        story["bottleneck"] = {"reason": held.reason, "message": held.message}
        story["bottleneck"] |= {"unblock": held.unblock} if held.unblock else {}
        story["bottleneck"] |= {"command": held.command} if held.command else {}
    return story
