"""Ended Tasks of one namespace, or of all, in an order that lets a mark be given: list, watch, list again.

Keeps no Task: what it reads goes into the buffer, and while that is full it reads nothing. A watch that is given up for
that is taken up again, or begun anew with a list, where the database skips what it has.
"""

import random
from collections.abc import Callable
from typing import Protocol

import structlog

from taskdist.api import Phase
from taskdist.archive.buffer import Buffer
from taskdist.archive.progress import Item
from taskdist.archive.rows import Row, has_ended, row
from taskdist.common.backoff import Backoff
from taskdist.kube import TASKS, ApiError, Client, KubeError, Obj, Unanswered, version_of
from taskdist.kube.archived import ALL

_log = structlog.get_logger("taskdist.archive")

PAGE_OBJECTS = 100
"""How many are asked for at a time: so many are in memory as the API server sent them."""
WATCH_SECONDS = (240, 480)
STALL_SECONDS = 90.0
_WAITS = Backoff(first=0.2, most=5.0)
_SELECTOR = ",".join(f"status.phase!={phase}" for phase in (Phase.PENDING, Phase.ASSIGNED))


class Sleep(Protocol):
    """asyncio.sleep, or a test's."""

    async def __call__(self, seconds: float, /) -> None: ...


class Feed:
    """Reads one namespace, or all of them (None), into the buffer until cancelled.

    Args:
        failed: told of each request that failed.
    """

    def __init__(
        self,
        client: Client,
        namespace: str | None,
        buffer: Buffer,
        cluster: str,
        failed: Callable[[KubeError], None],
        sleep: Sleep,
        rng: random.Random | None = None,
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._scope = namespace or ALL
        self._buffer = buffer
        self._cluster = cluster
        self._failed = failed
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._version = ""
        self._failures = 0
        self._listed = False

    @property
    def listed(self) -> bool:
        """Whether a whole list was read since the start."""
        return self._listed

    async def run(self) -> None:
        """Read until cancelled."""
        stale = True
        while True:
            try:
                if stale:
                    await self._list()
                    stale = False
                await self._watch()
            except KubeError as error:
                stale = stale or (isinstance(error, ApiError) and error.is_gone)
                self._failed(error)
                wait = _WAITS.wait(self._failures, self._rng)
                self._failures += 1
                asked = error.retry_after if isinstance(error, ApiError) else None
                _log.info("reading Tasks failed", namespace=self._scope, why=str(error), again_in=round(wait, 1))
                await self._sleep(max(wait, min(asked or 0.0, 30.0)))

    async def _list(self) -> None:
        version = ""
        pages = self._client.pages(TASKS, self._namespace, field_selector=_SELECTOR, page_size=PAGE_OBJECTS)
        async for page in pages:
            if version == "" and _went_back(self._version, page.resource_version):
                _log.warning("the API server tells of an earlier time: was etcd restored?", namespace=self._scope)
                await self._buffer.put(Item(self._scope, -1))
            version = page.resource_version
            for obj in page.items:
                await self._put(obj, 0)
        await self._buffer.put(Item(self._scope, _mark(version)))
        self._version = version
        self._failures = 0
        self._listed = True

    async def _watch(self) -> None:
        heard = False
        async with self._client.watch(
            TASKS,
            self._namespace,
            resource_version=self._version,
            field_selector=_SELECTOR,
            seconds=self._rng.randint(*WATCH_SECONDS),
            stall=STALL_SECONDS,
        ) as events:
            async for event in events:
                heard = True
                version = version_of(event.object)
                if event.type in ("ADDED", "MODIFIED"):
                    await self._put(event.object, _mark(version))
                elif event.type == "DELETED":
                    # The last word on a Task that somebody deleted; most were told of before, as they ended.
                    await self._put(_at_no_version(event.object), _mark(version))
                elif event.type != "BOOKMARK":
                    raise Unanswered(f"the watch said {event.type!r}, which is no event")
                self._version = version
                self._failures = 0
        if not heard:
            raise Unanswered("the watch ended and said nothing")

    async def _put(self, obj: Obj, mark: int) -> None:
        if has_ended(obj):
            await self._buffer.put(Item(self._scope, mark, self._row(obj)))

    def _row(self, obj: Obj) -> Row:
        return row(obj, self._cluster)


def _mark(version: str) -> int:
    """A version that is no number lets no mark be given: then nothing is deleted for it."""
    return int(version) if version.isdecimal() else 0


def _at_no_version(obj: Obj) -> Obj:
    """The object as one that any other word on the same end goes before: its deletion adds nothing."""
    return {**obj, "metadata": {**obj["metadata"], "resourceVersion": "0"}}


def _went_back(watched: str, listed: str) -> bool:
    return watched.isdecimal() and listed.isdecimal() and int(watched) > int(listed)
