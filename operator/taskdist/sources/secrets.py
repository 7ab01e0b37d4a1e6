"""The login and certificates of a source at its broker: read from a Secret of its namespace at each connection."""

import base64
import binascii
import ssl
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from taskdist.api import SourceReason
from taskdist.kube import SECRETS, ApiError, Client
from taskdist.sources.broker import Trouble

_CA: Final = "ca.crt"
_CERTIFICATE: Final = "tls.crt"
_KEY: Final = "tls.key"


async def read_secret(client: Client, namespace: str, name: str, needed: tuple[str, ...]) -> Mapping[str, bytes]:
    """Read the Secret's values. Raises `Trouble` where it is not as it has to be, and `KubeError`."""
    try:
        found = await client.get(SECRETS, name, namespace)
    except ApiError as error:
        if error.is_not_found:
            raise _unusable(f"there is no Secret {name}: create it") from None
        if error.is_forbidden:
            raise _unusable(
                f"Secret {name} may not be read: grant `taskdist sources` get on it, as docs/sources.md shows"
            ) from None
        raise
    data = found.get("data")
    values = {}
    for key, text in (data if isinstance(data, dict) else {}).items():
        try:
            values[str(key)] = base64.b64decode(text, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise _unusable(f"{key} of Secret {name} cannot be read") from None
    for key in needed:
        if not values.get(key):
            raise _unusable(f"Secret {name} has no {key}: add it")
    return values


def text_of(secret: Mapping[str, bytes], key: str) -> str:
    """Return a value as text. Line ends after it are none of it: they come from files."""
    try:
        return secret[key].decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise _unusable(f"{key} of the Secret is no text") from None


def tls_of(secret: Mapping[str, bytes]) -> ssl.SSLContext:
    """Return the context that encrypts and verifies a connection. Raises `Trouble`."""
    try:
        context = ssl.create_default_context(cadata=text_of(secret, _CA) if secret.get(_CA) else None)
    except (ssl.SSLError, ValueError) as error:
        raise _unusable(f"{_CA} of the Secret holds no certificates: {error}") from None
    if secret.get(_CERTIFICATE) or secret.get(_KEY):
        try:
            _show(context, secret[_CERTIFICATE], secret[_KEY])
        except KeyError as error:
            raise _unusable(f"the Secret has no {error.args[0]}: {_CERTIFICATE} and {_KEY} go together") from None
        except (ssl.SSLError, ValueError) as error:
            raise _unusable(f"{_CERTIFICATE} and {_KEY} of the Secret are no pair: {error}") from None
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


def _unusable(message: str) -> Trouble:
    return Trouble(SourceReason.SECRET_UNUSABLE, message)
