"""Rules on who serves whom: names that lead nowhere, Tasks that no agent can run.

Whether an agent may run a Task is asked of the very filters by which the operator chooses, of agents as their pools
declare them.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

from taskdist.api import GROUP, VERSION, Reason
from taskdist.core.agents import filters
from taskdist.core.model import Requirement
from taskdist.lint.findings import Flaw, Mend, Severity, patch, rule
from taskdist.lint.manifests import Manifest
from taskdist.lint.setup import PoolDoc, QueueDoc, Setup, TaskDoc, with_variable

_ELSEWHERE = "; it may be in the cluster already: review the set with it, or with --cluster"


@rule(Severity.ERROR)
def pool_not_found(setup: Setup) -> Iterator[Flaw]:
    """A queue names a pool that is not there.

    Without any of its pools its Tasks wait for ever (PoolNotFound); while others are there, those do all the work.
    """
    for queue in setup.queues.values():
        known = setup.names("AgentPool", queue.rules.namespace)
        there = [name for name in queue.rules.pools if name in known]
        for place, name in enumerate(queue.rules.pools):
            if name in known:
                continue
            near = get_close_matches(name, [each for each in known if each not in there], 1)
            words = f"Create AgentPool {name}" + (f", or did you mean {near[0]}?" if near else ", or name another one.")
            change = patch("spec.pools", [*there, *near]) if there or near else _pool(queue, name)
            sure = setup.whole or bool(known)
            yield Flaw(
                queue.manifest,
                f"spec.pools[{place}]",
                f"there is no AgentPool {name}" + ("" if sure else _ELSEWHERE),
                Mend(words, change),
                None if sure and not there else Severity.WARNING,
            )


@rule(Severity.WARNING)
def pool_unused(setup: Setup) -> Iterator[Flaw]:
    """No queue uses the pool.

    Its agents run and cost, and get no work but Tasks that name the pool themselves, and Emergency ones.
    """
    for key, pool in setup.pools.items():
        queues = setup.names("TaskQueue", key[0])
        named = any(doc.task.pool == key[1] for doc in setup.tasks.values() if doc.task.namespace == key[0])
        if not queues or named or setup.queues_using(key):
            continue
        first = next((doc for doc in setup.queues.values() if doc.rules.namespace == key[0]), None)
        change = patch("spec.pools", [*first.rules.pools, key[1]]) if first is not None else None
        mend = Mend("Name it in a queue's pools, or delete it.", change, first.manifest if first is not None else None)
        yield Flaw(pool.manifest, "metadata.name", "no TaskQueue has it in its pools", mend)


@rule(Severity.ERROR)
def queue_not_found(setup: Setup) -> Iterator[Flaw]:
    """A Task's queue is not there.

    The Task is taken and waits (QueueNotFound) until there is such a queue.
    """
    for doc in setup.tasks.values():
        namespace, name = doc.task.queue_key
        known = setup.names("TaskQueue", namespace)
        if name in known:
            continue
        near = get_close_matches(name, known, 1)
        sure = setup.whole or bool(known)
        pools = setup.names("AgentPool", namespace)
        made = _object("TaskQueue", name, doc.manifest, {"pools": pools[:16]}) if pools else None
        yield Flaw(
            doc.manifest,
            "spec.queue",
            f"there is no TaskQueue {name}" + ("" if sure else _ELSEWHERE),
            Mend(f"Did you mean {near[0]}?", patch("spec.queue", near[0]))
            if near
            else Mend("Create the queue, or name another one.", made),
            None if sure else Severity.WARNING,
        )


@rule(Severity.ERROR)
def task_pool_not_found(setup: Setup) -> Iterator[Flaw]:
    """A Task is bound to a pool that is not there.

    `spec.pool` goes before the queue's pools: nobody else may run it.
    """
    for doc in setup.tasks.values():
        name = doc.task.pool
        known = setup.names("AgentPool", doc.task.namespace)
        if name is None or name in known:
            continue
        near = get_close_matches(name, known, 1)
        words = f"Did you mean {near[0]}?" if near else "Leave it out: the Task runs on its queue's pools then."
        sure = setup.whole or bool(known)
        yield Flaw(
            doc.manifest,
            "spec.pool",
            f"there is no AgentPool {name}" + ("" if sure else _ELSEWHERE),
            Mend(words, patch("spec.pool", near[0] if near else None)),
            None if sure else Severity.WARNING,
        )


@dataclass(frozen=True, slots=True)
class _Refusal:
    """The filter that the nearest pools refuse by, and these pools. Pools that pass earlier filters are nearer."""

    check: filters.Filter
    need: filters.Need
    pools: Sequence[PoolDoc]

    @property
    def message(self) -> str:
        names = ", ".join(pool.shape.name for pool in self.pools)
        several = "s" if len(self.pools) > 1 else ""
        return f"no agent of pool{several} {names} {self.check.say(self.need, [pool.offer for pool in self.pools])}"


def _refused(doc: TaskDoc, queue: QueueDoc, pools: Sequence[PoolDoc]) -> _Refusal | None:
    """Why none of the pools can ever run the Task; None if one can. Pools that nobody has are another rule's."""
    # Which agent has the name that it asks for is not known before it is there.
    need = replace(filters.need_of(doc.task, queue.rules.allows_unfenced), agent=None)
    by_filter: dict[int, list[PoolDoc]] = {}
    for pool in pools:
        # A label that agents report of themselves is not known before they do.
        own = [each for each in need.selector if each.key not in pool.shape.reported_labels]
        number = filters.refusal(replace(need, selector=tuple(own)), pool.offer)
        if number is None:
            return None
        by_filter.setdefault(number, []).append(pool)
    if not by_filter:
        return None
    nearest = max(by_filter)
    return _Refusal(filters.FILTERS[nearest], need, by_filter[nearest])


# What the Task asks for, by the filter that refuses it.
_ASKED = {
    Reason.NO_HANDLER: "spec.type",
    Reason.SKILL_MISSING: "spec.skills",
    Reason.LABELS_MISMATCH: "spec.agentSelector",
    Reason.ZONE_MISMATCH: "spec.zones",
    Reason.REGION_MISMATCH: "spec.regions",
    Reason.TOO_EXPENSIVE: "spec.maxCostPerHour",
    Reason.QUALITY_TOO_LOW: "spec.minQuality",
}


def _unserved(setup: Setup) -> Iterator[tuple[TaskDoc, _Refusal]]:
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        if queue is None or setup.missing_pools(doc, queue):
            continue
        refused = _refused(doc, queue, setup.pools_of(doc, queue))
        if refused is not None:
            yield doc, refused


@rule(Severity.ERROR)
def no_capable_pool(setup: Setup) -> Iterator[Flaw]:
    """No pool that may serve the Task has agents that could: handlers, skills or labels are missing.

    So are the zones, regions, price and quality that it asks for. It would wait for ever. Judged by what pools declare
    and by the labels of their template; which handlers an agent has is known only where its `--types` say so.
    """
    for doc, refused in _unserved(setup):
        path = _ASKED.get(refused.check.reason)
        if path is not None:
            pool = refused.pools[0]
            change = _made_capable(refused, pool)
            mend = Mend(refused.check.mend, change, pool.manifest if change is not None else None, declares=True)
            yield Flaw(doc.manifest, path, refused.message, mend)


@rule(Severity.ERROR)
def larger_than_any_agent(setup: Setup) -> Iterator[Flaw]:
    """A Task asks for more slots or resources than any agent that may run it has in all.

    A Task runs on one agent; it is not that others are in its way, it never fits.
    """
    for doc, refused in _unserved(setup):
        if refused.check.reason is not Reason.TOO_LARGE:
            continue
        pool = max(refused.pools, key=lambda each: each.shape.slots)
        slots = max(pool.shape.slots, doc.task.slots)
        resources = dict(pool.shape.resources)
        resources |= {name: max(amount, resources.get(name, 0)) for name, amount in doc.task.resources}
        change = {"slots": slots, **({"resources": resources} if resources else {})}
        many = doc.task.slots > pool.shape.slots
        path = "spec.slots" if many else "spec.resources"
        mend = Mend(refused.check.mend, {"spec": change}, pool.manifest, declares=True)
        yield Flaw(doc.manifest, path, refused.message, mend)


def _made_capable(refused: _Refusal, pool: PoolDoc) -> dict[str, Any] | None:
    """What the pool lacks, where a change of the pool gives it."""
    need = refused.need
    match refused.check.reason:
        case Reason.SKILL_MISSING:
            return patch("spec.skills", sorted(pool.shape.skills | need.skills))
        case Reason.LABELS_MISMATCH:
            labels = dict(pool.shape.labels)
            wanted = [each for each in need.selector if not filters.fulfils(each, labels)]
            if all(each.operator in ("In", "Exists") for each in wanted):
                return patch("spec.template.metadata.labels", {each.key: _value(each) for each in wanted})
    return None


def _value(requirement: Requirement) -> str:
    return min(requirement.values) if requirement.values else "true"


@rule(Severity.WARNING)
def agents_without_a_fence(setup: Setup) -> Iterator[Flaw]:
    """A queue that reclaims by lease, and agents that cannot be stopped by force.

    HTTP endpoints and handlers in the agent's own process go on when their lease has ended. So such agents get no work
    of a queue with `reclaim: Lease`, which promises that nothing overlaps. Confirmed waits until the pod is gone.
    """
    for queue in setup.queues.values():
        if queue.rules.allows_unfenced:
            continue
        pools = [setup.pools.get((queue.rules.namespace, name)) for name in queue.rules.all_pools]
        known = [pool for pool in pools if pool is not None]
        unfenced = [pool.shape.name for pool in known if not pool.offer.fenced]
        if unfenced:
            mend = Mend(
                "Reclaim when the pod is gone, or run handlers as processes.", patch("spec.reclaim", "Confirmed")
            )
            message = f"the agents of {', '.join(unfenced)} cannot be fenced, and get no work under reclaim Lease"
            every = len(unfenced) == len(queue.rules.all_pools)
            yield Flaw(queue.manifest, "spec.reclaim", message, mend, Severity.ERROR if every else None)


@rule(Severity.WARNING)
def object_store_not_set(setup: Setup) -> Iterator[Flaw]:
    """A Task whose payload is in an object store, and no agent that is told of one.

    It waits (ObjectStoreMissing) until an agent says that it has a store: its pod's environment names it in
    TASKDIST_OBJECTS_URL. An image may bring the variable along, which no manifest shows.
    """
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        pools = setup.pools_of(doc, queue) if queue is not None and doc.task.objects else ()
        if pools and not any(pool.offer.objects for pool in pools):
            pool = pools[0]
            variable = {"name": "TASKDIST_OBJECTS_URL", "value": "s3://BUCKET/PREFIX"}
            mend = Mend(
                "Tell the agents of their store, and give their pods the right to it.",
                with_variable(pool, variable),
                pool.manifest,
                declares=True,
            )
            names = ", ".join(each.shape.name for each in pools)
            yield Flaw(doc.manifest, "spec.payloadRef", f"no agent of {names} is told where its object store is", mend)


@rule(Severity.WARNING)
def pool_without_agents(setup: Setup) -> Iterator[Flaw]:
    """A pool of fixed size 0 that a queue uses.

    It has no agents, and never gets one by itself: only `scaling` lets the operator add some.
    """
    for key, pool in setup.pools.items():
        if pool.shape.maximum == 0 and setup.queues_using(key):
            mend = Mend("Let it grow, or set replicas.", patch("spec.scaling", {"minReplicas": 0, "maxReplicas": 4}))
            yield Flaw(pool.manifest, "spec.replicas", "it has 0 agents, and a queue counts on it", mend)


@rule(Severity.WARNING)
def queue_closed(setup: Setup) -> Iterator[Flaw]:
    """A new Task for a queue that takes or hands out nothing.

    A drained queue refuses it at the API server; in a paused one it waits until somebody resumes the queue.
    """
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        if queue is None or doc.manifest.live:
            continue
        if queue.rules.drained:
            mend = Mend("Open the queue.", patch("spec.drained", False), queue.manifest)
            yield Flaw(doc.manifest, "spec.queue", f"{queue.rules.name} is drained: it takes no new Tasks", mend)
        elif queue.rules.paused:
            mend = Mend("Let the queue go on.", patch("spec.paused", False), queue.manifest)
            yield Flaw(doc.manifest, "spec.queue", f"{queue.rules.name} is paused: it hands out nothing", mend)


@rule(Severity.ERROR)
def spill_target_not_found(setup: Setup) -> Iterator[Flaw]:
    """A queue spills to one that is not there.

    What should spill is failed instead (QueueFull).
    """
    for queue in setup.queues.values():
        target = queue.rules.overflow.spill_to if queue.rules.overflow is not None else None
        known = setup.names("TaskQueue", queue.rules.namespace)
        if target is None or target in known:
            continue
        near = get_close_matches(target, [name for name in known if name != queue.rules.name], 1)
        change = {"spillTo": near[0]} if near else {"action": "Reject", "spillTo": None}
        words = f"Did you mean {near[0]}?" if near else "Create the queue, or reject what is too much."
        mend = Mend(words, patch("spec.overflow", change))
        # A set always has the queue itself: that tells nothing of others.
        sure = setup.whole or len(known) > 1
        message = f"there is no TaskQueue {target}" + ("" if sure else _ELSEWHERE)
        yield Flaw(queue.manifest, "spec.overflow.spillTo", message, mend, None if sure else Severity.WARNING)


@rule(Severity.WARNING)
def spill_chain(setup: Setup) -> Iterator[Flaw]:
    """Queues that spill to one another.

    A Task spills once. What finds the second queue full as well is failed, whatever that queue's own overflow says: a
    chain ends after its first link, and a circle gains nothing.
    """
    targets = {
        doc.rules.key: (doc.rules.namespace, doc.rules.overflow.spill_to)
        for doc in setup.queues.values()
        if doc.rules.overflow is not None and doc.rules.overflow.spill_to is not None
    }
    for key, first in targets.items():
        second = targets.get(first)
        if first == key or second is None or second == first:
            continue
        names = " → ".join((key[1], first[1], second[1]))
        back = second == key
        message = f"{names}: " + ("they spill to each other" if back else f"nothing of {key[1]} comes to {second[1]}")
        words = "Let the second queue reject, with a high water mark that leaves room for what spills."
        mend = Mend(words, patch("spec.overflow", {"action": "Reject", "spillTo": None}), setup.queues[first].manifest)
        yield Flaw(setup.queues[key].manifest, "spec.overflow.spillTo", message, mend, None if back else Severity.HINT)


@rule(Severity.WARNING)
def spill_unserved(setup: Setup) -> Iterator[Flaw]:
    """A Task that the queue to which it may spill cannot serve.

    Once spilled it waits there, for agents that cannot run it, and does not come back.
    """
    for queue in setup.queues.values():
        target = queue.rules.overflow.spill_to if queue.rules.overflow is not None else None
        other = setup.queues.get((queue.rules.namespace, target or ""))
        if other is None or other is queue:
            continue
        for doc in setup.tasks_of(queue.rules.key):
            if setup.missing_pools(doc, other) or setup.missing_pools(doc, queue):
                continue
            refused = _refused(doc, other, setup.pools_of(doc, other))
            if refused is None or _refused(doc, queue, setup.pools_of(doc, queue)) is not None:
                continue
            pools = [*other.rules.pools, *(each for each in queue.rules.pools if each not in other.rules.pools)]
            mend = Mend("Let its pools serve that queue too.", patch("spec.pools", pools[:16]), other.manifest)
            message = f"it may spill to {target}, where {refused.message}"
            yield Flaw(doc.manifest, "spec.queue", message, mend)


def _object(kind: str, name: str, like: Manifest, spec: dict[str, Any]) -> dict[str, Any]:
    """A new manifest beside another one."""
    metadata = {"name": name} | ({"namespace": like.namespace} if like.namespace else {})
    return {"apiVersion": f"{GROUP}/{VERSION}", "kind": kind, "metadata": metadata, "spec": spec}


def _pool(queue: QueueDoc, name: str) -> dict[str, Any]:
    template = {"spec": {"containers": [{"name": "agent", "image": "YOUR-IMAGE"}]}}
    spec = {"scaling": {"minReplicas": 1, "maxReplicas": 4}, "template": template}
    return _object("AgentPool", name, queue.manifest, spec)


RULES = (
    pool_not_found,
    pool_unused,
    pool_without_agents,
    queue_not_found,
    queue_closed,
    task_pool_not_found,
    no_capable_pool,
    larger_than_any_agent,
    agents_without_a_fence,
    object_store_not_set,
    spill_target_not_found,
    spill_chain,
    spill_unserved,
)
