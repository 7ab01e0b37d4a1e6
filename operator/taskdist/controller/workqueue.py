"""A keyed work queue: one run per key at a time, requests meanwhile coalesce into one more, failures back off.

What kopf's own retries cannot give here: they live in annotations, and most requests come from the dispatch loop
rather than from a change of the object.
"""

import asyncio
from collections.abc import Awaitable, Callable, Hashable
from typing import Generic, TypeVar

from taskdist.common.backoff import Backoff

K = TypeVar("K", bound=Hashable)


class WorkQueue(Generic[K]):
    """Runs `work(key)` for each key asked for. Lives on one event loop.

    Args:
        work: raises to be run again, after a wait that grows with each failure in a row.
        failed: told of each failure.
    """

    def __init__(
        self,
        work: Callable[[K], Awaitable[None]],
        failed: Callable[[K, Exception], None],
        *,
        backoff: Backoff | None = None,
    ) -> None:
        self._work = work
        self._failed = failed
        self._backoff = backoff or Backoff(first=0.2, most=30.0)
        self._asked: dict[K, asyncio.Event] = {}
        self._runs: dict[K, asyncio.Task[None]] = {}
        self._ended = False

    def ask(self, key: K) -> None:
        """Run the key's work soon; at once if it waits out a back-off. Ignored after `end`."""
        if self._ended:
            return
        event = self._asked.get(key)
        if event is not None:
            event.set()
            return
        self._asked[key] = event = asyncio.Event()
        event.set()
        self._runs[key] = asyncio.get_running_loop().create_task(self._run(key, event), name=f"reconcile {key}")

    async def idle(self) -> None:
        """Wait until no key has work left."""
        while self._runs:
            await asyncio.gather(*self._runs.values(), return_exceptions=True)

    def end(self) -> None:
        """Begin no run any more. From any thread."""
        self._ended = True

    def cancel(self) -> None:
        """End, and cancel what runs."""
        self.end()
        for run in self._runs.values():
            run.cancel()

    async def close(self) -> None:
        """Cancel what runs and wait for its end."""
        self.cancel()
        await asyncio.gather(*self._runs.values(), return_exceptions=True)

    async def _run(self, key: K, asked: asyncio.Event) -> None:
        failures = 0
        try:
            while asked.is_set() and not self._ended:
                asked.clear()
                try:
                    await self._work(key)
                except Exception as error:  # any failure is retried: the work is idempotent
                    self._failed(key, error)
                    try:
                        async with asyncio.timeout(self._backoff.full(failures)):
                            await asked.wait()
                    except TimeoutError:
                        pass
                    asked.set()
                    failures += 1
                else:
                    failures = 0
        finally:
            self._asked.pop(key, None)
            self._runs.pop(key, None)
