"""One real control plane for the whole session, and fresh namespaces in it.

Integration tests run in one process: a second worker would start a second control plane. A cluster that is named by
TASKDIST_TEST_KUBECONFIG is used in place of one of our own.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from taskdist.kube import ApiError
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import Client

CRDS = Path(__file__).parents[2] / "crds"


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    """etcd, kube-apiserver and kube-controller-manager; they end with the session, also with a killed one."""
    given = os.environ.get("TASKDIST_TEST_KUBECONFIG")
    with ControlPlane.attach(Path(given)) if given else ControlPlane.start() as plane:
        yield plane


@pytest.fixture(scope="session")
def kubeconfig(control_plane: ControlPlane) -> Path:
    """Of an administrator."""
    return control_plane.kubeconfig


@pytest.fixture(scope="session")
def cluster(control_plane: ControlPlane) -> Client:
    """Plain requests as administrator."""
    return control_plane.client


@pytest.fixture(scope="session")
def crds(cluster: Client) -> list[str]:
    """The project's kinds, served. The names of the definitions."""
    definitions = [
        definition
        for file in sorted(CRDS.glob("*.yaml"))
        for definition in yaml.safe_load_all(file.read_text())
        if definition
    ]
    assert definitions, f"no definitions in {CRDS}"
    for definition in definitions:
        name = definition["metadata"]["name"]
        cluster.apply(f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}", definition)
    deadline = time.monotonic() + 30
    for definition in definitions:
        spec = definition["spec"]
        for version in spec["versions"]:
            while not _served(cluster, f"/apis/{spec['group']}/{version['name']}/{spec['names']['plural']}"):
                assert time.monotonic() < deadline, f"{definition['metadata']['name']} is not served"
                time.sleep(0.05)
    return [definition["metadata"]["name"] for definition in definitions]


def _served(cluster: Client, path: str) -> bool:
    """The condition Established comes a moment before the API server answers for the kind: it says 404, then 429."""
    try:
        cluster.get(path)
    except ApiError as error:
        if error.status not in (404, 429):
            raise
        return False
    return True


@pytest.fixture
def namespace(cluster: Client) -> Iterator[str]:
    """A fresh namespace with its default ServiceAccount; deleted afterwards without waiting for it."""
    name = f"test-{secrets.token_hex(4)}"
    cluster.create("/api/v1/namespaces", {"metadata": {"name": name}})
    deadline = time.monotonic() + 30
    while not cluster.get(f"/api/v1/namespaces/{name}/serviceaccounts")["items"]:
        assert time.monotonic() < deadline, "no default ServiceAccount: is the controller manager alive?"
        time.sleep(0.02)
    yield name
    cluster.delete(f"/api/v1/namespaces/{name}")
