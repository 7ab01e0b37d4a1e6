"""The cluster as commands see it: one namespace, a few verbs, and pods' logs.

A narrow port, so that commands are tested against one in memory; production is a thin shell around the API client.
"""

import shlex
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Protocol
from urllib.parse import urlencode

from taskdist.kube import PODS, Client, Credentials, HttpTransport, Obj, Page, Request, Resource, WatchEvent

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


class Cluster(Protocol):
    """What a command may ask of the API server. Errors are those of the API client."""

    @property
    def namespace(self) -> str:
        """The namespace meant where none is said."""
        ...

    @property
    def options(self) -> str:
        """What a suggested command needs so that it means this cluster and namespace, too."""
        ...

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        """In the namespace meant, or another one."""
        ...

    async def list(
        self,
        resource: Resource,
        *,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
        most: int | None = None,
    ) -> Page:
        """All of them, or no more than about `most`."""
        ...

    async def create(self, resource: Resource, body: Obj) -> Obj: ...

    async def patch(self, resource: Resource, name: str, body: Obj) -> Obj:
        """JSON merge patch."""
        ...

    def watch(
        self, resource: Resource, version: str, *, everywhere: bool = False, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]: ...

    def log(
        self, pod: str, container: str, *, follow: bool = False
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """A container's log, line by line."""
        ...


class KubeCluster:
    """A real one."""

    def __init__(self, client: Client, transport: HttpTransport, namespace: str, options: str = "") -> None:
        self._client = client
        self._transport = transport
        self._namespace = namespace
        self._options = options

    @property
    def namespace(self) -> str:
        return self._namespace

    @property
    def options(self) -> str:
        return self._options

    async def get(self, resource: Resource, name: str, namespace: str | None = None) -> Obj:
        return await self._client.get(resource, name, namespace or self._in(resource))

    async def list(
        self,
        resource: Resource,
        *,
        everywhere: bool = False,
        labels: str = "",
        fields: str = "",
        most: int | None = None,
    ) -> Page:
        namespace = self._in(resource, everywhere)
        if most is None:
            return await self._client.list(resource, namespace, label_selector=labels, field_selector=fields)
        pages = self._client.pages(
            resource, namespace, label_selector=labels, field_selector=fields, page_size=min(most, 500)
        )
        found = Page([], "")
        async for page in pages:
            found = Page([*found.items, *page.items], page.resource_version)
            if len(found.items) >= most:
                break
        return found

    async def create(self, resource: Resource, body: Obj) -> Obj:
        return await self._client.create(resource, body, self._in(resource), field_manager="taskdist-cli")

    async def patch(self, resource: Resource, name: str, body: Obj) -> Obj:
        return await self._client.patch(resource, name, body, self._in(resource), field_manager="taskdist-cli")

    def watch(
        self, resource: Resource, version: str, *, everywhere: bool = False, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        namespace = self._in(resource, everywhere)
        return self._client.watch(
            resource, namespace, resource_version=version, label_selector=labels, field_selector=fields
        )

    @asynccontextmanager
    async def log(self, pod: str, container: str, *, follow: bool = False) -> AsyncIterator[AsyncIterator[bytes]]:
        query = {"container": container} | ({"follow": "true"} if follow else {})
        request = Request("GET", PODS.path(self._namespace, pod, "log"), urlencode(query), accept="*/*")
        async with self._transport.stream(request, LOG_SILENCE) as lines:
            yield lines

    def _in(self, resource: Resource, everywhere: bool = False) -> str | None:
        return self._namespace if resource.namespaced and not everywhere else None


@asynccontextmanager
async def connect(target: Target) -> AsyncIterator[Cluster]:
    """Open what the options, or else the environment and the kubeconfig, point to."""
    transport = HttpTransport(Credentials(target.kubeconfig, target.context), connections=8, user_agent="taskdist-cli")
    async with Client(transport, timeout=30.0) as client:
        yield KubeCluster(client, transport, target.namespace or client.namespace, target.options)


def status_of(obj: Obj) -> dict[str, Any]:
    """The object's status; empty where nobody has written one."""
    status = obj.get("status")
    return status if isinstance(status, dict) else {}
