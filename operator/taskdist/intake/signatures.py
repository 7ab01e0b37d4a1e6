"""Signatures of deliveries: whether a delivery has a right one, and of when. Pure: the time is an argument.

The HMAC is of the bytes as they came, and compared in a time that does not depend on where it differs. Who asks learns
that a signature is not right, and never why.
"""

import base64
import binascii
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from taskdist.api import Signature, SignatureEncoding, Webhook
from taskdist.intake.mapping import MappingError, parsed
from taskdist.intake.message import Absent, Message, Parts, Poison
from taskdist.intake.templates import Expression, Template
from taskdist.protocol.reading import moment

# The shortest secret, in bytes: a shorter one is found by trying, once a single delivery was seen.
MIN_SECRET_BYTES: Final = 16
# The header by which Standard Webhooks tell deliveries apart.
STANDARD_ID: Final = "webhook-id"

# The form of https://www.standardwebhooks.com, in the words of `Signature`. Its prefix holds a comma.
_STANDARD: Final = Signature.model_construct(
    header="webhook-signature",
    encoding=SignatureEncoding.BASE64,
    prefix="v1,",
    content="{headers.webhook-id}.{headers.webhook-timestamp}.{text}",
    timestamp="{headers.webhook-timestamp}",
)
_SECRET_PREFIX: Final = b"whsec_"
# Each of these changes with every byte of the body.
_BODY: Final = ("text", "base64", "hash")
_SIGNED: Final = (*_BODY, "headers", "properties")
_SEPARATORS: Final = re.compile(r"[,\s]+")
_SECONDS: Final = re.compile(r"[0-9]{1,16}(\.[0-9]{1,9})?")
# Seconds since 1970 have fewer digits until the year 5138, milliseconds had as many in 1973.
_MILLISECONDS_FROM: Final = 10**11


class Unsigned(Exception):
    """The delivery is not signed as it should be."""


class Stale(Exception):
    """The delivery is signed, and was so too long ago, or is of a time to come."""


class SecretError(Exception):
    """A value of the Secret is no secret to sign with; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Verifier:
    """The check of one source's signatures, compiled from its spec."""

    header: str
    algorithm: str
    encoding: SignatureEncoding
    prefix: str
    content: Template
    timestamp: Template | None
    tolerance: timedelta
    standard: bool

    def keys(self, secrets: Sequence[bytes]) -> tuple[bytes, ...]:
        """Return the keys that these values of a Secret stand for. Raises `SecretError`."""
        found = []
        for secret in secrets:
            # Line ends after it are none of it: they come from files.
            key = secret.rstrip(b"\r\n")
            found.append(_long_enough(_decoded(key) if self.standard else key))
        return tuple(found)

    def verify(self, keys: Sequence[bytes], message: Message, now: datetime) -> datetime | None:
        """Return when the delivery was signed, if it says so. Raises `Unsigned` and `Stale`."""
        header = message.headers.get(self.header.lower())
        if not isinstance(header, str):
            raise Unsigned
        parts = Parts(replace(message, properties=_parameters(header)))
        try:
            content = b"".join(_signed(piece, message, parts) for piece in self.content.pieces)
        except (Absent, Poison, UnicodeEncodeError):
            raise Unsigned from None
        given = [each.encode("utf-8", "replace") for each in self._given(header)]
        made = [self._written(hmac.digest(key, content, self.algorithm)) for key in keys]
        # All of them are compared, whichever is right.
        if not sum(hmac.compare_digest(left, right) for left in made for right in given):
            raise Unsigned
        return self._moment(parts, now)

    def _given(self, header: str) -> list[str]:
        found = header.split() if self.standard else _SEPARATORS.split(header)
        given = [each.removeprefix(self.prefix) for each in found if each.startswith(self.prefix)]
        return [each.lower() for each in given] if self.encoding is SignatureEncoding.HEX else given

    def _written(self, digest: bytes) -> bytes:
        return digest.hex().encode() if self.encoding is SignatureEncoding.HEX else base64.b64encode(digest)

    def _moment(self, parts: Parts, now: datetime) -> datetime | None:
        if self.timestamp is None:
            return None
        try:
            found = _moment(self.timestamp.text(parts))
        except (Absent, Poison, ValueError, OverflowError):
            raise Stale from None
        if abs(now - found) > self.tolerance:
            raise Stale
        return found


def standard_key(secret: bytes) -> bytes:
    """The key that a secret of Standard Webhooks stands for. Raises `SecretError`."""
    return _long_enough(_decoded(secret.rstrip(b"\r\n")))


def standard_signature(key: bytes, identity: str, seconds: int, body: bytes) -> str:
    """The value of the header webhook-signature, as Standard Webhooks say."""
    digest = hmac.digest(key, b".".join((identity.encode(), str(seconds).encode(), body)), "sha256")
    return f"{_STANDARD.prefix}{base64.b64encode(digest).decode()}"


def _decoded(secret: bytes) -> bytes:
    try:
        return base64.b64decode(secret.removeprefix(_SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise SecretError("a secret of Standard Webhooks is base64, after whsec_") from None


def _long_enough(key: bytes) -> bytes:
    if len(key) < MIN_SECRET_BYTES:
        raise SecretError(f"a secret has {MIN_SECRET_BYTES} bytes or more")
    return key


def compile_signature(webhook: Webhook, where: str = "spec.webhook") -> Verifier:
    """Compile how deliveries are signed. Raises `MappingError`."""
    signature, at = webhook.signature or _STANDARD, f"{where}.signature"
    content = parsed(f"{at}.content", signature.content)
    roots = {each.root for each in content.expressions}
    if odd := roots.difference(_SIGNED):
        raise MappingError(
            f"{at}.content", f"{{{min(odd)}}} is nothing that is signed: name {{text}}, {{headers.NAME}} and the like"
        )
    if not roots.intersection(_BODY):
        raise MappingError(f"{at}.content", "the body is no part of it, so that anyone could change it: add {text}")
    timestamp = None
    if signature.timestamp is not None:
        timestamp = parsed(f"{at}.timestamp", signature.timestamp)
        if timestamp.constant is not None:
            raise MappingError(f"{at}.timestamp", "it is the same for all deliveries: name a path")
        if loose := unsigned(timestamp, content):
            raise MappingError(
                f"{at}.timestamp",
                f"{loose} is no part of what is signed, so that anyone could set it: add it to content",
            )
    return Verifier(
        header=signature.header,
        algorithm=str(signature.algorithm).lower(),
        encoding=signature.encoding,
        prefix=signature.prefix,
        content=content,
        timestamp=timestamp,
        tolerance=timedelta(seconds=webhook.tolerance_seconds),
        standard=webhook.signature is None,
    )


def unsigned(template: Template, content: Template) -> str:
    """Return the first path of a template that is no part of what is signed; empty if all are. The body always is."""
    covered = {_place(each) for each in content.expressions}
    loose = (
        each.text
        for each in template.expressions
        if each.root in ("headers", "properties") and _place(each) not in covered
    )
    return next(loose, "")


def _place(expression: Expression) -> tuple[str, ...]:
    return (expression.root, *(str(step).lower() for step in expression.steps))


def _parameters(header: str) -> dict[str, str]:
    """Return the parts NAME=VALUE of a header; of those of one name the first."""
    found: dict[str, str] = {}
    for each in _SEPARATORS.split(header):
        name, equals, value = each.partition("=")
        if equals:
            found.setdefault(name, value)
    return found


def _signed(piece: str | Expression, message: Message, parts: Parts) -> bytes:
    if isinstance(piece, str):
        return piece.encode()
    if piece.root == "text" and not piece.steps:
        return message.body
    # Headers are bytes that were read as Latin-1.
    return Template((piece,)).text(parts).encode("latin-1")


def _moment(text: str) -> datetime:
    """Raises ValueError and OverflowError."""
    if not _SECONDS.fullmatch(text):
        return datetime.fromtimestamp(moment(text), UTC)
    seconds = float(text)
    return datetime.fromtimestamp(seconds / 1000 if seconds >= _MILLISECONDS_FROM else seconds, UTC)
