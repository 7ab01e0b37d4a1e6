"""A receiver that is a queue of SQS: one message for each end, a CloudEvent in structured mode.

A queue in order (.fifo) keeps the order of keys, each a group, and takes an end that is sent again within five minutes
once. SQS knows no connection: what is kept is a client, with the login that it was made with.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from hashlib import sha256
from socket import socket
from typing import Any, Final
from urllib.parse import urlsplit

from taskdist.api import SinkReason
from taskdist.brokers.sqs import FIFO, Access, Sqs, enter
from taskdist.brokers.sqs_errors import NOT_TAKEN, THROTTLED, Refused, Unusable, Why
from taskdist.intake.cloudevents import STRUCTURED
from taskdist.outgoing.addresses import Allowed
from taskdist.outgoing.delivery import Failure
from taskdist.outgoing.ends import End, without_result
from taskdist.sinks.broker import Connection
from taskdist.sinks.dialling import REFUSED, AddressRefused, guarded_socket
from taskdist.sinks.receiver import NotTold, Trouble

_ATTRIBUTES: Final = {"content-type": {"DataType": "String", "StringValue": STRUCTURED}}
# The most bytes of a message, which its attributes' names, types and values are part of.
MESSAGE_BYTES: Final = 256 * 1024
MOST_BYTES: Final = MESSAGE_BYTES - len("content-type" + "String" + STRUCTURED)
# What a group may be called.
_GROUP: Final = re.compile("[!-~]{1,128}")


class Dial:
    """Makes sockets to allowed addresses, and keeps whether the last one was refused: the library does not say."""

    def __init__(self, allowed: Allowed) -> None:
        self._allowed = allowed
        self.refused = False

    def __call__(self, url: str, info: Any) -> socket:
        parts = urlsplit(url)
        try:
            made = guarded_socket(self._allowed, parts.hostname or "", parts.scheme == "http", info)
        except AddressRefused:
            self.refused = True
            raise
        self.refused = False
        return made


class Opened:
    """A client, which ends once nobody asks by it any more."""

    def __init__(self, sqs: Sqs, dial: Dial) -> None:
        self._sqs = sqs
        self._asking = 0
        self._left = False
        self.dial = dial

    async def send(self, queue: str, message: Mapping[str, Any]) -> None:
        self._asking += 1
        try:
            # Not asked again here: who sends waits, with all ends behind this one.
            await self._sqs.ask("SendMessage", queue, _message_id, again=False, **message)
        finally:
            self._asking -= 1
            await self._end()

    async def leave(self) -> None:
        self._left = True
        await self._end()

    async def _end(self) -> None:
        if self._left and not self._asking:
            await self._sqs.close()


class SqsReceiver:
    """One queue.

    Args:
        access: reads how SQS lets us in, for each client, with what dials for it. Raises `Trouble` and KubeError.
    """

    def __init__(
        self,
        access: Callable[[Dial], Awaitable[Access]],
        allowed: Allowed,
        queue: str,
        ticks: Callable[[], float],
    ) -> None:
        self._access = access
        self._allowed = allowed
        self._queue = queue
        self._connection = Connection(self._open, Opened.leave, ticks)

    async def tell(self, end: End) -> None:
        why = f"a message has at most {MOST_BYTES}"
        if len(end.body) <= MOST_BYTES and not (why := await self._send(end, end.body)):
            return
        # The queue may take less than SQS does.
        body = without_result(end.body)
        if body != end.body and len(body) <= MOST_BYTES and not (why := await self._send(end, body)):
            return
        raise NotTold(Failure.REJECTED, f"it has {len(body)} bytes without its result: {why}")

    async def close(self) -> None:
        await self._connection.close()

    async def _send(self, end: End, body: bytes) -> str:
        """Send it; return why SQS does not take such a message, or nothing. Raises `NotTold`."""
        opened = await self._connection.get()
        try:
            await opened.send(self._queue, message_of(end, body, fifo=self._queue.endswith(FIFO)))
        except Unusable as error:
            if opened.dial.refused:
                raise NotTold(Failure.UNAVAILABLE, REFUSED, reason=SinkReason.ADDRESS_REFUSED) from None
            code = error.code if isinstance(error, Refused) else ""
            if code in NOT_TAKEN:
                return str(error)
            if code in THROTTLED:
                raise NotTold(Failure.UNAVAILABLE, str(error)) from None
            if code or error.why is Why.SECRET_UNUSABLE:
                # The next one is made with what the Secret then holds.
                await self._connection.drop(opened)
            raise NotTold(Failure.UNAVAILABLE, str(error), reason=SinkReason(error.why)) from None
        return ""

    async def _open(self) -> Opened:
        dial = Dial(self._allowed)
        try:
            return Opened(await enter(await self._access(dial)), dial)
        except Unusable as error:
            raise Trouble(SinkReason(error.why), str(error)) from None


def message_of(end: End, body: bytes, *, fifo: bool) -> dict[str, Any]:
    """Return the message as it is sent."""
    message: dict[str, Any] = {"MessageBody": body.decode("ascii"), "MessageAttributes": _ATTRIBUTES}
    if fifo:
        message["MessageGroupId"] = group_of(end.key)
        message["MessageDeduplicationId"] = end.id
    return message


def group_of(key: str) -> str:
    """Return the group of a key: the key itself, or where no group may be called so, its hash."""
    return key if _GROUP.fullmatch(key) else f"sha256:{sha256(key.encode('utf-8', 'replace')).hexdigest()}"


def _message_id(answer: Mapping[str, Any]) -> str:
    """Return the id of the message: only with one was it taken."""
    return str(answer["MessageId"])
