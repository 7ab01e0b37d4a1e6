"""Tasks as `get` lists them, of the leader's memory: rows by page, and of single ones their place and expected start.

Raises NoAnswer where the leader does not answer: then the cluster's objects are listed.
"""

import asyncio
from collections.abc import Sequence

from taskdist.api import Phase
from taskdist.api.view import TaskDetail, TaskRow
from taskdist.cli.cluster import Cluster
from taskdist.client import questions
from taskdist.client.errors import NoAnswer
from taskdist.client.states import phase_of
from taskdist.kube import Obj, name_of, uid_of

# Of so many single Tasks the place is asked for.
MOST_ASKED = 20


async def rows(cluster: Cluster, queue: str, phase: str, labels: str) -> list[TaskRow]:
    """Return all of them. Raises NoAnswer."""
    found: list[TaskRow] = []
    after = ""
    while True:
        page = await cluster.view.ask(questions.tasks(cluster.namespace, queue, phase, labels, after))
        found += page.items
        if not page.continue_:
            return found
        if page.continue_ <= after:
            raise NoAnswer("the leader's list does not go on")
        after = page.continue_


async def details(cluster: Cluster, tasks: Sequence[Obj]) -> tuple[dict[str, TaskDetail], NoAnswer | None]:
    """Return by uid what the leader tells of those that wait or run; and why it does not, if so."""
    asked = [each for each in tasks if phase_of(each) in (Phase.PENDING, Phase.ASSIGNED)][:MOST_ASKED]
    told = await asyncio.gather(
        *(cluster.view.ask(questions.task(cluster.namespace, name_of(each))) for each in asked), return_exceptions=True
    )
    found: dict[str, TaskDetail] = {}
    why: NoAnswer | None = None
    for obj, each in zip(asked, told, strict=True):
        if isinstance(each, NoAnswer):
            why = why or each
        elif isinstance(each, BaseException):
            raise each
        elif each.uid == uid_of(obj):
            found[each.uid] = each
    return found, why
