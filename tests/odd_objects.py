"""Objects as anybody may write them: all that the kinds' schemas admit, and what other releases might."""

from __future__ import annotations

import json
import re
from typing import Any

from hypothesis import strategies as st
from pydantic import BaseModel

from taskdist.api import AgentPool, Task, TaskQueue, TaskSink, TaskSource, rules
from taskdist.api.nesting import loads
from taskdist.api.schema import Schema, structural

Obj = dict[str, Any]

# Texts that have broken a reader somewhere: signs of shells, paths and formats, halves of characters, line ends.
TEXTS = ("", " ", "a", "A-1", "../x", "%s{0}", "a/b", 'quo"te', "\x00", "\u2028", "\ufeff", "é" * 3, "😀", "\r\n", "-1")
TIMES = (
    "2030-01-01T00:00:00Z",
    "1000-01-01T00:00:00Z",
    "9999-12-31T23:59:59-23:59",
    "1970-01-01T00:00:00.000000001+00:00",
    "2031-02-28T23:59:59.999999999+23:59",
)
NAMES = ("a", "q", "p", "0", "a-0", "default")
WORDS = ("a", "A", "t", "echo", "a.b_c-d", "0")
ADDRESSES = (
    "https://a/b?c",
    "a:1",
    "[::1]:65535",
    "https://sqs.a-1.amazonaws.com/0/a",
    "https://sqs.b.amazonaws.com/0/a.fifo",
    "http://[::1]:1/a",
)
# Of what a reference to an object is made: places, a hash, a type.
OBJECTS = (
    *("s3://tasks/team/payloads/x", "s3://a.b-c/../x//@", "s3://" + "z" * 63 + "/" + "z" * 900),
    *("0f" * 32, "application/json"),
)
LEVELS = (1, 60, 200, 201, 300, 1200, 4000)


def nested(levels: int) -> Any:
    """Objects within objects, as whoever reads them from the API server gets them."""
    return loads('{"a":' * levels + "1" + "}" * levels)


ANY_JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(TEXTS),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(TEXTS), inner, max_size=3),
    max_leaves=8,
)
ANY_OBJECT = st.dictionaries(st.sampled_from(TEXTS), ANY_JSON, max_size=3) | st.sampled_from(LEVELS).map(nested)


def drawn(schema: Schema) -> st.SearchStrategy[Any]:
    """What a structural schema admits; its CEL rules are not looked at."""
    if "enum" in schema:
        return st.sampled_from(schema["enum"])
    kind = schema.get("type")
    if kind is None:
        return ANY_JSON.filter(lambda value: value is not None)
    if kind == "boolean":
        return st.booleans()
    if kind == "integer":
        low, high = schema.get("minimum", -(2**63)), schema.get("maximum", 2**63 - 1)
        return st.sampled_from([low, high]) | st.integers(low, min(high, low + 10))
    if kind == "number":
        low, high = float(schema.get("minimum", -1e300)), float(schema.get("maximum", 1e300))
        return st.sampled_from([low, high]) | st.floats(low, high)
    if kind == "string":
        return _string(schema)
    if kind == "array":
        return _array(schema)
    return _object(schema)


def _string(schema: Schema) -> st.SearchStrategy[str]:
    if schema.get("format") == "date-time":
        return st.sampled_from(TIMES)
    low, high = schema.get("minLength", 0), schema["maxLength"]
    if "pattern" in schema:
        texts = (*NAMES, *WORDS, *ADDRESSES, *OBJECTS, "z" * min(high, 63))
        fits = re.compile(schema["pattern"]).search
        return st.sampled_from([text for text in texts if low <= len(text) <= high and fits(text)])
    return st.sampled_from([text for text in TEXTS if low <= len(text) <= high] + ["ö" * min(high, 400)])


def _array(schema: Schema) -> st.SearchStrategy[list[Any]]:
    keys = schema.get("x-kubernetes-list-map-keys")

    def identity(value: Any) -> str:
        return json.dumps([value[key] for key in keys] if keys else value, sort_keys=True)

    low = schema.get("minItems", 0)
    return st.lists(drawn(schema["items"]), min_size=low, max_size=max(low, 3), unique_by=identity)


def _object(schema: Schema) -> st.SearchStrategy[Obj]:
    if "additionalProperties" in schema:
        values = schema["additionalProperties"]
        if values.get("x-kubernetes-preserve-unknown-fields"):
            return ANY_OBJECT
        return st.dictionaries(st.sampled_from(WORDS), drawn(values), max_size=3)
    required = set(schema.get("required", ()))
    properties = {name: drawn(inner) for name, inner in schema.get("properties", {}).items()}
    known = st.fixed_dictionaries(
        {name: each for name, each in properties.items() if name in required},
        optional={name: each for name, each in properties.items() if name not in required},
    )
    if not schema.get("x-kubernetes-preserve-unknown-fields"):
        return known
    return st.builds(lambda more, ours: {**more, **ours}, st.dictionaries(st.sampled_from(["x", "é"]), ANY_JSON), known)


def of(model: type[BaseModel]) -> st.SearchStrategy[Obj]:
    """Spec and status of a kind, as its schema admits them."""
    properties = structural(model, rules.NESTED)["properties"]
    spec, status = drawn(properties["spec"]), drawn(properties["status"])
    return st.fixed_dictionaries({"spec": spec}, optional={"status": status})


def without_items(task: Obj) -> Obj:
    """No schema says that each item of an array is in one place. A status that does not is set aside."""
    return task | {"status": {name: value for name, value in task.get("status", {}).items() if name != "array"}}


TASKS, QUEUES, POOLS = of(Task).map(without_items), of(TaskQueue), of(AgentPool)
SOURCES, SINKS = of(TaskSource), of(TaskSink)
# What another release's schema might admit.
FOREIGN = st.sampled_from(
    (
        "null",
        "true",
        "-1",
        "0",
        "1e300",
        "1" * 30,
        '""',
        '"Eager"',
        '"2030-01-01t00:00:00z"',
        "[]",
        "{}",
        "[[]]",
        '{"a":{}}',
        '"\\u0000"',
        "[" * 2000 + "]" * 2000,
    )
).map(loads)


@st.composite
def twisted(draw: st.DrawFn, objects: st.SearchStrategy[Obj]) -> Obj:
    """An object in which some fields, at any depth of it, hold what no schema of this release admits."""
    obj: Obj = draw(objects)
    for _ in range(draw(st.integers(1, 3))):
        where: Any = obj
        while True:
            keys = list(where) if isinstance(where, dict) else list(range(len(where)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            if not isinstance(where[key], dict | list) or not where[key] or draw(st.integers(0, 3)) == 0:
                where[key] = draw(FOREIGN)
                break
            where = where[key]
    return obj


def named(obj: Obj, name: str, version: int = 1, **metadata: Any) -> Obj:
    """The object with the metadata that the API server gives it."""
    given = {"namespace": "ns", "name": name, "uid": f"uid-{name}", "resourceVersion": str(version), "generation": 1}
    return {**obj, "metadata": given | {"creationTimestamp": "2026-01-01T00:00:00Z"} | metadata}
