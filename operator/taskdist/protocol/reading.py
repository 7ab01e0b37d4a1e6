"""Reading of objects that may hold anything: what can be used of them, and in which words the rest is refused. Pure.

Whatever raises here raises `Unreadable`, with the field and what to do; `moment` raises ValueError.
"""

import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, TypeVar

from pydantic import ValidationError

from taskdist.api import AgentPool, Reason, TaskQueue, TaskSink, TaskSource, Unreadable, nesting
from taskdist.api.meta import Model

Obj = dict[str, Any]
Kind = TypeVar("Kind", bound=Model)

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
_OF_NEWER = "it is of a newer release"
# What a time is taken for that lies outside of what can be written again: years 1 to 9998.
_EARLIEST, _LATEST = -62135596800.0, 253370764800.0


def moment(text: str) -> float:
    """Read RFC 3339, with `t` and `z` in lower case too. Raises ValueError."""
    moment = datetime.fromisoformat(text.upper() if text[-1:] == "z" else text)
    stamp = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    return min(max(stamp, _EARLIEST), _LATEST)


def shallow(value: Any) -> str | None:
    """Return the value as JSON; None if it is nested too deep."""
    try:
        text = _encode(value)
    except RecursionError:
        return None
    return None if nesting.too_deep(text) else text


def too_deep(field: str) -> str:
    return (
        f"{field} is nested more than {nesting.MAX_DEPTH} levels deep: flatten it, or store the data elsewhere and "
        "pass a reference"
    )


def unknown(field: str, value: object, known: Iterable[str]) -> Unreadable:
    """Return the refusal of a word that this release does not know."""
    told = f"{field} {str(value)[:80]!r} is not known to this release, which knows {', '.join(known)}: {_OF_NEWER}"
    return Unreadable(Reason.UNKNOWN_VALUE, told)


def flaw(error: ValidationError) -> str:
    """Return the first thing that is wrong, by its field. What stands there is not repeated."""
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"[:500]


def task_queue(obj: Obj) -> TaskQueue:
    """A TaskQueue as its model. A status of another release is left out: what it says is written anew."""
    return _read(TaskQueue, obj)


def agent_pool(obj: Obj) -> AgentPool:
    """An AgentPool as its model. A status of another release is left out: what it says is written anew."""
    return _read(AgentPool, obj)


def task_source(obj: Obj) -> TaskSource:
    """A TaskSource as its model. A status of another release is left out: what it says is written anew."""
    return _read(TaskSource, obj)


def task_sink(obj: Obj) -> TaskSink:
    """A TaskSink as its model. A status of another release is left out: what it says is written anew."""
    return _read(TaskSink, obj)


def _read(kind: type[Kind], obj: Obj) -> Kind:
    for each in (obj, {**obj, "status": {}}):
        try:
            return kind.model_validate(each)
        except (ValidationError, RecursionError) as error:
            refused = error
    if not isinstance(refused, ValidationError):
        raise Unreadable(Reason.UNREADABLE, too_deep("it")) from refused
    first = refused.errors(include_url=False, include_context=False)[0]
    field, said = ".".join(str(part) for part in first["loc"]), first["msg"]
    if first["type"] in ("enum", "literal_error"):
        told = f"{field} {str(first['input'])[:80]!r} is not known to this release ({said}): {_OF_NEWER}"
        raise Unreadable(Reason.UNKNOWN_VALUE, told) from refused
    raise Unreadable(Reason.UNREADABLE, f"{field}: {said}"[:500]) from refused
