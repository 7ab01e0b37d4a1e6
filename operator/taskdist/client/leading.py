"""Whether an operator leads, as its Lease says: without one no Task is handed out, whatever else is said of it.

Which installation serves a namespace its agents tell: their tokens are for its audience. Refuses to guess: a Lease that
is not there or may not be read is called unknown.
"""

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from taskdist.client.backend import Backend
from taskdist.common import times
from taskdist.kube import LEASES, ApiError, Obj

VARIABLE = "TASKDIST_OPERATOR_LEASE"
"""NAMESPACE/NAME of the operator's Lease, where it cannot be found out."""
DEFAULT = ("taskdist-system", "taskdist")
GRACE = 5.0
"""Seconds by which this machine's clock may differ from the leader's before a Lease counts as over."""
_AUDIENCE = "taskdist.dev/"


@dataclass(frozen=True, slots=True)
class Leadership:
    """Whether somebody leads, None if that is not known; and why, in words."""

    leads: bool | None
    lease: str = ""
    holder: str = ""
    renewed: float = 0.0
    unknown: str = ""

    def document(self) -> dict[str, Any]:
        """As scripts read it."""
        told: dict[str, Any] = {"leads": self.leads, "lease": self.lease, "holder": self.holder}
        if self.renewed:
            told["renewed"] = times.utc(self.renewed)
        return told | ({"unknown": self.unknown} if self.unknown else {})

    def message(self, now: float) -> str:
        """What nobody leading means, and since when it is so."""
        if not self.renewed:
            return f"No operator leads: Lease {self.lease} has no holder. Until one does, no Task is handed out."
        last = f" by {self.holder}" if self.holder else ""
        return (
            f"No operator leads: Lease {self.lease} was last renewed at {times.utc(self.renewed)}{last}, "
            f"{times.span(max(0.0, now - self.renewed))} ago. Until one leads, no Task is handed out."
        )

    @property
    def command(self) -> str:
        namespace = self.lease.partition("/")[0]
        return f"kubectl get pods -n {namespace} -l app.kubernetes.io/component=operator"


async def leadership(backend: Backend, pods: Iterable[Obj], now: float) -> Leadership:
    """Read the Lease of the installation that these agents belong to."""
    tried: list[str] = []
    for namespace, name in dict.fromkeys(leases(pods)):
        tried.append(f"{namespace}/{name}")
        try:
            lease = await backend.get(LEASES, name, namespace)
        except ApiError as error:
            if error.is_forbidden:
                return Leadership(
                    None, tried[-1], unknown=f"whether an operator leads: you may not read Lease {tried[-1]}"
                )
            if error.is_not_found:
                continue
            raise
        return _judged(tried[-1], lease, now)
    return Leadership(
        None,
        unknown=f"whether an operator leads: there is no Lease {' or '.join(tried)}. If its name is another one, set "
        f"{VARIABLE} to NAMESPACE/NAME",
    )


def _judged(name: str, lease: Obj, now: float) -> Leadership:
    spec = lease.get("spec") or {}
    holder, seconds = str(spec.get("holderIdentity") or ""), float(spec.get("leaseDurationSeconds") or 0)
    moment = times.read(spec.get("renewTime"))
    if moment is None and spec.get("renewTime"):
        return Leadership(None, name, holder, unknown=f"whether an operator leads: Lease {name} has an odd renewTime")
    renewed = 0.0 if moment is None else moment.timestamp()
    return Leadership(bool(holder) and now <= renewed + seconds + GRACE, name, holder, renewed)


def leases(pods: Iterable[Obj]) -> Iterator[tuple[str, str]]:
    """Namespace and name of the Leases that may be meant, the likeliest first.

    The chart appends its own name where the release's does not tell.
    """
    said = os.environ.get(VARIABLE, "")
    if said:
        namespace, _, name = said.rpartition("/")
        default_namespace, _ = DEFAULT
        yield namespace or default_namespace, name
        return
    for audience in dict.fromkeys(_audiences(pods)):
        namespace, _, release = audience.removeprefix(_AUDIENCE).partition("/")
        if namespace and release:
            yield namespace, release
            yield namespace, f"{release}-taskdist"
    yield DEFAULT


def _audiences(pods: Iterable[Obj]) -> Iterator[str]:
    for pod in pods:
        for volume in pod.get("spec", {}).get("volumes") or ():
            for source in (volume.get("projected") or {}).get("sources") or ():
                audience = str((source.get("serviceAccountToken") or {}).get("audience") or "")
                if audience.startswith(_AUDIENCE):
                    yield audience
