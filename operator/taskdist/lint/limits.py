"""Rules on limits that contradict each other, or that leave something without a bound."""

from collections.abc import Iterator
from math import ceil

from taskdist.lint.findings import Flaw, Mend, Severity, number, patch, rule
from taskdist.lint.setup import CAP, QueueDoc, Setup

_QUOTA = {"waiting": "waiting", "leased": "leased", "slots": "slots", "payloadBytes": "payload_bytes"}

# From so many starts a second on, a bucket of one token fills faster than agents and API server answer.
FAST = 10.0
# A hard cap is well above the marks with so many times their sum: ended Tasks count too.
ROOM = 2


@rule(Severity.WARNING)
def tenant_limit_above_queue(setup: Setup) -> Iterator[Flaw]:
    """A tenant may have more than the whole queue.

    The queue's bound comes first, so that the tenant's never does anything.
    """
    for queue in setup.queues.values():
        for name, attribute in _QUOTA.items():
            whole, own = (getattr(each, attribute) for each in (queue.rules.quota, queue.rules.tenant_quota))
            if whole is not None and own is not None and own > whole:
                path = f"spec.quota.perTenant.{name}"
                message = f"{own} is more than the queue's, {whole}"
                yield Flaw(queue.manifest, path, message, Mend("Lower it.", patch(path, max(1, whole // 2))))
        rate, each = queue.rules.rate, queue.rules.tenant_rate
        if rate is not None and each is not None and each.per_second > rate.per_second:
            path = "spec.rate.perTenant.perSecond"
            message = f"{number(each.per_second)} is more than the queue's, {number(rate.per_second)}"
            yield Flaw(queue.manifest, path, message, Mend("Lower it.", patch(path, number(rate.per_second / 2))))


@rule(Severity.ERROR)
def task_above_quota(setup: Setup) -> Iterator[Flaw]:
    """A Task needs more than its queue, or its tenant, may have at once.

    More slots than the quota: it waits for ever (QuotaExceeded). A larger payload than all together may have: the queue
    is too full for it even when it is empty (QueueFull).
    """
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        if queue is None:
            continue
        for scope, quota in (("spec.quota", queue.rules.quota), ("spec.quota.perTenant", queue.rules.tenant_quota)):
            if quota.slots is not None and doc.task.slots > quota.slots:
                mend = Mend("Raise the quota.", patch(f"{scope}.slots", doc.task.slots), queue.manifest)
                message = f"{doc.task.slots} slots; the queue's {scope.removeprefix('spec.')}.slots is {quota.slots}"
                yield Flaw(doc.manifest, "spec.slots", message, mend)
            size = doc.task.payload_bytes
            if quota.payload_bytes is not None and size > quota.payload_bytes:
                mend = Mend("Raise the quota.", patch(f"{scope}.payloadBytes", size), queue.manifest)
                message = (
                    f"{size} bytes; the queue's {scope.removeprefix('spec.')}.payloadBytes is {quota.payload_bytes}"
                )
                yield Flaw(doc.manifest, "spec.payload", message, mend)


@rule(Severity.HINT)
def key_limit_above_quota(setup: Setup) -> Iterator[Flaw]:
    """More Tasks of one concurrencyKey may run than Tasks in all.

    The quota comes first, so that the key never holds anything back.
    """
    for queue in setup.queues.values():
        leased = queue.rules.quota.leased
        if leased is not None and queue.rules.concurrency_limit > leased:
            message = f"{queue.rules.concurrency_limit} is more than the queue's quota.leased, {leased}"
            mend = Mend("Lower it.", patch("spec.concurrencyLimit", max(1, leased // 2)))
            yield Flaw(queue.manifest, "spec.concurrencyLimit", message, mend)


@rule(Severity.HINT)
def emergency_cap_above_quota(setup: Setup) -> Iterator[Flaw]:
    """More Emergency Tasks of a tenant may run than the quota lets run in all.

    Emergency obeys quotas, so its own cap never does anything.
    """
    for queue in setup.queues.values():
        quotas = [each.leased for each in (queue.rules.quota, queue.rules.tenant_quota) if each.leased is not None]
        cap = queue.rules.emergency_leased
        if quotas and queue.rules.emergency and cap > min(quotas):
            message = f"{cap} is more than quota.leased, {min(quotas)}"
            mend = Mend("Lower it.", patch("spec.tenants.emergencyLeased", max(1, min(quotas) // 2)))
            yield Flaw(queue.manifest, "spec.tenants.emergencyLeased", message, mend)


@rule(Severity.HINT)
def rate_without_a_burst(setup: Setup) -> Iterator[Flaw]:
    """A high rate whose bucket holds one token.

    Tokens that come while the one is there are lost. At 10 a second and more, agents that end together or an API server
    that answers late lose many, and the rate is not reached. A burst of a second's worth keeps them.
    """
    for queue in setup.queues.values():
        for name, rate in (("queue", queue.rules.rate), ("perTenant", queue.rules.tenant_rate)):
            if rate is not None and rate.burst == 1 and rate.per_second >= FAST:
                message = f"1 at once, at {number(rate.per_second)} a second"
                path = f"spec.rate.{name}.burst"
                yield Flaw(
                    queue.manifest, path, message, Mend("Keep a second's worth.", patch(path, ceil(rate.per_second)))
                )


@rule(Severity.WARNING)
def high_water_above_quota(setup: Setup) -> Iterator[Flaw]:
    """The queue is full before its high water mark.

    `quota.waiting` closes it at fewer Tasks, and opens it again at nine tenths of that: the marks never do anything.
    """
    for queue in setup.queues.values():
        overflow, most = queue.rules.overflow, queue.rules.quota.waiting
        if overflow is not None and most is not None and overflow.high_water > most:
            mend = Mend("Leave the quota out: the mark is the bound.", patch("spec.quota.waiting", None))
            message = f"{overflow.high_water} is more than quota.waiting, {most}"
            yield Flaw(queue.manifest, "spec.overflow.highWater", message, mend)


@rule(Severity.WARNING)
def water_marks_equal(setup: Setup) -> Iterator[Flaw]:
    """The queue opens where it closes.

    While it is full, each Task that leaves opens it and each that comes closes it: its status is written twice a Task,
    and clients are refused at random. Marks apart let it rest (hysteresis).
    """
    for queue in setup.queues.values():
        overflow = queue.rules.overflow
        if overflow is not None and overflow.low_water == overflow.high_water:
            low = overflow.high_water * 3 // 4
            mend = Mend("Set it to three quarters of the high mark.", patch("spec.overflow.lowWater", low))
            yield Flaw(queue.manifest, "spec.overflow.lowWater", f"it is highWater, {overflow.high_water}", mend)


@rule(Severity.WARNING)
def hard_cap_too_low(setup: Setup) -> Iterator[Flaw]:
    """A ResourceQuota on Tasks is reached before the queues are full.

    It is the hard cap for when the operator is away, and counts all Tasks of the namespace, ended ones included. Below
    the queues' high water marks it refuses Tasks with words that name no queue, and spilling never happens.
    """
    for cap in setup.caps:
        marks = [
            (doc.rules.name, most)
            for doc in setup.queues.values()
            if doc.rules.namespace == cap.manifest.namespace and (most := _full_at(doc)) is not None
        ]
        total = sum(most for _, most in marks)
        if marks and cap.most < total:
            names = ", ".join(f"{name} {most}" for name, most in marks)
            path = f"spec.hard.{CAP}"
            mend = Mend("Set it well above all marks together.", {"spec": {"hard": {CAP: str(ROOM * total)}}})
            yield Flaw(
                cap.manifest, path, f"{number(cap.most)} is less than the queues may hold waiting: {names}", mend
            )


def _full_at(queue: QueueDoc) -> int | None:
    """With how many waiting Tasks the queue is full."""
    marks = [queue.rules.quota.waiting, queue.rules.overflow.high_water if queue.rules.overflow is not None else None]
    return min((mark for mark in marks if mark is not None), default=None)


@rule(Severity.HINT)
def queue_without_a_bound(setup: Setup) -> Iterator[Flaw]:
    """Nothing bounds how many Tasks wait.

    If agents are away for a night, Tasks pile up in etcd, for the whole cluster. A high water mark refuses new ones at
    the API server, in words that say why.
    """
    capped = {cap.manifest.namespace for cap in setup.caps}
    for queue in setup.queues.values():
        if _full_at(queue) is None and queue.rules.namespace not in capped:
            change = patch("spec.overflow", {"highWater": 10_000, "lowWater": 7_500})
            mend = Mend("Say when it is full.", change)
            yield Flaw(queue.manifest, "spec.overflow", "neither overflow nor quota.waiting is set", mend)


RULES = (
    tenant_limit_above_queue,
    task_above_quota,
    key_limit_above_quota,
    emergency_cap_above_quota,
    rate_without_a_burst,
    high_water_above_quota,
    water_marks_equal,
    hard_cap_too_low,
    queue_without_a_bound,
)
