"""Values of Secrets that users name: logins, certificates and tokens, read at each connection."""

from __future__ import annotations

import base64
import binascii
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from taskdist.kube.client import Client
from taskdist.kube.errors import ApiError
from taskdist.kube.resources import SECRETS

CA: Final = "ca.crt"
CERTIFICATE: Final = "tls.crt"
KEY: Final = "tls.key"


class SecretUnusable(Exception):
    """The Secret is not as it has to be; the message says what to do."""


async def read_secret(
    client: Client, namespace: str, name: str, needed: tuple[str, ...], grant: str
) -> Mapping[str, bytes]:
    """Read the Secret's values. Raises `SecretUnusable` and `KubeError`.

    Args:
        needed: keys that have to be there.
        grant: who has to be granted what where the Secret may not be read.
    """
    try:
        found = await client.get(SECRETS, name, namespace)
    except ApiError as error:
        if error.is_not_found:
            raise SecretUnusable(f"there is no Secret {name}: create it") from None
        if error.is_forbidden:
            raise SecretUnusable(f"Secret {name} may not be read: {grant}") from None
        raise
    data = found.get("data")
    values = {}
    for key, text in (data if isinstance(data, dict) else {}).items():
        try:
            values[str(key)] = base64.b64decode(text, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise SecretUnusable(f"{key} of Secret {name} cannot be read") from None
    for key in needed:
        if not values.get(key):
            raise SecretUnusable(f"Secret {name} has no {key}: add it")
    return values


def text_of(secret: Mapping[str, bytes], key: str) -> str:
    """Return a value as text. Line ends after it are none of it: they come from files."""
    try:
        return secret[key].decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise SecretUnusable(f"{key} of the Secret is no text") from None


def tls_of(secret: Mapping[str, bytes]) -> ssl.SSLContext:
    """Return the context that encrypts and verifies a connection. Raises `SecretUnusable`."""
    try:
        context = ssl.create_default_context(cadata=text_of(secret, CA) if secret.get(CA) else None)
    except (ssl.SSLError, ValueError) as error:
        raise SecretUnusable(f"{CA} of the Secret holds no certificates: {error}") from None
    if secret.get(CERTIFICATE) or secret.get(KEY):
        try:
            _show(context, secret[CERTIFICATE], secret[KEY])
        except KeyError as error:
            raise SecretUnusable(f"the Secret has no {error.args[0]}: {CERTIFICATE} and {KEY} go together") from None
        except (ssl.SSLError, ValueError) as error:
            raise SecretUnusable(f"{CERTIFICATE} and {KEY} of the Secret are no pair: {error}") from None
    return context


def _show(context: ssl.SSLContext, certificate: bytes, key: bytes) -> None:
    """Have the context show this certificate. It takes files only, which are gone on return."""
    with tempfile.TemporaryDirectory() as folder:
        chain, private = Path(folder, "chain"), Path(folder, "key")
        chain.write_bytes(certificate)
        private.touch(mode=0o600)
        private.write_bytes(key)
        # Without a password: with none, one that is encrypted would be asked for at the terminal.
        context.load_cert_chain(chain, private, password="")
