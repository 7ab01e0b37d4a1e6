"""Deletion of Tasks whose time to live is over, while this operator leads: a few at a time, and never a changed one.

Owns the pace and what a refusal means. When a Task is due is not decided here.
"""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from taskdist.controller.retention import Retention
from taskdist.kube import TASKS, ApiError, KubeError
from taskdist.kube.resources import Resource
from taskdist.protocol.observations import ObservedTask

_log = structlog.get_logger("taskdist.retention")

# As many a second as Tasks can be finished on a fast API server, so that what is over cannot pile up.
MOST_A_SECOND = 100
IN_FLIGHT = 4
# After a deletion that did not succeed, in seconds. A conflict's news is on its way, and settles it sooner.
AGAIN_SECONDS = 30.0
# The pause after the API server denied the right to delete, in seconds.
FORBIDDEN_SECONDS = 60.0
LOOK_SECONDS = 1.0
# How long nothing is deleted at most, as it is not known yet what sinks hold back, in seconds.
KNOWN_SECONDS = 60.0


class Deleter(Protocol):
    """The part of the API client that is used: deletes where uid and version still match, or raises KubeError."""

    async def delete(
        self, resource: Resource, name: str, namespace: str, *, uid: str, resource_version: str, propagation: str
    ) -> object: ...


class Reaper:
    """Deletes the Tasks that are due.

    Args:
        may_act: whether leadership is sure now; asked before each deletion.
        deleted: told of each Task that was deleted.
        serves: whether a namespace is this installation's now; Tasks in others are another's to delete.
        known: returns once it is known what sinks hold back.
    """

    def __init__(
        self,
        client: Deleter,
        retention: Retention,
        may_act: Callable[[], bool],
        deleted: Callable[[ObservedTask], None],
        wall: Callable[[], float] = time.time,
        serves: Callable[[str], bool] = lambda _namespace: True,
        known: Callable[[], Awaitable[None]] | None = None,
    ) -> None:
        self._client = client
        self._retention = retention
        self._may_act = may_act
        self._deleted = deleted
        self._known = known
        self._wall = wall
        self._serves = serves
        self._rests_until = 0.0

    async def run(self) -> None:
        """Delete until cancelled."""
        loop = asyncio.get_running_loop()
        if self._known is not None:
            # Not for ever: where the kind is not installed yet, or may not be read, nothing is held back.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(KNOWN_SECONDS):
                    await self._known()
        while True:
            begun = loop.time()
            await self.round()
            await asyncio.sleep(max(0.0, begun + LOOK_SECONDS - loop.time()))

    async def round(self) -> None:
        """Delete what is due now, at most a second's worth."""
        if self._wall() < self._rests_until:
            return
        left = {record.task.uid: record for record in self._retention.due(self._wall(), MOST_A_SECOND)}
        gate = asyncio.Semaphore(IN_FLIGHT)

        async def one(record: ObservedTask) -> None:
            async with gate:
                if not self._serves(record.task.namespace):
                    self._retention.again(record.task.uid, self._wall() + AGAIN_SECONDS)
                    del left[record.task.uid]
                elif self._may_act() and self._wall() >= self._rests_until:
                    await self._delete(record)
                    del left[record.task.uid]

        try:
            await asyncio.gather(*(one(record) for record in list(left.values())))
        finally:
            # Leadership has ended between two of them; it may come back to this process.
            for uid in left:
                self._retention.again(uid, self._wall())

    async def _delete(self, record: ObservedTask) -> None:
        task = record.task
        try:
            await self._client.delete(
                TASKS,
                task.name,
                task.namespace,
                uid=task.uid,
                resource_version=str(record.resource_version),
                propagation="Background",
            )
        except KubeError as error:
            if isinstance(error, ApiError) and error.is_not_found:
                return
            self._retention.again(task.uid, self._wall() + AGAIN_SECONDS)
            if isinstance(error, ApiError) and error.is_conflict:
                return
            if isinstance(error, ApiError) and error.is_forbidden:
                self._rests_until = self._wall() + FORBIDDEN_SECONDS
                _log.warning("ended Tasks are not deleted: the operator may not delete Tasks", why=str(error))
                return
            _log.info("a Task could not be deleted yet", task=f"{task.namespace}/{task.name}", error=str(error))
        else:
            self._deleted(record)
