"""Bodies of requests that write status, each bound to the version that was read. Pure."""

from collections.abc import Mapping
from typing import Any

from taskdist.kube.resources import Obj


def status_patch(status: Mapping[str, Any], *, uid: str = "", resource_version: str = "") -> Obj:
    """A merge patch of status that holds only at this resourceVersion (a conflict otherwise).

    The uid is compared by the server for some kinds; for a custom resource's status it is not.
    """
    metadata = {k: v for k, v in (("uid", uid), ("resourceVersion", resource_version)) if v}
    return {**({"metadata": metadata} if metadata else {}), "status": dict(status)}


def status_operations(status: Mapping[str, Any], exact: Mapping[str, Any], *, resource_version: str) -> list[Obj]:
    """A JSON patch that does what `status_patch` does, and puts the fields of `exact` there as they are.

    A merge patch has no word for null: it takes it for the wish to remove. Here `status` keeps that meaning at its top
    level, below which its values replace what was there. The resource must have a status (a default in the schema will
    do). As in a merge patch, writing another version than the object has is what makes it conditional: a conflict.
    """
    operations: list[Obj] = [{"op": "replace", "path": "/metadata/resourceVersion", "value": resource_version}]
    for name, value in status.items():
        operations.append({"op": "add", "path": f"/status/{name}", "value": _without_nulls(value)})
        if value is None:
            # Only what is there can be removed.
            operations.append({"op": "remove", "path": f"/status/{name}"})
    operations += [{"op": "add", "path": f"/status/{name}", "value": value} for name, value in exact.items()]
    return operations


def _without_nulls(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return value
    return {name: _without_nulls(inner) for name, inner in value.items() if inner is not None}
