"""The agent's side of the link over gRPC: TLS, the token, one ordered stream each way. It decides nothing.

What can change under a running agent is read anew: the bundle of authorities and the token for each connection, the
token again before its end. A peer that is dead without a word (power, network) shows by HTTP/2 pings in two seconds.
"""

import asyncio
import base64
import binascii
import json
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
from structlog.typing import FilteringBoundLogger

from taskdist.agent.supervisor import LinkLost
from taskdist.agent.vital import vital_task
from taskdist.link.codec import Reauthenticate, decode_from_agent, decode_to_agent, encode_from_agent
from taskdist.link.proto import MAX_MESSAGE_BYTES, SESSION_METHOD
from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol.messages import FromAgent, ToAgent

CONNECT_SECONDS = 5.0
# A dial that is not answered so soon gets another one beside it, which may reach another replica.
BESIDE_SECONDS = 1.0
MOST_DIALS = 3
CLOSE_SECONDS = 2.0
KEEPALIVE_MILLISECONDS = 1000
# How often the token's file is looked at. The kubelet replaces a token when a fifth of its life is left.
TOKEN_SECONDS = 10.0
# A token that ends this soon and was not replaced is worth a warning.
TOKEN_WARNING_SECONDS = 30.0

_OPTIONS: list[tuple[str, Any]] = [
    ("grpc.keepalive_time_ms", KEEPALIVE_MILLISECONDS),
    ("grpc.keepalive_timeout_ms", KEEPALIVE_MILLISECONDS),
    # Without it an unanswered ping has a minute, whatever the time-out above says (seen with grpcio 1.85).
    ("grpc.http2.ping_timeout_ms", KEEPALIVE_MILLISECONDS),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.max_pings_without_data", 0),
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.enable_retries", 0),
    # Each connection is made for one session, by us: no sharing, no back-off of gRPC's own.
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_http_proxy", 0),
]


@dataclass(frozen=True, slots=True)
class Endpoint:
    """The operator's address, and the files by which each side proves itself."""

    address: str
    ca_file: Path
    token_file: Path
    server_name: str = ""


def token_end(token: str) -> float | None:
    """When a JWT ends (Unix time), read from its body without verifying it; None if it does not say."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
        return float(claims["exp"])
    except (IndexError, KeyError, TypeError, ValueError, binascii.Error):
        return None


def fault(message: FromAgent) -> str:
    """Why the operator would not take this message, or it cannot be sent at all; empty if all is well."""
    try:
        decode_from_agent(encode_from_agent(message))
    except ValueError as error:
        return str(error)
    return ""


class GrpcConnector:
    """Opens sessions."""

    def __init__(self, endpoint: Endpoint, log: FilteringBoundLogger, *, token_seconds: float = TOKEN_SECONDS) -> None:
        self._endpoint = endpoint
        self._log = log
        self._token_seconds = token_seconds

    async def connect(self) -> "GrpcConnection":
        """Connect, or raise LinkLost with what to look at."""
        endpoint = self._endpoint
        try:
            authorities = await asyncio.to_thread(endpoint.ca_file.read_bytes)
            token = await asyncio.to_thread(self.read_token)
        except (OSError, ValueError) as error:
            raise LinkLost(f"cannot read what the link needs: {error}") from error
        options = list(_OPTIONS)
        if endpoint.server_name:
            options.append(("grpc.ssl_target_name_override", endpoint.server_name))
        credentials = grpc.ssl_channel_credentials(root_certificates=authorities)
        channel = await self._dial(lambda: grpc.aio.secure_channel(endpoint.address, credentials, options=options))
        return GrpcConnection(channel, token, self)

    async def _dial(self, make: Callable[[], grpc.aio.Channel]) -> grpc.aio.Channel:
        """Return the first channel that connects. One that fails at once is told at once."""
        dials: dict[asyncio.Task[bool], grpc.aio.Channel] = {}
        open_: set[asyncio.Task[bool]] = set()
        chosen: grpc.aio.Channel | None = None
        deadline = time.monotonic() + CONNECT_SECONDS
        try:
            while chosen is None:
                if len(dials) < MOST_DIALS:
                    channel = make()
                    dials[task := asyncio.create_task(_connected(channel))] = channel
                    open_.add(task)
                left = deadline - time.monotonic()
                pause = min(left, BESIDE_SECONDS) if len(dials) < MOST_DIALS else left
                done, open_ = await asyncio.wait(open_, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                chosen = next((dials[task] for task in done if task.result()), None)
                if chosen is None and (not open_ or time.monotonic() >= deadline):
                    how = f"in {CONNECT_SECONDS:.0f} s" if open_ else "the connection failed"
                    raise LinkLost(
                        f"no TLS connection to {self._endpoint.address} ({how}): is the operator up, and does its "
                        f"certificate match {self._endpoint.ca_file}?"
                    )
            return chosen
        finally:
            for task in dials:
                task.cancel()
            await asyncio.gather(*dials, return_exceptions=True)
            for channel in dials.values():
                if channel is not chosen:
                    await channel.close(None)

    def read_token(self) -> str:
        return self._endpoint.token_file.read_text(encoding="ascii").strip()

    async def fresh_tokens(self, token: str) -> AsyncIterator[str]:
        """Yield each token that replaces the one before."""
        while True:
            end = token_end(token)
            left = float("inf") if end is None else end - time.time()
            await asyncio.sleep(min(self._token_seconds, max(0.5, left / 4)))
            try:
                found = await asyncio.to_thread(self.read_token)
            except (OSError, ValueError) as error:
                self._log.warning("token cannot be read", error=str(error))
                continue
            if found and found != token:
                token = found
                yield token
            elif left < TOKEN_WARNING_SECONDS:
                self._log.warning("token ends soon and was not replaced", seconds=round(left, 1))


async def _connected(channel: grpc.aio.Channel) -> bool:
    """Connect: False as soon as it failed. gRPC would go on trying; a new dial may reach another replica."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.READY:
        if state in (grpc.ChannelConnectivity.TRANSIENT_FAILURE, grpc.ChannelConnectivity.SHUTDOWN):
            return False
        await channel.wait_for_state_change(state)
    return True


class GrpcConnection:
    """A connection over gRPC: one call of Link.Session. Messages go out in order; receiving ends with LinkLost."""

    def __init__(self, channel: grpc.aio.Channel, token: str, connector: GrpcConnector) -> None:
        self._channel = channel
        self._outgoing: asyncio.Queue[pb.FromAgent | None] = asyncio.Queue()
        self._broken = ""
        open_stream: Any = channel.stream_stream  # its stub asks for arguments that have defaults
        session = open_stream(
            SESSION_METHOD,
            request_serializer=pb.FromAgent.SerializeToString,
            response_deserializer=pb.ToAgent.FromString,
        )
        self._call: Any = session(metadata=(("authorization", f"Bearer {token}"),))
        self._writing = vital_task(self._broke, self._write())
        self._renewing = vital_task(self._broke, self._renew(token, connector))

    def send(self, message: FromAgent) -> None:
        # Encoded here, where its sender hears of it, and not where the stream would end without a word.
        self._outgoing.put_nowait(encode_from_agent(message))

    def _broke(self, error: BaseException) -> None:
        """Without one of its parts this session is worth nothing: the next one starts afresh."""
        self._broken = f"a part of the session failed: {type(error).__name__}: {error}"
        self._call.cancel()

    async def receive(self) -> ToAgent:
        try:
            wire = await self._call.read()
        except grpc.aio.AioRpcError as error:
            raise LinkLost(f"{error.code().name}: {error.details()}") from error
        except asyncio.CancelledError:
            # grpc raises it when the call was cancelled too, which is no cancel of our task.
            task = asyncio.current_task()
            if task is not None and not task.cancelling():
                raise LinkLost(self._broken or "the session was closed") from None
            raise
        if not isinstance(wire, pb.ToAgent):  # the end of the stream
            raise LinkLost(await self._why())
        try:
            return decode_to_agent(wire)
        except ValueError as error:
            raise LinkLost(f"the operator sent what this agent does not understand: {error}") from error

    async def close(self, *, flush: bool = False) -> None:
        """End the call; with `flush`, first send what waits, for at most CLOSE_SECONDS."""
        self._renewing.cancel()
        if flush:
            self._outgoing.put_nowait(None)
            await asyncio.wait([self._writing], timeout=CLOSE_SECONDS)
        self._writing.cancel()
        self._call.cancel()
        await asyncio.wait([self._writing, self._renewing])
        await self._channel.close(None)

    async def _write(self) -> None:
        try:
            while (message := await self._outgoing.get()) is not None:
                await self._call.write(message)
            await self._call.done_writing()
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError, grpc.aio.UsageError):
            # The call is over: receive() tells why.
            return

    async def _renew(self, token: str, connector: GrpcConnector) -> None:
        async for fresh in connector.fresh_tokens(token):
            self._outgoing.put_nowait(encode_from_agent(Reauthenticate(fresh)))

    async def _why(self) -> str:
        code, details = await self._call.code(), await self._call.details()
        return f"{code.name}: {details}" if code != grpc.StatusCode.OK else "the operator ended the session"
