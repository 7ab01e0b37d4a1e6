"""The status of one object that this process alone writes, on the version that was last seen."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from taskdist.api import ObjectMeta
from taskdist.kube.client import Client
from taskdist.kube.errors import ApiError
from taskdist.kube.resources import Obj, Resource, uid_of, version_of
from taskdist.kube.status_bodies import status_patch


class Gone(Exception):
    """The object was deleted, or is another one now; or this process may not write any more."""


class Changed(Exception):
    """Its spec is another one now: what runs is to be begun anew."""


class OwnStatus:
    """Reads and writes it.

    Args:
        leading: whether this process leads; asked before each write.
    """

    def __init__(self, client: Client, resource: Resource, metadata: ObjectMeta, leading: Callable[[], bool]) -> None:
        self._client = client
        self._resource = resource
        self._metadata = metadata
        self._leading = leading
        self._version = metadata.resource_version
        self._written: dict[str, Any] | None = None

    async def confirm(self) -> Obj:
        """Make sure that the object is there and as it was. Raises `Gone`, `Changed` or `KubeError`."""
        try:
            found = await self._client.get(self._resource, self._metadata.name, self._metadata.namespace)
        except ApiError as error:
            if error.is_not_found:
                raise Gone from None
            raise
        if uid_of(found) != self._metadata.uid or "deletionTimestamp" in found["metadata"]:
            raise Gone
        if found["metadata"].get("generation") != self._metadata.generation:
            raise Changed
        self._version = version_of(found)
        return found

    async def write(self, patch: dict[str, Any]) -> None:
        """Write a merge patch of the status. Raises like `confirm`."""
        tries = 3
        while True:
            if not self._leading():
                raise Gone
            tries -= 1
            body = status_patch(patch, uid=self._metadata.uid, resource_version=self._version)
            try:
                there = await self._client.patch(
                    self._resource, self._metadata.name, body, self._metadata.namespace, subresource="status"
                )
            except ApiError as error:
                if error.is_not_found:
                    raise Gone from None
                if not error.is_conflict or not tries:
                    raise
                await self.confirm()
            else:
                self._version = version_of(there)
                return

    async def flush(self, patch: dict[str, Any], *, conditions_only: bool = False) -> None:
        """Write a merge patch of the whole status, if it is not what was written last. Raises like `confirm`.

        `conditions_only`: the rest of it could not be read, and stays as it is.
        """
        if conditions_only:
            patch = {name: patch[name] for name in ("observedGeneration", "conditions")}
        if patch == self._written:
            return
        await self.write(patch)
        self._written = patch
