"""The archive's word to the operator: what is read of it, and what is not believed."""

from typing import Any

import pytest

from taskdist.kube import archived


def config_map(data: Any, version: Any = "100") -> dict[str, Any]:
    return {"metadata": {"name": "taskdist-archive", "resourceVersion": version}, "data": data}


@pytest.mark.parametrize(
    ("obj", "marks"),
    [
        pytest.param(config_map({"marks": '{"*": 7}'}), {"*": 7}, id="one for all"),
        pytest.param(config_map({"marks": '{"a": 7, "b": 9}'}), {"a": 7, "b": 9}, id="one each"),
        pytest.param(config_map({"marks": '{"a": 7, "b": 101}'}), {"a": 7}, id="later than the word itself"),
        pytest.param(config_map({"marks": '{"a": 100}'}), {}, id="as late as the word itself"),
        pytest.param(config_map({"marks": '{"a": "7", "b": 1.5, "c": true, "d": -1, "e": null}'}), {}, id="no numbers"),
        pytest.param(config_map({"marks": "[7]"}), {}, id="a list"),
        pytest.param(config_map({"marks": "7"}), {}, id="a number"),
        pytest.param(config_map({"marks": "{"}), {}, id="no JSON"),
        pytest.param(config_map({"marks": "[" * 100_000}), {}, id="too deep"),
        pytest.param(config_map({"marks": 7}), {}, id="no text"),
        pytest.param(config_map({}), {}, id="another key"),
        pytest.param(config_map(None), {}, id="no data"),
        pytest.param(config_map([]), {}, id="data of another kind"),
        pytest.param(config_map("marks"), {}, id="data that is a word"),
        pytest.param(config_map({"marks": '{"*": 7}'}, "x7"), {}, id="a version that is no number"),
    ],
)
def test_read(obj: dict[str, Any], marks: dict[str, int]) -> None:
    assert archived.read(obj).marks == marks


def test_what_is_written_is_read() -> None:
    body = archived.body("n", {"*": 7, "ns": 9}, "41")
    assert body["metadata"] == {"name": "n", "resourceVersion": "41"}
    found = archived.read({**body, "metadata": {**body["metadata"], "resourceVersion": "42"}})
    assert [found.up_to("other"), found.up_to("ns")] == [7, 9]
    assert [found.covers("ns", version) for version in (8, 9, 10)] == [True, True, False]
    assert not archived.NOTHING.covers("ns", 1)
