"""Samples are valid by the models, fit each other, and teach."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from taskdist.api import AgentPool, Task, TaskQueue, TaskSink, TaskSource

SAMPLES = Path(__file__).parents[3] / "manifests" / "samples"
FILES = sorted(SAMPLES.glob("*.yaml"))
MODELS = {each.kind: each for each in (Task, TaskQueue, AgentPool, TaskSource, TaskSink)}


def documents() -> list[dict[str, Any]]:
    """Of our kinds, of each at least one; others are the API server's to judge."""
    every = [document for file in FILES for document in yaml.safe_load_all(file.read_text())]
    ours = [document for document in every if document["apiVersion"].startswith("taskdist.dev/")]
    assert {document["kind"] for document in ours} == MODELS.keys()
    return ours


def test_a_hard_cap_for_when_the_operator_is_away_is_among_them() -> None:
    quota = yaml.safe_load((SAMPLES / "hard-cap" / "resourcequota.yaml").read_text())
    assert quota["kind"] == "ResourceQuota"
    assert int(quota["spec"]["hard"]["count/tasks.taskdist.dev"]) > 0


def test_each_sample_is_valid_and_says_nothing_that_the_models_do_not_know() -> None:
    for document in documents():
        model = MODELS[document["kind"]]
        parsed = model.model_validate(document)
        written = parsed.model_dump(mode="json", by_alias=True, exclude_unset=True)
        assert written["spec"] == document["spec"]


def test_samples_fit_each_other() -> None:
    by_kind: dict[str, set[str]] = {kind: set() for kind in MODELS}
    for document in documents():
        by_kind[document["kind"]].add(document["metadata"]["name"])
    for document in documents():
        spec = document["spec"]
        if document["kind"] == "Task":
            assert spec["queue"] in by_kind["TaskQueue"]
        if document["kind"] == "TaskQueue":
            assert set(spec["pools"]) <= by_kind["AgentPool"]
        if document["kind"] == "TaskSource":
            assert spec["task"]["queue"] in by_kind["TaskQueue"]
        if document["kind"] == "TaskSink":
            assert set(spec.get("selector", {}).get("queues", [])) <= by_kind["TaskQueue"]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_each_file_begins_with_what_it_teaches(file: Path) -> None:
    assert file.read_text().startswith("# ")
