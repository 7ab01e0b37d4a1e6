"""What is accepted as a JSON value stays as it is; what would be changed on the way is refused by its field's name."""

import json
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.api.nesting import MAX_DEPTH
from taskdist.protocol.values import fault, parse_object, same

HALF = "half a surrogate pair"
KEPT: dict[str, Any] = {
    "empty": {},
    "null": {"x": None},
    "nested nulls": {"x": {"y": None, "z": [None, {"n": None}]}},
    "empty parts": {"a": {}, "b": [], "": ""},
    "64 bits": {"least": -(2**63), "most": 2**63 - 1},
    "a larger one that a double holds": {"x": 10**19, "y": -(10**22)},
    "fractions": {"x": 0.1, "y": 1e300, "z": -5e-324},
    "a whole pair": {"x": "\U0001f600"},
    "as deep as allowed": json.loads('{"a":' * MAX_DEPTH + "1" + "}" * MAX_DEPTH),
}
CHANGED: dict[str, tuple[str | bytes, str]] = {
    "more than 64 bits": ('{"a": {"b": [1, 9223372036854775809]}}', "a.b[1]: the whole number needs more than 64 bits"),
    "a double, but not its shortest text": ('{"a": 18446744073709551616}', "a: the whole number"),
    "far below 64 bits": ('{"a": -123456789012345678901}', "a: the whole number"),
    "beyond a double": ('{"a": 1e400}', "a: the number is beyond what a double holds"),
    "beyond a double, whole": ('{"a": 1%s}' % ("0" * 400 + "1"), "a: the whole number"),
    "beyond what Python reads": ('{"a": %s}' % ("9" * 5000), "digits"),
    "half a pair": ('{"a": "\\ud83d"}', f"a: it holds {HALF}"),
    "half a pair in a name": ('{"a": {"\\udfff": 1}}', f"a.?: the name holds {HALF}"),
    "not UTF-8": (b'{"a": "\xff"}', "utf-8"),
    "UTF-16": ('{"a": 1}'.encode("utf-16"), "utf-8"),
    "too deep": ('{"a":' * (MAX_DEPTH + 1) + "1" + "}" * (MAX_DEPTH + 1), f"deeper than {MAX_DEPTH}"),
    "too deep, with lists": ('{"a":' + "[" * MAX_DEPTH + "]" * MAX_DEPTH + "}", f"deeper than {MAX_DEPTH}"),
    "too deep for a parser": ('{"a":' * 50_000 + "1" + "}" * 50_000, f"deeper than {MAX_DEPTH}"),
    "NaN": ('{"a": NaN}', "NaN is not JSON"),
    "Infinity": ('{"a": -Infinity}', "-Infinity is not JSON"),
    "a list": ("[1]", "it is a JSON list, not an object"),
    "null": ("null", "it is a JSON null"),
    "nothing": ("", "Expecting value"),
    "two": ("{}{}", "Extra data"),
}


@pytest.mark.parametrize("value", [pytest.param(value, id=name) for name, value in KEPT.items()])
def test_what_can_be_kept_is_taken(value: dict[str, Any]) -> None:
    assert fault(value) == ""
    assert parse_object(json.dumps(value)) == value
    assert parse_object(json.dumps(value, ensure_ascii=False).encode()) == value


@pytest.mark.parametrize(("text", "says"), [pytest.param(*case, id=name) for name, case in CHANGED.items()])
def test_what_would_be_changed_is_refused_with_its_place(text: str | bytes, says: str) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as refused:
        parse_object(text)
    str(refused.value).encode()


def test_a_long_path_is_cut() -> None:
    wrong = fault({"x" * 500: 2**64 + 1})
    assert wrong.startswith("xxx")
    assert len(wrong) < 200


@pytest.mark.parametrize(
    ("left", "right", "equal"),
    [
        pytest.param({"x": [4.429850514704311e16]}, {"x": [44298505147043110]}, True, id="a double written out"),
        pytest.param({"x": 2.0}, {"x": 2}, True, id="a whole double"),
        pytest.param({"x": 2**62}, {"x": 2**62 + 1}, False, id="whole numbers that are one double"),
        pytest.param({"x": 1}, {"x": True}, False, id="a number is no boolean"),
        pytest.param({"x": None}, {}, False, id="null is something"),
        pytest.param({"x": [1]}, {"x": [1, 2]}, False, id="longer"),
        pytest.param({"x": "1"}, {"x": 1}, False, id="text"),
    ],
)
def test_what_counts_as_the_same(left: Any, right: Any, equal: bool) -> None:
    assert same(left, right) is equal
    assert same(right, left) is equal


numbers = st.integers() | st.integers(2**62, 2**70) | st.floats(allow_nan=False)
scalars = st.none() | st.booleans() | numbers | st.text() | st.sampled_from(["\ud800", "\ude00x"])
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=20)


@given(st.dictionaries(st.text(), values, max_size=4))
def test_a_glance_at_the_text_misses_nothing_that_a_walk_finds(value: dict[str, Any]) -> None:
    """The text is looked at first, since a walk through each result would cost more than parsing it."""
    try:
        parse_object(json.dumps(value))
    except ValueError:
        refused = True
    else:
        refused = False
    assert refused == bool(fault(value))
