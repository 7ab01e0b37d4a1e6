"""A bucket of a store that speaks S3, by obstore: of the extra `taskdist[objects]`.

Credentials are found as AWS finds them: AWS_ACCESS_KEY_ID and its like, a web identity (IRSA), the pod's identity, the
machine's role.
"""

import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from taskdist.api import Reason
from taskdist.api.objects import JSON
from taskdist.common.environment import SettingsError
from taskdist.objects.settings import URL, ObjectSettings
from taskdist.objects.store import ObjectError

try:
    import obstore
    from obstore import exceptions as told
    from obstore.store import S3Store
except ImportError:
    raise SettingsError(
        f"{URL} names an object store, and what speaks to one is not installed: pip install 'taskdist[objects]'"
    ) from None

if TYPE_CHECKING:
    from obstore.store import BackoffConfig, ClientConfig, RetryConfig, S3Config

# What is read at once of an object: an event loop does not notice so much.
_CHUNK = 256 * 1024
_CONNECT = timedelta(seconds=5)
# No fewer than are tried in the longest time-out, so that time alone ends them: a store that is down for less than that
# costs nobody an attempt.
_RETRIES = 10_000
_FIRST_PAUSE = timedelta(milliseconds=100)
_MAX_SAID = 500
_CODE = re.compile(r"<Code>(\w{1,80})</Code>")
_MESSAGE = re.compile(r"<Message>([^<]*)</Message>")


class S3:
    """A bucket, by its settings. Nothing is asked of the store before there is an object."""

    def __init__(self, settings: ObjectSettings) -> None:
        self._bucket = settings.place.bucket
        config: S3Config = {"endpoint": settings.endpoint} if settings.endpoint else {}
        seconds = timedelta(seconds=settings.timeout)
        client: ClientConfig = {
            "connect_timeout": _CONNECT,
            "timeout": seconds,
            # Only to an endpoint that says so itself.
            "allow_http": settings.endpoint.startswith("http://"),
        }
        if settings.ca_file is not None:
            client["root_certificate"] = settings.ca_file.read_bytes()
        # The last try ends before the transfer's time is over: what the store said is told, not that it took too long.
        pauses: BackoffConfig = {
            "init_backoff": _FIRST_PAUSE,
            "max_backoff": max(_FIRST_PAUSE, seconds / 10),
            "base": 2,
        }
        retry: RetryConfig = {"max_retries": _RETRIES, "retry_timeout": seconds * 0.8, "backoff": pauses}
        try:
            self._store = S3Store(self._bucket, config=config, client_options=client, retry_config=retry)
        except told.BaseError as error:
            raise SettingsError(f"the object store of {URL} cannot be used: {_shown(error)}") from error

    async def get(self, key: str, size: int) -> bytes:
        """The object's bytes; see `Store`."""
        async with self._telling(key, fetching=True):
            found = await obstore.get_async(self._store, key)
            body = bytearray()
            if found.meta["size"] == size:
                async for part in found.stream(min_chunk_size=_CHUNK):
                    body += part
                    if len(body) > size:
                        break
        if len(body) != size:
            raise ObjectError(
                Reason.OBJECT_MISMATCH,
                f"s3://{self._bucket}/{key} is another object than was meant: it has "
                f"{len(body) or found.meta['size']} bytes, and {size} were referred to",
            )
        return bytes(body)

    async def put(self, key: str, body: bytes) -> None:
        """Write the object; see `Store`."""
        async with self._telling(key):
            await obstore.put_async(self._store, key, body, attributes={"Content-Type": JSON}, use_multipart=False)

    @asynccontextmanager
    async def _telling(self, key: str, *, fetching: bool = False) -> AsyncIterator[None]:
        """Say what the store's errors mean for a Task."""
        name = f"s3://{self._bucket}/{key}"
        try:
            yield
        except (told.NotFoundError, FileNotFoundError) as error:
            # A bucket that does not exist is as much 404, and with some servers a stranger.
            if (code := _CODE.search(str(error))) is not None and code[1] != "NoSuchKey":
                raise ObjectError(Reason.OBJECT_UNAVAILABLE, f"{name}: {_shown(error)}", retryable=True) from None
            raise ObjectError(
                Reason.OBJECT_NOT_FOUND,
                f"{name} is not there: it was deleted (is the bucket's lifecycle rule longer than Tasks live?), or was "
                "never put",
            ) from None
        except (told.PermissionDeniedError, told.UnauthenticatedError, PermissionError) as error:
            shown = _shown(error)
            if fetching and shown.startswith("AccessDenied"):
                # It does not tell who may not list a bucket that an object is missing.
                shown += " (AWS says so of an object that is not there, too, without s3:ListBucket)"
            raise ObjectError(
                Reason.OBJECT_UNAVAILABLE,
                f"{name}: the store refuses the credentials found here: {shown}",
                retryable=True,
            ) from None
        except (told.BaseError, OSError) as error:
            raise ObjectError(Reason.OBJECT_UNAVAILABLE, f"{name}: {_shown(error)}", retryable=True) from None


def _shown(error: Exception) -> str:
    """Return the store's own words for an error, or else the first lines of obstore's: the rest of those may show the
    caller's keys."""
    text = str(error)
    if (code := _CODE.search(text)) is not None:
        message = _MESSAGE.search(text)
        return f"{code[1]}: {message[1]}"[:_MAX_SAID] if message is not None else code[1]
    return " ".join(text.partition("Debug source:")[0].split())[:_MAX_SAID]
