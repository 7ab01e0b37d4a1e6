"""Child processes that end with their owner: start, wait, stop, and a guard for the case that the owner is killed.

Owns how a local process is started (own session, marked environment, output into a file) and how a whole process
tree is ended. It does not know what the processes are for.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from taskdist.local import guard


def new_mark() -> str:
    """A mark no other run has. If this process is part of a run itself, the new one is nested in it: the guard of
    the outer run then finds all, even where it killed this process and its guard first."""
    outer = os.environ.get(guard.MARK)
    return f"{outer}/{secrets.token_hex(8)}" if outer else secrets.token_hex(8)


class Guard:
    """Kills everything that carries `mark` once this process ends, however it ends."""

    def __init__(self, mark: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-I", "-S", guard.__file__, str(os.getpid()), mark],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def close(self) -> None:
        """Sweep now and return when nothing is left. Safe to call twice."""
        if self._process.stdin is not None and not self._process.stdin.closed:
            self._process.stdin.close()
        self._process.wait(timeout=30)


def start(
    command: Sequence[str], *, env: Mapping[str, str], mark: str, log: Path, cwd: Path | None = None
) -> subprocess.Popen[bytes]:
    """Start `command` in a session of its own with exactly `env` and the mark; output is appended to `log`."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        return subprocess.Popen(
            list(command),
            env={**env, guard.MARK: mark},
            cwd=cwd,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def stop(process: subprocess.Popen[bytes], grace: float) -> int:
    """SIGTERM to a child, wait `grace` seconds, SIGKILL. Returns the exit code."""
    if process.poll() is None:
        process.terminate()
    try:
        return process.wait(timeout=grace)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


def end(mark: str, pid: int, grace: float) -> None:
    """SIGTERM to a process of the run `mark`, ours or not, and wait until it has ended or `grace` seconds are over.

    The mark guards against somebody else who has got the number since.
    """
    if pid not in guard.marked(mark):
        return
    with contextlib.suppress(ProcessLookupError):
        fd = os.pidfd_open(pid)
        try:
            signal.pidfd_send_signal(fd, signal.SIGTERM)
            select.select([fd], [], [], grace)
        finally:
            os.close(fd)


async def wait(process: subprocess.Popen[bytes]) -> int:
    """Await the end of a child: no thread, no polling. Returns the exit code as subprocess does (negative: signal)."""
    if (code := process.poll()) is not None:
        return code
    # The child is not reaped before wait() below, so its id cannot be somebody else's.
    fd = os.pidfd_open(process.pid)
    loop = asyncio.get_running_loop()
    ended: asyncio.Future[None] = loop.create_future()

    def on_end() -> None:
        if not ended.done():
            ended.set_result(None)

    loop.add_reader(fd, on_end)
    try:
        await ended
    finally:
        loop.remove_reader(fd)
        os.close(fd)
    return process.wait()


async def kill_tree(mark: str, session: int, timeout: float = 10.0) -> None:
    """End what is left of a container: the process group it was started in, and everything that carries its mark."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(session, signal.SIGKILL)
    deadline = time.monotonic() + timeout
    while (left := guard.marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        await asyncio.sleep(0.01)
