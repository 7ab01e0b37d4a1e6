"""JSON of any depth is read without harm, and what is too deep is known to be."""

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from taskdist.api.nesting import MAX_DEPTH, READ_DEPTH, cut, loads, loads_cut, too_deep

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('[]{}"\\é', max_size=3), inner, max_size=3),
    max_leaves=30,
)


def nested(levels: int, core: str = "") -> str:
    """Lists and objects in turn."""
    return '{"a":[' * (levels // 2) + core + "]}" * (levels // 2)


def depth(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth, value.values()), default=0)
    return 1 + max(map(depth, value), default=0) if isinstance(value, list) else 0


@pytest.mark.parametrize(
    ("text", "deep"),
    [
        pytest.param("[" * MAX_DEPTH + "]" * MAX_DEPTH, False, id="as deep as is allowed"),
        pytest.param("[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1), True, id="one level more"),
        pytest.param(nested(MAX_DEPTH + 2), True, id="lists and objects count alike"),
        pytest.param(json.dumps([{}] * 5000), False, id="broad is not deep"),
        pytest.param(json.dumps({"a": "[" * 5000}), False, id="brackets in a string are none"),
        pytest.param(json.dumps({'"[' * 200: '\\"[{'}), False, id="quotes in a string do not end it"),
        pytest.param("[" * 9990 + "]" * 9990, True, id="as deep as the API server takes"),
    ],
)
def test_depth(text: str, deep: bool) -> None:
    assert too_deep(text) is deep


@settings(max_examples=30)
@given(JSON, st.integers(0, MAX_DEPTH + 10))
def test_depth_is_counted_right(value: object, wrap: int) -> None:
    text = "[" * wrap + json.dumps(value, ensure_ascii=False) + "]" * wrap
    assert too_deep(text) is (wrap + depth(value) > MAX_DEPTH)


@settings(max_examples=30)
@given(JSON)
def test_what_is_not_deep_is_read_as_it_is(value: object) -> None:
    text = json.dumps(value)
    assert loads(text.encode()) == loads_cut(text) == value


@settings(max_examples=30)
@given(JSON, st.integers(READ_DEPTH, 3000))
def test_what_is_deep_comes_cut_and_all_beside_it_whole(value: object, levels: int) -> None:
    text = f'{{"before":{json.dumps(value)},"deep":{"[" * levels}1,2{"]" * levels},"after":{json.dumps(value)}}}'
    read = loads_cut(text)
    assert (read["before"], read["after"]) == (value, value)
    assert depth(read["deep"]) == READ_DEPTH - 1, "cut, and still seen to be too deep"
    assert too_deep(json.dumps(read))


@pytest.mark.parametrize("text", ["[" * 5000, "]" * 5000, '{"a":' * 5000, '"' + "[" * 5000, ""])
def test_what_is_no_json_is_refused_as_such(text: str) -> None:
    with pytest.raises(json.JSONDecodeError):
        loads(text)
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut(text))
