"""References to objects in a store: where a payload or result stands that is too large for a resource."""

from typing import Annotated

from pydantic import Field, StringConstraints

from taskdist.api.meta import Model

# Bytes of JSON by value. What is larger goes by reference.
MAX_INLINE_BYTES = 64 * 1024
# Bytes of what a reference may name. An agent says how much it takes of that.
MAX_OBJECT_BYTES = 2**30
JSON = "application/json"
# No sign that a shell, a URL or a path would read as anything but itself.
URI_PATTERN = r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]/[A-Za-z0-9/_.=+@-]{1,900}$"


class ObjectRef(Model):
    """An object in a store that speaks S3, and what it must hold: who fetches it checks size and hash."""

    uri: Annotated[str, StringConstraints(min_length=7, max_length=1000, pattern=URI_PATTERN)] = Field(
        description="Where it stands, as s3://BUCKET/KEY. Agents read below their own prefix and namespace only."
    )
    size: Annotated[int, Field(ge=2, le=MAX_OBJECT_BYTES)] = Field(description="Its bytes.")
    sha256: Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$", max_length=64)] = Field(
        description="SHA-256 of its bytes, in hexadecimal digits."
    )
    content_type: Annotated[str, StringConstraints(pattern=r"^application/json$", max_length=64)] = Field(
        default=JSON, description="What it holds: application/json, a JSON object in UTF-8."
    )
