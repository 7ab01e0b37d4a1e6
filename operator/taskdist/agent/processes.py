"""Processes with all their descendants, and how they are killed on Linux. Nothing is decided here.

A group alone is not enough to hold user code: a program may start a session of its own. So workers and the
supervisor adopt the orphans of what they started (child subreaper), and kill them by parentage.
"""

import contextlib
import ctypes
import os
import signal
import sys
from pathlib import Path

import taskdist

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# Loaded once and early: between fork and exec as little as possible should happen.
_LIBC = ctypes.CDLL(None, use_errno=True)


def _prctl(option: int, value: int) -> None:
    if _LIBC.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), f"prctl({option}) failed")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent's thread ends; exit now if that happened already."""
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent ends."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)


def children(parent: int | None = None) -> set[int]:
    """Pids of the direct children (zombies included) of a process, by default this one."""
    wanted = os.getpid() if parent is None else parent
    found: set[int] = set()
    for entry in os.scandir("/proc"):
        if not entry.name.isdigit():
            continue
        try:
            with open(f"/proc/{entry.name}/stat", "rb") as file:
                stat = file.read()
        except OSError:
            continue  # it ended meanwhile
        # "pid (name) state ppid …": the name may hold anything, so count from its closing bracket.
        if int(stat[stat.rindex(b")") + 2 :].split()[1]) == wanted:
            found.add(int(entry.name))
    return found


def has_children() -> bool:
    """Whether this process has any child; much cheaper than listing them."""
    try:
        os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return False
    return True


def kill_orphans(keep: set[int]) -> int:
    """Kill and reap every child of this process but `keep`, and what they leave to it in turn. Returns how many.

    What is killed but cannot end yet (uninterruptible) is waited for: until it is gone, it still runs.
    """
    killed = 0
    while has_children():
        strangers = children() - keep
        if not kill_strangers(strangers):
            break
        killed += len(strangers)
    return killed


def kill_strangers(strangers: set[int], *, wait: bool = True) -> int:
    """Kill and reap these children of this process. Returns how many there were.

    Without `wait`, one that cannot end yet is left for a later call.
    """
    for pid in strangers:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    for pid in strangers:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0 if wait else os.WNOHANG)
    return len(strangers)


def python_module(module: str) -> list[str]:
    """The command that runs a module of this package with this interpreter, without the working directory's names."""
    return [sys.executable, "-P", "-m", module]


def module_environment(**extra: str) -> dict[str, str]:
    """This process's environment, in which this package can be imported, installed or not."""
    environment = os.environ | extra
    root = str(Path(taskdist.__file__).parent.parent)
    if "site-packages" not in root:
        environment["PYTHONPATH"] = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return environment


def kill_group(leader: int) -> None:
    """SIGKILL to every process of the group; none left is fine."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)


def group_alive(leader: int) -> bool:
    """Whether any process of the group exists; reaps those of them that are ours."""
    while True:
        try:
            ended, _ = os.waitpid(-leader, os.WNOHANG)
            if ended == 0:
                return True
        except ChildProcessError:
            break
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def describe_exit(code: int) -> str:
    """Say how a process ended, from its return code as subprocess gives it: negative for a signal."""
    if code >= 0:
        return f"exited with status {code}"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    hint = " (out of memory, or killed from outside)" if code == -signal.SIGKILL else ""
    return f"was killed by {name}{hint}"
