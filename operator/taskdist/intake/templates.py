"""A text with paths in braces: parsed once, filled in for each message. Pure.

`{$.order.id}` is a path into the JSON body. `{$.tenant?acme}` stands for acme where nothing is there, `{$.tenant?}` for
no value at all: the field is left out. `{{` and `}}` are braces. The grammar is `api.template`'s.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from taskdist.api.template import EXPRESSION_PATTERN, MAX_TEMPLATE, PATH_PATTERN, ROOTS, TEMPLATE_PATTERN
from taskdist.intake.message import Absent, Parts, Poison, PoisonReason

_WHOLE = re.compile(TEMPLATE_PATTERN)
_PATH = re.compile(PATH_PATTERN)
_ROOT = re.compile(r"\$|[a-z0-9]+")
_TOKENS = re.compile(rf"\{{\{{|\}}\}}|{EXPRESSION_PATTERN}|[^{{}}]+")
_STEPS = re.compile(r"\.([^.\[]+)|\[(?:(-?[0-9]+)|(['\x22])(.*?)\3)\]", re.DOTALL)
_BRACES: Final = {"{{": "{", "}}": "}"}

Step = str | int


class TemplateError(Exception):
    """The text is no template; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Expression:
    """A path in braces, and the default that stands for nothing."""

    text: str
    """The text as it was written, for messages."""
    root: str
    steps: tuple[Step, ...]
    default: str | None
    """None: something has to be there. Empty: without it there is no value."""

    def value(self, parts: Parts) -> Any:
        """Return the value there. Raises `Absent` where it may be absent and is, and `Poison` where it may not."""
        try:
            found = parts.get(self.root)
            for step in self.steps:
                found = _inner(found, step)
            if found is None and self.default is not None:
                raise Absent
        except Absent:
            if self.default:
                return self.default
            if self.default is not None:
                raise
            raise Poison(PoisonReason.NOTHING_THERE, f"{self.text} gives nothing") from None
        return found


@dataclass(frozen=True, slots=True)
class Template:
    """Literal texts and expressions, in order."""

    pieces: tuple[str | Expression, ...]

    @property
    def alone(self) -> Expression | None:
        """The expression, if the template is nothing else: it then keeps its type."""
        only = self.pieces[0] if len(self.pieces) == 1 else None
        return only if isinstance(only, Expression) else None

    @property
    def expressions(self) -> Iterator[Expression]:
        return (piece for piece in self.pieces if isinstance(piece, Expression))

    @property
    def constant(self) -> str | None:
        """The text, if it is the same for every message."""
        return None if any(self.expressions) else "".join(str(piece) for piece in self.pieces)

    def text(self, parts: Parts) -> str:
        """Return the text. Raises like `Expression.value`, and `Poison` where a value is no text or number."""
        return "".join(
            _as_text(piece.value(parts), piece.text) if isinstance(piece, Expression) else piece
            for piece in self.pieces
        )


def parse(text: str) -> Template:
    """Parse a template. Raises `TemplateError`."""
    if len(text) > MAX_TEMPLATE:
        raise TemplateError(f"it has {len(text)} characters, more than {MAX_TEMPLATE}: shorten it")
    if not _WHOLE.fullmatch(text):
        raise TemplateError(
            f"{_wrong(text)!r} is no path in braces: write one such as {{$.order.id}}, {{headers.tenant}} or "
            f"{{$['a b'][0]?default}}, starting with one of {', '.join(ROOTS)}; a brace itself is written twice"
        )
    pieces: list[str | Expression] = []
    for token in (found.group() for found in _TOKENS.finditer(text)):
        if token.startswith("{") and token != "{{":
            pieces.append(_expression(token))
            continue
        literal = _BRACES.get(token, token)
        if pieces and isinstance(pieces[-1], str):
            pieces[-1] += literal
        else:
            pieces.append(literal)
    return Template(tuple(pieces))


def _wrong(text: str) -> str:
    """Return the part of a text that the grammar does not take, for people."""
    end = 0
    while found := _TOKENS.match(text, end):
        end = found.end()
    close = text.find("}", end)
    rest = text[end : close + 1] if close >= 0 else text[end:]
    return rest if len(rest) <= 60 else f"{rest[:60]}…"


def _expression(token: str) -> Expression:
    inner = token[1:-1]
    path, root = _PATH.match(inner), _ROOT.match(inner)
    if path is None or root is None:
        raise AssertionError("the grammar has let it pass")
    steps = tuple(
        name or (int(index) if index else quoted)
        for name, index, _, quoted in _STEPS.findall(inner[root.end() : path.end()])
    )
    default = inner[path.end() + 1 :] if path.end() < len(inner) else None
    return Expression(token, root.group(), steps, default)


def _inner(value: Any, step: Step) -> Any:
    if isinstance(step, str):
        if isinstance(value, Mapping) and step in value:
            return value[step]
    elif isinstance(value, list) and -len(value) <= step < len(value):
        return value[step]
    raise Absent


def _as_text(value: Any, where: str) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        try:
            return json.dumps(value, allow_nan=False)
        except ValueError:  # infinite, or of more digits than Python writes
            raise Poison(PoisonReason.INVALID_VALUE, f"{where} gives a number beyond all bounds") from None
    raise Poison(PoisonReason.WRONG_TYPE, f"{where} gives {kind(value)}, not a text or a number")


def kind(value: Any) -> str:
    """Name the type of a JSON value, in words."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "a boolean"
    if isinstance(value, str):
        return "a text"
    if isinstance(value, int | float):
        return "a number"
    return "a list" if isinstance(value, list) else "an object"
