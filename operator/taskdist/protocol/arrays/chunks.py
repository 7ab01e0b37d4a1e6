"""The chunk that is granted with a part: its items, cut out of what the array's spec holds."""

import json

from taskdist.protocol.arrays.account import ArrayRules
from taskdist.protocol.arrays.indexes import IndexSet
from taskdist.protocol.messages import Body, Chunk

_encode = json.JSONEncoder(separators=(",", ":"), ensure_ascii=False).encode


def chunk_of(items: IndexSet, rules: ArrayRules, payload: Body) -> tuple[Body, Chunk]:
    """Return the payload that all items share, and the chunk.

    Args:
        items: indexes of the part.
        rules: the array's.
        payload: the Task's; a list of all items where each has one of its own.
    """
    spans = tuple((span.first, span.last) for span in items.spans)
    if not rules.inline or not isinstance(payload, bytes):
        return payload, Chunk(spans, rules.count)
    values = json.loads(payload)
    return b"{}", Chunk(spans, rules.count, tuple(_encode(values[index]).encode("utf-8", "replace") for index in items))
