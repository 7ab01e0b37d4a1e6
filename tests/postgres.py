"""A PostgreSQL server of a test's own: real, on loopback, in a temporary directory, gone with the test."""

from __future__ import annotations

import os
import pwd
import shutil
import signal
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import distribution
from patience import until
from taskdist.local.controlplane import free_ports

SECONDS = 60.0


@cache
def binaries() -> Path:
    """Return the folder of PostgreSQL's programs: the distribution's, on PATH, or installed now where that can be."""
    return distribution.program("postgresql", _found)


def _found() -> Path | None:
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda each: -float(each.parent.name))
    if (there := distribution.on_path("initdb")) is not None:
        folders.append(there.resolve().parent)
    return next((folder for folder in folders if (folder / "postgres").exists()), None)


class Postgres:
    """`with Postgres() as server:`; it may be killed and started again."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="taskdist-pg-"))
        (self.port,) = free_ports(1)
        self._process: subprocess.Popen[bytes] | None = None
        # The server refuses to run as root.
        self._user = _other_user() if os.geteuid() == 0 else None

    @property
    def dsn(self) -> str:
        return f"postgresql://tester@127.0.0.1:{self.port}/postgres"

    def __enter__(self) -> Self:
        if self._user is not None:
            shutil.chown(self.directory, self._user)
        self._run("initdb", "-D", str(self.directory / "data"), "-U", "tester", "-A", "trust", "--no-instructions")
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def start(self) -> None:
        """Start it and wait until it takes connections, after a crash as well."""

        def answers() -> bool:
            # What is left of a killed one may hold its memory for a moment: then it ends, and is begun again.
            if self._process is None or self._process.poll() is not None:
                self._begin()
            return self._answers()

        until(answers, lambda: (self.directory / "log").read_text()[-2000:], SECONDS)

    def kill(self) -> None:
        """End it as a power cut would: all of its processes at once."""
        process, self._process = self._process, None
        if process is not None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            until(lambda: not self._answers(), "the server is gone")

    def _begin(self) -> None:
        with (self.directory / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [
                    *(str(binaries() / "postgres"), "-D", str(self.directory / "data"), "-p", str(self.port)),
                    *("-c", "listen_addresses=127.0.0.1", "-c", f"unix_socket_directories={self.directory}"),
                ],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self._user,
                cwd=self.directory,
                start_new_session=True,
            )

    def _answers(self) -> bool:
        command = [str(binaries() / "pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command, check=False).returncode == 0

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(binaries() / program), *arguments]
        done = subprocess.run(command, user=self._user, cwd=self.directory, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _other_user() -> str:
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name).pw_name
        except KeyError:
            continue
    raise AssertionError("no user to run PostgreSQL as: it refuses root")
