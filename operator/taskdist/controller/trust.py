"""The link's trust on a real cluster: keeps its certificate authority there, and has agents vouched for.

Ports only: when certificates change and who is admitted is the link's own rule.
"""

import base64
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from taskdist.api import GROUP, AgentPool
from taskdist.controller.pods import CA_CONFIGMAP, MANAGED_BY
from taskdist.core.model import Key
from taskdist.kube import CONFIGMAPS, PODS, SECRETS, TOKENREVIEWS, ApiError, Client, KubeError, Store
from taskdist.link.auth import Authenticator, PodOwner
from taskdist.link.keeper import SecretChanged, StoredSecret
from taskdist.protocol import convert
from taskdist.protocol.observations import ObservedPod

CA_KEY = "ca.crt"
# On the bundle: the audience of the installation that wrote it, which names its namespace and Lease.
INSTALLATION_ANNOTATION = f"{GROUP}/installation"
FIELD_MANAGER = "taskdist"
# How often a ConfigMap is looked at again that somebody else has just written.
MOST_TRIES = 5

Object = dict[str, Any]


def owner_of(configmap: Object) -> str:
    """Return the installation that serves the bundle's namespace, as the bundle says; empty where it says none."""
    return str((configmap["metadata"].get("annotations") or {}).get(INSTALLATION_ANNOTATION, ""))


def is_other(owner: str, installation: str) -> bool:
    """Whether that is an installation, and not this one."""
    return owner not in ("", installation)


class SeenPod(NamedTuple):
    """A pod as the protocol sees it, and who owns it."""

    record: ObservedPod
    owner: PodOwner


def seen_pod(obj: Object) -> SeenPod:
    """Read a pod once for both."""
    record = convert.observed_pod(obj)
    owner: Object = next(
        (
            o
            for o in obj["metadata"].get("ownerReferences") or []
            if o.get("controller") and o.get("kind") == AgentPool.kind
        ),
        {},
    )
    return SeenPod(
        record,
        PodOwner(
            record.uid,
            record.namespace,
            record.name,
            owner.get("name", ""),
            owner.get("uid", ""),
            record.deleting,
            record.ended and record.dead,
        ),
    )


class SecretStore:
    """The authority's Secret, read and written by compare-and-swap."""

    def __init__(self, client: Client, namespace: str, name: str) -> None:
        self._client = client
        self._namespace = namespace
        self._name = name

    async def read(self) -> StoredSecret | None:
        try:
            secret = await self._client.get(SECRETS, self._name, self._namespace)
        except ApiError as error:
            if error.is_not_found:
                return None
            raise
        data = {k: base64.b64decode(v) for k, v in (secret.get("data") or {}).items()}
        return StoredSecret(data, secret["metadata"]["resourceVersion"])

    async def write(self, data: Mapping[str, bytes], version: str | None) -> str:
        body: Object = {
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {"name": self._name, "namespace": self._namespace, "labels": MANAGED_BY},
            "type": "Opaque",
            "data": {k: base64.b64encode(v).decode() for k, v in data.items()},
        }
        try:
            if version is None:
                answer = await self._client.create(SECRETS, body, self._namespace, field_manager=FIELD_MANAGER)
            else:
                body["metadata"]["resourceVersion"] = version
                answer = await self._client.put(SECRETS, self._name, body, self._namespace, field_manager=FIELD_MANAGER)
        except ApiError as error:
            if error.is_conflict or error.is_already_exists or error.is_not_found:
                raise SecretChanged(str(error)) from error
            raise
        return str(answer["metadata"]["resourceVersion"])


class OtherInstallation(KubeError):
    """The namespace is served by another installation."""


class Contended(KubeError):
    """Somebody else writes the ConfigMap again and again."""


class BundleMaps:
    """The bundle as a ConfigMap in each namespace that has a pool.

    Each says whose it is. One that is another installation's is left as it is: who may take it is asked elsewhere.

    Args:
        namespaces: those that have one now.
        installation: this one's name.
    """

    def __init__(self, client: Client, namespaces: Callable[[], Iterable[str]], installation: str) -> None:
        self._client = client
        self._namespaces = namespaces
        self._installation = installation

    async def publish(self, bundle: bytes) -> bool:
        failed: KubeError | None = None
        for namespace in sorted(set(self._namespaces())):
            try:
                await self.publish_in(namespace, bundle)
            except OtherInstallation:
                pass
            except (ApiError, Contended) as error:  # of this namespace: the others get theirs
                failed = failed or error
        if failed is not None:
            raise failed
        return True

    async def publish_in(self, namespace: str, bundle: bytes) -> None:
        """Write the bundle into this namespace unless it stands there already. Raises OtherInstallation."""
        for _ in range(MOST_TRIES):
            if await self._published(namespace, bundle.decode()):
                return
        raise Contended(f"ConfigMap {CA_CONFIGMAP} in namespace {namespace} keeps changing")

    async def _published(self, namespace: str, text: str) -> bool:
        whose = {INSTALLATION_ANNOTATION: self._installation}
        try:
            present = await self._client.get(CONFIGMAPS, CA_CONFIGMAP, namespace)
        except ApiError as error:
            if not error.is_not_found:
                raise
            return await self._created(namespace, text, whose)
        owner = owner_of(present)
        if is_other(owner, self._installation):
            raise OtherInstallation(f"namespace {namespace} is served by another installation, {owner}")
        if (present.get("data") or {}).get(CA_KEY) == text and owner:
            return True
        version = present["metadata"]["resourceVersion"]
        change = {"metadata": {"resourceVersion": version, "annotations": whose}, "data": {CA_KEY: text}}
        try:
            await self._client.patch(CONFIGMAPS, CA_CONFIGMAP, change, namespace)
        except ApiError as error:
            if error.is_conflict or error.is_not_found:
                return False
            raise
        return True

    async def _created(self, namespace: str, text: str, whose: Mapping[str, str]) -> bool:
        body: Object = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": CA_CONFIGMAP, "namespace": namespace, "labels": MANAGED_BY, "annotations": whose},
            "data": {CA_KEY: text},
        }
        try:
            await self._client.create(CONFIGMAPS, body, namespace, field_manager=FIELD_MANAGER)
        except ApiError as error:
            if error.is_already_exists:
                return False
            # A namespace that is being deleted takes nothing new, and needs nothing.
            if not (error.is_forbidden or error.is_not_found):
                raise
        return True


def authenticator(client: Client, audience: str, pods: Store[SeenPod], pool_uid: Callable[[Key], str]) -> Authenticator:
    """Return what admits agents: by their tokens, and by the pods and pools that are seen."""
    return Authenticator(
        token_review(client),
        audience,
        lambda uid: pod.owner if (pod := pods.get(uid)) else None,
        pod_reader(client),
        lambda namespace, name: pool_uid((namespace, name)) or None,
    )


def token_review(client: Client) -> "Callable[[str, Sequence[str]], Any]":
    """Return the port that asks the API server about a token."""

    async def review(token: str, audiences: Sequence[str]) -> Mapping[str, Any]:
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "spec": {"token": token, "audiences": list(audiences)},
        }
        answer = await client.create(TOKENREVIEWS, body)
        return answer.get("status") or {}

    return review


def pod_reader(client: Client) -> "Callable[[str, str], Any]":
    """Return the port that reads a pod that the informer does not know yet."""

    async def read(namespace: str, name: str) -> PodOwner | None:
        try:
            return seen_pod(await client.get(PODS, name, namespace)).owner
        except ApiError as error:
            if error.is_not_found:
                return None
            raise

    return read
