"""The API client: verbs on resources, plain dicts in and out.

Owns how a request is spelled, what an answer means, the bound on its time, waiting out a 429, and paging. Keeps no
state of the cluster and decides nothing about a failure beyond that: retries belong to those who know what a repeat
means.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Self
from urllib.parse import urlencode

from taskdist.api import nesting
from taskdist.kube.credentials import Credentials
from taskdist.kube.errors import ApiError, KubeError, Unanswered
from taskdist.kube.resources import Obj, Resource
from taskdist.kube.transport import HttpTransport, Request, Transport

OnRequest = Callable[[str, str, str, float], None]
"""Told of each exchange: verb, resource (`tasks.taskdist.dev/status`), outcome (HTTP status or a word), seconds."""

MOST_BYTES = 3 * 2**20
"""The API server takes no larger body, and it may cut the connection before it has said so."""

THROTTLE_TRIES = 5
THROTTLE_WAIT = 10.0
"""The longest single wait for a 429, in seconds; the call's own time-out bounds all of them."""


class PatchType(StrEnum):
    """Kinds of patches, by the content type that says how the body is meant."""

    MERGE = "application/merge-patch+json"
    APPLY = "application/apply-patch+yaml"
    JSON = "application/json-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


@dataclass(frozen=True, slots=True)
class Page:
    """A page of a consistent list, or all of it."""

    items: list[Obj]
    resource_version: str
    """The version of the whole list, the same on each page: where a watch takes over."""


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """An event of a watch. `type` is ADDED, MODIFIED, DELETED or BOOKMARK; errors are raised instead."""

    type: str
    object: Obj


class Client:
    """A client of the API server, with a method for each verb: `async with Client.connect() as client: …`.

    Safe for many tasks of one event loop.
    """

    def __init__(
        self,
        transport: Transport,
        *,
        timeout: float = 10.0,
        on_request: OnRequest | None = None,
        rng: random.Random | None = None,
        namespace: str = "default",
    ) -> None:
        self._transport = transport
        self._timeout = timeout
        self._on_request = on_request
        self._rng = rng or random.Random()
        self._namespace = namespace

    @classmethod
    def connect(
        cls,
        kubeconfig: str | os.PathLike[str] | None = None,
        context: str | None = None,
        *,
        timeout: float = 10.0,
        connections: int = 100,
        user_agent: str = "taskdist",
        on_request: OnRequest | None = None,
    ) -> Self:
        """A client for a kubeconfig, or for what the environment offers; nothing is read before it is opened.

        `timeout`: seconds for each call that names none. `connections`: the most at one time, watches included.
        """
        transport = HttpTransport(Credentials(kubeconfig, context), connections=connections, user_agent=user_agent)
        return cls(transport, timeout=timeout, on_request=on_request)

    async def open(self) -> Self:
        """Load the credentials. Raises `ConfigurationError`."""
        await self._transport.open()
        return self

    async def close(self) -> None:
        await self._transport.close()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def namespace(self) -> str:
        """The namespace that a command without one means: the kubeconfig context's, or the pod's own."""
        if isinstance(self._transport, HttpTransport):
            return self._transport.access.namespace
        return self._namespace

    # -- one object ------------------------------------------------------------------------------------------------

    async def get(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        subresource: str = "",
        timeout: float | None = None,
    ) -> Obj:
        """A consistent read, never from the watch cache (no resourceVersion is sent)."""
        path = resource.path(namespace, name, subresource)
        return await self._call("get", resource, "GET", path, subresource=subresource, timeout=timeout)

    async def create(
        self,
        resource: Resource,
        body: Obj,
        namespace: str | None = None,
        *,
        name: str = "",
        subresource: str = "",
        dry_run: bool = False,
        strict: bool = False,
        field_manager: str = "",
        timeout: float | None = None,
    ) -> Obj:
        """POST to the collection, or to `name`'s subresource (a TokenRequest: `serviceaccounts/NAME/token`).

        `strict`: a field that the server does not know is refused, where it would be dropped.
        """
        return await self._call(
            "create",
            resource,
            "POST",
            resource.path(namespace, name, subresource),
            subresource=subresource,
            query=_query(
                dryRun="All" if dry_run else "",
                fieldValidation="Strict" if strict else "",
                fieldManager=field_manager,
            ),
            body=body,
            timeout=timeout,
        )

    async def put(
        self,
        resource: Resource,
        name: str,
        body: Obj,
        namespace: str | None = None,
        *,
        subresource: str = "",
        dry_run: bool = False,
        field_manager: str = "",
        timeout: float | None = None,
    ) -> Obj:
        """Replace the object; the body's `metadata.resourceVersion` makes it conditional."""
        return await self._call(
            "update",
            resource,
            "PUT",
            resource.path(namespace, name, subresource),
            subresource=subresource,
            query=_query(dryRun="All" if dry_run else "", fieldManager=field_manager),
            body=body,
            timeout=timeout,
        )

    async def patch(
        self,
        resource: Resource,
        name: str,
        body: Any,
        namespace: str | None = None,
        *,
        subresource: str = "",
        content_type: PatchType = PatchType.MERGE,
        field_manager: str = "",
        force: bool = False,
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Obj:
        """Patch the object. `APPLY` is server-side apply: it needs a `field_manager`; `force` takes fields over."""
        if content_type is PatchType.APPLY and not field_manager:
            raise ValueError("server-side apply needs a field_manager")
        return await self._call(
            "apply" if content_type is PatchType.APPLY else "patch",
            resource,
            "PATCH",
            resource.path(namespace, name, subresource),
            subresource=subresource,
            query=_query(
                dryRun="All" if dry_run else "",
                fieldManager=field_manager,
                force="true" if force else "",
            ),
            body=body,
            # JSON is YAML, so apply takes it.
            content_type=content_type,
            timeout=timeout,
        )

    async def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str | None = None,
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        propagation: str = "",
        dry_run: bool = False,
        timeout: float | None = None,
    ) -> Obj:
        """Delete the object, where `uid` and `resource_version` still match (a conflict otherwise).

        Answers with a Status, or with the object where it goes on until its grace or finalizers end.
        """
        options: Obj = {"apiVersion": "v1", "kind": "DeleteOptions"}
        preconditions = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}
        if preconditions:
            options["preconditions"] = preconditions
        if grace_seconds is not None:
            options["gracePeriodSeconds"] = grace_seconds
        if propagation:
            options["propagationPolicy"] = propagation
        if dry_run:
            options["dryRun"] = ["All"]
        return await self._call(
            "delete", resource, "DELETE", resource.path(namespace, name), body=options, timeout=timeout
        )

    # -- many objects ----------------------------------------------------------------------------------------------

    async def list(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = 500,
        timeout: float | None = None,
    ) -> Page:
        """All objects as one consistent list. Starts over when a continue token has expired midway."""
        for page_limit in (page_size, page_size, 0):
            try:
                items: list[Obj] = []
                version = ""
                async for page in self.pages(
                    resource,
                    namespace,
                    label_selector=label_selector,
                    field_selector=field_selector,
                    page_size=page_limit,
                    timeout=timeout,
                ):
                    items += page.items
                    version = page.resource_version
                return Page(items, version)
            except ApiError as error:
                # The last try asks for everything at once, which has no token to expire.
                if not error.is_gone or page_limit == 0:
                    raise
        raise AssertionError("unreachable: the last try returns or raises")

    async def probe(self, resource: Resource, namespace: str | None = None, *, timeout: float | None = None) -> None:
        """Ask whether the kind is served and may be listed, by one request however many objects there are.

        Raises like `list`.
        """
        async with aclosing(self.pages(resource, namespace, page_size=1, timeout=timeout)) as pages:
            await anext(pages)

    async def pages(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = 500,
        metadata_only: bool = False,
        timeout: float | None = None,
    ) -> AsyncGenerator[Page, None]:
        """A consistent list, page by page; `page_size=0` is all at once. `ApiError.is_gone`: the token expired.

        No resourceVersion is sent: "0" would be answered from a watch cache of any age.
        """
        token = ""
        while True:
            raw = await self._call(
                "list",
                resource,
                "GET",
                resource.path(namespace),
                query=_query(
                    labelSelector=label_selector,
                    fieldSelector=field_selector,
                    limit=str(page_size) if page_size else "",
                    **{"continue": token},
                ),
                accept=_accept("PartialObjectMetadataList" if metadata_only else ""),
                timeout=timeout,
            )
            metadata = raw.get("metadata") or {}
            yield Page(raw.get("items") or [], str(metadata.get("resourceVersion", "")))
            token = metadata.get("continue") or ""
            if not token:
                return

    @asynccontextmanager
    async def watch(
        self,
        resource: Resource,
        namespace: str | None = None,
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
        seconds: int = 300,
        stall: float = 90.0,
        timeout: float | None = None,
        initial: bool = False,
        metadata_only: bool = False,
    ) -> AsyncIterator[AsyncIterator[WatchEvent]]:
        """Events after `resource_version`, with bookmarks, for about `seconds`; then it ends in order.

        `initial`: first what there is at the request or later, and a bookmark after that. See `streamed`.

        Raises `ApiError` on entering or while iterating (`is_gone`: list again), and `Unanswered` when the connection
        is lost, makes no sense, or is silent for `stall` seconds; the server bookmarks about once a minute.
        """
        request = Request(
            "GET",
            resource.path(namespace),
            _query(
                watch="true",
                allowWatchBookmarks="true",
                resourceVersion=resource_version,
                sendInitialEvents="true" if initial else "",
                resourceVersionMatch="NotOlderThan" if initial else "",
                timeoutSeconds=str(seconds),
                labelSelector=label_selector,
                fieldSelector=field_selector,
            ),
            accept=_accept("PartialObjectMetadata" if metadata_only else ""),
            timeout=timeout or self._timeout,
        )
        started = time.monotonic()
        outcome = "200"
        try:
            async with self._transport.stream(request, stall) as lines:
                events = watch_events(lines, request)
                try:
                    yield events
                finally:
                    await events.aclose()
        except KubeError as error:
            outcome = error.outcome
            raise
        finally:
            self._observe("watch", str(resource), outcome, time.monotonic() - started)

    # -- how a call is made ----------------------------------------------------------------------------------------

    async def _call(
        self,
        verb: str,
        resource: Resource,
        method: str,
        path: str,
        *,
        subresource: str = "",
        query: str = "",
        body: Any = None,
        content_type: str = "application/json",
        accept: str = "application/json",
        timeout: float | None = None,
    ) -> Obj:
        data = None if body is None else json.dumps(body, separators=(",", ":")).encode()
        if data is not None and len(data) > MOST_BYTES:
            # Said here, where it is certain: a cut connection would leave the outcome of a hopeless write unknown.
            message = f"the body has {len(data)} bytes, the API server takes {MOST_BYTES}"
            raise ApiError(413, "RequestEntityTooLarge", message)
        label = f"{resource}/{subresource}" if subresource else str(resource)
        deadline = time.monotonic() + (self._timeout if timeout is None else timeout)
        attempt = 0
        while True:
            left = max(deadline - time.monotonic(), 0.001)
            request = Request(method, path, query, data, content_type, accept, left)
            try:
                return await self._once(verb, label, request)
            except ApiError as error:
                attempt += 1
                wait = (error.retry_after or 0.5) * (1 + 0.5 * self._rng.random())
                # A 429 was refused before anything was done, so sending it again is safe for any verb.
                if not error.is_throttled or attempt >= THROTTLE_TRIES or wait > THROTTLE_WAIT:
                    raise
                if time.monotonic() + wait >= deadline:
                    raise
                await asyncio.sleep(wait)
            except Unanswered:
                # A kept-alive connection that the server has just closed looks like this; reading twice is harmless.
                attempt += 1
                if method != "GET" or attempt > 1 or time.monotonic() >= deadline:
                    raise

    async def _once(self, verb: str, label: str, request: Request) -> Obj:
        started = time.monotonic()
        outcome = "cancelled"
        try:
            answer = await self._transport.exchange(request)
            outcome = str(answer.status)
            if not 200 <= answer.status < 300:
                raise ApiError.from_answer(answer.status, answer.body, answer.retry_after)
            return _object(answer.body, request)
        except (KubeError, TypeError) as error:
            outcome = getattr(error, "outcome", outcome)
            raise
        finally:
            self._observe(verb, label, outcome, time.monotonic() - started)

    def _observe(self, verb: str, label: str, outcome: str, seconds: float) -> None:
        if self._on_request is not None:
            self._on_request(verb, label, outcome, seconds)


async def watch_events(lines: AsyncIterator[bytes], request: Request) -> AsyncGenerator[WatchEvent, None]:
    """The events that the lines of a watch tell. Raises as `Client.watch` does."""
    async for line in lines:
        event = _object(line, request)
        kind, obj = event.get("type"), event.get("object")
        if not isinstance(obj, dict) or not isinstance(kind, str):
            raise Unanswered(f"{request.method} {request.path}: a line of the watch is no event")
        if kind == "ERROR":
            raise ApiError.from_status(obj)
        yield WatchEvent(kind, obj)


def _object(body: bytes, request: Request) -> Obj:
    try:
        obj = nesting.loads(body)
    except ValueError as error:
        raise Unanswered(f"{request.method} {request.path}: the answer is not JSON: {error}") from error
    if not isinstance(obj, dict):
        raise Unanswered(f"{request.method} {request.path}: the answer is no object")
    return obj


def _accept(kind: str) -> str:
    return f"application/json;as={kind};g=meta.k8s.io;v=v1" if kind else "application/json"


def _query(**parameters: str) -> str:
    return urlencode({key: value for key, value in parameters.items() if value})
