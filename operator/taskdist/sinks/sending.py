"""One sink at work: ends come in, are sent, and are told or tried again; its status says up to where all is told.

What is sent when `outgoing.delivery` decides; this carries it out. Whatever ends it, the next one begins from the
position in the status, and tells again what was told above it.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field, replace
from typing import Final

import structlog

from taskdist.api import SinkReason, TaskSink
from taskdist.common.backoff import Backoff
from taskdist.kube import TASKS, ApiError, Client, KubeError, uid_of
from taskdist.outgoing.delivery import Delivery, Failure, Room, Rules
from taskdist.outgoing.ends import End, Selection, end_id
from taskdist.sinks.feed import Feed
from taskdist.sinks.receiver import NotTold, Open, Receiver
from taskdist.sinks.reporting import Reporter

_log = structlog.get_logger("taskdist.sinks")

# How many sinks list Tasks at once.
LISTS_AT_ONCE: Final = 4
# The most often that status is written, in seconds.
LOOK_SECONDS: Final = 5.0
# How often it is made sure that the sink is as it was: a deletion may go unheard.
CONFIRM_SECONDS: Final = 60.0
# How long the last word may take as it ends, in seconds.
END_SECONDS: Final = 2.0
# The shortest sleep, in seconds: two ways to add up the same time may differ by less than a clock can tell.
LEAST_SECONDS: Final = 0.001
# So many failures without a success between them, and the status says so.
MANY_FAILURES: Final = 3


@dataclass(frozen=True, slots=True)
class Commons:
    """Room in memory and turns at lists that the sinks of a process share, so that its memory has a bound."""

    room: Room = field(default_factory=Room)
    # Each list holds a page of Tasks as the API server sent them.
    lists: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LISTS_AT_ONCE))


class Sending:
    """Runs one sink until it is cancelled.

    Args:
        ticks: a clock that nobody sets, in seconds.
    """

    def __init__(
        self,
        client: Client,
        sink: TaskSink,
        selection: Selection,
        reporter: Reporter,
        open_receiver: Open,
        ticks: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        commons: Commons,
    ) -> None:
        retry = sink.spec.retry
        rules = Rules(
            in_flight=sink.spec.in_flight,
            waits=Backoff(first=retry.initial_seconds, most=retry.max_seconds),
            max_attempts=retry.max_attempts,
            give_up_seconds=retry.give_up_seconds,
        )
        self._client = client
        self._namespace = sink.metadata.namespace
        self._name = sink.metadata.name
        self._selection = selection
        self._reporter = reporter
        self._open = open_receiver
        self._ticks = ticks
        self._sleep = sleep
        self._delivery = Delivery(rules, sink.status.position, shared=commons.room)
        self._feed = Feed(
            client, self._namespace, selection, self._delivery, self._room, self._stirred, sleep, commons.lists
        )
        self._stir = asyncio.Event()
        self._freed = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: Exception | None = None
        self._in_a_row = 0
        self._last: NotTold | None = None

    async def run(self) -> None:
        """Raises `Gone`, `Changed`, `Stopped`, `Trouble` and `KubeError`."""
        await self._reporter.confirm()
        receiver = await self._open()
        self._begin(self._feed.run())
        try:
            await self._work(receiver)
        finally:
            try:
                await self._end(receiver)
            finally:
                self._delivery.close()

    async def _end(self, receiver: Receiver) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await receiver.close()
        # So that less is told again. It changes nothing if it fails.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(END_SECONDS):
                self._reporter.look(self._delivery)
                await self._reporter.flush()

    async def _work(self, receiver: Receiver) -> None:
        look = confirm = self._ticks()
        while True:
            self._stir.clear()
            if self._ended is not None:
                raise self._ended
            for end in self._delivery.due(self._ticks()):
                self._begin(self._tell(end, receiver))
            if self._ticks() >= look:
                look = self._ticks() + LOOK_SECONDS
                if self._ticks() >= confirm + CONFIRM_SECONDS:
                    confirm = self._ticks()
                    await self._look(confirm=True)
                else:
                    await self._look()
            wake = self._delivery.wake()
            await self._wait(look if wake is None else min(look, wake))

    async def _wait(self, until: float) -> None:
        """Until something has happened, or then."""
        waits = {
            asyncio.ensure_future(self._stir.wait()),
            asyncio.ensure_future(self._sleep(max(LEAST_SECONDS, until - self._ticks()))),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    async def _room(self, enough: Callable[[], bool]) -> None:
        while not enough():
            self._freed.clear()
            await self._freed.wait()

    def _stirred(self) -> None:
        self._stir.set()

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Future[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception) and self._ended is None:
            self._ended = error
        self._stir.set()
        self._freed.set()

    # -- one end -------------------------------------------------------------------------------------------------------

    async def _tell(self, end: End, receiver: Receiver) -> None:
        try:
            whole = end if end.body else await self._read(end)
            if whole is None:
                self._delivery.gone(end.id)
                self._reporter.lost()
                return
            await receiver.tell(whole)
        except NotTold as error:
            self._failed(end, error)
        except KubeError as error:
            self._failed(end, NotTold(Failure.UNAVAILABLE, f"its Task cannot be read: {error}"))
        else:
            self._in_a_row, self._last = 0, None
            self._delivery.told(end.id)
            self._reporter.delivered()

    async def _read(self, end: End) -> End | None:
        """Read the body of an end for which there was no room; None where there is no such end any more."""
        try:
            obj = await self._client.get(TASKS, end.name, end.namespace)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        if uid_of(obj) != end.uid or end_id(obj) != end.id:
            return None
        return replace(end, body=self._selection.end(obj).body)

    def _failed(self, end: End, error: NotTold) -> None:
        self._in_a_row += 1
        self._last = error
        self._reporter.metrics.try_failed(self._reporter.key, str(error.failure))
        if error.rest:
            self._delivery.rest(self._ticks() + error.rest)
        if self._delivery.failed(end.id, error.failure, self._ticks()):
            _log.warning(
                "the end of a Task is given up: it was not told",
                namespace=self._namespace,
                name=self._name,
                task=end.name,
                event_id=end.id,
                why=str(error),
            )
            self._reporter.undelivered(end, str(error))

    # -- what is said --------------------------------------------------------------------------------------------------

    async def _look(self, *, confirm: bool = False) -> None:
        """Say how it goes. An API server that is away now is told later."""
        self._reporter.look(self._delivery)
        self._reporter.say(*self._how_it_goes())
        try:
            if confirm:
                await self._reporter.confirm()
            await self._reporter.flush()
        except KubeError as error:
            _log.info("the status of a sink cannot be written now", name=self._name, why=str(error))

    def _how_it_goes(self) -> tuple[SinkReason, str]:
        if self._feed.trouble:
            return SinkReason.FAILING, f"Tasks cannot be read: {self._feed.trouble}"
        if self._last is not None and self._in_a_row >= MANY_FAILURES:
            return self._last.reason, f"The receiver takes nothing: {self._last}. It is tried again"
        return SinkReason.DELIVERING, "Ends of Tasks are told as they come"
