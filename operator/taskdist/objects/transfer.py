"""Putting and fetching of payloads and results: with bounds, and checked against their references."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from taskdist.api import Reason
from taskdist.objects.settings import CA_FILE, ENDPOINT, MAX_BYTES, TIMEOUT, URL, ObjectSettings
from taskdist.objects.store import ObjectError, Store
from taskdist.protocol.messages import LeaseName, ObjectRef

# What hashing this much takes is nothing to an event loop.
_AT_ONCE = 2**20


class Objects:
    """Payloads and results in a store, for whoever has its settings. It keeps nothing. All raise ObjectError."""

    def __init__(self, settings: ObjectSettings, store: Store) -> None:
        self._settings = settings
        self._store = store

    @property
    def max_bytes(self) -> int:
        return self._settings.max_bytes

    async def fetch(self, ref: ObjectRef, namespace: str) -> bytes:
        """Return what the reference of a Task of this namespace names, once it is sure that it is that."""
        key = self._settings.place.key(ref, namespace)
        if not key:
            below = self._settings.place.below(namespace)
            raise ObjectError(
                Reason.OBJECT_REFUSED,
                f"{ref.uri} is not read: only what is below {below} is ({URL} and the Task's namespace)",
            )
        if ref.size > self._settings.max_bytes:
            raise ObjectError(
                Reason.OBJECT_REFUSED,
                f"{ref.uri} has {ref.size} bytes, and {MAX_BYTES} allows {self._settings.max_bytes}: raise it where it "
                "is fetched, together with the memory there",
            )
        async with _bounded(ref.uri, self._settings.timeout):
            body = await self._store.get(key, ref.size)
        if (found := await _digest(body)) != ref.sha256:
            raise ObjectError(
                Reason.OBJECT_MISMATCH,
                f"{ref.uri} is another object than was meant: its SHA-256 is {found}, and {ref.sha256} was referred to",
            )
        return body

    async def put_payload(self, namespace: str, body: bytes) -> ObjectRef:
        """Put a payload and return what its Task says."""
        return await self._put(self._settings.place.payload(namespace, body), namespace, body)

    async def put_result(self, namespace: str, lease: LeaseName, body: bytes) -> ObjectRef:
        """Put the result of this attempt and return what its agent reports."""
        return await self._put(self._settings.place.result(namespace, lease, body), namespace, body)

    async def _put(self, ref: ObjectRef, namespace: str, body: bytes) -> ObjectRef:
        async with _bounded(ref.uri, self._settings.timeout):
            await self._store.put(self._settings.place.key(ref, namespace), body)
        return ref


def connect(settings: ObjectSettings) -> Objects:
    """Open the store of these settings. Raises SettingsError where the extra is not installed."""
    from taskdist.objects.s3 import S3

    return Objects(settings, S3(settings))


@asynccontextmanager
async def _bounded(uri: str, seconds: float) -> AsyncIterator[None]:
    """No transfer takes longer than its time: an attempt must not hang on a store that says nothing."""
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        raise ObjectError(
            Reason.OBJECT_UNAVAILABLE,
            f"{uri}: the store took longer than {seconds:g} s ({TIMEOUT}): is it up, and are {ENDPOINT} and {CA_FILE} "
            "right?",
            retryable=True,
        ) from None


async def _digest(body: bytes) -> str:
    if len(body) <= _AT_ONCE:
        return hashlib.sha256(body).hexdigest()
    # A thread: hashing lets the others go on.
    return await asyncio.to_thread(lambda: hashlib.sha256(body).hexdigest())
