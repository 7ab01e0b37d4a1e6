"""Reports of what an attempt used of budgets: taken out of what a handler answers, and cut to what the link carries.

A report is never a reason to lose a result: what is wrong with one is left out and said.
"""

import json
import math
from collections.abc import Mapping
from typing import Any

# In what a command prints or a server answers: budgets by name, beside the result.
KEY = "$budgets"
MAX_BUDGETS = 16
MAX_NAME = 101
MAX_AMOUNT = 1_000_000_000

Used = tuple[tuple[str, int], ...]


def tidy(told: Any) -> tuple[Used, str]:
    """Return what can be sent of a report, amounts rounded up, and what is wrong with the rest; empty if nothing is."""
    if told is None:
        return (), ""
    if not isinstance(told, Mapping):
        return (), f"it is {type(told).__name__}, not an object of amounts by budget"
    used = {name: math.ceil(amount) for name, amount in told.items() if _is_amount(name, amount)}
    kept = tuple(sorted(used.items())[:MAX_BUDGETS])
    if len(kept) == len(told):
        return kept, ""
    wrong = sorted(str(name)[:MAX_NAME] for name in told.keys() - dict(kept).keys())[:5]
    return kept, f"at most {MAX_BUDGETS} numbers from 0 to {MAX_AMOUNT} are taken, not what it says of {wrong}"


def split(value: dict[str, Any]) -> Any:
    """Take the report out of what was answered; None if there is none."""
    return value.pop(KEY, None)


def of_result(answer: bytes) -> tuple[bytes, Any]:
    """Return the result, a JSON object, without the report that may stand in it, and that report."""
    if KEY.encode() not in answer:
        return answer, None
    value = json.loads(answer)
    if KEY not in value:
        return answer, None
    used = split(value)
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode(), used


def of_failure(answer: bytes) -> Any:
    """Return the report of an attempt that failed, if its answer is an object that has one."""
    if KEY.encode() not in answer:
        return None
    try:
        value = json.loads(answer)
    except (ValueError, RecursionError):
        return None
    return split(value) if isinstance(value, dict) else None


def _is_amount(name: Any, amount: Any) -> bool:
    # Half a surrogate pair is a text in Python and none on the link.
    named = isinstance(name, str) and 0 < len(name) <= MAX_NAME and name.isprintable()
    return named and type(amount) in (int, float) and 0 <= amount <= MAX_AMOUNT
