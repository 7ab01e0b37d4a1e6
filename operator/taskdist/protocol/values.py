"""JSON values that are kept exactly: the one rule for payloads and results, for all who take one in.

A payload or result passes through Python, protobuf and the API server, which is written in Go. The API server stores a
whole number in 64 bits with a sign and any other number as a double, and replaces half a surrogate pair. What it would
change is refused, with the field named: a result that silently becomes another one is worse than none. A number with a
fraction or exponent is a double and comes back as one, though its text may differ (2.0 as 2, 1e16 with its zeros), and
of a name that stands twice in an object the last one counts.
"""

import json
import math
import re
from decimal import Decimal
from typing import Any, NoReturn

from taskdist.api.nesting import MAX_DEPTH

_INT64 = range(-(2**63), 2**63)
# Without one of these in its text, a value holds neither half surrogates nor numbers that are too large.
_SUSPECT = re.compile(r"\\u[dD]|[0-9]{19}|[eE]\+?[0-9]{3}")
_SURROGATE = re.compile("[\ud800-\udfff]")
_HALF = "holds half a surrogate pair, which is no character"
_MAX_SHOWN = 80


def parse_object(text: str | bytes) -> dict[str, Any]:
    """Return the JSON object that this is, UTF-8 if it is bytes. ValueError says what is wrong, and where."""
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    try:
        value = json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError(_too_deep()) from None
    if not isinstance(value, dict):
        raise ValueError(f"it is a JSON {_kind(value)}, not an object")
    if text.count("{") + text.count("[") > MAX_DEPTH or _SUSPECT.search(text):
        wrong = fault(value)
        if wrong:
            raise ValueError(wrong)
    return value


def fault(value: Any) -> str:
    """Return what keeps a JSON value from being stored as it is, with the field's name; empty if nothing does."""
    left: list[tuple[str, int, Any]] = [("", 0, value)]
    while left:
        path, depth, each = left.pop()
        if isinstance(each, dict | list):
            if depth == MAX_DEPTH:
                return _too_deep()
            if isinstance(each, dict):
                for name in each:
                    if isinstance(name, str) and _SURROGATE.search(name):
                        return f"{_shown(f'{path}.{name}')}: the name {_HALF}"
                left.extend((f"{path}.{name}", depth + 1, inner) for name, inner in each.items())
            else:
                left.extend((f"{path}[{number}]", depth + 1, inner) for number, inner in enumerate(each))
        elif wrong := _scalar_fault(each):
            return f"{_shown(path)}: {wrong}"
    return ""


def same(left: Any, right: Any) -> bool:
    """Whether two JSON values are one and the same to the API server: a double may come back as a whole number."""
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(same(value, right[name]) for name, value in left.items())
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, int | float) and isinstance(right, int | float):
        return left == right or (isinstance(left, float) != isinstance(right, float) and float(left) == float(right))
    return bool(left == right)


def _scalar_fault(value: Any) -> str:
    if isinstance(value, str):
        return f"it {_HALF}" if _SURROGATE.search(value) else ""
    if isinstance(value, float):
        return "" if math.isfinite(value) else "the number is beyond what a double holds: write it as a string"
    if isinstance(value, int) and value not in _INT64 and not _is_double(value):
        return "the whole number needs more than 64 bits and would be changed: write it as a string"
    return ""


def _is_double(value: int) -> bool:
    """Whether it is what the shortest text of some double says, as 10²² is: so it comes back, and 2⁶⁴ does not."""
    try:
        return Decimal(repr(float(value))) == value
    except OverflowError:
        return False


def _shown(path: str) -> str:
    """The path for people, within bounds and free of what no text can carry."""
    path = path.removeprefix(".").encode("utf-8", "replace").decode() or '""'
    return path if len(path) <= _MAX_SHOWN else f"{path[:_MAX_SHOWN]}…"


def _too_deep() -> str:
    return f"it is nested deeper than {MAX_DEPTH} levels"


def _kind(value: Any) -> str:
    return {list: "list", str: "string", type(None): "null", bool: "boolean"}.get(type(value), "number")


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
