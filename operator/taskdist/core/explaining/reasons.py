"""Why a Task waits: one reason, words that name what is missing, what would unblock it and the command that does.

Where reasons become words; status, events, metrics and the command repeat them. A gate that has its own room speaks for
itself, and so does what agents lack; the rest is said here. Refuses to change anything, and to look at single agents:
what it says costs as much as there are classes of them.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from taskdist.api import Reason
from taskdist.core import commands
from taskdist.core.decisions import Explanation
from taskdist.core.explaining.unschedulable import of_own_reservation, of_patience, of_shape, served, with_route
from taskdist.core.explaining.wording import clock, duration
from taskdist.core.fleet.catalogue import Catalogue
from taskdist.core.limits.blockers import (
    Blocker,
    FewSlots,
    Forbidden,
    FullEmergency,
    FullQuota,
    FullSlots,
    NoToken,
)
from taskdist.core.limits.limits import Limits
from taskdist.core.model import Key, Task
from taskdist.core.ordering.dependencies import Dependencies, Gate
from taskdist.core.ordering.line_limits import LineLimits

if TYPE_CHECKING:
    from taskdist.core.ordering.lines import TaskRecord
    from taskdist.core.placement.reservations import Reservation


def why(
    record: "TaskRecord",
    catalogue: Catalogue,
    limits: Limits,
    dependencies: Dependencies,
    reservations: "Iterable[Reservation]",
    now: float,
) -> Explanation:
    """Explain why a waiting Task is not running."""
    task = record.task
    if record.blocker is not None:
        return of_limit(task, record.blocker, now)
    if record.gate is not None:
        gate = dependencies.gate(task.uid)
        if gate is not None and gate.reason is record.gate:
            return of_dependency(task, gate)
        if record.gate is Reason.OUT_OF_TURN:
            return of_turn(task, *limits.turn(task))
        return of_gate(task, record.gate, now)
    # A class that is closed or that no agent serves waits for that first, whatever its limits.
    held = list(reservations)
    if served(record.shape, catalogue, held):
        blocker = limits.holding(task, record.level, now)
        if blocker is not None:
            return of_limit(task, blocker, now)
    found = of_shape(record.shape, catalogue, held, task)
    if found.reason is Reason.AFFINITY_WAIT:
        return of_patience(found, record, now)
    found = with_route(found, record, now)
    mine = next((reservation for reservation in held if reservation.record is record), None)
    return found if mine is None else of_own_reservation(found, record, mine, now)


def by_reason(
    catalogue: Catalogue, limits: LineLimits, reservations: "Iterable[Reservation]"
) -> dict[tuple[Key, Reason], int]:
    """Count waiting Tasks by queue and the reason that `why` gives, each class of like Tasks at once."""
    counted: dict[tuple[Key, Reason], int] = {}

    def add(queue: Key, reason: Reason, tasks: int) -> None:
        if tasks:
            counted[queue, reason] = counted.get((queue, reason), 0) + tasks

    held = list(reservations)
    for shape in catalogue.shapes.values():
        if shape.eligible:
            free = shape.eligible
            for line in limits.lines(shape) if served(shape, catalogue, held) else ():
                for each in limits.of(line):
                    add(shape.queue_key, each.blocker.reason, each.tasks)
                    free -= each.tasks
            if free:
                add(shape.queue_key, of_shape(shape, catalogue, held).reason, free)
        for gate, tasks in shape.gated.items():
            add(shape.queue_key, gate, tasks)
    return counted


# What of the Task's own keeps it from being eligible.


def of_gate(task: Task, gate: Reason, now: float) -> Explanation:
    wait = max(0.0, task.not_before - now)
    match gate:
        case Reason.SUSPENDED:
            command = commands.taskdist("resume", task)
            return Explanation(gate, "The Task is suspended.", "Set spec.suspend to false.", command=command)
        case Reason.SCHEDULED:
            return Explanation(
                gate,
                f"It is not to start before {clock(task.not_before)}, as its notBefore says: in {duration(wait)}.",
                "Wait, or create the Task again with an earlier notBefore.",
            )
        case Reason.BACKING_OFF:
            attempts = f"{task.failures} failed attempt{'s' if task.failures != 1 else ''}"
            return Explanation(
                gate,
                f"Tried again in {duration(wait)}, after {attempts}."
                if task.failures
                else f"Tried again in {duration(wait)}, after its agent died.",
                "Wait, or shorten the queue's retry back-off for later attempts.",
            )
        case Reason.THROTTLED:
            return Explanation(
                gate,
                f"Throttled: its handler put it off; tried again at {clock(task.not_before)}, in {duration(wait)}.",
                f"Wait. It was put off for {duration(task.put_off)} in all; from the queue's retry.throttledSeconds "
                "on, that counts as a failure.",
            )
        case Reason.RECOVERING:
            return Explanation(
                gate,
                "An earlier attempt may still run; it is waited for until its lease is surely over.",
                "Wait: at most the queue's holdSeconds, unless its reclaim is Confirmed.",
            )
        case Reason.UNREADABLE:
            return Explanation(
                gate,
                "It holds what this release cannot read, and is left as it is; an Event names the field.",
                "Run the release that wrote it, or delete the Task and create it again.",
            )
        case Reason.DUPLICATE:
            return Explanation(
                gate,
                "Another Task of its queue has the same idempotencyKey and is run; this one ends as that one does.",
                "Wait, or delete the other Task: then this one is run.",
            )
        case (
            Reason.WAITED_TOO_LONG
            | Reason.DEADLINE_HOPELESS
            | Reason.QUEUE_FULL
            | Reason.DEPENDENCY_FAILED
            | Reason.SKIPPED
            | Reason.CANCELLED
            | Reason.PAYLOAD_TOO_LARGE
            | Reason.PAYLOAD_TOO_DEEP
            | Reason.INVALID_SPEC
        ):
            return Explanation(gate, "It is not started any more; its end is being recorded.", "Wait a moment.")
        case _:
            return Explanation(gate, f"Waits for something outside the order of Tasks: {gate.value}.", "Wait.")


def of_dependency(task: Task, gate: Gate) -> Explanation:
    """Explain a gate of the dependencies in its own words; the command asks the parent it names, if that exists."""
    command = commands.taskdist("explain", task, gate.parent) if gate.parent else ""
    if gate.reason is Reason.DEPENDENCY_NOT_FOUND:
        command = ""  # it may yet be created
    elif gate.reason is Reason.DEPENDENCY_CYCLE:
        command = commands.taskdist("cancel", task)
    unblock = gate.unblock or "Wait a moment: its end is being recorded."
    return Explanation(gate.reason, gate.message, unblock, command=command)


def of_turn(task: Task, first: str, tasks: int) -> Explanation:
    return Explanation(
        Reason.OUT_OF_TURN,
        f"Tasks with the ordering key {task.ordering_key} run one after the other: it is the turn of {first}; "
        f"{tasks} of them have not ended.",
        f"Wait for {first} to end, or cancel it if it is stuck.",
        command=commands.taskdist("explain", task, first) if first else "",
    )


def of_limit(task: Task, blocker: Blocker, now: float) -> Explanation:
    """Explain a limit, in its own words."""
    message, unblock = blocker.describe(now)
    return Explanation(blocker.reason, message, unblock, command=_raise(task, blocker))


def _raise(task: Task, blocker: Blocker) -> str:
    """The command that raises the limit by as much as one Task needs, or a rate to twice of what it is.

    There is none where the limit says what there is rather than what is wanted: a budget of licences or of requests
    does not grow by being said to, and two Tasks of a key that one at a time may hold would do each other harm.
    """
    path: str
    value: object
    match blocker:
        case FullQuota():
            path, value = f"{blocker.scope.path}.leased", blocker.scope.leased + 1
        case FullSlots():
            path, value = f"{blocker.scope.path}.slots", blocker.scope.slots + task.slots
        case FewSlots():
            path, value = f"{blocker.scope.path}.slots", task.slots
        case FullEmergency():
            path, value = "spec.tenants.emergencyLeased", blocker.account.emergency + 1
        case NoToken() if (rate := blocker.scope.rate) is not None:
            path, value = f"{blocker.scope.rate_path}.perSecond", 2 * rate.per_second
        case Forbidden():
            return commands.patch_task(task, priority="Critical")
        case _:
            return ""
    return commands.patch_queue(blocker.book.rules.key, **commands.nested(path.removeprefix("spec."), value))
