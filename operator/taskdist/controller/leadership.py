"""A leadership as one scope: what it opens is closed with it, in order, however and whenever it ends.

Owns the order of taking over and of letting go. What outlives leaderships (views, link, dispatch loop) is handed in as
`Parts`; when a leadership begins and ends is the election's to say.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any, Self

import structlog

from taskdist.api import POOL_LABEL
from taskdist.controller.asides import Asides
from taskdist.controller.dispatch import Dispatcher
from taskdist.controller.effects import KubeEffects
from taskdist.controller.handlers import KopfThread
from taskdist.controller.keepers import Keepers
from taskdist.controller.ownership import Ownership
from taskdist.controller.reaper import Reaper
from taskdist.controller.seen import SeenPool, SeenQueue
from taskdist.controller.settings import Settings
from taskdist.controller.trust import SeenPod
from taskdist.core import Core
from taskdist.core.model import Key
from taskdist.kube import PODS, TASKS, Client, Informer, KubeError, StatusWriter, catch_up
from taskdist.link.keeper import CertificateKeeper
from taskdist.link.server import LinkServer
from taskdist.protocol.observations import ObservedTask
from taskdist.protocol.operator import Leader
from taskdist.protocol.settings import LeaderSettings

_log = structlog.get_logger("taskdist.operator")

# Before a step of a takeover that the API server did not answer is tried again, in seconds.
AGAIN_SECONDS = 0.5
# How long a takeover waits for the newest queues and pools, in seconds.
DECLARED_SECONDS = 1.0
# How many reconciling threads of former leaderships may hang before the process ends.
MOST_HANGING = 3

OnFailed = Callable[[str, BaseException], None]
"""Told which part has failed for good, and how: the process is to end."""


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts that each leadership works with, and leaves as they were."""

    settings: Settings
    client: Client
    queues: Informer[SeenQueue]
    pools: Informer[SeenPool]
    tasks: Informer[ObservedTask]
    pods: Informer[SeenPod]
    dispatcher: Dispatcher
    effects: KubeEffects
    link: LinkServer
    listening: asyncio.Event  # set once agents can dial
    certificates: CertificateKeeper
    reaper: Reaper
    open_keepers: Callable[[], Awaitable[tuple[Keepers, Callable[[], Awaitable[None]]]]]
    asides: Asides
    ownership: Ownership


class Leadership:
    """One leadership, from the Lease in hand to the last thread that it started.

    Args:
        leader: who leads, in words, for agents that dial a replica that does not.
    """

    def __init__(self, epoch: int, parts: Parts, leader: Callable[[], str], failed: OnFailed) -> None:
        self._epoch = epoch
        self._parts = parts
        self._leader = leader
        self._failed = failed
        self._over = asyncio.Event()
        self._quiet = asyncio.Event()
        self._writer_stop = asyncio.Event()
        self._opening: asyncio.Task[None] | None = None
        self._life: asyncio.Task[None] | None = None
        self._kopf: KopfThread | None = None
        self._loop = asyncio.get_running_loop()

    def begin(self, former: "Leadership | None") -> Self:
        """Take over as soon as the former leadership of this process is closed. Returns at once."""
        self._life = self._loop.create_task(self._live(former), name=f"leadership {self._epoch}")
        return self

    def end(self) -> None:
        """Decide and write nothing any more, and begin to close. Returns at once; safe to repeat, and at any time."""
        if self._over.is_set():
            return
        self._over.set()
        self._writer_stop.set()
        if self._opening is not None:
            self._opening.cancel()
        self._parts.dispatcher.stop_leading()
        if self._kopf is not None:
            self._kopf.end()

    async def quiet(self) -> None:
        """Wait until nothing is done in its name any more: the Lease may be let go."""
        await self._quiet.wait()

    async def closed(self) -> None:
        """Wait until nothing is left of it."""
        if self._life is not None:
            await asyncio.wait({self._life})

    def look_at(self, pools: set[Key], queues: set[Key]) -> None:
        """Have these pools and queues reconciled."""
        if self._kopf is not None:
            self._kopf.look_at(pools, queues)

    @property
    def silent_for(self) -> float:
        """Seconds since the reconciling loop last turned over; 0 while there is none, or none is needed any more."""
        return 0.0 if self._kopf is None or self._over.is_set() else self._kopf.silent_for

    # -- its life --------------------------------------------------------------------------------------------------

    async def _live(self, former: "Leadership | None") -> None:
        try:
            if former is not None:
                await former.closed()
            # What is in `threads` may end after the Lease was let go: it can do nothing any more.
            async with AsyncExitStack() as threads:
                try:
                    async with AsyncExitStack() as scope:
                        if not self._over.is_set():
                            await self._opened(scope, threads)
                        await self._over.wait()
                finally:
                    self._quiet.set()
        except Exception as error:
            # Half a leadership is worse than none.
            self._failed("taking over", error)
        finally:
            self._quiet.set()

    async def _opened(self, scope: AsyncExitStack, threads: AsyncExitStack) -> None:
        self._opening = asyncio.create_task(self._open(scope, threads), name="taking over")
        try:
            await asyncio.wait({self._opening})
        finally:
            self._opening.cancel()
        if not self._opening.cancelled():
            self._opening.result()

    async def _open(self, scope: AsyncExitStack, threads: AsyncExitStack) -> None:
        """Take over. Each thing that is opened says first, in `scope`, how it is closed: the last one first."""
        parts, settings = self._parts, self._parts.settings
        begun = self._loop.time()
        writer = StatusWriter(parts.client, TASKS, concurrency=settings.write_concurrency, stop=self._writer_stop)
        # What is declared need not be of this very moment, and the watch will tell; what runs where has to be.
        declared = [asyncio.create_task(self._refreshed(view)) for view in (parts.queues, parts.pools)]
        try:
            # Pods last: one that is absent from a list later than the Tasks' is gone, and its leases with it.
            await self._answered(lambda: self._catch_up(parts.tasks))
            await self._answered(lambda: self._catch_up(parts.pods))
            await asyncio.gather(*declared)
        finally:
            for each in declared:
                each.cancel()
        if not parts.certificates.present:  # else it serves, and is seen to beside all else
            await self._answered(parts.certificates.refresh)
        parts.ownership.begin()
        self._work(scope, parts.certificates.run(), "certificates")
        self._work(scope, parts.ownership.run(), "ownership")
        scope.callback(parts.effects.write_with, None)
        parts.effects.write_with(writer)
        scope.push_async_callback(parts.dispatcher.forget)
        scope.callback(parts.dispatcher.stop_leading)
        parts.dispatcher.lead(
            Leader(Core(), self._epoch, LeaderSettings(), secrets.token_hex(8)),
            [q.queue for q in parts.queues.store],
            [p.pool for p in parts.pools.store],
            list(parts.tasks.store.readable()),
            [q.queue.key for q in parts.queues.store if not q.accepting],
            [(p.pool.key, p.performance) for p in parts.pools.store],
        )
        parts.asides.begin()
        self._work(scope, parts.reaper.run(), "retention")
        await parts.listening.wait()
        scope.callback(parts.link.turn_away, self._leader)
        parts.link.admit()
        kopf = KopfThread(parts.open_keepers, settings.watch_namespaces, self._kopf_failed)
        threads.push_async_callback(self._kopf_ended, kopf)
        scope.callback(kopf.end)
        kopf.start()
        self._kopf = kopf
        _log.info(
            "leading",
            epoch=self._epoch,
            tasks=len(parts.tasks.store),
            took_seconds=round(self._loop.time() - begun, 3),
        )

    async def _refreshed(self, informer: Informer[Any]) -> None:
        """Catch up if that is soon done: after an outage of etcd the API server may be long in listing one kind."""
        try:
            async with asyncio.timeout(DECLARED_SECONDS):
                await self._catch_up(informer)
        except (KubeError, TimeoutError) as error:
            _log.warning("taking over with what was known of them", kind=str(informer.resource), why=str(error))

    async def _answered(self, step: Callable[[], Awaitable[Any]]) -> None:
        """Do this until the API server has answered, or the leadership ends."""
        while True:
            try:
                await step()
                return
            except KubeError as error:
                _log.warning("the API server does not let this leadership begin yet; it is tried again", why=str(error))
                await asyncio.sleep(AGAIN_SECONDS)

    async def _catch_up(self, informer: Informer[Any]) -> None:
        """Bring a view up to a list that no cache answered: what another leader wrote last must be known."""
        resource = informer.resource
        for namespace in self._parts.settings.watch_namespaces or (None,):
            await catch_up(
                self._parts.client,
                informer,
                namespace,
                label_selector=POOL_LABEL if resource == PODS else "",
                by_name=resource == TASKS,  # they are many, and few have changed since the watch told
            )

    def _work(self, scope: AsyncExitStack, work: "asyncio._CoroutineLike[None]", name: str) -> None:
        """Do this for as long as this leadership lasts."""

        def ended(task: "asyncio.Task[None]") -> None:
            if not task.cancelled() and (error := task.exception()) is not None:
                self._failed(name, error)

        async def end() -> None:
            task.cancel()
            await asyncio.wait({task})

        task = self._loop.create_task(work, name=name)
        task.add_done_callback(ended)
        scope.push_async_callback(end)

    async def _kopf_ended(self, kopf: KopfThread) -> None:
        if await kopf.ended():
            return
        # What it would write is refused, and what it reads goes nowhere: a healthy process need not end for it.
        left = KopfThread.running()
        _log.warning("the reconciling thread hangs and is left to itself", hanging=left)
        if left > MOST_HANGING:
            self._failed("reconciling", RuntimeError(f"{left} threads of former leaderships hang"))

    def _kopf_failed(self, error: BaseException | None) -> None:
        """Called on the reconciling thread."""
        ended = error or RuntimeError("kopf ended although nobody asked it to")
        self._loop.call_soon_threadsafe(self._failed, "reconciling", ended)
