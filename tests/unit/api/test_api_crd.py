"""The checked-in definitions are what the models say, and every field says what it is and has a bound."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from taskdist.api import crd, rules
from taskdist.api.task import MUTABLE_FIELDS, TaskSpec

ROOT = Path(__file__).parents[3]
COPIES = [ROOT / "crds", ROOT / "charts" / "taskdist" / "files" / "crds"]

KINDS = [pytest.param(kind, id=kind.kind) for kind in crd.kinds()]


def root_schema(kind: crd.Kind) -> dict[str, Any]:
    schema: dict[str, Any] = crd.definition(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    return schema


def nodes(schema: dict[str, Any], path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    yield path, schema
    for name, inner in schema.get("properties", {}).items():
        yield from nodes(inner, f"{path}.{name}")
    if "items" in schema:
        yield from nodes(schema["items"], f"{path}[]")
    if isinstance(schema.get("additionalProperties"), dict):
        yield from nodes(schema["additionalProperties"], f"{path}{{}}")


@pytest.mark.parametrize("directory", [pytest.param(path, id=str(path.relative_to(ROOT))) for path in COPIES])
def test_checked_in_definitions_are_what_the_models_say(directory: Path) -> None:
    assert crd.stale(directory) == [], "run python -m taskdist.api.crd crds charts/taskdist/files/crds"
    assert sorted(path.name for path in directory.iterdir()) == sorted(kind.file_name for kind in crd.kinds())


def test_check_tells_a_stale_file_and_writes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert crd.main([str(tmp_path)]) == 0
    assert crd.main(["--check", str(tmp_path)]) == 0
    stale = tmp_path / "taskdist.dev_tasks.yaml"
    stale.write_text("other")
    assert crd.main(["--check", str(tmp_path)]) == 1
    assert str(stale) in capsys.readouterr().err
    assert stale.read_text() == "other"
    stale.unlink()
    assert crd.main(["--check", str(tmp_path)]) == 1


@pytest.mark.parametrize("kind", KINDS)
def test_every_field_is_described(kind: crd.Kind) -> None:
    bare = [
        path
        for path, schema in nodes(root_schema(kind))
        if not path.endswith(("[]", "{}")) and not schema.get("description") and path != ".metadata"
    ]
    assert bare == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_string_list_and_map_has_a_bound(kind: crd.Kind) -> None:
    bounds = {"array": "maxItems", "string": "maxLength"}
    loose = []
    for path, schema in nodes(root_schema(kind)):
        bound = bounds.get(schema.get("type", ""))
        if "additionalProperties" in schema:
            bound = "maxProperties"
        if bound and bound not in schema and "enum" not in schema and path not in (".apiVersion", ".kind"):
            loose.append(path)
    assert loose == []


@pytest.mark.parametrize("kind", KINDS)
def test_status_is_there_from_the_start_and_has_its_subresource(kind: crd.Kind) -> None:
    version = crd.definition(kind)["spec"]["versions"][0]
    status = root_schema(kind)["properties"]["status"]
    assert status["default"] == ({"phase": "Pending"} if kind.kind == "Task" else {})
    assert version["subresources"]["status"] == {}


@pytest.mark.parametrize("kind", KINDS)
def test_columns_name_fields_that_exist(kind: crd.Kind) -> None:
    known = {path for path, _ in nodes(root_schema(kind))}
    columns = crd.definition(kind)["spec"]["versions"][0]["additionalPrinterColumns"]
    assert len(columns) > 3
    for column in columns:
        path = column["jsonPath"].replace('[?(@.type=="Ready")]', "[]")
        assert path in known | {".metadata.creationTimestamp"}, column["name"]


@pytest.mark.parametrize("kind", KINDS)
def test_rules_stand_on_fields_that_exist(kind: crd.Kind) -> None:
    known = {path for path, _ in nodes(root_schema(kind))}
    assert kind.rules
    assert {each["fieldPath"] for each in kind.rules if "fieldPath" in each} <= known


CHECKS = [*rules.creation_checks(), *rules.spec_checks(), *rules.final_checks(), *rules.progress_checks()]
MESSAGES = [each.message for each in CHECKS]
MESSAGES += [each["message"] for kind in crd.kinds() if kind.kind != "Task" for each in kind.rules]
VERBS = (
    "set ",
    "raise ",
    "change ",
    "choose ",
    "create ",
    "delete ",
    "leave ",
    "read ",
    "stop ",
    "redrive ",
    "every lease",
)


@pytest.mark.parametrize("message", MESSAGES)
def test_messages_name_the_field_and_say_what_to_do(message: str) -> None:
    known = {path[1:] for kind in crd.kinds() for path, _ in nodes(root_schema(kind))} | {"metadata.name"}
    assert message.partition(" ")[0] in known
    assert any(word in message for word in VERBS)
    assert "'" not in message or message.startswith("metadata.name"), "it is quoted within an expression"


def test_all_of_a_tasks_spec_but_the_named_fields_is_immutable() -> None:
    fields = set(TaskSpec.model_json_schema(by_alias=True)["properties"])
    guarded = {
        each.message.partition(" ")[0].removeprefix("spec.")
        for each in rules.spec_checks()
        if "cannot be changed after" in each.message
    }
    assert guarded == fields - set(MUTABLE_FIELDS)


def test_files_hold_one_definition_each_that_says_not_to_edit_it() -> None:
    kinds = list(crd.kinds())
    assert len(kinds) == 5
    for kind in kinds:
        text = crd.render(kind)
        assert text.startswith("# Generated")
        assert yaml.safe_load(text) == crd.definition(kind)
