"""Webhooks at the gateway's door: who is let in, what becomes of deliveries, and in which words they are answered."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from taskdist.gateway import webhooks as module
from taskdist.gateway.board import Board
from taskdist.gateway.hooks import FAILED_SECONDS, KEPT_SECONDS, Hooks, Secrets, SecretUnread, seen_source
from taskdist.gateway.measures import Measures
from taskdist.gateway.problems import Problem
from taskdist.gateway.queues import Queues, seen_queue
from taskdist.gateway.webhooks import Webhooks
from taskdist.intake.cloudevents import BATCHED, STRUCTURED
from taskdist.kube import (
    SECRETS,
    TASKS,
    Added,
    ApiError,
    Client,
    Deleted,
    KubeError,
    Obj,
    Resource,
    Unanswered,
    Updated,
)

NOW = datetime(2030, 1, 1, 12, tzinfo=UTC)
KEY = b"It's a Secret to Everybody"
EVENT = {"specversion": "1.0", "id": "1", "source": "/shop", "type": "order.placed", "data": {"n": 1}}
URL = "/v1/namespaces/ns/webhooks/w"


def source(name: str = "w", *, suspend: bool = False, task: Mapping[str, Any] | None = None, **webhook: Any) -> Obj:
    spec = {
        "suspend": suspend,
        "task": {"queue": "q", "type": "t", "identity": "{$.id}", **(task or {})},
        "webhook": {
            "format": "JSON",
            "secretName": "s",
            "signature": {"header": "X-Signature", "prefix": "sha256="},
            **webhook,
        },
    }
    metadata = {"name": name, "namespace": "ns", "uid": f"uid-{name}", "resourceVersion": "1", "generation": 1}
    return {"metadata": metadata, "spec": {key: value for key, value in spec.items() if value is not None}}


@dataclass
class Cluster:
    """Secrets and Tasks in memory; `error` is what the next Tasks are refused by."""

    secrets: dict[str, dict[str, str]] = field(
        default_factory=lambda: {"s": {"secret": base64.b64encode(KEY).decode()}}
    )
    tasks: dict[str, Obj] = field(default_factory=dict)
    errors: list[KubeError | None] = field(default_factory=list)
    reads: int = 0

    async def get(self, resource: Resource, name: str, namespace: str) -> Obj:
        assert resource is SECRETS
        self.reads += 1
        await asyncio.sleep(0)
        if name not in self.secrets:
            raise ApiError(404, "NotFound", "no such secret", {"name": name})
        return {"data": self.secrets[name]}

    async def create(self, resource: Resource, body: Obj, namespace: str, *, field_manager: str = "") -> Obj:
        assert (resource, namespace) == (TASKS, "ns")
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error
        name = body["metadata"]["name"]
        if name in self.tasks:
            raise ApiError(409, "AlreadyExists", "there", {"name": name})
        self.tasks[name] = body
        return body


class Door:
    """The webhooks of a gateway, and somebody who delivers."""

    def __init__(self) -> None:
        self.cluster = Cluster()
        self.hooks = Hooks()
        self.queues = Queues(Board(lambda _: "1"))
        self.measures = Measures()
        client: Client = self.cluster  # type: ignore[assignment]
        self.webhooks = Webhooks(self.hooks, Secrets(client), self.queues, client, self.measures, lambda: NOW)
        app = FastAPI()
        app.include_router(self.webhooks.router)
        app.add_exception_handler(Problem, _problem)
        self.caller = httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://gateway")

    def there(self, obj: Obj) -> None:
        self.hooks.hear(Added(seen_source(obj)))

    async def send(self, body: bytes, headers: Mapping[str, str] | None = None, url: str = URL) -> httpx.Response:
        """Send this, signed unless the headers say otherwise."""
        written = hmac.new(KEY, body, hashlib.sha256).hexdigest()
        return await self.caller.post(
            url, content=body, headers={"X-Signature": f"sha256={written}", **(headers or {})}
        )

    async def event(self, event: Any, kind: str = STRUCTURED) -> httpx.Response:
        return await self.send(json.dumps(event).encode(), {"Content-Type": kind})

    def counts(self) -> dict[str, float]:
        """Deliveries of the source `w` by outcome."""
        return {
            sample.labels["outcome"]: sample.value
            for metric in self.measures.registry.collect()
            for sample in metric.samples
            if sample.name == "taskdist_gateway_deliveries_total"
        }


async def _problem(_: Any, error: Exception) -> Any:
    assert isinstance(error, Problem)
    return error.response()


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    found = Door()
    async with found.caller:
        yield found


def problem(answer: httpx.Response, status: int, reason: str) -> dict[str, Any]:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    details: dict[str, Any] = answer.json()
    assert (details["status"], details["reason"]) == (status, reason)
    return details


async def test_a_delivery_becomes_a_task_and_the_same_one_again_does_not(door: Door) -> None:
    door.there(source(task={"tenant": "{headers.X-Tenant}", "payload": {"order": "{$.id}"}}))
    answers = [await door.send(b'{"id": 7}', {"X-Tenant": "acme"}) for _ in range(3)]
    assert [each.status_code for each in answers] == [202] * 3
    ((name, task),) = door.cluster.tasks.items()
    assert [each.json()["items"] for each in answers] == [
        [{"index": 0, "task": name, "created": created}] for created in (True, False, False)
    ]
    assert task["spec"] == {"queue": "q", "type": "t", "tenant": "acme", "payload": {"order": 7}}
    assert task["metadata"]["labels"] == {"taskdist.dev/source": "w"}
    assert door.counts() == {"Created": 1.0, "Duplicate": 2.0}


async def test_each_source_makes_a_task_of_its_own(door: Door) -> None:
    door.there(source())
    door.there(source("v"))
    await door.send(b'{"id": 7}')
    await door.send(b'{"id": 7}', url=f"{URL[:-1]}v")
    assert {name[:2] for name in door.cluster.tasks} == {"w-", "v-"}


UNKNOWN = {
    "another name": "/v1/namespaces/ns/webhooks/x",
    "another namespace": "/v1/namespaces/other/webhooks/w",
    "a name that is none": "/v1/namespaces/ns/webhooks/%00%2e",
    "a source of another kind": "/v1/namespaces/ns/webhooks/nightly",
    "a source that was one": "/v1/namespaces/ns/webhooks/former",
    "a source that is gone": "/v1/namespaces/ns/webhooks/gone",
}


@pytest.mark.parametrize("url", UNKNOWN.values(), ids=UNKNOWN.keys())
async def test_all_that_is_not_there_is_answered_alike(door: Door, url: str) -> None:
    cron = source("nightly") | {"spec": {"task": {"queue": "q", "type": "t"}, "cron": {"schedule": "0 3 * * *"}}}
    door.there(source())
    door.there(cron)
    former = source("former")
    door.there(former)
    door.hooks.hear(Updated(seen_source(former), seen_source(former | {"spec": cron["spec"]})))
    door.there(source("gone"))
    door.hooks.hear(Deleted(seen_source(source("gone"))))
    answer = await door.send(b'{"id": 7}', url=url)
    assert problem(answer, 404, "NotFound")["detail"] == "there is no such webhook"
    assert (door.cluster.reads, door.counts()) == (0, {})


STRANGERS: dict[str, dict[str, str]] = {
    "no signature": {"X-Signature": ""},
    "a wrong one": {"X-Signature": "sha256=" + "0" * 64},
    "one without its prefix": {"X-Signature": hmac.new(KEY, b'{"id": 7}', hashlib.sha256).hexdigest()},
    "odd letters": {"X-Signature": "sha256=\xe9"},
}


@pytest.mark.parametrize("headers", STRANGERS.values(), ids=STRANGERS.keys())
async def test_who_cannot_sign_is_told_nothing_else(door: Door, headers: dict[str, str]) -> None:
    door.there(source(suspend=True))
    for more in ({}, {"Content-Type": "text/plain"}, {"Content-Encoding": "gzip"}):
        said = [(name.encode(), value.encode("latin-1")) for name, value in (headers | more).items()]
        answer = await door.caller.post(URL, content=b'{"id": 7}', headers=said)
        assert problem(answer, 401, "Unsigned")["detail"] == "the signature is missing or wrong"
        assert answer.headers["www-authenticate"] == "HMAC"
    assert (door.cluster.tasks, door.counts()) == ({}, {"Unsigned": 3.0})


async def test_a_delivery_that_is_too_old_is_refused(door: Door) -> None:
    door.there(source(signature=None, task={"identity": None}))
    door.cluster.secrets["s"] = {"secret": base64.b64encode(b"whsec_" + base64.b64encode(b"k" * 24)).decode()}
    for ago, status in ((299, 202), (301, 401), (-301, 401)):
        stamp = str(int(NOW.timestamp()) - ago)
        written = base64.b64encode(hmac.digest(b"k" * 24, f"m.{stamp}.{{}}".encode(), "sha256")).decode()
        headers = {"webhook-id": "m", "webhook-timestamp": stamp, "webhook-signature": f"v1,{written}"}
        answer = await door.caller.post(URL, content=b"{}", headers=headers)
        assert answer.status_code == status, answer.text
    assert door.counts() == {"Created": 1.0, "Stale": 2.0}


REFUSED: dict[str, tuple[dict[str, Any], bytes, dict[str, str], int, str, str]] = {
    "a body that is too large": ({"maxBytes": 1024}, b'{"id": "%s"}' % (b"x" * 1024), {}, 413, "TooLarge", "1024"),
    "a form": (
        {},
        b"a=b",
        {"Content-Type": "application/x-www-form-urlencoded"},
        415,
        "UnknownMediaType",
        "send application/json",
    ),
    "a body that is packed": ({}, b"{}", {"Content-Encoding": "gzip"}, 415, "UnknownMediaType", "not compressed"),
    "no JSON": ({}, b"{", {}, 422, "NotJson", "payload"),
    "no object": ({}, b"[]", {}, 422, "WrongType", "payload: the body is a list"),
    "no identity": ({}, b"{}", {}, 422, "NothingThere", "identity: {$.id} gives nothing"),
    "events in a format that nobody reads": (
        {"format": "CloudEvents"},
        b"x",
        {"Content-Type": "application/cloudevents+avro"},
        415,
        "UnknownMediaType",
        "binary",
    ),
    "a batch that is too long": (
        {"format": "CloudEvents"},
        json.dumps([EVENT] * 101).encode(),
        {"Content-Type": BATCHED},
        413,
        "TooLarge",
        "100 events",
    ),
    "a batch that is none": ({"format": "CloudEvents"}, b"{}", {"Content-Type": BATCHED}, 422, "WrongType", "a list"),
    "no event": ({"format": "CloudEvents"}, b"{}", {"Content-Type": STRUCTURED}, 422, "InvalidValue", "specversion"),
}


@pytest.mark.parametrize(
    ("webhook", "body", "headers", "status", "reason", "says"), REFUSED.values(), ids=REFUSED.keys()
)
async def test_what_makes_no_sense_is_refused(
    door: Door, webhook: dict[str, Any], body: bytes, headers: dict[str, str], status: int, reason: str, says: str
) -> None:
    door.there(source(**webhook))
    assert says in problem(await door.send(body, headers), status, reason)["detail"]
    assert not door.cluster.tasks


async def test_the_field_that_makes_no_sense_is_named(door: Door) -> None:
    door.there(source(task={"priority": "{$.level}"}))
    details = problem(await door.send(b'{"id": 1, "level": "Urgent"}'), 422, "InvalidValue")
    (error,) = details["errors"]
    assert (error["field"], error["message"].partition(" is ")[0]) == ("priority", "'Urgent'")


ANSWERS: dict[str, tuple[KubeError, int, str, int | None]] = {
    "the queue's door is closed": (
        ApiError(403, "Forbidden", "policy denied request: TaskQueue q takes no new Tasks now; 4"),
        429,
        "QueueFull",
        30,
    ),
    "a quota": (ApiError(403, "Forbidden", "exceeded quota: secret-team"), 503, "Refused", 30),
    "a policy": (ApiError(422, "Invalid", "x denied the request: no"), 503, "Refused", 30),
    "a right that is missing": (ApiError(403, "Forbidden", "system:serviceaccount cannot create"), 503, "Refused", 30),
    "a Task that is none": (ApiError(422, "Invalid", "spec.tenant: too long"), 422, "Refused", None),
    "a fault": (ApiError(500, "", "oops"), 503, "Unreachable", 1),
    "a crowd": (ApiError(429, "TooManyRequests", "later", retry_after=7), 503, "Unreachable", 7),
    "no answer": (Unanswered("x"), 503, "Unreachable", 1),
}


@pytest.mark.parametrize(("error", "status", "reason", "after"), ANSWERS.values(), ids=ANSWERS.keys())
async def test_what_the_api_server_says_becomes(
    door: Door, error: KubeError, status: int, reason: str, after: int | None
) -> None:
    door.there(source())
    door.cluster.errors = [error]
    answer = await door.send(b'{"id": 7}')
    details = problem(answer, status, reason)
    assert answer.headers.get("retry-after") == (None if after is None else str(after))
    assert "secret-team" not in answer.text
    assert "serviceaccount" not in details["detail"]
    assert (await door.send(b'{"id": 7}')).status_code == 202, "sent again it is taken"


async def test_a_full_queue_is_not_asked(door: Door) -> None:
    door.there(source())
    status = {"accepting": False, "conditions": [{"type": "Accepting", "message": "spec.overflow.highWater is 4."}]}
    metadata = {"name": "q", "namespace": "ns", "uid": "u", "resourceVersion": "1"}
    door.queues.hear(Added(seen_queue({"metadata": metadata, "spec": {"pools": ["p"]}, "status": status})))
    answer = await door.send(b'{"id": 7}')
    assert "highWater is 4" in problem(answer, 429, "QueueFull")["detail"]
    assert answer.headers["retry-after"] == "30"
    assert door.counts() == {"QueueFull": 1.0}


async def test_each_event_of_a_batch_is_answered_and_sent_again_they_are_the_same(door: Door) -> None:
    door.there(source(format="CloudEvents", task={"identity": None}))
    batch = [EVENT | {"id": str(number)} for number in range(4)]
    answer = await door.event(batch, BATCHED)
    assert answer.status_code == 202
    assert [each["created"] for each in answer.json()["items"]] == [True] * 4
    assert len(door.cluster.tasks) == 4

    batch[1] = {"id": "odd"}
    batch.append(EVENT | {"id": "new"})
    answer = await door.event(batch, BATCHED)
    details = problem(answer, 422, "InvalidValue")
    assert "1 of 5 events have no Task; number 1: specversion: Field required" in details["detail"]
    assert details["errors"] == [{"field": "[1].specversion", "message": "Field required"}]
    assert [each.get("created") for each in details["items"]] == [False, False, False, False, True]
    assert details["items"][1]["problem"]["status"] == 422

    door.cluster.errors = [None, None, Unanswered("x")]
    answer = await door.event(batch, BATCHED)
    assert len([each for each in problem(answer, 503, "Unreachable")["items"] if "task" in each]) == 3
    assert answer.headers["retry-after"] == "1"
    assert (await door.event([], BATCHED)).json() == {"items": []}


async def test_binary_and_structured_events_of_one_id_are_one_task(door: Door) -> None:
    door.there(source(format="CloudEvents", task={"identity": None, "type": "{properties.type}"}))
    assert (await door.event(EVENT)).status_code == 202
    headers = {f"ce-{name}": str(value) for name, value in EVENT.items() if name != "data"}
    answer = await door.send(b'{"n":1}', headers | {"Content-Type": "application/json"})
    assert answer.json()["items"][0]["created"] is False
    ((_, task),) = door.cluster.tasks.items()
    assert task["spec"] == {"queue": "q", "type": "order.placed", "payload": {"n": 1}}


UNREADY: dict[str, tuple[Obj, dict[str, dict[str, str]], str]] = {
    "it is suspended": (source(suspend=True), {"s": {"secret": base64.b64encode(KEY).decode()}}, "Suspended"),
    "its Secret is not there": (source(), {}, "NotReady"),
    "its Secret has another key": (source(), {"s": {"other": "eA=="}}, "NotReady"),
    "its Secret is too short": (source(), {"s": {"secret": "eA=="}}, "NotReady"),
    "its Secret is no base64": (source(), {"s": {"secret": "?"}}, "NotReady"),
    "nothing can come of its template": (source(task={"priority": "Urgent"}), {}, "NotReady"),
    "nobody can read it": (source(format="Pigeons"), {}, "NotReady"),
    "its signature covers nothing": (source(signature={"header": "S", "content": "x"}), {}, "NotReady"),
}


@pytest.mark.parametrize(("obj", "secrets", "reason"), UNREADY.values(), ids=UNREADY.keys())
async def test_deliveries_are_to_come_again_while(
    door: Door, obj: Obj, secrets: dict[str, dict[str, str]], reason: str
) -> None:
    door.cluster.secrets = secrets
    door.there(obj)
    answer = await door.send(b'{"id": 7}')
    problem(answer, 503, reason)
    assert int(answer.headers["retry-after"]) >= 30
    assert "Secret" not in answer.text
    assert (door.cluster.tasks, door.counts()) == ({}, {"Unready": 1.0})


async def test_who_is_slow_with_a_body_gives_the_place_back(door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "BODY_SECONDS", 0.05)
    door.there(source())

    async def never() -> AsyncIterator[bytes]:
        yield b"{"
        await asyncio.Event().wait()

    problem(await door.caller.post(URL, content=never()), 408, "TooSlow")


async def test_so_many_are_taken_at_once_and_no_more(door: Door) -> None:
    door.there(source())
    release, all_begun, begun = asyncio.Event(), asyncio.Event(), 0

    async def slow() -> AsyncIterator[bytes]:
        nonlocal begun
        begun += 1
        if begun == module.AT_ONCE:
            all_begun.set()
        await release.wait()
        yield b"{}"

    waiting = [asyncio.create_task(door.caller.post(URL, content=slow())) for _ in range(module.AT_ONCE)]
    await all_begun.wait()
    problem(await door.send(b'{"id": 7}'), 429, "TooManyWaiting")
    release.set()
    await asyncio.gather(*waiting)
    assert (await door.send(b'{"id": 7}')).status_code == 202


async def test_a_secret_is_read_once_for_a_crowd_and_again_when_it_may_have_changed() -> None:
    cluster, now = Cluster(), 0.0
    client: Client = cluster  # type: ignore[assignment]
    secrets = Secrets(client, lambda: now)
    for _ in range(2):
        await asyncio.gather(*(secrets.values("ns", "s", ["secret"]) for _ in range(50)))
    assert cluster.reads == 1
    cluster.secrets["s"] = {"secret": "bmV3", "second": "c2Vjb25k"}
    now += KEPT_SECONDS
    assert await secrets.values("ns", "s", ["secret", "second", "third"]) == [b"new", b"second"]
    del cluster.secrets["s"]
    now += KEPT_SECONDS
    for _ in range(3):
        with pytest.raises(SecretUnread, match="there is no Secret s: create it"):
            await secrets.values("ns", "s", ["secret"])
    assert cluster.reads == 3
    now += FAILED_SECONDS
    cluster.secrets["s"] = {"secret": "bmV3"}
    assert await secrets.values("ns", "s", ["secret"]) == [b"new"]


SOURCES = (
    source("w"),
    source("w", signature=None, task={"identity": None}),
    source("w", format="CloudEvents", task={"identity": None}),
    source("w", format="CloudEvents", signature=None, task={"identity": "{text}", "payload": {"all": "{headers}"}}),
)
LETTERS = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"), max_size=20)
HEADERS = st.dictionaries(
    st.sampled_from(
        ("content-type", "content-encoding", "x-signature", "webhook-id", "webhook-timestamp", "webhook-signature")
    )
    | st.sampled_from(("specversion", "id", "source", "type", "time", "subject", "ext")).map(lambda name: f"ce-{name}"),
    LETTERS | st.sampled_from((STRUCTURED, BATCHED, "1.0", "application/json", "2030-01-01T00:00:00Z")),
    max_size=6,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(
    which=st.sampled_from(SOURCES),
    body=st.binary(max_size=60)
    | st.sampled_from((b"{}", b"[[]]", json.dumps(EVENT).encode(), json.dumps([EVENT, {}]).encode(), b"[" * 3000)),
    headers=HEADERS,
    sign=st.booleans(),
)
async def test_whatever_comes_is_answered_and_never_by_a_defect(
    which: Obj, body: bytes, headers: dict[str, str], sign: bool
) -> None:
    door = Door()
    door.cluster.secrets["s"]["secret"] = base64.b64encode(b"whsec_" + base64.b64encode(b"k" * 24)).decode()
    door.there(which)
    said = {name.lower(): value.strip().encode("latin-1") for name, value in headers.items()}
    if sign:
        stamp = str(int(NOW.timestamp()))
        key = b"k" * 24 if which["spec"]["webhook"]["signature"] is None else b"whsec_" + base64.b64encode(b"k" * 24)
        standard = base64.b64encode(hmac.digest(key, f"m.{stamp}.".encode() + body, "sha256"))
        said |= {"webhook-id": b"m", "webhook-timestamp": stamp.encode(), "webhook-signature": b"v1," + standard}
        said["x-signature"] = b"sha256=" + hmac.digest(key, body, "sha256").hex().encode()
    async with door.caller:
        answer = await door.caller.post(URL, content=body, headers=[(name.encode(), said[name]) for name in said])
    assert answer.status_code in ((202, 413, 415, 422) if sign else (401,)), answer.text
