"""The backlogs of queues at their sources, as the sources' own status tells them where the leader does not answer.

What counts, and which source has the oldest, is the core's rule. Refuses to fail: where sources may not be read, the
queue's status tells how many messages there are.
"""

import time
from collections.abc import Iterable

from taskdist.api.view import Outside
from taskdist.client.backend import Backend
from taskdist.client.leading import GRACE
from taskdist.client.states import status_of
from taskdist.core.model import Key
from taskdist.core.scaling.backlog import Backlogs
from taskdist.kube import TASKSOURCES, KubeError, Obj, name_of, namespace_of
from taskdist.protocol import explanations
from taskdist.protocol.backlogs import seen_backlog


async def outside(backend: Backend, queues: Iterable[Obj]) -> dict[Key, Outside]:
    """Return by queue what waits at sources for it; queues for which nothing waits are left out."""
    told = Backlogs()
    readable, now = True, time.time()
    try:
        for obj in (await backend.list(TASKSOURCES)).items:
            seen = seen_backlog(obj)
            if seen.messages and not seen.lapsed(now, GRACE):
                told.tell(seen.queue, seen.source, seen.messages, now, seen.oldest)
    except KubeError:
        readable = False
    found: dict[Key, Outside] = {}
    for queue in queues:
        key = namespace_of(queue), name_of(queue)
        here = explanations.outside(told.outside(key)) if readable else _as_status_has_it(queue)
        if here is not None:
            found[key] = here
    return found


def _as_status_has_it(queue: Obj) -> Outside | None:
    messages = status_of(queue).get("waitingOutside")
    return Outside(messages=messages) if type(messages) is int and messages > 0 else None
