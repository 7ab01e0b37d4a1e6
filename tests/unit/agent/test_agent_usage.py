"""What handlers say they used of budgets: what of it is sent on, and what is said of the rest."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from taskdist.agent import usage


@pytest.mark.parametrize(
    ("told", "kept", "said"),
    [
        pytest.param(None, (), "", id="nothing"),
        pytest.param({"b": 2, "a": 0}, (("a", 0), ("b", 2)), "", id="amounts"),
        pytest.param({"a": 1.2}, (("a", 2),), "", id="rounded-up"),
        pytest.param({"a": -1, "b": 2}, (("b", 2),), "['a']", id="negative"),
        pytest.param({"a": 10**9 + 1, "b": 10**9}, (("b", 10**9),), "['a']", id="too-much"),
        pytest.param({"a": True, "b": "3", "c": None}, (), "['a', 'b', 'c']", id="no-numbers"),
        pytest.param({"a": float("nan"), "b": float("inf")}, (), "['a', 'b']", id="not-finite"),
        pytest.param({"": 1, "x" * 102: 1}, (), "['', ", id="no-names"),
        pytest.param({f"b{n:02}": 1 for n in range(17)}, tuple((f"b{n:02}", 1) for n in range(16)), "b16", id="many"),
        pytest.param([1], (), "it is list", id="no-object"),
    ],
)
def test_a_report_is_cut_to_what_can_be_sent(told: Any, kept: usage.Used, said: str) -> None:
    found, wrong = usage.tidy(told)
    assert found == kept
    assert said in wrong
    assert bool(wrong) == bool(said)


@given(st.dictionaries(st.text(max_size=9), st.integers() | st.text(max_size=3), max_size=4))
def test_a_result_without_a_report_is_passed_on_as_it_is(value: dict[str, Any]) -> None:
    value.pop(usage.KEY, None)
    body = json.dumps(value, indent=1).encode()
    assert usage.of_result(body) == (body, None)
    told = json.dumps({**value, usage.KEY: {"b": 1}}).encode()
    result, used = usage.of_result(told)
    assert (json.loads(result), used) == (value, {"b": 1})
    assert usage.of_failure(told) == {"b": 1}
