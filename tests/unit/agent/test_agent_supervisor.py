"""The supervisor with real workers and a scripted operator: the fence, results across sessions, the agent's own end."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from agents.host import SAMPLE
from agents.peer import Peer, until
from taskdist.agent.boot_timer import BootTimer
from taskdist.agent.logs import make_logger
from taskdist.agent.pool import WorkerPool
from taskdist.agent.supervisor import EXIT_CANNOT_START, EXIT_OK, EXIT_REFUSED, Supervisor
from taskdist.agent.work import Offered
from taskdist.api import Reason
from taskdist.common.backoff import Backoff
from taskdist.common.boottime import boottime
from taskdist.protocol.agent import AgentEnd
from taskdist.protocol.messages import Drain, Draining, Failure, Hello, Ping, Refused, Result, Started, Stopped
from taskdist.protocol.settings import AgentSettings, Capabilities

ROOT = Path(__file__).parents[3]
SETTINGS = AgentSettings(silence_seconds=1.0, cancel_grace_seconds=0.3, farewell_seconds=0.5)


class Bench:
    """A supervisor under test and its peer."""

    def __init__(self, slots: int, module: Path, settings: AgentSettings) -> None:
        self.peer = Peer()
        self.pool = WorkerPool("module", [str(module)], slots, make_logger(agent="test"))

        def make_end(offered: Offered) -> AgentEnd:
            return AgentEnd("test", Capabilities(slots=slots, types=offered.types, fenced=offered.fenced), settings)

        self.supervisor = Supervisor(
            make_end, self.pool, self.peer, make_logger(agent="test"), settings=settings, backoff=Backoff(0.01, 0.05)
        )
        self.running = asyncio.create_task(self.supervisor.run())

    async def up(self) -> None:
        await until(lambda: not self.supervisor.not_ready(), "the agent is ready")
        await self.peer.wait_for(Ping)

    async def exit_code(self) -> int:
        return await asyncio.wait_for(self.running, 20)


@asynccontextmanager
async def bench(
    slots: int = 2, module: Path = SAMPLE, settings: AgentSettings = SETTINGS, *, up: bool = True
) -> AsyncIterator[Bench]:
    made = Bench(slots, module, settings)
    try:
        if up:
            await made.up()
        yield made
    finally:
        if not made.running.done():
            made.supervisor.stop(0)
            made.supervisor.stop(0)
        await made.exit_code()


async def test_work_runs_and_its_result_is_told() -> None:
    async with bench() as b:
        leases = [b.peer.grant("echo", b'{"n":%d}' % n, uid=f"uid-{n}") for n in range(2)]
        for n, lease in enumerate(leases):
            assert (await b.peer.wait_for(Result, lease)).body == b'{"n":%d}' % n
            assert len(b.peer.of(Started, lease)) == 1


async def test_a_crash_is_one_attempts_end() -> None:
    async with bench() as b:
        failure = await b.peer.wait_for(Failure, b.peer.grant("crash"))
        assert failure.reason is Reason.HANDLER_CRASHED
        assert "SIGKILL" in failure.message
        await b.peer.wait_for(Result, b.peer.grant("echo"))
        assert len(b.peer.sessions) == 1


async def test_a_cancel_reaches_the_handler() -> None:
    async with bench() as b:
        lease = b.peer.grant("until-cancelled")
        await b.peer.wait_for(Started, lease)
        b.peer.cancel(lease)
        await b.peer.wait_for(Stopped, lease)
        assert not b.peer.of(Result, lease)


async def test_a_handler_that_ignores_the_cancel_is_killed(tmp_path: Path) -> None:
    async with bench() as b:
        mark = tmp_path / "mark"
        lease = b.peer.grant("stubborn", json.dumps({"file": str(mark)}).encode())
        await until(mark.exists, "the work runs")
        b.peer.cancel(lease)
        await b.peer.wait_for(Stopped, lease)
        assert await still(mark)
        await b.peer.wait_for(Result, b.peer.grant("echo"))


@pytest.mark.parametrize("trouble", ["frozen", "cut", "no-renewals"])
async def test_the_fence_holds_without_the_operator(trouble: str, tmp_path: Path) -> None:
    """A handler that ignores everything is dead before its lease ends, counted from the last ping that was answered."""
    async with bench() as b:
        mark = tmp_path / "mark"
        b.peer.renewing = False
        end = boottime() + 1.0
        lease = b.peer.grant("stubborn", json.dumps({"file": str(mark)}).encode(), seconds=1.0)
        await until(mark.exists, "the work runs")
        if trouble == "frozen":
            b.peer.frozen = True
        elif trouble == "cut":
            b.peer.reachable = False
            b.peer.cut()
        await until(lambda: lease not in (b.supervisor._protocol.lease_ends), "the work is dead")
        assert boottime() < end
        assert await still(mark)


async def test_a_renewed_lease_outlives_its_first_end() -> None:
    async with bench() as b:
        lease = b.peer.grant("sleep", b'{"seconds":1.5}', seconds=0.8)
        await b.peer.wait_for(Result, lease)


async def test_a_result_is_kept_until_its_final_reply() -> None:
    async with bench() as b:
        b.peer.answering = False
        lease = b.peer.grant("echo", b'{"a":1}')
        await b.peer.wait_for(Result, lease)
        b.peer.cut()
        again = await b.peer.wait_for(Result, lease, count=2)
        assert again.body == b'{"a":1}'
        assert lease in b.peer.of(Hello)[-1].leases
        b.peer.answering = True
        b.peer.cut()
        await b.peer.wait_for(Result, lease, count=3)
        await until(lambda: not b.supervisor._protocol.leases, "the result is dropped")


async def test_work_goes_on_across_sessions() -> None:
    async with bench() as b:
        lease = b.peer.grant("sleep", b'{"seconds":0.5}')
        await b.peer.wait_for(Started, lease)
        b.peer.cut()
        await b.peer.wait_for(Hello, count=2)
        assert b.peer.of(Hello)[1].leases == (lease,)
        assert b.peer.of(Hello)[1].instance_id == b.peer.of(Hello)[0].instance_id
        await b.peer.wait_for(Result, lease)


async def test_a_silent_operator_is_left() -> None:
    async with bench() as b:
        b.peer.frozen = True
        await b.peer.wait_for(Hello, count=2)
        assert b.peer.sessions[0].closed
        assert b.supervisor.not_ready()


async def test_readiness_follows_the_session() -> None:
    async with bench() as b:
        b.peer.say(Drain())
        await until(lambda: b.supervisor.not_ready() == "the agent is draining", "drained")
        b.peer.say(Drain(undo=True))
        await until(lambda: not b.supervisor.not_ready(), "ready again")
        b.peer.reachable = False
        b.peer.cut()
        await until(lambda: b.supervisor.not_ready() == "not connected to the operator", "unready")
        b.peer.reachable = True
        await until(lambda: not b.supervisor.not_ready(), "ready again")


async def test_stop_finishes_what_can_be_and_gives_back_the_rest(tmp_path: Path) -> None:
    async with bench(settings=AgentSettings(stop_cancel_seconds=0.3, farewell_seconds=0.5)) as b:
        short = b.peer.grant("sleep", b'{"seconds":0.3}')
        mark = tmp_path / "mark"
        long = b.peer.grant("stubborn", json.dumps({"file": str(mark)}).encode())
        await b.peer.wait_for(Started, short)
        await until(mark.exists, "the work runs")
        b.supervisor.stop(1.0)
        assert b.supervisor.not_ready() == "the agent is stopping"
        await b.peer.wait_for(Draining)
        assert await b.exit_code() == EXIT_OK
        assert b.peer.of(Result, short)
        assert b.peer.of(Stopped, long)
        assert b.peer.sessions[-1].flushed


async def test_an_idle_agent_stops_at_once() -> None:
    async with bench() as b:
        b.supervisor.stop(60)
        assert await b.exit_code() == EXIT_OK


async def test_refused_for_good_ends_an_agent_that_holds_nothing() -> None:
    async with bench() as b:
        b.peer.say(Refused("BadMessage", "hello.skills: at most 64", retry=False))
        assert await b.exit_code() == EXIT_REFUSED


@pytest.mark.parametrize("reason", ["BadMessage", "ProtocolVersion"])
async def test_refused_for_good_an_agent_comes_again_with_its_work(reason: str) -> None:
    async with bench() as b:
        lease = b.peer.grant("sleep", b'{"seconds":0.5}')
        await b.peer.wait_for(Started, lease)
        b.peer.refusal = Refused(reason, "not as you are", retry=False)
        b.peer.say(b.peer.refusal)
        await b.peer.wait_for(Hello, count=4)
        assert b.supervisor.not_ready() == f"refused by the operator: {reason}: not as you are"
        b.peer.refusal = None
        await b.peer.wait_for(Result, lease)
        await until(lambda: not b.supervisor.not_ready(), "ready again")


async def test_refused_for_now_comes_again() -> None:
    async with bench() as b:
        b.peer.say(Refused("NotLeading", "try again"))
        await b.peer.wait_for(Hello, count=2)


async def test_an_agent_that_cannot_load_says_so(tmp_path: Path) -> None:
    module = tmp_path / "broken.py"
    module.write_text("raise ImportError('no such thing')")
    async with bench(module=module, up=False) as b:
        assert await b.exit_code() == EXIT_CANNOT_START


# --- what becomes of the work when the supervisor is late or gone ---


class Pids(NamedTuple):
    warden: int
    workers: list[int]
    end: float  # of the lease, boot time


@contextmanager
def host(mark: Path, seconds: float, type_: str) -> Iterator[tuple["subprocess.Popen[bytes]", Pids]]:
    environment = os.environ | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT / 'tests'}"}
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "tests" / "agents" / "host.py"), str(mark), str(seconds), type_],
        stdout=subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    try:
        said = json.loads(process.stdout.readline())
        yield process, Pids(said["warden"], said["workers"], said["end"])
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def alive(pid: int) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 :].split()[0] not in (b"Z", b"X")


def size(mark: Path) -> int:
    return mark.stat().st_size


async def still(mark: Path) -> bool:
    """Whether the sign of life has stopped."""
    before = size(mark)
    await asyncio.sleep(0.1)
    return size(mark) == before


async def test_a_killed_supervisor_leaves_no_child(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with host(mark, 60, "stubborn") as (process, pids):
        assert not await still(mark)
        process.kill()
        everyone = [pids.warden, *pids.workers]
        await until(lambda: not any(alive(pid) for pid in everyone), "all its processes are dead")
        assert await still(mark)


async def test_a_frozen_supervisor_does_not_hold_the_fence_open(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with host(mark, 1.5, "stubborn") as (process, pids):
        process.send_signal(signal.SIGSTOP)
        await until(lambda: not any(alive(pid) for pid in pids.workers), "the work is dead")
        assert boottime() < pids.end
        assert await still(mark)
        process.send_signal(signal.SIGCONT)


async def test_what_fled_from_its_group_is_killed_with_it(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    with host(mark, 1.0, "stubborn-family") as (_, pids):
        await until(lambda: not any(alive(pid) for pid in pids.workers), "the work is dead")
        async with asyncio.timeout(10):
            while not await still(mark):
                pass


def test_a_timer_on_the_leases_clock() -> None:
    timer = BootTimer()
    timer.set(boottime() - 5)
    assert len(os.read(timer.fd, 8)) == 8
    timer.set(None)
    with pytest.raises(BlockingIOError):
        os.read(timer.fd, 8)
    timer.clear()
    timer.close()


def test_without_the_clock_there_is_no_timer_and_it_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(time, "CLOCK_BOOTTIME")
    with pytest.raises(OSError, match="an agent needs a Linux kernel"):
        BootTimer()
