"""The login and certificates of a source at its broker: read from a Secret of its namespace at each connection."""

import ssl
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from taskdist.api import SourceReason
from taskdist.kube import Client, secret_values
from taskdist.kube.secret_values import SecretUnusable
from taskdist.sources.broker import Trouble


async def read_secret(client: Client, namespace: str, name: str, needed: tuple[str, ...]) -> Mapping[str, bytes]:
    """Read the Secret's values. Raises `Trouble` where it is not as it has to be, and `KubeError`."""
    with _told():
        grant = "grant `taskdist sources` get on it, as docs/sources.md shows"
        return await secret_values.read_secret(client, namespace, name, needed, grant)


def text_of(secret: Mapping[str, bytes], key: str) -> str:
    """Return a value as text. Raises `Trouble`."""
    with _told():
        return secret_values.text_of(secret, key)


def tls_of(secret: Mapping[str, bytes]) -> ssl.SSLContext:
    """Return the context that encrypts and verifies a connection. Raises `Trouble`."""
    with _told():
        return secret_values.tls_of(secret)


@contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except SecretUnusable as error:
        raise Trouble(SourceReason.SECRET_UNUSABLE, str(error)) from None
