"""Mapping a message to a Task: what templates may say, what they make of messages, and that nothing a message holds
gets past as an error."""

import json
import re
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from taskdist.api import TaskSpec
from taskdist.api.task import MAX_PAYLOAD_BYTES
from taskdist.api.template import MAX_BODY_BYTES, TEMPLATE_PATTERN, TaskTemplate
from taskdist.intake.mapping import Mapped, MappingError, compile_mapping, task_name, task_of
from taskdist.intake.message import Message, Poison, PoisonReason
from taskdist.intake.templates import TemplateError, parse
from taskdist.protocol import values

ORDER = {
    "id": 7,
    "kind": "ship",
    "due": "2030-01-01T12:00:00Z",
    "to": {"city": "Ulm", "a b": [1, 2, {"c": None}]},
    "express": True,
    "weight": 1.5,
}
MESSAGE = Message(
    body=json.dumps(ORDER).encode(),
    headers={"tenant": "acme", "x-level": "High", "n": 3},
    properties={"messageId": "m-1"},
    key="k-1",
    id="m-1",
    time=datetime(2030, 1, 1, 10, tzinfo=UTC),
)


def template(**fields: Any) -> TaskTemplate:
    return TaskTemplate.model_validate({"queue": "q", "type": "t"} | fields)


def mapped(message: Message = MESSAGE, **fields: Any) -> Mapped:
    return compile_mapping(template(**fields)).of(message)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        pytest.param("plain", "plain", id="a text without paths stays as it is"),
        pytest.param("{$.kind}", "ship", id="a path into the body"),
        pytest.param("{$.id}", "7", id="a number becomes its text"),
        pytest.param("{$.weight}", "1.5", id="a fraction too"),
        pytest.param("{$.express}", "true", id="and a boolean"),
        pytest.param("{$.to.city}-{headers.tenant}", "Ulm-acme", id="texts and paths one after the other"),
        pytest.param("{$.to['a b'][1]}", "2", id="a quoted name and an index"),
        pytest.param('{$["to"]["city"]}', "Ulm", id="double quotes"),
        pytest.param("{$.to['a b'][-2]}", "2", id="an index from the end"),
        pytest.param("{headers.x-level}", "High", id="a name with a dash"),
        pytest.param("{headers['x-level']}", "High", id="the same in quotes"),
        pytest.param("{properties.messageId}", "m-1", id="a property"),
        pytest.param("{key}/{id}", "k-1/m-1", id="key and id"),
        pytest.param("{time}", "2030-01-01T10:00:00Z", id="the message's time"),
        pytest.param("{$.none?x y}", "x y", id="what stands for nothing"),
        pytest.param("{$.to['a b'][2].c?x}", "x", id="null counts as nothing where something stands for it"),
        pytest.param("{$.kind?x}", "ship", id="and is not asked where there is something"),
        pytest.param("{$['none?y']?it's}", "it's", id="quotes and question marks in names and defaults"),
        pytest.param("{{{$.kind}}}", "{ship}", id="braces are written twice"),
    ],
)
def test_a_template_is_filled_in(text: str, expected: str) -> None:
    assert mapped(payload={"x": text + " "}).spec["payload"] == {"x": expected + " "}
    assert mapped(orderingKey=text).spec["orderingKey"] == expected


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        pytest.param("{$}", ORDER, id="the whole body"),
        pytest.param("{$.to}", ORDER["to"], id="an object"),
        pytest.param("{$.id}", 7, id="a number"),
        pytest.param("{$.express}", True, id="a boolean"),
        pytest.param("{$.to['a b'][2].c}", None, id="null"),
        pytest.param("{headers}", {"tenant": "acme", "x-level": "High", "n": 3}, id="all headers"),
        pytest.param("{text}", json.dumps(ORDER), id="the body as text"),
        pytest.param("{base64}", "eyJpZCI6IDcs", id="the body as base64"),
    ],
)
def test_a_path_alone_keeps_its_type_in_a_payload(path: str, expected: Any) -> None:
    found = mapped(payload={"x": [path]}).spec["payload"]["x"][0]
    assert found[: len(expected)] == expected if path == "{base64}" else found == expected


def test_all_fields_come_from_the_message() -> None:
    made = mapped(
        type="{$.kind}",
        priority="{headers.x-level}",
        tenant="{headers.tenant}",
        deadline="{$.due}",
        notBefore="2029-01-01T00:00:00Z",
        concurrencyKey="{$.to.city}",
        labels={"example.com/city": "{$.to.city}", "fixed": "yes", "none": "{$.none?}"},
        identity="{$.id}",
        payload={"city": "{$.to.city}", "left out": "{$.none?}", "list": ["{$.none?}", 1], "n": 1},
    )
    assert made.spec == {
        "queue": "q",
        "type": "ship",
        "priority": "High",
        "tenant": "acme",
        "deadline": "2030-01-01T12:00:00Z",
        "notBefore": "2029-01-01T00:00:00Z",
        "concurrencyKey": "Ulm",
        "payload": {"city": "Ulm", "list": [1], "n": 1},
    }
    assert made.labels == {"example.com/city": "Ulm", "fixed": "yes"}
    assert made.identity == "7"


def test_the_body_is_the_payload_where_nothing_is_said() -> None:
    assert mapped().spec["payload"] == ORDER


def test_a_deadline_counts_from_the_messages_time() -> None:
    assert mapped(deadlineSeconds=90).spec["deadline"] == "2030-01-01T10:01:30Z"


def test_a_field_is_left_out_where_its_path_may_give_nothing() -> None:
    assert "tenant" not in mapped(tenant="{headers.none?}").spec


def test_a_body_that_no_path_looks_into_may_be_anything() -> None:
    made = mapped(replace(MESSAGE, body=b"\xff\x00"), payload={"raw": "{base64}"}, identity="{hash}")
    assert made.spec["payload"] == {"raw": "/wA="}
    assert len(made.identity) == 64


@pytest.mark.parametrize(
    ("fields", "change", "reason", "words"),
    [
        pytest.param(
            {"tenant": "{$.none}"}, {}, PoisonReason.NOTHING_THERE, "tenant: {$.none} gives nothing", id="nothing there"
        ),
        pytest.param({"tenant": "{$.kind.x}"}, {}, PoisonReason.NOTHING_THERE, "{$.kind.x}", id="a text has no parts"),
        pytest.param(
            {"tenant": "{$.to['a b'][9]}"}, {}, PoisonReason.NOTHING_THERE, "[9]", id="a list has no such item"
        ),
        pytest.param({"tenant": "{key}"}, {"key": None}, PoisonReason.NOTHING_THERE, "{key}", id="no key"),
        pytest.param({}, {"id": None}, PoisonReason.NOTHING_THERE, "identity: {id}", id="no identity"),
        pytest.param(
            {"identity": "{headers.none?}"}, {}, PoisonReason.INVALID_VALUE, "identity: ", id="an empty identity"
        ),
        pytest.param(
            {"identity": "{text}"},
            {"body": json.dumps({"a": "x" * 2000}).encode()},
            PoisonReason.INVALID_VALUE,
            "1024",
            id="a long identity",
        ),
        pytest.param(
            {"tenant": "{$.to}"},
            {},
            PoisonReason.WRONG_TYPE,
            "tenant: {$.to} gives an object",
            id="an object for a text",
        ),
        pytest.param(
            {}, {"body": b"[1]"}, PoisonReason.WRONG_TYPE, "payload: the body is a list", id="a body that is no object"
        ),
        pytest.param({}, {"body": b"{"}, PoisonReason.NOT_JSON, "payload: the body is no JSON", id="no JSON"),
        pytest.param({}, {"body": b'{"a": NaN}'}, PoisonReason.NOT_JSON, "NaN", id="NaN"),
        pytest.param({}, {"body": b"[" * 100_000}, PoisonReason.NOT_JSON, "too deep", id="nested beyond the parser"),
        pytest.param(
            {},
            {"body": b'{"a":' * 300 + b"1" + b"}" * 300},
            PoisonReason.INVALID_VALUE,
            "deeper",
            id="nested beyond the bound",
        ),
        pytest.param(
            {},
            {"body": b'{"a": 1e999}'},
            PoisonReason.INVALID_VALUE,
            "a: the number",
            id="a number that no double holds",
        ),
        pytest.param(
            {},
            {"body": b'{"a": 18446744073709551617}'},
            PoisonReason.INVALID_VALUE,
            "64 bits",
            id="a number that would be changed",
        ),
        pytest.param({}, {"body": b'{"a": "\\ud800"}'}, PoisonReason.INVALID_VALUE, "surrogate", id="half a character"),
        pytest.param(
            {"tenant": "{$.a}", "payload": {}},
            {"body": b'{"a": "\\ud800"}'},
            PoisonReason.INVALID_VALUE,
            "tenant",
            id="half a character in a field",
        ),
        pytest.param(
            {"tenant": "{text}"}, {"body": b"\xff"}, PoisonReason.NOT_TEXT, "tenant: the body is no UTF-8", id="no text"
        ),
        pytest.param(
            {"payload": {"x": "{text}"}},
            {"body": b"x" * (MAX_BODY_BYTES + 1)},
            PoisonReason.TOO_LARGE,
            "1048577 bytes",
            id="a body beyond the bound",
        ),
        pytest.param(
            {},
            {"body": json.dumps({"a": "x" * MAX_PAYLOAD_BYTES}).encode()},
            PoisonReason.TOO_LARGE,
            "65536",
            id="a payload beyond the bound",
        ),
        pytest.param(
            {"payload": {"x": ["{$}"] * 200}},
            {"body": json.dumps(["x" * 1000]).encode()},
            PoisonReason.TOO_LARGE,
            "65536",
            id="a value that is named many times",
        ),
        pytest.param(
            {"priority": "{$.kind}"},
            {},
            PoisonReason.INVALID_VALUE,
            "priority: 'ship' is none of Emergency",
            id="no such level",
        ),
        pytest.param(
            {"deadline": "{$.kind}"}, {}, PoisonReason.INVALID_VALUE, "deadline: 'ship' is no time", id="no time"
        ),
        pytest.param(
            {"queue": "{$.to.city}"}, {}, PoisonReason.INVALID_VALUE, "queue: 'Ulm' is refused", id="no name of a queue"
        ),
        pytest.param({"queue": "{$.none?}"}, {}, PoisonReason.INVALID_VALUE, "queue: ", id="no queue at all"),
        pytest.param(
            {"labels": {"a": "{$.due}"}}, {}, PoisonReason.INVALID_VALUE, "labels.a: ", id="no value of a label"
        ),
        pytest.param(
            {"deadlineSeconds": 90},
            {"time": datetime.max.replace(tzinfo=UTC)},
            PoisonReason.INVALID_VALUE,
            "deadline: ",
            id="a deadline beyond all time",
        ),
    ],
)
def test_a_message_that_fits_no_task_is_poison(
    fields: dict[str, Any], change: dict[str, Any], reason: PoisonReason, words: str
) -> None:
    with pytest.raises(Poison, match=re.escape(words)) as caught:
        mapped(replace(MESSAGE, **change), **fields)
    assert caught.value.reason is reason


@pytest.mark.parametrize(
    ("fields", "field", "words"),
    [
        pytest.param({"tenant": "{$.a"}, "spec.task.tenant", "'{$.a' is no path", id="a brace that is not closed"),
        pytest.param({"tenant": "a } b"}, "spec.task.tenant", "no path", id="a brace that was not opened"),
        pytest.param({"type": "{$..a}"}, "spec.task.type", "'{$..a}' is no path", id="a descent, which has no bound"),
        pytest.param({"type": "{$.a[*]}"}, "spec.task.type", "no path", id="a wildcard"),
        pytest.param({"type": "{$.a[?@.b]}"}, "spec.task.type", "no path", id="a filter"),
        pytest.param({"type": "{$.a[0:2]}"}, "spec.task.type", "no path", id="a slice"),
        pytest.param(
            {"type": "{body.a}"}, "spec.task.type", "starting with one of $, headers", id="no part of a message"
        ),
        pytest.param({"type": "{identity}"}, "spec.task.type", "no path", id="a word that starts like a part"),
        pytest.param({"payload": {"a": [{"b": "{x}"}]}}, "spec.task.payload.a[0].b", "no path", id="within a payload"),
        pytest.param(
            {"payload": {"a": ["{$}"] * 257}}, "spec.task.payload.a[256]", "more than 256", id="too many paths"
        ),
        pytest.param(
            {"payload": {"a": 2**65 + 1}}, "spec.task.payload", "64 bits", id="a payload that would be changed"
        ),
        pytest.param({"payload": {"a": "x" * 1025}}, "spec.task.payload.a", "1024", id="a template beyond the bound"),
        pytest.param({"priority": "Urgent"}, "spec.task.priority", "none of Emergency", id="no such level"),
        pytest.param({"queue": "No Name"}, "spec.task.queue", "is refused", id="no name of a queue"),
        pytest.param({"deadline": "tomorrow"}, "spec.task.deadline", "RFC 3339", id="no time"),
        pytest.param(
            {"deadline": "{time}", "deadlineSeconds": 1},
            "spec.task.deadlineSeconds",
            "one of the two",
            id="two deadlines",
        ),
        pytest.param({"labels": {"-": "a"}}, "spec.task.labels", "no name of a label", id="no name of a label"),
        pytest.param({"labels": {"a": "b c"}}, "spec.task.labels.a", "no value of a label", id="no value of a label"),
        pytest.param({"identity": "x"}, "spec.task.identity", "same for all", id="one identity for all"),
    ],
)
def test_a_template_that_can_never_be_used_names_its_field(fields: dict[str, Any], field: str, words: str) -> None:
    with pytest.raises(MappingError, match=re.escape(words)) as caught:
        compile_mapping(template(**fields))
    assert caught.value.field == field


def test_a_task_carries_its_source_and_its_name_tells_messages_and_sources_apart() -> None:
    made = task_of(mapped(), "ns", "orders", "uid-1")
    assert made["metadata"]["name"] == task_name("orders", "uid-1", "m-1")
    assert made["metadata"]["labels"] == {"taskdist.dev/source": "orders"}
    assert made["metadata"]["annotations"] == {"taskdist.dev/source-identity": "m-1"}
    names = {task_name("orders", uid, identity) for uid in ("uid-1", "uid-2") for identity in ("m-1", "m-2")}
    assert len(names) == 4
    assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name) for name in names)


# -- whatever comes ----------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["a", "b", "x-y", "é", "a b", "0"])
STEPS = st.one_of(
    NAMES.filter(lambda name: " " not in name).map(lambda name: f".{name}"),
    NAMES.map(lambda name: f"['{name}']"),
    st.integers(-3, 3).map(lambda number: f"[{number}]"),
)
PATHS = st.builds(
    lambda root, steps, default: "{" + root + "".join(steps) + default + "}",
    st.sampled_from(["$", "headers", "properties", "key", "id", "time", "text", "base64", "hash"]),
    st.lists(STEPS, max_size=3),
    st.sampled_from(["", "?", "?x"]),
)
TEMPLATES = st.lists(PATHS | st.sampled_from(["a", "-", "{{", "}}"]), min_size=1, max_size=4).map("".join)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5) | st.just("\ud800"),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=10,
)
BODIES = (
    st.binary(max_size=60)
    | JSON.map(lambda value: json.dumps(value).encode())
    | st.sampled_from(
        [
            b"[" * 5000,
            b'{"a":' * 400 + b"1" + b"}" * 400,
            b"1" * 5000,
            b'{"a": 1e999}',
            b'{"a":"\\udc00"}',
            b"\xef\xbb\xbf{}",
        ]
    )
)
MESSAGES = st.builds(
    Message,
    body=BODIES,
    headers=st.dictionaries(NAMES, JSON, max_size=3),
    properties=st.dictionaries(NAMES, JSON, max_size=3),
    key=st.none() | st.text(max_size=5),
    id=st.none() | st.text(max_size=5),
    time=st.datetimes(timezones=st.just(UTC)),
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        **dict.fromkeys(("queue", "type", "priority", "tenant", "deadline", "orderingKey", "identity"), TEMPLATES),
        "labels": st.dictionaries(st.sampled_from(["l", "m"]), TEMPLATES, max_size=2),
        "payload": st.dictionaries(NAMES, TEMPLATES | st.lists(TEMPLATES, max_size=2) | JSON, max_size=3),
    },
)


@given(FIELDS, st.lists(MESSAGES, min_size=1, max_size=4))
def test_no_message_raises_anything_but_poison_and_what_comes_out_is_a_task(
    fields: dict[str, Any], messages: list[Message]
) -> None:
    try:
        mapping = compile_mapping(template(**fields))
    except MappingError:
        return
    again = compile_mapping(template(**fields))
    for message in messages:
        try:
            made = mapping.of(message)
        except Poison as error:
            with pytest.raises(Poison, match=re.escape(str(error))):
                again.of(message)
            str(error).encode()
            continue
        assert again.of(message) == made == mapping.of(message)
        TaskSpec.model_validate(made.spec)
        assert not values.fault(task_of(made, "ns", "s", "u"))
        json.dumps(made.spec, ensure_ascii=False, allow_nan=False).encode()


@given(st.text(alphabet="{}$.?[]'\"ab0-{}h\n key", max_size=12) | TEMPLATES)
@example("{$.a}\n")
@example("{{$.a}}}")
def test_what_the_api_servers_pattern_takes_is_what_is_parsed(text: str) -> None:
    try:
        parse(text)
    except TemplateError:
        assert not re.fullmatch(TEMPLATE_PATTERN, text)
    else:
        assert re.fullmatch(TEMPLATE_PATTERN, text)
