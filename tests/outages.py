"""Ends the parts of a stack as a power cut would, one by one, and begins them anew."""

from __future__ import annotations

import os
from collections.abc import Callable

from patience import until
from taskdist.kube import KubeError
from taskdist.local.stack import Stack

OPERATOR = "operator"
API_SERVER = "kube-apiserver"
# How long a part may take to be ready again, in seconds: an API server reads its whole store first.
READY_SECONDS = 180.0


class Outages:
    """`fail` a part, then `mend` it. What a test adds to operator and API server it names, with how both are done."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._parts: dict[str, tuple[Callable[[], None], Callable[[], None]]] = {
            OPERATOR: (self._fail_operator, self._start_operator),
            API_SERVER: (self._fail_api_server, self._start_api_server),
        }

    def add(self, part: str, fail: Callable[[], None], mend: Callable[[], None]) -> None:
        self._parts[part] = (fail, mend)

    def fail(self, part: str) -> None:
        self._parts[part][0]()

    def mend(self, part: str) -> None:
        self._parts[part][1]()

    def _fail_operator(self) -> None:
        operator = self._stack.operators.pop()
        operator.process.kill()
        operator.process.wait()

    def _start_operator(self) -> None:
        self._stack.start_operator(patience=READY_SECONDS)

    def _fail_api_server(self) -> None:
        process = self._stack.plane.processes[API_SERVER]
        process.kill()
        process.wait()

    def _start_api_server(self) -> None:
        until(self._api_server_is_back, "the API server is ready again", READY_SECONDS)

    def _api_server_is_back(self) -> bool:
        """Whether it is ready. It is begun again where it ended: a connection may have its port for a while."""
        process = self._stack.plane.processes[API_SERVER]
        if process.poll() is not None:
            assert isinstance(process.args, list)
            environment = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
            self._stack.plane.start_process(API_SERVER, [str(each) for each in process.args], environment)
        try:
            return bool(self._stack.plane.client.request("GET", "/readyz") == "ok")
        except (KubeError, OSError):
            return False
