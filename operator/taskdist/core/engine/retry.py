"""What follows an attempt that ended without a result: another one, when, or the end.

Owns the retry rule. Refuses to know where the Task ran or who writes the outcome.
"""

from taskdist.api import Delivery, OnExhausted, Phase, Reason
from taskdist.core.decisions import Fail, Retry
from taskdist.core.events import AttemptFailed
from taskdist.core.model import Queue, RetryPolicy, Task
from taskdist.core.primitives.hashing import hashed


def back_off(policy: RetryPolicy, failures: int) -> float:
    """Seconds to wait after failure number `failures` (from 1): min(max, initial × factor^(failures − 1))."""
    seconds = policy.initial_seconds
    for _ in range(failures - 1):
        # Step by step, not as a power: large exponents would overflow long after the bound was passed.
        if seconds >= policy.max_seconds or policy.factor == 1:
            break
        seconds *= policy.factor
    return min(policy.max_seconds, seconds)


def jittered(policy: RetryPolicy, uid: str, failures: int) -> float:
    """Seconds to wait, spread: back_off × (1 − jitter × u), with u in [0, 1) out of a hash of uid and `failures`.

    A jitter of 1 is the "full jitter" of Marc Brooker, "Exponential Backoff And Jitter" (AWS Architecture Blog, 2015),
    0.5 its "equal jitter". The core has no chance of its own: a hash spreads as well, and is the same each time it is
    asked, so that a replay decides alike.
    """
    if not policy.jitter:
        return back_off(policy, failures)
    return back_off(policy, failures) * (1.0 - policy.jitter * hashed(f"{uid}/{failures}") / 2.0**64)


def after_failure(task: Task, queue: Queue, event: AttemptFailed, now: float) -> Retry | Fail:
    """Answer a failed attempt.

    The death of an agent that had not died of this Task before says more of the agent than of the Task: it is no
    failure, but `agent_deaths` different agents end the Task as poisoned. A second death of the same agent is a
    failure, so that the end comes in any case. Back-off counts both.

    An attempt that says it is throttled is no failure either, until the Task has been put off for as long as its queue
    allows.

    At most once errs towards failing: an attempt that may have started is not started again, even where its end
    says nothing against the Task.
    """
    policy = queue.retry
    new_death = bool(event.died) and event.died not in task.deaths
    deaths = (*task.deaths, event.died) if new_death else task.deaths
    failures = task.failures + (event.counted and not new_death)
    last = event.message or event.reason.value

    def end(reason: Reason, message: str) -> Fail:
        phase = Phase.DEAD_LETTERED if policy.on_exhausted is OnExhausted.DEAD_LETTER else Phase.FAILED
        return Fail(task.uid, failures, reason, message, phase, deaths)

    if not event.retryable:
        return end(event.reason, last)
    if (queue.delivery is Delivery.AT_MOST_ONCE or event.once) and event.started:
        return end(
            event.reason, f"Not tried again, because its queue delivers at most once. The attempt ended so: {last}"
        )
    if event.put_off > 0.0:
        put_off = task.put_off + event.put_off
        if put_off <= policy.throttled_seconds:
            message = f"Throttled: tried again after {event.put_off:.4g} s. {last}"
            return Retry(task.uid, now + event.put_off, task.failures, event.reason, message, task.deaths, put_off)
        last = f"throttled, and put off for longer than the {policy.throttled_seconds:.4g} s of its queue: {last}"
    if not event.counted:
        return Retry(task.uid, now, failures, event.reason, last, deaths)
    if policy.reasons and event.reason not in policy.reasons:
        return end(event.reason, f"Not tried again, because its queue's retry.reasons lack {event.reason}: {last}")
    if new_death and len(deaths) >= policy.agent_deaths:
        message = f"{len(deaths)} agents died while they ran it, as many as its queue allows. The last: {last}"
        return end(Reason.POISONED, message)
    if not new_death and failures > policy.limit:
        message = f"Failed {failures} times, the queue allows {policy.limit} retries. Last failure: {last}"
        return end(Reason.RETRIES_EXHAUSTED, message)
    wait = jittered(policy, task.uid, failures + len(deaths))
    message = f"Tried again after {wait:.3g} s. Last failure: {last}"
    return Retry(task.uid, now + wait, failures, event.reason, message, deaths)
