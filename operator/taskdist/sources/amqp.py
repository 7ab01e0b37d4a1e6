"""A session with a RabbitMQ broker over AMQP 0-9-1.

Two channels: deliveries and acknowledgements on one; on the other what the broker may answer by closing it, such as
publishing to an exchange that is not there.
"""

import asyncio
import base64
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Final

import aiormq
import pamqp.frame
import structlog
from aiormq.abc import AbstractChannel, AbstractConnection, DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from taskdist.api import SourceReason
from taskdist.brokers.amqp import ANSWER_SECONDS, CONNECT_SECONDS, Login, close, lost_is_told, words_of
from taskdist.brokers.amqp_frames import MOST_BYTES, UNREADABLE, Hand, Transport
from taskdist.intake.message import Message, Poison, PoisonReason, wire
from taskdist.sources.broker import Delivery, NotPublished, Told, Trouble, Waiting, told_of

_log = structlog.get_logger("taskdist.sources")

# How deep headers are looked into.
MAX_DEPTH: Final = 16
# Headers by which RabbitMQ would route what is published once more, and to where its publisher wants.
_ROUTING: Final = ("CC", "BCC")
# The queue that a dead letter comes from.
_QUEUE: Final = "x-taskdist-queue"

# Properties that a template may name, by the names that they have there.
_PROPERTIES: Final = {
    "contentType": "content_type",
    "contentEncoding": "content_encoding",
    "deliveryMode": "delivery_mode",
    "priority": "priority",
    "correlationId": "correlation_id",
    "replyTo": "reply_to",
    "expiration": "expiration",
    "messageId": "message_id",
    "timestamp": "timestamp",
    "type": "message_type",
    "userId": "user_id",
    "appId": "app_id",
}


@dataclass(frozen=True, slots=True)
class Address:
    """The queue that is read, and its broker."""

    login: Login
    queue: str
    prefetch: int
    dead_letter_exchange: str
    dead_letter_routing_key: str
    source: str
    """Namespace and name of the source, as dead letters tell it."""


def message_of(body: bytes, properties: Basic.Properties, exchange: str, routing_key: str, now: datetime) -> Message:
    """Return the message as the template sees it."""
    known = {name: _json(getattr(properties, attribute), 0) for name, attribute in _PROPERTIES.items()}
    known |= {"exchange": exchange, "routingKey": routing_key}
    time = properties.timestamp
    return Message(
        body=body,
        headers={str(name): _json(value, 0) for name, value in (properties.headers or {}).items()},
        properties={name: value for name, value in known.items() if value is not None},
        key=routing_key,
        id=properties.message_id or None,
        time=time if isinstance(time, datetime) else now,
    )


def _json(value: Any, depth: int) -> Any:
    """Return a value of a header as JSON. Bytes are base64, times RFC 3339; what JSON has no word for is null."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, bytes | bytearray):
        return base64.b64encode(value).decode("ascii")
    if isinstance(value, datetime):
        return wire(value)
    if isinstance(value, Decimal):
        return str(value)
    if depth >= MAX_DEPTH:
        return None
    if isinstance(value, dict):
        return {str(name): _json(inner, depth + 1) for name, inner in value.items()}
    return [_json(inner, depth + 1) for inner in value] if isinstance(value, list) else None


def dead_properties(given: Basic.Properties, poison: Poison, address: Address, most: int) -> Basic.Properties:
    """Return the properties of a dead letter: those of the message, and why it is one.

    `most`: bytes that all of it may take. What would keep it from lying there (a publisher's own account, an expiry,
    routing) is left out, and its headers are where they cannot be written again.
    """
    ours = told_of(poison, address.source) | {_QUEUE: address.queue}
    headers = {name: value for name, value in (given.headers or {}).items() if name not in _ROUTING}
    kept = {
        attribute: getattr(given, attribute)
        for attribute in _PROPERTIES.values()
        if attribute not in ("user_id", "expiration", "delivery_mode")
    }
    for fields in (kept | {"headers": headers | ours}, kept | {"headers": ours}, {"headers": ours}):
        try:
            properties = Basic.Properties(**fields, delivery_mode=2)
            if len(pamqp.frame.marshal(ContentHeader(0, 0, properties), 1)) <= most:
                return properties
        except Exception as error:  # whatever it is that the library cannot write
            _log.debug("properties of a dead letter cannot be written", why=repr(error))
    raise AssertionError("our own headers can be written")


class AmqpSession:
    """A connection that consumes one queue and publishes its dead letters. Made by `open_session`."""

    def __init__(
        self,
        address: Address,
        connection: AbstractConnection,
        channel: AbstractChannel,
        hand: Hand,
        told: Told,
        now: Callable[[], datetime],
    ) -> None:
        self._address = address
        self._connection = connection
        self._channel = channel
        self._hand = hand
        self._arrived = told.arrived
        self._lost = told.lost
        self._now = now
        self._side: AbstractChannel | None = None
        self._tag = ""
        self._closing = False
        for part in (connection, channel):
            part.closing.add_done_callback(self._ended)
        channel.on_consumer_cancel_callbacks.add(self._cancelled)

    async def consume(self) -> None:
        with lost_is_told(_lost):
            # Exclusive: two consumers, such as one of a process that is dying, would break the order by key.
            done = await self._channel.basic_consume(
                self._address.queue, self._delivered, exclusive=True, timeout=ANSWER_SECONDS
            )
            self._tag = str(done.consumer_tag)

    async def pause(self) -> None:
        with lost_is_told(_lost):
            await self._channel.basic_cancel(self._tag, timeout=ANSWER_SECONDS)

    async def acknowledge(self, tag: int) -> None:
        await self._let_go(tag, self._channel.basic_ack(tag))

    async def give_back(self, tag: int) -> None:
        await self._let_go(tag, self._channel.basic_nack(tag, requeue=True))

    async def _let_go(self, tag: int, telling: Awaitable[None]) -> None:
        """Tell what becomes of a message. A broker that does not read what it is told holds nobody up for long."""
        self._hand.release(tag)
        with lost_is_told(_lost):
            async with asyncio.timeout(ANSWER_SECONDS):
                await telling

    async def dead_letter(self, delivery: Delivery, poison: Poison) -> None:
        address, raw = self._address, delivery.raw
        assert isinstance(raw, DeliveredMessage)
        most = int(self._connection.connection_tune.frame_max or 4096) - 8
        properties = dead_properties(raw.header.properties, poison, address, most)
        try:
            async with self._beside() as channel:
                await channel.basic_publish(
                    raw.body,
                    exchange=address.dead_letter_exchange,
                    routing_key=address.dead_letter_routing_key,
                    properties=properties,
                    mandatory=True,
                    timeout=ANSWER_SECONDS,
                )
        except aiormq.PublishError:
            raise NotPublished(
                f"no queue is bound to the exchange {address.dead_letter_exchange} "
                f"with the key {address.dead_letter_routing_key}: bind one"
            ) from None
        except (aiormq.AMQPChannelError, aiormq.DeliveryError) as error:
            raise NotPublished(f"exchange {address.dead_letter_exchange}: {words_of(error)}") from None
        except TimeoutError:
            raise NotPublished(f"the broker has not confirmed it within {ANSWER_SECONDS:g} s") from None

    async def backlog(self) -> Waiting:
        try:
            async with self._beside() as channel:
                done = await channel.queue_declare(self._address.queue, passive=True, timeout=ANSWER_SECONDS)
                return Waiting(int(done.message_count or 0))
        except (aiormq.AMQPChannelError, TimeoutError) as error:
            raise Trouble(
                SourceReason.BROKER_UNREACHABLE, f"queue {self._address.queue} cannot be asked: {words_of(error)}"
            ) from None

    async def close(self) -> None:
        self._closing = True
        await close(self._connection)

    @asynccontextmanager
    async def _beside(self) -> AsyncIterator[AbstractChannel]:
        """The other channel, opened anew where the broker has closed it."""
        with lost_is_told(_lost, but=(aiormq.AMQPChannelError, aiormq.DeliveryError, TimeoutError)):
            if self._side is None or self._side.is_closed:
                self._side = await self._connection.channel(
                    publisher_confirms=True, on_return_raises=True, timeout=ANSWER_SECONDS
                )
            yield self._side

    async def _delivered(self, message: DeliveredMessage) -> None:
        """Hand a message on. The library calls it in their order, and it never waits, so that the order stays."""
        properties, delivery = message.header.properties, message.delivery
        assert isinstance(delivery, Basic.Deliver)
        headers = properties.headers or {}
        left_out = headers.pop(self._hand.left_out, None)
        assert left_out is None or isinstance(left_out, int)
        unreadable = None
        if (why := headers.get(UNREADABLE)) is not None:
            unreadable = Poison(PoisonReason.INVALID_VALUE, f"its properties cannot be read: {why!s}")
        if left_out:
            words = f"the body has {left_out} bytes, more than {MOST_BYTES}, and is left out of the dead letter"
            unreadable = Poison(PoisonReason.TOO_LARGE, words)
        self._arrived(
            Delivery(
                int(delivery.delivery_tag or 0),
                message_of(message.body, properties, delivery.exchange or "", delivery.routing_key or "", self._now()),
                message,
                unreadable,
                crowded=left_out == 0,
            )
        )

    def _ended(self, closing: "asyncio.Future[Any]") -> None:
        error = None if closing.cancelled() else closing.exception()
        if not self._closing:
            self._lost(words_of(error) if error is not None else "the connection was closed")

    def _cancelled(self, _: Any) -> None:
        self._lost(f"the broker has ended the consumer: was queue {self._address.queue} deleted or moved?")


async def open_session(
    address: Address,
    told: Told,
    now: Callable[[], datetime] = lambda: datetime.now(UTC),
) -> AmqpSession:
    """Connect, and see that queue and exchange are there. Raises `Trouble`."""
    hand = Hand()
    connection = aiormq.Connection(address.login.url, transport_factory=Transport(address.login.tls, hand))
    try:
        with lost_is_told(_lost):
            async with asyncio.timeout(CONNECT_SECONDS):
                await connection.connect()
                await _look(connection, address)
                channel = await connection.channel(publisher_confirms=False)
                await channel.basic_qos(prefetch_count=address.prefetch)
    except BaseException as error:
        await close(connection)
        if isinstance(error, Trouble) and hand.farewell:
            raise Trouble(error.reason, hand.farewell[:500]) from None
        raise
    return AmqpSession(address, connection, channel, hand, told, now)


async def _look(connection: AbstractConnection, address: Address) -> None:
    """See that queue and exchange are there. One that is not closes the channel on which it is asked for."""
    channel = await connection.channel(publisher_confirms=False)
    await channel.queue_declare(address.queue, passive=True)
    await channel.exchange_declare(address.dead_letter_exchange, passive=True)
    await channel.close()


def _lost(words: str) -> Trouble:
    return Trouble(SourceReason.BROKER_UNREACHABLE, words)
