"""From what an agent or the operator says of a part to the end of each of its items, by the queue's retry rule."""

from collections.abc import Iterable

from taskdist.api import Phase, Reason
from taskdist.core.decisions import Retry
from taskdist.core.engine.retry import after_failure
from taskdist.core.events import AttemptFailed
from taskdist.core.model import Queue, Task
from taskdist.protocol.arrays.account import (
    MAX_ERROR_MESSAGE,
    MOST_RUNS,
    Account,
    Again,
    ArrayRules,
    ItemError,
    PartEnd,
    StoredPart,
    spread,
)
from taskdist.protocol.arrays.chunk_results import ChunkResult, FailedItems
from taskdist.protocol.arrays.indexes import IndexSet


def by_result(part: StoredPart, task: Task, queue: Queue, once: bool, result: ChunkResult, now: float) -> PartEnd:
    """Return how the items ended, of which the agent has sent a result.

    Args:
        part: as it stands.
        task: the part's.
        queue: whose retry rule holds, for each item that failed.
        once: whether the part was granted at most once.
        result: as the agent sent it.
        now: Unix seconds.
    """
    failed: list[IndexSet] = []
    again: list[Again] = []
    errors: list[ItemError] = []
    for each in result.failed:
        wait = _next_try(part.failures, task, queue, once, each, now)
        if wait is None:
            failed.append(each.items)
            errors += _told(each.items & part.items, each.reason, each.message)
        elif wait.failures > part.failures:
            again.append(wait)
    said = IndexSet.union((result.left, *(each.items for each in result.failed)))
    return PartEnd(
        part.items - said,
        IndexSet.union(failed),
        tuple(again),
        tuple(errors),
        result.results,
        result.dropped,
    )


def all_failed(part: StoredPart, reason: Reason, message: str) -> PartEnd:
    """Return the end of a part that is not tried again: each of its items has failed."""
    return PartEnd(failed=part.items, errors=_told(part.items, reason, message))


def end(account: Account, rules: ArrayRules, letter: bool) -> tuple[Phase, Reason, str] | None:
    """Return how an array ends, if its items say so by now; `letter`: what fails is kept as a dead letter."""
    succeeded, failed = len(account.succeeded), len(account.failed)
    told = f"{succeeded} of {rules.count} items succeeded"
    if succeeded >= rules.needed:
        return Phase.SUCCEEDED, Reason.COMPLETED, told
    if succeeded + failed < rules.count and account.runs <= MOST_RUNS:
        return None
    if succeeded + failed < rules.count:
        told += f", and more than {MOST_RUNS} runs of items failed here and there"
    message = f"{told}, {rules.needed} were to; {failed} failed: {spread(account.errors)}"
    return Phase.DEAD_LETTERED if letter else Phase.FAILED, Reason.RETRIES_EXHAUSTED, message


def halved(part: StoredPart, not_before: float) -> PartEnd:
    """Return the end of a part whose attempt was lost, or took too long: any of its items may be why.

    So it counts for none of them, and each half is handed out by itself. What is at fault is alone in a part some time.
    """
    return PartEnd(again=(Again(part.failures, not_before, part.items, len(part.items) // 2),))


def _next_try(failures: int, task: Task, queue: Queue, once: bool, each: FailedItems, now: float) -> Again | None:
    """Ask the retry rule about an item, as if it were a Task: when it is tried again, None if it is not.

    The spread of the waits comes from the part, so that what failed together is tried together.
    """
    item = Task(task.uid, task.namespace, task.name, task.queue, task.type, task.created, failures=failures)
    counted = each.reason is not Reason.GIVEN_BACK
    event = AttemptFailed(item.uid, each.reason, each.message, each.retryable, counted, once=once)
    answer = after_failure(item, queue, event, now)
    return Again(answer.failures, answer.not_before, each.items) if isinstance(answer, Retry) else None


def _told(items: IndexSet, reason: Reason, message: str) -> tuple[ItemError, ...]:
    first: Iterable[int] = items.take(1)
    return tuple(ItemError(index, str(reason), message[:MAX_ERROR_MESSAGE]) for index in first)
