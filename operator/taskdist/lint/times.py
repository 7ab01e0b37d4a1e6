"""Rules on time: deadlines, limits, back-off. What takes how long is what the manifests say, nothing was observed."""

from collections.abc import Iterator
from datetime import UTC, datetime

from taskdist.core.engine.retry import back_off
from taskdist.lint.findings import Flaw, Mend, Severity, number, patch, rule
from taskdist.lint.setup import Setup


@rule(Severity.WARNING)
def deadline_too_tight(setup: Setup) -> Iterator[Flaw]:
    """A deadline that leaves less time than such work takes, or that is over already.

    Counted from now, or from notBefore, with the queue's expectedServiceSeconds or the execution limit, if that is
    shorter. By that it is late from the start; once even a quick run would be, it goes after those that can be in time,
    or ends as the queue's `deadlines.onHopeless` says.
    """
    for doc in setup.tasks.values():
        deadline, queue = doc.task.deadline, setup.queue_of(doc.task)
        if deadline is None or doc.running or (doc.spec.get("notBefore") and deadline <= doc.task.not_before):
            continue  # the last is another rule's: no work could be in time
        if deadline <= doc.begins:
            ago = _span(setup.now - deadline) if deadline < setup.now else "0 s"
            mend = Mend("Set it later, or leave it out.", patch("spec.deadline", None))
            yield Flaw(doc.manifest, "spec.deadline", f"it was over {ago} ago", mend)
            continue
        if queue is None:
            continue
        execution = setup.timeouts(doc).execution
        service = queue.rules.expected_service
        if execution is not None:
            service = min(service, execution)
        if deadline - doc.begins < service:
            since = "notBefore" if doc.task.not_before > setup.now else "now"
            message = (
                f"it leaves {_span(deadline - doc.begins)} from {since}; work of queue {queue.rules.name} takes about "
                f"{_span(service)}"
            )
            mend = Mend(
                "Set it later; or, if the work is shorter, say so in the queue's expectedServiceSeconds.",
                patch("spec.deadline", _time(doc.begins + 2 * service)),
            )
            yield Flaw(doc.manifest, "spec.deadline", message, mend)


@rule(Severity.WARNING)
def execution_limit_above_deadline(setup: Setup) -> Iterator[Flaw]:
    """An attempt may run longer than there is time until the deadline.

    One that hangs is stopped only when the Task is late, and is never tried again in time.
    """
    for doc in setup.tasks.values():
        deadline, limit = doc.task.deadline, setup.timeouts(doc).execution
        if deadline is None or limit is None or deadline <= doc.begins or limit <= deadline - doc.begins:
            continue
        window = deadline - doc.begins
        own = doc.record.execution_limit is not None
        message = f"an attempt may run for {_span(limit)}, and the deadline leaves {_span(window)}"
        mend = Mend(
            "Stop attempts while there is time for another.", patch("spec.timeouts.executionSeconds", _half(window))
        )
        yield Flaw(
            doc.manifest,
            "spec.timeouts.executionSeconds" if own else "spec.deadline",
            message if own else f"{message}: its queue says so",
            mend,
            None if own else Severity.HINT,
        )


@rule(Severity.WARNING)
def execution_limit_below_service(setup: Setup) -> Iterator[Flaw]:
    """Attempts are stopped before typical work is done.

    The execution limit is shorter than the queue's expectedServiceSeconds: one of the two is wrong. If the estimate is,
    latest starts and pool sizes are computed from it.
    """
    for queue in setup.queues.values():
        limit, service = queue.rules.timeouts.execution, queue.rules.expected_service
        if limit is not None and limit < service:
            written = "expectedServiceSeconds" in queue.manifest.body["spec"]
            message = f"{_span(limit)} is less than expectedServiceSeconds, {_span(service)}"
            mend = (
                Mend("Allow three times what is typical.", patch("spec.timeouts.executionSeconds", number(3 * service)))
                if written
                else Mend("Say what is typical.", patch("spec.expectedServiceSeconds", number(limit / 3)))
            )
            said = message if written else f"{message} (the default)"
            yield Flaw(queue.manifest, "spec.timeouts.executionSeconds", said, mend)


@rule(Severity.WARNING)
def progress_limit_without_effect(setup: Setup) -> Iterator[Flaw]:
    """The limit between two words of progress is not shorter than the one of the whole attempt.

    The execution limit always comes first, so that it never stops an attempt that hangs.
    """
    for queue in setup.queues.values():
        limits = queue.rules.timeouts
        if limits.progress is not None and limits.execution is not None and limits.progress >= limits.execution:
            message = f"{_span(limits.progress)} is not less than executionSeconds, {_span(limits.execution)}"
            mend = Mend("Lower it.", patch("spec.timeouts.progressSeconds", _half(limits.execution)))
            yield Flaw(queue.manifest, "spec.timeouts.progressSeconds", message, mend)
    for doc in setup.tasks.values():
        limits = setup.timeouts(doc)
        own = doc.record.progress_limit is not None or doc.record.execution_limit is not None
        if not own or limits.progress is None or limits.execution is None or limits.progress < limits.execution:
            continue
        message = f"{_span(limits.progress)} without progress is not less than {_span(limits.execution)} in all"
        mend = Mend("Lower it.", patch("spec.timeouts.progressSeconds", _half(limits.execution)))
        yield Flaw(doc.manifest, "spec.timeouts.progressSeconds", message, mend)


@rule(Severity.ERROR)
def waiting_limit_before_start(setup: Setup) -> Iterator[Flaw]:
    """A Task must have started before it may.

    Its limit of waiting counts from its creation, and is over before notBefore: it ends as WaitedTooLong, never tried.
    """
    for doc in setup.tasks.values():
        limit = setup.timeouts(doc).waiting
        held = doc.task.not_before - doc.task.created
        if limit is not None and doc.spec.get("notBefore") and held >= limit and not doc.task.attempted:
            message = f"it must have started after {_span(limit)}, and may only after {_span(held)}"
            mend = Mend("Raise it.", patch("spec.timeouts.waitingSeconds", round(held + max(60.0, limit))))
            yield Flaw(doc.manifest, "spec.timeouts.waitingSeconds", message, mend)


@rule(Severity.HINT)
def waiting_limit_after_deadline(setup: Setup) -> Iterator[Flaw]:
    """A Task is given up only after its deadline.

    Its limit of waiting is longer than the time until its deadline: it may still start when it is late. That is right
    if a late result is worth something.
    """
    for doc in setup.tasks.values():
        deadline, limit = doc.task.deadline, doc.task.waiting_limit
        if deadline is None or limit is None or deadline <= doc.task.created:
            continue
        window = deadline - doc.task.created
        if limit > window:
            message = f"it is given up after {_span(limit)}, and late after {_span(window)}"
            mend = Mend(
                "Give it up with its deadline.", patch("spec.timeouts.waitingSeconds", number(int(window) or window))
            )
            yield Flaw(doc.manifest, "spec.timeouts.waitingSeconds", message, mend)


@rule(Severity.WARNING)
def backoff_outlasts_deadline(setup: Setup) -> Iterator[Flaw]:
    """A Task that fails once is late before it is tried again.

    The queue's first back-off, less all its jitter, is longer than the time from the Task's start to its deadline.
    """
    for doc in setup.tasks.values():
        deadline, queue = doc.task.deadline, setup.queue_of(doc.task)
        if deadline is None or queue is None or queue.rules.retry.limit == 0 or deadline <= doc.begins:
            continue
        retry, window = queue.rules.retry, deadline - doc.begins
        shortest = back_off(retry, 1) * (1 - queue.spec.retry.jitter)
        if shortest > window:
            message = f"the deadline leaves {_span(window)}, the first back-off takes {_span(shortest)}"
            mend = Mend("Shorten the back-off.", patch("spec.retry.initialSeconds", _tenth(window)), queue.manifest)
            yield Flaw(doc.manifest, "spec.deadline", message, mend)


@rule(Severity.WARNING)
def retries_without_a_pause(setup: Setup) -> Iterator[Flaw]:
    """What fails is tried again at once, as often as the limit allows.

    With `initialSeconds: 0` every back-off is 0, whatever the factor: an outage of a second uses all retries up.
    """
    for queue in setup.queues.values():
        if queue.rules.retry.limit > 0 and back_off(queue.rules.retry, queue.rules.retry.limit) == 0:
            field = "initialSeconds" if queue.rules.retry.initial_seconds == 0 else "maxSeconds"
            change = {"initialSeconds": 1, "maxSeconds": max(300, queue.spec.retry.max_seconds)}
            mend = Mend("Wait a second at first.", patch("spec.retry", change))
            message = f"{queue.rules.retry.limit} retries, one right after the other"
            yield Flaw(queue.manifest, f"spec.retry.{field}", message, mend)


def _half(seconds: float) -> float:
    return number(seconds / 2)


def _tenth(seconds: float) -> float:
    return number(max(0.001, seconds / 10))


def _time(seconds: float) -> str:
    # Rounded up: it is to leave as much time as is said.
    return datetime.fromtimestamp(-(-seconds // 1), UTC).isoformat().replace("+00:00", "Z")


def _span(seconds: float) -> str:
    """A time as people say it."""
    for size, name in ((86400.0, "days"), (3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{number(round(seconds / size, 1))} {name}"
    return f"{number(round(seconds, 3))} s"


RULES = (
    deadline_too_tight,
    execution_limit_above_deadline,
    execution_limit_below_service,
    progress_limit_without_effect,
    waiting_limit_before_start,
    waiting_limit_after_deadline,
    backoff_outlasts_deadline,
    retries_without_a_pause,
)
