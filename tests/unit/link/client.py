"""A minimal agent for tests of the server: it speaks the format over TLS and does no work."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import grpc
from grpc import aio

from taskdist.link import codec
from taskdist.link.codec import Reauthenticate
from taskdist.link.proto import SESSION_METHOD
from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol.messages import PROTOCOL_VERSION, FromAgent, Hello, ToAgent

WAIT = 10.0


def hello(instance: str = "one", slots: int = 2) -> Hello:
    return Hello(PROTOCOL_VERSION, instance, slots, 1.0)


class Stream:
    """One call of Session."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def say(self, *messages: FromAgent | Reauthenticate) -> None:
        for message in messages:
            await self.raw(codec.encode_from_agent(message).SerializeToString())

    async def raw(self, wire: bytes) -> None:
        async with asyncio.timeout(WAIT):
            await self.call.write(wire)

    async def hear(self) -> ToAgent | None:
        """Return the next message, None at the end of the call."""
        async with asyncio.timeout(WAIT):
            try:
                wire = await self.call.read()
            except aio.AioRpcError:
                return None
        if wire is aio.EOF:  # type: ignore[attr-defined]
            return None
        return codec.decode_to_agent(pb.ToAgent.FromString(wire))

    async def status(self) -> tuple[grpc.StatusCode, str]:
        """Wait for the end of the call and return what it ended with."""
        async with asyncio.timeout(WAIT):
            return await self.call.code(), await self.call.details()


@asynccontextmanager
async def dial(port: int, bundle: bytes, token: str = "good") -> AsyncIterator[Stream]:
    """Open a channel of its own, as agents do, and a session on it."""
    credentials = grpc.ssl_channel_credentials(bundle)
    # Without this, channels of one process share a connection, and with it a handshake.
    options = [("grpc.use_local_subchannel_pool", 1)]
    async with aio.secure_channel(f"localhost:{port}", credentials, options) as channel:
        open_stream: Any = channel.stream_stream  # the stub asks for arguments that have defaults
        call = open_stream(SESSION_METHOD)(metadata=(("authorization", f"Bearer {token}"),))
        try:
            yield Stream(call)
        finally:
            call.cancel()
