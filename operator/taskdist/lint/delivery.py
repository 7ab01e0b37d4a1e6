"""Rules on delivery: choices of a queue that take back what another one promises, or that bring nothing."""

from collections.abc import Iterator

from taskdist.api import Delivery, Dispatch, Reclaim
from taskdist.lint.findings import Flaw, Mend, Severity, number, patch, rule
from taskdist.lint.setup import Setup, TaskDoc

# A Lazy queue records what still runs after so many seconds.
RECORDED_AFTER = 1.0


@rule(Severity.HINT)
def retries_at_most_once(setup: Setup) -> Iterator[Flaw]:
    """A queue that delivers at most once, and retries.

    An attempt that may have started is never tried again there, whatever `retry.limit` says. The limit still counts for
    attempts that surely did not start, such as one whose agent was gone when it was sent.
    """
    for queue in setup.queues.values():
        limit = queue.rules.retry.limit
        if queue.rules.delivery is Delivery.AT_MOST_ONCE and limit > 0:
            mend = Mend("Say that nothing is tried again.", patch("spec.retry.limit", 0))
            message = f"{limit} retries, of attempts that never started only: the queue delivers at most once"
            yield Flaw(queue.manifest, "spec.retry.limit", message, mend)


@rule(Severity.HINT)
def keys_in_a_lazy_queue(setup: Setup) -> Iterator[Flaw]:
    """A Task with a key in a Lazy queue.

    Tasks with a concurrencyKey, an orderingKey or an idempotencyKey are recorded before they are sent all the same: for
    them Lazy saves no write.
    """
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        if queue is None or queue.rules.dispatch is not Dispatch.LAZY:
            continue
        keys = _keys(doc)
        if keys:
            message = f"it is recorded first, though queue {queue.rules.name} is Lazy"
            mend = Mend("Leave the key out if it is not needed; or say Strict.", patch(f"spec.{keys[0]}", None))
            if len(keys) > 1:
                mend = Mend("Put such Tasks into a Strict queue.", patch("spec.dispatch", "Strict"), queue.manifest)
            yield Flaw(doc.manifest, f"spec.{keys[0]}", message, mend)


@rule(Severity.HINT)
def lazy_for_long_work(setup: Setup) -> Iterator[Flaw]:
    """A Lazy queue for work that takes longer than a second.

    Lazy saves the write of the assignment only for Tasks that end within a second; longer ones are recorded then. What
    it costs, a Task that may run twice around a change of leader, is paid for nothing.
    """
    for queue in setup.queues.values():
        service = queue.rules.expected_service
        if queue.rules.dispatch is Dispatch.LAZY and service > RECORDED_AFTER:
            said = "" if "expectedServiceSeconds" in queue.manifest.body["spec"] else " (the default)"
            message = f"work takes about {number(service)} s{said}, and is recorded after 1 s anyway"
            mend = Mend(
                "Record first; or say in expectedServiceSeconds that it is short.", patch("spec.dispatch", "Strict")
            )
            yield Flaw(queue.manifest, "spec.dispatch", message, mend)


@rule(Severity.WARNING)
def overlap_with_keys(setup: Setup) -> Iterator[Flaw]:
    """A key that says "one after the other" in a queue that accepts overlap.

    With `reclaim: Fast` a Task goes to another agent as soon as the connection is lost, while the first may still run
    it: two holders of one key at once.
    """
    for doc in setup.tasks.values():
        queue = setup.queue_of(doc.task)
        if queue is None or queue.rules.reclaim is not Reclaim.FAST:
            continue
        keys = [key for key in _keys(doc) if key != "idempotencyKey"]
        if keys:
            message = f"queue {queue.rules.name} reclaims Fast: two agents may hold the key at once"
            mend = Mend("Let leases run out first.", patch("spec.reclaim", "Lease"), queue.manifest)
            yield Flaw(doc.manifest, f"spec.{keys[0]}", message, mend)


@rule(Severity.WARNING)
def fast_at_most_once(setup: Setup) -> Iterator[Flaw]:
    """Fast reclaim in a queue that delivers at most once.

    A lost attempt is failed there, not given to another agent. Fast fails it at the first hiccup of a connection, when
    it may still run and succeed.
    """
    for queue in setup.queues.values():
        if queue.rules.reclaim is Reclaim.FAST and queue.rules.delivery is Delivery.AT_MOST_ONCE:
            mend = Mend("Wait for the lease, or for the pod's end.", patch("spec.reclaim", "Lease"))
            yield Flaw(queue.manifest, "spec.reclaim", "a lost connection fails the Task for good", mend)


def _keys(doc: TaskDoc) -> list[str]:
    return [key for key in ("orderingKey", "concurrencyKey", "idempotencyKey") if doc.spec.get(key)]


RULES = (
    retries_at_most_once,
    keys_in_a_lazy_queue,
    lazy_for_long_work,
    overlap_with_keys,
    fast_at_most_once,
)
