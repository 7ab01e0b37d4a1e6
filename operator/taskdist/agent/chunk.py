"""A chunk of an array's items in a worker: the handler is called for each, one after the other, in the same process.

What one item raises fails that item. A cancel ends the chunk between two items: what is done is kept, and what was not
begun is given back. What is told of it all is bounded, however many items fail and whatever they return.
"""

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from taskdist.agent.attempt import Attempt, Reports
from taskdist.agent.invoke import invoke
from taskdist.agent.outcomes import Cancelled, Failed, Outcome, Returned
from taskdist.agent.place import NOWHERE, Place
from taskdist.agent.sdk import Agent, Context
from taskdist.api import Reason
from taskdist.api.task import MAX_RESULT_BYTES
from taskdist.protocol.arrays import account
from taskdist.protocol.arrays.account import MAX_ERROR_MESSAGE
from taskdist.protocol.arrays.chunk_results import ChunkResult, FailedItems, encode
from taskdist.protocol.arrays.indexes import IndexSet, Span

# How often it is told how many items are done.
TELL_SECONDS = 1.0
# Room for results: what is left of a result's bytes is for the items that failed and for those that are given back.
RESULTS_ROOM = MAX_RESULT_BYTES // 2
# With so many runs of failed items a chunk ends early, so that they can be told; the rest is given back.
MOST_FAILED_RUNS = 1000
# Failures are told apart by reason and message, as long as there are so few; the message of others is left out.
MOST_KINDS = 20
# What its array keeps of results in all.
KEPT_BYTES = account.MAX_RESULT_BYTES


@dataclass(slots=True)
class _Said:
    """What has become of the items so far."""

    results: dict[int, str] = field(default_factory=dict)
    room: int = RESULTS_ROOM
    largest: int = 0  # of them
    dropped: int = 0
    failed: dict[tuple[Reason, str, bool], list[int]] = field(default_factory=dict)
    runs: int = 0
    last_failed: int = -2
    used: dict[str, float] = field(default_factory=dict)

    def returned(self, index: int, body: bytes) -> None:
        if body == b"{}":
            return
        self.largest = max(self.largest, len(body) + 12)
        if (room := self.room - len(body) - 12) < 0:
            self.dropped += 1
            return
        self.results[index], self.room = body.decode(), room

    def fills(self, done: int, count: int) -> bool:
        """Return whether the next result may find no room, though the array could keep those of all its items."""
        return self.room < self.largest and (RESULTS_ROOM - self.room) * count <= KEPT_BYTES * done

    def fail(self, index: int, failed: Failed) -> None:
        kind = (failed.reason, failed.message[:MAX_ERROR_MESSAGE], failed.retryable)
        if kind not in self.failed and len(self.failed) >= MOST_KINDS:
            kind = (failed.reason, "", failed.retryable)
        self.failed.setdefault(kind, []).append(index)
        self.runs += index != self.last_failed + 1
        self.last_failed = index

    def result(self, left: IndexSet) -> ChunkResult:
        failed = tuple(
            FailedItems(IndexSet.of(items), reason, message, retryable)
            for (reason, message, retryable), items in self.failed.items()
        )
        return ChunkResult(self.results, failed, left, self.dropped)


class _Stop:
    """The wish to stop: of the chunk, and of the item that is being run."""

    def __init__(self) -> None:
        self.reason = ""
        self.context: Context | None = None

    def cancel(self, reason: str) -> None:
        self.reason = reason
        if (context := self.context) is not None:
            context.cancel(reason)


def run_chunk(
    agent: Agent, attempt: Attempt, reports: Reports, runner: asyncio.Runner, place: Place
) -> tuple[Outcome, dict[str, float]]:
    """Call the handler for each item of the attempt's chunk.

    Returns:
        The outcome of the chunk, whose body says how each item ended, and what all of them used of budgets. An outcome
        without a body is of all items: none has ended.
    """
    chunk = attempt.chunk or {}
    items, payloads = IndexSet(tuple(Span(*span) for span in chunk["spans"])), _payloads(attempt)
    said, stop, total = _Said(), _Stop(), len(items)
    attempt.on_cancel(stop.cancel)
    attempt.started()
    done, tell_at = 0, time.monotonic() + TELL_SECONDS
    ended: Outcome = Returned(b"{}")
    for index in items:
        if said.runs >= MOST_FAILED_RUNS or said.fills(done, chunk["count"]):
            break
        context = Context(
            task=attempt.task,
            namespace=attempt.namespace,
            uid=attempt.uid,
            attempt=attempt.attempt,
            type=attempt.type,
            report=_alone(reports, attempt) if total == 1 else _silent,
            agent=attempt.agent,
            parents=attempt.parents,
            index=index,
            count=chunk["count"],
        )
        stop.context = context
        if stop.reason:  # asked after the context is known, so that no wish to stop is missed
            break
        place.put(done)
        ended = invoke(agent, next(payloads), context, runner)
        for name, amount in context.usage.items():
            said.used[name] = said.used.get(name, 0) + amount
        if isinstance(ended, Returned):
            said.returned(index, ended.body)
        elif isinstance(ended, Cancelled):
            said.fail(index, Failed(Reason.GIVEN_BACK, ended.message))
        elif ended.reason is Reason.THROTTLED:
            break  # what it needs takes no more for now: so it is for the items behind it
        else:
            said.fail(index, ended)
        done += 1
        if (now := time.monotonic()) >= tell_at:
            tell_at = now + TELL_SECONDS
            reports.put(attempt, done / total, f"{done} of {total} items")
    place.put(NOWHERE)
    reports.drop()
    if not done and not isinstance(ended, Returned):
        return ended, said.used
    if not done and stop.reason:
        return Cancelled("stopped before its first item"), said.used
    return Returned(encode(said.result(items - items.take(done)))), said.used


def _payloads(attempt: Attempt) -> Iterator[bytes]:
    """Yield the payload of each item: its own, or the one that all share."""
    sizes, at = (attempt.chunk or {}).get("sizes") or (), 0
    while not sizes:
        yield attempt.payload
    for size in sizes:
        yield attempt.payload[at : at + size]
        at += size


def _silent(_fraction: float, _message: str) -> None:
    """Take no word of a single item's progress: the chunk's is how many items are done."""


def _alone(reports: Reports, attempt: Attempt) -> Callable[[float, str], None]:
    """An item that is a chunk of its own speaks for it."""
    return lambda fraction, message: reports.put(attempt, fraction, message)
