"""Rules on pod templates as text: what the CustomResourceDefinition lets through, and pods are then made without.

Owns which fields pods and containers have. The schema keeps unknown ones, so that fields of newer Kubernetes pass; so
only a name that is much like a known one, or that belongs elsewhere, is found fault with.
"""

from collections.abc import Iterator
from difflib import get_close_matches
from typing import Any

from taskdist.lint.findings import Flaw, Mend, Severity, rule
from taskdist.lint.setup import Setup


def _fields(words: str) -> frozenset[str]:
    return frozenset(words.split())


_POD = _fields(
    "activeDeadlineSeconds affinity automountServiceAccountToken containers dnsConfig dnsPolicy enableServiceLinks "
    "ephemeralContainers hostAliases hostIPC hostNetwork hostPID hostUsers hostname hostnameOverride imagePullSecrets "
    "initContainers nodeName nodeSelector os overhead preemptionPolicy priority priorityClassName readinessGates "
    "resourceClaims resources restartPolicy runtimeClassName schedulerName schedulingGates securityContext "
    "serviceAccount serviceAccountName setHostnameAsFQDN shareProcessNamespace subdomain "
    "terminationGracePeriodSeconds tolerations topologySpreadConstraints volumes"
)
_CONTAINER = _fields(
    "args command env envFrom image imagePullPolicy lifecycle livenessProbe name ports readinessProbe resizePolicy "
    "resources restartPolicy restartPolicyRules securityContext startupProbe stdin stdinOnce terminationMessagePath "
    "terminationMessagePolicy tty volumeDevices volumeMounts workingDir"
)
_BELOW = {
    "resources": frozenset(("claims", "limits", "requests")),
    "env": frozenset(("name", "value", "valueFrom")),
    "ports": frozenset(("containerPort", "hostIP", "hostPort", "name", "protocol")),
    "volumeMounts": frozenset(
        ("mountPath", "mountPropagation", "name", "readOnly", "recursiveReadOnly", "subPath", "subPathExpr")
    ),
}
_SPEC = "spec.template.spec"
PODS_HAVE_NOT = "pods have no such field here: no pod is made, and the pool stalls (InvalidTemplate)"


@rule(Severity.ERROR)
def unknown_pod_field(setup: Setup) -> Iterator[Flaw]:
    """A field of a pod template that pods do not have.

    Mostly a slip of the pen. The AgentPool is taken, as its schema leaves the template to the API server; its pods are
    not made: the pool stalls.
    """
    for pool in setup.pools.values():
        for path, held, known in _parts(pool.pod):
            for name in held:
                if name in known:
                    continue
                near = get_close_matches(name, known, 1, 0.8) or [
                    each for each in sorted(known) if each.lower() == name.lower()
                ]
                if near:
                    words = f"Did you mean {near[0]}?"
                elif known is _POD and name in _CONTAINER:
                    words = "Move it to the container."
                elif known is _CONTAINER and name in _POD:
                    words = f"Move it to {_SPEC}."
                else:
                    continue
                yield Flaw(pool.manifest, f"{path}.{name}", PODS_HAVE_NOT, Mend(words))


@rule(Severity.ERROR)
def pod_value_not_text(setup: Setup) -> Iterator[Flaw]:
    """A number or a truth value where a container takes text.

    The pool takes it, and the API server refuses its pods: `value: 8080`, `value: true` or `args: [--level, 3]`.
    """
    for pool in setup.pools.values():
        for path, container in _containers(pool.pod):
            found = [
                (f"{path}.{name}[{at}]", each) for name in ("command", "args") for at, each in _list(container, name)
            ]
            found += [
                (f"{path}.env[{at}].value", each["value"])
                for at, each in _list(container, "env")
                if isinstance(each, dict) and each.get("value") is not None
            ]
            for where, value in found:
                if not isinstance(value, str):
                    said = str(value).lower() if isinstance(value, bool) else value
                    yield Flaw(pool.manifest, where, f"{said} is no text", Mend(f'Put it in quotes: "{said}".'))


def _list(held: Any, name: str) -> list[tuple[int, Any]]:
    value = held.get(name)
    return list(enumerate(value)) if isinstance(value, list) else []


def _containers(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name in ("containers", "initContainers"):
        for at, each in _list(pod, name):
            if isinstance(each, dict):
                yield f"{_SPEC}.{name}[{at}]", each


def _parts(pod: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any], frozenset[str]]]:
    """Yield each part of a template: its path, what is written there, and which fields there are."""
    yield _SPEC, pod, _POD
    for path, container in _containers(pod):
        yield path, container, _CONTAINER
        for name, known in _BELOW.items():
            if isinstance(held := container.get(name), dict):
                yield f"{path}.{name}", held, known
            for at, each in _list(container, name):
                if isinstance(each, dict):
                    yield f"{path}.{name}[{at}]", each, known


RULES = (unknown_pod_field, pod_value_not_text)
