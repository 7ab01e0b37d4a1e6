"""Keys and slots that a deleted Task still holds while its agent stops it: noted as an annotation of the agent's pod.

The Task is gone from the API server, and its keys are not free yet. A leader that takes over reads it here, with the
pods, where no agent can write. It goes with the pod. One that nobody took away says no more than it did: the agent's
hello does not name the lease, and that ends it.
"""

from collections.abc import Mapping
from typing import Annotated

from pydantic import BaseModel, Field, ValidationError

from taskdist.api import GROUP, Delivery, Phase, Reclaim
from taskdist.core.model import Task
from taskdist.protocol.messages import LeaseName
from taskdist.protocol.observations import ObservedTask, Terms

PREFIX = f"held.{GROUP}/"
# As many of one pod are read. More than that at once is not this operator's work.
MOST_OF_A_POD = 64

# Anybody who may change pods can write such an annotation: values that no leader writes are left out.
_Seconds = Annotated[float, Field(ge=0, le=604800, allow_inf_nan=False)]
_Amount = Annotated[int, Field(ge=0, le=1_000_000_000)]
_Number = Annotated[int, Field(ge=0, le=2**63 - 1)]


class _Held(BaseModel):
    """The value of one annotation: what identifies the lease, and the keys and amounts that its Task holds."""

    name: str
    queue: str
    tenant: str
    slots: Annotated[int, Field(ge=1, le=1000)]
    attempt: _Number
    epoch: _Number
    pool: str
    leaseSeconds: _Seconds
    holdSeconds: _Seconds
    resources: tuple[tuple[str, _Amount], ...] = ()
    concurrencyKey: str | None = None
    orderingKey: str | None = None
    budgets: tuple[tuple[str, str, _Amount], ...] = ()
    idempotency: tuple[str, str] | None = None


def holds_keys(record: ObservedTask) -> bool:
    """Whether the Task holds anything that Tasks of other agents may wait for: a key, a budget, an idempotency key."""
    task = record.task
    return bool(task.concurrency_key or task.ordering_key or task.budgets or record.idempotency)


def annotation(uid: str) -> str:
    """Return the annotation's key for the Task of this uid."""
    return PREFIX + uid


def written(record: ObservedTask, name: LeaseName, pool: str, lease_seconds: float, hold_seconds: float) -> str:
    """Return the annotation's value for this lease of the Task."""
    task = record.task
    return _Held(
        name=task.name,
        queue=task.queue,
        tenant=task.tenant,
        slots=task.slots,
        attempt=name.attempt,
        epoch=name.epoch,
        pool=pool,
        leaseSeconds=lease_seconds,
        holdSeconds=hold_seconds,
        resources=task.resources,
        concurrencyKey=task.concurrency_key,
        orderingKey=task.ordering_key,
        budgets=task.budgets,
        idempotency=record.idempotency,
    ).model_dump_json(exclude_defaults=True)


def read(annotations: Mapping[str, str], namespace: str, pod_uid: str, pod_name: str) -> tuple[ObservedTask, ...]:
    """Return what the pod's annotations say, as Tasks that are assigned to it. What makes no sense is left out."""
    found: list[ObservedTask] = []
    for key, value in annotations.items():
        if key.startswith(PREFIX) and len(found) < MOST_OF_A_POD:
            try:
                held = _Held.model_validate_json(value)
            except ValidationError:
                continue
            found.append(_record(held, key.removeprefix(PREFIX), namespace, pod_uid, pod_name))
    return tuple(found)


def _record(held: _Held, uid: str, namespace: str, pod_uid: str, pod_name: str) -> ObservedTask:
    task = Task(
        uid,
        namespace,
        held.name,
        held.queue,
        "",
        0.0,
        slots=held.slots,
        tenant=held.tenant,
        resources=held.resources,
        concurrency_key=held.concurrencyKey,
        ordering_key=held.orderingKey,
        budgets=held.budgets,
    )
    return ObservedTask(
        task,
        0,
        Phase.ASSIGNED,
        attempt=held.attempt,
        epoch=held.epoch,
        agent_uid=pod_uid,
        agent_name=pod_name,
        pool=held.pool,
        idempotency=held.idempotency,
        deleting=True,
        terms=Terms(held.leaseSeconds, held.holdSeconds, Reclaim.LEASE, Delivery.AT_MOST_ONCE, True),
    )
