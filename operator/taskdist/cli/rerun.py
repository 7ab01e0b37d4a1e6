"""Making a Task again out of what the archive holds of it, with changes."""

import json
from collections.abc import Sequence
from typing import Any

from taskdist.api import GROUP, VERSION
from taskdist.api.task import TaskSpec
from taskdist.cli.parse import Malformed

RERUN_OF = f"{GROUP}/rerun-of"
"""Label of a Task that was made again: the uid of the first."""
LEFT_OUT = (
    *("deadline", "notBefore", "dependsOn", "onDependencyFailure", "idempotencyKey"),
    *("redrive", "cancel", "suspend", "agent"),
)
"""What meant the first run: times that are past, Tasks and agents that may be gone, and its steering."""
_FIELDS = tuple(field.alias or name for name, field in TaskSpec.model_fields.items())
_LONGEST_NAME = 50


def assignment(text: str) -> tuple[tuple[str, ...], Any]:
    """`payload.x=3` → (("payload", "x"), 3). A value that is no JSON is text; null takes the field away."""
    path, equals, value = text.partition("=")
    parts = tuple(path.split("."))
    if not equals or not all(parts):
        raise Malformed(f"{text!r} changes nothing: write FIELD=VALUE, as in payload.path=a.py or slots=2")
    if parts[0] not in _FIELDS:
        raise Malformed(f"a Task's spec has no {parts[0]!r}: it has {', '.join(_FIELDS)}")
    try:
        return parts, json.loads(value)
    except (ValueError, RecursionError):
        return parts, value


def manifest(
    uid: str,
    namespace: str,
    name: str,
    labels: dict[str, str],
    spec: dict[str, Any],
    changes: Sequence[tuple[tuple[str, ...], Any]],
) -> tuple[dict[str, Any], list[str]]:
    """Return the Task to create, and which fields of the first one were left out and not set anew."""
    again = {key: value for key, value in spec.items() if key not in LEFT_OUT}
    for path, value in changes:
        if path[0] == "payload" and again.get("payloadRef") is not None:
            if len(path) > 1:
                where = again["payloadRef"]["uri"]
                raise Malformed(
                    f"the payload is in an object store ({where}): set the whole of it (payload=JSON), or nothing of it"
                )
            del again["payloadRef"]
        _set(again, path, value)
    body = {
        "apiVersion": f"{GROUP}/{VERSION}",
        "kind": "Task",
        "metadata": {
            "namespace": namespace,
            "generateName": f"{name[:_LONGEST_NAME].rstrip('-.')}-",
            "labels": {**labels, RERUN_OF: uid},
        },
        "spec": again,
    }
    return body, [key for key in LEFT_OUT if spec.get(key) and key not in again]


def _set(target: dict[str, Any], path: tuple[str, ...], value: Any) -> None:
    first, *rest = path
    if rest:
        inner = target.get(first)
        copied = dict(inner) if isinstance(inner, dict) else {}
        _set(copied, tuple(rest), value)
        target[first] = copied
    elif value is None:
        target.pop(first, None)
    else:
        target[first] = value
