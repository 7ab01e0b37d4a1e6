"""A session with a queue of SQS: messages are polled for, kept from others while they are in hand, and deleted.

SQS knows no connection: a message that was received is nobody else's for a time (its visibility), which is extended for
as long as it is in hand. Whatever dies, it comes again after that time.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog

from taskdist.api import SourceReason
from taskdist.brokers.sqs import ANSWER_SECONDS, FIFO, POLL_SECONDS
from taskdist.brokers.sqs_errors import NOT_TAKEN, THROTTLED
from taskdist.intake.message import Message, Poison
from taskdist.sources.broker import Delivery, NotPublished, Told, Trouble, Waiting
from taskdist.sources.sqs_access import Address, Refused, Sqs, enter
from taskdist.sources.sqs_messages import dead_letters_of, group_of, message_of, size_of

_log = structlog.get_logger("taskdist.sources")

# What SQS takes and gives at most in one request.
BATCH: Final = 10
# No messages are asked for while those in hand have more bytes than these.
MOST_BYTES: Final = 16 * 2**20
# The longest that a farewell may take, in seconds.
CLOSE_SECONDS: Final = 3.0
# The longest that a last answer is waited for, where one may come, in seconds.
LAST_ANSWER_SECONDS: Final = 1.0
# How many requests a farewell may take.
MOST_TRIES: Final = 250
# How soon what SQS could not do with single messages is tried again, in seconds.
AGAIN_SECONDS: Final = 0.5
# Answers by which a message is not ours any more.
_GONE: Final = ("ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue")


@dataclass(slots=True, eq=False)
class _Held:
    """A message in hand."""

    message: Message
    receipt: str
    until: float
    group: str | None
    size: int
    left: bool = False
    """No Task can be made of it, and the queue itself is to put it away."""


@dataclass(frozen=True, slots=True, eq=False)
class _Entry:
    """A change of a message at SQS. `seconds`: hidden for so long; None: deleted."""

    tag: int
    held: _Held
    seconds: int | None


class SqsSession:
    """A queue and its dead letters. Made by `open_session`."""

    def __init__(
        self,
        address: Address,
        sqs: Sqs,
        told: Told,
        now: Callable[[], datetime],
    ) -> None:
        self._address = address
        self._sqs = sqs
        self._told = told
        self._now = now
        self._ticks = asyncio.get_running_loop().time
        self._held: dict[int, _Held] = {}
        self._tags: dict[str, int] = {}
        self._last = 0
        self._consuming = asyncio.Event()
        self._room = asyncio.Event()
        # Set while no question for messages waits at SQS.
        self._idle = asyncio.Event()
        self._idle.set()
        self._outbox: list[_Entry] = []
        self._stir = asyncio.Event()
        # When the oldest of those given back was sent: nothing else tells while none is in hand.
        self._oldest: datetime | None = None
        self._waiting = Waiting(0)
        self._work = [asyncio.create_task(each) for each in (self._poll(), self._keep(), self._write())]
        for task in self._work:
            task.add_done_callback(self._ended)

    # -- what a source asks --------------------------------------------------------------------------------------------

    async def consume(self) -> None:
        self._oldest = None
        self._consuming.set()

    async def pause(self) -> None:
        # A question that waits is let end, and what it still brings is given back: of one that is broken off, messages
        # may be on their way, which then are hidden until their visibility ends.
        self._consuming.clear()

    async def acknowledge(self, tag: int) -> None:
        held = self._held[tag]
        self._put(tag, self._address.visibility if held.left else None)

    async def give_back(self, tag: int) -> None:
        if (held := self._held.get(tag)) is None:
            return
        time = held.message.time
        self._oldest = time if self._oldest is None else min(self._oldest, time)
        self._put(tag, 0)

    async def dead_letter(self, delivery: Delivery, poison: Poison) -> None:
        address = self._address
        if address.dead_letters is None:
            self._leave(delivery.tag)
            return
        letters = dead_letters_of(delivery, poison, address.source, address.dead_letters.endswith(FIFO))
        for number, letter in enumerate(letters, 1):
            try:
                await self._sqs.ask("SendMessage", address.dead_letters, _nothing, **letter)
                return
            except Refused as error:
                if error.code in NOT_TAKEN and number < len(letters):
                    continue
                raise NotPublished(str(error)) from None

    async def backlog(self) -> Waiting:
        address = self._address
        try:
            # Not asked again at once: all else would wait for it.
            visible, hidden = await self._sqs.ask("GetQueueAttributes", address.queue, _counts, again=False, **_ALL)
        except Refused as error:
            if error.code in THROTTLED:
                return self._waiting
            raise
        # Hidden by a process that died, or by other consumers.
        waiting = visible + max(0, hidden - len(self._held))
        self._waiting = Waiting(waiting, self._oldest if waiting else None)
        return self._waiting

    async def close(self) -> None:
        self._consuming.clear()
        work, self._work = self._work, []
        poll, *others = work
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        # What cannot be told now is told by the visibility's end.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                if await self._give_all_back():
                    # A question that still waits at SQS is answered with what was given back, also if nobody hears it.
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(LAST_ANSWER_SECONDS):
                            await self._idle.wait()
                    await self._give_all_back()
        poll.cancel()
        await asyncio.gather(poll, return_exceptions=True)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._sqs.close()

    async def _give_all_back(self) -> bool:
        """Tell what is still to be told, and have the rest be there for others; say whether there was anything."""
        for number in range(MOST_TRIES):
            written = {each.tag for each in self._outbox}
            self._outbox += [_Entry(tag, each, 0) for tag, each in self._held.items() if tag not in written]
            if not self._outbox:
                return number > 0
            await self._tell_next()
        return True

    # -- receiving -----------------------------------------------------------------------------------------------------

    async def _poll(self) -> None:
        address, attempt = self._address, uuid.uuid4()
        while True:
            await self._consuming.wait()
            room = address.prefetch - len(self._held)
            if room <= 0 or sum(held.size for held in self._held.values()) >= MOST_BYTES:
                self._room.clear()
                await self._room.wait()
                continue
            # Tried again as the same attempt, a queue in order gives the same messages. Those of an answer that was
            # lost would hold up their groups.
            retry: dict[str, Any] = {"ReceiveRequestAttemptId": str(attempt)} if address.queue.endswith(FIFO) else {}
            self._idle.clear()
            try:
                messages = await self._sqs.ask(
                    "ReceiveMessage",
                    address.queue,
                    _received,
                    seconds=POLL_SECONDS + ANSWER_SECONDS,
                    MaxNumberOfMessages=min(BATCH, room),
                    WaitTimeSeconds=POLL_SECONDS,
                    VisibilityTimeout=address.visibility,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                    **retry,
                )
                attempt = uuid.uuid4()
                for raw in messages:
                    await self._arrived(raw)
            finally:
                self._idle.set()

    async def _arrived(self, raw: Mapping[str, Any]) -> None:
        until = self._ticks() + self._address.visibility
        if (tag := self._tags.get(str(raw["MessageId"]))) is not None:
            # Its visibility had ended meanwhile: from now on only the new receipt counts.
            held = self._held[tag]
            held.receipt, held.until = str(raw["ReceiptHandle"]), until
            return
        self._last = tag = self._last + 1
        group = group_of(raw) if self._address.queue.endswith(FIFO) else None
        message = message_of(raw, self._now())
        self._held[tag] = _Held(message, str(raw["ReceiptHandle"]), until, group, size_of(raw, message.body))
        self._tags[str(raw["MessageId"])] = tag
        if self._consuming.is_set():
            # Its body is held once.
            self._told.arrived(Delivery(tag, message, {**raw, "Body": None}, group=group))
        else:
            await self.give_back(tag)

    # -- keeping -------------------------------------------------------------------------------------------------------

    async def _keep(self) -> None:
        """Extend the visibility of what is in hand, at a third of it."""
        third = self._address.visibility / 3
        while True:
            await asyncio.sleep(third / 2)
            due = self._ticks() + 2 * third
            written = {each.tag for each in self._outbox}
            entries = [
                _Entry(tag, held, self._address.visibility)
                for tag, held in self._held.items()
                if held.until < due and tag not in written
            ]
            for start in range(0, len(entries), BATCH):
                batch = entries[start : start + BATCH]
                failed = await self._change(batch)
                for each in batch:
                    if each.tag not in failed:
                        each.held.until = self._ticks() + self._address.visibility
                # It has come to its end: each of these comes again, to whoever asks first.
                gone = [tag for tag, code in failed.items() if code in _GONE and tag in self._held]
                if gone:
                    self._told.withdrawn([*gone, *self._after(gone)])

    # -- letting go ----------------------------------------------------------------------------------------------------

    def _leave(self, tag: int) -> None:
        """Leave it to the queue, which moves it once it came often enough. The rest of its group waits for that."""
        self._held[tag].left = True
        self._told.withdrawn(self._after([tag]))

    def _after(self, tags: Sequence[int]) -> list[int]:
        """Return those that came after these in their groups: SQS gives them again after these."""
        first: dict[str, int] = {}
        for tag in tags:
            if (group := self._held[tag].group) is not None:
                first[group] = min(tag, first.get(group, tag))
        return [
            tag
            for tag, held in self._held.items()
            if held.group is not None and tag > first.get(held.group, tag) and tag not in tags
        ]

    def _put(self, tag: int, seconds: int | None) -> None:
        self._outbox.append(_Entry(tag, self._held[tag], seconds))
        self._stir.set()

    async def _write(self) -> None:
        while True:
            await self._stir.wait()
            self._stir.clear()
            while self._outbox:
                if failed := await self._tell_next():
                    _log.info("SQS could not be told of messages; it is tried again", why=sorted(failed))
                    await asyncio.sleep(AGAIN_SECONDS)

    async def _tell_next(self) -> set[str]:
        """Tell the first of what is to be told; what could not be done stands first again. Return the codes of that."""
        batch, _ = _batch(self._outbox)
        receipts = {each.tag: each.held.receipt for each in batch}
        failed = await self._tell(batch)
        codes, again = set[str](), list[_Entry]()
        for each in batch:
            code = failed.get(each.tag, _GONE[0])
            if each.held.receipt != receipts[each.tag]:
                # It came once more meanwhile, so that nothing is done about it yet.
                again.append(each)
            elif code in _GONE:
                self._forget(each)
            else:
                codes.add(code)
                again.append(each)
        # Those that came meanwhile stand at the end.
        self._outbox = [*again, *(each for each in self._outbox if each not in batch)]
        return codes

    async def _tell(self, batch: Sequence[_Entry]) -> Mapping[int, str]:
        """Delete them, or have them hidden for so long; return what failed, by tag, with its code."""
        if batch[0].seconds is not None:
            return await self._change(batch)
        entries = [{"Id": str(each.tag), "ReceiptHandle": each.held.receipt} for each in batch]
        return await self._sqs.ask("DeleteMessage", self._address.queue, _failed, Entries=entries)

    async def _change(self, batch: Sequence[_Entry]) -> Mapping[int, str]:
        entries = [
            {"Id": str(each.tag), "ReceiptHandle": each.held.receipt, "VisibilityTimeout": each.seconds}
            for each in batch
        ]
        return await self._sqs.ask("ChangeMessageVisibility", self._address.queue, _failed, Entries=entries)

    def _forget(self, entry: _Entry) -> None:
        del self._held[entry.tag]
        del self._tags[str(entry.held.message.id)]
        self._room.set()

    def _ended(self, task: "asyncio.Task[None]") -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            if not isinstance(error, Trouble):
                _log.error("a session with SQS has failed", queue=self._address.queue, exc_info=error)
            self._told.lost(str(error) or repr(error))


def _batch(entries: Sequence[_Entry]) -> tuple[list[_Entry], list[_Entry]]:
    """Return the next to be told together, and the rest.

    Of one group one at a time: none is deleted before an earlier one.
    """
    batch: list[_Entry] = []
    rest: list[_Entry] = []
    groups: set[str] = set()
    delete = entries[0].seconds is None
    for each in entries:
        group = each.held.group
        if len(batch) < BATCH and (each.seconds is None) == delete and group not in groups:
            batch.append(each)
        else:
            rest.append(each)
        if group is not None:
            groups.add(group)
    return batch, rest


async def open_session(
    address: Address,
    told: Told,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SqsSession:
    """See that the queues are there, and that what no Task can be made of has somewhere to go. Raises `Trouble`."""
    sqs = await enter(address)
    try:
        found = await sqs.ask("GetQueueAttributes", address.queue, _attributes, **_ALL)
        if address.dead_letters is not None:
            dead = await sqs.ask("GetQueueAttributes", address.dead_letters, _attributes, **_ALL)
            if found.get("QueueArn") and dead.get("QueueArn") == found["QueueArn"]:
                raise Trouble(
                    SourceReason.DEAD_LETTERS_REFUSED,
                    f"{address.dead_letters} is the queue itself, so that what cannot become a Task would come again "
                    "and again: name another queue in spec.sqs.deadLetterQueueUrl",
                )
        elif not found.get("RedrivePolicy"):
            raise Trouble(
                SourceReason.DEAD_LETTERS_REFUSED,
                f"messages of which no Task can be made have no place: queue {address.queue} has no redrive policy: "
                "give it one or name spec.sqs.deadLetterQueueUrl",
            )
    except BaseException:
        with contextlib.suppress(Exception):
            await sqs.close()
        raise
    return SqsSession(address, sqs, told, now)


# -- answers -----------------------------------------------------------------------------------------------------------

_ALL: Final[Mapping[str, Any]] = {"AttributeNames": ["All"]}


def _nothing(_: Mapping[str, Any]) -> None:
    """Read nothing of an answer."""


def _attributes(answer: Mapping[str, Any]) -> Mapping[str, Any]:
    return dict(answer.get("Attributes", {}))


def _counts(answer: Mapping[str, Any]) -> tuple[int, int]:
    """Return how many messages may be received, and how many are hidden."""
    found = _attributes(answer)
    visible, hidden = found.get("ApproximateNumberOfMessages", 0), found.get("ApproximateNumberOfMessagesNotVisible", 0)
    return int(visible), int(hidden)


def _received(answer: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """Return the messages, each with an id and a receipt."""
    found = list(answer.get("Messages", ()))
    for raw in found:
        if not (raw["MessageId"] and raw["ReceiptHandle"]):
            raise ValueError("a message has no id or no receipt")
    return found


def _failed(answer: Mapping[str, Any]) -> dict[int, str]:
    """Return the codes of what failed, by tag."""
    return {int(each["Id"]): str(each.get("Code", "")).rpartition(".")[2] for each in answer.get("Failed") or ()}
