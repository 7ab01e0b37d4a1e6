"""Models become structural schemas; what has no structural form is refused by name."""

import re
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, Field, create_model

from taskdist.api.meta import ANY_JSON_OBJECT, ObjectMeta
from taskdist.api.schema import DATE_PATTERN, SchemaError, structural


class Colour(StrEnum):
    RED = "Red"
    BLUE = "Blue"


class Inner(BaseModel):
    """An inner object."""

    size: int = 1


Short = Annotated[str, Field(max_length=5)]


def field_schema(annotation: Any, field: Any = ...) -> dict[str, Any]:
    spec = create_model("Spec", value=(annotation, field))
    model = create_model("Kind", metadata=(ObjectMeta, ...), spec=(spec, ...))
    schema: dict[str, Any] = structural(model, {})["properties"]["spec"]["properties"]["value"]
    return schema


KEYS = [
    {"rule": "self.all(k, size(k) >= 0 && size(k) <= 5)", "message": "spec.value: shorten the keys, each has 0 to 5 "
     "characters"},
]  # fmt: skip

SCHEMAS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "a whole number": (int, ..., {"type": "integer", "format": "int64"}),
    "bounds": (
        Annotated[int, Field(ge=1, le=9)],
        5,
        {"type": "integer", "format": "int64", "minimum": 1, "maximum": 9, "default": 5},
    ),
    "a fraction as bound": (
        Annotated[float, Field(ge=0.5)],
        ...,
        {
            "type": "number",
            "minimum": 0.5,
            "x-kubernetes-validations": [
                {"rule": "self >= 0.5", "message": "spec.value: raise it, it must be at least 0.5"}
            ],
        },
    ),
    "null is absence": (Short | None, None, {"type": "string", "maxLength": 5}),
    "an empty default is absence": (Short, "", {"type": "string", "maxLength": 5}),
    "false is a default": (bool, False, {"type": "boolean", "default": False}),
    "an enum": (Colour, Colour.RED, {"type": "string", "enum": ["Red", "Blue"], "default": "Red"}),
    "an enum or null": (Colour | None, None, {"type": "string", "enum": ["Red", "Blue"]}),
    "a time": (datetime, ..., {"type": "string", "format": "date-time", "maxLength": 64, "pattern": DATE_PATTERN}),
    "a model": (
        Inner,
        ...,
        {
            "type": "object",
            "description": "An inner object.",
            "properties": {"size": {"type": "integer", "format": "int64", "default": 1}},
        },
    ),
    "the field's description wins": (
        Inner | None,
        Field(default=None, description="Mine."),
        {
            "type": "object",
            "description": "Mine.",
            "properties": {"size": {"type": "integer", "format": "int64", "default": 1}},
        },
    ),
    "a list": (
        Annotated[list[Short], Field(max_length=3)],
        ...,
        {"type": "array", "maxItems": 3, "items": {"type": "string", "maxLength": 5}},
    ),
    "a map": (
        Annotated[dict[Short, int], Field(max_length=3)],
        ...,
        {
            "type": "object",
            "maxProperties": 3,
            "additionalProperties": {"type": "integer", "format": "int64"},
            "x-kubernetes-validations": KEYS,
        },
    ),
    "any object": (
        dict[str, Any],
        Field(default_factory=dict, json_schema_extra=ANY_JSON_OBJECT),
        {"type": "object", **ANY_JSON_OBJECT},
    ),
}


@pytest.mark.parametrize(("annotation", "field", "expected"), SCHEMAS.values(), ids=SCHEMAS)
def test_translation(annotation: Any, field: Any, expected: dict[str, Any]) -> None:
    assert field_schema(annotation, field) == expected


def test_the_keys_of_a_map_get_their_pattern_as_a_rule() -> None:
    key = Annotated[str, Field(max_length=5, pattern="^a+$")]
    schema = field_schema(Annotated[dict[key, int], Field(max_length=3)])
    assert [each["rule"] for each in schema["x-kubernetes-validations"]][1] == 'self.all(k, k.matches(r"^a+$"))'


def test_rules_of_a_nested_model_stand_where_it_stands() -> None:
    spec = create_model("Spec", value=(Inner, ...))
    model = create_model("Kind", metadata=(ObjectMeta, ...), spec=(spec, ...))
    rules = [{"rule": "self.size > 0", "message": "no"}]
    schema = structural(model, {"Inner": rules})["properties"]["spec"]["properties"]["value"]
    assert schema["x-kubernetes-validations"] == rules


REFUSED: dict[str, tuple[Any, str]] = {
    "a string without a bound": (str, "Kind.spec.value: a string needs a maxLength"),
    "a list without a bound": (list[Short], "Kind.spec.value: a list needs a maxItems"),
    "a map without a bound": (dict[str, int], "Kind.spec.value: a map needs a maxProperties"),
    "a choice of types": (int | bool, "a choice of 2"),
    "an exclusive bound": (Annotated[int, Field(gt=1)], "no structural form of exclusiveMinimum"),
    "anything": (Any, "no type"),
}


@pytest.mark.parametrize(("annotation", "message"), REFUSED.values(), ids=REFUSED)
def test_what_has_no_structural_form_is_refused_by_name(annotation: Any, message: str) -> None:
    with pytest.raises(SchemaError, match=message.replace(".", r"\.")):
        field_schema(annotation)


@pytest.mark.parametrize(
    ("text", "taken"),
    [
        ("2030-01-31T15:00:00Z", True),
        ("2030-01-31T15:00:00.123456789+05:30", True),
        ("9999-12-31T23:59:59-23:59", True),
        ("2030-01-01t00:00:00Z", False),
        ("2030-01-01T00:00:00z", False),
        ("2030-01-01T00:00:00+99:99", False),
        ("2030-01-01T00:00:00x5Z", False),
        ("0000-01-01T00:00:00Z", False),
        ("2030-01-01T00:00:00Z\n", False),
    ],
)
def test_a_time_is_one_that_rules_can_read_too(text: str, taken: bool) -> None:
    """CEL makes an error of any other that the format lets through, and so of each later write."""
    assert bool(re.fullmatch(DATE_PATTERN.removesuffix("$"), text)) is taken
