"""A live view of one resource: list, watch, mend; each change told once, in order.

Owns the loop of requests around the store: paged consistent lists, watches with bookmarks, starting over after a 410,
back-off, noticing silence, and comparing the view with a fresh list now and then. What an event does to the view is the
store's to say, and what it means is the caller's.

Why each list names no resourceVersion: `0` is answered from a watch cache of any age, and a leader that recovers from
an old view would hand out what is taken.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from taskdist.common.backoff import Backoff
from taskdist.kube.client import Client, Page, WatchEvent
from taskdist.kube.errors import ApiError, HistoryWentBack, KubeError, Unanswered
from taskdist.kube.resources import Obj, Resource, uid_of, version_of
from taskdist.kube.store import Difference, DifferenceKind, Event, Store
from taskdist.kube.streamed import streamed

T = TypeVar("T")

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class InformerSettings:
    """Sizes and times of an informer. Times in seconds."""

    streamed: bool = True
    """Lists come as a stream from the server's memory, where it can do that; else in pages."""
    page_size: int = 500
    watch: tuple[int, int] = (240, 480)
    """A watch is asked to end after a time in this range, so that load moves to new API servers."""
    stall: float = 90.0
    """Silence after which a watch counts as dead; the server bookmarks about once a minute."""
    check: float = 600.0
    """Between two comparisons of the view with a fresh list; 0 turns them off."""
    settle: float = 5.0
    """What a watch may lag behind a list before a difference counts as one."""
    list_timeout: float = 60.0
    """For one page."""
    backoff: Backoff = field(default_factory=lambda: Backoff(first=0.2, most=2.0))
    """Short, as what runs is stopped when nobody leads for long; one request a second or two harms no server."""


DEFAULTS = InformerSettings()

LONGEST_ASKED = 30.0
"""The longest wait that the server may ask for, in seconds."""

LASTING = 5.0
"""Seconds. A watch that was up for this long proves that failures before it are over, even if it said nothing."""


@dataclass(slots=True)
class Counts:
    """Counters of an informer, for metrics."""

    lists: int = 0
    expired: int = 0
    """Starts over because the server no longer held our version (410)."""
    watches: int = 0
    failures: int = 0
    """Requests or streams that failed otherwise."""
    checks: int = 0
    differences: int = 0
    """Objects that a comparison found wrong in the view. Anything but 0 is a bug here or in the server."""


class Informer(Generic[T]):
    """A live view of one resource, in all namespaces or in some.

    Start `run` as a task and await `synced`. From then on `store` is the view, and `on_event` hears each change.

    `on_event` is called in the event loop, in order, and must not block; an exception from it ends `run`,
    as the view and its consumer would part ways otherwise. An object for which `transform` raises is set aside.
    """

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        transform: Callable[[Obj], T],
        on_event: Callable[[Event[T]], None],
        namespaces: Sequence[str] | None = None,
        label_selector: str = "",
        field_selector: str = "",
        on_difference: Callable[[Difference], None] | None = None,
        settings: InformerSettings = DEFAULTS,
        rng: random.Random | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`namespaces=None` watches all of them at once; a list gives each its own watch (and needs Roles only)."""
        if namespaces is not None and not namespaces:
            raise ValueError("an informer of no namespaces would never see anything")
        self.resource = resource
        self.store: Store[T] = Store(transform)
        self.counts = Counts()
        self._client = client
        self._on_event = on_event
        self._on_difference = on_difference
        self._labels = label_selector
        self._fields = field_selector
        self._settings = settings
        self._rng = rng or random.Random()
        self._clock = clock
        self._sleep = sleep
        scopes: list[str | None] = [None] if namespaces is None else list(dict.fromkeys(namespaces))
        self._scopes = [_Scope(self, scope) for scope in scopes]

    async def run(self) -> None:
        """Keep the view until cancelled."""
        async with asyncio.TaskGroup() as group:
            for scope in self._scopes:
                group.create_task(scope.run(), name=f"informer-{self.resource.plural}-{scope.namespace or 'all'}")
                if self._settings.check:
                    group.create_task(scope.check_forever(), name=f"check-{self.resource.plural}")

    async def synced(self) -> None:
        """Returns once the first list of each namespace is in the view."""
        for scope in self._scopes:
            await scope.synced.wait()

    @property
    def is_synced(self) -> bool:
        return all(scope.synced.is_set() for scope in self._scopes)

    def version_in(self, namespace: str) -> str | None:
        """Return up to which version this namespace has been told.

        Empty before its first list; None if it is not watched.
        """
        scopes = (scope for scope in self._scopes if scope.namespace in (None, namespace))
        return next((scope.version for scope in scopes), None)

    @property
    def silent_for(self) -> float:
        """Seconds since the quietest namespace last heard anything, a bookmark too; infinite before the first list."""
        now = self._clock()
        return max(now - scope.heard_at for scope in self._scopes)

    def apply_own(self, obj: Obj) -> None:
        """Put the answer to an own write into the view, so that nothing older is believed from now on.

        Told to `on_event` like any change. The object must be one this informer would watch.
        """
        self._tell(self.store.put(obj, answer=True))

    def apply_gone(self, uid: str) -> None:
        """A consistent read has shown that this uid is gone: out of the view now, and nothing heard late revives it."""
        self._tell(self.store.forget(uid))

    def apply_list(self, listed: set[str], version: str, namespace: str | None) -> None:
        """What a consistent list as of `version` holds is in the view, or was newer there: what it lacks is gone."""
        self._tell(self.store.sweep(listed, version, namespace))

    async def check(self) -> list[Difference]:
        """Compare the view with a fresh list at once; what differs and stays so is reported and mended."""
        return [difference for scope in self._scopes for difference in await scope.check()]

    def _tell(self, events: list[Event[T]]) -> None:
        for event in events:
            self._on_event(event)


class _Scope(Generic[T]):
    """The list and watch of one namespace, or of all."""

    def __init__(self, informer: Informer[T], namespace: str | None) -> None:
        self.namespace = namespace
        self.synced = asyncio.Event()
        self.heard_at = float("-inf")
        self._informer = informer
        self._version = ""
        self._failures = 0
        self._answered = True
        self._expired = 0
        self._torn = 0
        self._pages = False

    @property
    def version(self) -> str:
        return self._version

    async def run(self) -> None:
        informer = self._informer
        stale = True
        while True:
            try:
                if stale:
                    await self._list()
                    stale = False
                await self._watch()
            except ApiError as error:
                if error.is_gone:
                    informer.counts.expired += 1
                    stale = True
                    log.info("%s: version %s has expired, listing again", informer.resource, self._version)
                    # An answer: it leads straight to a new list, whatever failed before. Only a server that goes on
                    # so is waited for.
                    self._expired += 1
                    if self._expired > 1:
                        await self._rest(error)
                else:
                    await self._rest(error)
            except KubeError as error:
                await self._rest(error)

    async def _rest(self, error: KubeError) -> None:
        """Wait before going on; each failure in a row waits longer, until a watch has said or borne something.

        A server that answers again is asked again soon: what it answers while it starts is over in a moment.
        """
        informer = self._informer
        answered = isinstance(error, ApiError)
        if answered and not self._answered:
            self._failures = 0
        self._answered = answered
        attempt = self._failures
        self._failures += 1
        if not (isinstance(error, ApiError) and error.is_gone):
            informer.counts.failures += 1
        wait = informer._settings.backoff.wait(attempt, informer._rng)
        if isinstance(error, ApiError) and error.retry_after is not None:
            wait = max(wait, min(error.retry_after, LONGEST_ASKED))
        # The same trouble, each second, by each view: that it goes on is said elsewhere.
        level = {0: logging.INFO, 1: logging.WARNING}.get(attempt, logging.DEBUG)
        log.log(
            level, "%s in %s: %s; again in %.1f s", informer.resource, self.namespace or "all namespaces", error, wait
        )
        await informer._sleep(wait)

    def _heard(self) -> None:
        self.heard_at = self._informer._clock()

    async def _list(self) -> None:
        informer, settings = self._informer, self._informer._settings
        informer.counts.lists += 1
        if settings.streamed and not self._pages:
            parts = streamed(
                informer._client,
                informer.resource,
                self.namespace,
                label_selector=informer._labels,
                field_selector=informer._fields,
                part=settings.page_size,
                timeout=settings.list_timeout,
            )
            try:
                await self._take_in(parts)
            except (ApiError, Unanswered) as error:
                # Who refuses it has no such thing: it is not asked for it again.
                self._pages = isinstance(error, ApiError) and error.status in (400, 422)
                log.info("%s cannot be listed as a stream: %s", informer.resource, error)
            else:
                return
        pages = informer._client.pages(
            informer.resource,
            self.namespace,
            label_selector=informer._labels,
            field_selector=informer._fields,
            # Pages whose token expires before the end, twice in a row, are too slow: then all is asked for at once.
            page_size=settings.page_size if self._torn < 2 else 0,
            timeout=settings.list_timeout,
        )
        try:
            await self._take_in(pages)
        except ApiError as error:
            self._torn += error.is_gone
            raise
        self._torn = 0

    async def _take_in(self, pages: AsyncGenerator[Page, None]) -> None:
        """Bring the view to a fresh list. Pages go in as they come: each object is true on its own."""
        informer = self._informer
        store = informer.store
        listed: set[str] = set()
        version = ""
        async with aclosing(pages):
            async for page in pages:
                version = page.resource_version
                self._of_one_history(self._version, version)
                for obj in page.items:
                    listed.add(uid_of(obj))
                    informer._tell(store.put(obj))
                # A list of many pages must not keep everything else from running.
                await asyncio.sleep(0)
        informer._tell(store.sweep(listed, version, self.namespace))
        self._version = version
        self._heard()
        self.synced.set()

    def _of_one_history(self, watched: str, listed: str) -> None:
        """What was watched up to was the server's present once: a list from before it is of another history."""
        if watched.isdecimal() and listed.isdecimal() and int(watched) > int(listed):
            raise HistoryWentBack(
                f"{self._informer.resource} are listed as of version {listed}, after they were watched up to "
                f"{watched}: was etcd restored from a backup?"
            )

    async def _watch(self) -> None:
        informer = self._informer
        informer.counts.watches += 1
        started = informer._clock()
        try:
            async with informer._client.watch(
                informer.resource,
                self.namespace,
                resource_version=self._version,
                label_selector=informer._labels,
                field_selector=informer._fields,
                seconds=informer._rng.randint(*informer._settings.watch),
                stall=informer._settings.stall,
            ) as events:
                heard = False
                async for event in events:
                    heard = True
                    self._take(event)
        finally:
            lasted = informer._clock() - started
            if lasted > LASTING:
                self._failures = self._expired = 0
        # An orderly end. One that comes at once, with nothing said, is a server or proxy in trouble.
        if not heard and lasted < 1.0:
            raise Unanswered("the watch ended as soon as it began")

    def _take(self, event: WatchEvent) -> None:
        informer = self._informer
        obj = event.object
        match event.type:
            case "ADDED" | "MODIFIED":
                informer._tell(informer.store.put(obj))
            case "DELETED":
                informer._tell(informer.store.remove(obj))
            case "BOOKMARK":
                pass
            case _:
                raise Unanswered(f"the watch said {event.type!r}, which is no event")
        self._version = version_of(obj)
        self._failures = self._expired = 0
        self._heard()

    async def check_forever(self) -> None:
        informer = self._informer
        while True:
            # Spread, so that informers of many namespaces do not list at one moment.
            await informer._sleep(informer._settings.check * (0.75 + 0.5 * informer._rng.random()))
            try:
                await self.check()
            except KubeError as error:
                log.info("%s: the comparison was not possible: %s", informer.resource, error)

    async def check(self) -> list[Difference]:
        """Compare with a list of names and versions only; suspects get `settle` seconds to turn out as mere lag."""
        informer = self._informer
        store = informer.store
        await self.synced.wait()
        informer.counts.checks += 1
        watched = self._version
        listed: list[Obj] = []
        version = ""
        async for page in informer._client.pages(
            informer.resource,
            self.namespace,
            label_selector=informer._labels,
            field_selector=informer._fields,
            page_size=informer._settings.page_size,
            metadata_only=True,
            timeout=informer._settings.list_timeout,
        ):
            version = page.resource_version
            self._of_one_history(watched, version)
            listed += (_bare(obj) for obj in page.items)
            await asyncio.sleep(0)
        suspects = store.differences(listed, version, self.namespace)
        if not suspects:
            return []
        await informer._sleep(informer._settings.settle)
        # Judged against the same list: what happened since is newer than it and no difference.
        found = [suspect for suspect in suspects if store.still(suspect)]
        if found:
            informer.counts.differences += len(found)
            for difference in found:
                log.error("%s: the view differs from the server: %s", informer.resource, difference)
                if informer._on_difference is not None:
                    informer._on_difference(difference)
            await self._mend(found)
        return found

    async def _mend(self, found: list[Difference]) -> None:
        """Read what differs, one by one: a list here would race with the watch over the version to go on from."""
        informer = self._informer
        for difference in found:
            namespace = difference.namespace if informer.resource.namespaced else None
            try:
                obj = await informer._client.get(informer.resource, difference.name, namespace)
            except ApiError as error:
                if not error.is_not_found:
                    raise
                informer._tell(informer.store.forget(difference.uid))
                continue
            if uid_of(obj) != difference.uid:
                informer._tell(informer.store.forget(difference.uid))
            elif difference.kind is DifferenceKind.EXTRA:
                # It exists, and the list had it not: it does not match the selector.
                informer._tell(informer.store.forget(difference.uid, for_good=False))
                continue
            informer._tell(informer.store.put(obj))


def _bare(obj: Obj) -> Obj:
    """What a comparison looks at, and no more: managedFields of all objects together are large."""
    metadata = obj["metadata"]
    return {"metadata": {k: metadata[k] for k in ("uid", "name", "namespace", "resourceVersion") if k in metadata}}
