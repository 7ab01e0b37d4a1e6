"""Rules on how a manifest is written: whether the API server takes it at all.

What fields contradict each other in a way that the API server refuses is said here too, so that it is heard before
anything is applied. Its own rules are in the CustomResourceDefinitions; a test holds them against these.
"""

import re
from collections.abc import Iterator
from typing import Any

from taskdist.api import OnOverflow
from taskdist.api.crd import kinds
from taskdist.api.meta import GROUP, VERSION
from taskdist.api.rules import MAX_NAME_LENGTH
from taskdist.core.model import Parent
from taskdist.lint.findings import Flaw, Mend, Severity, number, patch, rule
from taskdist.lint.setup import Setup

_NAME = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")


@rule(Severity.ERROR)
def unknown_kind(setup: Setup) -> Iterator[Flaw]:
    """The API has no such kind or version.

    The API server refuses the object: taskdist serves Task, TaskQueue, AgentPool, TaskSource and
    TaskSink, of one version.
    """
    known = {kind.kind for kind in kinds()}
    version = f"{GROUP}/{VERSION}"
    for each in setup.manifests:
        if not each.ours:
            continue
        if each.kind not in known:
            words = f"Write one of: {', '.join(sorted(known))}."
            yield Flaw(each, "kind", f"{version} has no kind {each.kind}", Mend(words))
        elif each.body["apiVersion"] != version:
            mend = Mend(f"Write {version}.", {"apiVersion": version})
            yield Flaw(each, "apiVersion", f"this release serves {version}, not {each.body['apiVersion']}", mend)


@rule(Severity.ERROR)
def unknown_field(setup: Setup) -> Iterator[Flaw]:
    """A field that the kind does not have.

    Mostly a slip of the pen: what it was to say is not said. kubectl refuses it; a client that does not ask for strict
    checks has it dropped without a word.
    """
    for at, problem in setup.problems:
        if problem.unknown:
            yield Flaw(at, problem.path, problem.message, Mend(problem.mend))


@rule(Severity.ERROR)
def invalid_value(setup: Setup) -> Iterator[Flaw]:
    """A value of the wrong type or out of bounds, or a field that is missing.

    The schema of the kind refuses it. An object with such a flaw is not reviewed further.
    """
    for at, problem in setup.problems:
        if not problem.unknown:
            yield Flaw(at, problem.path, problem.message, Mend(problem.mend))


@rule(Severity.ERROR)
def bad_name(setup: Setup) -> Iterator[Flaw]:
    """A name that is missing, too long or of other characters.

    Names of pools and sources begin those of their pods and Tasks, and metrics carry those of queues, so they are short
    DNS labels.
    """
    for each in setup.manifests:
        if not each.ours:
            continue
        bounded = each.kind in ("TaskQueue", "AgentPool", "TaskSource")
        if not each.name:
            yield Flaw(each, "metadata.name", "is missing", Mend("Add a name."))
        elif bounded and (len(each.name) > MAX_NAME_LENGTH or not _NAME.fullmatch(each.name)):
            words = f"Choose at most {MAX_NAME_LENGTH} of a-z, 0-9 and '-', with no '-' at its ends."
            yield Flaw(each, "metadata.name", "is too long, or has other characters than a DNS label", Mend(words))


@rule(Severity.ERROR)
def defined_twice(setup: Setup) -> Iterator[Flaw]:
    """Two objects of one kind and name.

    The one that is applied last replaces the other, whose words are lost; a Task cannot be replaced, and is refused.
    """
    seen: dict[tuple[str, str, str], str] = {}
    for each in setup.manifests:
        key = (each.kind, each.namespace, each.name)
        if each.name and not each.name.endswith("…") and key in seen:
            where = f" at {seen[key]}" if seen[key] else ""
            yield Flaw(each, "metadata.name", f"there is one of this name already{where}", Mend("Rename one of them."))
        seen.setdefault(key, each.place())


@rule(Severity.ERROR)
def lazy_at_most_once(setup: Setup) -> Iterator[Flaw]:
    """Lazy dispatch in a queue that delivers at most once.

    Lazy may run a Task twice around a change of leader. The API server refuses the two together.
    """
    for queue in setup.queues.values():
        if queue.spec.dispatch == "Lazy" and queue.spec.delivery == "AtMostOnce":
            mend = Mend("Record before sending.", patch("spec.dispatch", "Strict"))
            yield Flaw(queue.manifest, "spec.dispatch", "Lazy and delivery AtMostOnce exclude each other", mend)


@rule(Severity.ERROR)
def lease_above_hold(setup: Setup) -> Iterator[Flaw]:
    """Leases that are longer than agents are waited for.

    A new leader waits holdSeconds for agents it has not heard of; a lease must not outlast that.
    """
    for queue in setup.queues.values():
        lease, hold = queue.spec.lease_seconds, queue.spec.hold_seconds
        if lease > hold:
            mend = Mend("Raise holdSeconds.", patch("spec.holdSeconds", lease))
            yield Flaw(queue.manifest, "spec.holdSeconds", f"{hold} s is less than leaseSeconds, {lease}", mend)


@rule(Severity.ERROR)
def backoff_above_bound(setup: Setup) -> Iterator[Flaw]:
    """A first back-off that is longer than the longest.

    The API server refuses retry.initialSeconds above retry.maxSeconds.
    """
    for queue in setup.queues.values():
        first, longest = queue.spec.retry.initial_seconds, queue.spec.retry.max_seconds
        if first > longest:
            mend = Mend("Raise maxSeconds.", patch("spec.retry.maxSeconds", number(first)))
            message = f"{number(first)} s is more than maxSeconds, {number(longest)}"
            yield Flaw(queue.manifest, "spec.retry.initialSeconds", message, mend)


@rule(Severity.ERROR)
def water_marks_crossed(setup: Setup) -> Iterator[Flaw]:
    """A low water mark above the high one.

    The queue would open where it is full. The API server refuses it.
    """
    for queue in setup.queues.values():
        overflow = queue.spec.overflow
        if overflow is not None and overflow.low_water > overflow.high_water:
            low = overflow.high_water * 3 // 4
            mend = Mend("Set it to three quarters of the high mark.", patch("spec.overflow.lowWater", low))
            message = f"{overflow.low_water} is more than highWater, {overflow.high_water}"
            yield Flaw(queue.manifest, "spec.overflow.lowWater", message, mend)


@rule(Severity.ERROR)
def spill_without_target(setup: Setup) -> Iterator[Flaw]:
    """Spilling without saying where to, or a target without spilling, or the queue itself as target.

    `action: Spill` and `spillTo` go together, and a full queue cannot take what spills from it.
    """
    for queue in setup.queues.values():
        overflow, at = queue.spec.overflow, queue.manifest
        if overflow is None:
            continue
        spills = overflow.action is OnOverflow.SPILL
        if spills and overflow.spill_to is None:
            words = "Name a queue in spillTo, or reject what is too much."
            mend = Mend(words, patch("spec.overflow.action", "Reject"))
            yield Flaw(at, "spec.overflow.action", "Spill, but spillTo names no queue", mend)
        elif not spills and overflow.spill_to is not None:
            mend = Mend("Say that it spills.", patch("spec.overflow.action", "Spill"))
            yield Flaw(at, "spec.overflow.spillTo", "it is not used: the action is Reject", mend)
        elif overflow.spill_to == queue.rules.name:
            change = patch("spec.overflow", {"action": "Reject", "spillTo": None})
            mend = Mend("Choose another queue, or reject what is too much.", change)
            yield Flaw(at, "spec.overflow.spillTo", "it is the queue itself, which is full then", mend)


@rule(Severity.ERROR)
def scaling_bounds_crossed(setup: Setup) -> Iterator[Flaw]:
    """A pool that must have more agents than it may.

    The API server refuses scaling.minReplicas above scaling.maxReplicas.
    """
    for pool in setup.pools.values():
        scaling = pool.spec.scaling
        if scaling is not None and scaling.min_replicas > scaling.max_replicas:
            mend = Mend("Raise maxReplicas.", patch("spec.scaling.maxReplicas", scaling.min_replicas))
            message = f"{scaling.min_replicas} is more than maxReplicas, {scaling.max_replicas}"
            yield Flaw(pool.manifest, "spec.scaling.minReplicas", message, mend)


@rule(Severity.ERROR)
def breaker_bounds_crossed(setup: Setup) -> Iterator[Flaw]:
    """A breaker that stays open for longer than it may.

    The API server refuses breaker.openSeconds above breaker.maxOpenSeconds.
    """
    for pool in setup.pools.values():
        breaker = pool.spec.breaker
        if breaker.open_seconds > breaker.max_open_seconds:
            mend = Mend("Raise maxOpenSeconds.", patch("spec.breaker.maxOpenSeconds", breaker.open_seconds))
            message = f"{breaker.open_seconds:g} is more than maxOpenSeconds, {breaker.max_open_seconds:g}"
            yield Flaw(pool.manifest, "spec.breaker.openSeconds", message, mend)


@rule(Severity.ERROR)
def idle_above_busy(setup: Setup) -> Iterator[Flaw]:
    """Agents that draw more when idle than when busy.

    The API server refuses wattsIdle above wattsBusy.
    """
    for pool in setup.pools.values():
        idle, busy = pool.spec.watts_idle, pool.spec.watts_busy
        if idle > busy:
            mend = Mend("Say what a busy agent draws.", patch("spec.wattsBusy", idle))
            yield Flaw(pool.manifest, "spec.wattsIdle", f"{idle:g} is more than wattsBusy, {busy:g}", mend)


@rule(Severity.ERROR)
def wait_without_preference(setup: Setup) -> Iterator[Flaw]:
    """A Task that waits for a preferred agent, and prefers none.

    The API server refuses waitForPreferredSeconds without preferred.
    """
    for doc in setup.tasks.values():
        placement = doc.task.placement
        if doc.spec.get("waitForPreferredSeconds") and not (placement is not None and placement.preferred):
            mend = Mend("Leave the wait out, or say what is preferred.", patch("spec.waitForPreferredSeconds", None))
            yield Flaw(doc.manifest, "spec.waitForPreferredSeconds", "nothing is preferred", mend)


@rule(Severity.ERROR)
def selector_values(setup: Setup) -> Iterator[Flaw]:
    """A requirement on labels with values where it takes none, or without where it needs some.

    In and NotIn compare with values; Exists and DoesNotExist look at the key alone.
    """
    for doc in setup.tasks.values():
        for path, each in _expressions(doc.spec):
            compares = each["operator"] in ("In", "NotIn")
            if compares and not each.get("values"):
                mend = Mend("Name the label's values, or use Exists or DoesNotExist.")
                yield Flaw(doc.manifest, path, f"the operator {each['operator']} needs values", mend)
            elif not compares and each.get("values"):
                mend = Mend("Take the values away, or use In or NotIn.")
                yield Flaw(doc.manifest, path, f"the operator {each['operator']} takes no values", mend)


def _expressions(spec: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """The requirements of the Task's selectors, with the path of their values."""
    preferred = [each.get("selector") for each in spec.get("preferred") or ()]
    paths = ["spec.agentSelector", *(f"spec.preferred[{place}].selector" for place in range(len(preferred)))]
    for path, selector in zip(paths, [spec.get("agentSelector"), *preferred], strict=True):
        for place, each in enumerate((selector or {}).get("matchExpressions") or ()):
            yield f"{path}.matchExpressions[{place}].values", each


@rule(Severity.ERROR)
def depends_on_itself(setup: Setup) -> Iterator[Flaw]:
    """A Task that waits for itself.

    It could never start. The API server refuses it.
    """
    for doc in setup.tasks.values():
        for place, parent in enumerate(doc.task.parents):
            if parent.name == doc.task.name:
                rest = [{"name": name} for name in _others(doc.task.parents, parent)]
                mend = Mend("Leave it out.", patch("spec.dependsOn", rest or None))
                yield Flaw(doc.manifest, f"spec.dependsOn[{place}].name", "it is the Task itself", mend)


def _others(parents: tuple[Parent, ...], but: Parent) -> list[str]:
    return [each.name for each in parents if each is not but]


@rule(Severity.ERROR)
def deadline_before_start(setup: Setup) -> Iterator[Flaw]:
    """A Task that may start only when its deadline has passed.

    It could never be in time. The API server refuses notBefore at or after deadline.
    """
    for doc in setup.tasks.values():
        deadline = doc.task.deadline
        if deadline is not None and doc.spec.get("notBefore") and doc.task.not_before >= deadline:
            mend = Mend("Move the deadline back, or let it start earlier.", patch("spec.notBefore", None))
            yield Flaw(doc.manifest, "spec.notBefore", "it is not before the deadline", mend)


@rule(Severity.ERROR)
def payload_said_twice(setup: Setup) -> Iterator[Flaw]:
    """A Task with a payload and a reference to one.

    Only one of them can be meant. The API server refuses it.
    """
    for doc in setup.tasks.values():
        if {"payload", "payloadRef"} <= doc.spec.keys():
            mend = Mend("Leave out the one that is not meant.", patch("spec.payload", None))
            yield Flaw(doc.manifest, "spec.payloadRef", "spec.payload says the input, too", mend)


RULES = (
    unknown_kind,
    unknown_field,
    invalid_value,
    bad_name,
    defined_twice,
    lazy_at_most_once,
    lease_above_hold,
    backoff_above_bound,
    water_marks_crossed,
    spill_without_target,
    breaker_bounds_crossed,
    scaling_bounds_crossed,
    selector_values,
    idle_above_busy,
    wait_without_preference,
    depends_on_itself,
    deadline_before_start,
    payload_said_twice,
)
