"""The status of pools and queues, in the terms that kubectl, Helm and Argo CD read. Pure.

`Ready`, `Reconciling` and `Stalled` follow kstatus: Stalled means that nobody but the user can mend it.
"""

import contextlib
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

from taskdist.api import AgentPool, Condition, Reason, TaskQueue
from taskdist.controller.pods import selector_string
from taskdist.controller.retention import Withheld
from taskdist.core.agents.performance import PoolPerformance
from taskdist.core.fleet import failing
from taskdist.core.limits.levels import Level
from taskdist.core.views import BreakerView, FailingPods
from taskdist.kube.conditions import merge_conditions, timestamp

Object = dict[str, Any]
# How many agents and types a pool's status tells of.
MAX_TOLD = 32
# After so long a Task that waits for the archive shows that it is behind, in seconds.
ARCHIVE_BEHIND_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class SpecVerdict:
    """The verdict on a spec: whether it can be used, and if not, why and what to do."""

    reason: Reason = Reason.ACCEPTED
    message: str = ""

    @property
    def accepted(self) -> bool:
        return self.reason is Reason.ACCEPTED


@dataclass(frozen=True, slots=True)
class ToldCause:
    """A cause that a condition tells: of Tasks that wait, or that are not deleted.

    Two are equal whatever their messages say: those have numbers of now, which tell nothing apart.
    """

    reason: Reason
    what: str
    message: str = field(compare=False)


@dataclass(frozen=True, slots=True)
class PoolFacts:
    """The core's knowledge of a pool at this moment."""

    desired: int = 0
    reason: Reason | None = None
    message: str = ""
    ready: int = 0
    slots: int = 0
    busy_slots: int = 0
    surge: int = 0  # pods wanted beyond `desired`, before as many outdated ones go
    outdated: int = 0
    breakers: tuple[BreakerView, ...] = ()  # those that are not closed
    performance: PoolPerformance = field(default_factory=PoolPerformance)
    bottleneck: ToldCause | None = None
    failing: FailingPods | None = None
    held_back: bool = False  # work would fill more agents, and failing pods keep the pool from growing

    def presses_beyond(self, told: "PoolFacts") -> bool:
        """Whether status must say this at once: more than figures has changed since these facts were told."""
        pressing = attrgetter("desired", "surge", "outdated", "breakers", "bottleneck", "failing", "held_back")
        return bool(pressing(self) != pressing(told) or (self.ready >= self.desired) != (told.ready >= told.desired))


def pool_status(
    pool: AgentPool, facts: PoolFacts, pods: int, verdict: SpecVerdict, problem: str, wall: float
) -> Object:
    """Return the pool's whole status.

    Args:
        pods: pods that exist and are not being deleted.
        problem: what the API server said when the last pod was refused; empty if none was.
    """
    settled = (
        verdict.accepted
        and not problem
        and pods == facts.desired
        and facts.ready >= facts.desired
        and not facts.outdated
    )
    if not verdict.accepted:
        ready, reason, message = "False", verdict.reason, verdict.message
    elif problem:
        ready, reason, message = "False", Reason.CREATE_REFUSED, problem
    elif settled:
        ready, reason, message = "True", Reason.AGENTS_READY, f"{facts.ready} of {facts.desired} agents are ready"
    elif facts.failing is not None:
        ready, reason, message = "False", Reason.PODS_FAILING, pods_failing(pool, facts)
    else:
        ready, reason = "False", Reason.PROGRESSING
        message = f"{facts.ready} of {facts.desired} agents are ready, {pods} pods exist"
        if facts.outdated:
            message += f"; {facts.outdated} of an older template are replaced a few at a time"
    stalled = not verdict.accepted or bool(problem) or (facts.failing is not None and not settled)
    conditions = _trio(pool.metadata.generation, ready, reason, message, stalled=stalled, settled=settled)
    conditions.append(_healthy(pool.metadata.generation, facts.breakers))
    conditions.append(_bottleneck(pool.metadata.generation, facts.bottleneck))
    scaled = facts.desired != pool.status.desired_replicas or pool.status.last_scaled_at is None
    status: Object = {
        "observedGeneration": pool.metadata.generation,
        "replicas": pods,
        "readyReplicas": facts.ready,
        "desiredReplicas": facts.desired,
        "slots": facts.slots,
        "busySlots": facts.busy_slots,
        "selector": selector_string(pool),
        "scalingReason": facts.reason.value if facts.reason else None,
        "scalingMessage": facts.message[:1024],
        "openBreakers": len(facts.breakers),
        "breakers": [
            {"agent": each.name, "state": each.state.value, "since": _wire(each.since)}
            for each in facts.breakers[:MAX_TOLD]
        ],
        "performance": [
            {
                "type": each.type,
                "count": each.attempts,
                "meanSeconds": _short(each.mean),
                "deviationSeconds": _short(each.deviation),
                "successRate": round(each.success, 3),
            }
            for each in facts.performance.types[:MAX_TOLD]
        ],
        "efficiency": round(facts.performance.efficiency, 2) if facts.performance.types else None,
        "weakest": [
            {
                "agent": each.name,
                "count": each.attempts,
                "successRate": round(each.success, 3),
                "pace": _short(each.pace),
                "efficiency": round(each.efficiency, 2),
            }
            for each in facts.performance.weakest
        ],
        "conditions": [c.to_wire() for c in merge_conditions(pool.status.conditions, conditions, wall)],
    }
    if scaled:
        status["lastScaledAt"] = _wire(wall)
    return status


def pods_failing(pool: AgentPool, facts: PoolFacts) -> str:
    """What is said of a pool whose pods do not come up; empty if they do."""
    if facts.failing is None:
        return ""
    key = (pool.metadata.namespace, pool.metadata.name)
    told, command = failing.words(facts.failing), failing.command(key, facts.failing)
    return f"{facts.ready} of {facts.desired} agents are ready. {told} See: {command}"


def unreadable_status(body: Object, reason: Reason, message: str, wall: float) -> Object:
    """Return what is said on a queue or pool that this release cannot read; the rest of its status stays as it is."""
    generation = int(body["metadata"].get("generation") or 0)
    status = body.get("status")
    listed = status.get("conditions") if isinstance(status, dict) else None
    raw = [each for each in listed if isinstance(each, dict)] if isinstance(listed, list) else []
    told = _trio(generation, "False", reason, message, stalled=True, settled=False)
    ours = {each.type for each in told}
    before: list[Condition] = []
    for each in raw:
        with contextlib.suppress(ValueError):
            before.append(Condition.model_validate(each))
    conditions = [each.to_wire() for each in merge_conditions(before, told, wall)]
    return {
        "observedGeneration": generation,
        "conditions": conditions + [each for each in raw if each.get("type") not in ours],
    }


def _healthy(generation: int, breakers: tuple[BreakerView, ...]) -> Condition:
    if not breakers:
        return _condition(generation, "Healthy", "True", Reason.BREAKER_CLOSED, "No agent is held by its breaker")
    more = f" and {len(breakers) - 8} more" if len(breakers) > 8 else ""
    names = ", ".join(f"{each.name} ({each.state.value})" for each in breakers[:8])
    message = f"{len(breakers)} agents fail where others succeed, and get no Tasks but to probe them: {names}{more}"
    return _condition(generation, "Healthy", "False", Reason.BREAKER_OPEN, message)


def _wire(wall: float) -> str:
    return timestamp(wall).isoformat().replace("+00:00", "Z")


def _short(seconds: float) -> float:
    """Three digits: more say nothing, and each change is a write."""
    return float(f"{seconds:.3g}")


@dataclass(frozen=True, slots=True)
class QueueFacts:
    """A queue's numbers now, and why it takes no new Tasks; empty if it does."""

    waiting: int = 0
    leased: int = 0
    dead_letters: int = 0
    closed: str = ""
    bottleneck: ToldCause | None = None
    limits: tuple[Level, ...] = ()  # what is left of its rates and budgets, as of a while ago
    unarchived: ToldCause | None = None  # why Tasks that are over their time are not deleted
    outside: int = 0  # messages that wait at sources

    def presses_beyond(self, told: "QueueFacts") -> bool:
        """Whether status must say this at once: more than figures has changed since these facts were told."""
        pressing = attrgetter("bottleneck", "unarchived")
        return bool(self.closed) != bool(told.closed) or bool(pressing(self) != pressing(told))


def waits_for_archive(withheld: Withheld, wall: float) -> ToldCause | None:
    """Return what is said of Tasks that have waited for the archive for long; None where there are none."""
    if not withheld.count or wall - withheld.since < ARCHIVE_BEHIND_SECONDS:
        return None
    since = timestamp(withheld.since).isoformat().replace("+00:00", "Z")
    message = (
        f"{withheld.count} Tasks are over their time and not deleted: the archive does not have them. The first was "
        f"due at {since}. Is the archive running, and does it reach its database?"
    )
    return ToldCause(Reason.ARCHIVE_BEHIND, "archive", message)


def queue_status(
    queue: TaskQueue, facts: QueueFacts, verdict: SpecVerdict, wall: float, least_lease: int = 0
) -> Object:
    """Return the queue's whole status.

    Args:
        least_lease: what a shorter `leaseSeconds` counts as.
    """
    ready = "True" if verdict.accepted else "False"
    message = verdict.message or "Tasks are handed out"
    # A pool that does not exist yet is for the user to make: nothing here will.
    conditions = _trio(
        queue.metadata.generation,
        ready,
        verdict.reason,
        message,
        stalled=not verdict.accepted,
        settled=verdict.accepted,
    )
    conditions.append(
        _condition(
            queue.metadata.generation,
            "Accepting",
            "False" if facts.closed else "True",
            Reason.QUEUE_FULL if facts.closed else Reason.ACCEPTED,
            facts.closed or "New Tasks are taken",
        )
    )
    conditions.append(_bottleneck(queue.metadata.generation, facts.bottleneck))
    if queue.spec.archive:
        conditions.append(_archived(queue.metadata.generation, facts.unarchived))
    if queue.spec.lease_seconds < least_lease:
        conditions.append(
            _condition(
                queue.metadata.generation,
                "LeaseRaised",
                "True",
                Reason.LEASE_TOO_SHORT,
                f"spec.leaseSeconds is {queue.spec.lease_seconds} and counts as {least_lease}: with less a killed "
                f"leader costs the attempts that run. Set it to {least_lease} or more; or let the operator take less, "
                "with TASKDIST_ALLOW_SHORT_LEASES=true",
            )
        )
    return {
        "observedGeneration": queue.metadata.generation,
        "waiting": facts.waiting,
        "leased": facts.leased,
        "deadLettered": facts.dead_letters,
        "waitingOutside": facts.outside or None,
        "accepting": not facts.closed,
        "limits": [
            {
                "name": each.name,
                "level": round(each.level, 3),
                "capacity": each.capacity,
                "perSecond": each.per_second,
                "at": _wire(each.at),
            }
            for each in facts.limits
        ]
        or None,
        "conditions": [c.to_wire() for c in merge_conditions(queue.status.conditions, conditions, wall)],
    }


def _trio(
    generation: int, ready: str, reason: Reason, message: str, *, stalled: bool, settled: bool
) -> list[Condition]:
    reconciling = not stalled and not settled

    return [
        _condition(generation, "Ready", ready, reason, message),
        _condition(generation, "Reconciling", "True" if reconciling else "False", reason, message),
        _condition(generation, "Stalled", "True" if stalled else "False", reason, message),
    ]


def _bottleneck(generation: int, held: ToldCause | None) -> Condition:
    if held is None:
        return _condition(generation, "Bottleneck", "False", Reason.NO_BOTTLENECK, "Nothing holds Tasks for long")
    return _condition(generation, "Bottleneck", "True", held.reason, held.message)


def _archived(generation: int, behind: ToldCause | None) -> Condition:
    if behind is None:
        return _condition(
            generation, "Archived", "True", Reason.ARCHIVE_CURRENT, "No Task waits for the archive for long"
        )
    return _condition(generation, "Archived", "False", behind.reason, behind.message)


def _condition(generation: int, kind: str, status: str, reason: Reason, message: str) -> Condition:
    return Condition.model_validate(
        {
            "type": kind,
            "status": status,
            "reason": reason.value,
            "message": message[:4096],
            "observedGeneration": generation,
        }
    )
