"""Worker processes: each end of an attempt, and that nothing of an attempt outlives it."""

import asyncio
import os
import signal
import socket
import struct
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agents.peer import TIMEOUT, until
from taskdist.agent import frames
from taskdist.agent.logs import make_logger
from taskdist.agent.pool import WorkerPool
from taskdist.agent.work import Offered, StartError
from taskdist.api import Reason
from taskdist.common.boottime import boottime
from taskdist.protocol.messages import Grant, LeaseName
from unit.agent.recorder import Recorder

SAMPLE = str(Path(__file__).parents[2] / "agents" / "sample.py")


class Bench:
    """A pool under test."""

    def __init__(self, pool: WorkerPool, events: Recorder, offered: Offered) -> None:
        self.pool, self.events, self.offered = pool, events, offered
        self._count = 0

    def start(self, type: str, payload: bytes = b"{}", *, seconds: float = 60.0) -> LeaseName:
        self._count += 1
        lease = LeaseName(f"uid-{self._count}", 1, 1)
        grant = Grant(lease, "ns", f"task-{self._count}", type, 1, boottime(), seconds, 120.0, payload=payload)
        self.pool.start(grant, boottime() + seconds)
        return lease

    async def wait(self, lease: LeaseName, *kinds: str) -> tuple[str, tuple[Any, ...]]:
        return await self.events.wait(lease, *kinds)

    async def ended(self, lease: LeaseName) -> tuple[str, tuple[Any, ...]]:
        return await self.wait(lease, "finished", "failed", "stopped")

    async def run(self, type: str, payload: bytes = b"{}") -> tuple[str, tuple[Any, ...]]:
        return await self.ended(self.start(type, payload))


@asynccontextmanager
async def bench(mode: str = "module", target: list[str] | None = None, slots: int = 1) -> AsyncIterator[Bench]:
    pool, events = WorkerPool(mode, target or [SAMPLE], slots, make_logger(agent="test"), agent="test"), Recorder()
    try:
        yield Bench(pool, events, await asyncio.wait_for(pool.open(events), TIMEOUT))
    finally:
        pids = [*pool.worker_pids, pool.warden_pid]
        await pool.close()
        assert not [pid for pid in pids if alive(pid)]


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except OSError:
        return False
    return stat[stat.rindex(b")") + 2 :].split()[0] not in (b"Z", b"X")


async def test_each_end_of_a_handler() -> None:
    """One worker for all: it is as good after each end as before."""
    table: dict[str, tuple[str, bytes, str, tuple[Any, ...] | Callable[..., bool]]] = {
        "result": ("echo", b'{"a":[1,"\xc3\xa4"]}', "finished", (b'{"a":[1,"\xc3\xa4"]}',)),
        "async result": ("echo-async", b'{"a":1}', "finished", (b'{"a":1}',)),
        "exception": ("fail", b'{"message":"boom"}', "failed", (Reason.HANDLER_ERROR, "ValueError: boom", True)),
        "permanent": ("fail-permanently", b"{}", "failed", lambda r, m, again: not again),
        "exit": ("exit", b"{}", "failed", (Reason.HANDLER_ERROR, "SystemExit: 3", True)),
        "invalid": ("sleep", b'{"seconds":"x"}', "failed", lambda r, m, again: r is Reason.INVALID_PAYLOAD),
        "too large": ("large", b'{"bytes":70000}', "failed", lambda r, m, again: r is Reason.RESULT_TOO_LARGE),
        "unknown type": ("nope", b"{}", "failed", lambda r, m, again: r is Reason.UNKNOWN_TYPE),
    }
    async with bench() as b:
        assert b.offered.fenced
        assert b.offered.types is not None
        assert "echo" in b.offered.types
        workers = b.pool.worker_pids
        for name, (type_, payload, kind, expected) in table.items():
            found = await b.run(type_, payload)
            assert found[0] == kind, name
            assert expected(*found[1]) if callable(expected) else found[1] == expected, (name, found)
        assert b.pool.worker_pids == workers


@pytest.mark.parametrize(("asked", "after"), [("12.5", 12.5), ("0", 1.0), ("NaN", 1.0)])
async def test_a_handler_that_is_throttled_says_when(asked: str, after: float) -> None:
    async with bench() as b:
        lease = b.start("throttled", b'{"after":%s}' % asked.encode())
        assert await b.ended(lease) == ("failed", (Reason.THROTTLED, "the provider answered 429", True))
        assert b.events.retry_after[lease] == after


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT], ids=lambda n: n.name)
async def test_a_crash_ends_one_attempt_and_names_the_signal(number: signal.Signals) -> None:
    async with bench() as b:
        kind, (reason, message, retryable) = await b.run("crash", b'{"signal":%d}' % number)
        assert (kind, reason, retryable) == ("failed", Reason.HANDLER_CRASHED, True)
        assert number.name in message
        # What waits for the replaced worker is run by its replacement.
        assert await b.run("echo", b'{"a":1}') == ("finished", (b'{"a":1}',))


@pytest.mark.parametrize("type_", ["until-cancelled", "until-cancelled-async", "sleep-async"])
async def test_a_cancel_stops_the_work_and_keeps_the_worker(type_: str) -> None:
    async with bench() as b:
        workers = b.pool.worker_pids
        lease = b.start(type_, b'{"seconds":60}')
        await b.wait(lease, "started")
        if type_ != "sleep-async":
            assert (await b.wait(lease, "progress"))[1] == (0.5, "waiting")
        b.pool.cancel(lease, "as asked")
        assert (await b.ended(lease))[0] == "stopped"
        assert b.pool.worker_pids == workers


async def test_a_kill_is_told_when_nothing_runs_any_more(tmp_path: Path) -> None:
    async with bench() as b:
        mark = tmp_path / "mark"
        lease = b.start("stubborn", b'{"file":"%s"}' % bytes(mark))
        await until(mark.exists, "the work runs")
        worker = b.pool.worker_pids[0]
        b.pool.cancel(lease, "in vain")
        b.pool.kill(lease)
        assert (await b.ended(lease))[0] == "stopped"
        assert not alive(worker)
        size = mark.stat().st_size
        assert await b.run("echo") == ("finished", (b"{}",))
        assert mark.stat().st_size == size


async def test_work_that_waits_for_a_worker_can_be_taken_back() -> None:
    async with bench() as b:
        first = b.start("sleep", b'{"seconds":0.2}')
        waiting = [b.start("echo"), b.start("echo"), b.start("echo")]
        b.pool.cancel(waiting[0], "as asked")
        b.pool.kill(waiting[1])
        assert [await b.ended(lease) for lease in waiting[:2]] == [("stopped", ())] * 2
        assert (await b.ended(first))[0] == "finished"
        assert (await b.ended(waiting[2]))[0] == "finished"
        assert not b.events.find(waiting[0], "started")


async def test_what_an_attempt_leaves_behind_ends_before_its_result_is_told(tmp_path: Path) -> None:
    async with bench() as b:
        mark, worker = tmp_path / "mark", b.pool.worker_pids[0]
        kind, (body,) = await b.run("leave-behind", b'{"file":"%s"}' % bytes(mark))
        assert kind == "finished"
        assert not alive(int(body.split(b":")[1].strip(b"}")))
        # The worker is replaced: what it may keep of those children is not known.
        await until(lambda: worker not in b.pool.worker_pids, "the worker is replaced")


@pytest.mark.parametrize(
    ("type_", "kind"),
    [
        ("leave-thread", "failed"),
        ("leave-daemon", "finished"),
        ("leave-raw-thread", "finished"),
        ("leave-to-thread", "finished"),
        ("leave-asyncio-task", "finished"),
    ],
)
async def test_threads_and_tasks_of_an_attempt_end_before_its_end_is_told(
    type_: str, kind: str, tmp_path: Path
) -> None:
    async with bench() as b:
        mark, worker = tmp_path / "mark", b.pool.worker_pids[0]
        lease = b.start(type_, b'{"file":"%s"}' % bytes(mark))
        found = await b.ended(lease)
        assert not alive(worker)
        assert found[0] == kind
        size = mark.stat().st_size if mark.exists() else 0
        # Another attempt has its own worker, in which nothing of the former one goes on.
        assert await b.run("echo-async", b'{"a":1}') == ("finished", (b'{"a":1}',))
        assert (mark.stat().st_size if mark.exists() else 0) == size
        assert not b.events.broken


async def test_a_clean_handler_keeps_its_worker() -> None:
    """Whatever it used meanwhile; what the module made when it was imported is not the attempt's."""
    async with bench() as b:
        workers = b.pool.worker_pids
        for _ in range(3):
            assert await b.run("clean-threads") == ("finished", (b'{"sum":6}',))
            assert await b.run("clean-asyncio") == ("finished", (b'{"number":3}',))
        assert b.pool.worker_pids == workers


POOLS = """
import time
from concurrent.futures import ThreadPoolExecutor
from taskdist.agent import Agent

agent, lazy, _kept = Agent(), ThreadPoolExecutor(4), []


@agent.task("use")
def use(payload: dict) -> dict:
    return {"sum": sum(lazy.map(abs, range(4)))}


@agent.task("leave")
def leave(payload: dict) -> None:
    lazy.submit(time.sleep, 60)


@agent.task("make")
def make(payload: dict) -> None:
    _kept.append(ThreadPoolExecutor(1))
    _kept[0].submit(int).result()
"""


@pytest.mark.parametrize(
    ("type_", "kept"),
    [
        pytest.param("use", True, id="idle-threads-of-the-modules-executor-stay"),
        pytest.param("leave", False, id="what-they-go-on-with-ends"),
        pytest.param("make", False, id="an-executor-of-the-attempt-ends"),
    ],
)
async def test_an_executor_that_the_module_made_may_start_its_threads_in_an_attempt(
    type_: str, kept: bool, tmp_path: Path
) -> None:
    module = tmp_path / "pools.py"
    module.write_text(POOLS)
    async with bench(target=[str(module)]) as b:
        for _ in range(2):
            workers = b.pool.worker_pids
            assert (await b.run(type_))[0] == "finished"
            assert (await b.run("use")) == ("finished", (b'{"sum":6}',))
            assert (b.pool.worker_pids == workers) is kept


def framed(head: bytes) -> bytes:
    return struct.pack(">II", len(head), 0) + head


@pytest.mark.parametrize(
    "said",
    [
        pytest.param(framed(b"{}"), id="no kind"),
        pytest.param(framed(b"[" * 100_000), id="too deep"),
        pytest.param(b"\xff" * 8, id="too large"),
    ],
)
async def test_a_worker_that_speaks_nonsense_is_ended_and_its_attempt_fails(said: bytes) -> None:
    async with bench() as b:
        worker = b.pool.worker_pids[0]
        lease = b.start("babble", b'{"hex":"%s"}' % said.hex().encode())
        kind, (reason, message, retryable) = await b.ended(lease)
        assert (kind, reason, retryable) == ("failed", Reason.HANDLER_CRASHED, True)
        assert "said what no worker says" in message
        assert not alive(worker)
        assert await b.run("echo") == ("finished", (b"{}",))
        assert not b.events.broken


async def test_a_part_of_the_pool_that_fails_is_told() -> None:
    async with bench() as b:

        def wrong(*_: object) -> None:
            raise RuntimeError("as asked")

        b.events.started = wrong  # type: ignore[method-assign,assignment]
        b.start("echo")
        await until(lambda: b.events.broken, "the failure is told")
        assert str(b.events.broken[0]) == "as asked"


async def test_the_second_line_kills_at_the_deadline(tmp_path: Path) -> None:
    async with bench() as b:
        mark = tmp_path / "mark"
        lease = b.start("stubborn", b'{"file":"%s"}' % bytes(mark), seconds=0.3)
        kind, (reason, message, _) = await b.ended(lease)
        assert (kind, reason) == ("failed", Reason.HANDLER_CRASHED)
        assert "SIGKILL" in message


async def test_a_renewal_moves_the_deadline() -> None:
    async with bench() as b:
        lease = b.start("sleep", b'{"seconds":0.6}', seconds=0.3)
        b.pool.fence(lease, boottime() + 30)
        assert (await b.ended(lease))[0] == "finished"
        # The deadline was the attempt's, not the worker's.
        worker = b.pool.worker_pids
        lease = b.start("echo", seconds=0.3)
        assert (await b.ended(lease))[0] == "finished"
        await asyncio.sleep(0.4)
        assert b.pool.worker_pids == worker


async def test_no_work_goes_on_without_a_second_line(tmp_path: Path) -> None:
    async with bench() as b:
        mark = tmp_path / "mark"
        lease = b.start("stubborn", b'{"file":"%s"}' % bytes(mark))
        await until(mark.exists, "the work runs")
        former = b.pool.warden_pid
        os.kill(former, signal.SIGKILL)
        assert (await b.ended(lease))[1][0] is Reason.HANDLER_CRASHED
        assert b.pool.warden_pid != former
        # The new one guards what runs now.
        lease = b.start("stubborn", b'{"file":"%s"}' % bytes(mark), seconds=0.6)
        assert "SIGKILL" in (await b.ended(lease))[1][1]


async def test_only_the_last_of_many_reports_is_sent() -> None:
    async with bench() as b:
        lease = b.start("progress", b'{"steps":2000}')
        assert (await b.ended(lease))[0] == "finished"
        assert sum(kind == "progress" for kind, _, _ in b.events.told) < 20


@pytest.mark.parametrize(
    ("source", "said"),
    [
        pytest.param("import nothing_of_that_name", "ModuleNotFoundError", id="import-error"),
        pytest.param("x = 1", "no taskdist.agent.Agent named 'agent'", id="no-agent"),
        pytest.param("from taskdist.agent import Agent\nagent = Agent()", "has no handler", id="no-handler"),
        pytest.param("import os; os.kill(os.getpid(), 9)", "SIGKILL", id="dies"),
    ],
)
async def test_a_module_that_does_not_load(source: str, said: str, tmp_path: Path) -> None:
    module = tmp_path / "broken.py"
    module.write_text(source)
    pool = WorkerPool("module", [str(module)], 1, make_logger())
    with pytest.raises(StartError, match=said):
        await asyncio.wait_for(pool.open(Recorder()), TIMEOUT)
    await pool.close()


def test_frames_carry_any_text_and_refuse_what_is_none_of_theirs() -> None:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        ours.sendall(frames.encode({"m": "\ud800 ä"}, b"body") + b"GET / HTTP/1.1\r\n")
        assert frames.receive(theirs) == frames.Frame({"m": "? ä"}, b"body")
        with pytest.raises(EOFError, match="does not speak"):
            frames.receive(theirs)


# --- commands ---


def shell(script: str) -> list[str]:
    return ["sh", "-c", script]


@pytest.mark.parametrize(
    ("command", "kind", "expected"),
    [
        pytest.param(shell("cat"), "finished", (b'{"a":1}',), id="echo"),
        pytest.param(shell("true"), "finished", (b"{}",), id="no-output"),
        pytest.param(shell("echo '{\"x\": 2}'"), "finished", (b'{"x":2}',), id="does-not-read-stdin"),
        pytest.param(
            shell(
                'printf \'{"t":"%s","n":"%s","a":"%s","y":"%s"}\''
                ' "$TASKDIST_TASK" "$TASKDIST_NAMESPACE" "$TASKDIST_ATTEMPT" "$TASKDIST_TYPE"'
            ),
            "finished",
            (b'{"t":"task-1","n":"ns","a":"1","y":"any"}',),
            id="environment",
        ),
        pytest.param(
            shell("echo why >&2; exit 7"),
            "failed",
            (Reason.HANDLER_ERROR, "the command exited with status 7: why", True),
            id="failure",
        ),
        pytest.param(
            shell("echo bad input >&2; exit 65"),
            "failed",
            (Reason.HANDLER_ERROR, "the command exited with status 65: bad input", False),
            id="EX_DATAERR-is-permanent",
        ),
        pytest.param(
            shell("echo '$throttled 30s' >&2; echo '$progress 0.4 half' >&2; echo '$progress half' >&2; exit 75"),
            "failed",
            (Reason.HANDLER_ERROR, "the command exited with status 75: $throttled 30s\n$progress half", True),
            id="lines-for-the-worker-that-it-does-not-understand",
        ),
        pytest.param(shell("kill -9 $$"), "failed", lambda r, m, again: "SIGKILL" in m and again, id="killed"),
        pytest.param(
            shell("echo nonsense"), "failed", lambda r, m, again: r is Reason.RESULT_REFUSED and not again, id="no-json"
        ),
        pytest.param(shell("echo [1]"), "failed", lambda r, m, again: r is Reason.RESULT_REFUSED, id="no-object"),
        pytest.param(
            [sys.executable, "-c", "print('{\"x\":\"' + 'y' * 3000000 + '\"}')"],
            "failed",
            lambda r, m, again: r is Reason.RESULT_TOO_LARGE and not again,
            id="too-large",
        ),
        pytest.param(
            ["/nonexistent/program"], "failed", lambda r, m, again: "cannot be started" in m, id="no-such-program"
        ),
        pytest.param(shell("sleep 60 & echo '{}'"), "finished", (b"{}",), id="leaves-a-child-with-its-pipes"),
    ],
)
async def test_commands(command: list[str], kind: str, expected: Any) -> None:
    async with bench("command", command) as b:
        assert b.offered.types is None
        found = await b.run("any", b'{"a":1}')
        assert found[0] == kind, found
        assert expected(*found[1]) if callable(expected) else found[1] == expected, found


@pytest.mark.parametrize(
    ("script", "kind", "used"),
    [
        pytest.param("""echo '{"x":2,"$budgets":{"q/b":3}}'""", "finished", {"q/b": 3}, id="result"),
        pytest.param("""echo '{"x":2,"y":"$budgets"}'""", "finished", None, id="the-word-elsewhere"),
        pytest.param("""echo '{"$budgets":{"q/b":3}}'; exit 7""", "failed", {"q/b": 3}, id="failure"),
        pytest.param("""echo 'no JSON, "$budgets"'; exit 7""", "failed", None, id="failure-without"),
    ],
)
async def test_a_command_says_what_it_used_of_budgets(script: str, kind: str, used: Any) -> None:
    async with bench("command", shell(script)) as b:
        lease = b.start("any")
        found = await b.ended(lease)
        assert (found[0], b.events.used[lease]) == (kind, used)
        assert kind == "failed" or b'"$budgets":' not in found[1][0]


@pytest.mark.parametrize(("fails", "kind"), [(False, "finished"), (True, "failed")], ids=["result", "failure"])
async def test_a_handler_says_what_it_used_of_budgets(fails: bool, kind: str) -> None:
    async with bench() as b:
        lease = b.start("spend", b'{"amounts":[5,3],"fails":%s}' % (b"true" if fails else b"false"))
        assert (await b.ended(lease))[0] == kind
        assert b.events.used[lease] == {"q/tokens": 3}
        # The next attempt of the same worker says nothing.
        lease = b.start("echo")
        await b.ended(lease)
        assert b.events.used[lease] is None


@pytest.mark.parametrize(
    ("script", "reason", "after"),
    [
        pytest.param("echo why >&2; echo '$throttled 30' >&2; exit 75", Reason.THROTTLED, 30.0, id="throttled"),
        pytest.param("printf 'why\\n$throttled 2.5' >&2; exit 75", Reason.THROTTLED, 2.5, id="no-end-of-line"),
        pytest.param("echo why >&2; echo '$throttled 0' >&2; exit 75", Reason.THROTTLED, 1.0, id="at-least-a-second"),
        pytest.param("echo why >&2; echo '$throttled soon' >&2; exit 75", Reason.HANDLER_ERROR, 0.0, id="no-number"),
        pytest.param("echo '$throttled 30s why' >&2; exit 75", Reason.HANDLER_ERROR, 0.0, id="no-number-alone"),
        pytest.param("echo '$throttled -1 why' >&2; exit 75", Reason.HANDLER_ERROR, 0.0, id="negative"),
        pytest.param("echo '$throttled 30' >&2; echo why >&2; exit 75", Reason.HANDLER_ERROR, 0.0, id="not-the-last"),
        pytest.param("echo why >&2; echo '$throttled 30' >&2; exit 1", Reason.HANDLER_ERROR, 0.0, id="another-status"),
        pytest.param("echo why >&2; exit 75", Reason.HANDLER_ERROR, 0.0, id="no-line"),
    ],
)
async def test_a_command_that_is_throttled_says_when(script: str, reason: Reason, after: float) -> None:
    async with bench("command", shell(script)) as b:
        lease = b.start("any")
        kind, (found, message, retryable) = await b.ended(lease)
        assert (kind, found, retryable, b.events.retry_after[lease]) == ("failed", reason, True, after)
        assert "why" in message
        assert "$throttled 30\n" not in f"{message}\n"


async def test_a_command_reports_progress_in_lines(tmp_path: Path) -> None:
    mark = tmp_path / "go"
    lines = "echo '$progress x' >&2; echo '$progress 0.4 two of five' >&2"
    async with bench("command", shell(f"{lines}; while [ ! -e {mark} ]; do sleep 0.01; done; echo '{{}}'")) as b:
        lease = b.start("any")
        assert await b.wait(lease, "progress") == ("progress", (0.4, "two of five"))
        mark.touch()
        assert await b.ended(lease) == ("finished", (b"{}",))


async def test_a_command_is_asked_to_stop_by_sigterm(tmp_path: Path) -> None:
    mark = tmp_path / "ready"
    async with bench("command", shell(f"trap 'exit 0' TERM; touch {mark}; while :; do sleep 0.01; done")) as b:
        lease = b.start("any")
        await until(mark.exists, "the command runs")
        b.pool.cancel(lease, "as asked")
        assert (await b.ended(lease))[0] == "stopped"


async def test_a_command_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    async with bench("command", shell(f"trap '' TERM; echo $$ > {mark}; while :; do sleep 0.01; done")) as b:
        lease = b.start("any")
        await until(lambda: mark.exists() and mark.read_text().strip(), "the command runs")
        b.pool.cancel(lease, "in vain")
        b.pool.kill(lease)
        assert (await b.ended(lease))[0] == "stopped"
        assert not alive(int(mark.read_text()))
