"""Which sinks there are, and one task for each that runs it.

A sink is begun when it is seen, begun anew when its spec is another one, and ended when it is deleted. The new one
waits until the old has ended, so that no sink ever runs twice in a process.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from taskdist.api import ObjectMeta, SinkReason, TaskSink, TaskSinkSpec, Unreadable
from taskdist.kube import Client, Deleted, Event, KubeError, Obj
from taskdist.kube.own_status import Changed, Gone
from taskdist.kube.store import Aside
from taskdist.protocol import reading
from taskdist.sinks.metrics import Key, SinkMetrics
from taskdist.sinks.receiver import Open
from taskdist.sinks.reporting import Reporter, position_of
from taskdist.sinks.running import AGAIN, Running
from taskdist.sinks.sending import Commons

_log = structlog.get_logger("taskdist.sinks")

# How often it is tried to say on an odd sink that it is set aside: half an hour in all.
TOLD_TRIES: Final = 35


@dataclass(slots=True)
class _Entry:
    """One sink that is there: which state of it runs, and what it says of itself."""

    uid: str
    generation: int
    task: asyncio.Task[None] | None = None
    reporter: Reporter | None = None  # made once the former state has ended


class Sinks:
    """The sinks of the served namespaces. Lives on one event loop.

    Args:
        connect: how a sink's receiver is opened.
        leading: whether this process leads.
        failed: told of what ended a sink's task although nothing ever should.
    """

    def __init__(
        self,
        client: Client,
        metrics: SinkMetrics,
        connect: Callable[[TaskSink], Open | None],
        leading: Callable[[], bool],
        failed: Callable[[BaseException], None],
        now: Callable[[], datetime],
        ticks: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._connect = connect
        self._leading = leading
        self._failed = failed
        self._now = now
        self._ticks = ticks
        self._sleep = sleep
        self._commons = Commons()
        self._entries: dict[Key, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    def hear(self, event: Event[Obj]) -> None:
        """Take in a change: the informer's `on_event`."""
        if isinstance(event, Aside):  # what is kept is the object as it came: there is nothing that cannot be read
            return
        if isinstance(event, Deleted):
            metadata = event.old["metadata"]
            self.deleted((str(metadata["namespace"]), str(metadata["name"])))
        else:
            self.seen(event.new)

    def seen(self, body: dict[str, Any]) -> None:
        """The sink exists, with this content."""
        metadata = body["metadata"]
        key = (str(metadata["namespace"]), str(metadata["name"]))
        uid, generation = str(metadata["uid"]), int(metadata.get("generation") or 0)
        if "deletionTimestamp" in metadata:
            self.deleted(key)
            return
        former = self._entries.get(key)
        if self._ended or (former is not None and former.uid == uid and generation <= former.generation):
            return
        entry = self._entries[key] = _Entry(uid, generation)
        entry.task = asyncio.create_task(self._live(body, entry, former), name=f"sink {key[0]}/{key[1]}")
        self._tasks.add(entry.task)
        entry.task.add_done_callback(self._over)

    def deleted(self, key: Key) -> None:
        """The sink is gone."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()
            # Once it has had its last word, and no other of its name has come meanwhile.
            entry.task.add_done_callback(lambda _: None if key in self._entries else self._metrics.gone(key))

    async def close(self) -> None:
        """End all of them, and begin none any more."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _live(self, body: dict[str, Any], entry: _Entry, former: _Entry | None) -> None:
        """Run this state of the sink once the former one runs no more."""
        if former is not None and former.task is not None:
            former.task.cancel()
            await asyncio.wait({former.task})
        odd: Unreadable | None = None
        try:
            sink = reading.task_sink(body)
            sink.status.position = position_of(sink)
        except Unreadable as error:
            sink, odd = _shell(body["metadata"]), error
        if former is not None and former.uid == entry.uid and former.reporter is not None:
            # What came about since the last write is not in the object.
            sink.status = former.reporter.status
        reporter = Reporter(self._client, sink, self._metrics, self._leading, self._now)
        if odd is not None:
            await self._tell_odd(reporter, odd)
        else:
            entry.reporter = reporter
            await Running(
                self._client, sink, reporter, self._connect(sink), self._ticks, self._sleep, self._commons
            ).run()

    async def _tell_odd(self, reporter: Reporter, error: Unreadable) -> None:
        """Say on a sink that this release cannot read that it is so, and leave it alone."""
        namespace, name = reporter.key
        _log.warning("a sink cannot be read, and is set aside", namespace=namespace, name=name, why=str(error))
        reporter.say(SinkReason.UNREADABLE, f"Set aside, and left as it is: {error}")
        for attempt in range(TOLD_TRIES):
            try:
                await reporter.flush(conditions_only=True)
                return
            except (Gone, Changed):
                return
            except KubeError:
                await self._sleep(AGAIN.full(attempt))

    def _over(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)


def _shell(metadata: dict[str, Any]) -> TaskSink:
    """Of a sink that cannot be read: enough to write its status."""
    shell = ObjectMeta(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        resource_version=str(metadata["resourceVersion"]),
        generation=int(metadata.get("generation") or 0),
    )
    return TaskSink(metadata=shell, spec=TaskSinkSpec())
