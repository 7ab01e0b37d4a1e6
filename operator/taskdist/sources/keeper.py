"""The sources that there are, as kopf's handlers tell of them, and one asyncio task for each that runs it.

A source is begun when it is seen, begun anew when its spec is another one, and ended when it is deleted. The new one
waits until the old has ended, so that no source ever runs twice in a process.
"""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import structlog

from taskdist.api import ObjectMeta, SourceReason, TaskSource, TaskSourceSpec, Unreadable
from taskdist.api.template import TaskTemplate
from taskdist.kube import Client, KubeError
from taskdist.kube.own_status import Changed, Gone
from taskdist.protocol import reading
from taskdist.sources.metrics import Key, SourceMetrics
from taskdist.sources.reporting import Reporter
from taskdist.sources.running import AGAIN, Brokers, Running

_log = structlog.get_logger("taskdist.sources")

# How often it is tried to say on an odd source that it is set aside: half an hour in all.
TOLD_TRIES: Final = 35


@dataclass(slots=True)
class _Entry:
    """A source that is there: the state of it that runs, and what it says of itself."""

    uid: str
    generation: int
    task: asyncio.Task[None] | None = None
    reporter: Reporter | None = None  # made once the former state has ended


class Sources:
    """The sources of the served namespaces. Lives on one event loop.

    Args:
        leading: whether this process leads.
        failed: told of what ended a source's task although nothing ever should.
    """

    def __init__(
        self,
        client: Client,
        metrics: SourceMetrics,
        leading: Callable[[], bool],
        failed: Callable[[BaseException], None],
        now: Callable[[], datetime],
        brokers: Brokers,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._client = client
        self._metrics = metrics
        self._leading = leading
        self._failed = failed
        self._now = now
        self._brokers = brokers
        self._sleep = sleep
        self._entries: dict[Key, _Entry] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended = False

    def seen(self, body: dict[str, Any]) -> None:
        """The source exists, with this content."""
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
        entry.task = asyncio.create_task(self._live(body, entry, former), name=f"source {key[0]}/{key[1]}")
        self._tasks.add(entry.task)
        entry.task.add_done_callback(self._over)

    def deleted(self, key: Key) -> None:
        """The source is gone. Its Tasks stay."""
        entry = self._entries.pop(key, None)
        if entry is not None and entry.task is not None:
            entry.task.cancel()
            self._metrics.gone(key)

    async def close(self) -> None:
        """End all of them, and begin none any more."""
        self._ended = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def settled(self) -> None:
        """Wait until each source waits for a change, or is gone."""
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _live(self, body: dict[str, Any], entry: _Entry, former: _Entry | None) -> None:
        """Run this state of the source once the former one runs no more."""
        if former is not None and former.task is not None:
            former.task.cancel()
            await asyncio.wait({former.task})
        odd: Unreadable | None = None
        try:
            source = reading.task_source(body)
        except Unreadable as error:
            source, odd = _shell(body["metadata"]), error
        if former is not None and former.uid == entry.uid and former.reporter is not None:
            # What was counted since the last write is not in the object.
            source.status = former.reporter.status
        reporter = Reporter(self._client, source, self._metrics, self._leading, self._now)
        if odd is not None:
            await self._tell_odd(reporter, odd)
        else:
            entry.reporter = reporter
            running = Running(self._client, source, reporter, self._metrics, self._now, self._sleep, self._brokers)
            await running.run()

    async def _tell_odd(self, reporter: Reporter, error: Unreadable) -> None:
        """Say on a source that this release cannot read that it is so, and leave it alone."""
        namespace, name = reporter.key
        _log.warning("a source cannot be read, and is set aside", namespace=namespace, name=name, why=str(error))
        reporter.say(SourceReason.UNREADABLE, f"Set aside, and left as it is: {error}")
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


def _shell(metadata: dict[str, Any]) -> TaskSource:
    """Return as much of a source that cannot be read as it takes to write its status."""
    shell = ObjectMeta(
        namespace=str(metadata["namespace"]),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        resource_version=str(metadata["resourceVersion"]),
        generation=int(metadata.get("generation") or 0),
    )
    return TaskSource(metadata=shell, spec=TaskSourceSpec(task=TaskTemplate(queue="-", type="-")))
