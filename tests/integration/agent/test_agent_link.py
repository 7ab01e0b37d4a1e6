"""Whole agents, as processes, over TLS to the real server: each way to run one, and what it does when things end."""

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import aiohttp
import pytest

from agents.peer import until
from agents.server import LinkPeer, link_peer
from taskdist.agent.logs import make_logger
from taskdist.agent.supervisor import EXIT_USAGE, LinkLost
from taskdist.agent.transport import Endpoint, GrpcConnector, token_end
from taskdist.local.controlplane import free_ports
from taskdist.protocol.messages import Draining, Hello, Ping, Progress, Result, Started, Stopped

ROOT = Path(__file__).parents[3]
SAMPLE = ROOT / "tests" / "agents" / "sample.py"
ANALYSE = ROOT / "manifests" / "samples" / "agents" / "analyse.py"
WAIT = 20.0


@pytest.fixture
async def peer(tmp_path: Path) -> AsyncIterator[LinkPeer]:
    async with link_peer(tmp_path) as made:
        made.write_token(time.time() + 3600)
        yield made


@asynccontextmanager
async def agent(peer: LinkPeer, argv: Sequence[str | Path], **more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    environment = os.environ | {
        "PYTHONPATH": str(ROOT / "operator"),
        "TASKDIST_ADDRESS": f"127.0.0.1:{peer.port}",
        "TASKDIST_SERVER_NAME": "localhost",
        "TASKDIST_CA_FILE": str(peer.ca_file),
        "TASKDIST_TOKEN_FILE": str(peer.token_file),
        "TASKDIST_SLOTS": "2",
        "TASKDIST_SKILLS": "python,gpu",
        "TASKDIST_LABELS": "zone=a",
        "TASKDIST_GRACE_SECONDS": "8",
    }
    process = await asyncio.create_subprocess_exec(sys.executable, *argv, env=environment | more)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_module_from_start_to_end(peer: LinkPeer) -> None:
    (port,) = free_ports(1)
    async with agent(peer, ["-m", "taskdist.agent", SAMPLE], TASKDIST_HEALTH_PORT=str(port)) as process:
        hello = await peer.wait_for(Hello)
        assert (hello.slots, hello.skills, hello.labels, hello.fenced) == (2, ("python", "gpu"), (("zone", "a"),), True)
        assert hello.types is not None
        assert "echo" in hello.types
        assert peer.identities[0].pod_name == "pod"
        await peer.wait_for(Ping)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            for path, status in (("/readyz", 200), ("/healthz", 200), ("/other", 404)):
                async with http.get(path) as answer:
                    assert answer.status == status, path
            lease = peer.grant("progress", b'{"steps":2,"seconds":0.3}')
            await peer.wait_for(Started, lease)
            await peer.wait_for(Progress, lease)
            assert (await peer.wait_for(Result, lease)).body == b'{"steps":2}'

            short, long = peer.grant("sleep", b'{"seconds":1}'), peer.grant("until-cancelled")
            await peer.wait_for(Started, short)
            await peer.wait_for(Started, long)
            process.send_signal(signal.SIGTERM)
            await peer.wait_for(Draining)
            async with http.get("/readyz") as answer:
                assert (answer.status, await answer.text()) == (503, "the agent is stopping\n")
        assert await asyncio.wait_for(process.wait(), WAIT) == 0
        assert peer.of(Result, short)
        assert peer.of(Stopped, long)


async def test_a_script_that_calls_run(peer: LinkPeer) -> None:
    async with agent(peer, [ANALYSE]):
        hello = await peer.wait_for(Hello)
        assert hello.types == ("analyse",)
        lease = peer.grant("analyse", b'{"path":"%s"}' % bytes(ANALYSE))
        assert b'"classes":2' in (await peer.wait_for(Result, lease)).body


async def test_a_command(peer: LinkPeer) -> None:
    async with agent(peer, ["-m", "taskdist.agent", "--command", "cat", "--types", "copy"]):
        hello = await peer.wait_for(Hello)
        assert (hello.types, hello.fenced) == (("copy",), True)
        assert (await peer.wait_for(Result, peer.grant("copy", b'{"a":1}'))).body == b'{"a":1}'


async def test_in_process(peer: LinkPeer) -> None:
    async with agent(peer, ["-m", "taskdist.agent", SAMPLE, "--in-process"]) as process:
        assert not (await peer.wait_for(Hello)).fenced
        assert (await peer.wait_for(Result, peer.grant("echo-async", b'{"a":1}'))).body == b'{"a":1}'
        lease = peer.grant("until-cancelled")
        await peer.wait_for(Progress, lease)
        peer.cancel(lease)
        await peer.wait_for(Stopped, lease)
        process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(process.wait(), WAIT) == 0


async def test_a_killed_agent_leaves_no_process(peer: LinkPeer, tmp_path: Path) -> None:
    async with agent(peer, ["-m", "taskdist.agent", SAMPLE]) as process:
        mark = tmp_path / "mark"
        await peer.wait_for(Ping)
        peer.grant("stubborn", b'{"file":"%s"}' % bytes(mark))
        await until(lambda: os.path.exists(mark), "the work runs")
        family = _family(process.pid)
        assert len(family) >= 3  # two workers and the warden
        process.kill()
        await until(lambda: not any(_runs(pid) for pid in family), "all its processes are dead")


def _family(parent: int) -> list[int]:
    from taskdist.agent.processes import children

    return sorted(children(parent))


def _runs(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 :].split()[0] not in (b"Z", b"X")


async def test_options_that_make_no_agent(peer: LinkPeer) -> None:
    async with agent(peer, ["-m", "taskdist.agent"]) as process:
        assert await asyncio.wait_for(process.wait(), WAIT) == EXIT_USAGE


# --- the transport by itself ---


def connector(peer: LinkPeer, **options: float) -> GrpcConnector:
    endpoint = Endpoint(f"127.0.0.1:{peer.port}", peer.ca_file, peer.token_file, "localhost")
    return GrpcConnector(endpoint, make_logger(), **options)


async def test_the_authority_and_the_token_are_read_anew(peer: LinkPeer) -> None:
    connect, bundle = connector(peer), peer.ca_file.read_bytes()
    for wrong, said in ((b"", "no TLS connection|cannot"), (None, "cannot read")):
        peer.ca_file.unlink() if wrong is None else peer.ca_file.write_bytes(wrong)
        with pytest.raises(LinkLost, match=said):
            await connect.connect()
    peer.ca_file.write_bytes(bundle)
    token = peer.write_token(time.time() + 60)
    session = await connect.connect()
    session.send(Hello(1, "one", 1, 1.0))
    await session.receive()
    assert peer.tokens[-1] == token
    await session.close()


async def test_a_fresh_token_is_sent_before_the_old_one_ends(peer: LinkPeer) -> None:
    peer.write_token(time.time() + 60)
    session = await connector(peer, token_seconds=0.05).connect()
    session.send(Hello(1, "one", 1, 1.0))
    await session.receive()
    fresh = peer.write_token(time.time() + 3600)
    await until(lambda: fresh in peer.tokens, "the fresh token is reviewed")
    await session.close()


async def test_a_refused_token_is_said(peer: LinkPeer) -> None:
    peer.write_token(time.time() - 60)
    session = await connector(peer).connect()
    session.send(Hello(1, "one", 1, 1.0))
    with pytest.raises(LinkLost, match="UNAUTHENTICATED"):
        await session.receive()
    await session.close()


@asynccontextmanager
async def relay(port: int) -> AsyncIterator[tuple[int, asyncio.Event]]:
    """A port that leads to `port` while the event is set, and says nothing when it is not."""
    passing, tasks = asyncio.Event(), set[asyncio.Task[None]]()
    passing.set()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(65536):
                await passing.wait()
                writer.write(data)
        except OSError:
            return  # the other end hung up
        finally:
            writer.transport.abort()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        up_reader, up_writer = await asyncio.open_connection("127.0.0.1", port)
        tasks.add(asyncio.create_task(pump(reader, up_writer)))
        tasks.add(asyncio.create_task(pump(up_reader, writer)))

    server = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1], passing
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()


async def test_a_dead_network_is_noticed(peer: LinkPeer) -> None:
    async with relay(peer.port) as (port, passing):
        endpoint = Endpoint(f"127.0.0.1:{port}", peer.ca_file, peer.token_file, "localhost")
        session = await GrpcConnector(endpoint, make_logger()).connect()
        session.send(Hello(1, "one", 1, 1.0))
        await session.receive()
        passing.clear()
        frozen = time.monotonic()
        with pytest.raises(LinkLost, match="UNAVAILABLE"):
            await asyncio.wait_for(session.receive(), WAIT)
        # A ping each second, a second for its answer; the rest is for a busy machine.
        assert time.monotonic() - frozen < 3.0
        await session.close()


@pytest.mark.parametrize(
    ("token", "end"),
    [
        pytest.param("e30.eyJleHAiOjEyM30.c2ln", 123.0, id="exp"),
        pytest.param("e30.e30.c2ln", None, id="no-exp"),
        pytest.param("garbage", None, id="no-jwt"),
        pytest.param("a.%%%.b", None, id="no-base64"),
    ],
)
def test_when_a_token_ends(token: str, end: float | None) -> None:
    assert token_end(token) == end
