"""A session with a Kafka cluster, as one member of a consumer group.

It uses aiokafka as it is, but for two things that it would do by itself. Offsets: they are committed up to where all
before is dealt with (`intake.offsets`), never by what was read. Starts: where a group has no offset yet, the one at
which it begins is committed at once, so that what is written meanwhile is not passed over after a crash.
"""

import asyncio
import contextlib
import heapq
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

import structlog
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaConnectionError,
    KafkaError,
    MessageSizeTooLargeError,
    NoOffsetForPartitionError,
    OffsetOutOfRangeError,
    RecordListTooLargeError,
)

from taskdist.api import SourceReason
from taskdist.brokers.kafka import CLOSE_SECONDS, PUBLISH_BYTES, Login, ended, why_not, words_of
from taskdist.intake.message import Poison, PoisonReason
from taskdist.intake.offsets import Partition
from taskdist.sources.broker import Delivery, NotPublished, Told, Trouble, Waiting
from taskdist.sources.kafka_records import Record, dead_headers, message_of

_log = structlog.get_logger("taskdist.sources")

# A member that says nothing for so long is gone, and how long one may take to give up what it has, in seconds.
MEMBER_SECONDS: Final = 10
REBALANCE_SECONDS: Final = 15
# For so long messages that are at work are waited for when their partition goes elsewhere, in seconds.
DRAIN_SECONDS: Final = 5.0
# The longest that a connection may take, in seconds.
CONNECT_SECONDS: Final = 20.0
# The most often that offsets are committed, in seconds. After a crash so much comes again, and is the same Task.
COMMIT_SECONDS: Final = 1.0
# How long a look for messages waits where there are none, in seconds.
READ_SECONDS: Final = 0.5
# How long one that is there may take to come where each is read on its own.
SINGLE_SECONDS: Final = 5.0
# Nothing is read while the bodies in hand have more bytes; what one look finds may come on top.
MOST_BYTES: Final = 16 * 2**20
# A partition is read no further beyond its oldest message that is not dealt with.
MOST_AHEAD: Final = 10_000
FETCH_BYTES: Final = 8 * 2**20


@dataclass(frozen=True, slots=True)
class Address:
    """The topics that are read, and their cluster."""

    login: Login
    topics: tuple[str, ...]
    group: str
    from_earliest: bool
    prefetch: int
    dead_letter_topic: str
    source: str
    """Namespace and name of the source, as dead letters tell it."""


class KafkaSession:
    """A member of the consumer group, and a producer of dead letters. Made by `open_session`."""

    def __init__(self, address: Address, consumer: Any, told: Told, now: Callable[[], datetime]) -> None:
        self._address = address
        self._consumer = consumer
        self._told = told
        self._now = now
        self._producer: Any = None
        self._consuming = False
        self._tag = 0
        # Read and not handed over, by the order in which they were read; and handed over, not dealt with.
        self._ready: list[tuple[int, Delivery]] = []
        self._in_hand: dict[int, Delivery] = {}
        self._partitions: dict[TopicPartition, Partition] = {}
        self._committed: dict[TopicPartition, int] = {}
        self._new: set[TopicPartition] = set()
        self._leaving: set[TopicPartition] = set()
        self._stir = asyncio.Event()
        self._settled = asyncio.Event()
        self._work: list[asyncio.Task[None]] = []

    def begin(self) -> None:
        """Join the group, and work until `close`."""
        self._consumer.subscribe(list(self._address.topics), listener=self)
        self._work = [asyncio.create_task(self._kept(part)) for part in (self._read_on, self._commit_on)]

    # -- what the source asks ------------------------------------------------------------------------------------------

    async def consume(self) -> None:
        self._consuming = True
        self._hand_over()
        self._stir.set()

    async def pause(self) -> None:
        self._consuming = False
        self._stir.set()

    async def acknowledge(self, tag: int) -> None:
        # What a partition has taken with it, when it went elsewhere, is not known any more.
        if (delivery := self._in_hand.pop(tag, None)) is not None:
            self._partitions[_place(delivery)].done(delivery.raw.offset)
        self._changed()

    async def give_back(self, tag: int) -> None:
        # What goes elsewhere is read there. All else stays here: a partition takes nothing back.
        delivery = self._in_hand.pop(tag, None)
        if delivery is not None and _place(delivery) not in self._leaving:
            heapq.heappush(self._ready, (tag, delivery))
        self._changed()

    async def dead_letter(self, delivery: Delivery, poison: Poison) -> None:
        record = delivery.raw
        assert isinstance(record, Record)
        topic, source = self._address.dead_letter_topic, self._address.source
        try:
            producer = await self._publishing()
            try:
                # The library publishes nothing that has neither key nor value.
                value = b"" if record.key is None and record.value is None else record.value
                await producer.send_and_wait(topic, value, record.key, headers=dead_headers(record, poison, source))
            except (MessageSizeTooLargeError, RecordListTooLargeError):
                headers = dead_headers(record, poison, source, body=False)
                await producer.send_and_wait(topic, b"", headers=headers)
        except (KafkaError, OSError, TimeoutError) as error:
            raise NotPublished(f"topic {topic}: {words_of(error)}") from None

    async def backlog(self) -> Waiting:
        with _lost_is_told():
            ends = await self._consumer.end_offsets(list(self._partitions))
        # What was given up meanwhile is not counted.
        ahead = sum(max(0, ends[each] - part.next) for each, part in self._partitions.items() if each in ends)
        return Waiting(ahead + len(self._ready), min((each.message.time for _, each in self._ready), default=None))

    async def close(self) -> None:
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        # Nobody ends what is at work any more.
        self._in_hand.clear()
        self._changed()
        await ended(self._farewell())

    async def _farewell(self) -> None:
        """Commit and leave the group. An error here is of no use to anybody: what is left undone comes again."""
        with contextlib.suppress(Exception):
            async with asyncio.timeout(CLOSE_SECONDS / 2):
                await self._commit()
        for part in (self._producer, self._consumer):
            if part is not None:
                with contextlib.suppress(Exception):
                    await part.stop()

    async def _publishing(self) -> Any:
        if self._producer is None:
            producer = AIOKafkaProducer(acks="all", max_request_size=PUBLISH_BYTES, **self._address.login.options())
            try:
                await producer.start()
            except BaseException:
                await ended(producer.stop())
                raise
            self._producer = producer
        return self._producer

    def _changed(self) -> None:
        self._stir.set()
        self._settled.set()

    # -- what the group says -------------------------------------------------------------------------------------------

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Give them up: what is at work is ended and committed first, so that nobody makes it a second time."""
        self._new -= set(revoked)
        self._leaving = set(revoked) & self._partitions.keys()
        self._ready = [each for each in self._ready if _place(each[1]) not in self._leaving]
        heapq.heapify(self._ready)
        self._told.withdrawn(self._going())
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                while self._going():
                    self._settled.clear()
                    await self._settled.wait()
        with contextlib.suppress(TimeoutError, KafkaError):
            async with asyncio.timeout(DRAIN_SECONDS):
                await self._commit()
        for partition in self._leaving:
            del self._partitions[partition]
            self._committed.pop(partition, None)
        for tag in self._going():
            del self._in_hand[tag]
        self._leaving = set()
        self._stir.set()

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:
        self._new |= set(assigned)
        self._stir.set()

    def _going(self) -> list[int]:
        """Return the tags in hand of partitions that are given up."""
        return [tag for tag, each in self._in_hand.items() if _place(each) in self._leaving]

    # -- reading -------------------------------------------------------------------------------------------------------

    async def _kept(self, work: Callable[[], Any]) -> None:
        try:
            await work()
        except Trouble as error:
            self._told.lost(str(error))
        except Exception as error:  # a defect; without this part the session would stand still
            _log.error("a session with Kafka has failed", source=self._address.source, exc_info=error)
            self._told.lost(repr(error))

    async def _read_on(self) -> None:
        while True:
            self._stir.clear()
            with _lost_is_told():
                await self._begin_new()
                full = self._room() < max(1, self._address.prefetch // 4) or self._bytes() >= MOST_BYTES
                if not full:
                    self._steer()
                    await self._read(self._room())
            self._hand_over()
            if full or not self._flows():
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(READ_SECONDS):
                        await self._stir.wait()

    def _room(self) -> int:
        return self._address.prefetch - len(self._in_hand) - len(self._ready)

    def _bytes(self) -> int:
        held = (*self._in_hand.values(), *(each for _, each in self._ready))
        return sum(len(each.message.body) for each in held)

    def _flows(self) -> bool:
        """Say whether messages are read. While none are wanted, one is: its age tells how late the source is."""
        return self._consuming or not (self._in_hand or self._ready)

    def _steer(self) -> None:
        """Have the broker asked for those partitions only from which messages are wanted."""
        for each, partition in self._partitions.items():
            wanted = self._flows() and partition.span < MOST_AHEAD and each not in self._leaving
            # A partition may go at any time, and then there is nothing to steer.
            with contextlib.suppress(IllegalStateError):
                (self._consumer.resume if wanted else self._consumer.pause)(each)

    async def _read(self, room: int) -> None:
        # Asked even where all is paused: what is wrong with the group is told here.
        seconds = READ_SECONDS if self._flows() else 0.0
        try:
            found = await self._consumer.getmany(timeout_ms=int(seconds * 1000), max_records=max(room, 1))
        except NoOffsetForPartitionError:
            return  # it was looked at before its start was known
        except OffsetOutOfRangeError as error:
            asked: dict[TopicPartition, int] = error.args[0]
            if any(at in self._partitions and self._partitions[at].next == offset for at, offset in asked.items()):
                raise  # deleted before it was read: with a new session it begins at what is there
            return  # the same, by the offset that was committed
        except KafkaError:
            raise
        except Exception as error:  # what somebody wrote, and the library cannot read
            _log.warning("a message cannot be read", source=self._address.source, why=repr(error))
            if not await self._read_singly(room):
                raise Trouble(SourceReason.FAILING, f"messages cannot be read: {error!r}"[:500]) from None
            return
        for partition, records in found.items():
            for record in records:
                self._take(partition, _record(record))

    async def _read_singly(self, room: int) -> bool:
        """Look for the message that cannot be read one by one, and take it as such; all read before are read again.

        Return whether it got on.
        """
        got_on = False
        try:
            for each, partition in self._partitions.items():
                self._consumer.seek(each, partition.next)
            ends = await self._consumer.end_offsets(list(self._partitions))
            behind = {each for each, partition in self._partitions.items() if partition.next < ends[each]}
            while behind and room > 0:
                for each in list(behind):
                    records, poison = await self._read_one(each)
                    for record in records:
                        self._take(each, record, poison)
                    if not records or self._next(each) >= ends[each]:
                        behind.discard(each)
                    got_on |= bool(records)
                    room -= len(records)
                    if poison is not None:
                        return True
        except IllegalStateError:
            return True  # a partition has gone elsewhere
        return got_on

    async def _read_one(self, at: TopicPartition) -> tuple[list[Record], Poison | None]:
        """Read the next message of a partition, if there is one, and say why if it cannot be read."""
        try:
            found = await self._consumer.getmany(at, timeout_ms=int(SINGLE_SECONDS * 1000), max_records=1)
        except KafkaError:
            raise
        except Exception as error:
            offset = self._next(at)
            self._consumer.seek(at, offset + 1)
            unreadable = Record(at.topic, at.partition, offset, -1, None, None, ())
            return [unreadable], Poison(PoisonReason.INVALID_VALUE, f"the message cannot be read: {error!r}"[:300])
        return [_record(each) for each in found.get(at, ())], None

    def _next(self, at: TopicPartition) -> int:
        if (partition := self._partitions.get(at)) is None:
            raise IllegalStateError(f"{at} has gone elsewhere")
        return partition.next

    def _take(self, at: TopicPartition, record: Record, unreadable: Poison | None = None) -> None:
        partition = self._partitions.get(at)
        if partition is None or at in self._leaving:
            return  # it went elsewhere while this was on its way
        partition.read(record.offset)
        self._tag += 1
        made = Delivery(self._tag, message_of(record, self._now()), record, unreadable)
        heapq.heappush(self._ready, (self._tag, made))

    def _hand_over(self) -> None:
        while self._consuming and self._ready:
            tag, delivery = heapq.heappop(self._ready)
            self._in_hand[tag] = delivery
            self._told.arrived(delivery)

    # -- offsets -------------------------------------------------------------------------------------------------------

    async def _begin_new(self) -> None:
        """Find where to begin with partitions that are new to this member."""
        if not (new := list(self._new)):
            return
        committed = dict(zip(new, await asyncio.gather(*(self._consumer.committed(each) for each in new)), strict=True))
        first = await self._consumer.beginning_offsets(new)
        last = await self._consumer.end_offsets(new)
        starts = {}
        for each in self._new.intersection(new):
            start = self._start(each, committed[each], first[each], last[each])
            try:
                self._consumer.seek(each, start)
            except IllegalStateError:
                continue  # it is gone already
            self._new.discard(each)
            self._partitions[each] = Partition(start)
            if committed[each] == start:
                self._committed[each] = start
            else:
                starts[each] = start
        if starts:
            await self._commit()

    def _start(self, partition: TopicPartition, committed: int | None, first: int, last: int) -> int:
        if committed is None:
            return first if self._address.from_earliest else last
        if first <= committed <= last:
            return committed
        # Deleted by age before they were read; or the topic was cut short by a failure of its cluster.
        start = first if committed < first or self._address.from_earliest else last
        _log.error(
            "the group's offset is not in the topic any more: messages may be lost",
            source=self._address.source,
            topic=partition.topic,
            partition=partition.partition,
            committed=committed,
            start=start,
        )
        return start

    async def _commit_on(self) -> None:
        while True:
            await asyncio.sleep(COMMIT_SECONDS)
            with _lost_is_told():
                await self._commit()

    async def _commit(self) -> None:
        """Tell the broker up to where all is dealt with. Where the group has changed, it comes again."""
        marks = {each: partition.watermark for each, partition in self._partitions.items()}
        moved = {each: mark for each, mark in marks.items() if self._committed.get(each) != mark}
        if not moved:
            return
        try:
            await self._consumer.commit(moved)
        except (CommitFailedError, IllegalStateError) as error:
            _log.info("offsets could not be committed, as the group changes", why=str(error))
        else:
            self._committed |= {each: mark for each, mark in moved.items() if each in self._partitions}


# The library asks listeners for their class.
ConsumerRebalanceListener.register(KafkaSession)


async def open_session(
    address: Address, told: Told, now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> KafkaSession:
    """Connect, see that the topics are there, and join the group. Raises `Trouble`."""
    consumer = AIOKafkaConsumer(
        group_id=address.group,
        enable_auto_commit=False,
        auto_offset_reset="none",
        isolation_level="read_committed",
        session_timeout_ms=MEMBER_SECONDS * 1000,
        heartbeat_interval_ms=MEMBER_SECONDS * 300,
        rebalance_timeout_ms=REBALANCE_SECONDS * 1000,
        fetch_max_bytes=FETCH_BYTES,
        **address.login.options(),
    )
    try:
        with _lost_is_told():
            async with asyncio.timeout(CONNECT_SECONDS):
                try:
                    await consumer.start()
                except KafkaConnectionError:
                    raise Trouble(SourceReason.BROKER_UNREACHABLE, await why_not(address.login)) from None
                there = await consumer.topics()
        for topic in (*address.topics, address.dead_letter_topic):
            if topic not in there:
                words = f"topic {topic} is not there, or may not be described: create it, or grant that"
                raise Trouble(SourceReason.BROKER_UNREACHABLE, words)
    except BaseException:
        await ended(consumer.stop())
        raise
    session = KafkaSession(address, consumer, told, now)
    session.begin()
    return session


@contextmanager
def _lost_is_told() -> Iterator[None]:
    """Make `Trouble` of whatever the library raises."""
    try:
        yield
    except (KafkaError, OSError, TimeoutError) as error:
        raise Trouble(SourceReason.BROKER_UNREACHABLE, words_of(error)) from None


def _record(given: Any) -> Record:
    return Record(*(getattr(given, name) for name in Record._fields))


def _place(delivery: Delivery) -> TopicPartition:
    record: Record = delivery.raw
    return TopicPartition(record.topic, record.partition)
