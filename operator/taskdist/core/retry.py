"""What follows an attempt that ended without a result: another one, when, or the end.

Owns the retry rule. Refuses to know where the Task ran or who writes the outcome.
"""

from taskdist.api import Delivery, Reason
from taskdist.core.decisions import Fail, Retry
from taskdist.core.events import AttemptFailed
from taskdist.core.model import Queue, RetryPolicy, Task


def back_off(policy: RetryPolicy, failures: int) -> float:
    """Seconds to wait after failure number `failures` (from 1): min(max, initial × factor^(failures − 1))."""
    seconds = policy.initial_seconds
    for _ in range(failures - 1):
        # Step by step, not as a power: large exponents would overflow long after the bound was passed.
        if seconds >= policy.max_seconds or policy.factor == 1:
            break
        seconds *= policy.factor
    return min(policy.max_seconds, seconds)


def after_failure(task: Task, queue: Queue, event: AttemptFailed, now: float) -> Retry | Fail:
    """Answer a failed attempt.

    At most once errs towards failing: an attempt that may have started is not started again, even where its end
    says nothing against the Task.
    """
    failures = task.failures + event.counted
    last = event.message or event.reason.value
    if not event.retryable:
        return Fail(task.uid, failures, event.reason, last)
    if queue.delivery is Delivery.AT_MOST_ONCE and event.started:
        message = f"Not tried again, because its queue delivers at most once. The attempt ended so: {last}"
        return Fail(task.uid, failures, event.reason, message)
    if not event.counted:
        return Retry(task.uid, now, failures, event.reason, last)
    if failures > queue.retry.limit:
        message = f"Failed {failures} times, the queue allows {queue.retry.limit} retries. Last failure: {last}"
        return Fail(task.uid, failures, Reason.RETRIES_EXHAUSTED, message)
    wait = back_off(queue.retry, failures)
    return Retry(task.uid, now + wait, failures, event.reason, f"Tried again after {wait:g} s. Last failure: {last}")
