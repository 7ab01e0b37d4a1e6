"""A receiver that is an exchange of RabbitMQ: one message for each end, a CloudEvent in structured mode.

An end counts as told once the broker has confirmed that it lies in a queue. A message that reaches none comes back
(`mandatory`), and counts as not told.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

import aiormq
from aiormq.abc import AbstractChannel, AbstractConnection
from pamqp.commands import Basic

from taskdist.api import SinkReason
from taskdist.brokers.amqp import ANSWER_SECONDS, CONNECT_SECONDS, Login, close, lost_is_told
from taskdist.brokers.amqp_frames import Hand, Transport
from taskdist.intake.cloudevents import STRUCTURED
from taskdist.outgoing.addresses import Allowed
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End
from taskdist.sinks.broker import Connection
from taskdist.sinks.dialling import REFUSED, guarded
from taskdist.sinks.receiver import NotTold, Trouble

_KEPT: Final = 2  # on disk, in queues that are
_TYPE: Final = "dev.taskdist.task."


@dataclass(frozen=True, slots=True)
class Opened:
    """A connection and its channel, on which what is published is confirmed."""

    connection: AbstractConnection
    channel: AbstractChannel


class RabbitMQReceiver:
    """One exchange.

    Args:
        login: reads how the broker lets us in, at each connection. Raises `Trouble` and KubeError.
        routing_key: None for one of each Task's queue and how it ended.
    """

    def __init__(
        self,
        login: Callable[[], Awaitable[Login]],
        allowed: Allowed,
        exchange: str,
        routing_key: str | None,
        ticks: Callable[[], float],
    ) -> None:
        self._login = login
        self._allowed = allowed
        self._exchange = exchange
        self._routing_key = routing_key
        self._connection = Connection(self._open, lambda opened: close(opened.connection), ticks)

    async def tell(self, end: End) -> None:
        opened = await self._connection.get()
        properties = Basic.Properties(
            message_id=end.id, content_type=STRUCTURED, delivery_mode=_KEPT, app_id="taskdist"
        )
        key = self._routing_key or routing_key_of(end)
        try:
            with lost_is_told(_lost, but=(aiormq.PublishError, aiormq.DeliveryError)):
                await opened.channel.basic_publish(
                    end.body,
                    exchange=self._exchange,
                    routing_key=key,
                    properties=properties,
                    mandatory=True,
                    timeout=ANSWER_SECONDS,
                )
        except aiormq.PublishError:
            said = f"no queue is bound to the exchange {self._exchange} for the key {key}: bind one"
            raise NotTold(Failure.FAILED, said) from None
        except aiormq.DeliveryError:
            raise NotTold(Failure.UNAVAILABLE, "the broker does not take it now: is a queue full?") from None
        except Trouble as error:
            await self._connection.drop(opened)
            raise NotTold(Failure.UNAVAILABLE, str(error), reason=error.reason) from None

    async def close(self) -> None:
        await self._connection.close()

    async def _open(self) -> Opened:
        """Connect, and see that the exchange is there. Raises `Trouble` and KubeError."""
        login, hand = await self._login(), Hand()
        connection = aiormq.Connection(login.url, transport_factory=Transport(login.tls, hand))
        try:
            with lost_is_told(_lost), guarded(self._allowed, plain=login.tls is None):
                async with asyncio.timeout(CONNECT_SECONDS):
                    await connection.connect()
                    # One that is not there closes the channel on which it is asked for.
                    asking = await connection.channel(publisher_confirms=False)
                    await asking.exchange_declare(self._exchange, passive=True)
                    await asking.close()
                    channel = await connection.channel(publisher_confirms=True, on_return_raises=True)
        except BaseException as error:
            await close(connection)
            if REFUSED in str(error):
                raise Trouble(SinkReason.ADDRESS_REFUSED, REFUSED) from None
            if isinstance(error, Trouble) and hand.farewell:
                raise Trouble(error.reason, hand.farewell[:500]) from None
            raise
        return Opened(connection, channel)


def routing_key_of(end: End) -> str:
    """Return the Task's queue and how it ended: `orders.succeeded`."""
    event: dict[str, Any] = json.loads(end.body)
    ending = str(event["type"]).removeprefix(_TYPE)
    return f"{event['data']['queue']}.{ending}"[:255]


def _lost(words: str) -> Trouble:
    return Trouble(SinkReason.BROKER_UNREACHABLE, words)
