"""The resources this project touches, and how the API server spells their paths.

Holds names only: what a resource means, and what may be done to it, is decided elsewhere.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

Obj = dict[str, Any]
"""One API object as the server sent it: a plain dict. Models of it are built only where someone needs them."""

GROUP = "taskdist.dev"
VERSION = "v1alpha1"


@dataclass(frozen=True, slots=True)
class Resource:
    """A resource by its group (empty for the core group), version and plural name."""

    group: str
    version: str
    plural: str
    namespaced: bool = True

    def __str__(self) -> str:
        return f"{self.plural}.{self.group}" if self.group else self.plural

    @property
    def api_version(self) -> str:
        """What stands in an object's `apiVersion`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, namespace: str | None = None, name: str = "", subresource: str = "") -> str:
        """The URL path of a collection (no name), an object, or a subresource.

        `namespace=None` on a namespaced resource is the collection across all namespaces; an object of a namespaced
        resource needs its namespace, and asking without one is a mistake in the caller (`ValueError`).
        """
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        if namespace is not None and not self.namespaced:
            raise ValueError(f"{self} is not namespaced, yet a namespace was given")
        if name and namespace is None and self.namespaced:
            raise ValueError(f"{self} is namespaced: {name!r} needs a namespace")
        if subresource and not name:
            raise ValueError(f"a subresource of {self} needs an object's name")
        parts = [root]
        if namespace is not None:
            parts.append(f"/namespaces/{quote(namespace, safe='')}")
        parts.append(f"/{self.plural}")
        if name:
            # Names of some kinds (RBAC) hold colons, which a path may; a slash it may not.
            parts.append(f"/{quote(name, safe=':')}")
        if subresource:
            parts.append(f"/{subresource}")
        return "".join(parts)


TASKS = Resource(GROUP, VERSION, "tasks")
TASKQUEUES = Resource(GROUP, VERSION, "taskqueues")
AGENTPOOLS = Resource(GROUP, VERSION, "agentpools")
TASKSOURCES = Resource(GROUP, VERSION, "tasksources")
TASKSINKS = Resource(GROUP, VERSION, "tasksinks")

PODS = Resource("", "v1", "pods")
SECRETS = Resource("", "v1", "secrets")
CONFIGMAPS = Resource("", "v1", "configmaps")
SERVICEACCOUNTS = Resource("", "v1", "serviceaccounts")
NODES = Resource("", "v1", "nodes", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", namespaced=False)
EVENTS = Resource("events.k8s.io", "v1", "events")
LEASES = Resource("coordination.k8s.io", "v1", "leases")
TOKENREVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", namespaced=False)
SUBJECTACCESSREVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", namespaced=False)
CUSTOMRESOURCEDEFINITIONS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", namespaced=False)


def uid_of(obj: Obj) -> str:
    return str(obj["metadata"]["uid"])


def name_of(obj: Obj) -> str:
    return str(obj["metadata"]["name"])


def namespace_of(obj: Obj) -> str:
    """The object's namespace; empty for a cluster-scoped one."""
    return str(obj["metadata"].get("namespace", ""))


def version_of(obj: Obj) -> str:
    """The object's resourceVersion."""
    return str(obj["metadata"]["resourceVersion"])
