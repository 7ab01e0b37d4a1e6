"""What a container's processes see: variables, command and arguments, as the pod's specification says.

Pure: a pod, the objects it names and a mount map in, strings out. It does not start anything, and it does not read
files or the API server.
"""

from __future__ import annotations

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from taskdist.kube import Obj
from taskdist.local.mounts import MountMap

Lookup = Callable[[str, str], Obj | None]
"""(kind, name) → the ConfigMap or Secret in the pod's namespace, or None."""


class Missing(Exception):
    """Something the pod names is not there (yet); the message says what, as the pod's status will."""


@dataclass(frozen=True)
class Invocation:
    """A command to execute, with its environment."""

    command: tuple[str, ...]
    env: Mapping[str, str]


def invocation(
    pod: Obj,
    container: Obj,
    lookup: Lookup,
    mounts: MountMap,
    base: Mapping[str, str],
    entrypoints: Mapping[str, tuple[str, ...]],
) -> Invocation:
    """Command and environment of a container. Raises Missing.

    There is no image to take an entry point from: `entrypoints` may give one by the image's last name without tag
    (`registry/team/taskdist:1` → `taskdist`); otherwise the container must give its command.
    """
    declared = variables(pod, container, lookup)
    command = container.get("command") or list(entrypoints.get(image_name(container.get("image", "")), ()))
    if not command:
        raise Missing(f"image {container.get('image')!r} has no known entry point on this node: give the command")
    words = [expand(word, declared) for word in [*command, *(container.get("args") or ())]]
    env = {**base, **{name: mounts.translate(value) for name, value in declared.items()}}
    return Invocation(tuple(mounts.translate(word) for word in words), env)


def image_name(image: str) -> str:
    """`registry:5000/team/name:tag@sha256:…` → `name`."""
    return image.split("@")[0].rsplit("/", 1)[-1].split(":")[0]


def variables(pod: Obj, container: Obj, lookup: Lookup) -> dict[str, str]:
    """The variables that the container declares, later ones over earlier ones, with `$(NAME)` filled in."""
    result: dict[str, str] = {}
    for source in container.get("envFrom") or ():
        prefix = source.get("prefix") or ""
        for kind, field in (("ConfigMap", "configMapRef"), ("Secret", "secretRef")):
            if reference := source.get(field):
                content = data_of(kind, reference, lookup)
                result |= {prefix + name: value.decode() for name, value in content.items()}
    for entry in container.get("env") or ():
        if (origin := entry.get("valueFrom")) is not None:
            value = _value_from(pod, container, origin, lookup)
            if value is not None:
                result[entry["name"]] = value
        else:
            result[entry["name"]] = expand(entry.get("value") or "", result)
    return result


def _value_from(pod: Obj, container: Obj, origin: Obj, lookup: Lookup) -> str | None:
    if reference := origin.get("fieldRef"):
        return field(pod, reference["fieldPath"])
    if reference := origin.get("resourceFieldRef"):
        return resource(container, reference)
    for kind, name in (("ConfigMap", "configMapKeyRef"), ("Secret", "secretKeyRef")):
        if reference := origin.get(name):
            content = data_of(kind, reference, lookup)
            if reference["key"] in content:
                return content[reference["key"]].decode()
            if reference.get("optional"):
                return None
            raise Missing(f"{kind} {reference['name']} has no key {reference['key']}")
    raise Missing(f"valueFrom {', '.join(origin)} is not understood on this node")


def data_of(kind: str, reference: Obj, lookup: Lookup) -> dict[str, bytes]:
    """The content of a ConfigMap or Secret by key; empty if it is missing and optional. Raises Missing."""
    name = reference.get("name") or reference.get("secretName") or ""
    found = lookup(kind, name)
    if found is None:
        if reference.get("optional"):
            return {}
        raise Missing(f"{kind} {name} not found")
    if kind == "Secret":
        return {key: base64.b64decode(value) for key, value in (found.get("data") or {}).items()}
    binary = {key: base64.b64decode(value) for key, value in (found.get("binaryData") or {}).items()}
    return binary | {key: value.encode() for key, value in (found.get("data") or {}).items()}


def expand(text: str, values: Mapping[str, str]) -> str:
    """`$(NAME)` becomes its value, an unknown one stays as it is, `$$` is a dollar sign."""

    def replace(match: re.Match[str]) -> str:
        if match[0] == "$$":
            return "$"
        return values.get(match[1], match[0])

    return re.sub(r"\$\$|\$\(([^)\s]+)\)", replace, text)


_SUBSCRIPT = re.compile(r"^metadata\.(labels|annotations)\['(.+)'\]$")


def field(pod: Obj, path: str) -> str:
    """A field of the pod as the downward API gives it. Raises Missing for one it does not have."""
    metadata, spec, status = pod["metadata"], pod["spec"], pod.get("status") or {}
    if match := _SUBSCRIPT.match(path):
        return str((metadata.get(match[1]) or {}).get(match[2], ""))
    simple = {
        "metadata.name": metadata.get("name"),
        "metadata.namespace": metadata.get("namespace"),
        "metadata.uid": metadata.get("uid"),
        "spec.nodeName": spec.get("nodeName"),
        "spec.serviceAccountName": spec.get("serviceAccountName"),
        "status.hostIP": status.get("hostIP"),
        "status.hostIPs": status.get("hostIP"),
        "status.podIP": status.get("podIP"),
        "status.podIPs": status.get("podIP"),
    }
    if path in simple:
        return str(simple[path] or "")
    if path in ("metadata.labels", "metadata.annotations"):
        values = metadata.get(path.removeprefix("metadata.")) or {}
        return "\n".join(f'{key}="{_escape(values[key])}"' for key in sorted(values))
    raise Missing(f"field {path} is not understood on this node")


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def resource(container: Obj, reference: Obj) -> str:
    """A request or limit of the container in units of the divisor, rounded up; 0 where it has none."""
    section, _, name = reference["resource"].partition(".")
    value = ((container.get("resources") or {}).get(section) or {}).get(name, "0")
    divisor = quantity(str(reference.get("divisor") or "1")) or 1.0
    return str(math.ceil(quantity(str(value)) / divisor))


_SUFFIXES = {
    "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "P": 1e15,
    "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30, "Ti": 2.0**40, "Pi": 2.0**50,
}  # fmt: skip


def quantity(text: str) -> float:
    """A Kubernetes quantity as a number: `500m` is 0.5, `1Gi` is 1073741824. Raises ValueError."""
    match = re.fullmatch(r"([+-]?[0-9.]+(?:[eE][+-]?\d+)?)([a-zA-Z]*)", text)
    if match is None or match[2] not in _SUFFIXES:
        raise ValueError(f"{text!r} is not a quantity")
    return float(match[1]) * _SUFFIXES[match[2]]
