"""Rules on pools: their size, and the template of their pods."""

from collections.abc import Iterator
from math import ceil
from typing import Any

from taskdist.lint.findings import Flaw, Mend, Severity, number, patch, rule
from taskdist.lint.manifests import Obj
from taskdist.lint.setup import Setup

# What a pod has if its template says nothing, and what an agent needs of it to give back what it could not finish.
DEFAULT_GRACE_SECONDS = 30
STOP_MARGIN_SECONDS = 5

_CONTAINERS = "spec.template.spec.containers"


@rule(Severity.WARNING)
def pool_that_flaps(setup: Setup) -> Iterator[Flaw]:
    """A pool that goes to zero the moment nothing waits.

    With `minReplicas: 0` and `scaleDownDelaySeconds: 0` each pause in the work deletes the agents, and the next Task
    waits until a pod is scheduled, pulled and started.
    """
    for pool in setup.pools.values():
        scaling = pool.spec.scaling
        if scaling is not None and scaling.min_replicas == 0 and scaling.scale_down_delay_seconds == 0:
            mend = Mend("Wait a minute.", patch("spec.scaling.scaleDownDelaySeconds", 60))
            message = "0, with minReplicas 0: agents are deleted in each pause"
            yield Flaw(pool.manifest, "spec.scaling.scaleDownDelaySeconds", message, mend)


@rule(Severity.HINT)
def replicas_ignored(setup: Setup) -> Iterator[Flaw]:
    """A number of replicas in a pool that the operator sizes.

    While `scaling` is set, `replicas` does nothing.
    """
    for pool in setup.pools.values():
        if pool.spec.scaling is not None and pool.spec.replicas != 1:
            mend = Mend("Leave it out; the least is scaling.minReplicas.", patch("spec.replicas", None))
            yield Flaw(pool.manifest, "spec.replicas", "it does nothing: scaling is set", mend)


@rule(Severity.WARNING)
def no_resource_requests(setup: Setup) -> Iterator[Flaw]:
    """A container that does not say what it needs.

    Without requests the scheduler packs agents onto nodes as if they took nothing; under pressure they are the first to
    be evicted, with the work they hold.
    """
    for pool in setup.pools.values():
        for number_, container in enumerate(pool.pod["containers"]):
            asked = _at(container, "resources", "requests")
            bounds = _at(container, "resources", "limits")
            missing = [each for each in ("cpu", "memory") if each not in asked and each not in bounds]
            if missing:
                typical = {"cpu": "100m", "memory": "128Mi"}
                requests = {"resources": {"requests": {each: typical[each] for each in missing}}}
                mend = Mend("Request what it takes in normal work, such as:", _named(container, requests))
                path = f"{_CONTAINERS}[{number_}].resources.requests"
                yield Flaw(
                    pool.manifest,
                    path,
                    f"{' and '.join(missing)} are not requested"
                    if len(missing) > 1
                    else f"{missing[0]} is not requested",
                    mend,
                )


@rule(Severity.WARNING)
def grace_below_service(setup: Setup) -> Iterator[Flaw]:
    """Agents whose pod is deleted have less time than typical work takes.

    The operator deletes idle agents only, but nodes are drained and pods evicted. An agent then finishes what it can
    within its terminationGracePeriodSeconds (30 by default), less 5 s to close down; the rest starts over elsewhere.
    """
    for key, pool in setup.pools.items():
        grace = pool.pod.get("terminationGracePeriodSeconds", DEFAULT_GRACE_SECONDS)
        slowest = max(setup.queues_using(key), key=lambda doc: doc.rules.expected_service, default=None)
        if slowest is None or not isinstance(grace, int):
            continue
        service = slowest.rules.expected_service
        if grace - STOP_MARGIN_SECONDS < service:
            said = f"{grace} s" if "terminationGracePeriodSeconds" in pool.pod else f"{grace} s (the default)"
            message = (
                f"{said}, less {STOP_MARGIN_SECONDS}; work of queue {slowest.rules.name} takes {number(service)} s"
            )
            path = "spec.template.spec.terminationGracePeriodSeconds"
            mend = Mend("Give typical work the time to end.", patch(path, ceil(1.5 * service) + STOP_MARGIN_SECONDS))
            yield Flaw(pool.manifest, path, message, mend)


@rule(Severity.WARNING)
def token_asked_for(setup: Setup) -> Iterator[Flaw]:
    """A template that asks for a token of the Kubernetes API.

    The operator sets automountServiceAccountToken to false whatever the template says: agents run users' work and have
    no access to the API. Work that needs it mounts a projected token of its own, with its own audience.
    """
    path = "spec.template.spec.automountServiceAccountToken"
    for pool in setup.pools.values():
        if pool.pod.get("automountServiceAccountToken") is True:
            mend = Mend("Leave it out.", patch(path, None))
            yield Flaw(pool.manifest, path, "it does nothing: the operator sets it to false", mend)


@rule(Severity.ERROR)
def restart_policy(setup: Setup) -> Iterator[Flaw]:
    """Agents that are not started again.

    Agents are long-running; the pool is Stalled with any other restartPolicy than Always.
    """
    path = "spec.template.spec.restartPolicy"
    for pool in setup.pools.values():
        given = pool.pod.get("restartPolicy", "Always")
        if given != "Always":
            yield Flaw(
                pool.manifest, path, f"{given}: agents are long-running", Mend("Leave it out.", patch(path, None))
            )


@rule(Severity.HINT)
def image_that_moves(setup: Setup) -> Iterator[Flaw]:
    """An image by a name that means another one tomorrow.

    Agents of one template are taken for alike. With `latest`, or no tag, each runs what the name meant when its pod
    was made, and going back is not possible.
    """
    for pool in setup.pools.values():
        for place, container in enumerate(pool.pod["containers"]):
            image = str(container.get("image") or "")
            tag = image.rpartition("/")[2].partition(":")[2]
            if image and "@" not in image and tag in ("", "latest"):
                path = f"{_CONTAINERS}[{place}].image"
                message = f"{image} has {'the tag latest' if tag else 'no tag'}"
                yield Flaw(pool.manifest, path, message, Mend("Name a version, or a digest."))


def _at(value: Any, *path: str) -> Obj:
    for name in path:
        value = value.get(name) if isinstance(value, dict) else None
    return value if isinstance(value, dict) else {}


def _named(container: Obj, change: Obj) -> Obj:
    return patch(_CONTAINERS, [{"name": container["name"], **change}])


RULES = (
    pool_that_flaps,
    replicas_ignored,
    no_resource_requests,
    grace_below_service,
    token_asked_for,
    restart_policy,
    image_that_moves,
)
