"""The filter of the page on backups: what it lets be created again, run by jq itself."""

import json
import re
from pathlib import Path
from typing import Any

import jq

from taskdist.api import Phase

PAGE = (Path(__file__).parents[3] / "docs" / "backup.md").read_text()
WAITING = {Phase.PENDING, Phase.ASSIGNED}


def dumped(kind: str, name: str, **more: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "team-a", "uid": "u", "resourceVersion": "7", "generation": 2}
    metadata |= {"ownerReferences": [{"uid": "o"}], "finalizers": ["f"], "creationTimestamp": "2030-01-01T00:00:00Z"}
    metadata["labels"] = {"a": "b"}
    return {"apiVersion": "taskdist.dev/v1alpha1", "kind": kind, "metadata": metadata, **more}


def test_the_filter_names_the_phases_that_have_not_ended() -> None:
    (named,) = re.findall(r"IN\((.*?)\)", PAGE)
    assert {json.loads(word) for word in named.split(", ")} == {phase.value for phase in WAITING}


def test_what_has_ended_is_not_created_again() -> None:
    (program,) = re.findall(r"^```jq\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    tasks = [dumped("Task", each.lower(), spec={"redrive": 1}, status={"phase": each.value}) for each in Phase]
    queue = dumped("TaskQueue", "q", spec={"pools": ["p"]}, status={"x": 1})
    items = [*tasks, dumped("Task", "new", spec={}), dumped("TaskSource", "s", spec={"suspend": False}), queue]
    dump = {"apiVersion": "v1", "kind": "List", "metadata": {"resourceVersion": ""}, "items": items}
    found = jq.compile(program).input_value(dump).first()
    assert [each["metadata"]["name"] for each in found["items"]] == [*map(str.lower, WAITING_IN_ORDER), "new", "s", "q"]
    for each in found["items"]:
        assert each["metadata"].keys() == {"name", "namespace", "labels"}
        assert "status" not in each
        assert "redrive" not in each["spec"]
    assert found["items"][-1]["spec"] == {"pools": ["p"], "paused": True}
    assert found["items"][-2]["spec"] == {"suspend": True}


WAITING_IN_ORDER = [phase.value for phase in Phase if phase in WAITING]
