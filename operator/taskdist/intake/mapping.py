"""The fields of a Task by those of a message: a template compiled once, filled in for each message. Pure.

Compiling finds what is wrong with the template, by field (`MappingError`). Filling in gives a `Mapped`, or `Poison`
with the field and the path that gave nothing or what the field does not take. Nothing else is ever raised, whatever
bytes a message holds, and the work is bounded: a body of 1 MiB is parsed once, and 64 KiB of values are taken from it.
"""

import hashlib
import json
import re
from collections.abc import Callable
from collections.abc import Mapping as Map
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from pydantic import ValidationError

from taskdist.api import Priority, TaskSpec, nesting
from taskdist.api.meta import GROUP, VERSION
from taskdist.api.schema import DATE_PATTERN
from taskdist.api.task import MAX_PAYLOAD_BYTES
from taskdist.api.template import TaskTemplate
from taskdist.intake.message import Absent, Message, Parts, Poison, PoisonReason, wire
from taskdist.intake.templates import Expression, Template, TemplateError, kind, parse
from taskdist.protocol import values

# Paths in one payload; and the longest identity, in characters.
MAX_EXPRESSIONS: Final = 256
MAX_IDENTITY: Final = 1024
# What a Task tells of the message that it came from.
SOURCE_LABEL: Final = f"{GROUP}/source"
IDENTITY_ANNOTATION: Final = f"{GROUP}/source-identity"

# Texts of the spec, by their names in the template and in a Task.
_TEXTS: Final = {
    "queue": "queue",
    "type": "type",
    "priority": "priority",
    "tenant": "tenant",
    "deadline": "deadline",
    "not_before": "notBefore",
    "ordering_key": "orderingKey",
    "concurrency_key": "concurrencyKey",
}
_TIMES: Final = ("deadline", "notBefore")
_TIME = re.compile(DATE_PATTERN)
_LABEL_KEY = re.compile(r"([a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")

Compiled = Any
"""A payload in which each text with paths is a `Template`; all else is JSON."""


class MappingError(Exception):
    """The template can never be used: `field` is the path of what is wrong in it."""

    def __init__(self, field: str, why: str) -> None:
        super().__init__(f"{field}: {why}")
        self.field = field
        self.why = why


@dataclass(frozen=True, slots=True)
class Mapped:
    """The Task that a message asks for: its identity, spec and labels."""

    identity: str
    spec: dict[str, Any]
    labels: dict[str, str]


@dataclass(frozen=True, slots=True)
class Mapping:
    """A compiled template. The same message always gives the same."""

    texts: tuple[tuple[str, Template], ...]
    labels: tuple[tuple[str, Template], ...]
    payload: Compiled | None
    identity: Template
    deadline_seconds: int | None

    @property
    def queue(self) -> str | None:
        """The queue of all its Tasks; None if messages choose it."""
        return dict(self.texts)["queue"].constant

    def of(self, message: Message) -> Mapped:
        """Fill the template in. Raises `Poison`."""
        parts, spec = Parts(message), dict[str, Any]()
        for name, template in self.texts:
            if (text := _filled(name, template, parts)) is not None:
                spec[name] = text
        payload = self._payload(parts)
        if payload:
            spec["payload"] = payload
        if self.deadline_seconds is not None:
            spec["deadline"] = _after(message, self.deadline_seconds)
        labels = {
            name: text
            for name, template in self.labels
            if (text := _filled(f"labels.{name}", template, parts)) is not None
        }
        identity = _filled("identity", self.identity, parts)
        _check(spec, labels)
        if not identity or len(identity) > MAX_IDENTITY or values.fault(identity):
            raise Poison(
                PoisonReason.INVALID_VALUE, f"identity: the message needs one of 1 to {MAX_IDENTITY} characters"
            )
        return Mapped(identity, spec, labels)

    def _payload(self, parts: Parts) -> dict[str, Any]:
        if self.payload is None:
            body = _in_field("payload", lambda: parts.get("$"))
            if not isinstance(body, dict):
                raise Poison(
                    PoisonReason.WRONG_TYPE,
                    f"payload: the body is {kind(body)}, not an object: let the payload name it, as "
                    '{"value": "{$}"}',
                )
            filled = body
        else:
            filled = _in_field("payload", lambda: _fill(self.payload, parts, _Room(MAX_PAYLOAD_BYTES)))
        if wrong := values.fault(filled):
            raise Poison(PoisonReason.INVALID_VALUE, f"payload: {wrong}")
        size = len(json.dumps(filled, separators=(",", ":"), ensure_ascii=False).encode())
        if size > MAX_PAYLOAD_BYTES:
            raise _too_large()
        return filled


def compile_mapping(template: TaskTemplate, where: str = "spec.task") -> Mapping:
    """Compile a template. `where`: the path at which it stands, for messages.

    Raises:
        MappingError: a field holds what no message could mend.
    """
    texts = []
    for name, wired in _TEXTS.items():
        if (text := getattr(template, name)) is not None:
            compiled = parsed(f"{where}.{wired}", text)
            if (constant := compiled.constant) is not None:
                _check_constant(f"{where}.{wired}", wired, constant)
            texts.append((wired, compiled))
    if template.deadline is not None and template.deadline_seconds is not None:
        raise MappingError(f"{where}.deadlineSeconds", "the deadline is there already: set one of the two")
    labels = []
    for key, text in template.labels.items():
        if not _LABEL_KEY.fullmatch(key):
            raise MappingError(f"{where}.labels", f"{key[:80]!r} is no name of a label: rename it")
        compiled = parsed(f"{where}.labels.{key}", text)
        if (constant := compiled.constant) is not None and not _LABEL_VALUE.fullmatch(constant):
            raise MappingError(f"{where}.labels.{key}", _NO_LABEL)
        labels.append((key, compiled))
    payload = None
    if template.payload is not None:
        if wrong := values.fault(template.payload):
            raise MappingError(f"{where}.payload", wrong)
        payload = _compile(f"{where}.payload", template.payload, _Room(MAX_EXPRESSIONS))
    identity = parsed(f"{where}.identity", "{id}" if template.identity is None else template.identity)
    if identity.constant is not None:
        raise MappingError(
            f"{where}.identity", "it is the same for all messages, so that only one Task would be made: name a path"
        )
    return Mapping(tuple(texts), tuple(labels), payload, identity, template.deadline_seconds)


def task_name(source: str, uid: str, identity: str) -> str:
    """Return the name of the Task that a source makes of a message: the same however often the message comes.

    Each source has others, also one that was deleted and created again.
    """
    return f"{source}-{hashlib.sha256(f'{uid}/{identity}'.encode()).hexdigest()[:20]}"


def task_of(mapped: Mapped, namespace: str, source: str, uid: str) -> dict[str, Any]:
    """Return the Task to create."""
    return {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Task",
        "metadata": {
            "namespace": namespace,
            "name": task_name(source, uid, mapped.identity),
            "labels": {**mapped.labels, SOURCE_LABEL: source},
            "annotations": {IDENTITY_ANNOTATION: mapped.identity},
        },
        "spec": mapped.spec,
    }


# -- compiling ---------------------------------------------------------------------------------------------------------

_NO_LABEL: Final = (
    "it is no value of a label: at most 63 of a-z, A-Z, 0-9, '-', '_' and '.', none of the last three at an end"
)


@dataclass(slots=True)
class _Room:
    """The rest of something that is bounded."""

    left: int

    def take(self, amount: int) -> bool:
        """Take so much; False if that is more than is left."""
        self.left -= amount
        return self.left >= 0


def parsed(field: str, text: str) -> Template:
    """Parse a text of a source's spec. Raises `MappingError` with the field."""
    try:
        return parse(text)
    except TemplateError as error:
        raise MappingError(field, str(error)) from None


def _check_constant(field: str, name: str, text: str) -> None:
    """Refuse a text that no Task takes there."""
    try:
        _check({"queue": "q", "type": "t", name: text}, {})
    except Poison as error:
        raise MappingError(field, str(error).removeprefix(f"{name}: ")) from None


def _compile(field: str, value: Any, room: _Room) -> Compiled:
    if isinstance(value, dict):
        return {name: _compile(f"{field}.{name}", inner, room) for name, inner in value.items()}
    if isinstance(value, list):
        return [_compile(f"{field}[{number}]", inner, room) for number, inner in enumerate(value)]
    if not isinstance(value, str):
        return value
    template = parsed(field, value)
    if template.constant is not None:
        return template.constant
    if not room.take(sum(1 for _ in template.expressions)):
        raise MappingError(field, f"the payload has more than {MAX_EXPRESSIONS} paths: take whole objects by one path")
    return template


# -- filling in --------------------------------------------------------------------------------------------------------


def _in_field(field: str, do: Callable[[], Any]) -> Any:
    try:
        return do()
    except Poison as error:
        raise Poison(error.reason, f"{field}: {error}") from None


def _filled(field: str, template: Template, parts: Parts) -> str | None:
    """Return the text, or None where it has none."""
    try:
        return template.text(parts)
    except Absent:
        return None
    except Poison as error:
        raise Poison(error.reason, f"{field}: {error}") from None


def _fill(compiled: Compiled, parts: Parts, room: _Room) -> Any:
    """Return the value. Raises `Absent` if it is one path alone that gives none and need not."""
    if isinstance(compiled, dict):
        filled = {}
        for name, inner in compiled.items():
            try:
                filled[name] = _fill(inner, parts, room)
            except Absent:
                continue
        return filled
    if isinstance(compiled, list):
        items = []
        for inner in compiled:
            try:
                items.append(_fill(inner, parts, room))
            except Absent:
                continue
        return items
    if not isinstance(compiled, Template):
        return compiled
    value = _value(compiled.alone, parts) if compiled.alone else compiled.text(parts)
    # Counted as they are put in: a large value that is named many times would fill the memory before the sum is known.
    if not room.take(_size(value)):
        raise _too_large()
    return value


def _value(expression: Expression, parts: Parts) -> Any:
    value = expression.value(parts)
    return dict(value) if isinstance(value, Map) else value


def _size(value: Any) -> int:
    """Count the bytes of a value as JSON, at least."""
    try:
        return len(json.dumps(value, separators=(",", ":"), ensure_ascii=False))
    except RecursionError:
        raise Poison(PoisonReason.INVALID_VALUE, f"it is nested deeper than {nesting.MAX_DEPTH} levels") from None
    except (TypeError, ValueError):  # a number of more digits than are written, or what a source should have converted
        raise Poison(PoisonReason.INVALID_VALUE, "it holds what JSON cannot") from None


def _too_large() -> Poison:
    return Poison(
        PoisonReason.TOO_LARGE,
        f"payload: it would have more than {MAX_PAYLOAD_BYTES} bytes: take less of the message, or send a reference",
    )


def _after(message: Message, seconds: int) -> str:
    try:
        return wire(message.time + timedelta(seconds=seconds))
    except OverflowError:
        raise Poison(PoisonReason.INVALID_VALUE, "deadline: it lies beyond the year 9999") from None


def _check(spec: dict[str, Any], labels: dict[str, str]) -> None:
    """Refuse what the API server would refuse of a Task's fields, with the field's name."""
    for name in _TIMES:
        if name in spec and not _TIME.fullmatch(spec[name]):
            raise _invalid(name, spec[name], "is no time: write RFC 3339, such as 2030-01-01T12:00:00Z")
    for name, text in spec.items():
        if isinstance(text, str) and values.fault(text):
            raise _invalid(name, text, "is no text that can be kept")
    try:
        TaskSpec.model_validate({name: value for name, value in spec.items() if name != "payload"})
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False)[0]
        name = str(first["loc"][0])
        said = f"is none of {', '.join(Priority)}" if first["type"] == "enum" else f"is refused: {first['msg']}"
        raise _invalid(name, spec.get(name), said) from None
    for name, text in labels.items():
        if not _LABEL_VALUE.fullmatch(text):
            raise _invalid(f"labels.{name}", text, _NO_LABEL)


def _invalid(field: str, value: object, said: str) -> Poison:
    shown = str(value)[:80].encode("utf-8", "replace").decode()
    return Poison(PoisonReason.INVALID_VALUE, f"{field}: {shown!r} {said}")
