"""From API objects as the server sends them to the values that core and protocol know.

Pure, and the only place where this is done. It stands here, below the operator, because whatever starts from manifests
reads them in the same way: the operator, the command that asks why a Task waits, the simulator. Tasks and pods are many
and change often: they are read straight from the dict. Queues and pools are few: they go through their models, so that
a default is written down once.

An object may hold what this release cannot read: it was admitted under another release's schema, or says more than the
schema can bound. Where no release could make sense of a Task's spec, its record carries the `Fault` that it ends with.
All else raises `Unreadable`, which names the field: the object is to be set aside.
"""

import hashlib
import json
from typing import Any, TypeVar

from taskdist import api
from taskdist.api import (
    POOL_LABEL,
    REMOVED_BY_ANNOTATION,
    TEMPLATE_LABEL,
    AgentPool,
    BudgetKind,
    OnDependencyFailure,
    Priority,
    Reason,
    Unreadable,
    agentpool,
    nesting,
    taskqueue,
)
from taskdist.api.task import MAX_PAYLOAD_BYTES
from taskdist.core.agents.performance import TypePerformance
from taskdist.core.model import (
    NORMAL,
    TOPOLOGY,
    Breaker,
    Budget,
    Match,
    Overflow,
    Parent,
    Pool,
    Queue,
    Quota,
    RetryPolicy,
    Route,
    RouteStep,
    Task,
    Timeouts,
    TokenRate,
)
from taskdist.protocol import reading, still_held, task_status, wishes
from taskdist.protocol.bodies import payload as payload
from taskdist.protocol.bodies import result as result
from taskdist.protocol.instances import instance_of
from taskdist.protocol.observations import Fault, ObservedPod, ObservedTask
from taskdist.protocol.pod_trouble import trouble_of
from taskdist.protocol.task_status import seconds as seconds
from taskdist.protocol.task_status import terms as terms

Obj = dict[str, Any]
Value = TypeVar("Value", str, int)

AGENT_CONTAINER = "agent"
"""Name of the container that is the agent; without one of this name, the first container is."""
# Where an agent tells its pod's probe whether it takes work.
AGENT_READY_PATH = "/readyz"

_LEVELS = {str(priority): priority.level for priority in Priority}
_ON_FAILURE = {str(each): each for each in OnDependencyFailure}
_NOTHING: Obj = {}


def observed_task(obj: Obj) -> ObservedTask:
    """A Task with what its status says, without payload and result. Raises Unreadable."""
    try:
        return _observed_task(obj)
    except Unreadable:
        raise
    except Exception as error:  # types and values that no schema of this release allows
        raise Unreadable(Reason.UNREADABLE, f"this release cannot read it: {error!r}"[:500]) from error


def _observed_task(obj: Obj) -> ObservedTask:
    metadata, spec = obj["metadata"], obj["spec"]
    status = obj.get("status") or _NOTHING
    phase = task_status.phase(status)
    failures = status.get("failures") or 0
    timeouts = spec.get("timeouts") or _NOTHING
    deadline, not_before, fault = _asked_times(spec)
    try:
        body = payload(obj)
        # What stands elsewhere takes nothing of a queue's bound.
        payload_bytes = len(body) if isinstance(body, bytes) else 0
    except Unreadable as error:
        if error.reason is not Reason.PAYLOAD_TOO_DEEP:
            raise
        payload_bytes, fault = 0, Fault(error.reason, str(error))
    if payload_bytes > MAX_PAYLOAD_BYTES:
        told = f"spec.payload is {payload_bytes} bytes of JSON, at most {MAX_PAYLOAD_BYTES} are sent: store the data"
        fault = Fault(Reason.PAYLOAD_TOO_LARGE, f"{told} elsewhere and pass a reference (spec.payloadRef)")
    record = ObservedTask(
        task=Task(
            uid=metadata["uid"],
            namespace=metadata["namespace"],
            name=metadata["name"],
            queue=status.get("spilledTo") or spec["queue"],
            type=spec["type"],
            created=seconds(metadata.get("creationTimestamp")),
            # One that the API server refuses today may have been stored by another release.
            priority=_LEVELS.get(spec.get("priority") or "", NORMAL),
            pool=spec.get("pool") or None,
            slots=spec.get("slots") or 1,
            resources=wishes.pairs(spec.get("resources")),
            skills=frozenset(spec.get("skills") or ()),
            selector=wishes.selector(spec.get("agentSelector")),
            suspended=bool(spec.get("suspend")),
            failures=failures,
            not_before=max(not_before, seconds(status.get("retryAfter"))),
            tenant=spec.get("tenant") or metadata["namespace"],
            deadline=deadline,
            waiting_limit=timeouts.get("waitingSeconds"),
            concurrency_key=spec.get("concurrencyKey") or None,
            ordering_key=spec.get("orderingKey") or None,
            parents=_parents(spec, status),
            on_parent_failure=_ON_FAILURE.get(spec.get("onDependencyFailure") or "", OnDependencyFailure.FAIL),
            payload_bytes=payload_bytes,
            deaths=tuple(status.get("lostAgents") or ()),
            labels=wishes.pairs(metadata.get("labels")),
            agent=spec.get("agent") or None,
            budgets=wishes.budgets(spec),
            attempted=task_status.attempted(status),
            spilled=bool(status.get("spilledTo")),
            redriven=bool(status.get("redrives")),
            placement=wishes.placement(spec),
            sticky_key=spec.get("stickyKey") or None,
            put_off=float(status.get("throttledSeconds") or 0),
            throttled=task_status.throttled(status),
            objects=spec.get("payloadRef") is not None,
        ),
        resource_version=int(metadata["resourceVersion"]),
        phase=phase,
        reason=task_status.reason(status),
        attempt=status.get("attempt") or 0,
        epoch=status.get("epoch") or 0,
        failures=failures,
        agent_uid=status.get("agentUid") or "",
        agent_name=status.get("agent") or "",
        pool=status.get("pool") or "",
        assigned_at=seconds(status.get("assignedAt")),
        cancel=bool(spec.get("cancel")),
        payload_bytes=payload_bytes,
        deleting="deletionTimestamp" in metadata,
        attempts=tuple(status.get("attempts") or ()),
        dropped_attempts=status.get("droppedAttempts") or 0,
        execution_limit=timeouts.get("executionSeconds"),
        progress_limit=timeouts.get("progressSeconds"),
        redrive=spec.get("redrive") or 0,
        redrives=status.get("redrives") or 0,
        finished_at=seconds(status.get("finishedAt")),
        ttl=spec.get("ttlSecondsAfterFinished"),
        duplicate_of=status.get("duplicateOf") or "",
        idempotency=(spec["queue"], spec["idempotencyKey"]) if spec.get("idempotencyKey") else None,
        spent=task_status.spent(status),
        terms=terms(status),
        fault=fault,
    )
    return task_status.array(spec, status, record)


def _asked_times(spec: Obj) -> tuple[float | None, float, Fault | None]:
    """The deadline, the earliest start, and what is wrong with them."""
    deadline, wrong_deadline = _asked_time(spec, "deadline")
    not_before, wrong_start = _asked_time(spec, "notBefore")
    return deadline, not_before or 0.0, wrong_start or wrong_deadline


def _asked_time(spec: Obj, field: str) -> tuple[float | None, Fault | None]:
    text = spec.get(field)
    try:
        return (reading.moment(text) if text else None), None
    except ValueError:
        told = f"spec.{field} {text!r} is no time of RFC 3339: create the Task again with one like"
        return None, Fault(Reason.INVALID_SPEC, f"{told} 2030-01-31T15:00:00Z")


def queue(obj: Obj) -> Queue:
    """A TaskQueue's rules. Raises Unreadable."""
    model = reading.task_queue(obj)
    spec = model.spec
    return Queue(
        namespace=model.metadata.namespace,
        name=model.metadata.name,
        pools=tuple(spec.pools),
        paused=spec.paused,
        dispatch=spec.dispatch,
        delivery=spec.delivery,
        reclaim=spec.reclaim,
        lease_seconds=spec.lease_seconds,
        hold_seconds=spec.hold_seconds,
        retry=RetryPolicy(
            limit=spec.retry.limit,
            initial_seconds=spec.retry.initial_seconds,
            factor=spec.retry.factor,
            max_seconds=spec.retry.max_seconds,
            jitter=spec.retry.jitter,
            reasons=frozenset(spec.retry.reasons),
            agent_deaths=spec.retry.agent_deaths,
            on_exhausted=spec.retry.on_exhausted,
            throttled_seconds=float(spec.retry.throttled_seconds),
        ),
        drained=spec.drained,
        weight=spec.weight,
        policy=spec.order.policy,
        level=spec.order.level.level,
        critical_path_first=spec.order.critical_path_first,
        tenant_weights=tuple(sorted((each.name, each.weight) for each in spec.tenants.weights)),
        tenant_weight=spec.tenants.default_weight,
        emergency=frozenset(spec.tenants.emergency),
        emergency_leased=spec.tenants.emergency_leased,
        aging_step=spec.aging.step_seconds,
        on_hopeless=spec.deadlines.on_hopeless,
        max_queue_seconds=spec.deadlines.max_queue_seconds,
        expected_service=spec.expected_service_seconds,
        hold_after=spec.large_tasks.hold_after_seconds,
        quota=_limits(spec.quota),
        tenant_quota=_limits(spec.quota.per_tenant),
        rate=_rate(spec.rate.queue),
        tenant_rate=_rate(spec.rate.per_tenant),
        concurrency_limit=spec.concurrency_limit,
        overflow=Overflow(
            spec.overflow.high_water, spec.overflow.low_water, spec.overflow.action, spec.overflow.spill_to
        )
        if spec.overflow
        else None,
        timeouts=Timeouts(
            spec.timeouts.waiting_seconds, spec.timeouts.execution_seconds, spec.timeouts.progress_seconds
        ),
        routes=tuple(_route(each) for each in spec.routes),
        budgets=tuple(
            Budget(each.name, each.limit)
            if each.kind is BudgetKind.CONCURRENT
            else Budget(each.name, rate=TokenRate(each.per_second or 0.001, each.burst or 1))
            for each in spec.budgets
        ),
        strategy=spec.strategy,
        archive_backlog=spec.archive_backlog if spec.archive else None,
    )


def pool(obj: Obj) -> Pool:
    """An AgentPool's shape and bounds. Its labels are those that its pods will carry. Raises Unreadable."""
    model = reading.agent_pool(obj)
    spec, scaling = model.spec, model.spec.scaling
    labels = spec.template.metadata.get("labels") or {}
    return Pool(
        namespace=model.metadata.namespace,
        name=model.metadata.name,
        slots=spec.slots,
        resources=wishes.pairs(spec.resources),
        skills=frozenset(spec.skills),
        labels=wishes.pairs({**labels, POOL_LABEL: model.metadata.name}),
        elastic=scaling is not None,
        minimum=scaling.min_replicas if scaling else spec.replicas,
        maximum=scaling.max_replicas if scaling else spec.replicas,
        scale_down_delay=scaling.scale_down_delay_seconds if scaling else 0.0,
        template=template_hash(model),
        reported_labels=frozenset(spec.reported_labels),
        cost_per_hour=spec.cost_per_hour,
        watts_busy=spec.watts_busy,
        watts_idle=spec.watts_idle,
        quality=spec.quality,
        target_queue=scaling.target_queue_seconds if scaling else 0.0,
        scale_up_delay=float(scaling.scale_up_stabilization_seconds) if scaling else 0.0,
        breaker=_breaker(spec.breaker) if spec.breaker.enabled else None,
        slow_start=float(spec.slow_start_seconds),
    )


def performance(obj: Obj) -> tuple[TypePerformance, ...]:
    """What a pool's status tells of the types that ran there. What is not of this release's form is left out."""
    found = []
    for each in (obj.get("status") or _NOTHING).get("performance") or ():
        try:
            told = (float(each.get("meanSeconds") or 0), float(each.get("deviationSeconds") or 0))
            found.append(TypePerformance(each["type"], each["count"], *told, float(each["successRate"])))
        except (AttributeError, KeyError, TypeError, ValueError):
            continue
    return tuple(found)


def _breaker(spec: agentpool.Breaker) -> Breaker:
    return Breaker(
        failure_ratio=spec.failure_ratio,
        min_attempts=spec.min_attempts,
        window_seconds=float(spec.window_seconds),
        open_seconds=spec.open_seconds,
        max_open_seconds=spec.max_open_seconds,
        probes=spec.probes,
        most_open_percent=spec.max_open_percent,
    )


def template_hash(pool: AgentPool) -> str:
    """Return ten hex digits of all that shapes a pod: agents of another hash are out of date."""
    try:
        shape = {
            "template": pool.spec.template.to_wire(),
            "slots": pool.spec.slots,
            "skills": pool.spec.skills,
            "resources": pool.spec.resources,
        }
        canonical = json.dumps(shape, sort_keys=True, separators=(",", ":"))
    except (ValueError, RecursionError) as error:  # pydantic gives up on depth with a ValueError
        raise Unreadable(Reason.INVALID_TEMPLATE, reading.too_deep("spec.template")) from error
    if nesting.too_deep(canonical):
        raise Unreadable(Reason.INVALID_TEMPLATE, reading.too_deep("spec.template"))
    return hashlib.sha256(canonical.encode()).hexdigest()[:10]


def observed_pod(obj: Obj) -> ObservedPod:
    """A pod of a pool, and how its agent container does."""
    metadata = obj["metadata"]
    labels = metadata.get("labels") or _NOTHING
    status = obj.get("status") or _NOTHING
    over = status.get("phase") in ("Succeeded", "Failed")
    container = _agent_status(obj, status)
    state = container.get("state") or _NOTHING
    return ObservedPod(
        uid=metadata["uid"],
        namespace=metadata["namespace"],
        name=metadata["name"],
        pool=labels.get(POOL_LABEL, ""),
        template=labels.get(TEMPLATE_LABEL, ""),
        topology=tuple((key, labels[key]) for key in TOPOLOGY if key in labels),
        created=seconds(metadata.get("creationTimestamp")),
        ready=_ready(obj, status, container),
        trouble=trouble_of(status, seconds),
        foreign=labels.get(POOL_LABEL, "") != _maker(metadata),
        deleting="deletionTimestamp" in metadata,
        ended=over,
        still_held=still_held.read(
            metadata.get("annotations") or _NOTHING, metadata["namespace"], metadata["uid"], metadata["name"]
        ),
        removed_by=_mark(metadata.get("annotations") or _NOTHING),
        may_run=bool((obj.get("spec") or _NOTHING).get("nodeName"))
        and not ("terminated" in state or (over and "running" not in state)),
        ended_instances=tuple(
            name
            for each in (state, container.get("lastState") or _NOTHING)
            if (name := instance_of((each.get("terminated") or _NOTHING).get("message")))
        ),
    )


def _maker(metadata: Obj) -> str:
    """The pool that made the pod, by the reference that its garbage collection goes by; empty if none did."""
    owners = metadata.get("ownerReferences") or ()
    return next((str(o.get("name")) for o in owners if o.get("controller") and o.get("kind") == api.AgentPool.kind), "")


def _ready(obj: Obj, status: Obj, agent: Obj) -> bool:
    """Whether the pod is ready, or would be but for what the agent's own probe says.

    That probe asks the agent whether it is connected and takes work. The leader hears so from the agent itself, some
    seconds sooner: after a change of leader all agents are unready for the kubelet, and would have to wait for it.
    """
    conditions = {c["type"]: c["status"] == "True" for c in status.get("conditions") or ()}
    if conditions.get("Ready"):
        return True
    spec = obj.get("spec") or _NOTHING
    name = agent.get("name")
    probe = next((c.get("readinessProbe") for c in spec.get("containers") or () if c["name"] == name), None)
    if ((probe or _NOTHING).get("httpGet") or _NOTHING).get("path") != AGENT_READY_PATH:
        return False
    others = [each for each in status.get("containerStatuses") or () if each is not agent]
    return (
        "running" in (agent.get("state") or _NOTHING)
        and agent.get("started") is not False
        and len(others) + 1 == len(spec["containers"])
        and all(each.get("ready") for each in others)
        and all(conditions.get(gate["conditionType"]) for gate in spec.get("readinessGates") or ())
    )


def _mark(annotations: Obj) -> int:
    mark = annotations.get(REMOVED_BY_ANNOTATION) or ""
    # Whatever else somebody wrote there is a mark of nobody's leadership, and as good as an old one.
    return int(mark) if mark.isascii() and mark.isdecimal() and len(mark) < 18 else int(bool(mark))


def _agent_status(obj: Obj, status: Obj) -> Obj:
    # The kubelet sorts statuses by name, so "the first" is a matter of the spec.
    containers = (obj.get("spec") or _NOTHING).get("containers") or ()
    names = [each["name"] for each in containers]
    name = AGENT_CONTAINER if AGENT_CONTAINER in names or not names else names[0]
    return next((each for each in status.get("containerStatuses") or () if each["name"] == name), _NOTHING)


def _route(route: api.Route) -> Route:
    match = route.match
    return Route(
        route.name,
        tuple(RouteStep(tuple(step.pools), step.after_seconds, step.strategy) for step in route.steps),
        Match(
            labels=wishes.selector(match.to_wire()),
            types=frozenset(match.types),
            levels=frozenset(level.level for level in match.levels),
            tenants=frozenset(match.tenants),
            min_slots=match.min_slots or 1,
            max_slots=match.max_slots,
        ),
    )


def _limits(limits: taskqueue.Limits | None) -> Quota:
    return Quota(limits.waiting, limits.leased, limits.slots, limits.payload_bytes) if limits else Quota()


def _rate(rate: taskqueue.TokenRate | None) -> TokenRate | None:
    return TokenRate(rate.per_second, rate.burst) if rate else None


def _parents(spec: Obj, status: Obj) -> tuple[Parent, ...]:
    """What a Task depends on, as its status pins it."""
    if not spec.get("dependsOn"):
        return ()
    pinned = {each["name"]: each for each in status.get("dependencies") or ()}
    return tuple(
        Parent(each["name"], pin.get("uid") or "", task_status.PHASES.get(pin.get("phase") or ""))
        for each in spec["dependsOn"]
        for pin in (pinned.get(each["name"]) or _NOTHING,)
    )
