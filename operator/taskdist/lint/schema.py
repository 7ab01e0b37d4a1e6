"""What the API server's schema says of an object: unknown fields, wrong types, bounds.

Owns reading a structural schema; the schemas are those of the CustomResourceDefinitions. Refuses to know the rules that
compare fields with each other.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from types import MappingProxyType
from typing import Any

from taskdist.api.crd import definition, kinds

Schema = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong at a path, and the mend in words. `unknown` if the field itself is the mistake."""

    path: str
    message: str
    mend: str
    unknown: bool = False


@cache
def schemas() -> Mapping[str, Schema]:
    """By kind: the schema of the version that is served. To make them takes longer than a review."""
    made = {kind.kind: definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"] for kind in kinds()}
    return MappingProxyType(made)


def problems(schema: Schema, value: Any, path: str = "") -> Iterator[Problem]:
    """Yield all that the schema does not allow."""
    kind = schema.get("type")
    if value is None:
        # The API server drops it, and takes the default.
        return
    if kind is not None and not _is(kind, value):
        article = "an" if kind[0] in "aio" else "a"
        yield Problem(path, f"{_shown(value)} is {_named(value)}, not {article} {kind}", f"Write {article} {kind}.")
        return
    if "enum" in schema and value not in schema["enum"]:
        words = [str(each) for each in schema["enum"]]
        near = get_close_matches(str(value), words, 1) or [each for each in words if each.lower() == str(value).lower()]
        hint = f"Did you mean {near[0]}? " if near else ""
        yield Problem(path, f"there is no {_shown(value)} here", f"{hint}Write one of: {', '.join(words)}.")
        return
    if isinstance(value, str):
        yield from _string(schema, value, path)
    elif isinstance(value, bool):
        return
    elif isinstance(value, int | float):
        yield from _number(schema, value, path)
    elif isinstance(value, list):
        yield from _list(schema, value, path)
    elif isinstance(value, dict):
        yield from _object(schema, value, path)


def metadata_problems(metadata: Any) -> Iterator[Problem]:
    """Yield what is no text in labels and annotations: the schemas of custom resources say nothing of metadata."""
    for name in ("labels", "annotations"):
        held = metadata.get(name) if isinstance(metadata, dict) else None
        if held is None:
            continue
        if not isinstance(held, dict):
            yield Problem(f"metadata.{name}", f"it is {_named(held)}, not an object", "Write names and values.")
            continue
        for key, value in held.items():
            if value is not None and not isinstance(value, str):
                quoted = f'Put it in quotes: "{_shown(value)}".' if isinstance(value, int | float) else "Write text."
                message = f"{_shown(value)} is {_named(value)}, not a string"
                yield Problem(f"metadata.{name}.{key}", message, quoted)


def _string(schema: Schema, value: str, path: str) -> Iterator[Problem]:
    shortest, longest = schema.get("minLength", 0), schema.get("maxLength")
    if len(value) < shortest:
        yield Problem(path, "it is empty" if not value else f"it has {len(value)} characters", "Write it out.")
    elif longest is not None and len(value) > longest:
        yield Problem(path, f"it has {len(value)} characters, more than {longest}", "Shorten it.")
    elif schema.get("format") == "date-time":
        if not (re.search(schema.get("pattern", ""), value) and _time(value)):
            yield Problem(path, f"{_shown(value)} is no time", 'Write it like "2030-01-31T12:00:00Z".')
    elif "pattern" in schema and not re.search(schema["pattern"], value):
        yield Problem(path, f"{_shown(value)} does not match {schema['pattern']}", "Choose other characters.")


def _number(schema: Schema, value: float, path: str) -> Iterator[Problem]:
    least, most = schema.get("minimum"), schema.get("maximum")
    if least is not None and value < least:
        yield Problem(path, f"{value} is less than {least}", f"Raise it to {least} at least.")
    if most is not None and value > most:
        yield Problem(path, f"{value} is more than {most}", f"Lower it to {most} at most.")


def _list(schema: Schema, value: list[Any], path: str) -> Iterator[Problem]:
    shortest, longest = schema.get("minItems", 0), schema.get("maxItems")
    if len(value) < shortest:
        yield Problem(path, f"it has {len(value)} entries, fewer than {shortest}", "Add one.")
    if longest is not None and len(value) > longest:
        yield Problem(path, f"it has {len(value)} entries, more than {longest}", "Take some away.")
    keys = schema.get("x-kubernetes-list-map-keys")
    seen: list[Any] = []
    for number, each in enumerate(value):
        if each is None and "items" in schema:
            yield Problem(f"{path}[{number}]", "it is null, which is no entry", "Take it away.")
        yield from problems(schema.get("items", {}), each, f"{path}[{number}]")
        unique = [each.get(key) for key in keys] if keys and isinstance(each, dict) else each
        if schema.get("x-kubernetes-list-type") in ("set", "map") and unique in seen:
            said = ", ".join(map(str, unique)) if isinstance(unique, list) else unique
            yield Problem(f"{path}[{number}]", f"{said} is there twice", "Take one of them away.")
        seen.append(unique)


def _object(schema: Schema, value: dict[Any, Any], path: str) -> Iterator[Problem]:
    known: dict[str, Schema] = schema.get("properties", {})
    values = schema.get("additionalProperties")
    for name in schema.get("required", ()):
        if value.get(name) is None:
            yield Problem(_join(path, name), "is missing", "Add it.")
    most = schema.get("maxProperties")
    if most is not None and len(value) > most:
        yield Problem(path, f"it has {len(value)} entries, more than {most}", "Take some away.")
    for key, inner in value.items():
        below = _join(path, str(key))
        if key in known:
            yield from problems(known[key], inner, below)
        elif isinstance(values, dict):
            yield from problems(values, inner, below)
        elif known and not schema.get("x-kubernetes-preserve-unknown-fields"):
            near = get_close_matches(str(key), known, 1)
            hint = f"Did you mean {near[0]}? " if near else ""
            yield Problem(
                below,
                "there is no such field: the API server refuses it or drops it",
                f"{hint}There are: {', '.join(sorted(known))}.",
                unknown=True,
            )


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def _is(kind: str, value: Any) -> bool:
    match kind:
        case "string":
            return isinstance(value, str)
        case "boolean":
            return isinstance(value, bool)
        case "integer":
            return isinstance(value, int) and not isinstance(value, bool)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "array":
            return isinstance(value, list)
        case _:
            return isinstance(value, dict)


def _named(value: Any) -> str:
    names = {str: "a string", bool: "a boolean", int: "an integer", float: "a number", list: "an array"}
    return names.get(type(value), "an object")


def _shown(value: Any) -> str:
    text = repr(value) if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _time(text: str) -> bool:
    try:
        return datetime.fromisoformat(text).tzinfo is not None
    except ValueError:
        return False
