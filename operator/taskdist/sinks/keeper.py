"""The sinks that there are, as the informer tells of them, each at work."""

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime
from functools import partial

import structlog

from taskdist.api import SinkReason, TaskSink, TaskSinkSpec, Unreadable
from taskdist.elected.keeper import Keeper, bare_metadata, tell_odd
from taskdist.kube import Client, Obj
from taskdist.protocol import reading
from taskdist.sinks.metrics import SinkMetrics
from taskdist.sinks.receiver import Open
from taskdist.sinks.reporting import Reporter, position_of
from taskdist.sinks.running import Running
from taskdist.sinks.sending import Commons

_log = structlog.get_logger("taskdist.sinks")


def keep_sinks(
    client: Client,
    metrics: SinkMetrics,
    connect: Callable[[TaskSink], Open | None],
    leading: Callable[[], bool],
    failed: Callable[[BaseException], None],
    now: Callable[[], datetime],
    ticks: Callable[[], float],
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> Keeper[Reporter]:
    """Return the keeper of the sinks of the served namespaces.

    Args:
        connect: how a sink's receiver is opened.
    """
    commons = Commons()

    async def live(body: Obj, former: Reporter | None, carry: Callable[[Reporter], None]) -> None:
        odd: Unreadable | None = None
        try:
            sink = reading.task_sink(body)
            sink.status.position = position_of(sink)
        except Unreadable as error:
            sink, odd = TaskSink(metadata=bare_metadata(body["metadata"]), spec=TaskSinkSpec()), error
        if former is not None:
            # What came about since the last write is not in the object.
            sink.status = former.status
        reporter = Reporter(client, sink, metrics, leading, now)
        if odd is None:
            carry(reporter)
            await Running(client, sink, reporter, connect(sink), ticks, sleep, commons).run()
            return
        namespace, name = reporter.key
        _log.warning("a sink cannot be read, and is set aside", namespace=namespace, name=name, why=str(odd))
        reporter.say(SinkReason.UNREADABLE, f"Set aside, and left as it is: {odd}")
        await tell_odd(partial(reporter.flush, conditions_only=True), sleep)

    return Keeper("sink", live, metrics.gone, failed)
