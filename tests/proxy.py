"""A proxy before a server, which can take it away: refused connections, or silence, in the middle of a body as well."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import yaml


def _ignore(_: int) -> None:
    """Count nothing."""


class Proxy:
    """Carries bytes to a server while it is open. `refuse` and `hang` end or freeze all there is."""

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self._flowing = threading.Event()
        self._pairs: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self._left: int | None = None
        self.hung = threading.Event()
        self.port = 0
        self.open()

    def open(self) -> None:
        """Carry what comes."""
        self._flowing.set()
        if self._listener is None:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self.port = self._listener.getsockname()[1]
            threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def hang(self) -> None:
        """Accept connections and say nothing, on these and on those that stand."""
        self._flowing.clear()

    def hang_within(self, count: int) -> None:
        """Hang in the middle of what clients send, once that was so many bytes more. `hung` is set then."""
        self.hung.clear()
        self._left = count

    def refuse(self) -> None:
        """Cut what stands, and refuse what comes."""
        listener, self._listener = self._listener, None
        if listener is not None:
            with contextlib.suppress(OSError):
                listener.shutdown(socket.SHUT_RDWR)
            listener.close()
        for each in list(self._pairs):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._serve, args=(near,), daemon=True).start()

    def _serve(self, near: socket.socket) -> None:
        with near:
            self._flowing.wait()
            with contextlib.suppress(OSError), socket.create_connection(self._target) as far:
                self._pairs |= {near, far}
                back = threading.Thread(target=self._carry, args=(far, near), daemon=True)
                back.start()
                self._carry(near, far, self._count)
                back.join()
                self._pairs -= {near, far}

    def _count(self, sent: int) -> None:
        if self._left is not None and (left := self._left - sent) <= 0:
            self._left = None
            self.hang()
            self.hung.set()
        elif self._left is not None:
            self._left = left

    def _carry(self, source: socket.socket, sink: socket.socket, count: Callable[[int], None] = _ignore) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                count(len(chunk))
                self._flowing.wait()
                sink.sendall(chunk)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)


def before(kubeconfig: Path, copy: Path) -> Proxy:
    """Return a proxy before the server of a kubeconfig; the copy leads through it."""
    config = yaml.safe_load(kubeconfig.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    proxy = Proxy(str(server.hostname), int(server.port or 443))
    config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{proxy.port}"
    copy.write_text(yaml.safe_dump(config))
    return proxy
