"""What a caller says becomes the resource, and what would not reach a handler is refused with its field."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from pydantic import BaseModel, Field

from taskdist.client import InvalidTask, Submission
from taskdist.client.submission import from_document, keyed_name, manifest, named


class Nested(BaseModel):
    when: datetime
    path: str = Field(alias="from")


@dataclass
class Plain:
    nested: Nested
    tags: tuple[str, ...]


def test_payloads_are_json_as_handlers_read_it() -> None:
    nested = Nested.model_validate({"when": datetime(2030, 1, 31, tzinfo=UTC), "from": "a"})
    spec = manifest(Submission("q", "t", Plain(nested, ("x",))), "ns")["spec"]
    assert spec["payload"] == {"nested": {"when": "2030-01-31T00:00:00Z", "from": "a"}, "tags": ["x"]}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        pytest.param([1], "is a list", id="list"),
        pytest.param("text", "is a str", id="text"),
        pytest.param({"a": object()}, "cannot be written as JSON", id="no-json"),
        pytest.param({"a": 2**70}, "would not reach the handler as it is: a: the whole number", id="large-number"),
        pytest.param({"a": "x" * 70_000}, "store the data elsewhere", id="too-large"),
    ],
)
def test_payloads_that_would_not_arrive_are_refused(payload: Any, said: str) -> None:
    with pytest.raises(InvalidTask, match=said) as caught:
        manifest(Submission("q", "t", payload), "ns")
    assert caught.value.field == "spec.payload"


def test_times_may_be_values() -> None:
    berlin = timezone(timedelta(hours=1))
    said = Submission("q", "t", deadline=datetime(2030, 1, 31, 13, tzinfo=berlin), not_before="2030-01-01T00:00:00Z")
    spec = manifest(said, "ns")["spec"]
    assert (spec["deadline"], spec["notBefore"]) == ("2030-01-31T12:00:00.000Z", "2030-01-01T00:00:00Z")
    soon = manifest(Submission("q", "t", deadline=timedelta(minutes=10)), "ns")["spec"]["deadline"]
    assert timedelta(minutes=9) < datetime.fromisoformat(soon) - datetime.now(UTC) <= timedelta(minutes=10)
    with pytest.raises(InvalidTask, match="in which zone") as caught:
        manifest(Submission("q", "t", deadline=datetime(2030, 1, 31)), "ns")  # noqa: DTZ001  # what is refused
    assert caught.value.field == "spec.deadline"


def test_a_name_is_made_up_once_and_a_given_one_stays() -> None:
    body = manifest(Submission("q", "My Type"), "ns")
    assert body["metadata"]["generateName"] == "my-type-"
    one, other = named(body)["metadata"]["name"], named(body)["metadata"]["name"]
    assert one.startswith("my-type-")
    assert one != other
    made = named(body)
    assert named(made) == made
    keyed = manifest(Submission("q", "t", idempotency_key="k"), "ns")
    assert named(keyed)["metadata"]["name"] == keyed_name("q", "k")


@pytest.mark.parametrize(
    "document",
    [
        {"queue": "q", "type": "t", "payload": {"a": 1}, "name": "n", "labels": {"x": "y"}},
        {"spec": {"queue": "q", "type": "t", "payload": {"a": 1}}, "metadata": {"name": "n", "labels": {"x": "y"}}},
        {
            "kind": "Task",
            "apiVersion": "taskdist.dev/v1alpha1",
            "metadata": {"name": "n", "namespace": "ns", "labels": {"x": "y"}},
            "spec": {"queue": "q", "type": "t", "payload": {"a": 1}},
        },
    ],
    ids=["fields", "spec", "manifest"],
)
def test_a_task_may_be_written_down_in_short_or_whole(document: dict[str, Any]) -> None:
    assert from_document(document, "ns") == {
        "apiVersion": "taskdist.dev/v1alpha1",
        "kind": "Task",
        "metadata": {"name": "n", "namespace": "ns", "labels": {"x": "y"}},
        "spec": {"queue": "q", "type": "t", "payload": {"a": 1}},
    }


@pytest.mark.parametrize(
    ("document", "field"),
    [
        pytest.param(7, "", id="no-object"),
        pytest.param({"type": "t"}, "spec.queue", id="no-queue"),
        pytest.param({"queue": "q", "type": 7}, "spec.type", id="a-type-that-is-no-text"),
        pytest.param({"spec": [], "kind": "Task"}, "", id="a-spec-that-is-none"),
        pytest.param({"spec": {}, "kind": "Pod"}, "kind", id="another-kind"),
        pytest.param(
            {"queue": "q", "type": "t", "payload": {"a": 2**70}}, "spec.payload", id="a-payload-that-would-not-arrive"
        ),
    ],
)
def test_what_is_no_task_is_refused(document: Any, field: str) -> None:
    with pytest.raises(InvalidTask) as caught:
        from_document(document, "ns")
    assert caught.value.field == field


def test_a_key_makes_the_name_of_what_is_written_down_too() -> None:
    body = from_document({"queue": "q", "type": "t", "idempotencyKey": "k"}, "ns")
    assert body["metadata"]["name"] == keyed_name("q", "k")
