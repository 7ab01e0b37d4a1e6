"""TaskQueues and AgentPools as the informers keep them: what the core reads of them, and what the operator does."""

from dataclasses import replace
from typing import Any, NamedTuple, Self

from taskdist.controller.retention import Keep
from taskdist.core.agents.performance import TypePerformance
from taskdist.core.model import Pool, Queue
from taskdist.kube import Added, Updated
from taskdist.protocol import convert, explanations


class SpecVersion(NamedTuple):
    """The version of a spec: its object and generation."""

    uid: str
    generation: int

    @classmethod
    def of(cls, obj: dict[str, Any]) -> Self:
        return cls(str(obj["metadata"]["uid"]), int(obj["metadata"].get("generation") or 0))


class SeenPool(NamedTuple):
    """A pool as the core sees it, and what its status tells of types that ran there."""

    version: SpecVersion
    pool: Pool
    performance: tuple[TypePerformance, ...]
    stalled: str = ""  # what keeps it from having agents, as its status says


class SeenQueue(NamedTuple):
    """A queue as the core sees it, how long it keeps its Tasks, and whether its status says that it takes new ones."""

    version: SpecVersion
    queue: Queue
    keep: Keep
    accepting: bool


def seen_pool(obj: dict[str, Any]) -> SeenPool:
    """Read a pool once for both."""
    return SeenPool(SpecVersion.of(obj), convert.pool(obj), convert.performance(obj), explanations.stalled(obj))


def seen_queue(obj: dict[str, Any], least_lease: int = 0) -> SeenQueue:
    """Read a queue once for all. Its leases are as long as a change of leader needs them, at least."""
    spec, status = obj["spec"], obj.get("status") or {}
    queue = convert.queue(obj)
    archived = queue.archive_backlog is not None
    keep = Keep(spec.get("ttlSecondsAfterFinished"), spec.get("deadLetterTtlSeconds"), archived)
    if queue.lease_seconds < least_lease:
        queue = replace(queue, lease_seconds=least_lease, hold_seconds=max(queue.hold_seconds, least_lease))
    return SeenQueue(SpecVersion.of(obj), queue, keep, status.get("accepting", True))


def is_new_spec(event: Added[SeenPool] | Added[SeenQueue] | Updated[SeenPool] | Updated[SeenQueue]) -> bool:
    """Whether the keepers may have waited for it."""
    return isinstance(event, Added) or event.new.version != event.old.version
