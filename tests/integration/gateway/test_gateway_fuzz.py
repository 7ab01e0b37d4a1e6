"""Requests that nobody would write, made from the gateway's own description: none of them is answered by a 5xx."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Unsatisfiable
from schemathesis import Case, GenerationMode
from schemathesis.core.result import Ok

from gateway_process import Gateway
from integration.gateway.conftest import Room

pytestmark = pytest.mark.timeout(1200)

EXAMPLES = 12
# Streams are endless, and a bulk is no single body: both are tried below.
APART = (
    "/v1/namespaces/{namespace}/tasks:bulk",
    "/v1/namespaces/{namespace}/tasks:events",
    "/v1/namespaces/{namespace}/tasks/{name}/events",
)
EXPLAIN = "/v1/namespaces/{namespace}/tasks/{name}/explain"
HOOKS = "/v1/namespaces/{namespace}/webhooks/{name}"
PATIENT = settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    suppress_health_check=list(HealthCheck),
)


@pytest.mark.parametrize("mode", list(GenerationMode), ids=lambda mode: str(mode.value))
def test_no_request_that_the_description_allows_or_forbids_is_a_defect(
    room: Room, hooked: str, mode: GenerationMode
) -> None:
    room.task("there")
    room.hook(hooked, "fuzzed")
    caller = room.caller("create", "get", "list", "watch", "patch", "delete")
    described = schemathesis.openapi.from_url(f"{room.url}/openapi.json")
    tried: set[tuple[str, str]] = set()
    for found in described.get_all_operations():
        assert isinstance(found, Ok), found
        operation = found.ok()
        if operation.path not in APART:
            try:
                where = {"namespace": hooked, "name": "fuzzed"} if operation.path == HOOKS else {"namespace": room.name}
                _asker(operation, mode, where, caller, tried)()
            except Unsatisfiable:
                # An operation without parameters and body cannot be asked in a malformed way.
                assert mode is GenerationMode.NEGATIVE
    # To a webhook any body is well-formed before somebody has signed it.
    assert (("post", HOOKS) in tried) is (mode is GenerationMode.POSITIVE)
    assert len(tried) >= (8 if mode is GenerationMode.POSITIVE else 3)


def _asker(
    operation: Any, mode: GenerationMode, where: dict[str, str], caller: httpx.Client, tried: set[tuple[str, str]]
) -> Callable[[], None]:
    @PATIENT
    @given(case=operation.as_strategy(generation_mode=mode), own=st.booleans())
    def ask(case: Case[Any], own: bool) -> None:
        if own and case.path_parameters:
            # Else nearly all would end at a namespace that is not theirs.
            case.path_parameters.update(where)
        for name in ("wait", "seconds"):
            if isinstance(case.query, dict) and isinstance(case.query.get(name), int | float):
                case.query[name] = min(case.query[name], 0.05)
        answer = case.call(headers={"Authorization": caller.headers["authorization"]}, timeout=60)
        # Where who asks wants nobody's word but a leader's, and none is there, 503 is the answer.
        nobody = answer.status_code == 503 and operation.path == EXPLAIN and answer.json()["reason"] == "NoLeader"
        assert answer.status_code < 500 or nobody, f"{case.as_curl_command()}\n{answer.text}"
        tried.add((operation.method, operation.path))

    return ask


@PATIENT
@given(
    selector=st.text(max_size=30) | st.sampled_from(("a in (b", "!a", "a=b,c!=d", "in (x)", "a notin ()")),
    last=st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=50) | st.sampled_from(("9" * 5000, "-1")),
    name=st.sampled_from(("there", "", "no", "%2F", "..", "a" * 300)),
)
def _ask_stream(caller: httpx.Client, selector: str, last: str, name: str) -> None:
    for path in ("/tasks:events", f"/tasks/{name}/events"):
        with caller.stream("GET", path, params={"labelSelector": selector}, headers={"Last-Event-ID": last}) as answer:
            assert answer.status_code < 500, path


def test_no_question_for_a_stream_is_a_defect(room: Room) -> None:
    room.task("there")
    _ask_stream(room.caller("get", "list", "watch"))


BODIES = st.binary(max_size=200) | st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
).map(lambda value: json.dumps(value).encode())


def test_no_body_is_a_defect(room: Room, gateway: Gateway) -> None:
    caller = room.caller("create")

    @settings(PATIENT, max_examples=60)
    @given(body=BODIES, kind=st.sampled_from(("application/json", "application/x-ndjson", "text/plain", "")))
    def send(body: bytes, kind: str) -> None:
        for path in ("/tasks", "/tasks:bulk"):
            answer = caller.post(path, content=body, headers={"Content-Type": kind})
            assert answer.status_code < 500, answer.text
            for line in answer.text.splitlines() if path == "/tasks:bulk" and answer.status_code == 200 else ():
                problem: dict[str, Any] = json.loads(line).get("problem", {})
                assert problem.get("status", 0) < 500, line

    send()
    counts = gateway.counts("taskdist_gateway_requests_total")
    assert not [each for each in counts if 'status="5' in each and f'path="{EXPLAIN}",status="503"' not in each]
