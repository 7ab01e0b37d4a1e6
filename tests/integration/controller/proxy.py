"""Stands between an operator and its API server, and can take the server away: refused connections, or silence."""

from __future__ import annotations

import contextlib
import socket
import threading
from pathlib import Path
from urllib.parse import urlsplit

import yaml


class Proxy:
    """Carries bytes to the server of a kubeconfig while it is open. `refuse` and `hang` end or freeze all there is."""

    def __init__(self, of: Path, to: Path) -> None:
        """Write a copy of the kubeconfig that leads through here, to `to`."""
        config = yaml.safe_load(of.read_text())
        server = urlsplit(config["clusters"][0]["cluster"]["server"])
        self._target = (str(server.hostname), int(server.port or 443))
        self._flowing = threading.Event()
        self._pairs: set[socket.socket] = set()
        self._listener: socket.socket | None = None
        self.port = 0
        self.open()
        config["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self.port}"
        to.write_text(yaml.safe_dump(config))
        self.kubeconfig = str(to)

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
                self._carry(near, far)
                back.join()
                self._pairs -= {near, far}

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                self._flowing.wait()
                sink.sendall(chunk)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
