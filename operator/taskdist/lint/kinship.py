"""Rules on Tasks that belong together: dependencies and duplicates.

Circles are asked of the graph that the operator keeps.
"""

from collections.abc import Iterator
from dataclasses import replace

from taskdist.api import Reason
from taskdist.core.model import Key
from taskdist.core.ordering.dependencies import Dependencies
from taskdist.lint.findings import Flaw, Mend, Severity, patch, rule
from taskdist.lint.setup import Setup, TaskDoc

# Who creates Tasks one by one may need so many seconds between a parent and its dependants.
APART = 60


@rule(Severity.ERROR)
def dependency_cycle(setup: Setup) -> Iterator[Flaw]:
    """Tasks that wait for each other.

    None of them ever starts (DependencyCycle), and `dependsOn` cannot be changed: one has to be deleted.
    """
    graph = Dependencies()
    tasks = list(setup.tasks.values())
    # Names stand for uids: within a set there is one of each.
    for doc in tasks:
        parents = tuple(
            replace(parent, uid=each.task.uid)
            for parent in doc.task.parents
            if parent.name != doc.task.name and (each := setup.tasks.get((doc.task.namespace, parent.name))) is not None
        )
        graph.add(replace(doc.task, parents=parents), doc.task.priority)
    for doc in tasks:
        gate = graph.gate(doc.task.uid)
        if gate is not None and gate.reason is Reason.DEPENDENCY_CYCLE:
            mend = Mend("Take one link of the circle out.", patch("spec.dependsOn", None))
            yield Flaw(doc.manifest, "spec.dependsOn", gate.message, mend)


@rule(Severity.WARNING)
def parent_not_found(setup: Setup) -> Iterator[Flaw]:
    """A Task depends on one that is not there.

    It waits (DependencyNotFound) until a Task of that name is created, be it never. The order in which they are applied
    does not matter.
    """
    for doc in setup.tasks.values():
        # One that is pinned was seen, though it may be gone by now.
        missing = [
            each.name
            for each in doc.task.parents
            if not each.uid and not setup.has("Task", doc.task.namespace, each.name)
        ]
        for place, parent in enumerate(doc.task.parents):
            if parent.name in missing:
                rest = [{"name": each.name} for each in doc.task.parents if each.name not in missing]
                where = "in the namespace" if setup.whole else "in the set"
                mend = Mend("Create it too, or leave it out.", patch("spec.dependsOn", rest or None))
                yield Flaw(
                    doc.manifest, f"spec.dependsOn[{place}].name", f"there is no Task {parent.name} {where}", mend
                )


@rule(Severity.WARNING)
def parent_gone_too_soon(setup: Setup) -> Iterator[Flaw]:
    """A parent may be deleted before its dependant is created.

    A parent is kept until the last Task that names it has ended, but only once there is such a Task. One that ends
    quickly, with a time to live of less than a minute, may be gone before: the dependant then waits for ever.
    """
    for doc in setup.tasks.values():
        if doc.manifest.live:
            continue
        for place, name in enumerate(each.name for each in doc.task.parents):
            parent = setup.tasks.get((doc.task.namespace, name))
            if parent is None or parent is doc:
                continue
            own = parent.record.ttl
            queue = setup.queue_of(parent.task)
            ttl = own if own is not None else queue.spec.ttl_seconds_after_finished if queue is not None else None
            if ttl is not None and ttl < APART:
                at = None if own is not None or queue is None else queue.manifest
                mend = Mend(
                    "Keep it for some minutes.", patch("spec.ttlSecondsAfterFinished", 600), at or parent.manifest
                )
                message = f"{name} is deleted {round(ttl)} s after its end, unless this Task is there by then"
                yield Flaw(doc.manifest, f"spec.dependsOn[{place}].name", message, mend)


@rule(Severity.WARNING)
def duplicate_key(setup: Setup) -> Iterator[Flaw]:
    """Two Tasks of one queue with the same idempotencyKey.

    They are one piece of work: the first is run, and the other ends as it does, whatever its own payload says.
    """
    first: dict[tuple[Key, str], TaskDoc] = {}
    for doc in setup.tasks.values():
        key = doc.spec.get("idempotencyKey")
        if not key:
            continue
        known = first.setdefault((doc.task.queue_key, key), doc)
        if known is not doc:
            said = [[each.spec.get(field) for field in ("payload", "payloadRef")] for each in (known, doc)]
            same = "the same" if said[0] == said[1] else "another"
            message = f"{known.task.name} has it too, and {same} payload: only one of them is run"
            # A key of its own, unless it is the same work: then the Task itself is what is too much.
            mend = Mend("Give each its own key, or leave one Task out.", patch("spec.idempotencyKey", f"{key}-2"))
            yield Flaw(doc.manifest, "spec.idempotencyKey", message, mend)


@rule(Severity.HINT)
def repeats_forgotten(setup: Setup) -> Iterator[Flaw]:
    """A Task with an idempotencyKey that is deleted soon after its end.

    A repeat is recognised as long as the first Task is there. With a time to live of less than a minute, a client that
    asks again after a time-out has the work done twice.
    """
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        own = doc.record.ttl
        ttl = own if own is not None else queue.spec.ttl_seconds_after_finished if queue is not None else None
        if doc.spec.get("idempotencyKey") and ttl is not None and ttl < APART:
            at = queue.manifest if own is None and queue is not None else doc.manifest
            mend = Mend("Keep it for an hour.", patch("spec.ttlSecondsAfterFinished", 3600), at)
            yield Flaw(doc.manifest, "spec.idempotencyKey", f"repeats are recognised for {round(ttl)} s only", mend)


RULES = (
    dependency_cycle,
    parent_not_found,
    parent_gone_too_soon,
    duplicate_key,
    repeats_forgotten,
)
