"""The server over TLS on loopback: what is carried, and how each session ends."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import pytest
from grpc import aio

from taskdist.link import codec
from taskdist.link.auth import Authenticator, PodOwner
from taskdist.link.ca import AuthoritySettings, rotate
from taskdist.link.codec import Reauthenticate
from taskdist.link.proto import MAX_MESSAGE_BYTES, SESSION_METHOD, link_pb2_grpc
from taskdist.link.proto import link_pb2 as pb
from taskdist.link.server import STREAMS_PER_POD, LinkServer
from taskdist.protocol import messages as m
from unit.link.certificates import LOOPBACK, Certificates
from unit.link.client import Stream, dial, hello
from unit.link.tokens import status_of, token_of

LEASE = m.LeaseName("t", 1, 1)
WELCOME = m.Welcome(1, 2)


@dataclass
class Recorder:
    """Stands for the dispatch loop: notes what it is told, and answers hello with welcome."""

    server: LinkServer | None = None
    log: list[tuple[str, int, Any]] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    greet: bool = True

    def connected(self, session: int, identity: m.AgentIdentity, hello: m.Hello) -> None:
        self._note("connected", session, (identity, hello))
        if self.greet:
            assert self.server is not None
            self.server.send(session, WELCOME)

    def received(self, session: int, message: m.FromAgent) -> None:
        self._note("received", session, message)

    def disconnected(self, session: int) -> None:
        self._note("disconnected", session, None)

    def _note(self, what: str, session: int, detail: Any) -> None:
        self.log.append((what, session, detail))
        self.changed.set()

    async def until(self, holds: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not holds():
                self.changed.clear()
                await self.changed.wait()

    def said(self) -> list[m.FromAgent]:
        return [detail for what, _, detail in self.log if what == "received"]

    def count(self, what: str) -> int:
        return sum(each[0] == what for each in self.log)


class Link:
    """A server with everything around it that a test may turn."""

    def __init__(self, **options: Any) -> None:
        self.recorder = Recorder()
        self.certificates = Certificates()
        self.tokens: dict[str, Mapping[str, Any]] = {"good": status_of("pod-a"), "other": status_of("pod-b")}
        self.reviewed: dict[str, str] = {}
        self.down = False
        self.refused: list[str] = []
        self.options = options
        self.port_wanted = 0

    async def review(self, token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        if self.down:
            raise OSError("no API server")
        name = self.reviewed[token]
        return self.tokens.get(name) or {"authenticated": False, "error": "unknown"}

    def token(self, name: str, seconds: float = 3600) -> str:
        token = token_of(name, time.time() + seconds)
        self.reviewed[token] = name
        return token

    async def start(self) -> None:
        def pod(uid: str) -> PodOwner | None:
            return PodOwner(uid, "ns", uid.removeprefix("uid-"), "pool", "pool-uid")

        async def read(namespace: str, name: str) -> PodOwner | None:
            return None

        authenticator = Authenticator(
            self.review, "here", pod, read, lambda namespace, name: "pool-uid", cache_seconds=0.0
        )
        self.server = LinkServer(
            self.recorder,
            authenticator,
            self.certificates,
            self.port_wanted,
            host="127.0.0.1",
            on_refused=self.refused.append,
            **self.options,
        )
        self.recorder.server = self.server
        self.port = await self.server.start()

    @asynccontextmanager
    async def dial(self, name: str = "good", seconds: float = 3600, greeted: bool = True) -> AsyncIterator[Stream]:
        async with dial(self.port, self.certificates.bundle(), self.token(name, seconds)) as stream:
            if greeted:
                await stream.say(hello())
                assert await stream.hear() == WELCOME
            yield stream


@asynccontextmanager
async def serving(**options: Any) -> AsyncIterator[Link]:
    link = Link(**options)
    await link.start()
    try:
        yield link
    finally:
        await link.server.stop(1.0)


@pytest.fixture
async def link() -> AsyncIterator[Link]:
    async with serving() as link:
        yield link


async def test_an_agent_is_introduced_by_what_the_api_server_says_of_it(link: Link) -> None:
    async with link.dial():
        identity = m.AgentIdentity("uid-pod-a", "pod-a", "ns", "pool", "pool-uid")
        assert link.recorder.log == [("connected", 1, (identity, hello()))]
        assert link.server.session_count == 1


async def test_messages_arrive_in_order_both_ways(link: Link) -> None:
    up = [m.Progress(LEASE, n / 300) for n in range(300)]
    down = [m.Renew(1, float(n)) for n in range(300)]
    async with link.dial() as stream:
        for message in down:
            link.server.send(1, message)
        await stream.say(*up)
        assert [await stream.hear() for _ in down] == down
        await link.recorder.until(lambda: len(link.recorder.said()) == len(up))
    assert link.recorder.said() == up
    await link.recorder.until(lambda: link.recorder.count("disconnected") == 1)
    assert link.server.session_count == 0
    link.server.send(1, WELCOME)  # nobody is there: nothing happens
    link.server.close(1, "gone")


async def test_a_large_payload_passes(link: Link) -> None:
    grant = m.Grant(LEASE, "ns", "t", "type", 1, 1.0, 15.0, 120.0, (), b'{"a":"' + b"x" * 65_000 + b'"}')
    async with link.dial() as stream:
        link.server.send(1, grant)
        assert await stream.hear() == grant


async def test_the_generated_stub_speaks_to_it(link: Link) -> None:
    credentials = grpc.ssl_channel_credentials(link.certificates.bundle())
    async with aio.secure_channel(f"localhost:{link.port}", credentials) as channel:
        stub = link_pb2_grpc.LinkStub(channel)  # type: ignore[no-untyped-call]
        call = stub.Session(metadata=(("authorization", f"bearer {link.token('good')}"),))
        await call.write(pb.FromAgent(hello=pb.Hello(protocol_version=1, instance_id="i", slots=1, boot=1.0)))
        assert (await call.read()).welcome.epoch == 1


# --- how a session ends ---


@pytest.mark.parametrize(
    ("name", "down", "code", "says", "word"),
    [
        pytest.param("nobody", False, grpc.StatusCode.UNAUTHENTICATED, "does not accept", "InvalidToken", id="token"),
        pytest.param("account", False, grpc.StatusCode.PERMISSION_DENIED, "bound to no pod", "NotAPod", id="no pod"),
        pytest.param("good", True, grpc.StatusCode.UNAVAILABLE, "connect again", "ReviewFailed", id="nobody to ask"),
    ],
)
async def test_who_is_not_admitted(
    link: Link, name: str, down: bool, code: grpc.StatusCode, says: str, word: str
) -> None:
    link.tokens["account"] = {"authenticated": True, "audiences": ["here"], "user": {"username": "jane"}}
    link.down = down
    async with link.dial(name, greeted=False) as stream:
        assert await stream.hear() is None
        ended, details = await stream.status()
    assert ended is code
    assert says in details
    assert link.refused == [word]
    assert link.recorder.log == []


async def test_without_a_token_nobody_is_admitted(link: Link) -> None:
    credentials = grpc.ssl_channel_credentials(link.certificates.bundle())
    async with aio.secure_channel(f"localhost:{link.port}", credentials) as channel:
        open_stream: Any = channel.stream_stream
        code, details = await Stream(open_stream(SESSION_METHOD)()).status()
    assert code is grpc.StatusCode.UNAUTHENTICATED
    assert "authorization: Bearer" in details


@pytest.mark.parametrize(
    ("sent", "says"),
    [
        pytest.param([m.Ping(1.0)], "first message of a session is Hello", id="no hello"),
        pytest.param([hello(), hello()], "once in a session", id="two hellos"),
        pytest.param([Reauthenticate("t")], "once Hello was sent", id="token before hello"),
        pytest.param([hello(slots=5000)], "hello.slots", id="out of bounds"),
        pytest.param([b"\xff\xff"], "", id="no message"),
        pytest.param([b""], "kind", id="empty message"),
    ],
)
async def test_a_broken_rule_is_named_and_ends_the_session(link: Link, sent: list[Any], says: str) -> None:
    async with link.dial(greeted=False) as stream:
        for each in sent:
            await (stream.raw(each) if isinstance(each, bytes) else stream.say(each))
        heard = [h async for h in _all(stream)]
        code, details = await stream.status()
    refused = heard[-1]
    assert isinstance(refused, m.Refused)
    assert (refused.reason, refused.retry) == ("BadMessage", False)
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert says in details
    assert says in refused.message
    await link.recorder.until(lambda: link.recorder.count("disconnected") == link.recorder.count("connected"))


async def _all(stream: Stream) -> AsyncIterator[m.ToAgent]:
    while (message := await stream.hear()) is not None:
        yield message


async def test_a_message_beyond_the_bound_ends_the_session(link: Link) -> None:
    async with link.dial() as stream:
        await stream.raw(b"x" * (MAX_MESSAGE_BYTES + 1))
        code, _ = await stream.status()
    assert code is grpc.StatusCode.RESOURCE_EXHAUSTED
    await link.recorder.until(lambda: link.recorder.count("disconnected") == 1)


@pytest.mark.parametrize("greeted", [pytest.param(True, id="after hello"), pytest.param(False, id="before hello")])
async def test_silence_is_death(greeted: bool) -> None:
    async with serving(ping_timeout=0.5) as link, link.dial(greeted=greeted) as stream:
        begin = time.monotonic()
        code, details = await stream.status()
        assert code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert "nothing was heard for 0.5 s" in details
        assert time.monotonic() - begin < 5
        await link.recorder.until(lambda: link.recorder.count("disconnected") == int(greeted))


async def test_who_pings_lives() -> None:
    async with serving(ping_timeout=0.5) as link, link.dial() as stream:
        begin = time.monotonic()
        while time.monotonic() - begin < 1.5:
            await stream.say(m.Ping(time.monotonic()))
            await asyncio.sleep(0.1)
        assert link.recorder.count("disconnected") == 0


async def test_a_held_up_server_calls_nobody_silent() -> None:
    async with serving(ping_timeout=0.6) as link, link.dial() as stream:
        time.sleep(1.5)  # noqa: ASYNC251  # holding up the loop is what is tested
        await stream.say(m.Ping(1.0))
        await link.recorder.until(lambda: link.recorder.said() == [m.Ping(1.0)])
        assert link.recorder.count("disconnected") == 0


async def test_close_lets_out_what_was_sent_before(link: Link) -> None:
    async with link.dial() as stream:
        link.server.send(1, m.Drain())
        link.server.close(1, "replaced by a newer session")
        link.server.send(1, m.Drain(undo=True))  # too late
        assert [h async for h in _all(stream)] == [m.Drain()]
        assert await stream.status() == (grpc.StatusCode.UNAVAILABLE, "replaced by a newer session")
    await link.recorder.until(lambda: link.recorder.count("disconnected") == 1)


async def test_a_refusal_of_the_protocol_ends_as_such(link: Link) -> None:
    async with link.dial() as stream:
        link.server.send(1, m.Refused("OldVersion", "upgrade the agent", retry=False))
        link.server.close(1, "upgrade the agent")
        assert await stream.hear() == m.Refused("OldVersion", "upgrade the agent", retry=False)
        assert await stream.status() == (grpc.StatusCode.FAILED_PRECONDITION, "upgrade the agent")


async def test_after_close_nothing_more_is_heard_of_an_agent(link: Link) -> None:
    async with link.dial() as stream:
        link.server.close(1, "enough")
        await stream.say(m.Draining())
        await link.recorder.until(lambda: link.recorder.count("disconnected") == 1)
        assert link.recorder.said() == []
        assert link.recorder.log[-1][0] == "disconnected"


async def test_an_agent_that_does_not_read_is_let_go() -> None:
    async with serving(queue_messages=50) as link, link.dial():
        grant = m.Grant(LEASE, "ns", "t", "type", 1, 1.0, 15.0, 120.0, (), b'{"a":"' + b"x" * 60_000 + b'"}')
        for _ in range(200):
            link.server.send(1, grant)
            await asyncio.sleep(0)
        await link.recorder.until(lambda: link.recorder.count("disconnected") == 1)
        assert link.refused == ["OVERFLOW"]


@pytest.mark.parametrize("greeted", [pytest.param(True, id="after hello"), pytest.param(False, id="before hello")])
async def test_a_pods_end_closes_its_stream(link: Link, greeted: bool) -> None:
    async with link.dial("other") as other, link.dial(greeted=greeted) as stream:
        await link.recorder.until(lambda: link.recorder.count("connected") == 1 + greeted)
        while not link.server._by_pod.get("uid-pod-a"):  # noqa: ASYNC110  # admitted, and nobody is told yet
            await asyncio.sleep(0.01)
        link.server.close_pod("uid-pod-a", "the pod is deleted")
        link.server.close_pod("uid-unknown", "the pod is deleted")
        assert await stream.status() == (grpc.StatusCode.PERMISSION_DENIED, "the pod is deleted")
        link.server.send(1, m.Drain())
        assert await other.hear() == m.Drain()


async def test_a_pod_has_few_streams_at_once(link: Link) -> None:
    streams = [link.dial() for _ in range(STREAMS_PER_POD)]
    for each in streams:
        await each.__aenter__()
    async with link.dial(greeted=False) as one_more:
        code, details = await one_more.status()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert "too many streams" in details
    for each in streams:
        await each.__aexit__(None, None, None)


async def test_an_agent_that_vanishes_is_missed_once(link: Link) -> None:
    async with link.dial() as stream:
        stream.call.cancel()
        await link.recorder.until(lambda: link.recorder.count("disconnected") == 1)
    async with link.dial() as stream:
        await stream.call.done_writing()
        await link.recorder.until(lambda: link.recorder.count("disconnected") == 2)
    assert link.recorder.count("disconnected") == 2


async def test_stop_tells_every_agent_to_come_back() -> None:
    async with serving() as link, link.dial() as stream, link.dial("other") as other:
        link.server.send(1, m.Hold(1))
        await link.server.stop(2.0)
        assert await stream.hear() == m.Hold(1)
        for each in (stream, other):
            code, details = await each.status()
            assert code is grpc.StatusCode.UNAVAILABLE
            assert "connect again" in details
        assert link.recorder.count("disconnected") == 2


# --- a session outlives its first token ---


async def test_a_session_ends_with_its_token() -> None:
    async with serving() as link, link.dial(seconds=1.0) as stream:
        code, details = await _pinging(stream)
        assert code is grpc.StatusCode.UNAUTHENTICATED
        assert "Reauthenticate" in details


async def test_a_fresh_token_carries_it_on(link: Link) -> None:
    async with link.dial(seconds=1.0) as stream:
        await stream.say(Reauthenticate(link.token("good", 3600)))
        pinging = asyncio.create_task(_pinging(stream))
        await asyncio.sleep(1.6)
        assert link.recorder.count("disconnected") == 0
        assert link.recorder.said()
        assert not any(isinstance(each, Reauthenticate) for each in link.recorder.said())
        pinging.cancel()


@pytest.mark.parametrize(
    ("name", "code", "says"),
    [
        pytest.param("nobody", grpc.StatusCode.UNAUTHENTICATED, "does not accept", id="bad"),
        pytest.param("other", grpc.StatusCode.UNAUTHENTICATED, "another pod", id="another pod's"),
    ],
)
async def test_a_fresh_token_that_is_not_good_ends_it(link: Link, name: str, code: grpc.StatusCode, says: str) -> None:
    async with link.dial() as stream:
        await stream.say(Reauthenticate(link.token(name)))
        ended, details = await stream.status()
    assert ended is code
    assert says in details


async def test_while_nobody_can_review_the_fresh_token_the_old_one_counts(link: Link) -> None:
    async with link.dial() as stream:
        link.down = True
        await stream.say(Reauthenticate(link.token("good")), m.Draining())
        await link.recorder.until(lambda: link.recorder.said() == [m.Draining()])
        assert link.recorder.count("disconnected") == 0


async def _pinging(stream: Stream) -> tuple[grpc.StatusCode, str]:
    """Ping until the call ends."""
    while not stream.call.done():
        try:
            await stream.say(m.Ping(1.0))
        except (aio.AioRpcError, asyncio.InvalidStateError, aio.UsageError):
            break
        await asyncio.sleep(0.1)
    return await stream.status()


# --- certificates change under it ---


async def test_a_new_authority_signs_without_a_restart(link: Link) -> None:
    old = link.certificates.bundle()
    async with link.dial() as stream:
        link.certificates.state = rotate(None, LOOPBACK, time.time(), AuthoritySettings())
        async with link.dial("other"):
            pass
        async with dial(link.port, old, link.token("other")) as stranger:
            code, _ = await stranger.status()
            assert code is grpc.StatusCode.UNAVAILABLE  # it does not trust the server
        link.server.send(1, m.Drain())  # the session from before goes on
        assert await stream.hear() == m.Drain()


async def test_a_wrong_server_is_not_spoken_to(link: Link) -> None:
    async with dial(link.port, Certificates().bundle(), link.token("good")) as stream:
        code, _ = await stream.status()
    assert code is grpc.StatusCode.UNAVAILABLE
    assert link.recorder.log == []


# --- a hostile agent ---


async def test_a_flood_is_held_back_and_harms_nobody() -> None:
    count = 3500  # beyond the burst of 2,000 by 1.5 s worth
    # The other one says nothing while the flood is dealt with, which takes its time on a busy machine.
    async with serving(ping_timeout=60.0) as link, link.dial("other") as other, link.dial() as stream:
        begin = time.monotonic()
        flood = asyncio.create_task(stream.say(*(m.Progress(LEASE, n / count) for n in range(count))))
        await other.say(m.Draining())
        await link.recorder.until(lambda: m.Draining() in link.recorder.said())
        assert len(link.recorder.said()) < count  # it did not have to wait for the flood to end
        await link.recorder.until(lambda: len(link.recorder.said()) == count + 1)
        assert time.monotonic() - begin > 1.4
        await flood
        assert link.recorder.count("disconnected") == 0
        progress = [each.fraction for each in link.recorder.said() if isinstance(each, m.Progress)]
    assert progress == sorted(progress)


async def test_who_does_not_lead_answers_at_once_and_says_who_does(link: Link) -> None:
    link.down = True  # no token is reviewed for it
    link.server.turn_away(lambda: "this replica does not lead, operator-2 does: dial again")
    async with link.dial(greeted=False) as stream:
        assert await stream.status() == (
            grpc.StatusCode.UNAVAILABLE,
            "this replica does not lead, operator-2 does: dial again",
        )
    assert link.refused == [], "that is nobody's fault, and no alert"
    assert link.recorder.log == []


async def test_who_leads_no_more_says_its_last_words_ends_all_sessions_and_may_lead_again(link: Link) -> None:
    async with link.dial() as stream:
        link.server.send(1, m.Hold(1))
        link.server.turn_away(lambda: "another leads")
        assert await stream.hear() == m.Hold(1)
        assert await stream.hear() is None
        assert await stream.status() == (grpc.StatusCode.UNAVAILABLE, "another leads")
    await link.recorder.until(lambda: link.recorder.count("disconnected") == 1)
    link.server.admit()
    async with link.dial():
        assert link.recorder.count("connected") == 2


async def test_two_on_one_port_share_the_dials_and_an_agent_that_dials_again_finds_the_leader() -> None:
    async with serving() as leader:
        follower = Link()
        follower.certificates = leader.certificates
        follower.port_wanted = leader.port
        await follower.start()
        try:
            follower.server.turn_away(lambda: "the other leads")
            for _ in range(100):
                async with leader.dial(greeted=False) as stream:
                    await stream.say(hello())
                    if await stream.hear() == WELCOME:
                        break
            assert leader.recorder.count("connected") == 1
        finally:
            await follower.server.stop(1.0)


@asynccontextmanager
async def reports() -> AsyncIterator[asyncio.Queue[str]]:
    """What the loop's exception handler hears meanwhile.

    Where several loops of one process have used gRPC, as those of tests do, it raises a harmless BlockingIOError in one
    of them now and then (grpc/grpc#25364).
    """
    loop = asyncio.get_running_loop()
    heard: asyncio.Queue[str] = asyncio.Queue()

    def hear(_: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        if not isinstance(context.get("exception"), BlockingIOError):
            heard.put_nowait(context["message"])

    loop.set_exception_handler(hear)
    try:
        yield heard
    finally:
        loop.set_exception_handler(None)


async def test_an_error_of_those_who_are_told_reaches_the_loop() -> None:
    def fail(session: int, message: m.FromAgent) -> None:
        raise RuntimeError("a defect")

    async with reports() as heard, serving() as link, link.dial() as stream:
        link.recorder.received = fail  # type: ignore[method-assign]
        await stream.say(m.Ping(1.0))
        assert await asyncio.wait_for(heard.get(), 10) == "an agent's message could not be handled"


async def test_the_end_of_the_watch_for_silence_reaches_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    async def watch(self: LinkServer) -> None:
        raise RuntimeError("a defect")

    monkeypatch.setattr(LinkServer, "_watch", watch)
    async with reports() as heard, serving():
        assert await asyncio.wait_for(heard.get(), 10) == "the link's watch ended"


async def test_a_message_that_breaks_the_reader_ends_its_session_and_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(wire: pb.FromAgent) -> m.FromAgent | Reauthenticate:
        if wire.WhichOneof("kind") == "progress":
            raise OverflowError("a defect of the reader")
        return decode(wire)

    decode = codec.decode_from_agent
    monkeypatch.setattr(codec, "decode_from_agent", broken)
    async with serving() as link, link.dial() as stream, link.dial("other") as other:
        await stream.say(m.Progress(LEASE, 0.5, ""))
        assert isinstance(await stream.hear(), m.Refused)
        await other.say(m.Ping(7.0))
        await link.recorder.until(lambda: m.Ping(7.0) in link.recorder.said())
