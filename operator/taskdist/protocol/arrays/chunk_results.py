"""The result of a chunk as its agent sends it: which items returned what, which failed, which were not tried.

JSON, UTF-8: `{"results": {"5": {…}}, "failed": [{"items": "7-8", "reason": "HandlerError", "message": "…"}], "left":
"9-20", "dropped": 0}`. An item that is in none of these succeeded and returned nothing. Both ends read and write it
here. What an agent says counts for the items of its own part only; see `Account.ended`.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from taskdist.api import Reason
from taskdist.protocol.arrays.account import MAX_ERROR_MESSAGE
from taskdist.protocol.arrays.indexes import EMPTY, IndexSet

_REASONS = {str(reason): reason for reason in Reason}


class FailedItems(NamedTuple):
    """Items that failed in the same way."""

    items: IndexSet
    reason: Reason
    message: str
    retryable: bool = True


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """What became of the items of a part."""

    results: Mapping[int, str] = field(default_factory=dict)  # JSON text by index, of those that returned something
    failed: tuple[FailedItems, ...] = ()
    left: IndexSet = EMPTY  # not tried
    dropped: int = 0  # results that found no room


def encode(result: ChunkResult) -> bytes:
    """Return it as the body of a `Result`."""
    failed = [
        {"items": str(each.items), "reason": str(each.reason), "message": each.message[:MAX_ERROR_MESSAGE]}
        | ({} if each.retryable else {"retryable": False})
        for each in result.failed
    ]
    told = {
        "results": {str(index): json.loads(text) for index, text in result.results.items()},
        "failed": failed,
        "left": str(result.left),
        "dropped": result.dropped,
    }
    return _text({name: value for name, value in told.items() if value}).encode("utf-8", "replace")


def decode(body: bytes) -> ChunkResult:
    """Read what an agent sent. Raises ValueError for anything else than a chunk's result."""
    try:
        told = json.loads(body)
        return ChunkResult(
            {_index(key): _text(value) for key, value in (told.get("results") or {}).items()},
            tuple(
                FailedItems(
                    IndexSet.parse(each["items"]),
                    _REASONS.get(each.get("reason"), Reason.HANDLER_ERROR),
                    str(each.get("message") or "")[:MAX_ERROR_MESSAGE],
                    bool(each.get("retryable", True)),
                )
                for each in told.get("failed") or ()
            ),
            IndexSet.parse(told.get("left") or ""),
            max(0, int(told.get("dropped") or 0)),
        )
    except ValueError:
        raise
    except (AttributeError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"no result of a chunk: {error!r}"[:200]) from error


def _index(key: str) -> int:
    index = IndexSet.parse(key)
    if len(index) != 1:
        raise ValueError(f"{key[:20]!r} is no index")
    return index.spans[0].first


_text = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode
