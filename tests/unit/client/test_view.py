"""The way to the leader: which is taken, whose token is shown, who is asked again, and what is said where nobody is."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest

from memory_cluster import MemoryCluster
from taskdist.api.view import Changes, TaskRow
from taskdist.client import questions, view
from taskdist.client.errors import NoAnswer
from taskdist.client.view import LeaderView
from taskdist.kube import (
    CONFIGMAPS,
    PODS,
    Access,
    Answer,
    ApiError,
    Client,
    HttpTransport,
    Request,
    Unanswered,
    Unreachable,
)

EXPLAIN = "/v1/namespaces/ns/tasks/a/explain"
PROXY = "/api/v1/namespaces/taskdist-system/services/https:taskdist-view:view/proxy"
STORY = {"task": "ns/a", "queue": "q", "phase": "Pending", "reason": "Queued", "position": 2, "positionExact": True}
ROW = {
    "name": "a",
    "namespace": "ns",
    "uid": "u",
    "queue": "q",
    "type": "t",
    "level": "Normal",
    "phase": "Assigned",
    "created": "2027-01-15T07:00:00Z",
    "age": 1.0,
}


def problem(status: int, detail: str) -> Answer:
    return Answer(status, json.dumps({"title": "No", "status": status, "detail": detail}).encode())


def refusal(status: int, message: str) -> Answer:
    """As the API server itself refuses."""
    return Answer(status, json.dumps({"kind": "Status", "message": message, "code": status}).encode())


GIVEN = Answer(200, json.dumps(STORY).encode())


@dataclass
class Server:
    """The API server and what is behind its proxy, as a transport and as a client sees them."""

    access: Access
    answers: list[Answer | Exception] = field(default_factory=list)
    """Of the proxy in turn; the last one again and again."""
    lines: list[bytes | Exception] = field(default_factory=list)
    asked: list[Request] = field(default_factory=list)
    minted: list[tuple[str, str | None, str, str]] = field(default_factory=list)
    no_minting: ApiError | None = None
    expires: datetime = field(default_factory=lambda: datetime.now(UTC) + timedelta(hours=1))

    async def exchange(self, request: Request) -> Answer:
        self.asked.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    @asynccontextmanager
    async def stream(self, request: Request, _stall: float) -> AsyncIterator[AsyncIterator[bytes]]:
        self.asked.append(request)

        async def lines() -> AsyncIterator[bytes]:
            for line in self.lines:
                if isinstance(line, Exception):
                    raise line
                yield line

        if self.lines and isinstance(self.lines[0], ApiError):
            raise cast(Exception, self.lines.pop(0))
        yield lines()

    async def create(
        self, resource: Any, _body: Any, namespace: str | None = None, *, name: str = "", subresource: str = ""
    ) -> dict[str, Any]:
        if self.no_minting is not None:
            raise self.no_minting
        self.minted.append((str(resource), namespace, name, subresource))
        return {"status": {"token": f"minted-{len(self.minted)}", "expirationTimestamp": self.expires.isoformat()}}


def access(authorization: str | None = "Bearer mine", **more: Any) -> Access:
    return Access("https://api", authorization, None, None, None, "ns", **more)


def leader_view(server: Server, cluster: MemoryCluster | None = None) -> LeaderView:
    return LeaderView(cast(Client, server), cast(HttpTransport, server), cluster or MemoryCluster())


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(view, "AGAIN_SECONDS", 0.0)
    monkeypatch.delenv("TASKDIST_OPERATOR_LEASE", raising=False)


async def test_a_token_of_the_kubeconfig_goes_through_the_proxy_under_its_own_header() -> None:
    server = Server(access(), [GIVEN])
    asked = leader_view(server)
    assert asked.lease == ""
    told = await asked.ask(questions.explanation("ns", "a"))
    assert (told.reason, told.position, asked.lease) == ("Queued", 2, "taskdist-system/taskdist")
    (request,) = server.asked
    assert (request.path, request.headers) == (PROXY + EXPLAIN, (("X-Taskdist-Token", "mine"),))
    assert not server.minted


@pytest.mark.parametrize(
    "given",
    [
        pytest.param(access(None, certificate=True), id="a client certificate"),
        pytest.param(access("Basic abc"), id="a password"),
        pytest.param(access(headers=(("Impersonate-User", "bob"),)), id="who acts as somebody else"),
    ],
)
async def test_who_has_no_token_of_their_own_mints_one_of_the_viewer_and_keeps_it(given: Access) -> None:
    server = Server(given, [GIVEN])
    asked = leader_view(server)
    for _ in range(2):
        await asked.ask(questions.explanation("ns", "a"))
    assert server.minted == [("serviceaccounts", "taskdist-system", "taskdist-viewer", "token")]
    assert [each.headers for each in server.asked] == [(("X-Taskdist-Token", "minted-1"),)] * 2
    server.expires = datetime.now(UTC)
    asked._minted = None
    for _ in range(2):
        await asked.ask(questions.explanation("ns", "a"))
    assert len(server.minted) == 3, "one that is about to end is not used"


async def test_a_replica_that_does_not_lead_is_followed_by_another() -> None:
    server = Server(access(), [problem(421, "not me"), problem(421, "not me"), GIVEN])
    assert (await leader_view(server).ask(questions.explanation("ns", "a"))).reason == "Queued"
    assert len(server.asked) == 3
    server = Server(access(), [problem(421, "this replica does not lead, nobody is known to: ask again")])
    with pytest.raises(NoAnswer, match="nobody is known to"):
        await leader_view(server).ask(questions.explanation("ns", "a"))
    assert len(server.asked) == view.TRIES


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        pytest.param(problem(403, "ann may not get tasks"), "ann may not get tasks", id="no right"),
        pytest.param(problem(404, "there is no Task a"), "there is no Task a", id="no such Task"),
        pytest.param(refusal(403, "may not get services/proxy"), "may not get services/proxy", id="no way through"),
        pytest.param(refusal(404, 'services "x" not found'), "not found", id="no Service"),
        pytest.param(refusal(503, "no endpoints available"), "no endpoints", id="no pod behind it"),
        pytest.param(Answer(200, b"<html>"), "of another release", id="something else altogether"),
        pytest.param(Unreachable("no route to host"), "no route to host", id="no API server"),
    ],
)
async def test_who_is_not_answered_is_told_why(answer: Answer | Exception, words: str) -> None:
    with pytest.raises(NoAnswer, match=words):
        await leader_view(Server(access(), [answer])).ask(questions.explanation("ns", "a"))


async def test_where_nobody_is_reached_nobody_is_asked_for_a_while() -> None:
    server = Server(access(), [refusal(404, "no such Service")])
    asked = leader_view(server)
    for _ in range(3):
        with pytest.raises(NoAnswer, match="no such Service"):
            await asked.ask(questions.explanation("ns", "a"))
    assert len(server.asked) == 1
    # A Task that is not there says nothing of others.
    server = Server(access(), [problem(404, "there is no Task a"), GIVEN])
    asked = leader_view(server)
    with pytest.raises(NoAnswer):
        await asked.ask(questions.explanation("ns", "a"))
    assert (await asked.ask(questions.explanation("ns", "b"))).reason == "Queued"


def of_agents(said: str, namespace: str = "ns") -> MemoryCluster:
    """A cluster where an agent's pod says whose it is."""
    cluster = MemoryCluster(namespace)
    token = {"serviceAccountToken": {"audience": f"taskdist.dev/{said}"}}
    spec = {"volumes": [{"projected": {"sources": [token]}}]}
    labels = {"taskdist.dev/pool": "p"}
    cluster.add(PODS, {"metadata": {"name": "p-0", "namespace": namespace, "labels": labels}, "spec": spec})
    return cluster


async def test_the_agents_tell_whose_view_it_is_and_a_variable_overrules_them(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster, server = of_agents("ops/blue"), Server(access(), [refusal(404, "x"), GIVEN])
    asked = leader_view(server, cluster)
    await asked.ask(questions.explanation("ns", "a"))
    services = [each.path.split("/")[6] for each in server.asked]
    assert services == ["https:blue-view:view", "https:blue-taskdist-view:view"]
    assert asked.lease == "ops/blue-taskdist"
    monkeypatch.setenv("TASKDIST_OPERATOR_LEASE", "ours/green")
    server = Server(access(), [GIVEN])
    cluster.errors["list"] = ApiError(403, "Forbidden", "no")
    asked = leader_view(server, cluster)
    await asked.ask(questions.explanation("ns", "a"))
    assert asked.lease == "ours/green"


@pytest.mark.parametrize(
    ("given", "said", "namespace", "shown"),
    [
        pytest.param(access(), "mallory/blue", "ns", "minted-1", id="pods are others' work"),
        pytest.param(access(), "taskdist-system/taskdist", "ns", "mine", id="the usual one is the cluster's"),
        pytest.param(access(in_cluster=True), "ops/blue", "ns", "mine", id="beside our own pod"),
        pytest.param(access(in_cluster=True), "mallory/blue", "theirs", "minted-1", id="beside others' pods"),
    ],
)
async def test_nobodys_own_token_leaves_by_what_others_pods_say(
    given: Access, said: str, namespace: str, shown: str
) -> None:
    """The API server passes questions on to whatever Service is named, and verifies no certificate of it."""
    server = Server(given, [GIVEN])
    await leader_view(server, of_agents(said, namespace)).ask(questions.explanation(namespace, "a"))
    assert [each.headers for each in server.asked] == [(("X-Taskdist-Token", shown),)]


async def test_who_shows_no_token_is_told_how_to() -> None:
    server = Server(access(), [refusal(404, "no such Service")])
    server.no_minting = ApiError(403, "Forbidden", "you may not")
    with pytest.raises(NoAnswer, match=r"you may not.* set TASKDIST_OPERATOR_LEASE=mallory/blue"):
        await leader_view(server, of_agents("mallory/blue")).ask(questions.explanation("ns", "a"))
    assert all("/taskdist-system/" in each.path for each in server.asked)


async def test_who_may_not_list_pods_goes_by_the_usual_name() -> None:
    cluster = MemoryCluster()
    cluster.errors["list"] = ApiError(403, "Forbidden", "no")
    asked = leader_view(Server(access(), [GIVEN]), cluster)
    await asked.ask(questions.explanation("ns", "a"))
    assert asked.lease == "taskdist-system/taskdist"


@dataclass
class Inside:
    """The direct way, whatever Service it leads to."""

    answer: Answer | Exception = GIVEN
    made: list[tuple[str, str]] = field(default_factory=list)
    """Hosts, and whom they are trusted by."""

    def __call__(self, host: str, bundle: str) -> "Inside":
        self.made.append((host, bundle))
        return self

    async def ask(self, _path: str, _token: str) -> Answer:
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


async def test_a_pod_asks_the_service_and_else_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    inside = Inside()
    monkeypatch.setattr(view, "Direct", inside)
    server, cluster = Server(access(in_cluster=True), [GIVEN]), MemoryCluster()
    # Without the authorities that the operator publishes nobody is trusted.
    await leader_view(server, cluster).ask(questions.explanation("ns", "a"))
    assert (inside.made, len(server.asked)) == ([], 1)
    cluster.add(CONFIGMAPS, {"metadata": {"name": "taskdist-ca"}, "data": {"ca.crt": "pem"}})
    await leader_view(server, cluster).ask(questions.explanation("ns", "a"))
    assert (inside.made, len(server.asked)) == ([("taskdist-view.taskdist-system.svc", "pem")], 1)
    inside.answer = Unreachable("no such host")
    await leader_view(server, cluster).ask(questions.explanation("ns", "a"))
    assert len(server.asked) == 2


def event(kind: str, /, **told: Any) -> list[bytes]:
    return [f"event: {kind}".encode(), f"data: {json.dumps(told)}".encode()]


async def followed(server: Server) -> tuple[list[TaskRow], str]:
    """What a stream told, and how it ended."""
    rows: list[TaskRow] = []
    try:
        async with asyncio.timeout(20), leader_view(server).progress("ns", "a") as told:
            async for row in told:
                rows.append(row)
    except NoAnswer as error:
        return rows, str(error)
    return rows, ""


async def test_progress_is_told_until_the_task_is_over() -> None:
    half = ROW | {"progress": {"fraction": 0.5, "message": "page 1"}}
    lines = [*event("task", **ROW), b": nothing new", *event("task", **half)]
    lines += [*event("task", **ROW | {"phase": "Succeeded"}), *event("end", reason="it is Succeeded")]
    server = Server(access(), [Answer(200, b"{}")], list(lines))
    rows, why = await followed(server)
    assert [(each.phase, each.progress and each.progress.fraction) for each in rows] == [
        ("Assigned", None),
        ("Assigned", 0.5),
        ("Succeeded", None),
    ]
    assert why == ""
    stream = server.asked[-1]
    assert (stream.path, stream.query) == (f"{PROXY}/v1/namespaces/ns/progress", "task=a")
    assert (stream.accept, stream.headers) == ("text/event-stream", (("X-Taskdist-Token", "mine"),))


@pytest.mark.parametrize(
    ("lines", "words"),
    [
        pytest.param(event("end", reason="this replica has stopped to lead"), "stopped to lead", id="the end is said"),
        pytest.param([], "the stream has ended", id="it ends"),
        pytest.param([Unanswered("reset by peer")], "reset by peer", id="it breaks"),
        pytest.param([b"event: task", b"data: {}"], "no more", id="another release"),
    ],
)
async def test_a_stream_that_ends_before_the_task_does_says_so(lines: list[bytes | Exception], words: str) -> None:
    rows, why = await followed(Server(access(), [Answer(200, b"{}")], [*event("task", **ROW), *lines]))
    assert len(rows) == 1
    assert words in why


async def test_a_stream_follows_who_leads_too() -> None:
    moved = ApiError(421, "", json.dumps({"title": "No", "detail": "not me"}))
    end = event("task", **ROW | {"phase": "Failed"})
    server = Server(access(), [Answer(200, b"{}")], [moved, moved, *end])
    assert [each.phase for each in (await followed(server))[0]] == ["Failed"]
    refused = Server(access(), [Answer(200, b"{}")], [ApiError(429, "", json.dumps({"title": "No", "detail": "many"}))])
    assert await followed(refused) == ([], "the leader cannot be asked: many")


async def test_a_question_with_a_body_is_posted_and_has_its_own_time() -> None:
    server = Server(access(), [GIVEN, Answer(200, b'{"asItIs": {"starts": 0}, "changed": {"starts": 1}, "runs": 5}')])
    asked = leader_view(server)
    await asked.ask(questions.explanation("ns", "a"))
    told = await asked.ask(questions.what_if("ns", "a", Changes(more_agents=2)))
    assert (told.changed.starts, told.runs) == (1.0, 5)
    look, post = server.asked
    assert (look.method, look.body, look.timeout) == ("GET", None, questions.ASK_SECONDS)
    assert (post.method, post.path) == ("POST", PROXY + "/v1/namespaces/ns/tasks/a/what-if")
    assert (json.loads(post.body or b""), post.timeout) == ({"moreAgents": 2}, questions.WHAT_IF_SECONDS)


async def test_who_may_look_and_not_post_goes_on_looking() -> None:
    server = Server(access(), [GIVEN, refusal(403, "may not create services/proxy"), GIVEN])
    asked = leader_view(server)
    await asked.ask(questions.explanation("ns", "a"))
    with pytest.raises(NoAnswer, match="cannot be asked that: may not create services/proxy"):
        await asked.ask(questions.what_if("ns", "a", Changes(more_agents=2)))
    assert (await asked.ask(questions.explanation("ns", "a"))).reason == "Queued"
