"""CloudEvents 1.0 over HTTP as messages: binary, structured and batched. Pure.

An event's data is the message's body, its attributes are the properties; source and id tell it from others, its
partition key is the key. The package `cloudevents` would do the same with two libraries more, and without bounds.
"""

import base64
import binascii
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal
from urllib.parse import unquote_to_bytes

from pydantic import BaseModel, ConfigDict, StringConstraints, ValidationError

from taskdist.api.schema import DATE_PATTERN
from taskdist.intake.message import Message, Parts, Poison, PoisonReason
from taskdist.intake.templates import kind
from taskdist.protocol.reading import moment

STRUCTURED: Final = "application/cloudevents+json"
BATCHED: Final = "application/cloudevents-batch+json"
# The most events of one batch.
MAX_EVENTS: Final = 100

_PREFIX: Final = "ce-"
_NAME: Final = re.compile(r"[a-z0-9]{1,64}")
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*)"')
_ESCAPED: Final = re.compile(r"\\(.)")

_Text = Annotated[str, StringConstraints(min_length=1, max_length=4096)]


class UnknownFormat(Exception):
    """Events in a format that is not read here."""


class TooManyEvents(Exception):
    """The batch has more events than are taken at once."""


class Attributes(BaseModel):
    """The attributes of an event; those that are not named here are extensions."""

    model_config = ConfigDict(extra="allow", strict=True)

    specversion: Literal["1.0"]
    id: _Text
    # A URI reference, which has no spaces: so that source and id in one text are told apart.
    source: Annotated[str, StringConstraints(min_length=1, max_length=4096, pattern=r"^\S+$")]
    type: _Text
    time: Annotated[str, StringConstraints(max_length=64, pattern=DATE_PATTERN)] | None = None
    subject: _Text | None = None
    datacontenttype: _Text | None = None
    dataschema: _Text | None = None
    partitionkey: _Text | None = None

    __pydantic_extra__: dict[str, str | bool | int]


def events(media_type: str, headers: Mapping[str, str], body: bytes, received: datetime) -> list[Message | Poison]:
    """Read the events of a request: of a batch one that is none stands in the list as why.

    Raises:
        Poison: the request as a whole is none.
        UnknownFormat, TooManyEvents: it is none that is read here.
    """
    if media_type == BATCHED:
        batch = _json(body)
        if not isinstance(batch, list):
            raise Poison(PoisonReason.WRONG_TYPE, f"body: a batch is a list, and this is {kind(batch)}")
        if len(batch) > MAX_EVENTS:
            raise TooManyEvents
        return [_or_why(each, headers, received) for each in batch]
    if media_type == STRUCTURED:
        return [_structured(_json(body), headers, received)]
    if media_type.startswith("application/cloudevents"):
        raise UnknownFormat
    return [_binary(headers, body, received)]


def _or_why(event: Any, headers: Mapping[str, str], received: datetime) -> Message | Poison:
    try:
        return _structured(event, headers, received)
    except Poison as poison:
        return poison


def _structured(event: Any, headers: Mapping[str, str], received: datetime) -> Message:
    if not isinstance(event, dict):
        raise Poison(PoisonReason.WRONG_TYPE, f"body: an event is an object, and this is {kind(event)}")
    # What is null is not there.
    said = {name: value for name, value in event.items() if value is not None and name not in ("data", "data_base64")}
    attributes = _attributes(said)
    return _message(attributes, headers, _data(event, attributes.datacontenttype), received)


def _binary(headers: Mapping[str, str], body: bytes, received: datetime) -> Message:
    said = {
        name.removeprefix(_PREFIX): _decoded(name, value) for name, value in headers.items() if name.startswith(_PREFIX)
    }
    said.pop("datacontenttype", None)
    if content_type := headers.get("content-type"):
        said["datacontenttype"] = content_type
    return _message(_attributes(said, _PREFIX), headers, body, received)


def _attributes(said: dict[str, Any], prefix: str = "") -> Attributes:
    for name in said:
        if not _NAME.fullmatch(name):
            shown = name[:80].encode("utf-8", "replace").decode()
            raise _invalid(f"{prefix}{shown}", "names of attributes are of a-z and 0-9")
    try:
        return Attributes.model_validate(said)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise _invalid(f"{prefix}{first['loc'][0]}", first["msg"]) from None


def _message(attributes: Attributes, headers: Mapping[str, str], body: bytes, received: datetime) -> Message:
    try:
        time = received if attributes.time is None else datetime.fromtimestamp(moment(attributes.time), UTC)
    except (ValueError, OverflowError) as error:
        raise _invalid("time", str(error)) from None
    return Message(
        body=body,
        headers=headers,
        properties=attributes.model_dump(exclude_none=True),
        key=attributes.partitionkey,
        id=f"{attributes.source} {attributes.id}",
        time=time,
    )


def _data(event: dict[str, Any], content_type: str | None) -> bytes:
    """Return the data as bytes, as it would be the body of a request."""
    data, encoded = event.get("data"), event.get("data_base64")
    if encoded is not None:
        if data is not None:
            raise _invalid("data_base64", "data is there already: send one of the two")
        try:
            return base64.b64decode(encoded, validate=True)
        except (TypeError, ValueError, binascii.Error):
            raise _invalid("data_base64", "it is no base64") from None
    if "data" not in event:
        return b""
    try:
        if isinstance(data, str) and not _is_json(content_type):
            return data.encode()
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode()
    except (ValueError, RecursionError):
        said = "it holds what cannot be kept: half a character, a number beyond all bounds, or it is nested too deep"
        raise _invalid("data", said) from None


def _is_json(content_type: str | None) -> bool:
    """Say whether the data is JSON: so is what does not say what it is."""
    if content_type is None:
        return True
    name = content_type.partition(";")[0].strip().lower()
    return name.endswith(("/json", "+json"))


def _decoded(name: str, value: str) -> str:
    """Return a header's value as the attribute's: unquoted, and percent-decoded once."""
    quoted = _QUOTED.fullmatch(value.strip())
    plain = _ESCAPED.sub(r"\1", quoted[1]) if quoted else value
    try:
        return unquote_to_bytes(plain.encode("latin-1")).decode("utf-8")
    except UnicodeError:
        raise _invalid(name, "it is no percent-encoded UTF-8") from None


def _json(body: bytes) -> Any:
    try:
        return Parts(Message(body=body)).get("$")
    except Poison as poison:
        raise Poison(poison.reason, f"body: {poison}") from None


def _invalid(field: str, said: str) -> Poison:
    return Poison(PoisonReason.INVALID_VALUE, f"{field}: {said}"[:1000])
