"""Parts of messages ↔ the wire format: names, words, amounts, references, each with its bounds. Pure.

`BadMessage` names the field and the rule that was broken.
"""

import re
from collections.abc import Iterable, Mapping
from typing import NoReturn

from pydantic import ValidationError

from taskdist.api import ObjectRef
from taskdist.api.objects import JSON
from taskdist.link.proto import link_pb2 as pb
from taskdist.protocol import messages as m
from taskdist.protocol.reading import flaw

MAX_LEASES = 2048
MAX_RESOURCES = 16
MAX_SKILLS = 64
MAX_TYPES = 256
MAX_LABELS = 32
MAX_SLOTS = 1000
MAX_QUANTITY = 1_000_000_000
MAX_MESSAGE = 4096  # characters of text on a failure or stop
MAX_PROGRESS_MESSAGE = 1024
MAX_TOKEN = 16 * 1024
MAX_BUDGETS = 16
MAX_BUDGET_NAME = 101
MAX_LEADERSHIP = 64
MAX_RETRY_AFTER = 2_592_000.0  # seconds: 30 days

_WORD = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
# What the API server allows as a name: with it a path is built, so nothing else may pass.
_OBJECT_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_LARGEST = 2**53  # what every language's number holds exactly


class BadMessage(ValueError):
    """The other end broke a rule of the format; the text names the field and the rule."""


def encode_reference(body: m.Body) -> pb.ObjectRef | None:
    if not isinstance(body, m.ObjectRef):
        return None
    return pb.ObjectRef(uri=body.uri, size=body.size, sha256=body.sha256, content_type=body.content_type)


def reference(field: str, wire: pb.ObjectRef) -> m.ObjectRef:
    """Return the reference as it stands on a resource: exactly what its schema allows."""
    found = m.ObjectRef(wire.uri, wire.size, wire.sha256, wire.content_type or JSON)
    try:
        ObjectRef.model_validate(found.to_wire())
    except ValidationError as error:
        bad(field, flaw(error))
    return found


def bad(field: str, rule: str) -> NoReturn:
    raise BadMessage(f"{field}: {rule}")


def lease(name: m.LeaseName) -> pb.LeaseName:
    return pb.LeaseName(task_uid=name.task_uid, attempt=name.attempt, epoch=name.epoch)


def name(field: str, wire: pb.LeaseName) -> m.LeaseName:
    if not 1 <= len(wire.task_uid) <= 64:
        bad(f"{field}.task_uid", "1 to 64 characters, as in the Grant")
    if not 1 <= wire.attempt <= _LARGEST or not 0 <= wire.epoch <= _LARGEST:
        bad(field, "attempt and epoch as in the Grant")
    return m.LeaseName(wire.task_uid, wire.attempt, wire.epoch)


def leases(field: str, wire: Iterable[pb.LeaseName]) -> tuple[m.LeaseName, ...]:
    names = tuple(name(field, lease) for lease in wire)
    if len(names) > MAX_LEASES:
        bad(field, f"at most {MAX_LEASES}")
    return names


def epoch(field: str, epoch: int) -> int:
    if not 0 <= epoch <= _LARGEST:
        bad(field, "as in the Welcome or Grant")
    return epoch


def short(field: str, text: str) -> str:
    if len(text) > MAX_LEADERSHIP:
        bad(field, f"at most {MAX_LEADERSHIP} characters, as in the Welcome")
    return text


def slots(field: str, slots: int) -> int:
    if slots > MAX_SLOTS:
        bad(field, f"at most {MAX_SLOTS}")
    return slots


def seconds(field: str, seconds: float) -> float:
    if not 0.0 <= seconds <= _LARGEST:  # false for NaN too
        bad(field, "seconds, not negative, finite")
    return seconds


def retry_after(seconds: float) -> float:
    """At least a second, so that who is put off again and again comes to an end; a wish too far off is cut."""
    return min(max(1.0, seconds), MAX_RETRY_AFTER) if seconds == seconds else 1.0  # not a number: the least


def object_name(field: str, name: str) -> str:
    if not _OBJECT_NAME.fullmatch(name):
        bad(field, "the name as in the Grant")
    return name


def words(field: str, wire: Iterable[str], limit: int) -> tuple[str, ...]:
    words = tuple(wire)
    if len(words) > limit:
        bad(field, f"at most {limit}")
    for word in words:
        if not _WORD.fullmatch(word):
            bad(field, f"{word[:80]!r} is no word: 1 to 63 letters, digits, '-', '_' or '.', no sign at either end")
    return words


def resources(field: str, wire: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Sorted by name: a map on the wire has no order, and equal offers should be equal values."""
    names = words(field, sorted(wire), MAX_RESOURCES)
    for name in names:
        if not 0 <= wire[name] <= MAX_QUANTITY:
            bad(f"{field}[{name}]", f"from 0 to {MAX_QUANTITY}")
    return tuple((name, wire[name]) for name in names)


def used(wire: Mapping[str, int]) -> tuple[tuple[str, int], ...]:
    """Sorted by name. A report that is out of bounds is not worth a result: what is wrong of it is left out."""
    if not wire:
        return ()
    found = [(name, wire[name]) for name in sorted(wire) if 0 < len(name) <= MAX_BUDGET_NAME]
    return tuple((name, amount) for name, amount in found if 0 <= amount <= MAX_QUANTITY)[:MAX_BUDGETS]


def labels(wire: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
    if len(wire) > MAX_LABELS:
        bad("hello.labels", f"at most {MAX_LABELS}")
    for key, value in wire.items():
        if not 1 <= len(key) <= 317 or len(value) > 63:
            bad(f"hello.labels[{key[:80]}]", "a key of 1 to 317 and a value of at most 63 characters")
    return tuple(sorted(wire.items()))


def text(text: str, limit: int) -> str:
    """Cut to the bound; what UTF-8 cannot carry (half of a surrogate pair, from some exception) is replaced."""
    return text[:limit].encode("utf-8", "replace").decode("utf-8")
