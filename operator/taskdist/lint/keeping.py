"""Rules on what is kept: ended Tasks and dead letters stand in etcd until something takes them away."""

from collections.abc import Iterator

from taskdist.api import OnExhausted, OnHopeless
from taskdist.lint.findings import Flaw, Mend, Severity, patch, rule
from taskdist.lint.setup import QueueDoc, Setup

WEEK = 604_800
HOUR = 3_600


@rule(Severity.WARNING)
def dead_letters_for_ever(setup: Setup) -> Iterator[Flaw]:
    """Dead letters that nothing takes away.

    Each keeps its payload and its whole history, until somebody redrives or deletes it.
    """
    for queue in setup.queues.values():
        if _dead_letters(queue) and queue.spec.dead_letter_ttl_seconds is None:
            mend = Mend("Keep them for a week.", patch("spec.deadLetterTtlSeconds", WEEK))
            yield Flaw(queue.manifest, "spec.deadLetterTtlSeconds", "is not set: dead letters are kept for ever", mend)


@rule(Severity.HINT)
def no_dead_letters(setup: Setup) -> Iterator[Flaw]:
    """A time to live for dead letters in a queue that makes none.

    A Task becomes one only with `retry.onExhausted` or `deadlines.onHopeless` DeadLetter.
    """
    for queue in setup.queues.values():
        if not _dead_letters(queue) and queue.spec.dead_letter_ttl_seconds is not None:
            mend = Mend("Make dead letters, or leave it out.", patch("spec.retry.onExhausted", "DeadLetter"))
            yield Flaw(queue.manifest, "spec.deadLetterTtlSeconds", "it does nothing: there are no dead letters", mend)


@rule(Severity.HINT)
def ended_for_ever(setup: Setup) -> Iterator[Flaw]:
    """Ended Tasks that nothing takes away.

    They stay until somebody deletes them; etcd and every list grow. A ResourceQuota on Tasks counts them too: once they
    fill it, the namespace takes no new ones.
    """
    capped = {cap.manifest.namespace for cap in setup.caps}
    for queue in setup.queues.values():
        if queue.spec.ttl_seconds_after_finished is None:
            full = queue.rules.namespace in capped
            message = "is not set: ended Tasks are kept for ever" + (", and fill the ResourceQuota" if full else "")
            mend = Mend("Keep them for an hour.", patch("spec.ttlSecondsAfterFinished", HOUR))
            severity = Severity.WARNING if full else None
            yield Flaw(queue.manifest, "spec.ttlSecondsAfterFinished", message, mend, severity)


@rule(Severity.HINT)
def ended_gone_at_once(setup: Setup) -> Iterator[Flaw]:
    """Ended Tasks that are deleted before anybody reads their result.

    0 means at once. A client that waits for a Task sees it vanish, without its result.
    """
    for manifest, ttl in (
        *((doc.manifest, doc.spec.ttl_seconds_after_finished) for doc in setup.queues.values()),
        *((doc.manifest, doc.record.ttl) for doc in setup.tasks.values()),
    ):
        if ttl == 0:
            mend = Mend("Keep them for a minute.", patch("spec.ttlSecondsAfterFinished", 60))
            yield Flaw(manifest, "spec.ttlSecondsAfterFinished", "0: who waits for a result may miss it", mend)


def _dead_letters(queue: QueueDoc) -> bool:
    exhausted, hopeless = queue.spec.retry.on_exhausted, queue.spec.deadlines.on_hopeless
    return exhausted is OnExhausted.DEAD_LETTER or hopeless is OnHopeless.DEAD_LETTER


RULES = (
    dead_letters_for_ever,
    no_dead_letters,
    ended_for_ever,
    ended_gone_at_once,
)
