"""The client's backend on the API server itself: in a pod, or by a kubeconfig."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager

from taskdist.client.view import LeaderView
from taskdist.kube import Client, Credentials, HttpTransport, Obj, OnRequest, Page, Resource, WatchEvent

TIMEOUT = 30.0
"""Seconds for one request."""


class KubeBackend:
    """Reads and writes with the caller's own rights.

    Args:
        manager: whose fields these are, as the API server notes it.
    """

    def __init__(self, client: Client, namespace: str, manager: str = "taskdist-client") -> None:
        self._client = client
        self._namespace = namespace
        self._manager = manager

    @property
    def namespace(self) -> str:
        return self._namespace

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

    def pages(self, resource: Resource, *, labels: str = "", fields: str = "") -> AsyncIterator[Page]:
        return self._client.pages(resource, self._in(resource), label_selector=labels, field_selector=fields)

    async def create(self, resource: Resource, body: Obj) -> Obj:
        # A field that the server does not know is a slip of the finger: it would be dropped without a word.
        return await self._client.create(resource, body, self._in(resource), field_manager=self._manager, strict=True)

    async def patch(self, resource: Resource, name: str, body: Obj) -> Obj:
        return await self._client.patch(resource, name, body, self._in(resource), field_manager=self._manager)

    def watch(
        self, resource: Resource, version: str, *, everywhere: bool = False, labels: str = "", fields: str = ""
    ) -> AbstractAsyncContextManager[AsyncIterator[WatchEvent]]:
        namespace = self._in(resource, everywhere)
        return self._client.watch(
            resource, namespace, resource_version=version, label_selector=labels, field_selector=fields
        )

    def _in(self, resource: Resource, everywhere: bool = False) -> str | None:
        return self._namespace if resource.namespaced and not everywhere else None


@asynccontextmanager
async def connect(
    namespace: str | None = None,
    kubeconfig: str | None = None,
    context: str | None = None,
    *,
    connections: int = 64,
    on_request: OnRequest | None = None,
) -> AsyncIterator[tuple[KubeBackend, LeaderView]]:
    """Open what the arguments, or else the environment and the kubeconfig, point to; with the view of who leads."""
    transport = HttpTransport(Credentials(kubeconfig, context), connections=connections, user_agent="taskdist-client")
    async with Client(transport, timeout=TIMEOUT, on_request=on_request) as client:
        backend = KubeBackend(client, namespace or client.namespace)
        yield backend, LeaderView(client, transport, backend)
