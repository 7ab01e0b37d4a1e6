"""The pods of a pool, pure: what a pod looks like, which names are free, what is wrong with a template.

It refuses to choose how many there should be or which one goes: the core does.
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from taskdist.api import GROUP, POOL_LABEL, TEMPLATE_LABEL, VERSION, AgentPool
from taskdist.core.model import ZONE
from taskdist.protocol.convert import AGENT_READY_PATH, template_hash

MANAGED_BY = {"app.kubernetes.io/managed-by": "taskdist"}
CA_CONFIGMAP = "taskdist-ca"
MOUNT = "/var/run/taskdist"
VOLUME = "taskdist-link"
TOKEN_SECONDS = 3600
HEALTH_PORT = 8088
# An agent tells the operator that it stops, finishes and gives back within its grace, before the kubelet kills it.
STOP_MARGIN_SECONDS = 5
DEFAULT_GRACE_SECONDS = 30

Object = dict[str, Any]


@dataclass(frozen=True, slots=True)
class LinkInfo:
    """The way to the operator's link, as agents are told it, and the audience of their tokens."""

    address: str
    server_name: str
    audience: str


class InvalidTemplate(Exception):
    """The pool's template cannot be used; the message names the field and the fix."""


def selector_string(pool: AgentPool) -> str:
    """Return the label selector of the pool's pods, serialised as the scale subresource wants it."""
    return f"{POOL_LABEL}={pool.metadata.name}"


def check_template(pool: AgentPool) -> None:
    """Refuse what the operator cannot add to, and what would clash with it. The API server judges the rest.

    Raises:
        InvalidTemplate: with the field and the fix.
    """
    _check_metadata(pool.spec.template.metadata)
    spec = pool.spec.template.spec
    where = "spec.template.spec"
    containers = _objects(spec, "containers", where)
    if not containers:
        raise InvalidTemplate(f"{where}.containers is empty: give the agent's container")
    if (spec.get("restartPolicy") or "Always") != "Always":
        raise InvalidTemplate(f"{where}.restartPolicy must be Always: agents are long-running; remove it")
    grace = spec.get("terminationGracePeriodSeconds")
    if not (grace is None or type(grace) is int):
        raise InvalidTemplate(f"{where}.terminationGracePeriodSeconds is {grace!r}: write a number of seconds")
    for volume in _objects(spec, "volumes", where):
        if volume.get("name") == VOLUME:
            raise InvalidTemplate(f"{where}.volumes: the name {VOLUME} is the operator's; rename the volume")
    number = _agent_index(containers)
    agent, where = containers[number], f"{where}.containers[{number}]"
    for mount in _objects(agent, "volumeMounts", where):
        path = str(mount.get("mountPath", "")).rstrip("/")
        if path == MOUNT or path.startswith(MOUNT + "/"):
            raise InvalidTemplate(f"{where}.volumeMounts: {path} is the operator's; mount the volume elsewhere")
    owned = {"TASKDIST_ADDRESS", "TASKDIST_SERVER_NAME", "TASKDIST_CA_FILE", "TASKDIST_TOKEN_FILE"}
    for variable in _objects(agent, "env", where):
        name, value = str(variable.get("name")), variable.get("value")
        if name in owned:
            raise InvalidTemplate(f"{where}.env: {name} is set by the operator; remove it")
        if name == "TASKDIST_HEALTH_PORT" and value is not None and _port(value) is None:
            raise InvalidTemplate(
                f"{where}.env: TASKDIST_HEALTH_PORT is {value!r}: write a port, 1 to 65535, in quotes"
            )


def _check_metadata(metadata: Object) -> None:
    """Refuse what the operator reads off pods as its own word, such as that one is to be deleted."""
    for field in ("labels", "annotations"):
        where, found = f"spec.template.metadata.{field}", metadata.get(field)
        if not (found is None or isinstance(found, dict)):
            raise InvalidTemplate(f"{where} must be an object, and is {_kind(found)}")
        for key in found or {}:
            # These labels are set to what is true, whatever the template says.
            if _is_ours(key) and not (field == "labels" and key in (POOL_LABEL, TEMPLATE_LABEL)):
                raise InvalidTemplate(f"{where}: {key[:100]} is the operator's; remove it, or take another prefix")


def _is_ours(key: str) -> bool:
    prefix, slash, _ = key.partition("/")
    return bool(slash) and (prefix == GROUP or prefix.endswith(f".{GROUP}"))


def _of_the_user(found: dict[str, str] | None) -> dict[str, str]:
    return {key: value for key, value in (found or {}).items() if not _is_ours(key)}


def _objects(of: Object, name: str, where: str) -> list[Object]:
    """The list of objects that stands there, which the operator adds to; empty if none does."""
    found = of.get(name)
    if found is None:
        return []
    if not isinstance(found, list):
        raise InvalidTemplate(f"{where}.{name} must be a list of objects, and is {_kind(found)}")
    for number, each in enumerate(found):
        if not isinstance(each, dict):
            raise InvalidTemplate(f"{where}.{name}[{number}] must be an object, and is {_kind(each)}")
    return found


def _kind(value: object) -> str:
    kinds = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "nothing"}
    return kinds.get(type(value), "a number")


def _port(value: object) -> int | None:
    text = str(value)
    return int(text) if text.isascii() and text.isdecimal() and 0 < int(text[:6]) <= 65535 and len(text) <= 5 else None


def build_pod(pool: AgentPool, name: str, link: LinkInfo) -> Object:
    """Return the manifest of one agent of this pool."""
    template = pool.spec.template.to_wire()
    metadata = template.get("metadata") or {}
    spec: Object = copy.deepcopy(template["spec"])
    spec["automountServiceAccountToken"] = False
    if spec.get("terminationGracePeriodSeconds") is None:
        spec["terminationGracePeriodSeconds"] = DEFAULT_GRACE_SECONDS
    # Evenly over zones, as far as there is room. A template that says anything of it, even an empty list, says it all.
    spec.setdefault("topologySpreadConstraints", [_over_zones(pool)])
    spec["volumes"] = [*(spec.get("volumes") or []), _link_volume(link)]
    _inject(spec["containers"][_agent_index(spec["containers"])], pool, link, spec["terminationGracePeriodSeconds"])
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {
            "name": name,
            "namespace": pool.metadata.namespace,
            "labels": {
                **_of_the_user(metadata.get("labels")),
                **MANAGED_BY,
                POOL_LABEL: pool.metadata.name,
                TEMPLATE_LABEL: template_hash(pool),
            },
            "annotations": _of_the_user(metadata.get("annotations")),
            "ownerReferences": [
                {
                    "apiVersion": f"{GROUP}/{VERSION}",
                    "kind": AgentPool.kind,
                    "name": pool.metadata.name,
                    "uid": pool.metadata.uid,
                    "controller": True,
                    "blockOwnerDeletion": False,
                }
            ],
        },
        "spec": spec,
    }


def free_names(pool: AgentPool, taken: Iterable[str], count: int) -> list[str]:
    """Return the next `count` pod names: pool, generation, lowest free ordinals.

    They follow from the pool alone, so two leaders that both see an agent missing try to create the same pod, and the
    API server lets one of them.
    """
    used = set(taken)
    names: list[str] = []
    ordinal = 0
    while len(names) < count:
        name = f"{pool.metadata.name}-{pool.metadata.generation}-{ordinal}"
        if name not in used:
            names.append(name)
        ordinal += 1
    return names


def _agent_index(containers: list[Object]) -> int:
    return next((i for i, c in enumerate(containers) if c.get("name") == "agent"), 0)


def _over_zones(pool: AgentPool) -> Object:
    return {
        "maxSkew": 1,
        "topologyKey": ZONE,
        "whenUnsatisfiable": "ScheduleAnyway",
        "labelSelector": {"matchLabels": {POOL_LABEL: pool.metadata.name}},
    }


def _link_volume(link: LinkInfo) -> Object:
    return {
        "name": VOLUME,
        "projected": {
            "sources": [
                {
                    "serviceAccountToken": {
                        "audience": link.audience,
                        "expirationSeconds": TOKEN_SECONDS,
                        "path": "token",
                    }
                },
                {"configMap": {"name": CA_CONFIGMAP, "items": [{"key": "ca.crt", "path": "ca.crt"}]}},
            ]
        },
    }


def _inject(container: Object, pool: AgentPool, link: LinkInfo, grace: int) -> None:
    own: Object = {
        "TASKDIST_ADDRESS": link.address,
        "TASKDIST_SERVER_NAME": link.server_name,
        "TASKDIST_CA_FILE": f"{MOUNT}/ca.crt",
        "TASKDIST_TOKEN_FILE": f"{MOUNT}/token",
    }
    # What a template may say itself.
    defaults: Object = {
        "TASKDIST_SLOTS": str(pool.spec.slots),
        "TASKDIST_GRACE_SECONDS": str(max(1, grace - STOP_MARGIN_SECONDS)),
        "TASKDIST_HEALTH_PORT": str(HEALTH_PORT),
    }
    if container.get("terminationMessagePolicy") != "FallbackToLogsOnError":  # which asks for an empty file
        defaults["TASKDIST_TERMINATION_LOG"] = container.get("terminationMessagePath") or "/dev/termination-log"
    if pool.spec.skills:
        defaults["TASKDIST_SKILLS"] = ",".join(pool.spec.skills)
    if pool.spec.resources:
        defaults["TASKDIST_RESOURCES"] = ",".join(f"{k}={v}" for k, v in sorted(pool.spec.resources.items()))
    given: list[Object] = list(container.get("env") or [])
    names = [v.get("name") for v in given]
    env = [*given, *({"name": k, "value": v} for k, v in (own | defaults).items() if k not in names)]
    if "TASKDIST_HEALTH_HOST" not in names:
        env.append({"name": "TASKDIST_HEALTH_HOST", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}})
    container["env"] = env
    container["volumeMounts"] = [
        *(container.get("volumeMounts") or []),
        {"name": VOLUME, "mountPath": MOUNT, "readOnly": True},
    ]
    said = next((_port(v.get("value")) for v in env if v.get("name") == "TASKDIST_HEALTH_PORT"), None)
    port = said or HEALTH_PORT
    # Readiness is what assigns work, so it is asked often; liveness only rescues a supervisor that hangs.
    container.setdefault(
        "readinessProbe",
        {"httpGet": {"path": AGENT_READY_PATH, "port": port}, "periodSeconds": 1, "failureThreshold": 3},
    )
    # Many agents that start at once on few processors take their time; killing them would make it worse.
    container.setdefault(
        "startupProbe",
        {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 1, "failureThreshold": 600},
    )
    container.setdefault(
        "livenessProbe",
        {"httpGet": {"path": "/healthz", "port": port}, "periodSeconds": 10, "failureThreshold": 6},
    )
