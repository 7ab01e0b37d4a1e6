"""The operator's end of the link: TLS, one stream per agent, and what keeps a hostile or dead agent from harm.

It admits an agent, reads its hello, then carries messages between the stream and the dispatch loop, in order, until
either end closes. It reads a stream only as fast as its messages are handled, gives each a bound of what may wait to
be sent, and ends one that says nothing. What messages mean is not known here: the one exception is a fresh token.
"""

import asyncio
import itertools
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import grpc
import structlog
from google.protobuf.message import DecodeError
from grpc import aio

from taskdist.link import codec
from taskdist.link.auth import Admission, Authenticator, NotAdmitted, Refusal
from taskdist.link.ca import Pair
from taskdist.link.codec import BadMessage, Reauthenticate
from taskdist.link.keeper import CertificateSource
from taskdist.link.proto import MAX_MESSAGE_BYTES, SESSION_METHOD
from taskdist.link.proto import link_pb2 as pb
from taskdist.link.session import (
    BYTES_PER_MESSAGE,
    MESSAGES_PER_LEASE,
    MESSAGES_PER_SESSION,
    QUEUE_BYTES,
    QUEUE_MESSAGES,
    AgentStream,
    End,
    Outbox,
    Throttle,
)
from taskdist.protocol.messages import AgentIdentity, FromAgent, Hello, Refused, Renew, ToAgent

PING_TIMEOUT = 2.0
WATCH_SECONDS = 0.1  # how often silence is looked for
FLUSH_SECONDS = 2.0
STREAMS_PER_POD = 4  # the present one, its successor, and some that are ending
REAUTHENTICATE_AGAIN = 5.0
NOT_LEADING = "NotLeading"
# How long a connection may take from its first byte to TLS and HTTP/2, and may be without a call after it. gRPC's own
# default is two minutes: each such connection costs some 30 KiB, and takes no more than a TCP handshake of a stranger.
GREETING_SECONDS = 5.0
# How many connections there may be at once, agents' and strangers'. Those beyond it are closed at once.
MOST_CONNECTIONS = 10_000

_STATUS = {
    End.REPLACED: grpc.StatusCode.UNAVAILABLE,
    End.REFUSED: grpc.StatusCode.FAILED_PRECONDITION,
    End.TOKEN: grpc.StatusCode.UNAUTHENTICATED,
    End.AGENT: grpc.StatusCode.PERMISSION_DENIED,
    End.BAD_MESSAGE: grpc.StatusCode.INVALID_ARGUMENT,
    End.OVERFLOW: grpc.StatusCode.RESOURCE_EXHAUSTED,
    End.SILENT: grpc.StatusCode.DEADLINE_EXCEEDED,
    End.STOPPING: grpc.StatusCode.UNAVAILABLE,
}
_NOT_ADMITTED = {
    Refusal.TOKEN: grpc.StatusCode.UNAUTHENTICATED,
    Refusal.AGENT: grpc.StatusCode.PERMISSION_DENIED,
    Refusal.LATER: grpc.StatusCode.UNAVAILABLE,
}
_EOF = aio.EOF  # type: ignore[attr-defined]  # the stub lacks it
_log = structlog.get_logger("taskdist.link")


class Listener(Protocol):
    """The receiver of what agents say: the dispatch loop.

    All methods are called on the event loop and must not block. Each may call `send` and `close` at once.
    """

    def connected(self, session: int, identity: AgentIdentity, hello: Hello) -> None:
        """An agent is there and said hello."""

    def received(self, session: int, message: FromAgent) -> None:
        """It said something more."""

    def disconnected(self, session: int) -> None:
        """Its session ended, by either end: told exactly once for each `connected`, as the last word."""


class LinkServer:
    """The gRPC server that agents dial.

    Args:
        port: 0 for any free one.
        ping_timeout: seconds of silence after which an agent is taken for dead.
        on_refused: told the word for why an agent was turned away.
    """

    def __init__(
        self,
        sessions: Listener,
        authenticator: Authenticator,
        certificates: CertificateSource,
        port: int,
        *,
        host: str = "0.0.0.0",
        ping_timeout: float = PING_TIMEOUT,
        queue_messages: int = QUEUE_MESSAGES,
        queue_bytes: int = QUEUE_BYTES,
        greeting_seconds: float = GREETING_SECONDS,
        most_connections: int = MOST_CONNECTIONS,
        on_refused: Callable[[str], None] = lambda _reason: None,
    ) -> None:
        self._sessions = sessions
        self._authenticator = authenticator
        self._certificates = certificates
        self._address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._ping_timeout = ping_timeout
        self._queue = (queue_messages, queue_bytes)
        self._greeting_ms = int(greeting_seconds * 1000)
        self._most_connections = most_connections
        self._on_refused = on_refused
        self._numbers = itertools.count(1)
        self._by_number: dict[int, AgentStream] = {}
        self._by_pod: dict[str, set[AgentStream]] = {}
        self._throttles: dict[str, Throttle] = {}  # by pod, until they are full again
        self._server: aio.Server | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._stopping = False
        # Why nobody is admitted, asked at each dial; None: agents are admitted.
        self._closed: Callable[[], str] | None = None

    @property
    def session_count(self) -> int:
        """How many agents are connected and said hello."""
        return len(self._by_number)

    async def start(self) -> int:
        """Begin to serve and return the port."""
        server = aio.server(
            options=[
                ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
                ("grpc.max_concurrent_streams", 2 * STREAMS_PER_POD),
                # A machine that vanished sends no ping either, but also keeps a socket: this frees it.
                ("grpc.keepalive_time_ms", 10_000),
                ("grpc.keepalive_timeout_ms", 5_000),
                # What in fact ends a connection whose ping brings no answer: 60 s unless it is set.
                ("grpc.http2.ping_timeout_ms", 5_000),
                # Agents look after their end as often as they like, down to twice a second.
                ("grpc.keepalive_permit_without_calls", 1),
                ("grpc.http2.min_ping_interval_without_data_ms", 500),
                ("grpc.http2.max_ping_strikes", 0),
                ("grpc.server_handshake_timeout_ms", self._greeting_ms),
                ("grpc.max_connection_idle_ms", self._greeting_ms),
                ("grpc.max_allowed_incoming_connections", self._most_connections),
                # Replicas on one machine share the port, as those of a cluster share a Service; one of them leads.
                ("grpc.so_reuseport", 1),
            ]
        )
        handler = grpc.stream_stream_rpc_method_handler(self._serve)  # bytes in, bytes out: a bad one is ours to judge
        service, method = SESSION_METHOD.strip("/").split("/")
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
        port = server.add_secure_port(self._address, _credentials(self._certificates))
        await server.start()
        self._server = server
        self._watcher = asyncio.create_task(self._watch(), name="link-watch")
        self._watcher.add_done_callback(_watched)
        return port

    def admit(self) -> None:
        """Admit agents from now on."""
        self._closed = None

    def turn_away(self, why: Callable[[], str]) -> None:
        """Say what is still to be said, end all sessions, and answer each dial at once with why it is of no use here.

        An agent that is answered dials again soon, and reaches another replica; one that is not waits for its time-out.
        """
        self._closed = why
        for session in self._all_streams():
            session.end(End.STOPPING, why())

    async def stop(self, grace: float) -> None:
        """Take no more agents, say what is still to be said, end all sessions. Takes `grace` seconds at most."""
        self._stopping = True
        for session in self._all_streams():
            session.end(End.STOPPING, "this operator ends: connect again")
        if self._server is not None:
            await self._server.stop(grace)
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)

    def send(self, session: int, message: ToAgent) -> None:
        """Send, without waiting. A session that ended, or that is over its bound, does not get it."""
        found = self._by_number.get(session)
        if found is None or not found.open:
            return
        wire = codec.encode_to_agent(message).SerializeToString()
        if isinstance(message, Renew):  # the answer to a ping: as long as the agent has leases
            found.throttle.charge(len(wire) / BYTES_PER_MESSAGE, time.monotonic())
        found.refused = isinstance(message, Refused)
        if not found.outbox.put(wire):
            found.end(End.OVERFLOW, "too much waits for this agent to read it: read faster, then connect again")

    def close(self, session: int, reason: str) -> None:
        """End the session once what was sent before has gone out."""
        found = self._by_number.get(session)
        if found is not None:
            found.end(End.REFUSED if found.refused else End.REPLACED, reason)

    def _all_streams(self) -> list[AgentStream]:
        return [stream for group in self._by_pod.values() for stream in group]

    def close_pod(self, pod_uid: str, reason: str) -> None:
        """End every session of this pod: it is gone, or going."""
        for session in list(self._by_pod.get(pod_uid, ())):
            session.end(End.AGENT, reason)

    # --- one stream ---

    async def _serve(self, _requests: Any, context: Any) -> None:
        try:
            admission = await self._admit(context)
        except NotAdmitted as refusal:
            if refusal.reason == NOT_LEADING:  # no fault of anybody's
                _finish(context, _NOT_ADMITTED[refusal.kind], str(refusal))
                return
            self._on_refused(refusal.reason)
            _log.warning("agent turned away", reason=refusal.reason, why=str(refusal), peer=context.peer())
            _finish(context, _NOT_ADMITTED[refusal.kind], str(refusal))
            return
        except Exception:  # whatever a token or an answer about it may hold, it is this one agent's trouble
            _log.exception("agent turned away: it could not be checked", peer=context.peer())
            _finish(context, grpc.StatusCode.UNAVAILABLE, "the token could not be checked: connect again")
            return
        # No await between admission and here: a pod that ends from now on finds its session here.
        now = time.monotonic()
        pod = admission.identity.pod_uid
        throttle = self._throttles.setdefault(pod, Throttle())
        throttle.charge(MESSAGES_PER_SESSION, now)
        session = AgentStream(admission.identity, now, now + admission.seconds, Outbox(*self._queue), throttle)
        group = self._by_pod.setdefault(pod, set())
        group.add(session)
        try:
            await self._carry(session, context)
        finally:
            group.discard(session)
            if not group:
                del self._by_pod[pod]
            session.end(End.REPLACED, "the stream ended")
            if session.number is not None:
                del self._by_number[session.number]
                with _fatal("the end of a session could not be handled"):
                    self._sessions.disconnected(session.number)

    async def _admit(self, context: Any) -> Admission:
        self._check_open()
        metadata = {key.lower(): value for key, value in context.invocation_metadata() or ()}
        scheme, _, token = str(metadata.get("authorization", "")).partition(" ")
        admission = await self._authenticator.authenticate(token.strip() if scheme.lower() == "bearer" else "")
        self._check_open()
        if len(self._by_pod.get(admission.identity.pod_uid, ())) >= STREAMS_PER_POD:
            raise NotAdmitted(Refusal.LATER, "TooManyStreams", "this pod has too many streams: one is enough")
        return admission

    def _check_open(self) -> None:
        if self._stopping:
            raise NotAdmitted(Refusal.LATER, "Stopping", "this operator ends: connect again")
        if self._closed is not None:
            raise NotAdmitted(Refusal.LATER, NOT_LEADING, self._closed())

    async def _carry(self, session: AgentStream, context: Any) -> None:
        """Read and write until the session ends; then say what is still to be said, and why it ended."""
        reader = asyncio.create_task(self._read(session, context))
        writer = asyncio.create_task(_write(session, context))
        try:
            ends: set[asyncio.Future[Any]] = {reader, writer, session.ended}
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            if not session.open:
                reader.cancel()
                # An agent that is dead or does not read must not keep its stream for long.
                await asyncio.wait({writer}, timeout=FLUSH_SECONDS)
        finally:
            for task in (reader, writer):
                task.cancel()
            faults = await asyncio.gather(reader, writer, return_exceptions=True)
        for fault in faults:
            if isinstance(fault, Exception) and not isinstance(fault, aio.BaseError | grpc.RpcError):
                raise fault
        if session.ended.done():
            why, message = session.ended.result()
            _log.info("session ended", reason=why.value, why=message, agent=session.identity.pod_name)
            if why is not End.STOPPING and why is not End.REPLACED:
                self._on_refused(why.name)
            _finish(context, _STATUS[why], message)

    async def _read(self, session: AgentStream, context: Any) -> None:
        """Hand over what the agent says, in order. Returns when it has no more to say, or broke a rule."""
        reauthentication: asyncio.Task[None] | None = None
        try:
            while (raw := await context.read()) is not _EOF:
                if not session.open:
                    return
                now = time.monotonic()
                session.heard = now
                try:
                    message = codec.decode_from_agent(pb.FromAgent.FromString(raw))
                    if isinstance(message, Reauthenticate):
                        if session.number is None or (reauthentication and not reauthentication.done()):
                            raise BadMessage("Reauthenticate: once Hello was sent, and one at a time")
                        reauthentication = asyncio.create_task(self._reauthenticate(session, message.token))
                    else:
                        self._hand_over(session, message)
                except (BadMessage, DecodeError) as error:
                    self._broke_a_rule(session, str(error))
                    return
                except _Failed:
                    raise
                except Exception:
                    _log.exception("a message cannot be read", agent=session.identity.pod_name)
                    self._broke_a_rule(session, "it cannot be read")
                    return
                if pause := session.throttle.take(len(raw), now):
                    # Unread, the rest waits at the agent. Its pings wait too: that is not silence.
                    session.heard = now + pause
                    await asyncio.sleep(pause)
        finally:
            if reauthentication is not None:
                reauthentication.cancel()
                await asyncio.gather(reauthentication, return_exceptions=True)

    def _hand_over(self, session: AgentStream, message: FromAgent) -> None:
        if session.number is not None:
            if isinstance(message, Hello):
                raise BadMessage("hello: once in a session")
            with _fatal("an agent's message could not be handled"):
                self._sessions.received(session.number, message)
            return
        if not isinstance(message, Hello):
            raise BadMessage("the first message of a session is Hello")
        session.throttle.charge(float(MESSAGES_PER_LEASE * len(message.leases)), time.monotonic())
        session.number = next(self._numbers)
        self._by_number[session.number] = session
        with _fatal("an agent's hello could not be handled"):
            self._sessions.connected(session.number, session.identity, message)

    def _broke_a_rule(self, session: AgentStream, rule: str) -> None:
        refused = codec.encode_to_agent(Refused("BadMessage", rule, retry=False))
        session.outbox.put(refused.SerializeToString())
        session.end(End.BAD_MESSAGE, rule)

    async def _reauthenticate(self, session: AgentStream, token: str) -> None:
        """Take a fresh token. While nobody can say whether it is good, the old one counts, until it ends."""
        while True:
            try:
                admission = await self._authenticator.authenticate(token)
            except NotAdmitted as refusal:
                if refusal.kind is Refusal.LATER:
                    await asyncio.sleep(REAUTHENTICATE_AGAIN)
                    continue
                session.end(End.TOKEN if refusal.kind is Refusal.TOKEN else End.AGENT, str(refusal))
                return
            except Exception:
                _log.exception("a fresh token could not be checked", agent=session.identity.pod_name)
                session.end(End.TOKEN, "the fresh token could not be checked: connect again")
                return
            if admission.identity != session.identity:
                session.end(End.TOKEN, "the fresh token is of another pod: read TASKDIST_TOKEN_FILE again")
                return
            session.token_ends = max(session.token_ends, time.monotonic() + admission.seconds)
            return

    # --- all streams ---

    async def _watch(self) -> None:
        """End sessions that are silent or whose token ended.

        When this loop itself was held up, the agents' messages were too: nobody is called silent for that. It errs
        towards keeping a dead session a little longer.
        """
        last = time.monotonic()
        while True:
            await asyncio.sleep(WATCH_SECONDS)
            now = time.monotonic()
            held_up = max(0.0, now - last - 2 * WATCH_SECONDS)
            last = now
            for pod in [p for p, each in self._throttles.items() if p not in self._by_pod and each.is_full(now)]:
                del self._throttles[pod]
            for session in self._all_streams():
                if held_up:
                    session.heard += held_up
                if now - session.heard > self._ping_timeout - WATCH_SECONDS:
                    session.end(End.SILENT, f"nothing was heard for {self._ping_timeout:g} s: send Ping every second")
                elif now >= session.token_ends:
                    session.end(End.TOKEN, "the token ended: send Reauthenticate before it does")


class _Failed(Exception):
    """The listener has failed: its books may be half written."""


@contextmanager
def _fatal(what: str) -> Iterator[None]:
    """gRPC keeps an error of a stream to itself. One of those who are told leaves their books half written: the loop's
    exception handler hears of it, and ends the process."""
    try:
        yield
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler({"message": what, "exception": error})
        raise _Failed(what) from error


def _watched(watcher: "asyncio.Task[None]") -> None:
    if not watcher.cancelled() and (error := watcher.exception()) is not None:
        # Nobody would be called silent any more.
        watcher.get_loop().call_exception_handler({"message": "the link's watch ended", "exception": error})


async def _write(session: AgentStream, context: Any) -> None:
    while (item := await session.outbox.get()) is not None:
        await context.write(item)


def _finish(context: Any, code: grpc.StatusCode, details: str) -> None:
    """Set the status that the call ends with. Details travel in a header: one line, and not a long one."""
    context.set_code(code)
    context.set_details(" ".join(details.split())[:1000])


def _credentials(certificates: CertificateSource) -> grpc.ServerCredentials:
    """Credentials that ask for the certificate on each connection; gRPC does so from threads of its own."""
    served = certificates.serving()

    def configuration(pair: Pair) -> grpc.ServerCertificateConfiguration:
        return grpc.ssl_server_certificate_configuration([(pair.key, pair.certificate)])

    def fetch() -> grpc.ServerCertificateConfiguration | None:
        nonlocal served
        present = certificates.serving()
        if present == served:
            return None
        served = present
        return configuration(present)

    # None says that nothing changed; the stub does not know of it.
    return grpc.dynamic_ssl_server_credentials(configuration(served), fetch)  # type: ignore[arg-type]
