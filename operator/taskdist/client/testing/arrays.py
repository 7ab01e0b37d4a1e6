"""Arrays in the cluster in memory: chunks of items, and what follows from how they end, by the operator's rules."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from taskdist.agent.outcomes import Cancelled, Failed, Outcome, Returned
from taskdist.api import OnExhausted, Phase, Reason
from taskdist.core.model import Queue
from taskdist.kube import Obj
from taskdist.protocol import convert, status
from taskdist.protocol.arrays import account as accounts
from taskdist.protocol.arrays import settling
from taskdist.protocol.arrays.chunk_results import ChunkResult, FailedItems, decode, encode
from taskdist.protocol.arrays.indexes import IndexSet
from taskdist.protocol.observations import ArrayView

MOST_ITEMS = 1024
"""Of one chunk."""


@dataclass(frozen=True, slots=True)
class Chunk:
    """Items that a thread runs."""

    key: str
    items: IndexSet
    payloads: Callable[[int], Any]
    count: int


def view(task: Obj) -> ArrayView:
    """Return how the items of an array stand."""
    array = convert.observed_task(task).array
    assert array is not None
    return array


def left(array: ArrayView) -> bool:
    """Return whether items wait that may be run now: failed ones at once, as of single Tasks."""
    return bool(array.account.untried or array.account.waiting_again)


def take(task: Obj, key: str, agent: str, slots: int) -> tuple[Chunk, dict[str, Any]] | None:
    """Return the next chunk, and what status is to say of it; None if there is none."""
    array, spec = view(task), task["spec"]
    account = array.account
    again = account.again[:1]
    waiting = again[0].items if again else account.untried
    if not waiting or len(account.parts) >= array.rules.parallelism or settling.end(account, array.rules, False):
        return None
    items = waiting.take(max(1, min(MOST_ITEMS, array.rules.most_items, -(-len(waiting) // slots))))
    part = {"phase": Phase.ASSIGNED.value, "attempt": 1, "epoch": 1, "agent": agent, "agentUid": agent}
    after = account.handed(key, items, again[0].failures if again else 0, part)
    own = spec["array"].get("items")
    chunk = Chunk(key, items, lambda index: own[index] if own else spec.get("payload") or {}, array.rules.count)
    told = {"phase": "Assigned", "reason": Reason.ASSIGNED.value, "message": None}
    return chunk, told | {"array": _patch(account, after)}


def over(task: Obj, chunk: Chunk, outcomes: dict[int, Outcome], dropped: int, queue: Queue) -> dict[str, Any]:
    """Return what status is to say once a chunk has ended: of the items that were not begun nothing."""
    array, record = view(task), convert.observed_task(task)
    stored = array.account.parts.get(chunk.key)
    if stored is None:
        return {}
    failed = tuple(
        FailedItems(IndexSet.span(index, index), each.reason, each.message, each.retryable)
        for index, each in outcomes.items()
        if isinstance(each, Failed)
    )
    given_back = IndexSet.of(index for index, each in outcomes.items() if isinstance(each, Cancelled))
    results = {
        index: each.body.decode()
        for index, each in outcomes.items()
        if isinstance(each, Returned) and each.body != b"{}"
    }
    begun = IndexSet.of(outcomes)
    said = decode(encode(ChunkResult(results, failed, (chunk.items - begun) | given_back, dropped)))
    end = settling.by_result(stored, record.task, queue, False, said, time.time())
    after = array.account.ended(chunk.key, end, time.time())
    told: dict[str, Any] = {"array": _patch(array.account, after)}
    if record.cancel:
        if not after.parts:
            message = f"cancelled: {len(after.succeeded)} of {after.count} items succeeded"
            told |= {"phase": "Cancelled", "reason": Reason.CANCELLED.value, "message": message}
        return told
    ending = settling.end(after, array.rules, queue.retry.on_exhausted is OnExhausted.DEAD_LETTER)
    if ending is not None and not after.parts:
        phase, reason, message = ending
        told |= {"phase": phase.value, "reason": reason.value, "message": message}
    return told


def redriven(task: Obj) -> dict[str, Any]:
    """Return what status is to say of a dead letter whose failed items are tried again."""
    account = view(task).account
    return {"array": _patch(account, account.redriven())}


def _patch(before: accounts.Account, after: accounts.Account) -> dict[str, Any]:
    return accounts.changes(before, after, status.timestamp) | {"commit": f"1-{time.monotonic_ns()}"}
