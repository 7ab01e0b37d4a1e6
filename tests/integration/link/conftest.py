"""A real API server behind the link: pods of pools, their tokens, and the link's ports onto it."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from taskdist.kube import ApiError
from taskdist.link.auth import Authenticator, PodOwner
from taskdist.link.keeper import SecretChanged, StoredSecret
from taskdist.local.controlplane import ControlPlane
from taskdist.local.rest import AsyncClient

AUDIENCE = "taskdist.dev/test"


@dataclass
class Api:
    """What the operator would do with the API server for the link."""

    client: AsyncClient
    namespace: str
    pools: dict[tuple[str, str], str] = field(default_factory=dict)

    async def pool(self, name: str) -> str:
        """Create an AgentPool that the operator serves; returns its uid."""
        body = {
            "apiVersion": "taskdist.dev/v1alpha1",
            "kind": "AgentPool",
            "metadata": {"name": name},
            "spec": {"template": {"spec": {"containers": [{"name": "agent", "image": "none"}]}}},
        }
        path = f"/apis/taskdist.dev/v1alpha1/namespaces/{self.namespace}/agentpools"
        created = await self.client.request("POST", path, body)
        uid = str(created["metadata"]["uid"])
        self.pools[self.namespace, name] = uid
        return uid

    async def pod(self, name: str, pool: str = "", pool_uid: str = "", node: str = "") -> str:
        """Create a pod that no node runs, be it bound to one or not; returns its uid."""
        owner = {"apiVersion": "taskdist.dev/v1alpha1", "kind": "AgentPool", "name": pool, "uid": pool_uid}
        body = {
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "ownerReferences": [owner] if pool else []},
            "spec": {
                "automountServiceAccountToken": False,
                "containers": [{"name": "agent", "image": "none"}],
                **({"nodeName": node} if node else {}),
            },
        }
        created = await self.client.request("POST", f"/api/v1/namespaces/{self.namespace}/pods", body)
        return str(created["metadata"]["uid"])

    async def delete_pod(self, name: str, grace: int = 0) -> None:
        path = f"/api/v1/namespaces/{self.namespace}/pods/{name}"
        await self.client.request("DELETE", path, {"gracePeriodSeconds": grace})

    async def token(self, pod: str, uid: str, audience: str = AUDIENCE) -> str:
        """A token bound to the pod, as the kubelet gets it."""
        spec: dict[str, Any] = {"audiences": [audience], "expirationSeconds": 600}
        if pod:
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
        path = f"/api/v1/namespaces/{self.namespace}/serviceaccounts/default/token"
        answer = await self.client.request("POST", path, {"spec": spec})
        return str(answer["status"]["token"])

    # --- the authenticator's ports ---

    def authenticator(self, **options: Any) -> Authenticator:
        return Authenticator(
            self.review,
            AUDIENCE,
            lambda uid: None,
            self.read_pod,
            lambda namespace, name: self.pools.get((namespace, name)),
            **options,
        )

    async def review(self, token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": list(audiences)},
        }
        answer = await self.client.request("POST", "/apis/authentication.k8s.io/v1/tokenreviews", body)
        status: Mapping[str, Any] = answer["status"]
        return status

    async def read_pod(self, namespace: str, name: str) -> PodOwner | None:
        try:
            pod = await self.client.request("GET", f"/api/v1/namespaces/{namespace}/pods/{name}")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        metadata = pod["metadata"]
        owner: dict[str, str] = next((o for o in metadata.get("ownerReferences", ()) if o["kind"] == "AgentPool"), {})
        return PodOwner(
            metadata["uid"],
            namespace,
            name,
            owner.get("name", ""),
            owner.get("uid", ""),
            deleting="deletionTimestamp" in metadata,
        )

    # --- the keeper's ports ---

    async def read(self) -> StoredSecret | None:
        try:
            secret = await self.client.request("GET", f"/api/v1/namespaces/{self.namespace}/secrets/taskdist-ca")
        except ApiError as error:
            if error.status == 404:
                return None
            raise
        data = {key: base64.b64decode(value) for key, value in (secret.get("data") or {}).items()}
        return StoredSecret(data, secret["metadata"]["resourceVersion"])

    async def write(self, data: Mapping[str, bytes], version: str | None) -> str:
        secrets = f"/api/v1/namespaces/{self.namespace}/secrets"
        body = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": "taskdist-ca"} | ({"resourceVersion": version} if version else {}),
            "data": {key: base64.b64encode(value).decode() for key, value in data.items()},
        }
        method, path = ("PUT", f"{secrets}/taskdist-ca") if version else ("POST", secrets)
        try:
            answer = await self.client.request(method, path, body)
        except ApiError as error:
            if error.status == 409:
                raise SecretChanged(str(error)) from error
            raise
        return str(answer["metadata"]["resourceVersion"])

    async def publish(self, bundle: bytes) -> bool:
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": "taskdist-ca"},
            "data": {"ca.crt": bundle.decode()},
        }
        path = f"/api/v1/namespaces/{self.namespace}/configmaps"
        try:
            await self.client.request("PUT", f"{path}/taskdist-ca", body)
        except ApiError as error:
            if error.status != 404:
                raise
            await self.client.request("POST", path, body)
        return True

    async def bundle(self) -> bytes:
        """The bundle, as an agent reads it."""
        found = await self.client.request("GET", f"/api/v1/namespaces/{self.namespace}/configmaps/taskdist-ca")
        return str(found["data"]["ca.crt"]).encode()


@pytest.fixture
async def api(control_plane: ControlPlane, crds: list[str], namespace: str) -> AsyncIterator[Api]:
    assert crds
    client = await AsyncClient(control_plane.access).open()
    try:
        yield Api(client, namespace)
    finally:
        await client.close()
