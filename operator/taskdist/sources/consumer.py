"""A broker's source at work: a Task of each message, which is acknowledged once the Task is there.

What is to be done with which message `intake.consuming` decides; this carries it out, and says how it goes. A session
that ends takes the source with it, and the next one begins from what the broker holds.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from typing import Final

import structlog

from taskdist.api import SourceReason, TaskSource
from taskdist.api.tasksource import Backlog
from taskdist.intake.consuming import (
    Acknowledge,
    Action,
    Consume,
    Consumption,
    Create,
    DeadLetter,
    GiveBack,
    Pause,
    Why,
)
from taskdist.intake.mapping import Mapped, Mapping
from taskdist.intake.message import Poison
from taskdist.kube import KubeError
from taskdist.sources.broker import Delivery, NotPublished, Open, Session, Told, Trouble
from taskdist.sources.creating import Closed, Creator, Outcome
from taskdist.sources.queues import Queues
from taskdist.sources.reporting import Reporter

_log = structlog.get_logger("taskdist.sources")

# How often the backlog is asked for, and the most often that status is written, in seconds.
LOOK_SECONDS: Final = 5.0
# How old the word of messages that wait may become: who counts on it forgets it after three times as long.
TELL_AGAIN_SECONDS: Final = 30.0
# How often it is made sure that the source is as it was: a deletion may go unheard.
CONFIRM_SECONDS: Final = 60.0

_REASONS: Final = {
    Why.FULL: SourceReason.QUEUE_CLOSED,
    Why.REFUSED: SourceReason.REFUSED,
    Why.FAILING: SourceReason.FAILING,
    Why.DEAD_LETTERS: SourceReason.DEAD_LETTERS_REFUSED,
}
_GOES_ON: Final = {
    Why.FULL: "No messages are consumed until it does",
    Why.REFUSED: "It is tried again",
    Why.FAILING: "No messages are consumed until the API server answers",
    Why.DEAD_LETTERS: "No messages are consumed until what cannot become a Task can be put away",
}


class BrokerSource:
    """Runs one source until it is cancelled.

    Args:
        open_session: connects to the broker.
        ticks: a clock that nobody sets, in seconds.
    """

    def __init__(
        self,
        source: TaskSource,
        mapping: Mapping,
        creator: Creator,
        reporter: Reporter,
        queues: Queues,
        open_session: Open,
        now: Callable[[], datetime],
        ticks: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._namespace = source.metadata.namespace
        self._name = source.metadata.name
        self._mapping = mapping
        self._creator = creator
        self._reporter = reporter
        self._queues = queues
        self._open = open_session
        self._now = now
        self._ticks = ticks
        self._sleep = sleep
        self._messages = Consumption(mapping.queue)
        self._deliveries: dict[int, Delivery] = {}
        self._stir = asyncio.Event()
        self._lost: Exception | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._confirmed = ticks()

    async def run(self) -> None:
        """Raises `Gone`, `Changed`, `Trouble` and `KubeError`."""
        await self._reporter.confirm()
        # Before that it is not known which queues are full.
        await self._queues.synced()
        session = await self._open(Told(self._arrived, self._broken, self._withdrawn))
        unlisten = self._queues.listen(self._namespace, self._stir.set)
        try:
            await self._work(session)
        finally:
            unlisten()
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            await session.close()

    async def _work(self, session: Session) -> None:
        look = self._ticks()
        while True:
            self._stir.clear()
            if self._lost is not None:
                raise self._lost
            self._messages.told(self._queues.closed(self._namespace))
            for action in self._messages.actions(self._ticks()):
                await self._carry_out(action, session)
            if self._ticks() >= look:
                await self._look(session)
                look = self._ticks() + LOOK_SECONDS
            wake = self._messages.wake(self._ticks())
            await self._wait(look if wake is None else min(look, wake))

    async def _wait(self, until: float) -> None:
        """Wait until something has happened, or until then."""
        waits = {
            asyncio.ensure_future(self._stir.wait()),
            asyncio.ensure_future(self._sleep(max(0.0, until - self._ticks()))),
        }
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()

    # -- what happens --------------------------------------------------------------------------------------------------

    def _arrived(self, delivery: Delivery) -> None:
        try:
            made = None if delivery.crowded else self._made(delivery)
        except Exception as error:  # a defect: told as such by who runs the source
            self._fail(error)
            return
        self._deliveries[delivery.tag] = delivery
        if made is None:
            self._messages.crowded(delivery.tag)
        else:
            self._messages.delivered(delivery.tag, made, delivery.group)
        self._stir.set()

    def _made(self, delivery: Delivery) -> Mapped | Poison:
        if delivery.unreadable is not None:
            return delivery.unreadable
        try:
            return self._mapping.of(delivery.message)
        except Poison as poison:
            return _anew(poison)

    def _withdrawn(self, tags: Iterable[int]) -> None:
        self._messages.withdrawn(tags)
        self._stir.set()

    def _broken(self, why: str) -> None:
        self._fail(Trouble(SourceReason.BROKER_UNREACHABLE, why))

    def _fail(self, error: Exception) -> None:
        if self._lost is None:
            self._lost = error
        self._stir.set()

    # -- what is done --------------------------------------------------------------------------------------------------

    async def _carry_out(self, action: Action, session: Session) -> None:
        match action:
            case Acknowledge(tag):
                del self._deliveries[tag]
                await session.acknowledge(tag)
            case Create(tag, mapped):
                self._begin(self._create(tag, mapped))
            case DeadLetter(tag, poison):
                self._begin(self._dead_letter(tag, poison, session))
            case GiveBack(tags):
                for tag in tags:
                    del self._deliveries[tag]
                    await session.give_back(tag)
            case Consume():
                await session.consume()
            case Pause():
                await session.pause()

    def _begin(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._over)

    def _over(self, task: "asyncio.Future[None]") -> None:
        self._tasks.discard(task)
        if not task.cancelled() and isinstance(error := task.exception(), Exception):
            self._fail(error)
        self._stir.set()

    async def _create(self, tag: int, mapped: Mapped) -> None:
        messages = self._messages
        try:
            outcome, _ = await self._creator.create(mapped)
        except Closed as error:
            messages.turned_away(tag, Why.FULL if error.full else Why.REFUSED, str(error), self._ticks())
        except Poison as poison:
            messages.poisoned(tag, _anew(poison))
        except KubeError as error:
            messages.turned_away(tag, Why.FAILING, str(error), self._ticks())
        else:
            if outcome is Outcome.CREATED:
                self._reporter.created()
            messages.taken(tag, self._ticks())

    async def _dead_letter(self, tag: int, poison: Poison, session: Session) -> None:
        try:
            await session.dead_letter(self._deliveries[tag], poison)
        except NotPublished as error:
            words = f"A message cannot be published to the dead letters: {error}"
            self._messages.turned_away(tag, Why.DEAD_LETTERS, words, self._ticks())
            return
        _log.warning(
            "no Task can be made of a message; it is put away",
            namespace=self._namespace,
            name=self._name,
            reason=str(poison.reason),
            why=str(poison),
        )
        self._reporter.rejected(poison)
        self._messages.dead_lettered(tag)

    # -- what is said --------------------------------------------------------------------------------------------------

    async def _look(self, session: Session) -> None:
        """See what waits, and say how it goes. An API server that is away now is told later."""
        waiting, first = await session.backlog()
        waiting += len(self._messages.in_hand)
        times = [self._deliveries[tag].message.time for tag in self._messages.in_hand]
        oldest = min(times if first is None else [*times, first], default=None)
        self._tell_backlog(waiting, None if oldest is None else oldest.astimezone(UTC).replace(microsecond=0))
        trouble = self._messages.trouble()
        if trouble is None:
            self._reporter.say(SourceReason.RUNNING, "Tasks are made of messages as they come")
        else:
            why, words = trouble
            self._reporter.say(_REASONS[why], f"{words.rstrip('.')}. {_GOES_ON[why]}")
        try:
            if self._ticks() - self._confirmed >= CONFIRM_SECONDS:
                await self._reporter.confirm()
                self._confirmed = self._ticks()
            await self._reporter.flush()
        except KubeError as error:
            _log.info("the status of a source cannot be written now", name=self._name, why=str(error))

    def _tell_backlog(self, waiting: int, oldest: datetime | None) -> None:
        now = self._now()
        self._creator.metrics.backlog(self._reporter.key, waiting)
        self._creator.metrics.lag(self._reporter.key, 0.0 if oldest is None else (now - oldest).total_seconds())
        former = self._reporter.status.backlog
        # With its time only where it has changed, or something waits: a source that has nothing to do writes nothing.
        at = None if former is None else former.at
        again = waiting > 0 and (at is None or (now - at).total_seconds() >= TELL_AGAIN_SECONDS)
        if former is None or again or (former.messages, former.oldest) != (waiting, oldest):
            self._reporter.status.backlog = Backlog(messages=waiting, oldest=oldest, at=now.replace(microsecond=0))


def _anew(poison: Poison) -> Poison:
    """Return the same without the place where it was raised: with that it would hold its message in a circle."""
    return Poison(poison.reason, str(poison))
