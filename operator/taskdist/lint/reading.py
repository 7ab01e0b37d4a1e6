"""YAML and JSON as kubectl reads them: the YAML 1.1 of sigs.k8s.io/yaml, and JSON where a text begins with a brace.

What a scalar means, which keys there may be and what is refused differ from other readers of YAML: `1e3` is a number,
`1:30` is text, `y` is true, keys become text. Owns that, and the nodes that know the lines. Refuses to know manifests.
"""

import base64
import binascii
import json
import re
from collections.abc import Hashable, Iterator
from typing import Any

import yaml

_PREFIX = "tag:yaml.org,2002:"
_STR, _INT, _FLOAT, _BOOL, _NULL, _MERGE, _BINARY = (
    _PREFIX + name for name in ("str", "int", "float", "bool", "null", "merge", "binary")
)
_WORDS: dict[str, tuple[str, Any]] = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL"), (_NULL, None)),
    **dict.fromkeys(["y", "Y", "yes", "Yes", "YES", "on", "On", "ON", "true", "True", "TRUE"], (_BOOL, True)),
    **dict.fromkeys(["n", "N", "no", "No", "NO", "off", "Off", "OFF", "false", "False", "FALSE"], (_BOOL, False)),
    **{sign + word: (_FLOAT, float(sign + "inf")) for sign in ("", "+", "-") for word in (".inf", ".Inf", ".INF")},
    **{word: (_FLOAT, float("nan")) for word in (".nan", ".NaN", ".NAN")},
    "<<": (_MERGE, "<<"),
}
_DECIMAL = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_WHOLE = re.compile(r"([-+]?)(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO]?[0-7]+|0|[1-9][0-9]*)")
_INT64 = 2**63
# From so many values on, aliases may make up no more than a part of a document, less the more there are.
_ALIASES_FREE, _ALIASES_RARE = 400_000, 4_000_000


class Unreadable(ValueError):
    """The text is no YAML. `line` is where it ceases to be, from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def documents(text: str) -> Iterator[tuple[Any, yaml.Node | None]]:
    """Yield each document and the node that knows its lines; None where the lines cannot be told.

    Raises:
        Unreadable: kubectl could not read it either.
    """
    text = text.removeprefix("\ufeff")
    try:
        if text.lstrip().startswith("{"):
            yield from _json(text)
            return
        loader = _Loader(text)
        while loader.check_node():
            node = loader.get_node()
            if node is not None:
                _bounded(node)
                yield loader.construct_document(node), node
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise Unreadable(error.problem or str(error), mark.line + 1 if mark else 1) from None
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise Unreadable(f"the character U+{ord(text[error.position]):04X} is not allowed", line) from None
    except json.JSONDecodeError as error:
        message = f"it begins as JSON, and is none: {error.msg}, column {error.colno}"
        raise Unreadable(message, error.lineno) from None
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable(str(error).splitlines()[0], 1) from None
    except RecursionError:
        raise Unreadable("it is nested too deeply", 1) from None


def _json(text: str) -> Iterator[tuple[Any, yaml.Node | None]]:
    """One JSON value after the other."""
    decoder = json.JSONDecoder(parse_constant=_no_constant, parse_float=_float, parse_int=lambda word: _int(int(word)))
    at = _blank(text, 0)
    while at < len(text):
        value, end = decoder.raw_decode(text, at)
        try:
            # JSON is YAML but for tabs between its words; within strings it has none.
            before = "\n" * text.count("\n", 0, at)
            node = yaml.compose(before + text[at:end].replace("\t", " "), Loader=_Loader)
        except yaml.YAMLError:
            node = None
        yield value, node
        at = _blank(text, end)


def _blank(text: str, at: int) -> int:
    while at < len(text) and text[at] in " \t\r\n":
        at += 1
    return at


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON")


def _int(value: int) -> int | float:
    return value if -_INT64 <= value < _INT64 else float(value)


def _float(word: str) -> int | float:
    """1.0 is 1: on the way to the API server it is written so."""
    value = float(word)
    if value in (float("inf"), float("-inf")):
        raise ValueError(f"{word} is out of range")
    return int(value) if value.is_integer() and abs(value) < _INT64 else value


def _meaning(word: str) -> tuple[str, Any]:
    """The tag and the value of a scalar without quotes."""
    if word in _WORDS:
        return _WORDS[word]
    if word[0] not in "+-.0123456789":
        return _STR, word
    plain = word if word[0] == "." else word.replace("_", "")
    if whole := _WHOLE.fullmatch(plain):
        sign, digits = whole.groups()
        octal = len(digits) > 1 and digits[0] == "0" and digits[1].isdigit()
        value = int(digits, 8 if octal else 0)
        value = -value if sign == "-" else value
        if -_INT64 <= value < 2 * _INT64:
            return _INT, _int(value)
    if _DECIMAL.fullmatch(plain):
        number = float(plain)
        if abs(number) < float("inf"):
            return _FLOAT, _float(plain)
    return _STR, word


def _bounded(root: yaml.Node) -> None:
    """Refuse aliases within what they name, and documents that are small only until their aliases are followed."""
    sizes: dict[int, int] = {}
    open_: set[int] = set()

    def size(node: yaml.Node) -> int:
        key = id(node)
        if key in open_:
            raise Unreadable("an anchor holds itself", node.start_mark.line + 1)
        if key not in sizes:
            open_.add(key)
            inner: list[yaml.Node] = []
            if isinstance(node, yaml.SequenceNode):
                inner = node.value
            elif isinstance(node, yaml.MappingNode):
                inner = [each for pair in node.value for each in pair]
            sizes[key] = 1 + sum(map(size, inner))
            open_.discard(key)
        return sizes[key]

    whole = size(root)
    reach = min(max((whole - _ALIASES_FREE) / (_ALIASES_RARE - _ALIASES_FREE), 0.0), 1.0)
    if whole > 1000 and 1 - len(sizes) / whole > 0.99 - 0.89 * reach:
        raise Unreadable("its aliases make it excessively large", 1)


class _Loader(yaml.SafeLoader):
    """PyYAML's reader with kubectl's scalars, keys, tags and tabs."""

    def scan_to_next_token(self) -> None:
        """A tab is a space between two words of a line, and before words within brackets."""
        super().scan_to_next_token()
        while self.peek() == "\t" and (self.flow_level or not self.allow_simple_key):
            self.forward()
            super().scan_to_next_token()

    def scan_plain(self) -> Any:
        """After a scalar without quotes, no tab may stand where the next line's indentation has to be."""
        token = super().scan_plain()
        if self.peek() == "\t" and self.line > token.end_mark.line and self.column < self.indent + 1:
            raise yaml.scanner.ScannerError(None, None, "found a tab that violates indentation", self.get_mark())
        return token

    def compose_node(self, parent: Any, index: Any) -> Any:
        """An anchor may be given anew."""
        if not self.check_event(yaml.AliasEvent):
            self.anchors.pop(self.peek_event().anchor, None)  # type: ignore[no-untyped-call]
        return super().compose_node(parent, index)

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        if kind is yaml.ScalarNode and implicit[0]:
            return _meaning(value)[0]
        return str(super().resolve(kind, value, (False, False)))  # type: ignore[no-untyped-call]

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Hashable, Any]:  # noqa: ARG002 (PyYAML names it)
        """Keys are text in the end; of two alike the last counts."""
        self.flatten_mapping(node)
        made: dict[Hashable, Any] = {}
        for key, inner in node.value:
            made[_key(self, key)] = self.construct_object(inner, deep=True)
        return made


def _key(loader: _Loader, node: yaml.Node) -> str:
    if isinstance(node, yaml.ScalarNode):
        tag, value = _meaning(node.value)
        if node.tag == _BOOL and tag == _BOOL:
            return "true" if value else "false"
        if node.tag == _INT and isinstance(value, int):
            return str(value)
        if node.tag == _FLOAT and tag == _FLOAT:
            return f"{value:g}" if abs(value) < float("inf") else str(node.value).lower()
        found = loader.construct_object(node) if node.tag not in (_INT, _NULL) else None
        if isinstance(found, str):
            return found
    raise Unreadable("a key has to be text", node.start_mark.line + 1)


def _scalar(loader: _Loader, node: yaml.Node) -> Any:
    """The value of a scalar of a known tag, which may have been given explicitly."""
    word = loader.construct_scalar(node)  # type: ignore[arg-type]
    tag, value = _meaning(word)
    if node.tag == _FLOAT and tag == _INT:
        tag = _FLOAT
    if tag != node.tag:
        raise Unreadable(f"{word!r} is no {node.tag.removeprefix(_PREFIX)}", node.start_mark.line + 1)
    if isinstance(value, float) and not abs(value) < float("inf"):
        raise Unreadable(f"{word} is no number of JSON", node.start_mark.line + 1)
    return value


def _binary(loader: _Loader, node: yaml.Node) -> str:
    word = "".join(str(loader.construct_scalar(node)).split())  # type: ignore[arg-type]
    try:
        return base64.b64decode(word, validate=True).decode(errors="replace")
    except (ValueError, binascii.Error):
        raise Unreadable("it is no base64", node.start_mark.line + 1) from None


def _any(loader: _Loader, node: yaml.Node) -> Any:
    """Of other tags the form alone counts."""
    if isinstance(node, yaml.MappingNode):
        return loader.construct_mapping(node)
    if isinstance(node, yaml.SequenceNode):
        return loader.construct_sequence(node, deep=True)
    return loader.construct_scalar(node)  # type: ignore[arg-type]


_Loader.yaml_constructors = {
    **dict.fromkeys((_NULL, _BOOL, _INT, _FLOAT), _scalar),
    _BINARY: _binary,
    None: _any,
}
_Loader.yaml_multi_constructors = {}
