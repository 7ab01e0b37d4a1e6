"""Turns a pydantic model into the structural schema that a CustomResourceDefinition asks for.

Owns the translation only: references resolved, "or null" taken away (in Kubernetes an absent field says it), defaults
that carry no information left out, the bounds of map keys and fractional ones turned into CEL. A keyword that the API
server would ignore or refuse is an error here, as is a string, list or map without a bound: CEL's cost budget and etcd
both rest on them.
"""

from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

# Longest form of RFC 3339 that clients write (nanoseconds and an offset take 35), with some room.
_DATE_LENGTH = 64
# The format alone lets through what is no time: an offset of 99 hours, a year 0, any sign before the fraction. Of RFC
# 3339's lower-case letters CEL makes nothing, so that no rule that looks at such an object could ever be met again.
DATE_PATTERN = (
    r"^[1-9][0-9]{3}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?"
    r"(Z|[+-]([01][0-9]|2[0-3]):[0-5][0-9])$"
)
_PASSED_ON = (
    "description",
    "type",
    "nullable",
    "format",
    "enum",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
)
_KNOWN = {*_PASSED_ON, "title", "default", "properties", "required", "items", "additionalProperties", "propertyNames"}


class SchemaError(Exception):
    """A model says something that a structural schema cannot; the message names the field."""


def structural(model: type[BaseModel], rules: Mapping[str, list[Schema]]) -> Schema:
    """Return the structural schema of a kind. `rules` gives CEL rules to nested models, by class name."""
    source = model.model_json_schema(by_alias=True)
    definitions = source.pop("$defs", {})
    source["properties"].pop("metadata")  # The API server has its own schema of it.
    return _Translation(definitions, rules).translate(source, model.__name__)


class _Translation:
    def __init__(self, definitions: Mapping[str, Schema], rules: Mapping[str, list[Schema]]) -> None:
        self._definitions = definitions
        self._rules = rules

    def translate(self, source: Schema, path: str) -> Schema:
        source = _with_key_pattern(self._resolve(source, path))
        rules = list(source.pop("x-rules", []))
        unknown = {key for key in source if key not in _KNOWN and not key.startswith("x-kubernetes-")}
        if unknown:
            raise SchemaError(f"{path}: no structural form of {', '.join(sorted(unknown))}")
        result: Schema = {key: source[key] for key in _PASSED_ON if key in source}
        if source.get("default") not in (None, "", [], ()) and not _is_empty_map(source):
            result["default"] = source["default"]
        if "properties" in source:
            result["properties"] = {
                name: self.translate(inner, f"{path}.{name}") for name, inner in source["properties"].items()
            }
        if source.get("required"):
            result["required"] = sorted(source["required"])
        if "items" in source:
            result["items"] = self.translate(source["items"], f"{path}[]")
        if isinstance(source.get("additionalProperties"), dict):
            result["additionalProperties"] = self.translate(source["additionalProperties"], f"{path}{{}}")
        result.update({key: value for key, value in source.items() if key.startswith("x-kubernetes-")})
        rules += _key_rules(source.get("propertyNames", {}), path) + _least_rules(result, path)
        if rules:
            result["x-kubernetes-validations"] = rules
        return _bounded(result, path)

    def _resolve(self, source: Schema, path: str) -> Schema:
        """Follow references and take "or null" away; what stands beside a reference wins over what it refers to."""
        source = dict(source)
        if "anyOf" in source:
            choices = [choice for choice in source.pop("anyOf") if choice.get("type") != "null"]
            if len(choices) != 1:
                raise SchemaError(f"{path}: a structural schema has one type, not a choice of {len(choices)}")
            source = {**choices[0], **source}
        if "$ref" in source:
            name = source.pop("$ref").rpartition("/")[2]
            inner = self._resolve(self._definitions[name], path)
            if name in self._rules:
                inner["x-rules"] = self._rules[name]
            source = {**inner, **source}
        return source


def _with_key_pattern(source: Schema) -> Schema:
    """A map whose keys have a pattern is said as `patternProperties` of one pattern; put it with the keys' bounds."""
    if "patternProperties" not in source:
        return source
    ((pattern, values),) = source.pop("patternProperties").items()
    return {
        **source,
        "additionalProperties": values,
        "propertyNames": {**source.get("propertyNames", {}), "pattern": pattern},
    }


def _is_empty_map(source: Schema) -> bool:
    """An empty default of a map says nothing; of an object with defaults of its own it brings these in."""
    return source.get("default") == {} and "properties" not in source


def _key_rules(names: Schema, path: str) -> list[Schema]:
    """CustomResourceDefinitions have no `propertyNames`: the bounds of a map's keys become rules."""
    rules: list[Schema] = []
    where = path.partition(".")[2]
    if "maxLength" in names:
        shortest, longest = names.get("minLength", 0), names["maxLength"]
        rules.append(
            {
                "rule": f"self.all(k, size(k) >= {shortest} && size(k) <= {longest})",
                "message": f"{where}: shorten the keys, each has {shortest} to {longest} characters",
            }
        )
    if "pattern" in names:
        rules.append(
            {
                # A raw text, as no pattern of ours has quotation marks and some have the other sign.
                "rule": f'self.all(k, k.matches(r"{names["pattern"]}"))',
                "message": f"{where}: rename the keys, each must match {names['pattern']}",
            }
        )
    return rules


def _least_rules(schema: Schema, path: str) -> list[Schema]:
    """The API server cuts a bound's fraction off before it compares it with a whole number, so that 0 would pass as at
    least 0.001: a rule says it once more."""
    least = schema.get("minimum", 0)
    if least == int(least):
        return []
    return [{"rule": f"self >= {least}", "message": f"{path.partition('.')[2]}: raise it, it must be at least {least}"}]


def _bounded(schema: Schema, path: str) -> Schema:
    """Refuse what has no bound, and give one to what has it by its nature."""
    kind = schema.get("type")
    if schema.get("format") == "date-time":
        schema.setdefault("maxLength", _DATE_LENGTH)
        schema.setdefault("pattern", DATE_PATTERN)
    if kind == "string" and "enum" not in schema and "maxLength" not in schema:
        raise SchemaError(f"{path}: a string needs a maxLength")
    if kind == "array" and "maxItems" not in schema:
        raise SchemaError(f"{path}: a list needs a maxItems")
    if kind == "object" and "additionalProperties" in schema and "maxProperties" not in schema:
        raise SchemaError(f"{path}: a map needs a maxProperties")
    if kind == "integer" and "format" not in schema:
        schema["format"] = "int64"
    if kind is None and "x-kubernetes-preserve-unknown-fields" not in schema:
        raise SchemaError(f"{path}: no type")
    return schema
