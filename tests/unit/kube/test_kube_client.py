"""The client on a script: how requests are spelled, what answers mean, how long it is patient."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from taskdist.kube import (
    LEASES,
    NODES,
    PODS,
    SERVICEACCOUNTS,
    TASKS,
    TOKENREVIEWS,
    Answer,
    ApiError,
    Client,
    Obj,
    PatchType,
    Resource,
    Unanswered,
    Unreachable,
    status_patch,
)
from unit.kube.fakes import CONFLICT, GONE, NOT_FOUND, Script, Step, Stream, bookmark, event, listing, make, ok, status

OK = ok(make("a"))
Call = Callable[[Client], Awaitable[Obj]]


@pytest.mark.parametrize(
    ("resource", "arguments", "path"),
    [
        pytest.param(PODS, (), "/api/v1/pods", id="core, all namespaces"),
        pytest.param(PODS, ("ns", "p"), "/api/v1/namespaces/ns/pods/p", id="core, one"),
        pytest.param(TASKS, ("ns",), "/apis/taskdist.dev/v1alpha1/namespaces/ns/tasks", id="group, one namespace"),
        pytest.param(NODES, (None, "n"), "/api/v1/nodes/n", id="cluster-scoped"),
        pytest.param(
            TASKS, ("ns", "a", "status"), "/apis/taskdist.dev/v1alpha1/namespaces/ns/tasks/a/status", id="sub"
        ),
        pytest.param(PODS, ("ns", "a/../b"), "/api/v1/namespaces/ns/pods/a%2F..%2Fb", id="no way out of the path"),
    ],
)
def test_paths(resource: Resource, arguments: tuple[str, ...], path: str) -> None:
    assert resource.path(*arguments) == path


@pytest.mark.parametrize(
    ("resource", "arguments", "why"),
    [
        pytest.param(PODS, (None, "p"), "needs a namespace", id="a name without its namespace"),
        pytest.param(NODES, ("ns",), "not namespaced", id="a namespace for what has none"),
        pytest.param(PODS, ("ns", "", "status"), "needs an object's name", id="a subresource of nothing"),
    ],
)
def test_paths_that_are_mistakes(resource: Resource, arguments: tuple[str, ...], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        resource.path(*arguments)


@pytest.mark.parametrize(
    ("call", "method", "path", "query", "body"),
    [
        pytest.param(lambda c: c.get(PODS, "p", "ns"), "GET", "/api/v1/namespaces/ns/pods/p", "", None, id="get"),
        pytest.param(
            lambda c: c.create(SERVICEACCOUNTS, {"spec": {}}, "ns", name="sa", subresource="token"),
            "POST",
            "/api/v1/namespaces/ns/serviceaccounts/sa/token",
            "",
            b'{"spec":{}}',
            id="token request",
        ),
        pytest.param(
            lambda c: c.create(TOKENREVIEWS, {}, dry_run=True),
            "POST",
            "/apis/authentication.k8s.io/v1/tokenreviews",
            "dryRun=All",
            b"{}",
            id="cluster-scoped, dry run",
        ),
        pytest.param(
            lambda c: c.put(LEASES, "l", {}, "ns"),
            "PUT",
            "/apis/coordination.k8s.io/v1/namespaces/ns/leases/l",
            "",
            b"{}",
            id="put",
        ),
        pytest.param(
            lambda c: c.patch(PODS, "p", {}, "ns", content_type=PatchType.APPLY, field_manager="me", force=True),
            "PATCH",
            "/api/v1/namespaces/ns/pods/p",
            "fieldManager=me&force=true",
            b"{}",
            id="apply",
        ),
        pytest.param(
            lambda c: c.delete(PODS, "p", "ns", uid="u", grace_seconds=0, dry_run=True),
            "DELETE",
            "/api/v1/namespaces/ns/pods/p",
            "",
            b'{"apiVersion":"v1","kind":"DeleteOptions","preconditions":{"uid":"u"},"gracePeriodSeconds":0,'
            b'"dryRun":["All"]}',
            id="delete this very one",
        ),
    ],
)
async def test_spelling(call: Call, method: str, path: str, query: str, body: bytes | None) -> None:
    script = Script(OK)
    assert await call(Client(script)) == make("a")
    (request,) = script.asked
    assert (request.method, request.path, request.query, request.body) == (method, path, query, body)


async def test_a_probe_is_one_request_however_many_objects_there_are() -> None:
    script = Script(listing(7, make("a"), token="more"))
    await Client(script).probe(TASKS, "ns")
    assert script.queries() == [{"limit": "1"}]


async def test_apply_needs_a_manager() -> None:
    with pytest.raises(ValueError, match="field_manager"):
        await Client(Script()).patch(PODS, "p", {}, "ns", content_type=PatchType.APPLY)


def test_a_status_patch_names_what_it_is_for() -> None:
    assert status_patch({"a": 1}, uid="u", resource_version="5") == {
        "metadata": {"uid": "u", "resourceVersion": "5"},
        "status": {"a": 1},
    }
    assert status_patch({"a": None}) == {"status": {"a": None}}


ERRORS = [
    ("not found", NOT_FOUND, "is_not_found"),
    ("unserved", Answer(404, b"404 page not found\n"), "is_unserved"),
    ("conflict", CONFLICT, "is_conflict"),
    ("exists", status(409, "AlreadyExists"), "is_already_exists"),
    ("gone", GONE, "is_gone"),
    ("invalid", status(422, "Invalid"), "is_invalid"),
    ("malformed", status(400, "BadRequest"), "is_invalid"),
    ("too large", status(413), "is_too_large"),
    ("too large for etcd", status(500, "", "etcdserver: request is too large"), "is_too_large"),
    ("forbidden", status(403, "Forbidden"), "is_forbidden"),
    ("unauthorized", status(401, "Unauthorized"), "is_unauthorized"),
    ("a proxy's page", Answer(502, b"<html>Bad gateway</html>"), "is_server_fault"),
    ("fault", status(504, "Timeout"), "is_server_fault"),
]
PROPERTIES = sorted({name for _, _, name in ERRORS} | {"is_throttled"})


@pytest.mark.parametrize(("answer", "kind"), [pytest.param(a, k, id=name) for name, a, k in ERRORS])
async def test_each_error_is_of_one_kind(answer: Answer, kind: str) -> None:
    with pytest.raises(ApiError) as caught:
        await Client(Script(answer)).create(TASKS, {}, "ns")
    assert [name for name in PROPERTIES if getattr(caught.value, name)] == [kind]


async def test_errors_keep_what_was_said() -> None:
    answer = status(422, "Invalid", "spec.count: too many", retry_after="3", name="a", causes=[{"field": "spec.count"}])
    with pytest.raises(ApiError, match=r"422 Invalid: spec\.count: too many") as caught:
        await Client(Script(answer)).create(TASKS, {}, "ns")
    assert caught.value.details["causes"] == [{"field": "spec.count"}]
    assert caught.value.retry_after == 3


async def test_a_body_that_no_server_takes_is_not_sent() -> None:
    script = Script()
    with pytest.raises(ApiError) as caught:
        await Client(script).create(TASKS, {"x": "y" * 3_200_000}, "ns")
    assert caught.value.is_too_large
    assert script.asked == []


class TestPatience:
    async def test_a_429_is_waited_out_for_any_verb(self) -> None:
        script = Script(status(429, retry_after="0.01"), status(429, retry_after="0.01"), OK)
        await Client(script, rng=random.Random(1)).create(TASKS, {}, "ns")
        assert len(script.asked) == 3

    @pytest.mark.parametrize("wait", ["0.01", "60"])
    async def test_and_bounded(self, wait: str) -> None:
        script = Script(*[status(429, retry_after=wait)] * 10)
        async with asyncio.timeout(5):
            with pytest.raises(ApiError) as caught:
                await Client(script).create(TASKS, {}, "ns")
        assert caught.value.is_throttled
        assert len(script.asked) <= 5

    async def test_it_ends_with_the_calls_time(self) -> None:
        script = Script(*[status(429, retry_after="1")] * 10)
        with pytest.raises(ApiError):
            await Client(script).create(TASKS, {}, "ns", timeout=0.2)
        assert len(script.asked) == 1

    async def test_a_read_without_an_answer_is_asked_once_more(self) -> None:
        script = Script(Unanswered("closed"), OK)
        assert await Client(script).get(TASKS, "a", "ns") == make("a")

    async def test_but_only_once(self) -> None:
        with pytest.raises(Unanswered):
            await Client(Script(Unanswered("closed"), Unanswered("closed"))).get(TASKS, "a", "ns")

    @pytest.mark.parametrize(
        "call",
        [
            pytest.param(lambda c: c.create(TASKS, {}, "ns"), id="create"),
            pytest.param(lambda c: c.put(TASKS, "a", {}, "ns"), id="put"),
            pytest.param(lambda c: c.patch(TASKS, "a", {}, "ns"), id="patch"),
            pytest.param(lambda c: c.delete(TASKS, "a", "ns"), id="delete"),
        ],
    )
    async def test_a_write_without_an_answer_is_never_repeated(self, call: Call) -> None:
        script = Script(Unanswered("lost"))
        with pytest.raises(Unanswered):
            await call(Client(script))
        assert len(script.asked) == 1

    async def test_an_answer_that_is_no_json_is_none(self) -> None:
        with pytest.raises(Unanswered, match="not JSON"):
            await Client(Script(Answer(200, b"{half"))).create(TASKS, {}, "ns")


class TestLists:
    async def test_starts_over_when_a_token_expires(self) -> None:
        script = Script(listing(5, make("a"), token="t"), GONE, listing(6, make("b")))
        page = await Client(script).list(TASKS, "ns", label_selector="x=y")
        assert [obj["metadata"]["name"] for obj in page.items] == ["b"]
        assert page.resource_version == "6"
        assert script.queries()[0] == {"labelSelector": "x=y", "limit": "500"}

    async def test_asks_for_all_at_once_in_the_end(self) -> None:
        script = Script(listing(5, token="t"), GONE, listing(6, token="t"), GONE, listing(7))
        assert (await Client(script).list(TASKS)).resource_version == "7"
        assert "limit" not in script.queries()[-1]

    async def test_and_gives_up_when_that_is_gone_too(self) -> None:
        with pytest.raises(ApiError) as caught:
            await Client(Script(GONE, GONE, GONE)).list(TASKS)
        assert caught.value.is_gone


class TestWatches:
    async def collect(self, step: Step) -> list[str]:
        seen = []
        async with Client(Script(step)).watch(TASKS, "ns", resource_version="5") as events:
            async for each in events:
                seen.append(f"{each.type} {each.object['metadata']['resourceVersion']}")
        return seen

    async def test_events_come_in_order(self) -> None:
        assert await self.collect(Stream([event("ADDED", make("a", 6)), bookmark(9)])) == ["ADDED 6", "BOOKMARK 9"]

    async def test_an_error_in_the_stream_is_raised(self) -> None:
        with pytest.raises(ApiError) as caught:
            await self.collect(Stream([event("ERROR", {"kind": "Status", "code": 410})]))
        assert caught.value.is_gone

    async def test_a_line_that_is_no_event_is_a_broken_stream(self) -> None:
        with pytest.raises(Unanswered):
            await self.collect(Stream([{"what": "?"}]))


async def _drain(client: Client) -> None:
    async with client.watch(PODS, resource_version="1") as events:
        async for _ in events:
            pass


async def test_each_exchange_is_observed() -> None:
    seen: list[tuple[str, str, str]] = []
    script = Script(
        status(429, retry_after="0.01"), OK, CONFLICT, Unreachable("no"), listing(1), Stream([], Unanswered("cut"))
    )
    client = Client(script, on_request=lambda verb, what, outcome, seconds: seen.append((verb, what, outcome)))
    await client.patch(TASKS, "a", {}, "ns", subresource="status")
    with pytest.raises(ApiError):
        await client.delete(PODS, "p", "ns")
    with pytest.raises(Unreachable):
        await client.get(PODS, "p", "ns")
    await client.list(PODS)
    with pytest.raises(Unanswered):
        await _drain(client)
    assert seen == [
        ("patch", "tasks.taskdist.dev/status", "429"),
        ("patch", "tasks.taskdist.dev/status", "200"),
        ("delete", "pods", "409"),
        ("get", "pods", "unreachable"),
        ("list", "pods", "200"),
        ("watch", "pods", "unanswered"),
    ]
