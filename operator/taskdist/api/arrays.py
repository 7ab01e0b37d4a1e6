"""Array Tasks: one Task that stands for many items, handed out in chunks."""

from datetime import datetime
from typing import Annotated, Any

from pydantic import Field, StringConstraints

from taskdist.api.attempts import AttemptRecord, Progress
from taskdist.api.leasing import LeaseTerms
from taskdist.api.meta import ANY_JSON_OBJECT, AS_SET, Model
from taskdist.api.reasons import Phase, Reason

MAX_ITEMS = 1_000_000
# Items that stand in the spec itself; all of them together are bounded as a payload is.
MAX_INLINE_ITEMS = 10_000
MAX_PARTS = 1000
# Indexes as ranges: as long as 2,000 runs of failed items and as many between them can be.
IndexRanges = Annotated[str, StringConstraints(max_length=65536)]
PodUid = Annotated[str, Field(max_length=64)]


class Chunk(Model):
    """How many items are handed to an agent at once."""

    max_items: Annotated[int, Field(ge=1, le=100_000)] = Field(default=100_000, description="At most so many.")
    target_seconds: Annotated[float, Field(ge=0.001, le=86_400)] = Field(
        default=5.0,
        description="As many as take about this long, as items were seen to take so far. The first chunk has one item, "
        "and sizes grow eightfold at most, or double once they take a tenth of it.",
    )


class ArraySpec(Model):
    """The items. Each goes to the handler by itself, and is tried again by itself. Either count or items is set."""

    count: Annotated[int, Field(ge=1, le=MAX_ITEMS)] | None = Field(
        default=None, description="How many items there are. Each gets the Task's payload, and its index from 0."
    )
    items: Annotated[list[dict[str, Any]], Field(max_length=MAX_INLINE_ITEMS)] = Field(
        default_factory=list,
        description="The items themselves: JSON objects, which are payloads of the handler, of 64 KiB together.",
        json_schema_extra={"items": {"type": "object", **ANY_JSON_OBJECT}},
    )
    chunk: Chunk = Field(default_factory=Chunk, description="How many items an agent gets at once.")
    parallelism: Annotated[int, Field(ge=1, le=MAX_PARTS)] = Field(
        default=200, description="How many chunks may be with agents at once."
    )
    completions: Annotated[int, Field(ge=1, le=MAX_ITEMS)] | None = Field(
        default=None,
        description="With so many items succeeded the Task has Succeeded, and the others are not run. All, if absent.",
    )


class ArrayPart(Model):
    """A chunk that is with an agent, or waits to be tried again. Its fields mean what those of a Task's status mean."""

    items: IndexRanges = Field(description="Its items, as ranges of indexes.")
    item_failures: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How often each of them has failed by itself before."
    )
    phase: Phase = Field(default=Phase.PENDING, description="Assigned, or Pending while it waits for another try.")
    reason: Reason | None = Field(default=None, description="Why its last attempt ended.")
    attempt: Annotated[int, Field(ge=0)] = Field(default=0, description="How many leases were granted for it.")
    epoch: Annotated[int, Field(ge=0)] = Field(default=0, description="Number of the leadership that wrote it last.")
    agent: Annotated[str, Field(max_length=253)] = Field(default="", description="Pod of the agent that has it.")
    agent_uid: PodUid = Field(default="", description="Uid of that pod.")
    pool: Annotated[str, Field(max_length=63)] = Field(default="", description="Pool of that agent.")
    lease: LeaseTerms | None = Field(default=None, description="The rules of its present lease, as granted.")
    assigned_at: datetime | None = Field(default=None, description="When it was assigned last.")
    failures: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many of its attempts failed as a whole: the agent was lost, the process crashed."
    )
    retry_after: datetime | None = Field(default=None, description="It is not tried again before this time.")
    lost_agents: Annotated[list[PodUid], Field(max_length=16)] = Field(
        default_factory=list, description="Uids of the pods that died while they ran it.", json_schema_extra=AS_SET
    )
    throttled_seconds: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="For how long in all its handler has put it off."
    )
    spilled_to: Annotated[str, Field(max_length=63)] = Field(
        default="", description="The queue it waits in instead of its own, which was full."
    )
    cost: Annotated[float, Field(ge=0)] | None = Field(default=None, description="What its attempts have cost.")
    energy_wh: Annotated[float, Field(ge=0)] | None = Field(
        default=None, description="The watt-hours that its attempts took."
    )
    attempts: Annotated[list[AttemptRecord], Field(max_length=1)] = Field(
        default_factory=list, description="Its last attempt that ended without a result, in short."
    )
    progress: Progress | None = Field(default=None, description="Progress of its running attempt.")


class ArrayRetry(Model):
    """Items that failed, or were in a chunk that failed as a whole, and wait for another try."""

    failures: Annotated[int, Field(ge=0)] = Field(description="How often each of them has failed by itself.")
    not_before: datetime | None = Field(default=None, description="They are not tried again before this time.")
    items: IndexRanges = Field(description="The items, as ranges of indexes.")
    chunk_items: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="So many are handed out at once at most: half of those that were in the chunk that failed. 0: as "
        "many as fit.",
    )


class ArrayError(Model):
    """What was said of an item that failed for good."""

    index: Annotated[int, Field(ge=0)] = Field(description="Its index, or the first one of several.")
    reason: Annotated[str, Field(max_length=64)] = Field(description="Why it failed.")
    message: Annotated[str, Field(max_length=256)] = Field(default="", description="The same for people.")


class ArrayStatus(Model):
    """Where each item stands. What is in none of the sets and parts waits for its first try."""

    done: Annotated[str, Field(max_length=32)] = Field(
        default="", description="How many items have succeeded, of how many: 120/1000."
    )
    succeeded: IndexRanges = Field(default="", description="Items that have succeeded, as ranges: 0-99,105.")
    failed: IndexRanges = Field(default="", description="Items that have failed and are not tried again.")
    retrying: Annotated[list[ArrayRetry], Field(max_length=1000)] = Field(
        default_factory=list, description="Items that have failed and wait for another try."
    )
    parts: Annotated[dict[Annotated[str, Field(max_length=48)], ArrayPart], Field(max_length=MAX_PARTS + 1000)] = Field(
        default_factory=dict,
        description="Chunks that are with agents or wait to be tried again, by epoch and number.",
    )
    errors: Annotated[list[ArrayError], Field(max_length=16)] = Field(
        default_factory=list, description="What was said of the first items that failed for good."
    )
    results: Annotated[
        dict[Annotated[str, Field(max_length=8)], Annotated[str, Field(max_length=65536)]], Field(max_length=16384)
    ] = Field(
        default_factory=dict,
        description="What the handler returned, as JSON text by index; 60 KiB in all. Empty objects are left out.",
    )
    result_bytes: Annotated[int, Field(ge=0)] = Field(default=0, description="How much room the results take.")
    results_dropped: Annotated[int, Field(ge=0)] = Field(
        default=0, description="How many results are not kept, for lack of room."
    )
    commit: Annotated[str, Field(max_length=48)] = Field(
        default="", description="Epoch and number of the write that brought all this."
    )
