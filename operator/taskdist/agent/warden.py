"""The warden: a small process that kills process groups when their time is over, whatever became of the supervisor.

It is the second line of the fence. The supervisor kills on time as a rule; it may be late (stopped, starved of CPU,
swapped out) or dead. The warden knows no leases and no link: only groups, the boot time by which each must be dead,
and that an end of its input means that the supervisor is gone, and with it every group's right to run.

It errs towards killing: a renewal that comes after the deadline finds the group dead.

Lines of input: `watch GROUP`, `fence GROUP BOOT`, `free GROUP` (no deadline), `forget GROUP`.
"""

import contextlib
import os
import select
import subprocess

from taskdist.agent.boot_timer import BootTimer
from taskdist.agent.processes import kill_group, module_environment, python_module
from taskdist.common.boottime import boottime


class Warden:
    """The supervisor's end: starts the warden's process and tells it what to watch."""

    def __init__(self) -> None:
        ours, self._pipe = os.pipe()
        try:
            # Its own session: what is sent to the supervisor's group (Ctrl-C, a shell's kill) must not reach it.
            self._process = subprocess.Popen(
                python_module("taskdist.agent.warden"),
                stdin=ours,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
                env=module_environment(),
            )
        finally:
            os.close(ours)
        # A warden that hangs must not hang the supervisor: a full pipe is an error, not a wait.
        os.set_blocking(self._pipe, False)

    @property
    def pid(self) -> int:
        return self._process.pid

    def watch(self, group: int) -> None:
        """Kill the group if the supervisor vanishes."""
        self._tell("watch", group)

    def fence(self, group: int, boot: float) -> None:
        """Kill the group at `boot` unless told otherwise before."""
        self._tell("fence", group, repr(boot))

    def free(self, group: int) -> None:
        """The group holds no lease: no deadline."""
        self._tell("free", group)

    def forget(self, group: int) -> None:
        """The group is dead; its number may be used again."""
        self._tell("forget", group)

    def close(self) -> None:
        """End the warden; it kills what it still watches."""
        os.close(self._pipe)
        self._process.wait()

    def _tell(self, verb: str, group: int, *rest: str) -> None:
        try:
            os.write(self._pipe, " ".join([verb, str(group), *rest]).encode() + b"\n")
        except OSError:
            # Dead, or it hangs: no work goes on without a second line.
            if verb != "forget":
                kill_group(group)


class _Watch:
    """The warden's own state: groups and deadlines."""

    def __init__(self) -> None:
        self._groups: dict[int, float | None] = {}

    def take(self, line: str) -> None:
        verb, group, *rest = line.split()
        match verb:
            case "watch" | "free":
                self._groups[int(group)] = None
            case "fence":
                self._groups[int(group)] = float(rest[0])
            case "forget":
                self._groups.pop(int(group), None)

    def kill_due(self, boot: float) -> float | None:
        """Kill what is due; return the next deadline. What was killed stays watched until it is forgotten."""
        upcoming: list[float] = []
        for group, deadline in self._groups.items():
            if deadline is None:
                continue
            if deadline <= boot:
                kill_group(group)
                self._groups[group] = None
            else:
                upcoming.append(deadline)
        return min(upcoming, default=None)

    def kill_all(self) -> None:
        for group in self._groups:
            kill_group(group)


def main() -> None:
    watch = _Watch()
    timer = BootTimer()
    poll = select.poll()
    poll.register(0, select.POLLIN)
    poll.register(timer.fd, select.POLLIN)
    pending = b""
    while True:
        # The earliest deadline counts first: input that waits may be a renewal that came too late.
        timer.set(watch.kill_due(boottime()))
        ready = {fd for fd, _ in poll.poll()}
        if timer.fd in ready:
            timer.clear()
            continue
        data = os.read(0, 65536)
        if not data:
            break
        *lines, pending = (pending + data).split(b"\n")
        for line in lines:
            watch.take(line.decode())
    watch.kill_all()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        main()
