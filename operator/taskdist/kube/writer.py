"""Status writes by compare-and-swap, each ending in a known outcome or in an honest "not known yet".

Owns bounded concurrency, which failures are tried again, and finding out what became of a write that was not answered.
Decides nothing about the object: whether a conflict matters, and what to do with an assignment that may land late, is
the caller's.

Every write names the resourceVersion it replaces, so it is done at most once whatever is repeated: of two sendings the
first to land changes the version, and the other conflicts. A repeat's conflict is therefore looked into before it is
believed. It is the version that binds a write to its object: the API server does not compare the uid in a patch of a
custom resource's status (measured on 1.34), but a version is one state of one object, and a successor has another. The
uid is compared here, in whatever is read or answered.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from taskdist.common.backoff import Backoff
from taskdist.kube.client import Client, PatchType
from taskdist.kube.errors import ApiError, KubeError, Unanswered
from taskdist.kube.resources import Obj, Resource, uid_of, version_of
from taskdist.kube.status_bodies import status_operations, status_patch
from taskdist.kube.store import is_newer


@dataclass(frozen=True, slots=True)
class Write:
    """A change to the status of one object in one state."""

    uid: str
    namespace: str
    name: str
    resource_version: str
    status: Mapping[str, Any]
    """A merge patch: what is absent stays, None removes. Beside `exact`, an object in it replaces the one there."""
    is_ours: Callable[[Obj], bool] | None = None
    """Whether an object shows this very write (for Tasks: attempt, epoch and phase). Default: all of it is there.

    Asked only after a sending without a clear answer; it must not be true of what another writer could have written.
    """
    exact: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of status that stand there as they are, nulls included, which a merge patch would take out."""


@dataclass(frozen=True, slots=True)
class Written:
    """The write stands. `obj` is the object as the server has it (later changes by others may be in it)."""

    obj: Obj


@dataclass(frozen=True, slots=True)
class Conflict:
    """The write was not done and never will be: the object has moved on."""

    current: Obj | None
    """How it stands; None where it could not be read."""


@dataclass(frozen=True, slots=True)
class Gone:
    """The write was not done and never will be: no object of this uid exists any more."""


@dataclass(frozen=True, slots=True)
class Refused:
    """The write was not done. `final`: the server will never take it (invalid, too large); else it may later."""

    status: int
    reason: str
    message: str
    final: bool


@dataclass(frozen=True, slots=True)
class NotSeen:
    """The write was not answered, and a consistent read does not show it: it may still land. `obj` is what was read."""

    obj: Obj


@dataclass(frozen=True, slots=True)
class Unknown:
    """The write was not answered, and asking was stopped before the server told."""

    message: str


Outcome = Written | Conflict | Gone | Refused | NotSeen | Unknown


class StatusWriter:
    """Writes status for one resource, `concurrency` at a time; callers beyond wait in the order they came."""

    def __init__(
        self,
        client: Client,
        resource: Resource,
        *,
        concurrency: int = 32,
        timeout: float = 5.0,
        tries: int = 5,
        backoff: Backoff | None = None,
        stop: asyncio.Event | None = None,
        rng: random.Random | None = None,
    ) -> None:
        """`timeout`: seconds for each request. `tries`: sendings of one write, at most.

        `stop`, once set, ends all sending and asking: writes that were never sent are refused, others are unknown. A
        leader sets it when its leadership ends, and the next one gets a writer of its own.
        """
        self._client = client
        self._resource = resource
        self._timeout = timeout
        self._tries = tries
        self._backoff = backoff or Backoff(first=0.1, most=5.0)
        self._stop = stop or asyncio.Event()
        self._rng = rng or random.Random()
        self._places = asyncio.Semaphore(concurrency)
        self._in_flight = 0
        self._queued = 0

    @property
    def in_flight(self) -> int:
        """Writes being sent or asked about."""
        return self._in_flight

    @property
    def queued(self) -> int:
        """Writes waiting for a place."""
        return self._queued

    async def write(self, write: Write) -> Outcome:
        """Bring the write to an outcome. Raises nothing but cancellation; a cancelled write may have been done.

        A write without a resourceVersion would be bound to nothing, and is a mistake in the caller (`ValueError`).
        """
        if not write.resource_version:
            raise ValueError(f"a write to {write.namespace}/{write.name} must name the version it replaces")
        self._queued += 1
        try:
            await self._places.acquire()
        finally:
            self._queued -= 1
        self._in_flight += 1
        try:
            return await self._write(write)
        finally:
            self._in_flight -= 1
            self._places.release()

    async def read(self, uid: str, namespace: str, name: str) -> Obj | None:
        """The object as it stands now (a consistent read), or None if this uid is gone.

        Asks until the server answers or `stop` is set; then, and on a refusal (no permission), it raises `KubeError`.
        """
        attempt = 0
        while True:
            try:
                obj = await self._client.get(self._resource, name, namespace, timeout=self._timeout)
                return obj if uid_of(obj) == uid else None
            except ApiError as error:
                if error.is_not_found:
                    return None
                # An unserved path is the server's trouble and says nothing of the object.
                if not (error.is_server_fault or error.is_throttled or error.is_unauthorized or error.is_unserved):
                    raise
                if not await self._pause(attempt, error):
                    raise
            except KubeError:
                if not await self._pause(attempt):
                    raise
            attempt += 1

    async def _write(self, write: Write) -> Outcome:
        body: Any
        if write.exact:
            kind = PatchType.JSON
            body = status_operations(write.status, write.exact, resource_version=write.resource_version)
        else:
            kind = PatchType.MERGE
            body = status_patch(write.status, uid=write.uid, resource_version=write.resource_version)
        in_doubt = False
        for attempt in range(self._tries):
            if self._stop.is_set():
                return Unknown("stopped") if in_doubt else Refused(0, "Stopped", "the writer was stopped", False)
            try:
                obj = await self._client.patch(
                    self._resource,
                    write.name,
                    body,
                    write.namespace,
                    subresource="status",
                    content_type=kind,
                    timeout=self._timeout,
                )
                # Another uid at that version means that etcd was restored and counts through the same numbers again.
                return Written(obj) if uid_of(obj) == write.uid else Gone()
            except Unanswered as error:
                # Not sent again: it may be on its way yet. What the server has tells more than a second sending.
                return await self._find_out(write, str(error))
            except ApiError as error:
                refusal = await self._judge(write, error, in_doubt)
                if refusal is not None:
                    return refusal
                in_doubt = in_doubt or error.is_server_fault
                last, pause = str(error), await self._more(attempt, error)
            except KubeError as error:
                refusal = Refused(0, type(error).__name__, str(error), False)
                last, pause = str(error), await self._more(attempt)
            if not pause:
                break
        if in_doubt:
            return await self._find_out(write, last)
        return refusal or Refused(0, "NotTaken", f"not taken in {self._tries} tries: {last}", False)

    async def _judge(self, write: Write, error: ApiError, in_doubt: bool) -> Outcome | None:
        """What an error answer means; None: try again."""
        if error.is_not_found and not in_doubt:
            return Gone()
        if error.is_conflict or error.is_not_found:
            # After a 5xx the conflict may be with our own earlier sending.
            return await self._find_out(write, str(error), landed=False)
        if error.is_too_large or error.is_invalid:
            if in_doubt:
                return await self._find_out(write, str(error))
            # A patch that names another object's uid is refused as invalid by some versions, as a conflict by others.
            if "metadata.uid" in error.message:
                return await self._find_out(write, str(error), landed=False)
            return Refused(error.status, error.reason, error.message, True)
        if error.is_throttled or error.is_server_fault or error.is_unserved:
            return None
        if in_doubt:
            return await self._find_out(write, str(error))
        return Refused(error.status, error.reason, error.message, False)

    async def _find_out(self, write: Write, why: str, landed: bool | None = None) -> Outcome:
        """Ask what the server has. `landed=False`: the last sending was refused, so nothing is on its way."""
        try:
            obj = await self.read(write.uid, write.namespace, write.name)
        except KubeError as error:
            return Conflict(None) if landed is False else Unknown(f"{why}; asked, and: {error}")
        if obj is None:
            return Gone()
        moved = is_newer(version_of(obj), write.resource_version)
        ours = write.is_ours(obj) if write.is_ours is not None else _shows_all(obj.get("status"), write)
        if moved and ours:
            return Written(obj)
        if moved or landed is False:
            # The version that the write names is past: it can land no more.
            return Conflict(obj)
        return NotSeen(obj)

    async def _more(self, attempt: int, error: ApiError | None = None) -> bool:
        return attempt + 1 < self._tries and await self._pause(attempt, error)

    async def _pause(self, attempt: int, error: ApiError | None = None) -> bool:
        """Wait before the next try; False as soon as `stop` is set."""
        seconds = self._backoff.wait(attempt, self._rng)
        if error is not None and error.retry_after is not None:
            seconds = max(seconds, min(error.retry_after, self._backoff.most))
        try:
            async with asyncio.timeout(seconds):
                await self._stop.wait()
        except TimeoutError:
            return True
        return False


def _shows_all(status: Any, write: Write) -> bool:
    exact = isinstance(status, Mapping) and all(status.get(name) == value for name, value in write.exact.items())
    return _shows(status, write.status) and (exact or not write.exact)


def _shows(status: Any, patch: Any) -> bool:
    """Whether a merge patch applied to something would leave `status` as it is."""
    if not isinstance(patch, Mapping):
        return bool(status == patch)
    if not isinstance(status, Mapping):
        return not patch
    return all(key not in status if value is None else _shows(status.get(key), value) for key, value in patch.items())
