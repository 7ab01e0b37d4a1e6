"""The gateway as a process of its own with the chart's rights, callers with tokens of theirs, and a real API server."""

from __future__ import annotations

import base64
import secrets
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from gateway_process import Gateway, running
from patience import until
from taskdist.local.binaries import find
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import MERGE_PATCH, Client, access_of, write_kubeconfig

ROOT = Path(__file__).parents[3]
RBAC = "/apis/rbac.authorization.k8s.io/v1"
TASKS = "/apis/taskdist.dev/v1alpha1/namespaces/{}/tasks"

Object = dict[str, Any]


@pytest.fixture(scope="package")
def token(cluster: Client) -> Callable[[str, str], str]:
    """A token of a ServiceAccount, which is made where it is not there."""

    def make(namespace: str, account: str) -> str:
        path = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        if account not in {each["metadata"]["name"] for each in cluster.get(path)["items"]}:
            cluster.create(path, {"metadata": {"name": account}})
        answer = cluster.create(f"{path}/{account}/token", {"spec": {"expirationSeconds": 3600}})
        return str(answer["status"]["token"])

    return make


@pytest.fixture(scope="package")
def hooked(cluster: Client) -> Iterator[str]:
    """The namespace whose webhooks are served."""
    name = f"hooked-{secrets.token_hex(3)}"
    cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    yield name
    cluster.delete(f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="package")
def rights(hooked: str) -> list[Object]:
    """The objects that the chart makes for the gateway."""
    command: list[str | Path] = [find("helm"), "template", "taskdist", ROOT / "charts" / "taskdist"]
    command += ["--namespace", "default", "--kube-version", "1.34.0", "--set", "gateway.enabled=true"]
    command += ["--set", "gateway.webhooks.enabled=true", "--set", f"gateway.webhooks.namespaces={{{hooked}}}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    return [
        each
        for each in yaml.safe_load_all(done.stdout)
        if each and each["metadata"]["labels"].get("app.kubernetes.io/component") == "gateway"
    ]


@pytest.fixture(scope="package")
def account(
    control_plane: ControlPlane,
    cluster: Client,
    crds: list[str],
    token: Callable[[str, str], str],
    rights: list[Object],
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Path]:
    """A kubeconfig of the chart's ServiceAccount for the gateway."""
    made = []
    for each in rights:
        if each["apiVersion"].startswith("rbac."):
            where = f"/namespaces/{each['metadata']['namespace']}" if "namespace" in each["metadata"] else ""
            path = f"{RBAC}{where}/{each['kind'].lower()}s/{each['metadata']['name']}"
            cluster.apply(path, each)
            made.append(path)
    assert len(made) >= 4
    access = access_of(control_plane.kubeconfig)
    authority = yaml.safe_load(control_plane.kubeconfig.read_text())["clusters"][0]["cluster"]
    file = tmp_path_factory.mktemp("account") / "kubeconfig"
    of = {"token": token("default", "taskdist-gateway")}
    yield write_kubeconfig(file, access.server, _authority(authority), of)
    for path in made:
        cluster.delete(path)


@pytest.fixture(scope="package")
def gateway(account: Path, hooked: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """`taskdist gateway` under the chart's ServiceAccount."""
    webhooks = {"TASKDIST_GATEWAY_WEBHOOK_NAMESPACES": hooked}
    with running(account, tmp_path_factory.mktemp("gateway"), webhooks) as server:
        yield server


def _authority(cluster: Mapping[str, str]) -> bytes:
    return base64.b64decode(cluster["certificate-authority-data"])


@dataclass(frozen=True)
class Room:
    """A namespace with callers."""

    name: str
    cluster: Client
    url: str
    make_token: Callable[[str, str], str]
    callers: ExitStack

    def caller(self, *verbs: str, account: str = "", resources: tuple[str, ...] = ("tasks",)) -> httpx.Client:
        """Somebody who may do so to Tasks, and nothing else."""
        account = account or f"caller-{secrets.token_hex(3)}"
        given = self.make_token(self.name, account)
        if verbs:
            rule = {"apiGroups": ["taskdist.dev"], "resources": list(resources), "verbs": list(verbs)}
            self.cluster.create(
                f"{RBAC}/namespaces/{self.name}/roles", {"metadata": {"name": account}, "rules": [rule]}
            )
            self.cluster.create(
                f"{RBAC}/namespaces/{self.name}/rolebindings",
                {
                    "metadata": {"name": account},
                    "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
                    "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": self.name}],
                },
            )
            user = f"system:serviceaccount:{self.name}:{account}"
            until(lambda: all(self._may(user, verb) for verb in verbs), "the authorizer knows the role")
        return self.anybody({"Authorization": f"Bearer {given}"})

    def anybody(self, headers: Mapping[str, str] | None = None) -> httpx.Client:
        """Somebody who calls with these headers."""
        url = f"{self.url}/v1/namespaces/{self.name}"
        return self.callers.enter_context(httpx.Client(base_url=url, headers=headers, timeout=120))

    def _may(self, user: str, verb: str) -> bool:
        attributes = {"verb": verb, "group": "taskdist.dev", "resource": "tasks", "namespace": self.name}
        answer = self.cluster.create(
            "/apis/authorization.k8s.io/v1/subjectaccessreviews",
            {"spec": {"user": user, "resourceAttributes": attributes}},
        )
        return bool(answer["status"]["allowed"])

    def task(self, name: str, **spec: Any) -> Object:
        """Make a Task, as an administrator."""
        body = {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "Task",
            "metadata": {"name": name},
            "spec": {"queue": "q", "type": "echo", **spec},
        }
        made: Object = self.cluster.create(TASKS.format(self.name), body)
        return made

    def hook(self, namespace: str, name: str) -> None:
        """Make a webhook that nobody can sign for, unless it is there."""
        path = f"/apis/taskdist.dev/v1alpha1/namespaces/{namespace}/tasksources/{name}"
        webhook = {"format": "CloudEvents", "secretName": name}
        body = {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "TaskSource",
            "metadata": {"name": name},
            "spec": {"webhook": webhook, "task": {"queue": "q", "type": "t"}},
        }
        self.cluster.apply(path, body)
        secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "stringData": {"secret": "k" * 24}}
        self.cluster.apply(f"/api/v1/namespaces/{namespace}/secrets/{name}", secret)
        url = f"{self.url}/v1/namespaces/{namespace}/webhooks/{name}"
        until(lambda: httpx.post(url).status_code != 404, "the gateway knows it")

    def ends(self, name: str, phase: str = "Succeeded", **status: Any) -> None:
        """Write a Task's end, as the operator does."""
        body = {"status": {"phase": phase, "reason": "Completed", **status}}
        path = f"{TASKS.format(self.name)}/{name}/status"
        self.cluster.request("PATCH", path, body, content_type=MERGE_PATCH)

    def exists(self, name: str) -> bool:
        items = self.cluster.get(TASKS.format(self.name))["items"]
        return name in {each["metadata"]["name"] for each in items}


@pytest.fixture
def room(gateway: Gateway, cluster: Client, namespace: str, token: Callable[[str, str], str]) -> Iterator[Room]:
    with ExitStack() as callers:
        yield Room(namespace, cluster, gateway.url, token, callers)
