"""Servers of SQS for tests, each a process of its own on loopback, gone with the test. Their network may be cut."""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import boto3
from botocore.config import Config

import java
from patience import until
from taskdist.local.controlplane import free_ports

REGION: Final = "eu-central-1"
ACCOUNT: Final = "123456789012"
SECONDS: Final = 90.0
ELASTICMQ: Final = Path(__file__).parent / "elasticmq_jars"


class Relay:
    """Hands on what comes at a port to another one, until it is cut: then connections end in the midst of anything."""

    def __init__(self, port: int, target: int) -> None:
        self.port, self._target = port, target
        self._listener: socket.socket | None = None
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()

    def start(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def kill(self) -> None:
        """Nobody is there from now on."""
        listener, self._listener = self._listener, None
        with self._lock:
            sockets, self._open = [*self._open], set()
        for each in [listener, *sockets]:
            if each is not None:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)
                each.close()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                near, _ = listener.accept()
                far = socket.create_connection(("127.0.0.1", self._target))
            except OSError:
                return
            with self._lock:
                self._open |= {near, far}
            threading.Thread(target=self._copy, args=(near, far), daemon=True).start()

    def _copy(self, near: socket.socket, far: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError), selectors.DefaultSelector() as selector:
            selector.register(near, selectors.EVENT_READ, far)
            selector.register(far, selectors.EVENT_READ, near)
            while True:
                for key, _ in selector.select():
                    assert isinstance(key.fileobj, socket.socket)
                    data = key.fileobj.recv(65536)
                    if not data:
                        raise OSError("it has ended")
                    key.data.sendall(data)
        for each in (near, far):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            with self._lock:
                self._open.discard(each)
            each.close()


class Server:
    """`with moto() as server:`; what it holds it holds in memory, so that its network is cut and not the process."""

    def __init__(self, port: int, command: list[str]) -> None:
        self._port, self._command = port, command
        (cut,) = free_ports(1)
        self.relay = Relay(cut, port)
        self._log = tempfile.NamedTemporaryFile(prefix="taskdist-sqs-", suffix=".log")  # noqa: SIM115
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        process = self._process = subprocess.Popen(
            self._command,
            env={**os.environ, "AWS_EC2_METADATA_DISABLED": "true"},
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

        def answers() -> bool:
            assert process.poll() is None, self._said()
            return self._answers()

        until(answers, self._said, SECONDS)
        self.relay.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.relay.kill()
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._log.close()

    @property
    def endpoint(self) -> str:
        """Where it is, behind what may be cut."""
        return f"http://127.0.0.1:{self.relay.port}"

    def client(self) -> Any:
        """Somebody else's connection, which is never cut."""
        return boto3.client(
            "sqs",
            region_name=REGION,
            endpoint_url=f"http://127.0.0.1:{self._port}",
            aws_access_key_id="test",
            aws_secret_access_key="test",
            config=Config(retries={"total_max_attempts": 3}),
        )

    def queue(self, name: str, **attributes: str) -> str:
        """Make a queue, in order by group if its name says so; return its address."""
        fifo = {"FifoQueue": "true"} if name.endswith(".fifo") else {}
        return str(self.client().create_queue(QueueName=name, Attributes={**fifo, **attributes})["QueueUrl"])

    def _said(self) -> str:
        return Path(self._log.name).read_text()[-2000:]

    def _answers(self) -> bool:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self._port), 1):
            return True
        return False


def moto() -> Server:
    (port,) = free_ports(1)
    return Server(port, [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)])


def elasticmq() -> Server:
    """Another maker's server, in Java: it keeps thousands of messages as fast as few, which moto does not."""
    (port,) = free_ports(1)
    settings = {
        "node-address.host": "127.0.0.1",
        "node-address.port": port,
        "rest-sqs.bind-hostname": "127.0.0.1",
        "rest-sqs.bind-port": port,
        "rest-sqs.sqs-limits": "strict",
        "rest-stats.enabled": "false",
        "aws.region": REGION,
        "aws.accountId": ACCOUNT,
    }
    options = [f"-D{name}={value}" for name, value in settings.items()]
    return Server(port, java.command(ELASTICMQ, *options, "org.elasticmq.server.Main"))
