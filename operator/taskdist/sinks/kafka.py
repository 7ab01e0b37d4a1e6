"""A receiver that is a topic of Kafka: one message for each end, a CloudEvent in structured mode.

The order key is the message's key, so that what is in order lies in one partition. An end counts as told once all
replicas in sync have it (`acks=all`); the producer is an idempotent one, so that what it sends again lies there once.
A producer that failed is not used any further: what it had counted is not what the cluster has.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaConnectionError, KafkaError, MessageSizeTooLargeError, RecordListTooLargeError

from taskdist.api import SinkReason
from taskdist.brokers.kafka import ANSWER_SECONDS, PUBLISH_BYTES, Login, ended, why_not, words_of
from taskdist.intake.cloudevents import STRUCTURED
from taskdist.outgoing.addresses import Allowed
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End
from taskdist.sinks.broker import Connection
from taskdist.sinks.dialling import REFUSED, guarded
from taskdist.sinks.receiver import NotTold, Trouble

# The longest that a connection may take, in seconds.
CONNECT_SECONDS: Final = 20.0
_HEADERS: Final = [("content-type", STRUCTURED.encode())]


class KafkaReceiver:
    """One topic.

    Args:
        login: reads how the cluster lets us in, at each connection. Raises `Trouble` and KubeError.
    """

    def __init__(
        self, login: Callable[[], Awaitable[Login]], allowed: Allowed, topic: str, ticks: Callable[[], float]
    ) -> None:
        self._login = login
        self._allowed = allowed
        self._topic = topic
        self._connection: Connection[Any] = Connection(self._open, lambda producer: ended(producer.stop()), ticks)

    async def tell(self, end: End) -> None:
        producer = await self._connection.get()
        key = end.key.encode("utf-8", "replace")
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                await producer.send_and_wait(self._topic, end.body, key, headers=_HEADERS)
        except (MessageSizeTooLargeError, RecordListTooLargeError):
            # The broker's word: the producer goes on with what it counts.
            await self._connection.drop(producer)
            raise NotTold(Failure.REJECTED, f"it has {len(end.body)} bytes, more than the topic takes") from None
        except TimeoutError:
            await self._connection.drop(producer)
            raise _unavailable("the cluster has not acknowledged it in time") from None
        except (KafkaError, OSError) as error:
            await self._connection.drop(producer)
            raise _unavailable(words_of(error)) from None

    async def close(self) -> None:
        await self._connection.close()

    async def _open(self) -> Any:
        """Connect, and see that the topic is there. Raises `Trouble` and KubeError."""
        login = await self._login()
        with guarded(self._allowed, plain=login.tls is None):
            producer = AIOKafkaProducer(
                acks="all", enable_idempotence=True, max_request_size=PUBLISH_BYTES, **login.options()
            )
            try:
                async with asyncio.timeout(CONNECT_SECONDS):
                    try:
                        await producer.start()
                    except KafkaConnectionError:
                        raise Trouble(SinkReason.BROKER_UNREACHABLE, await why_not(login)) from None
                    there = await producer.client.fetch_all_metadata()
                if self._topic not in there.topics():
                    words = f"topic {self._topic} is not there, or may not be described: create it, or grant that"
                    raise Trouble(SinkReason.BROKER_UNREACHABLE, words)
            except BaseException as error:
                await ended(producer.stop())
                if REFUSED in str(error):
                    raise Trouble(SinkReason.ADDRESS_REFUSED, REFUSED) from None
                if isinstance(error, KafkaError | OSError | TimeoutError):
                    raise Trouble(SinkReason.BROKER_UNREACHABLE, words_of(error)) from None
                raise
        return producer


def _unavailable(words: str) -> NotTold:
    return NotTold(Failure.UNAVAILABLE, words, reason=SinkReason.BROKER_UNREACHABLE)
