"""The cluster as commands see it: one namespace, a few verbs, and pods' logs.

A narrow port, so that commands are tested against one in memory; production is a thin shell around the API client.
"""

import shlex
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from taskdist.client.backend import Backend, View
from taskdist.client.kube import TIMEOUT, KubeBackend
from taskdist.client.view import LeaderView
from taskdist.kube import PODS, Client, Credentials, HttpTransport, Request

CONNECTIONS = 40
LOG_SILENCE = 86_400.0
"""How long a followed log may be silent, in seconds: handlers think for hours."""


@dataclass(frozen=True, slots=True)
class Target:
    """Which cluster and namespace a command means, as kubectl's options say it. None is the kubeconfig's own choice."""

    namespace: str | None = None
    context: str | None = None
    kubeconfig: str | None = None

    @property
    def options(self) -> str:
        """The options that point here, to be put behind a command that is suggested; empty if none were given."""
        given = (("-n", self.namespace), ("--context", self.context), ("--kubeconfig", self.kubeconfig))
        return "".join(f" {option} {shlex.quote(value)}" for option, value in given if value)


class Cluster(Backend, Protocol):
    """What a command may ask of the API server. Errors are those of the API client."""

    @property
    def options(self) -> str:
        """What a suggested command needs so that it means this cluster and namespace, too."""
        ...

    @property
    def view(self) -> View:
        """What the operator that leads can be asked."""
        ...

    def log(
        self, pod: str, container: str, *, follow: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A container's log, line by line."""
        ...


class KubeCluster(KubeBackend):
    """A real one."""

    def __init__(self, client: Client, transport: HttpTransport, namespace: str, options: str = "") -> None:
        super().__init__(client, namespace, "taskdist-cli")
        self._transport = transport
        self._view = LeaderView(client, transport, self)
        self._options = options

    @property
    def options(self) -> str:
        return self._options

    @property
    def view(self) -> View:
        return self._view

    @asynccontextmanager
    async def log(self, pod: str, container: str, *, follow: bool = False) -> AsyncIterator[AsyncIterator[bytes]]:
        query = {"container": container} | ({"follow": "true"} if follow else {})
        request = Request("GET", PODS.path(self.namespace, pod, "log"), urlencode(query), accept="*/*")
        async with self._transport.stream(request, LOG_SILENCE) as lines:
            yield lines


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Cluster]:
    """Open what the options, or else the environment and the kubeconfig, point to."""
    credentials = Credentials(target.kubeconfig, target.context)
    transport = HttpTransport(credentials, connections=CONNECTIONS, user_agent="taskdist-cli")
    async with Client(transport, timeout=TIMEOUT) as client:
        yield KubeCluster(client, transport, target.namespace or client.namespace, target.options)
