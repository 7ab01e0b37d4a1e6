"""What kubectl makes of a text is what the review reads: a table of texts and of what kubectl said of each.

The outcomes in `kubectl_reads.json` are those of kubectl 1.32, by
`kubectl annotate --local --dry-run=client -o json -f - x=y`, which needs no server; the annotation is taken out.
"""

import json
from pathlib import Path
from typing import Any

import pytest

from taskdist.lint import Unreadable, read

TABLE: list[dict[str, Any]] = json.loads(Path(__file__).with_name("kubectl_reads.json").read_text())


def in_sizes_of_json(value: Any) -> Any:
    """Whole numbers beyond 64 bits are floats to kubectl and to the API server."""
    if isinstance(value, dict):
        return {key: in_sizes_of_json(each) for key, each in value.items()}
    if isinstance(value, list):
        return [in_sizes_of_json(each) for each in value]
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**63:
        return int(value)
    return float(value) if isinstance(value, int) and not -(2**63) <= value < 2**63 else value


@pytest.mark.parametrize("row", TABLE, ids=lambda row: row["case"])
def test_a_text_is_read_as_kubectl_reads_it(row: dict[str, Any]) -> None:
    if "refused" in row:
        with pytest.raises(Unreadable):
            read(row["text"], "a.yaml")
        return
    # As text, so that true is not 1, nor 1 the same as 1.0.
    said = [json.dumps(in_sizes_of_json(each), sort_keys=True) for each in row["objects"]]
    assert [json.dumps(each.body, sort_keys=True) for each in read(row["text"], "a.yaml")] == said


def test_the_table_has_both_kinds() -> None:
    assert len(TABLE) > 100
    assert {"refused" in row for row in TABLE} == {True, False}


def test_json_knows_its_lines_with_tabs_too() -> None:
    text = '{\n\t"apiVersion": "taskdist.dev/v1alpha1",\n\t"kind": "Task",\n\t"spec": {\n\t\t"slots": 2\n\t}\n}\n'
    assert read(text, "a.json")[0].place("spec.slots") == "a.json:5"
