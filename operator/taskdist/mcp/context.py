"""The tool *get_distribution_context*: all that agents need before they plan, in the form in which they ask for it.

    {"requesting_agent": "workflow-orchestrator", "request_type": "get_distribution_context",
     "payload": {"query": "Distribution context needed: task volumes, agent capacities, …"}}

The answer has the five parts that the query names: volumes, capacities, priority schemes, performance targets and
constraints. What is a field of a resource is told under its own name there, so that it can be looked up and changed.
"""

from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field

from taskdist.api import Priority, TaskQueue
from taskdist.common import times
from taskdist.mcp.forms import AGENT, Form, PeriodSeconds, QueueName
from taskdist.mcp.load_balancer import PoolState, pool_state
from taskdist.mcp.measuring import Figures, measure
from taskdist.mcp.progress import Numbers, numbers
from taskdist.mcp.reading import Reading

REQUEST_TYPE = "get_distribution_context"

DESCRIPTION = """\
What to know before work is planned, in one answer: task volumes (what waits, runs and ended, by queue and level), \
agent capacities (agents, slots, skills, cost of each pool), priority schemes (order, levels, shares, aging of each \
queue), performance targets (queue times, deadlines, what was measured beside them) and constraint requirements \
(quotas, rates, budgets, overflow, retries, routes). Send it as agents ask each other: requesting_agent, request_type \
"get_distribution_context", and payload with the query in your words. The query is not interpreted: all five parts \
are always told. payload.queue narrows it to one queue and its pools, payload.period_seconds says how far back to \
measure."""


class Payload(Form):
    """The query, and of which queue and period."""

    query: str = Field("", max_length=10_000, description="In your own words; all is told whatever it says.")
    queue: QueueName | None = None
    period_seconds: PeriodSeconds = 3600


RequestType = Annotated[Literal["get_distribution_context"], Field(description="What is asked for.")]
RequestingAgent = Annotated[str, Field(min_length=1, max_length=253, description="Who asks.")]


class QueueVolume(Form):
    """The Tasks of a queue, counted in its status."""

    queue: str
    waiting: int
    running: int
    dead_letters: int
    accepting: bool


class Volumes(Form):
    """The amount of work: what waits and runs now, what came in and ended within the period."""

    queues: list[QueueVolume]
    waiting_by_level: dict[str, int]
    created: int = Field(description="Tasks that came in within the period.")
    created_per_second: float
    measured: Numbers


class PriorityScheme(Form):
    """The order in which a queue's Tasks leave, and how tenants share it."""

    queue: str
    order: dict[str, Any]
    levels: list[str] = Field(description="Highest first. Emergency is for the tenants that the queue names.")
    weight: int
    tenants: dict[str, Any]
    aging: dict[str, Any]


class Targets(Form):
    """The aims of a queue: fields of its spec, as they are written there."""

    queue: str
    deadlines: dict[str, Any]
    expected_service_seconds: float
    timeouts: dict[str, Any]


class PoolTarget(Form):
    """The queue time that a pool is sized for."""

    pool: str
    target_queue_seconds: float = Field(description="How long 95% of its Tasks are to wait for room at most.")


class PerformanceTargets(Form):
    """Aims, and beside them what was measured within the period."""

    queues: list[Targets]
    pools: list[PoolTarget] | None = None
    deadline_success: float | None = None
    utilization: float | None = None
    completion: float | None = None


class Constraints(Form):
    """Bounds of a queue: fields of its spec, as they are written there."""

    queue: str
    paused: bool
    drained: bool
    pools: list[str]
    quota: dict[str, Any]
    rate: dict[str, Any]
    budgets: list[dict[str, Any]]
    overflow: dict[str, Any] | None = None
    routes: list[dict[str, Any]]
    retry: dict[str, Any]
    concurrency_limit: int
    delivery: str
    reclaim: str
    left: list[dict[str, Any]] | None = Field(None, description="What was left of rates and budgets, and when.")


class DistributionContext(Form):
    """The five parts of the answer: volumes, capacities, priorities, targets and constraints."""

    task_volumes: Volumes
    agent_capacities: list[PoolState]
    priority_schemes: list[PriorityScheme]
    performance_targets: PerformanceTargets
    constraint_requirements: list[Constraints]


class Answer(Form):
    """The context, and what could not be told of it."""

    agent: str = AGENT
    request_type: RequestType
    requesting_agent: RequestingAgent
    namespace: str
    at: str
    context: DistributionContext
    not_measured: dict[str, str]
    notes: list[str]


class Survey(NamedTuple):
    """The five parts, and the figures of the period that they were told from."""

    context: DistributionContext
    figures: Figures
    unreadable: list[str]
    """Queues and pools that could not be read, and why."""


async def survey(reading: Reading, queue: str | None, seconds: float, now: float) -> Survey:
    """Read and measure all five parts, of all queues or of one. Raises Refusal."""
    queues, odd = await reading.queues(queue)
    pools, odd_pools = await reading.pools()
    if queue is not None:
        named = {name for each in queues for name in _pools_of(each)}
        pools = [each for each in pools if each.metadata.name in named]
    figures = await measure(reading, seconds, now, queue=queue)
    scaled = [
        PoolTarget(pool=each.metadata.name, target_queue_seconds=each.spec.scaling.target_queue_seconds)
        for each in pools
        if each.spec.scaling is not None
    ]
    context = DistributionContext(
        task_volumes=Volumes(
            queues=[_volume(each) for each in queues],
            waiting_by_level=figures.waiting_by_level,
            created=figures.created,
            created_per_second=figures.created / max(1.0, figures.end - figures.begin),
            measured=numbers(figures),
        ),
        agent_capacities=[pool_state(each) for each in pools],
        priority_schemes=[_scheme(each) for each in queues],
        performance_targets=PerformanceTargets(
            queues=[_targets(each) for each in queues],
            pools=scaled or None,
            deadline_success=figures.deadline_success,
            utilization=figures.utilization,
            completion=figures.completion,
        ),
        constraint_requirements=[_constraints(each) for each in queues],
    )
    return Survey(context, figures, [*odd, *odd_pools])


async def distribution_context(
    reading: Reading, requesting_agent: str, request_type: RequestType, payload: Payload, now: float
) -> Answer:
    """Answer the query. Raises Refusal."""
    found = await survey(reading, payload.queue, payload.period_seconds, now)
    return Answer(
        request_type=request_type,
        requesting_agent=requesting_agent,
        namespace=reading.namespace,
        at=times.utc(now),
        context=found.context,
        not_measured=found.figures.unknown,
        notes=list(dict.fromkeys([*found.unreadable, *found.figures.notes])),
    )


def _pools_of(queue: TaskQueue) -> set[str]:
    return {*queue.spec.pools, *(name for route in queue.spec.routes for step in route.steps for name in step.pools)}


def _volume(queue: TaskQueue) -> QueueVolume:
    status = queue.status
    return QueueVolume(
        queue=queue.metadata.name,
        waiting=status.waiting,
        running=status.leased,
        dead_letters=status.dead_lettered,
        accepting=status.accepting,
    )


def _scheme(queue: TaskQueue) -> PriorityScheme:
    spec = queue.spec
    return PriorityScheme(
        queue=queue.metadata.name,
        order=spec.order.to_wire(),
        levels=[each.value for each in Priority],
        weight=spec.weight,
        tenants=spec.tenants.to_wire(),
        aging=spec.aging.to_wire(),
    )


def _targets(queue: TaskQueue) -> Targets:
    spec = queue.spec
    return Targets(
        queue=queue.metadata.name,
        deadlines=spec.deadlines.to_wire(),
        expected_service_seconds=spec.expected_service_seconds,
        timeouts=spec.timeouts.to_wire(),
    )


def _constraints(queue: TaskQueue) -> Constraints:
    spec = queue.spec
    return Constraints(
        queue=queue.metadata.name,
        paused=spec.paused,
        drained=spec.drained,
        pools=spec.pools,
        quota=spec.quota.to_wire(),
        rate=spec.rate.to_wire(),
        budgets=[each.to_wire() for each in spec.budgets],
        overflow=spec.overflow.to_wire() if spec.overflow else None,
        routes=[each.to_wire() for each in spec.routes],
        retry=spec.retry.to_wire(),
        concurrency_limit=spec.concurrency_limit,
        delivery=spec.delivery.value,
        reclaim=spec.reclaim.value,
        left=[each.to_wire() for each in queue.status.limits] or None,
    )
