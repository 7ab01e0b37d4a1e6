"""kopf, in a thread and an event loop of its own: it watches pools and queues and hands what it sees to the keepers.

Only `on.event` handlers: they write no annotation and no finalizer on the user's objects, and level-triggered keepers
need no memory of what was handled. They are coroutines, as a plain function would be given a thread. kopf re-lists
after a 410 without telling of deletions; a keeper that writes to what is gone gets a 404 and lets go, and the pods go
with their owner.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import kopf
import structlog

from taskdist.api import GROUP, VERSION, AgentPool, TaskQueue
from taskdist.controller.failures import end_on_failure
from taskdist.controller.keepers import Keepers
from taskdist.core.model import Key
from taskdist.kube.kopf_setup import bound_depth, build_settings

_log = structlog.get_logger("taskdist.kopf")

# How often the reconciling loop says that it turns over, in seconds.
BEAT_SECONDS = 1.0
# How long it may take to end, and how often what it still does is cancelled meanwhile, in seconds.
END_SECONDS = 2.0
CANCEL_SECONDS = 0.2
NAME = "kopf"


def build_registry(keepers: Keepers) -> kopf.OperatorRegistry:
    """Return kopf's handlers: parse, delegate."""
    registry = kopf.OperatorRegistry()
    # The official client's ways in: in-cluster, or the kubeconfig that KUBECONFIG names, exec plugins included.
    kopf.on.login(registry=registry)(kopf.login_via_client)

    @kopf.on.event(GROUP, VERSION, AgentPool.plural, registry=registry)
    async def pool(type: str | None, body: kopf.Body, namespace: str | None, name: str | None, **_: Any) -> None:
        if type == "DELETED":
            keepers.pool_deleted((str(namespace), str(name)))
        else:
            keepers.pool_seen(dict(body))

    @kopf.on.event(GROUP, VERSION, TaskQueue.plural, registry=registry)
    async def queue(type: str | None, body: kopf.Body, namespace: str | None, name: str | None, **_: Any) -> None:
        if type == "DELETED":
            keepers.queue_deleted((str(namespace), str(name)))
        else:
            keepers.queue_seen(dict(body))

    return registry


class KopfThread:
    """Runs kopf and the keepers while this operator leads.

    Args:
        open_keepers: called on the new loop; returns the keepers and what closes them.
        failed: called, on the new thread, with what ended kopf although nobody asked it to.
    """

    def __init__(
        self,
        open_keepers: Callable[[], Awaitable[tuple[Keepers, Callable[[], Awaitable[None]]]]],
        namespaces: tuple[str, ...],
        failed: Callable[[BaseException | None], None],
    ) -> None:
        self._open_keepers = open_keepers
        self._namespaces = namespaces
        self._failed = failed
        self._stop = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._keepers: Keepers | None = None
        # When the loop last turned over; None before it does and after its end.
        self._beat_at: float | None = None
        self._thread = threading.Thread(target=self._main, name=NAME, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def look_at(self, pools: set[Key], queues: set[Key]) -> None:
        """Have these pools and queues looked at again. Called from any thread; nothing happens before it is ready."""
        keepers = self._keepers
        if keepers is None:
            return

        def look() -> None:
            for key in pools:
                keepers.look_at_pool(key)
            for key in queues:
                keepers.look_at_queue(key)

        self._on_loop(look)

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def silent_for(self) -> float:
        """Seconds since the loop last turned over; 0 while there is none. Read from any thread."""
        at = self._beat_at
        return 0.0 if at is None else max(0.0, time.monotonic() - at)

    @staticmethod
    def running() -> int:
        """How many of these threads run in this process."""
        return sum(thread.name == NAME for thread in threading.enumerate())

    def end(self) -> None:
        """Have it end: the keepers begin nothing more. Returns at once; from any thread, safe to repeat."""
        self._stop.set()
        if (keepers := self._keepers) is not None:
            keepers.end()
            self._on_loop(keepers.cancel)

    async def ended(self, patience: float = END_SECONDS) -> bool:
        """Wait for its end after `end`; False if it has not come within `patience` seconds.

        kopf waits for its requests. A request to an API server that is gone hangs, so all is cancelled, and more than
        once: a cancellation that comes while kopf waits for a thread is lost.
        """
        deadline = time.monotonic() + patience
        while self._thread.is_alive() and time.monotonic() < deadline:
            await asyncio.to_thread(self._thread.join, CANCEL_SECONDS)
            self._on_loop(self._cancel_all)
        return not self._thread.is_alive()

    def _on_loop(self, do: Callable[[], object]) -> None:
        if (loop := self._loop) is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed
                loop.call_soon_threadsafe(do)

    @staticmethod
    def _cancel_all() -> None:
        for task in asyncio.all_tasks():
            task.cancel()

    def _main(self) -> None:
        error: BaseException | None = None
        try:
            asyncio.run(self._run())
        except BaseException as caught:
            error = caught
            if not self._stop.is_set():
                _log.exception("kopf ended with an error")
        finally:
            self._keepers = None
            self._loop = None
            self._beat_at = None
        if not self._stop.is_set():
            self._failed(error)

    async def _run(self) -> None:
        bound_depth()
        self._loop = asyncio.get_running_loop()
        end_on_failure(self._loop, lambda: None if self._stop.is_set() else self._failed(None))
        beating = self._loop.create_task(self._beat(), name="beat")
        keepers, close = await self._open_keepers()
        self._keepers = keepers
        try:
            await kopf.operator(
                registry=build_registry(keepers),
                settings=build_settings(),
                # Nobody is told, without peering; but kopf would ask who runs it, and fails where the user of a
                # container is a number without a name. Its type is private to kopf.
                identity="taskdist",  # type: ignore[arg-type]
                standalone=True,
                clusterwide=not self._namespaces,
                namespaces=self._namespaces,
                stop_flag=self._stop,
            )
        finally:
            beating.cancel()
            await close()

    async def _beat(self) -> None:
        while True:
            self._beat_at = time.monotonic()
            await asyncio.sleep(BEAT_SECONDS)
