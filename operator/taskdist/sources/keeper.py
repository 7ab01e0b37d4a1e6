"""The sources that there are, as kopf's handlers tell of them, each at work."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import structlog

from taskdist.api import SourceReason, TaskSource, TaskSourceSpec, Unreadable
from taskdist.api.template import TaskTemplate
from taskdist.elected.keeper import Keeper, bare_metadata, tell_odd
from taskdist.kube import Client, Obj
from taskdist.protocol import reading
from taskdist.sources.metrics import SourceMetrics
from taskdist.sources.reporting import Reporter
from taskdist.sources.running import Brokers, Running

_log = structlog.get_logger("taskdist.sources")


def keep_sources(
    client: Client,
    metrics: SourceMetrics,
    leading: Callable[[], bool],
    failed: Callable[[BaseException], None],
    now: Callable[[], datetime],
    brokers: Brokers,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Keeper[Reporter]:
    """Return the keeper of the sources of the served namespaces. The Tasks of a source that is deleted stay."""

    async def live(body: Obj, former: Reporter | None, carry: Callable[[Reporter], None]) -> None:
        odd: Unreadable | None = None
        try:
            source = reading.task_source(body)
        except Unreadable as error:
            shell = TaskSourceSpec(task=TaskTemplate(queue="-", type="-"))
            source, odd = TaskSource(metadata=bare_metadata(body["metadata"]), spec=shell), error
        if former is not None:
            # What was counted since the last write is not in the object.
            source.status = former.status
        reporter = Reporter(client, source, metrics, leading, now)
        if odd is None:
            carry(reporter)
            await Running(client, source, reporter, metrics, now, sleep, brokers).run()
            return
        namespace, name = reporter.key
        _log.warning("a source cannot be read, and is set aside", namespace=namespace, name=name, why=str(odd))
        reporter.say(SourceReason.UNREADABLE, f"Set aside, and left as it is: {odd}")
        await tell_odd(partial(reporter.flush, conditions_only=True), sleep)

    return Keeper("source", live, metrics.gone, failed)
