"""Leaves no process behind: finds every process of a run by its mark, and kills them when the owner is gone.

A run puts its mark into the environment of what it starts. Children inherit it, whatever session or process group
they move to, so one sweep over /proc finds them all, orphans included. Also a script of its own
(`guard.py OWNER_PID MARK`): it waits until its owner has ended or closes the pipe, then sweeps.

Standard library only, since it runs isolated. It does not find a process that threw its environment away *and* left
its parents; a real container's PID namespace would.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

MARK = "TASKDIST_LOCAL_RUN"
"""The environment variable that carries the mark; marks may nest as `outer/inner`, a prefix finds all of them."""

_SWEEP_INTERVAL = 0.02
_CLEAN_SWEEPS = 3  # A process between fork and exec does not carry the mark yet: one empty sweep proves nothing.


def marked(mark: str) -> list[int]:
    """The living processes of the run `mark`, and of runs nested in it. Other users' processes are not seen."""
    exact = f"{MARK}={mark}".encode()
    nested = exact + b"/"
    found = []
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/environ", "rb") as file:
                variables = file.read().split(b"\0")
        except OSError:  # Ended meanwhile, or not ours to look at.
            continue
        if any(variable == exact or variable.startswith(nested) for variable in variables):
            found.append(int(entry))
    return [pid for pid in found if pid != os.getpid()]


def kill_marked(mark: str, timeout: float = 10.0) -> list[int]:
    """SIGKILL until nothing of the run is left; returns what still lives after `timeout` seconds (normally nothing)."""
    deadline = time.monotonic() + timeout
    clean = 0
    left: list[int] = []
    while clean < _CLEAN_SWEEPS and time.monotonic() < deadline:
        left = marked(mark)
        clean = 0 if left else clean + 1
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(_SWEEP_INTERVAL)
    return left


def main(arguments: list[str]) -> int:
    owner, mark = int(arguments[0]), arguments[1]
    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    # Two signs of the owner's end: a pipe alone stays open in any child the owner forked without exec.
    poller = select.poll()
    poller.register(sys.stdin.fileno(), select.POLLIN | select.POLLHUP)
    with contextlib.suppress(ProcessLookupError):
        poller.register(os.pidfd_open(owner), select.POLLIN)
        poller.poll()
    return 1 if kill_marked(mark) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
