"""A RabbitMQ broker of a test's own: real, on loopback, in a temporary directory, gone with the test."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
from functools import cache
from pathlib import Path
from types import TracebackType
from typing import Self

import distribution
from patience import until
from taskdist.local.certificates import LocalAuthority
from taskdist.local.controlplane import free_ports

SECONDS = 180.0


@cache
def program() -> Path:
    """Return the broker's script: the distribution's, on PATH, or installed now where that can be."""
    return distribution.program("rabbitmq-server", _found)


def _found() -> Path | None:
    # Before PATH: what distributions put there changes the user first.
    for folder in sorted(Path("/usr/lib/rabbitmq").glob("**/bin")):
        if (folder / "rabbitmq-server").exists():
            return folder / "rabbitmq-server"
    return distribution.on_path("rabbitmq-server")


class RabbitMQ:
    """`with RabbitMQ() as broker:`; it may be killed and started again, and then has what it had confirmed."""

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="taskdist-mq-"))
        self.port, self.tls_port, self._distribution, self._names = free_ports(4)
        self.authority = LocalAuthority(self.directory / "pki")
        pair = self.authority.server("broker")
        self._processes: list[subprocess.Popen[bytes]] = []
        (self.directory / "rabbitmq.conf").write_text(
            f"""
            listeners.tcp.1 = 127.0.0.1:{self.port}
            listeners.ssl.1 = 127.0.0.1:{self.tls_port}
            ssl_options.cacertfile = {self.authority.certificate}
            ssl_options.certfile = {pair.certificate}
            ssl_options.keyfile = {pair.key}
            ssl_options.verify = verify_none
            """
        )
        (self.directory / "plugins").write_text("[].\n")

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    @property
    def url(self) -> str:
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def start(self) -> None:
        """Start it and wait until it takes connections, after a crash as well."""
        environment = {
            **os.environ,
            "HOME": str(self.directory),
            # It would keep the processors of a small machine busy while it waits.
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "+sbwt none +sbwtdcpu none +sbwtdio none",
            # Its own register of names, which would outlive it otherwise.
            "ERL_EPMD_PORT": str(self._names),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"taskdist{self.port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._distribution),
            "RABBITMQ_MNESIA_BASE": str(self.directory / "data"),
            "RABBITMQ_LOG_BASE": str(self.directory / "logs"),
            "RABBITMQ_CONFIG_FILE": str(self.directory / "rabbitmq"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.directory / "plugins"),
        }

        def answers() -> bool:
            # A connection may have one of its ports for a while: then it ends, and is begun again.
            if any(each.poll() is not None for each in self._processes) or not self._processes:
                self.kill()
                self._begin(environment)
            return self._answers()

        until(answers, lambda: (self.directory / "log").read_text()[-2000:], SECONDS)

    def _begin(self, environment: dict[str, str]) -> None:
        with (self.directory / "log").open("ab") as log:
            for command in (["epmd", "-port", str(self._names)], [str(program())]):
                process = subprocess.Popen(
                    command,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    cwd=self.directory,
                    start_new_session=True,
                )
                self._processes.append(process)

    def kill(self) -> None:
        """End it as a power cut would: all of its processes at once."""
        processes, self._processes = self._processes, []
        for process in reversed(processes):
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()

    def _answers(self) -> bool:
        try:
            with socket.create_connection(("127.0.0.1", self.port), 5) as connection:
                connection.sendall(b"AMQP\0\0\x09\x01")
                return bool(connection.recv(1))
        except OSError:
            return False
