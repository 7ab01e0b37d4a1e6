"""A session with a queue of SQS: messages are polled for, kept from others while they are in hand, and deleted.

SQS knows no connection: a message that was received is nobody else's for a time (its visibility), which is extended for
as long as it is in hand. Whatever dies, it comes again after that time.

It uses aiobotocore: it knows all ways in which AWS lets a process in, signs, and tries again what may be tried again.
"""

import asyncio
import contextlib
import uuid
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from typing import Any, Final

import structlog
from aiobotocore.config import AioConfig
from aiobotocore.session import get_session
from botocore.exceptions import BotoCoreError, ClientError, NoCredentialsError

from taskdist.api import SourceReason
from taskdist.intake.message import Poison
from taskdist.sources.broker import Delivery, NotPublished, Told, Trouble, Waiting
from taskdist.sources.sqs_messages import FIFO, dead_letters_of, group_of, message_of, trouble_of

_log = structlog.get_logger("taskdist.sources")

# What SQS takes and gives at most in one request.
BATCH: Final = 10
# The longest that SQS lets a question for messages wait for one, in seconds.
POLL_SECONDS: Final = 20
# No messages are asked for while those in hand have more bytes than these.
MOST_BYTES: Final = 16 * 2**20
# The longest that a connection, an answer and a farewell may take, in seconds.
CONNECT_SECONDS: Final = 10.0
ANSWER_SECONDS: Final = 20.0
CLOSE_SECONDS: Final = 3.0
# How often what SQS could not do is tried again, by the library, and how soon by us, in seconds.
TRIES: Final = 4
AGAIN_SECONDS: Final = 0.5
# Answers by which a message as it is sent is not taken.
_NOT_TAKEN: Final = ("InvalidParameterValue", "InvalidMessageContents", "InvalidAttributeValue", "BatchRequestTooLong")
# Answers by which a message is not ours any more.
_GONE: Final = ("ReceiptHandleIsInvalid", "MessageNotInflight", "InvalidParameterValue")


@dataclass(frozen=True, slots=True)
class Login:
    """An access key."""

    key: str
    secret: str = field(repr=False)
    token: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Address:
    """The queue, and how to be let in. `login`: None is the process's own identity."""

    queue: str
    region: str
    endpoint: str | None
    login: Login | None
    prefetch: int
    visibility: int
    dead_letters: str | None
    source: str
    """Namespace and name of the source, for people who look at dead letters."""


@dataclass(slots=True, eq=False)
class _Held:
    """A message in hand."""

    raw: Mapping[str, Any]
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
        client: Any,
        stack: AsyncExitStack,
        told: Told,
        now: Callable[[], datetime],
    ) -> None:
        self._address = address
        self._client = client
        self._stack = stack
        self._told = told
        self._now = now
        self._ticks = asyncio.get_running_loop().time
        self._held: dict[int, _Held] = {}
        self._tags: dict[str, int] = {}
        self._last = 0
        self._consuming = asyncio.Event()
        self._room = asyncio.Event()
        self._outbox: list[_Entry] = []
        self._stir = asyncio.Event()
        # When the oldest of those given back was sent: nothing else tells while none is in hand.
        self._oldest: datetime | None = None
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
        time = message_of(held.raw, self._now()).time
        self._oldest = time if self._oldest is None else min(self._oldest, time)
        self._put(tag, 0)

    async def dead_letter(self, delivery: Delivery, poison: Poison) -> None:
        address = self._address
        if address.dead_letters is None:
            self._leave(delivery.tag)
            return
        letters = dead_letters_of(delivery.raw, poison, address.source, address.dead_letters.endswith(FIFO))
        for number, letter in enumerate(letters, 1):
            with _told_as_trouble(address, "SendMessage", address.dead_letters):
                try:
                    await _soon(self._client.send_message(QueueUrl=address.dead_letters, **letter))
                    return
                except ClientError as error:
                    if _code(error) in _NOT_TAKEN and number < len(letters):
                        continue
                    said = _trouble(error, address, "SendMessage", address.dead_letters)
                    raise NotPublished(str(said)) from None

    async def backlog(self) -> Waiting:
        address = self._address
        found = await _attributes(self._client, address, address.queue)
        hidden = int(found.get("ApproximateNumberOfMessagesNotVisible", 0))
        # Of a process that died, or of other consumers.
        elsewhere = max(0, hidden - len(self._held))
        waiting = int(found.get("ApproximateNumberOfMessages", 0)) + elsewhere
        return Waiting(waiting, self._oldest if waiting else None)

    async def close(self) -> None:
        work, self._work = self._work, []
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        # What cannot be told now is told by the visibility's end.
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                written = {each.tag for each in self._outbox}
                held = [_Entry(tag, each, 0) for tag, each in self._held.items() if tag not in written]
                entries = [*self._outbox, *held]
                while entries:
                    batch, entries = _batch(entries)
                    await self._tell(batch)
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS):
                await self._stack.aclose()

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
            retry = {"ReceiveRequestAttemptId": str(attempt)} if address.queue.endswith(FIFO) else {}
            with _told_as_trouble(address, "ReceiveMessage", address.queue):
                answer = await self._client.receive_message(
                    QueueUrl=address.queue,
                    MaxNumberOfMessages=min(BATCH, room),
                    WaitTimeSeconds=POLL_SECONDS,
                    VisibilityTimeout=address.visibility,
                    MessageSystemAttributeNames=["All"],
                    MessageAttributeNames=["All"],
                    **retry,
                )
            attempt = uuid.uuid4()
            for raw in answer.get("Messages", ()):
                await self._arrived(raw)

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
        self._held[tag] = _Held(raw, str(raw["ReceiptHandle"]), until, group, len(message.body))
        self._tags[str(raw["MessageId"])] = tag
        if self._consuming.is_set():
            self._told.arrived(Delivery(tag, message, raw, group=group))
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
                batch, _ = _batch(self._outbox)
                failed = await self._tell(batch)
                # Those that came meanwhile stand at the end.
                self._outbox = [each for each in self._outbox if each not in batch]
                again = [each for each in batch if failed.get(each.tag, _GONE[0]) not in _GONE]
                for each in batch:
                    if each not in again:
                        self._forget(each)
                if again:
                    _log.info("SQS could not be told of messages; it is tried again", why=sorted(set(failed.values())))
                    self._outbox[:0] = again
                    await asyncio.sleep(AGAIN_SECONDS)

    async def _tell(self, batch: Sequence[_Entry]) -> Mapping[int, str]:
        """Delete them, or have them hidden for so long; return what failed, by tag, with its code."""
        if batch[0].seconds is not None:
            return await self._change(batch)
        with _told_as_trouble(self._address, "DeleteMessage", self._address.queue):
            entries = [{"Id": str(each.tag), "ReceiptHandle": each.held.receipt} for each in batch]
            return _failed(
                await _soon(self._client.delete_message_batch(QueueUrl=self._address.queue, Entries=entries))
            )

    async def _change(self, batch: Sequence[_Entry]) -> Mapping[int, str]:
        with _told_as_trouble(self._address, "ChangeMessageVisibility", self._address.queue):
            entries = [
                {"Id": str(each.tag), "ReceiptHandle": each.held.receipt, "VisibilityTimeout": each.seconds}
                for each in batch
            ]
            return _failed(
                await _soon(self._client.change_message_visibility_batch(QueueUrl=self._address.queue, Entries=entries))
            )

    def _forget(self, entry: _Entry) -> None:
        del self._held[entry.tag]
        del self._tags[str(entry.held.raw["MessageId"])]
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


def _failed(answer: Mapping[str, Any]) -> dict[int, str]:
    return {int(each["Id"]): str(each.get("Code", "")).rpartition(".")[2] for each in answer.get("Failed") or ()}


@cache
def _session() -> Any:
    """Return the one session of all sources: it reads some MiB of files, and refreshes the process's own identity."""
    return get_session()


async def open_session(
    address: Address,
    told: Told,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> SqsSession:
    """See that the queues are there, and that what no Task can be made of has somewhere to go. Raises `Trouble`."""
    stack = AsyncExitStack()
    login = address.login
    try:
        with _told_as_trouble(address, "GetQueueAttributes", address.queue):
            client = await stack.enter_async_context(
                _session().create_client(
                    "sqs",
                    region_name=address.region,
                    endpoint_url=address.endpoint,
                    aws_access_key_id=None if login is None else login.key,
                    aws_secret_access_key=None if login is None else login.secret,
                    aws_session_token=None if login is None else login.token,
                    config=AioConfig(
                        connect_timeout=CONNECT_SECONDS,
                        read_timeout=POLL_SECONDS + ANSWER_SECONDS,
                        retries={"total_max_attempts": TRIES, "mode": "standard"},
                        user_agent_extra="taskdist",
                    ),
                )
            )
        found = await _attributes(client, address, address.queue)
        if address.dead_letters is not None:
            await _attributes(client, address, address.dead_letters)
        elif not found.get("RedrivePolicy"):
            raise Trouble(
                SourceReason.DEAD_LETTERS_REFUSED,
                f"messages of which no Task can be made have no place: queue {address.queue} has no redrive policy: "
                "give it one or name spec.sqs.deadLetterQueueUrl",
            )
    except BaseException:
        with contextlib.suppress(Exception):
            await stack.aclose()
        raise
    return SqsSession(address, client, stack, told, now)


async def _soon(asked: Awaitable[Any]) -> Any:
    """Return the answer, within the time that one may take with all tries."""
    async with asyncio.timeout(ANSWER_SECONDS):
        return await asked


async def _attributes(client: Any, address: Address, queue: str) -> Mapping[str, Any]:
    with _told_as_trouble(address, "GetQueueAttributes", queue):
        answer = await _soon(client.get_queue_attributes(QueueUrl=queue, AttributeNames=["All"]))
    found: Mapping[str, Any] = answer.get("Attributes", {})
    return found


@contextmanager
def _told_as_trouble(address: Address, operation: str, queue: str) -> Iterator[None]:
    """Make `Trouble` of whatever the library raises."""
    try:
        yield
    except ClientError as error:
        raise _trouble(error, address, operation, queue) from None
    except NoCredentialsError:
        raise Trouble(
            SourceReason.SECRET_UNUSABLE,
            "this process has no identity at AWS: name a Secret, or give its ServiceAccount a role",
        ) from None
    except (BotoCoreError, TimeoutError, OSError, ValueError) as error:
        where = address.endpoint or f"SQS in {address.region}"
        raise Trouble(
            SourceReason.BROKER_UNREACHABLE, f"{where} does not answer: {error or repr(error)}"[:500]
        ) from None


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", "")).rpartition(".")[2]


def _trouble(error: ClientError, address: Address, operation: str, queue: str) -> Trouble:
    said = str(error.response.get("Error", {}).get("Message", ""))
    return trouble_of(_code(error), said, operation, queue, address.region)
