"""A webhook: deliveries over HTTP, signed with a secret, that become Tasks. A kind of TaskSource."""

from enum import StrEnum
from typing import Annotated

from pydantic import Field, StringConstraints

from taskdist.api.meta import AS_SET, Model, SecretName
from taskdist.api.template import MAX_BODY_BYTES, Template

_KEY = r"^[-._A-Za-z0-9]+$"
# A name of a header: a token of HTTP.
_HEADER = r"^[-!#$%&'*+.^_`|~A-Za-z0-9]+$"
# Signatures in one header are told apart by commas and spaces.
_PREFIX = r"^[^,\s]*$"

SecretKey = Annotated[str, StringConstraints(min_length=1, max_length=253, pattern=_KEY)]


class DeliveryFormat(StrEnum):
    """The form of deliveries: CloudEvents (one, or a batch), or any JSON."""

    CLOUD_EVENTS = "CloudEvents"
    JSON = "JSON"


class SignatureAlgorithm(StrEnum):
    """The hash of the HMAC."""

    SHA256 = "SHA256"
    SHA512 = "SHA512"


class SignatureEncoding(StrEnum):
    """The notation of a signature."""

    HEX = "Hex"
    BASE64 = "Base64"


class Signature(Model):
    """The signature of deliveries: an HMAC in a header."""

    header: Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=_HEADER)] = Field(
        description="The header that holds the signature, such as X-Hub-Signature-256; of several, by commas or "
        "spaces, one has to be right."
    )
    algorithm: SignatureAlgorithm = Field(
        default=SignatureAlgorithm.SHA256, description="The hash of the HMAC: SHA256 or SHA512."
    )
    encoding: SignatureEncoding = Field(
        default=SignatureEncoding.HEX, description="How the signature is written: Hex or Base64."
    )
    prefix: Annotated[str, StringConstraints(max_length=32, pattern=_PREFIX)] = Field(
        default="", description="What stands before the signature, such as sha256=; what does not begin so is none."
    )
    content: Template = Field(
        default="{text}",
        description="What is signed: {text} is the body, {headers.NAME} a header, {properties.NAME} a part NAME=VALUE "
        "of the signature's header. v0:{headers.x-slack-request-timestamp}:{text}, say.",
    )
    timestamp: Template | None = Field(
        default=None,
        description="Where it says when it was signed, as {headers.x-slack-request-timestamp} or {$.sent}: seconds or "
        "milliseconds since 1970, or RFC 3339. It has to be part of what is signed. Absent: deliveries have no age.",
    )


class Webhook(Model):
    """A Task of each signed delivery that is posted to the HTTP door."""

    format: DeliveryFormat = Field(description="What deliveries are: CloudEvents, or JSON (any).")
    secret_name: SecretName = Field(
        description="A Secret of the source's namespace that holds what deliveries are signed with."
    )
    secret_keys: Annotated[list[SecretKey], Field(min_length=1, max_length=4)] = Field(
        default=["secret"],
        description="Its keys: each of them is good, so that a new one can be told before the old one goes. A secret "
        "has 16 bytes or more.",
        json_schema_extra=AS_SET,
    )
    signature: Signature | None = Field(
        default=None,
        description="How deliveries are signed. Absent: as Standard Webhooks says, by webhook-id, webhook-timestamp "
        "and webhook-signature.",
    )
    tolerance_seconds: Annotated[int, Field(ge=1, le=86_400)] = Field(
        default=300, description="A delivery that was signed longer ago, or is so far ahead, is refused."
    )
    max_bytes: Annotated[int, Field(ge=1024, le=MAX_BODY_BYTES)] = Field(
        default=262_144, description="The largest body of a delivery, in bytes."
    )
