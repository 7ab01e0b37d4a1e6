"""How deep JSON may be nested, and how deeper JSON is read without harm.

The API server takes JSON up to 10,000 levels deep; Python's parser and encoder give up at about 1,000 frames of the
stack, wherever they happen to stand in it. So that one such object cannot stop whoever reads a list that holds it,
`loads` cuts what lies deeper than `READ_DEPTH` off, and `too_deep` tells what is to be refused: a payload or a result
of more than `MAX_DEPTH` levels. What was cut is always too deep, so nothing that was cut is ever used.
"""

import json
import re
from itertools import accumulate
from typing import Any, Final

# Levels of objects and lists in a payload, a result, a pod template; {"a": [1]} has two.
MAX_DEPTH: Final = 200
# Levels that are kept of anything that is read. Above the bound, with room for what a payload stands in.
READ_DEPTH: Final = 250

_STRING = r'"[^"\\]*(?:\\.[^"\\]*)*"'
_STRINGS = re.compile(_STRING, re.DOTALL)
_TOKENS = re.compile(_STRING + r"|[\[\]{}]", re.DOTALL)
_OPEN = ord("(")
_ROUND = bytes.maketrans(b"[{]}", b"(())")
_NO_BRACKETS = bytes(sign for sign in range(256) if sign not in b"[]{}")


def too_deep(text: str, most: int = MAX_DEPTH) -> bool:
    """Whether this JSON text has more than so many levels (8 or more). For what is no JSON it means nothing."""
    if text.count("[") + text.count("{") <= most:
        return False
    brackets = _STRINGS.sub("", text).encode("ascii", "ignore").translate(_ROUND, _NO_BRACKETS)
    # Much of what has many brackets is broad, not deep: this takes the innermost levels away, all over the text.
    rounds = 8
    for _ in range(rounds):
        brackets = brackets.replace(b"()", b"")
    steps = (1 if sign == _OPEN else -1 for sign in brackets)
    return any(depth > most - rounds for depth in accumulate(steps))


def cut(text: str, most: int = READ_DEPTH) -> str:
    """Return the JSON text with null for whatever lies deeper than so many levels; itself if nothing does."""
    if not too_deep(text, most):
        return text
    pieces: list[str] = []
    start, depth = 0, 0
    for token in _TOKENS.finditer(text):
        sign = text[token.start()]
        if sign in "[{":
            depth += 1
            if depth == most + 1:
                pieces += (text[start : token.start()], "null")
        elif sign in "]}":
            if depth == most + 1:
                start = token.end()
            depth -= 1
    return "".join((*pieces, text[start:] if depth <= most else ""))


def loads(body: str | bytes) -> Any:
    """Parse JSON of any depth; what is too deep for the parser comes cut. Raises ValueError for what is not JSON."""
    try:
        return json.loads(body)
    except RecursionError:
        return loads_cut(body)


def loads_cut(body: str | bytes) -> Any:
    """Parse JSON, always cut: for readers that go through what they are given level by level."""
    return json.loads(cut(body if isinstance(body, str) else body.decode("utf-8", "replace")))
