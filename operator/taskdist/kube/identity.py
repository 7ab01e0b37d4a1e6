"""Names of candidates for the Lease, and which of their holders are known to be dead.

So a process that is started anew need not wait for the Lease of its former self to run out.

A holder's name says where its process runs. A process of the same pod is dead once another one starts there, as the
kubelet starts a container only when its former one has ended. Outside of a pod the process is looked up, on the same
machine and in the same process namespace only. Anything that is not certain counts as alive: then the Lease runs out.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")
# Fields of /proc/PID/stat behind the name, see proc(5): the state, and the start in clock ticks since the boot.
_STATE, _STARTED = 0, 19


@dataclass(frozen=True, slots=True)
class Process:
    """A process of a machine's boot: its number may be given again, but not with the same start."""

    machine: str  # boot and process namespace
    pid: int
    started: int  # clock ticks since the boot

    @classmethod
    def own(cls) -> Process | None:
        """None where the platform does not tell."""
        try:
            boot = (_PROC / "sys/kernel/random/boot_id").read_text().strip()
            machine = f"{boot}.{(_PROC / 'self/ns/pid').stat().st_ino}"
        except OSError:
            return None
        started = _started(os.getpid())
        return None if started is None else cls(machine, os.getpid(), started)

    @property
    def ended(self) -> bool:
        """Whether it is sure to have ended. To be asked on its own machine."""
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass  # it is somebody else's, and there
        started = _started(self.pid)
        return started is not None and started != self.started


class Identity:
    """The name of one candidate, and its judgement of others.

    Args:
        name: for people; the pod's.
        pod_uid: of the pod that the process runs in, if it does.
    """

    def __init__(self, name: str = "", pod_uid: str = "", process: Process | None = None) -> None:
        self._pod = f"pod.{pod_uid}" if pod_uid else ""
        self._process = None if pod_uid else process or Process.own()
        place = self._pod
        if self._process is not None:
            place = f"process.{self._process.machine}.{self._process.pid}.{self._process.started}"
        parts = (name or socket.gethostname(), place, secrets.token_hex(6))
        self.name = "_".join(part for part in parts if part)

    def is_dead(self, holder: str) -> bool:
        """Whether that holder is known to be dead."""
        # NAME_PLACE_RANDOM, as above: a name may hold any number of underscores, the others hold none.
        parts = holder.rsplit("_", 2)
        if holder == self.name or len(parts) < 3:
            return False
        _, place, _ = parts
        if self._pod:
            return place == self._pod
        if self._process is not None and place.startswith(f"process.{self._process.machine}."):
            with contextlib.suppress(ValueError):
                _, pid, started = place.rsplit(".", 2)
                return int(pid) > 0 and Process(self._process.machine, int(pid), int(started)).ended
        return False


def _started(pid: int) -> int | None:
    """When the process started, -1 if it has ended and waits for its parent to ask; None if it cannot be told."""
    try:
        fields = (_PROC / str(pid) / "stat").read_text().rsplit(") ", 1)[1].split()
        return -1 if fields[_STATE] in ("Z", "X") else int(fields[_STARTED])
    except (OSError, IndexError, ValueError):
        return None
