"""The client on the real cluster: by the API server and by the HTTP door, held to what users may count on."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from client_contract import CASES, QUEUES, TYPES, Case
from gateway_process import running
from integration.controller.conftest import make_room
from integration.controller.room import SCRIPT, Room, container
from taskdist.client import AsyncClient, Client
from taskdist.local import rest
from taskdist.local.stack import Stack

AGENT = Path(__file__).parents[2] / "agents" / "of_clients.py"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


class Cluster:
    """A room with the contract's queues and agents, and two accounts: one that may do all to Tasks, one nothing."""

    def __init__(self, room: Room, directory: Path) -> None:
        self.room = room
        self.directory = directory
        for name, spec in QUEUES.items():
            room.queue(name, **spec)
        types = ("--types", ",".join(TYPES))
        pod = {"containers": [container((SCRIPT, "agent", f"{AGENT}:agent", *types))]}
        room.pool(replicas=2, slots=4, ready=2, template={"spec": pod | {"terminationGracePeriodSeconds": 5}})
        self.token = self._account("caller", "edit")
        self.stranger = self._account("stranger", "")

    def _account(self, name: str, role: str) -> str:
        client, accounts = self.room.client, self.room.path("serviceaccounts")
        client.create(accounts, {"metadata": {"name": name}})
        if role:
            rules = [
                {"apiGroups": ["taskdist.dev"], "resources": ["tasks", "taskqueues", "agentpools"], "verbs": ["*"]},
                {"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list"]},
            ]
            base = f"{RBAC}/namespaces/{self.room.namespace}"
            client.create(f"{base}/roles", {"metadata": {"name": name}, "rules": rules})
            client.create(
                f"{base}/rolebindings",
                {
                    "metadata": {"name": name},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
                    "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": self.room.namespace}],
                },
            )
        made = client.create(f"{accounts}/{name}/token", {"spec": {"expirationSeconds": 3600}})
        return str(made["status"]["token"])

    def kubeconfig(self, token: str, server: str = "") -> str:
        given = yaml.safe_load(self.room.stack.plane.kubeconfig.read_text())["clusters"][0]["cluster"]
        authority = base64.b64decode(given["certificate-authority-data"])
        path = self.directory / f"kubeconfig-{len(list(self.directory.iterdir()))}"
        return str(
            rest.write_kubeconfig(path, server or given["server"], authority, {"token": token}, self.room.namespace)
        )


class KubeWorld:
    """By the API server."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster

    def client(self) -> AsyncClient:
        return AsyncClient(kubeconfig=self._cluster.kubeconfig(self._cluster.token))

    def blocking(self) -> Client:
        return Client(kubeconfig=self._cluster.kubeconfig(self._cluster.token))

    def stranger(self) -> AsyncClient:
        return AsyncClient(kubeconfig=self._cluster.kubeconfig(self._cluster.stranger))

    def nowhere(self) -> AsyncClient:
        return AsyncClient(kubeconfig=self._cluster.kubeconfig(self._cluster.token, "https://127.0.0.1:1"))

    def delete(self, name: str) -> None:
        self._cluster.room.delete("tasks", name)


class HttpWorld:
    """By the HTTP door."""

    def __init__(self, cluster: Cluster, url: str) -> None:
        self._cluster = cluster
        self._url = url

    def _client(self, url: str, token: str) -> AsyncClient:
        return AsyncClient(gateway=url, token=token, namespace=self._cluster.room.namespace)

    def client(self) -> AsyncClient:
        return self._client(self._url, self._cluster.token)

    def blocking(self) -> Client:
        return Client(gateway=self._url, token=self._cluster.token, namespace=self._cluster.room.namespace)

    def stranger(self) -> AsyncClient:
        return self._client(self._url, self._cluster.stranger)

    def nowhere(self) -> AsyncClient:
        return self._client("http://127.0.0.1:1", self._cluster.token)

    def delete(self, name: str) -> None:
        self._cluster.room.delete("tasks", name)


# The door gives no look at queues and pools, and plays no what-ifs.
NOT_BY_HTTP = {"a_slip_of_the_finger_is_told_at_once", "what_a_change_would_do_is_told"}


@pytest.fixture(scope="module", name="real")
def cluster_of_clients(
    stack: Stack, cluster: rest.Client, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    rooms = make_room(stack, cluster)
    yield Cluster(next(rooms), tmp_path_factory.mktemp("clients"))
    next(rooms, None)


@pytest.fixture(scope="module")
def gateway(real: Cluster, stack: Stack) -> Iterator[str]:
    """`taskdist gateway` with the rights of an account that may read all."""
    client, name = real.room.client, real.room.namespace
    client.create(real.room.path("serviceaccounts"), {"metadata": {"name": "gateway"}})
    rules = [
        {"apiGroups": ["taskdist.dev"], "resources": ["tasks", "taskqueues"], "verbs": ["get", "list", "watch"]},
        {"apiGroups": ["authentication.k8s.io"], "resources": ["tokenreviews"], "verbs": ["create"]},
        {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]},
    ]
    client.create(f"{RBAC}/clusterroles", {"metadata": {"name": f"{name}-gateway"}, "rules": rules})
    binding = {
        "metadata": {"name": f"{name}-gateway"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": f"{name}-gateway"},
        "subjects": [{"kind": "ServiceAccount", "name": "gateway", "namespace": name}],
    }
    client.create(f"{RBAC}/clusterrolebindings", binding)
    token = client.create(f"{real.room.path('serviceaccounts')}/gateway/token", {"spec": {}})["status"]["token"]
    try:
        with running(Path(real.kubeconfig(token)), real.directory) as server:
            yield server.url
    finally:
        for kind in ("clusterrolebindings", "clusterroles"):
            client.delete(f"{RBAC}/{kind}/{name}-gateway")


@pytest.mark.parametrize("case", CASES, ids=[each.__name__ for each in CASES])
async def test_by_the_api_server(real: Cluster, case: Case) -> None:
    await case(KubeWorld(real))


@pytest.mark.parametrize(
    "case",
    [each for each in CASES if each.__name__ not in NOT_BY_HTTP],
    ids=lambda case: case.__name__,
)
async def test_by_the_http_door(real: Cluster, gateway: str, case: Case) -> None:
    await case(HttpWorld(real, gateway))


def test_what_is_left_out_by_http_is_in_the_contract() -> None:
    assert {each.__name__ for each in CASES} >= NOT_BY_HTTP
