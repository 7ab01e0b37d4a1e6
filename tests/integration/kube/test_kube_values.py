"""Payloads and results come back from a real API server as they were, or are refused before they are sent."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskdist.kube import TASKS, ApiError, Client, Obj, StatusWriter, Write, Written, name_of, uid_of, version_of
from taskdist.protocol import convert
from taskdist.protocol.messages import by_value
from taskdist.protocol.values import fault

pytestmark = pytest.mark.usefixtures("crds")

NUMBERS = itertools.count()

numbers = st.integers() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
scalars = st.none() | st.booleans() | numbers | st.text(st.characters(exclude_categories=["Cs"]))
names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
values = st.recursive(scalars, lambda inner: st.lists(inner) | st.dictionaries(names, inner), max_leaves=30)
objects = st.dictionaries(names, values, max_size=6).filter(lambda value: not fault(value))


@pytest.fixture
async def client(kubeconfig: Path) -> AsyncIterator[Client]:
    async with Client.connect(kubeconfig) as connected:
        yield connected


async def kept(client: Client, namespace: str, value: Any) -> tuple[Obj, Obj]:
    """The value as a payload and as a result, as the API server has them then."""
    name = f"t{next(NUMBERS)}"
    spec = {"queue": "q", "type": "t", "payload": value}
    body = {"apiVersion": TASKS.api_version, "kind": "Task", "metadata": {"name": name}, "spec": spec}
    made = await client.create(TASKS, body, namespace)
    status = {"phase": "Succeeded", "attempt": 1, "epoch": 1}
    write = Write(uid_of(made), namespace, name_of(made), version_of(made), status, exact={"result": value})
    assert isinstance(await StatusWriter(client, TASKS).write(write), Written)
    obj = await client.get(TASKS, name, namespace)
    return exactly(by_value(convert.payload(obj))), exactly(by_value(convert.result(obj)))


def exactly(text: str | bytes) -> Any:
    """JSON with its numbers as they are written: a double may come back as the whole number of the same digits."""
    return json.loads(text, parse_int=Decimal, parse_float=Decimal)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=objects)
async def test_any_object_comes_back_as_it_was(client: Client, namespace: str, value: Obj) -> None:
    expected = exactly(json.dumps(value))
    assert await kept(client, namespace, value) == (expected, expected)


async def test_nulls_and_empty_parts_come_back(client: Client, namespace: str) -> None:
    value: Obj = {"x": None, "a": {"b": None, "c": [None, {"d": None}], "e": {}}, "l": [], "s": ""}
    assert await kept(client, namespace, value) == (value, value)


@pytest.mark.parametrize(
    "value",
    [
        pytest.param(2**63 + 1, id="whole"),
        pytest.param(2**64, id="power"),
        pytest.param("\ud800", id="half"),
        pytest.param(float("inf"), id="inf"),
    ],
)
async def test_what_is_refused_would_have_been_changed(client: Client, namespace: str, value: Any) -> None:
    """The rule refuses nothing that the API server would have kept."""
    assert fault({"x": value})
    try:
        found = await kept(client, namespace, {"x": value})
    except ApiError as error:
        refused = error.status
    else:
        refused = 400 if found != ({"x": value}, {"x": value}) else 0
    assert refused == 400
