"""The leader's view on real parts: who may ask what, what a standby says, and the way through the API server."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from integration.controller.room import Object, Room, metrics
from patience import until
from taskdist.api.view import Explanation, Leader, PoolDetail, Problem, QueueView, TaskDetail, TaskList, TaskRow, WhatIf
from taskdist.kube import Access
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import MERGE_PATCH, Client, access_of
from taskdist.local.stack import OPERATOR_NAMESPACE, OperatorProcess, Stack

RESOURCES = ("tasks", "taskqueues", "agentpools")


class Asked:
    """One answer of the view."""

    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def problem(self) -> Problem:
        assert self.headers["Content-Type"].startswith("application/problem+json"), self.body
        return Problem.model_validate_json(self.body)


class Asker:
    """Asks one replica's view directly, and trusts the bundle that the operator publishes."""

    def __init__(self, port: int, bundle: Path) -> None:
        self._port = port
        self._tls = ssl.create_default_context(cafile=str(bundle))

    def ask(self, path: str, token: str = "", method: str = "GET", body: bytes | None = None) -> Asked:
        if method == "POST" and body is None:
            body = b'{"moreAgents": 1}'
        with self._connection() as connection:
            headers = {"Authorization": f"Bearer {token}"} if token else {}
            connection.request(method, path, body, headers)
            answer = connection.getresponse()
            return Asked(answer.status, dict(answer.getheaders()), answer.read())

    @contextmanager
    def _connection(self) -> Iterator[http.client.HTTPSConnection]:
        connection = http.client.HTTPSConnection("127.0.0.1", self._port, timeout=20, context=self._tls)
        try:
            yield connection
        finally:
            connection.close()


@pytest.fixture(scope="module")
def bundle(shared: Room, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The authorities to trust, from where agents read them."""
    file = tmp_path_factory.mktemp("view") / "ca.crt"
    file.write_text(until(lambda: shared.get("configmaps", "taskdist-ca"), "the bundle is there")["data"]["ca.crt"])
    return file


@pytest.fixture(scope="module")
def asker(stack: Stack, bundle: Path) -> Asker:
    return Asker(stack.operators[0].view_port, bundle)


def account(cluster: Client, namespace: str, name: str, rules: list[Object] | None) -> str:
    """Make a ServiceAccount with these rights in its namespace; return a token of it."""
    cluster.create(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": name}})
    if rules:
        rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{namespace}"
        cluster.create(f"{rbac}/roles", {"metadata": {"name": name}, "rules": rules})
        reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name}
        subject = {"kind": "ServiceAccount", "name": name, "namespace": namespace}
        body = {"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}
        cluster.create(f"{rbac}/rolebindings", body)
    return token_of(cluster, namespace, name)


def token_of(cluster: Client, namespace: str, name: str) -> str:
    path = f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}/token"
    return str(cluster.create(path, {"spec": {"expirationSeconds": 3600}})["status"]["token"])


@pytest.fixture(scope="module")
def viewer(cluster: Client, stack: Stack) -> str:
    """A token of the account that the manifests ship for callers without one."""
    return token_of(cluster, OPERATOR_NAMESPACE, "taskdist-viewer")


def paths(namespace: str) -> list[tuple[str, str, str, str]]:
    """Each path with its method, and the verb and the resource that it needs."""
    base = f"/v1/namespaces/{namespace}"
    return [
        ("GET", f"{base}/tasks", "list", "tasks"),
        ("GET", f"{base}/tasks/left", "get", "tasks"),
        ("GET", f"{base}/tasks/left/explain", "get", "tasks"),
        ("POST", f"{base}/tasks/left/what-if", "get", "tasks"),
        ("GET", f"{base}/queues", "list", "taskqueues"),
        ("GET", f"{base}/queues/shut", "get", "taskqueues"),
        ("GET", f"{base}/pools", "list", "agentpools"),
        ("GET", f"{base}/pools/p", "get", "agentpools"),
    ]


def test_who_is_not_known_is_told_so_and_nothing_else(shared: Room, asker: Asker) -> None:
    for method, path, _, _ in [("GET", "/v1/leader", "", ""), *paths(shared.namespace)]:
        for token in ("", "nonsense", "a.b.c"):
            refused = asker.ask(path, token, method)
            assert (refused.status, refused.headers["WWW-Authenticate"]) == (401, "Bearer"), (path, token)
            assert "token" in refused.problem.detail
            assert shared.namespace not in refused.problem.detail


def test_a_token_for_the_link_is_none_for_the_view(shared: Room, cluster: Client, asker: Asker) -> None:
    audience = f"taskdist.dev/{OPERATOR_NAMESPACE}/taskdist"
    path = f"/api/v1/namespaces/{OPERATOR_NAMESPACE}/serviceaccounts/taskdist-viewer/token"
    made = cluster.create(path, {"spec": {"audiences": [audience], "expirationSeconds": 3600}})
    assert asker.ask("/v1/leader", made["status"]["token"]).status == 401


def test_each_right_opens_what_it_is_needed_for_and_nothing_else(shared: Room, cluster: Client, asker: Asker) -> None:
    namespace = shared.namespace
    nobody = account(cluster, namespace, "nobody", None)
    assert asker.ask("/v1/leader", nobody).status == 200
    for verb in ("get", "list", "watch"):
        for resource in RESOURCES:
            rule = {"apiGroups": ["taskdist.dev"], "resources": [resource], "verbs": [verb]}
            token = account(cluster, namespace, f"{verb}-{resource}", [rule])
            for method, path, needed, of in paths(namespace):
                asked = asker.ask(path, token, method)
                if (verb, resource) == (needed, of):
                    # A what-if may find no time on a machine that has much to do.
                    assert asked.status in ((200, 503) if method == "POST" else (200,)), (path, asked.body)
                else:
                    assert asked.status == 403, (path, verb, resource, asked.body)
                    assert f"may not {needed} {of}.taskdist.dev" in asked.problem.detail
            # Elsewhere it has no right at all, whether there is anything or not.
            assert {asker.ask(path, token, method).status for method, path, _, _ in paths("default")} == {403}
    for method, path, needed, of in paths(namespace):
        refused = asker.ask(path, nobody, method)
        assert refused.status == 403
        assert f"{needed} {of}" in refused.problem.detail


def test_a_right_on_one_task_shows_that_one(shared: Room, cluster: Client, asker: Asker) -> None:
    rule = {"apiGroups": ["taskdist.dev"], "resources": ["tasks"], "verbs": ["get"], "resourceNames": ["left"]}
    token = account(cluster, shared.namespace, "of-one", [rule])
    assert asker.ask(f"/v1/namespaces/{shared.namespace}/tasks/left", token).status == 200
    assert asker.ask(f"/v1/namespaces/{shared.namespace}/tasks/no-handler", token).status == 403


def test_tasks_are_told_as_they_are(shared: Room, asker: Asker, viewer: str) -> None:
    base = f"/v1/namespaces/{shared.namespace}/tasks"
    page = TaskList.model_validate_json(asker.ask(f"{base}?queue=shut&phase=Pending", viewer).body)
    assert [(row.name, row.queue, row.type, row.level, row.phase) for row in page.items] == [
        ("left", "shut", "echo", "Normal", "Pending")
    ]
    row = TaskRow.model_validate_json(asker.ask(f"{base}/left", viewer).body)
    assert row.uid == shared.get("tasks", "left")["metadata"]["uid"]
    missing = asker.ask(f"{base}/none-such", viewer)
    assert (missing.status, missing.problem.detail) == (
        404,
        f"there is no Task none-such in namespace {shared.namespace}",
    )


def test_why_a_task_waits_is_told_as_the_command_finds_it_out(shared: Room, asker: Asker, viewer: str) -> None:
    path = f"/v1/namespaces/{shared.namespace}/tasks/left"
    told = Explanation.model_validate_json(asker.ask(f"{path}/explain", viewer).body)
    found = json.loads(shared.taskdist("explain", "left", "-o", "json", "--from", "cluster"))
    assert (told.phase, told.reason, told.message) == ("Pending", "QueuePaused", found["message"])
    assert (told.unblock, told.command, told.position) == (found["unblock"], found["command"], found.get("position"))
    detail = TaskDetail.model_validate_json(asker.ask(path, viewer).body)
    assert (detail.name, detail.position) == ("left", told.position)


def test_what_waits_at_sources_is_told_by_the_leader_and_found_out_alike(
    shared: Room, asker: Asker, viewer: str
) -> None:
    spec = {"cron": {"schedule": "0 0 1 1 *"}, "task": {"queue": "shut", "type": "echo"}}
    shared.make("TaskSource", "orders", spec)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    status = {"backlog": {"messages": 7, "at": now, "oldest": "2026-01-01T00:00:00Z"}}
    shared.client.request(
        "PATCH", shared.path("tasksources", "orders/status"), {"status": status}, content_type=MERGE_PATCH
    )
    base = f"/v1/namespaces/{shared.namespace}"
    outside = until(
        lambda: QueueView.model_validate_json(asker.ask(f"{base}/queues/shut", viewer).body).outside,
        "the leader has heard of it",
    )
    assert (outside.messages, outside.source, outside.oldest) == (7, "orders", datetime(2026, 1, 1, tzinfo=UTC))
    told = Explanation.model_validate_json(asker.ask(f"{base}/tasks/left/explain", viewer).body)
    assert told.outside == outside
    found = {"messages": 7, "source": "orders", "oldest": "2026-01-01T00:00:00Z"}
    for name in ("left", "queue/shut"):
        story = json.loads(shared.taskdist("explain", name, "-o", "json", "--from", "cluster"))
        assert story["outside"] == found, name
    shared.delete("tasksources", "orders")
    until(
        lambda: QueueView.model_validate_json(asker.ask(f"{base}/queues/shut", viewer).body).outside is None,
        "nothing waits there any more",
    )


def test_queues_and_pools_are_told_as_they_are(shared: Room, asker: Asker, viewer: str) -> None:
    base = f"/v1/namespaces/{shared.namespace}"
    shut = QueueView.model_validate_json(asker.ask(f"{base}/queues/shut", viewer).body)
    assert (shut.paused, shut.accepting, shut.waiting, shut.pools) == (True, True, 1, ["idle"])
    assert [(each.level, each.waiting) for each in shut.levels] == [("Normal", 1)]
    pool = PoolDetail.model_validate_json(asker.ask(f"{base}/pools/p", viewer).body)
    assert (pool.desired, pool.ready, pool.slots) == (2, 2, 4)
    assert {(each.slots, each.breaker) for each in pool.agents} == {(2, "Closed")}
    assert asker.ask(f"{base}/pools/none-such", viewer).status == 404


def test_progress_is_a_stream_that_ends_with_the_task(shared: Room, cluster: Client, asker: Asker, viewer: str) -> None:
    shared.task("streamed")
    path = f"/v1/namespaces/{shared.namespace}/progress?task=streamed"
    stream = asker.ask(path, viewer)
    assert stream.headers["Content-Type"] == "text/event-stream"
    events = [line for line in stream.body.decode().splitlines() if line.startswith("event: ")]
    assert events[0] == "event: task"
    assert (events[-1], '"phase":"Succeeded"' in stream.body.decode()) == ("event: end", True)
    rule = {"apiGroups": ["taskdist.dev"], "resources": ["tasks"], "verbs": ["get", "list"]}
    refused = asker.ask(path, account(cluster, shared.namespace, "no-watcher", [rule]))
    assert (refused.status, "may not watch tasks.taskdist.dev" in refused.problem.detail) == (403, True)


@pytest.fixture
def standby(stack: Stack) -> Iterator[OperatorProcess]:
    operator = stack.start_operator("standby")
    yield operator
    stack.operators.remove(operator)
    operator.stop()


def test_a_standby_says_who_leads(
    stack: Stack, shared: Room, standby: OperatorProcess, bundle: Path, viewer: str, asker: Asker
) -> None:
    other = Asker(standby.view_port, bundle)
    leader = Leader.model_validate_json(asker.ask("/v1/leader", viewer).body)
    assert (leader.leading, leader.holder, leader.epoch > 0) == (True, "operator", True)
    told = Leader.model_validate_json(other.ask("/v1/leader", viewer).body)
    # On one machine the replicas share no Service: each has an address of its own.
    assert told == leader.model_copy(update={"leading": False, "address": f"localhost:{standby.view_port}"})
    for method, path, _, _ in paths(shared.namespace):
        assert other.ask(path, method=method).status == 401
        refused = other.ask(path, viewer, method)
        assert (refused.status, refused.headers["Connection"]) == (421, "close"), refused.body
        assert refused.problem.leader == told
        assert refused.problem.detail == "this replica does not lead, operator does: ask again"


def address() -> str:
    """This machine's own, not of loopback: the API server takes none of those for an endpoint."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("203.0.113.1", 9))  # sends nothing
        return str(probe.getsockname()[0])


def relay(listener: socket.socket, port: int) -> None:
    """Carry what comes to the port on loopback, where the operators of tests listen."""

    def carry(source: socket.socket, sink: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(65536):
                sink.sendall(chunk)
        for each in (source, sink):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def both(near: socket.socket, far: socket.socket) -> None:
        with near, far:
            back = threading.Thread(target=carry, args=(far, near), daemon=True)
            back.start()
            carry(near, far)
            back.join()

    with contextlib.suppress(OSError):
        while True:
            near, _ = listener.accept()
            far = socket.create_connection(("127.0.0.1", port))
            threading.Thread(target=both, args=(near, far), daemon=True).start()


@pytest.fixture
def service(stack: Stack, cluster: Client, namespace: str) -> Iterator[str]:
    """The path of the API server's proxy to the leader's view, over a Service of this test's own."""
    listener = socket.create_server((address(), 0))
    threading.Thread(target=relay, args=(listener, stack.operators[0].view_port), daemon=True).start()
    spec = {"ports": [{"name": "view", "port": 9446, "protocol": "TCP"}]}
    cluster.create(f"/api/v1/namespaces/{namespace}/services", {"metadata": {"name": "e2e-view"}, "spec": spec})
    # What controllers make of the pods behind a Service. Its proxy goes by that, and by the addresses of those pods.
    pods = f"/api/v1/namespaces/{namespace}/pods"
    container = {"name": "view", "image": "view"}
    body: Object = {"nodeName": "elsewhere", "automountServiceAccountToken": False, "containers": [container]}
    cluster.create(pods, {"metadata": {"name": "view"}, "spec": body})
    status = {"phase": "Running", "podIP": address(), "podIPs": [{"ip": address()}]}
    cluster.request("PATCH", f"{pods}/view/status", {"status": status}, content_type=MERGE_PATCH)
    target = {"kind": "Pod", "name": "view", "namespace": namespace}
    subset = {
        "addresses": [{"ip": address(), "targetRef": target}],
        "ports": [{"name": "view", "port": listener.getsockname()[1], "protocol": "TCP"}],
    }
    cluster.create(f"/api/v1/namespaces/{namespace}/endpoints", {"metadata": {"name": "e2e-view"}, "subsets": [subset]})
    yield f"/api/v1/namespaces/{namespace}/services/https:e2e-view:9446/proxy"
    listener.shutdown(socket.SHUT_RDWR)
    listener.close()


def test_it_is_reached_through_the_api_server_by_who_may_and_a_right_on_its_names_is_enough(
    service: str, control_plane: ControlPlane, cluster: Client, namespace: str, shared: Room, viewer: str
) -> None:
    """`view.viewer.proxy` of the chart gives the right under these names."""
    rule: Object = {"apiGroups": [""], "resources": ["services/proxy"], "verbs": ["get"]}
    names = ["https:e2e-view:view", "https:e2e-view:9446"]
    account(cluster, namespace, "outsider", [rule | {"resourceNames": names}])
    account(cluster, namespace, "stranger", [rule | {"resourceNames": ["e2e-view"]}])
    outsider, stranger = (access_of(control_plane.kubeconfig_for(namespace, name)) for name in ("outsider", "stranger"))
    server = urlsplit(control_plane.server)

    def ask(path: str, headers: dict[str, str], access: Access = outsider, port: str = "9446") -> Asked:
        own = {"Authorization": access.authorization} if access.authorization else {}
        connection = http.client.HTTPSConnection(server.hostname or "", server.port, timeout=20, context=access.tls)
        with contextlib.closing(connection):
            connection.request("GET", service.replace("9446", port) + path, headers=own | headers)
            answer = connection.getresponse()
            return Asked(answer.status, dict(answer.getheaders()), answer.read())

    # The Service and the roles are known to the API server a moment later.
    through = until(
        lambda: (asked := ask("/v1/leader", {"X-Taskdist-Token": viewer})).status not in (403, 404, 503) and asked,
        "there is a way",
    )
    assert (through.status, Leader.model_validate_json(through.body).leading) == (200, True), through.body
    left = f"/v1/namespaces/{shared.namespace}/tasks/left"
    assert ask(left, {"X-Taskdist-Token": viewer}, port="view").status == 200
    assert ask("/v1/leader", {}).status == 401
    assert ask("/v1/leader", {"X-Taskdist-Token": viewer}, stranger).status == 403


def test_the_command_finds_its_way_through_the_api_server(
    service: str, namespace: str, shared: Room, cluster: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the name of a Lease, to the Service beside it, with a token of its viewer: kubeconfigs here have none."""
    rule = {"apiGroups": ["taskdist.dev"], "resources": ["tasks"], "verbs": ["get", "list", "watch"]}
    account(cluster, namespace, "e2e-viewer", None)
    rbac = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{shared.namespace}"
    cluster.create(f"{rbac}/roles", {"metadata": {"name": "e2e-viewer"}, "rules": [rule]})
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "e2e-viewer"}
    subject = {"kind": "ServiceAccount", "name": "e2e-viewer", "namespace": namespace}
    body = {"metadata": {"name": "e2e-viewer"}, "roleRef": reference, "subjects": [subject]}
    cluster.create(f"{rbac}/rolebindings", body)
    monkeypatch.setenv("TASKDIST_OPERATOR_LEASE", f"{namespace}/e2e")

    def asked() -> Object | None:
        # The Service is known to the API server a moment later.
        with contextlib.suppress(subprocess.CalledProcessError):
            story: Object = json.loads(shared.taskdist("explain", "left", "-o", "json", "--from", "leader"))
            return story
        return None

    story = until(asked, "the leader is reached")
    # It is asked to play, and gives way to all else on this machine: where it takes too long, the command says so.
    changed = ("explain", "left", "--what-if", "priority=High", "-o", "json", "--from", "leader")
    until(lambda: asked() and _played(shared, *changed), "the leader plays what would be", timeout=120)
    assert (story["reason"], story["operator"]["lease"]) == ("QueuePaused", f"{namespace}/e2e")
    table = shared.taskdist("get", "left").splitlines()
    assert table[0].split()[-3:] == ["POSITION", "STARTS", "PROGRESS"]
    assert "left" in [line.split()[0] for line in shared.taskdist("get", "--queue", "shut").splitlines()]
    shared.task("followed")
    assert shared.taskdist("watch", "followed").splitlines()[-1].endswith("task followed: Succeeded")


def _played(shared: Room, *changed: str) -> bool:
    with contextlib.suppress(subprocess.CalledProcessError):
        # Its queue is paused: whatever its level, it does not start.
        played = json.loads(shared.taskdist(*changed))["what_if"]
        return bool(played["changed"] == played["as_it_is"] == {"expected_start": "unknown", "starts": 0.0})
    return False


def test_what_would_be_if_is_told_and_nonsense_is_refused(shared: Room, asker: Asker, viewer: str) -> None:
    path = f"/v1/namespaces/{shared.namespace}/tasks/left/what-if"

    def played() -> WhatIf | None:
        answer = asker.ask(path, viewer, "POST", b'{"priority": "High", "agents": {"idle": 2}}')
        assert answer.status in (200, 429, 503), answer.body
        return WhatIf.model_validate_json(answer.body) if answer.status == 200 else None

    told = until(played, "it is played", timeout=120)
    assert (told.as_it_is.starts, told.changed.starts, told.runs >= 3) == (0.0, 0.0, True), "its queue is paused"
    for body, words in ((b"{}", "say what would be different"), (b'{"agents": {"p": 1e99}}', "agents.p")):
        refused = asker.ask(path, viewer, "POST", body)
        assert (refused.status, words in refused.problem.detail) == (400, True), refused.body
    large = asker.ask(path, viewer, "POST", b" " * 100_000)
    assert large.status == 413
    ended = asker.ask(path.replace("left", "done"), viewer, "POST")
    assert ended.status in (404, 409)


def test_what_is_asked_is_counted(stack: Stack, shared: Room, asker: Asker, viewer: str) -> None:
    asker.ask("/v1/leader", viewer)
    asker.ask("/no/such/path", viewer)
    counted = metrics(stack.operators[0])
    assert counted['taskdist_view_requests_total{outcome="200",path="/v1/leader"}'] >= 1
    assert counted['taskdist_view_requests_total{outcome="404",path="other"}'] >= 1
