"""Rules on order: levels, shares and deadlines that have no effect where they are said, and Tasks that may starve."""

from collections.abc import Iterator

from taskdist.api import OrderPolicy, Priority, TaskQueueSpec
from taskdist.core.model import EMERGENCY, NORMAL
from taskdist.core.order import is_emergency
from taskdist.lint.findings import Flaw, Mend, Severity, patch, rule
from taskdist.lint.setup import QueueDoc, Setup

_DEFAULTS = TaskQueueSpec(pools=["any"])


@rule(Severity.ERROR)
def emergency_not_allowed(setup: Setup) -> Iterator[Flaw]:
    """A Task of the level Emergency whose tenant its queue does not name.

    It waits for ever (TenantNotAllowed). A Task without a tenant is on the account of its namespace.
    """
    for doc in setup.tasks.values():
        queue, tenant = setup.queue_of(doc.task), doc.task.tenant
        if queue is None or not is_emergency(queue.rules, doc.task) or tenant in queue.rules.emergency:
            continue
        if not tenant and queue.rules.emergency:
            continue  # nobody said which namespace that is
        named = ", ".join(sorted(queue.rules.emergency)) or "nobody"
        allowed = [*sorted(queue.rules.emergency), *([tenant] if tenant else [])]
        mend = (
            Mend("Name the tenant there, or use Critical.", patch("spec.tenants.emergency", allowed), queue.manifest)
            if tenant
            else Mend("Use Critical, or name the tenant in the queue.", patch("spec.priority", "Critical"))
        )
        message = f"queue {queue.rules.name} lets {named} use Emergency, not tenant {tenant or '(its namespace)'}"
        yield Flaw(doc.manifest, "spec.priority", message, mend)


@rule(Severity.WARNING)
def priority_ignored(setup: Setup) -> Iterator[Flaw]:
    """A Task's priority in a queue that does not look at it.

    A Fifo or DeadlineFirst queue competes at one level, `order.level`, with all of its Tasks.
    """
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        if queue is not None and not queue.levelled and doc.task.priority != NORMAL:
            message = f"it does nothing: queue {queue.rules.name} is {queue.rules.policy}"
            mend = Mend("Leave it out, or let the queue order by Priority.", patch("spec.priority", None))
            yield Flaw(doc.manifest, "spec.priority", message, mend)


@rule(Severity.WARNING)
def deadline_ignored(setup: Setup) -> Iterator[Flaw]:
    """A Task's deadline in a Fifo queue.

    Fifo goes by creation: the deadline brings nothing forward. Only once it cannot be met any more does it count, and
    the Task goes behind the others or ends, as `deadlines.onHopeless` says.
    """
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        if queue is not None and queue.rules.policy is OrderPolicy.FIFO and doc.task.deadline is not None:
            message = f"it brings nothing forward: queue {queue.rules.name} is Fifo"
            mend = Mend("Order by latest start.", patch("spec.order.policy", "DeadlineFirst"), queue.manifest)
            yield Flaw(doc.manifest, "spec.deadline", message, mend)


@rule(Severity.WARNING)
def tenants_ignored(setup: Setup) -> Iterator[Flaw]:
    """Tenants' weights, or who may use Emergency, in a queue that knows neither.

    A Fifo or DeadlineFirst queue serves all tenants in one line and has no level Emergency.
    """
    for queue in setup.queues.values():
        if queue.levelled:
            continue
        tenants = queue.spec.tenants
        for path, said, empty in (
            ("spec.tenants.weights", bool(tenants.weights), None),
            ("spec.tenants.defaultWeight", tenants.default_weight != 1, None),
            ("spec.tenants.emergency", bool(tenants.emergency), None),
        ):
            if said:
                mend = Mend("Leave it out, or order by Priority.", patch(path, empty))
                yield Flaw(queue.manifest, path, f"it does nothing: the queue is {queue.rules.policy}", mend)


@rule(Severity.HINT)
def aging_ignored(setup: Setup) -> Iterator[Flaw]:
    """Aging in a queue whose Tasks have no levels.

    A Fifo or DeadlineFirst queue stays at its level; within it, what waits comes first anyway.
    """
    for queue in setup.queues.values():
        step = queue.spec.aging.step_seconds
        if not queue.levelled and step not in (0, _DEFAULTS.aging.step_seconds):
            mend = Mend("Leave it out.", patch("spec.aging.stepSeconds", None))
            yield Flaw(queue.manifest, "spec.aging.stepSeconds", f"it does nothing: {_kind(queue)}", mend)


@rule(Severity.HINT)
def level_ignored(setup: Setup) -> Iterator[Flaw]:
    """A level of the queue that has no effect.

    `order.level` is for Fifo and DeadlineFirst queues; in others each Task has its own. Emergency is for Tasks of
    tenants that were allowed it, so that a queue gets to Critical at most.
    """
    for queue in setup.queues.values():
        level = queue.rules.level
        if queue.levelled and level != NORMAL:
            mend = Mend("Leave it out, and set the Tasks' priority.", patch("spec.order.level", None))
            yield Flaw(queue.manifest, "spec.order.level", f"it does nothing: {_kind(queue)}", mend)
        elif not queue.levelled and level >= EMERGENCY:
            mend = Mend("Say what it is.", patch("spec.order.level", "Critical"))
            yield Flaw(queue.manifest, "spec.order.level", "a queue competes at Critical at most", mend)


@rule(Severity.WARNING)
def low_levels_without_aging(setup: Setup) -> Iterator[Flaw]:
    """Tasks of the lowest levels in a queue where waiting lifts nobody.

    With `aging.stepSeconds: 0` a Task at Background or Low runs only when nothing above it can: while work comes as
    fast as it is done, never.
    """
    for queue in setup.queues.values():
        if not queue.levelled or queue.rules.aging_step > 0:
            continue
        low = [doc for doc in setup.tasks_of(queue.rules.key) if doc.task.priority < NORMAL]
        if low:
            names = sorted({Priority.of(doc.task.priority).value for doc in low})
            message = f"nothing lifts its Tasks at {' and '.join(names)}, such as {low[0].task.name}"
            mend = Mend("Let waiting lift them.", patch("spec.aging.stepSeconds", _DEFAULTS.aging.step_seconds))
            yield Flaw(queue.manifest, "spec.aging.stepSeconds", message, mend)


def _kind(queue: QueueDoc) -> str:
    return f"the queue is {queue.rules.policy}"


RULES = (
    emergency_not_allowed,
    priority_ignored,
    deadline_ignored,
    tenants_ignored,
    aging_ignored,
    level_ignored,
    low_levels_without_aging,
)
