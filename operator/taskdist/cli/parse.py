"""What users write on the command line, to values. Pure; each refusal says how to write it instead."""

import json
import os
import re
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from taskdist.api import GROUP
from taskdist.api.task import MAX_PAYLOAD_BYTES
from taskdist.client.submission import payload_fault
from taskdist.common.environment import SettingsError
from taskdist.objects.settings import ObjectSettings


class Malformed(ValueError):
    """It cannot be read. The message says what is expected."""


_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")


def duration(text: str) -> float:
    """`90`, `90s`, `1h30m` → seconds."""
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    if not re.fullmatch(rf"(?:{_DURATION.pattern})+", text):
        raise Malformed(f"{text!r} is no duration: write 30s, 5m or 1h30m")
    return sum(float(number) * _UNITS[unit] for number, unit in _DURATION.findall(text))


def moment(text: str, now: datetime | None = None) -> str:
    """RFC 3339 with an offset, or a duration from now (`10m`) → RFC 3339 in UTC."""
    return _moment(text, now, 1)


def past(text: str, now: datetime | None = None) -> str:
    """RFC 3339 with an offset, or how long ago (`24h`) → RFC 3339 in UTC."""
    return _moment(text, now, -1)


def _moment(text: str, now: datetime | None, sign: int) -> str:
    try:
        when = (now or datetime.now(UTC)) + sign * timedelta(seconds=duration(text))
    except OverflowError:
        raise Malformed(f"{text!r} {'from now' if sign > 0 else 'ago'} is beyond all calendars") from None
    except Malformed:
        when = _instant(text)
    # Whole milliseconds: the text of a time is compared by people.
    return when.astimezone(UTC).isoformat(timespec="milliseconds" if when.microsecond else "seconds")[:-6] + "Z"


def _instant(text: str) -> datetime:
    try:
        when = datetime.fromisoformat(text)
    except ValueError:
        when = None
    if when is None or "T" not in text.upper():
        raise Malformed(f"{text!r} is no time: write 2030-01-31T12:00:00Z, or a duration from now, such as 10m")
    if when.tzinfo is None:
        raise Malformed(f"{text!r} does not say in which zone: add Z, or an offset such as +02:00")
    return when


def payload(text: str) -> dict[str, Any]:
    """A JSON object: written out, in a file (`@path`), or on standard input (`-`)."""
    source = "the payload"
    if text == "-":
        source, text = "standard input", sys.stdin.read()
    elif text.startswith("@"):
        source = text[1:]
        try:
            text = Path(source).read_text(encoding="utf-8")
        except OSError as error:
            raise Malformed(f"cannot read {source}: {error.strerror}") from None
        except UnicodeDecodeError:
            raise Malformed(f"{source} is not UTF-8 text") from None
    try:
        value = json.loads(text)
    except RecursionError:
        raise Malformed(f"{source} is nested too deeply: store the data elsewhere and pass a reference to it") from None
    except ValueError as error:
        raise Malformed(
            f"""{source} is not JSON ({error}): write an object, as in '{{"path": "a.py"}}', or @file, or -"""
        ) from None
    if not isinstance(value, dict):
        kind = {list: "a list", str: "a string", type(None): "null", bool: "a boolean"}.get(type(value), "a number")
        raise Malformed(f"""{source} is {kind}: a payload is a JSON object, as in '{{"path": "a.py"}}'""")
    if wrong := payload_fault(value, _most_bytes()):
        raise Malformed(f"{source} {wrong}")
    return value


def _most_bytes() -> int:
    """How large a payload may be: more than fits on a Task if there is a store for the rest."""
    try:
        store = ObjectSettings.from_env(os.environ)
    except SettingsError as error:
        raise Malformed(str(error)) from None
    return MAX_PAYLOAD_BYTES if store is None else store.max_bytes


def amounts(items: list[str]) -> dict[str, int]:
    """`gpu=1` → {"gpu": 1}."""
    result: dict[str, int] = {}
    for item in items:
        name, separator, number = item.partition("=")
        if not separator or not name or not number.isdecimal() or int(number) < 1:
            raise Malformed(f"{item!r} is no resource: write NAME=NUMBER, as in gpu=1")
        result[name] = int(number)
    return result


def name(text: str) -> str:
    """`task/NAME` and `task.taskdist.dev/NAME`, as kubectl and `-o name` write it, is NAME."""
    kind, slash, rest = text.partition("/")
    known = {"tk", *(word + group for word in ("task", "tasks") for group in ("", f".{GROUP}"))}
    return rest if slash and kind in known else text


def queue(text: str) -> str | None:
    """`queue/NAME`, and as kubectl writes it, is that queue's NAME; None if it names no queue."""
    kind, slash, rest = text.partition("/")
    known = {"tq", "queue", "queues", *(f"taskqueue{s}{group}" for s in ("", "s") for group in ("", f".{GROUP}"))}
    return rest if slash and kind in known else None


def labels(items: list[str]) -> dict[str, str]:
    """`batch=nightly` → {"batch": "nightly"}. The API server judges keys and values."""
    result: dict[str, str] = {}
    for item in items:
        key, separator, value = item.partition("=")
        if not separator or not key:
            raise Malformed(f"{item!r} is no label: write KEY=VALUE, as in batch=nightly")
        result[key] = value
    return result


_KEY = r"[A-Za-z0-9](?:[-A-Za-z0-9_./]*[A-Za-z0-9])?"
_EQUALS = re.compile(rf"({_KEY})\s*(==|=|!=)\s*([-A-Za-z0-9_.]*)")
_SET = re.compile(rf"({_KEY})\s+(in|notin)\s*\(([^()]*)\)")
_EXISTS = re.compile(rf"(!?)\s*({_KEY})")


def selector(text: str) -> dict[str, Any]:
    """kubectl's selector syntax (`zone=a,disk!=hdd,arch in (arm,amd),gpu,!spot`) → a LabelSelector."""
    labels: dict[str, str] = {}
    expressions: list[dict[str, Any]] = []
    # Commas inside parentheses belong to a set.
    for part in (each.strip() for each in re.split(r",(?![^()]*\))", text)):
        if match := _EQUALS.fullmatch(part):
            key, operator, value = match.groups()
            if operator != "!=" and labels.get(key, value) == value:
                labels[key] = value
            else:
                name = "NotIn" if operator == "!=" else "In"
                expressions.append({"key": key, "operator": name, "values": [value]})
        elif match := _SET.fullmatch(part):
            key, operator, values = match.groups()
            name = "In" if operator == "in" else "NotIn"
            chosen = sorted({value.strip() for value in values.split(",")})
            expressions.append({"key": key, "operator": name, "values": chosen})
        elif match := _EXISTS.fullmatch(part):
            expressions.append({"key": match[2], "operator": "DoesNotExist" if match[1] else "Exists"})
        else:
            raise Malformed(f"{part!r} is no label requirement: write zone=a, zone!=a, zone in (a,b), zone or !zone")
    return ({"matchLabels": labels} if labels else {}) | ({"matchExpressions": expressions} if expressions else {})
